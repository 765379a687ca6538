//! `ONBUILD instruction`: kept for the builds that start from this image. It leaves no history entry.

use kiln_parser::ast::Onbuild;

use crate::state::StageState;

pub(super) fn lower(onbuild: &Onbuild, stage: &mut StageState) {
    stage.config.config.on_build.push(onbuild.trigger.clone());
}

#[cfg(test)]
mod tests {
    use crate::testing::{FakeImage, FakeResolver, history, lower_with, lowered, names, options};

    #[test]
    fn triggers_are_kept_as_text_and_leave_no_history() {
        let lowered = lowered("FROM busybox\nONBUILD RUN echo  $A\nONBUILD COPY --from=later /x /x\n");
        assert_eq!(
            lowered.config.config.on_build,
            ["RUN echo  $A", "COPY --from=later /x /x"]
        );
        assert!(history(&lowered).is_empty());
    }

    #[test]
    fn a_trigger_runs_in_the_child_and_not_in_the_grandchild() {
        let parent = FakeImage {
            layers: 1,
            onbuild: vec!["RUN trigger".to_owned()],
            ..FakeImage::default()
        };
        let resolver = FakeResolver::new([("parent".to_owned(), parent)]);
        let lowered = lower_with(
            "FROM parent AS child\nRUN own\nFROM child\nRUN last\n",
            &options(),
            &resolver,
        );
        let lowered = lowered.unwrap();
        assert_eq!(
            names(&lowered)[1..],
            [
                "[child 2/3] ONBUILD RUN trigger",
                "[child 3/3] RUN own",
                "[stage-1 1/1] RUN last"
            ]
        );
        assert!(lowered.config.config.on_build.is_empty());
    }
}
