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
            let named =
                parse_ports(&text).map_err(|error| Diagnostic::error(word.span, error.to_string()))?;
            ports.extend((named.first..=named.last).map(|port| format!("{port}/{}", named.protocol)));
        }
    }
    stage.record(format!("EXPOSE {}", history::list(&ports)));
    stage.config.config.exposed_ports.extend(ports);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::{history, lowered};

    #[test]
    fn ports_are_listed_in_the_order_of_the_words_as_text() {
        // Docker prints these two lists.
        for (ports, expected) in [
            (
                "80 443/tcp 53/udp 8000-8002 $NONE 9/TCP",
                "443/tcp 53/udp 80/tcp 8000/tcp 8001/tcp 8002/tcp 9/tcp",
            ),
            (
                "127.0.0.1:8080:80 90-92/udp 60",
                "80/tcp 60/tcp 90/udp 91/udp 92/udp",
            ),
        ] {
            let lowered = lowered(&format!("FROM busybox\nEXPOSE {ports}\n"));
            assert_eq!(history(&lowered), [format!("- EXPOSE [{expected}]")]);
        }
    }

    #[test]
    fn one_variable_may_hold_several_ports() {
        let lowered = lowered("FROM busybox\nENV P=\"81 80/udp\"\nEXPOSE $P\n");
        let ports: Vec<_> = lowered
            .config
            .config
            .exposed_ports
            .iter()
            .map(String::as_str)
            .collect();
        assert_eq!(ports, ["80/udp", "81/tcp"]);
    }
}
