//! `VOLUME path …`: paths that get volumes when a container runs. The build itself is not changed by it.

use kiln_parser::Diagnostic;
use kiln_parser::ast::Volume;

use super::Context;
use crate::history;
use crate::state::StageState;

pub(super) fn lower(volume: &Volume, stage: &mut StageState, context: Context<'_>) -> Result<(), Diagnostic> {
    let mut paths = Vec::with_capacity(volume.paths.len());
    for word in &volume.paths {
        let path = context.expander.word(word, &stage.environment)?;
        if path.is_empty() {
            return Err(Diagnostic::error(
                word.span,
                "the path of a VOLUME can not be empty",
            ));
        }
        paths.push(path);
    }
    stage.record(format!("VOLUME {}", history::list(&paths)));
    stage.config.config.volumes.extend(paths);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::{history, lowered};

    #[test]
    fn paths_are_expanded_and_collected() {
        let lowered = lowered("FROM busybox\nENV D=/data\nVOLUME $D /c\nVOLUME [\"/with space\"]\n");
        let volumes: Vec<_> = lowered.config.config.volumes.iter().map(String::as_str).collect();
        assert_eq!(volumes, ["/c", "/data", "/with space"]);
        // Docker prints them in the order of writing, without quotes.
        assert_eq!(
            history(&lowered)[1..],
            ["- VOLUME [/data /c]", "- VOLUME [/with space]"]
        );
    }
}
