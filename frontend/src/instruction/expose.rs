//! `EXPOSE port[-port][/protocol] …`: ports that the image listens on. Metadata only.
//!
//! Words are expanded first and split then, so that one variable may hold several ports. Docker sorts the words
//! as written, variables and ranges still in them, and lists the ports in that order.

use kiln_parser::Diagnostic;
use kiln_parser::ast::Expose;
use kiln_parser::value::parse_ports;

use super::Context;
use crate::history;
use crate::state::StageState;

pub(super) fn lower(expose: &Expose, stage: &mut StageState, context: Context<'_>) -> Result<(), Diagnostic> {
    let mut words: Vec<_> = expose.ports.iter().collect();
    words.sort_by_key(|word| word.as_str());
    let mut ports: Vec<String> = Vec::new();
    for word in words {
        for text in context.expander.words(word, &stage.environment)? {
            let named = parse_ports(&text).map_err(|error| Diagnostic::error(word.span, error.to_string()))?;
            ports.extend((named.first..=named.last).map(|port| format!("{port}/{}", named.protocol)));
        }
    }
    stage.record(format!("EXPOSE {}", history::list(&ports)));
    stage.config.config.exposed_ports.extend(ports);
    Ok(())
}
