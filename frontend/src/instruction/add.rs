//! `ADD source … destination`: as COPY from the build context, but tar archives are unpacked, and files and
//! repositories from elsewhere can be among the sources.

use kiln_parser::Diagnostic;
use kiln_parser::ast::Add;

use super::Context;
use super::remote::RemoteFlags;
use super::transfer::{self, RemoteSources, Transfer};
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
        remote: Some(RemoteSources {
            flags: RemoteFlags::of(add, stage, context)?,
            unpack: add.unpack.as_ref().is_some_and(|unpack| unpack.value),
        }),
    };
    transfer::lower(&transfer, line, stage, context)
}

#[cfg(test)]
mod tests {
    use kiln_solver::graph::{FileAction, Op};

    use crate::testing::{last_op, lowered};

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
}
