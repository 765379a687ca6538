//! HEALTHCHECK.

use std::time::Duration;

use super::{Context, Parts, shorten};
use crate::ast::{CommandLine, Healthcheck, Probe};
use crate::span::Spanned;
use crate::{suggest, value};

impl Context<'_> {
    pub(super) fn healthcheck(&mut self, parts: &mut Parts) -> Option<Healthcheck> {
        let text = &parts.arguments.text;
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let kind = parts.arguments.slice(0..end);
        let start = text.len() - text[end..].trim_start().len();
        let rest = parts.arguments.slice(start..text.len());
        if kind.text.eq_ignore_ascii_case("none") {
            let mut fine = true;
            if !rest.text.is_empty() {
                self.error(rest.span, "HEALTHCHECK NONE takes no arguments");
                fine = false;
            }
            for (name, span) in parts.flags.written() {
                self.error(
                    span,
                    format!("HEALTHCHECK NONE takes no flags, and --{name} would have no effect"),
                );
                fine = false;
            }
            return fine.then_some(Healthcheck::None);
        }
        if !kind.text.eq_ignore_ascii_case("cmd") {
            let message = format!(
                "unknown type {:?} in HEALTHCHECK: CMD or NONE expected",
                shorten(&kind.text)
            );
            let hint = suggest::hint(&kind.text, ["CMD", "NONE"]);
            self.error_hint(
                kind.span,
                message,
                hint.unwrap_or_else(|| "write CMD in front of the command".into()),
            );
            return None;
        }
        let errors = self.diagnostics.len();
        let interval = self.duration(parts, "interval");
        let timeout = self.duration(parts, "timeout");
        let start_period = self.duration(parts, "start-period");
        let start_interval = self.duration(parts, "start-interval");
        let retries = self.retries(parts);
        let command = self.command_line(&rest)?;
        let empty = match &command {
            CommandLine::Shell(text) => text.text.is_empty(),
            CommandLine::Exec(strings) => strings.is_empty(),
        };
        if empty {
            self.error(kind.span, "missing command after HEALTHCHECK CMD");
        }
        let probe = Probe {
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
            command,
        };
        (self.diagnostics.len() == errors).then(|| Healthcheck::Probe(Box::new(probe)))
    }

    fn duration(&mut self, parts: &mut Parts, name: &str) -> Option<Spanned<Duration>> {
        let word = parts.flags.text(name)?;
        match value::parse_duration(&word.text) {
            Ok(duration) if !duration.is_zero() && duration < Duration::from_millis(1) => {
                self.error(word.span, format!("--{name} cannot be less than 1ms"));
                None
            }
            Ok(duration) => Some(Spanned::new(duration, word.span)),
            Err(error) => {
                let hint = "durations are numbers with units, such as 30s, 1m30s or 500ms";
                self.error_hint(word.span, format!("--{name}: {error}"), hint);
                None
            }
        }
    }

    fn retries(&mut self, parts: &mut Parts) -> Option<Spanned<u32>> {
        let word = parts.flags.text("retries")?;
        match word.text.parse::<i32>() {
            Ok(retries) if retries < 0 => {
                self.error(word.span, format!("--retries cannot be negative ({retries})"));
                None
            }
            Ok(retries) => Some(Spanned::new(retries.unsigned_abs(), word.span)),
            Err(_) => {
                self.error(
                    word.span,
                    format!("--retries: {:?} is no number", shorten(&word.text)),
                );
                None
            }
        }
    }
}
