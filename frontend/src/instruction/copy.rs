//! `COPY [--from=…] source … destination`: files of the build context, of a stage or of an image.

use kiln_parser::Diagnostic;
use kiln_parser::ast::Copy;

use super::Context;
use super::transfer::{self, Transfer};
use crate::stage::Line;
use crate::state::StageState;
use crate::step::Input;

pub(super) fn lower(
    copy: &Copy,
    line: &Line<'_>,
    stage: &mut StageState,
    context: Context<'_>,
) -> Result<(), Diagnostic> {
    let transfer = Transfer {
        keyword: "COPY",
        sources: &copy.sources,
        destination: &copy.destination,
        chown: copy.chown.as_ref(),
        chmod: copy.chmod.as_ref(),
        input: Input::from_origin(line.from.as_ref()),
        unpack: false,
        link: transfer::is_on(copy.link.as_ref()),
        parents: transfer::is_on(copy.parents.as_ref()),
        exclude: &copy.exclude,
        remote: None,
    };
    transfer::lower(&transfer, line, stage, context)
}

#[cfg(test)]
mod tests {
    use crate::testing::{history, lowered, messages, names};

    #[test]
    fn the_history_leaves_from_out_and_has_values_for_variables() {
        let text = "FROM busybox AS s\nFROM busybox\nENV D=/d U=1:2\nCOPY --from=s --chown=$U /a* $D\n";
        let lowered = lowered(text);
        // Docker prints these.
        assert_eq!(history(&lowered)[1], "COPY --chown=1:2 /a* /d # buildkit");
        assert_eq!(
            names(&lowered).last().unwrap(),
            "[stage-1 2/2] COPY --from=s --chown=1:2 /a* /d"
        );
    }

    #[test]
    fn a_linked_layer_knows_no_names() {
        for good in ["0:root", "root", "5", "5:6", "$U", ":5"] {
            lowered(&format!(
                "FROM busybox\nENV U=7\nCOPY --link --chown={good} a /\n"
            ));
        }
        for (chown, name) in [("app", "app"), ("5:staff", "staff"), ("root:staff", "staff")] {
            let expected = format!(
                "--chown={chown} needs numbers together with --link: there is no image to look \"{name}\" up in"
            );
            let text = format!("FROM busybox\nENV U={chown}\nCOPY --link --chown=$U a /\n");
            assert_eq!(messages(&text), [expected]);
            lowered(&text.replace("--link", "--link=false"));
        }
    }

    #[test]
    fn several_sources_need_a_directory() {
        for good in [
            "a b ./",
            "a b .",
            "a b /x/",
            "a b /x/.",
            "a* /x",
            "--parents a b /x",
        ] {
            lowered(&format!("FROM busybox\nCOPY {good}\n"));
        }
        let message = "COPY with more than one source needs a directory as its destination";
        assert_eq!(messages("FROM busybox\nCOPY a b /x\n"), [message]);
    }
}
