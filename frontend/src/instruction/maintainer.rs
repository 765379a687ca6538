//! `MAINTAINER name`: the image's author. Deprecated in favour of a label, and never expanded.

use kiln_parser::ast::Maintainer;

use crate::state::StageState;

pub(super) fn lower(maintainer: &Maintainer, stage: &mut StageState) {
    stage.config.author = Some(maintainer.name.value.clone());
    stage.record(format!("MAINTAINER {}", maintainer.name.value));
}

#[cfg(test)]
mod tests {
    use crate::testing::{history, lowered};

    #[test]
    fn the_author_is_not_expanded() {
        let lowered = lowered("FROM busybox\nENV A=1\nMAINTAINER Me $A <me@example.com>\n");
        assert_eq!(lowered.config.author.as_deref(), Some("Me $A <me@example.com>"));
        assert_eq!(history(&lowered)[1], "- MAINTAINER Me $A <me@example.com>");
    }
}
