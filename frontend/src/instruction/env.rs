//! `ENV key=value …`: sets variables of the image and of the steps after it.
//!
//! All values of one instruction see the environment from before it.

use kiln_parser::Diagnostic;
use kiln_parser::ast::Env;

use super::{Context, label};
use crate::state::StageState;

pub(super) fn lower(env: &Env, stage: &mut StageState, context: Context<'_>) -> Result<(), Diagnostic> {
    let pairs = label::expand(&env.pairs, "ENV", stage, context)?;
    for (name, value) in &pairs {
        stage.environment.set(name, value.clone());
        stage.set_image_variable(name, value);
    }
    stage.record(label::created_by("ENV", &pairs));
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::{history, lowered};

    #[test]
    fn all_values_see_the_environment_from_before() {
        let lowered = lowered("FROM busybox\nENV A=1\nENV A=2 B=$A\nENV PATH=$PATH:/x legacy=\"a b\"\n");
        assert_eq!(
            lowered.config.config.env,
            ["PATH=/bin:/x", "A=2", "B=1", "legacy=a b"]
        );
        assert_eq!(
            history(&lowered),
            ["- ENV A=1", "- ENV A=2 B=1", "- ENV PATH=/bin:/x legacy=a b"]
        );
    }
}
