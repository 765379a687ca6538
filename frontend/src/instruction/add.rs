//! `ADD source … destination`: as COPY from the build context, but tar archives are unpacked.

use kiln_parser::Diagnostic;
use kiln_parser::ast::Add;

use super::Context;
use super::transfer::{self, Transfer};
use crate::stage::Line;
use crate::state::StageState;
use crate::step::Input;

pub(super) fn lower(
    add: &Add,
    line: &Line<'_>,
    stage: &mut StageState,
    context: Context<'_>,
) -> Result<(), Diagnostic> {
    let transfer = Transfer {
        keyword: "ADD",
        sources: &add.sources,
        destination: &add.destination,
        chown: add.chown.as_ref(),
        chmod: add.chmod.as_ref(),
        input: Input::Context,
        unpack: add.unpack.as_ref().is_none_or(|unpack| unpack.value),
        link: transfer::is_on(add.link.as_ref()),
        parents: false,
        exclude: &add.exclude,
        refuse,
    };
    transfer::lower(transfer, line, stage, context)
}

fn refuse(source: &str) -> Option<&'static str> {
    if transfer::is_git(source) {
        return Some("ADD of a git repository is not supported yet");
    }
    transfer::is_url(source).then_some("ADD of a URL is not supported yet")
}

#[cfg(test)]
mod tests {
    use kiln_solver::graph::{FileAction, Op};

    use crate::testing::{last_op, lowered, messages};

    #[test]
    fn archives_are_unpacked_unless_told_otherwise() {
        for (flag, expected) in [("", true), ("--unpack=true", true), ("--unpack=false", false)] {
            let lowered = lowered(&format!("FROM busybox\nADD {flag} a.tar /\n"));
            let Op::File(file) = last_op(&lowered) else {
                panic!("an ADD makes files")
            };
            let [FileAction::Copy(copy)] = file.actions.as_slice() else {
                panic!("it is one copy")
            };
            assert_eq!(copy.unpack, expected, "{flag}");
        }
    }

    #[test]
    fn remote_sources_are_refused_even_from_variables() {
        let text = "FROM busybox\nENV U=https://h/f\nADD $U /\nADD git@h:r /\n";
        assert_eq!(
            messages(text),
            [
                "ADD of a URL is not supported yet",
                "ADD of a git repository is not supported yet"
            ]
        );
    }
}
