//! Instructions of words or of a single text: MAINTAINER, USER, WORKDIR, STOPSIGNAL, EXPOSE, VOLUME.

use super::{Context, Parts, shorten};
use crate::ast::{Expose, Maintainer, Stopsignal, User, Volume, Word, Workdir};
use crate::diagnostic::Diagnostic;
use crate::expand;
use crate::grammar;
use crate::span::Spanned;
use crate::{suggest, value};

impl Context<'_> {
    pub(super) fn maintainer(parts: &Parts) -> Maintainer {
        Maintainer {
            name: Spanned::new(parts.arguments.text.clone(), parts.arguments.span),
        }
    }

    pub(super) fn user(&mut self, parts: &Parts) -> User {
        self.check(&parts.arguments);
        User {
            user: parts.arguments.clone(),
        }
    }

    pub(super) fn workdir(&mut self, parts: &Parts) -> Workdir {
        self.check(&parts.arguments);
        Workdir {
            path: parts.arguments.clone(),
        }
    }

    pub(super) fn stopsignal(&mut self, parts: &Parts) -> Option<Stopsignal> {
        self.check(&parts.arguments);
        if let Some(signal) = self.constant(&parts.arguments)
            && value::parse_signal(&signal).is_none()
        {
            let error = Diagnostic::error(
                parts.arguments.span,
                format!("invalid signal: {}", shorten(&signal)),
            );
            let upper = signal.to_ascii_uppercase();
            let hint = suggest::nearest(upper.strip_prefix("SIG").unwrap_or(&upper), value::signal_names())
                .map(|name| format!("did you mean SIG{name}?"))
                .or_else(|| Some("use a name such as SIGTERM, or a number from 1 to 64".to_owned()));
            self.diagnostics.push(Diagnostic { hint, ..error });
            return None;
        }
        Some(Stopsignal {
            signal: parts.arguments.clone(),
        })
    }

    pub(super) fn expose(&mut self, parts: &Parts) -> Option<Expose> {
        let ports = Self::plain_words(&parts.arguments);
        let errors = self.diagnostics.len();
        for port in &ports {
            self.check(port);
            if let Some(text) = self.constant(port)
                && let Err(error) = value::parse_ports(&text)
            {
                self.error(port.span, error.to_string());
            }
        }
        (self.diagnostics.len() == errors).then_some(Expose { ports })
    }

    pub(super) fn volume(&mut self, parts: &Parts) -> Option<Volume> {
        let (paths, json) = match self.json_words(&parts.arguments) {
            Ok(Some(words)) => (words, true),
            Ok(None) => (Self::plain_words(&parts.arguments), false),
            Err(()) => return None,
        };
        if paths.is_empty() {
            self.error(parts.span(), "VOLUME requires at least one argument");
            return None;
        }
        for path in &paths {
            if path.text.trim().is_empty() {
                self.error(path.span, "VOLUME specified can not be an empty string");
                return None;
            }
            self.check(path);
        }
        Some(Volume { paths, json })
    }

    /// The value of a word that refers to no variable.
    pub(super) fn constant(&self, word: &Word) -> Option<String> {
        if expand::has_variables(&word.text, self.escape) {
            return None;
        }
        expand::expand(&word.text, &|_: &str| None, self.escape)
            .ok()
            .map(|expansion| expansion.value)
    }

    pub(super) fn plain_words(text: &Word) -> Vec<Word> {
        grammar::plain_words(&text.text)
            .into_iter()
            .map(|range| text.slice(range))
            .collect()
    }
}
