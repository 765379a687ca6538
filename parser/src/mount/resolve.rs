//! The typed mount that a `--mount` makes once its values are expanded.

use super::{Mount, MountKey, MountType, SHARING, Sharing, TYPES};
use crate::ast::Word;
use crate::span::{Span, Spanned};
use crate::{suggest, value};

/// A mount with its values expanded and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSpec {
    /// A read-only (or scratch-writable) view of the context or of another stage.
    Bind {
        /// Mount point; relative to the working directory.
        target: String,
        /// Path inside `from`.
        source: Option<String>,
        /// Stage, named context or image; the build context when absent.
        from: Option<String>,
        /// Writes are allowed and thrown away.
        read_write: bool,
    },
    /// A directory that outlives the build.
    Cache {
        /// Mount point; relative to the working directory.
        target: String,
        /// Identity; the cleaned target when absent.
        id: Option<String>,
        /// What concurrent builds do.
        sharing: Sharing,
        /// Stage, named context or image whose content the new cache starts with.
        from: Option<String>,
        /// Path inside `from`.
        source: Option<String>,
        /// Mode of the new directory.
        mode: Option<u32>,
        /// Owner of the new directory.
        uid: Option<u32>,
        /// Group of the new directory.
        gid: Option<u32>,
        /// No writes.
        read_only: bool,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Mount point.
        target: String,
        /// Limit in bytes.
        size: Option<u64>,
    },
    /// A secret as a file, a variable, or both.
    Secret {
        /// Which secret.
        id: String,
        /// File path; `/run/secrets/<id>` when neither this nor `env` is given.
        target: Option<String>,
        /// Variable that holds the secret.
        env: Option<String>,
        /// A missing secret fails the build.
        required: bool,
        /// Mode of the file (0400 when absent).
        mode: Option<u32>,
        /// Owner of the file.
        uid: Option<u32>,
        /// Group of the file.
        gid: Option<u32>,
    },
    /// The forwarded SSH agent socket.
    Ssh {
        /// Which agent (`default` when absent).
        id: Option<String>,
        /// Socket path.
        target: Option<String>,
        /// A missing agent fails the build.
        required: bool,
        /// Mode of the socket (0600 when absent).
        mode: Option<u32>,
        /// Owner of the socket.
        uid: Option<u32>,
        /// Group of the socket.
        gid: Option<u32>,
    },
}

/// A mount whose options do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct MountError {
    /// The offending option, or the whole mount.
    pub span: Span,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl MountError {
    fn new(span: Span, message: impl Into<String>) -> Self {
        Self {
            span,
            message: message.into(),
            hint: None,
        }
    }
}

impl Mount {
    /// Expands the values and checks that they fit together. Of repeated options the last one counts.
    pub fn resolve<E>(&self, mut expand: impl FnMut(&Word) -> Result<String, E>) -> Result<MountSpec, E>
    where
        E: From<MountError>,
    {
        let mut values = Values {
            options: Vec::new(),
            whole: self.span,
        };
        for option in &self.options {
            let text = match &option.value {
                Some(word) if option.key.value == MountKey::From => Some(word.text.clone()),
                Some(word) => Some(expand(word)?),
                None => None,
            };
            let span = option.value.as_ref().map_or(option.key.span, |word| word.span);
            values.options.push((option.key.clone(), text, span));
        }
        values.spec().map_err(E::from)
    }
}

/// The options of one mount, expanded.
struct Values {
    options: Vec<(Spanned<MountKey>, Option<String>, Span)>,
    whole: Span,
}

impl Values {
    fn spec(&self) -> Result<MountSpec, MountError> {
        let kind = self.kind()?;
        for (key, ..) in &self.options {
            if !kind.keys().contains(&key.value) {
                let message = format!(
                    "{} is not allowed for mounts of type {}",
                    key.value.name(),
                    kind.name()
                );
                let names: Vec<&str> = kind.keys().iter().map(|key| key.name()).collect();
                let hint = Some(format!(
                    "mounts of type {} take {}",
                    kind.name(),
                    names.join(", ")
                ));
                return Err(MountError {
                    span: key.span,
                    message,
                    hint,
                });
            }
        }
        let target = self.text(MountKey::Target);
        let (mode, uid, gid) = (
            self.mode()?,
            self.number(MountKey::Uid)?,
            self.number(MountKey::Gid)?,
        );
        let required = self.flag(MountKey::Required)?.unwrap_or(false);
        let from = self.text(MountKey::From);
        let source = self.text(MountKey::Source);
        let id = self.text(MountKey::Id);
        Ok(match kind {
            MountType::Bind => MountSpec::Bind {
                target: target.unwrap_or_default(),
                source,
                from,
                read_write: !self.read_only()?.unwrap_or(true),
            },
            MountType::Cache => MountSpec::Cache {
                target: target.unwrap_or_default(),
                id,
                sharing: self.sharing()?,
                from,
                source,
                mode,
                uid,
                gid,
                read_only: self.read_only()?.unwrap_or(false),
            },
            MountType::Tmpfs => MountSpec::Tmpfs {
                target: target.unwrap_or_default(),
                size: self.size()?,
            },
            MountType::Secret => {
                let id = self.secret_id(id, source, target.as_deref())?;
                MountSpec::Secret {
                    id,
                    target,
                    env: self.text(MountKey::Env),
                    required,
                    mode,
                    uid,
                    gid,
                }
            }
            MountType::Ssh => MountSpec::Ssh {
                id,
                target,
                required,
                mode,
                uid,
                gid,
            },
        })
    }

    fn get(&self, key: MountKey) -> Option<(Option<&str>, Span)> {
        let found = self.options.iter().rev().find(|(known, ..)| known.value == key);
        found.map(|(_, text, span)| (text.as_deref(), *span))
    }

    fn text(&self, key: MountKey) -> Option<String> {
        self.get(key)?
            .0
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    }

    fn kind(&self) -> Result<MountType, MountError> {
        let Some((Some(text), span)) = self.get(MountKey::Type) else {
            return Ok(MountType::Bind);
        };
        MountType::parse(text).ok_or_else(|| MountError {
            span,
            message: format!("unsupported mount type {text:?}"),
            hint: suggest::hint(text, TYPES.iter().map(|(name, ..)| *name))
                .or_else(|| Some("mount types are bind, cache, tmpfs, secret and ssh".to_owned())),
        })
    }

    fn sharing(&self) -> Result<Sharing, MountError> {
        let Some((Some(text), span)) = self.get(MountKey::Sharing) else {
            return Ok(Sharing::default());
        };
        let found = SHARING.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        found.map(|(_, sharing)| *sharing).ok_or_else(|| MountError {
            span,
            message: format!("unsupported sharing value {text:?}"),
            hint: suggest::hint(text, SHARING.iter().map(|(name, _)| *name))
                .or_else(|| Some("sharing is shared, private or locked".to_owned())),
        })
    }

    fn flag(&self, key: MountKey) -> Result<Option<bool>, MountError> {
        match self.get(key) {
            None => Ok(None),
            Some((None, _)) => Ok(Some(true)),
            Some((Some(text), span)) => value::parse_bool(text).map(Some).ok_or_else(|| {
                MountError::new(
                    span,
                    format!("invalid value for {}: {text:?} is no boolean", key.name()),
                )
            }),
        }
    }

    /// The last of `ro` and `rw` counts.
    fn read_only(&self) -> Result<Option<bool>, MountError> {
        let last = self.options.iter().rev().map(|(key, ..)| key.value);
        match last
            .into_iter()
            .find(|key| matches!(key, MountKey::ReadOnly | MountKey::ReadWrite))
        {
            Some(MountKey::ReadWrite) => Ok(self.flag(MountKey::ReadWrite)?.map(|writable| !writable)),
            Some(key) => self.flag(key),
            None => Ok(None),
        }
    }

    fn mode(&self) -> Result<Option<u32>, MountError> {
        let Some((Some(text), span)) = self.get(MountKey::Mode) else {
            return Ok(None);
        };
        let octal = !text.is_empty() && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        let mode = octal
            .then(|| u32::from_str_radix(text, 8).ok())
            .flatten()
            .filter(|mode| *mode <= 0o7777);
        let error = || {
            MountError::new(
                span,
                format!("invalid value for mode: {text:?} is no octal mode up to 7777"),
            )
        };
        mode.map(Some).ok_or_else(error)
    }

    fn number(&self, key: MountKey) -> Result<Option<u32>, MountError> {
        let Some((Some(text), span)) = self.get(key) else {
            return Ok(None);
        };
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.then(|| text.parse().ok()).flatten();
        let error = || {
            MountError::new(
                span,
                format!("invalid value for {}: {text:?} is no number", key.name()),
            )
        };
        number.map(Some).ok_or_else(error)
    }

    fn size(&self) -> Result<Option<u64>, MountError> {
        let Some((Some(text), span)) = self.get(MountKey::Size) else {
            return Ok(None);
        };
        let error = || {
            MountError::new(
                span,
                format!("invalid value for size: {text:?} is no size (such as 64m)"),
            )
        };
        value::parse_size(text).map(Some).ok_or_else(error)
    }

    fn secret_id(
        &self,
        id: Option<String>,
        source: Option<String>,
        target: Option<&str>,
    ) -> Result<String, MountError> {
        match (id, source) {
            (Some(_), Some(_)) => Err(MountError::new(
                self.whole,
                "a secret takes id or source, not both",
            )),
            (Some(id), None) | (None, Some(id)) => Ok(id),
            (None, None) => {
                let name = target.and_then(|target| target.rsplit('/').find(|part| !part.is_empty()));
                let error = || MountError {
                    span: self.whole,
                    message: "a secret mount needs an id".to_owned(),
                    hint: Some("write --mount=type=secret,id=<id>".to_owned()),
                };
                name.map(str::to_owned).ok_or_else(error)
            }
        }
    }
}
