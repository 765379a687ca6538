//! `STOPSIGNAL signal`: what stops a container; a name with or without `SIG`, or a number.

use kiln_parser::ast::Stopsignal;
use kiln_parser::value::{parse_signal, signal_names};
use kiln_parser::{Diagnostic, suggest};

use super::Context;
use crate::state::StageState;

pub(super) fn lower(
    stopsignal: &Stopsignal,
    stage: &mut StageState,
    context: Context<'_>,
) -> Result<(), Diagnostic> {
    let word = &stopsignal.signal;
    let signal = context.expander.word(word, &stage.environment)?;
    if parse_signal(&signal).is_none() {
        let error = Diagnostic::error(word.span, format!("{signal:?} is not a signal"));
        let name = signal.to_ascii_uppercase();
        let name = name.strip_prefix("SIG").unwrap_or(&name);
        return Err(match suggest::nearest(name, signal_names()) {
            Some(nearest) => error.hint(format!("did you mean SIG{nearest}?")),
            None => error.hint("a signal is a name such as SIGTERM, or a number from 1 to 64"),
        });
    }
    stage.record(format!("STOPSIGNAL {signal}"));
    stage.config.config.stop_signal = signal;
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::{history, lowered};

    #[test]
    fn the_signal_is_kept_as_written() {
        for (written, stored) in [
            ("SIGKILL", "SIGKILL"),
            ("9", "9"),
            ("$S", "term"),
            ("RTMIN+3", "RTMIN+3"),
        ] {
            let lowered = lowered(&format!("FROM busybox\nENV S=term\nSTOPSIGNAL {written}\n"));
            assert_eq!(lowered.config.config.stop_signal, stored);
            assert_eq!(history(&lowered)[1], format!("- STOPSIGNAL {stored}"));
        }
    }
}
