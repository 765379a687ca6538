//! RUN and its flags.

use super::{Context, Parts, shorten};
use crate::ast::{CommandLine, Device, Mount, MountKey, MountOption, NetworkMode, Run, SecurityMode, Word};
use crate::diagnostic::Diagnostic;
use crate::expand;
use crate::grammar;
use crate::mount::MountError;
use crate::span::Spanned;
use crate::{suggest, value};

/// Mounts of one RUN that are tried: more than anyone needs. The kernel allows a namespace 100,000, and takes minutes for
/// them; ten thousand take ten seconds.
const MOST_MOUNTS: usize = 2_000;

impl Context<'_> {
    pub(super) fn run(&mut self, parts: &mut Parts) -> Option<Run> {
        let errors = self.diagnostics.len();
        let mounts = parts.flags.list("mount");
        if mounts.len() > MOST_MOUNTS {
            self.error(
                parts.keyword.span,
                format!("RUN has more than {MOST_MOUNTS} mounts"),
            );
            return None;
        }
        let mounts: Vec<Mount> = mounts.iter().filter_map(|word| self.mount(word)).collect();
        let network = self.choice(
            parts,
            "network",
            &[
                ("default", NetworkMode::Default),
                ("none", NetworkMode::None),
                ("host", NetworkMode::Host),
            ],
        );
        let security = self.choice(
            parts,
            "security",
            &[
                ("sandbox", SecurityMode::Sandbox),
                ("insecure", SecurityMode::Insecure),
            ],
        );
        let devices = parts
            .flags
            .list("device")
            .iter()
            .filter_map(|word| self.device(word))
            .collect();
        let command = self.command_line(&parts.arguments)?;
        if matches!(&command, CommandLine::Exec(strings) if strings.is_empty()) {
            self.error(parts.arguments.span, "RUN requires a command: the array is empty");
        }
        let heredocs = std::mem::take(&mut parts.heredocs);
        let run = Run {
            mounts,
            network,
            security,
            devices,
            command,
            heredocs,
        };
        (self.diagnostics.len() == errors).then_some(run)
    }

    fn choice<T: Copy>(&mut self, parts: &mut Parts, flag: &str, known: &[(&str, T)]) -> Option<Spanned<T>> {
        let word = parts.flags.text(flag)?;
        if let Some((_, value)) = known.iter().find(|(name, _)| *name == word.text) {
            return Some(Spanned::new(*value, word.span));
        }
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let message = format!("invalid {flag} mode: {:?}", shorten(&word.text));
        let hint = suggest::hint(&word.text, names.iter().copied());
        self.error_hint(
            word.span,
            message,
            hint.unwrap_or_else(|| format!("--{flag} is one of {}", names.join(", "))),
        );
        None
    }

    fn mount(&mut self, word: &Word) -> Option<Mount> {
        let Some(fields) = grammar::options(&word.text) else {
            self.error(word.span, "malformed quotes in --mount");
            return None;
        };
        let errors = self.diagnostics.len();
        let mut mount = Mount {
            span: word.span,
            options: Vec::with_capacity(fields.len()),
        };
        for (text, range) in fields {
            mount.options.extend(self.mount_option(word, &text, range));
        }
        if self.diagnostics.len() > errors {
            return None;
        }
        // What does not depend on a variable can be checked now.
        if !mount
            .words()
            .any(|word| expand::has_variables(&word.text, self.escape))
        {
            let escape = self.escape;
            let value = |word: &Word| {
                let expansion = expand::expand(&word.text, &|_: &str| None, escape);
                expansion
                    .map(|expansion| expansion.value)
                    .map_err(|error| MountError {
                        span: word.locate(error.range.clone()),
                        message: error.kind.to_string(),
                        hint: None,
                    })
            };
            if let Err(error) = mount.resolve(value) {
                self.diagnostics.push(Diagnostic {
                    hint: error.hint,
                    ..Diagnostic::error(error.span, error.message)
                });
                return None;
            }
        }
        Some(mount)
    }

    fn mount_option(
        &mut self,
        word: &Word,
        text: &str,
        range: std::ops::Range<usize>,
    ) -> Option<MountOption> {
        // A field in quotes has its text one byte further on; with quotes inside, places are near enough.
        let offset = range.start + usize::from(word.text[range.start..].starts_with('"'));
        let place = |from: usize, to: usize| {
            let end = (offset + to).min(range.end);
            (offset + from).min(end)..end
        };
        let (name, value) = text
            .split_once('=')
            .map_or((text, None), |(name, value)| (name, Some(value)));
        let span = word.locate(place(0, name.len()));
        let Some(key) = MountKey::parse(name) else {
            let error = Diagnostic::error(
                span,
                format!("unexpected key '{}' in '{}'", shorten(name), shorten(text)),
            );
            let hint = suggest::hint(name, MountKey::names());
            self.diagnostics.push(Diagnostic { hint, ..error });
            return None;
        };
        let Some(value) = value else {
            if key.is_flag() {
                return Some(MountOption {
                    key: Spanned::new(key, span),
                    value: None,
                });
            }
            self.error(
                span,
                format!("invalid field '{}' must be a key=value pair", shorten(text)),
            );
            return None;
        };
        let range = place(name.len() + 1, text.len());
        let part = if word.text.get(range.clone()) == Some(value) {
            word.slice(range)
        } else {
            Word::new(value, word.locate(range))
        };
        if key == MountKey::From && expand::has_variables(&part.text, self.escape) {
            self.error_hint(
                part.span,
                "'from' doesn't support variable expansion, define alias stage instead",
                format!(
                    "write FROM {} AS <name> before this stage, and from=<name> here",
                    shorten(value)
                ),
            );
            return None;
        }
        self.check(&part);
        Some(MountOption {
            key: Spanned::new(key, span),
            value: Some(part),
        })
    }

    fn device(&mut self, word: &Word) -> Option<Spanned<Device>> {
        let Some(fields) = grammar::options(&word.text) else {
            self.error(word.span, "malformed quotes in --device");
            return None;
        };
        let mut name: Option<String> = None;
        let mut required = false;
        for (text, range) in fields {
            let span = word.locate(range);
            let (key, value) = text
                .split_once('=')
                .map_or((text.as_str(), None), |(key, value)| (key, Some(value)));
            match (key.to_ascii_lowercase().as_str(), value) {
                ("required", None) => required = true,
                ("required", Some(value)) => match value::parse_bool(value) {
                    Some(value) => required = value,
                    None => self.error(span, format!("invalid value for required: {:?}", shorten(value))),
                },
                ("name", Some(_)) if name.is_some() => self.error(span, "the device name is already set"),
                ("name", Some(value)) => name = Some(value.to_owned()),
                // A CDI name holds a `=` of its own: vendor.com/class=name.
                _ if name.is_none() => name = Some(text),
                _ => self.error_hint(
                    span,
                    format!("unexpected key '{}' in '{}'", shorten(key), shorten(&text)),
                    "--device takes a name and required",
                ),
            }
        }
        match name {
            Some(name) if !name.is_empty() => Some(Spanned::new(Device { name, required }, word.span)),
            _ => {
                self.error(word.span, "--device requires a device name");
                None
            }
        }
    }
}
