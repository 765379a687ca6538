//! The secrets of a request: values that steps may see and that nothing keeps.
//!
//! A secret is known by its id. The graph holds ids alone; values are here, are never part of a key, a record or
//! a message, and have no `Debug`. What steps print is freed of them by [`crate::redact`].

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::redact::Patterns;

/// No secret is longer than this, as in BuildKit.
pub const MAX_SECRET_BYTES: usize = 500 * 1024;

/// Where the value of a secret is.
#[derive(Clone)]
pub enum SecretSource {
    /// In a file of the host, which is read when the first step runs.
    File(PathBuf),
    /// Here.
    Value(Vec<u8>),
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => formatter.debug_tuple("File").field(path).finish(),
            Self::Value(_) => formatter.write_str("Value(****)"),
        }
    }
}

/// Why a secret that was passed cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SecretError {
    /// Its file cannot be read.
    #[error("secret {id}: cannot read {}: {reason}", path.display())]
    File {
        /// The secret.
        id: String,
        /// Its file.
        path: PathBuf,
        /// The system's answer.
        reason: String,
    },
    /// It is too long.
    #[error("secret {id} too big: it may have {MAX_SECRET_BYTES} bytes")]
    TooBig {
        /// The secret.
        id: String,
    },
    /// It cannot be an environment variable.
    #[error("secret {id} has a zero byte or is not UTF-8: it can be a file, but no environment variable")]
    NoText {
        /// The secret.
        id: String,
    },
}

/// A value, or why it cannot be had.
type Loaded = Result<Arc<[u8]>, SecretError>;

/// One secret. It is read once a build, so that all steps see the same.
struct Secret {
    source: SecretSource,
    loaded: OnceLock<Loaded>,
}

/// The secrets of a request, by id.
#[derive(Default)]
pub struct Secrets {
    by_id: BTreeMap<String, Secret>,
    patterns: OnceLock<Arc<Patterns>>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.by_id.keys()).finish()
    }
}

impl Secrets {
    /// The secrets of `sources`. Of two with one id the last counts.
    pub fn new(sources: impl IntoIterator<Item = (String, SecretSource)>) -> Self {
        let secret = |source| Secret {
            source,
            loaded: OnceLock::new(),
        };
        let by_id = sources.into_iter().map(|(id, source)| (id, secret(source)));
        Self {
            by_id: by_id.collect(),
            patterns: OnceLock::new(),
        }
    }

    /// The value of `id`; `None` when the request has no such secret.
    pub(crate) fn get(&self, id: &str) -> Option<Loaded> {
        let secret = self.by_id.get(id)?;
        Some(secret.loaded.get_or_init(|| load(id, &secret.source)).clone())
    }

    /// The value of `id` as that of an environment variable.
    pub(crate) fn text(&self, id: &str) -> Option<Result<String, SecretError>> {
        let text = |value: Arc<[u8]>| match String::from_utf8(value.to_vec()) {
            Ok(text) if !text.contains('\0') => Ok(text),
            _ => Err(SecretError::NoText { id: id.to_owned() }),
        };
        Some(self.get(id)?.and_then(text))
    }

    /// The ids.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.by_id.keys().map(String::as_str)
    }

    /// What must not be seen in the output of any step: all secrets that can be read, since what one step was
    /// given another may print.
    pub(crate) fn patterns(&self) -> Arc<Patterns> {
        let patterns = self.patterns.get_or_init(|| {
            let values = self.by_id.keys().filter_map(|id| self.get(id)?.ok());
            Arc::new(Patterns::of(values))
        });
        Arc::clone(patterns)
    }
}

fn load(id: &str, source: &SecretSource) -> Loaded {
    let value = match source {
        SecretSource::Value(value) => value.clone(),
        SecretSource::File(path) => read(path).map_err(|error| SecretError::File {
            id: id.to_owned(),
            path: path.clone(),
            reason: error.to_string(),
        })?,
    };
    if value.len() > MAX_SECRET_BYTES {
        return Err(SecretError::TooBig { id: id.to_owned() });
    }
    Ok(value.into())
}

/// The file's bytes, one more than allowed at most.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut value = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(MAX_SECRET_BYTES as u64 + 1).read_to_end(&mut value)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::{MAX_SECRET_BYTES, SecretError, SecretSource, Secrets};
    use crate::testing::TempDir;

    fn secrets(sources: &[(&str, SecretSource)]) -> Secrets {
        let owned = sources
            .iter()
            .map(|(id, source)| ((*id).to_owned(), source.clone()));
        Secrets::new(owned)
    }

    #[test]
    fn a_file_is_read_once() {
        let folder = TempDir::new();
        folder.write("token", "first\n");
        let secrets = secrets(&[("t", SecretSource::File(folder.path().join("token")))]);
        assert_eq!(&*secrets.get("t").unwrap().unwrap(), b"first\n");
        folder.write("token", "second");
        assert_eq!(secrets.text("t").unwrap().unwrap(), "first\n");
        assert!(secrets.get("u").is_none());
    }

    #[test]
    fn what_cannot_be_had_is_told_without_its_value() {
        let folder = TempDir::new();
        folder.write("long", &"x".repeat(MAX_SECRET_BYTES + 1));
        let secrets = secrets(&[
            ("missing", SecretSource::File(folder.path().join("nosuch"))),
            ("long", SecretSource::File(folder.path().join("long"))),
            ("binary", SecretSource::Value(b"hunter2\0".to_vec())),
        ]);
        assert!(matches!(
            secrets.get("missing"),
            Some(Err(SecretError::File { .. }))
        ));
        assert!(matches!(
            secrets.get("long"),
            Some(Err(SecretError::TooBig { .. }))
        ));
        let error = secrets.text("binary").unwrap().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter"));
        assert_eq!(&*secrets.get("binary").unwrap().unwrap(), b"hunter2\0");
    }

    #[test]
    fn debug_shows_no_value() {
        let source = SecretSource::Value(b"hunter2".to_vec());
        let secrets = secrets(&[("password", source.clone())]);
        assert_eq!(format!("{source:?} {secrets:?}"), "Value(****) {\"password\"}");
    }
}
