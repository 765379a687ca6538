//! `MAINTAINER name`: the image's author. Deprecated in favour of a label, and never expanded.

use kiln_parser::Diagnostic;
use kiln_parser::ast::Maintainer;

use crate::state::StageState;

pub(super) fn lower(maintainer: &Maintainer, stage: &mut StageState) -> Result<(), Diagnostic> {
    stage.config.author = Some(maintainer.name.value.clone());
    stage.record(format!("MAINTAINER {}", maintainer.name.value));
    Ok(())
}
