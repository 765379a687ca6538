//! `ONBUILD instruction`: kept for the builds that start from this image. It leaves no history entry.

use kiln_parser::Diagnostic;
use kiln_parser::ast::Onbuild;

use crate::state::StageState;

pub(super) fn lower(onbuild: &Onbuild, stage: &mut StageState) -> Result<(), Diagnostic> {
    stage.config.config.on_build.push(onbuild.trigger.clone());
    Ok(())
}
