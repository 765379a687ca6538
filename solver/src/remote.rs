//! Sources from elsewhere: resolved to their content before lowering, fetched into the store when needed.
//!
//! A file's content is known from the server's word that it is unchanged, or from downloading it; a repository's
//! from the commit that its reference points at. So the graph names content only, and its keys are exact. What was
//! fetched is a layer like any other, with a record under the source's definition key.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant, SystemTime};

use kiln_cache::{Key, KeyPart, LayerDraft, Record, RecordKind, RemoteFile, Snapshot};
use kiln_image::Digest;
use kiln_remote::Caller;
use kiln_remote::git::{Checkout, GitAddress, GitError, Modified};
use kiln_remote::http::{self, Download, Downloaded, HttpError, HttpErrorKind, Outcome, Validators};
use kiln_tree::copy::Prehashed;

use crate::engine::Engine;
use crate::execute::{CommitError, commit};
use crate::graph::{GitSource, HttpSource};
use crate::key;

/// No file by HTTP may be larger. A server can send without end, and a disk has one.
pub(crate) const FILE_LIMIT: u64 = 64 * 1024 * 1024 * 1024;

/// A downloaded file is for root alone, as with Docker.
const FILE_MODE: u32 = 0o600;

/// Why a source from elsewhere could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// The download failed.
    #[error("failed to download {0}")]
    Http(Box<HttpError>),
    /// The repository could not be used.
    #[error(transparent)]
    Git(#[from] Box<GitError>),
    /// The file is another than it was to be.
    #[error("checksum mismatch of {url}: expected {expected}, got {actual}")]
    Checksum {
        /// Where it came from, without secrets.
        url: String,
        /// The digest that was named.
        expected: Digest,
        /// The digest that it has.
        actual: Digest,
    },
    /// The client for servers could not be set up.
    #[error("set up the HTTP client")]
    Client(#[from] kiln_registry::ConfigError),
    /// A file of our own could not be written.
    #[error("write {name}")]
    File {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The new layer could not be published.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] kiln_cache::Error),
}

impl From<HttpError> for RemoteError {
    fn from(error: HttpError) -> Self {
        Self::Http(Box::new(error))
    }
}

impl From<GitError> for RemoteError {
    fn from(error: GitError) -> Self {
        Self::Git(Box::new(error))
    }
}

impl RemoteError {
    /// What the user can do about it, when something is known to help.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Http(error) => error.hint.clone(),
            Self::Git(error) => error.hint(),
            Self::Checksum { .. } => Some(
                "if the new content is what you want, take its checksum over; else somebody has replaced the file"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// Whether the caller stopped it.
    pub fn is_canceled(&self) -> bool {
        match self {
            Self::Http(error) => error.kind == HttpErrorKind::Canceled,
            Self::Git(error) => matches!(**error, GitError::Canceled),
            _ => false,
        }
    }
}

impl Engine {
    /// Finds out what a URL has. With `checksum` the server is not asked: what else it had would be an error.
    /// Otherwise the file is in the store afterwards.
    pub fn resolve_http(
        &self,
        url: &str,
        checksum: Option<Digest>,
        caller: Caller<'_>,
    ) -> Result<HttpSource, RemoteError> {
        let name = http::file_name(url);
        if let Some(digest) = checksum {
            return Ok(HttpSource {
                url: url.to_owned(),
                digest,
                name,
                modified: None,
                fresh: false,
            });
        }
        let known = self.known_file(url, &name)?;
        let validators = known.as_ref().map(|(_, validators)| validators);
        match (self.download(url, &name, validators, caller)?, known) {
            (None, Some((source, _))) => Ok(source),
            (None, None) => Err(HttpError::unasked(url).into()),
            (Some(arrived), _) => {
                let source = HttpSource {
                    url: url.to_owned(),
                    digest: arrived.file.digest,
                    name,
                    modified: arrived.file.validators.modified(),
                    fresh: true,
                };
                self.publish_http(&source, arrived)?;
                Ok(source)
            }
        }
    }

    /// What the URL had when it was last asked, if it is still in the store.
    fn known_file(&self, url: &str, name: &str) -> Result<Option<(HttpSource, Validators)>, RemoteError> {
        let Some(known) = self.store.remotes().get(url)? else {
            return Ok(None);
        };
        let validators = Validators {
            etag: known.etag,
            last_modified: known.last_modified,
            settled: known.settled,
            size: known.size,
        };
        let source = HttpSource {
            url: url.to_owned(),
            digest: known.digest,
            name: name.to_owned(),
            modified: validators.modified(),
            fresh: false,
        };
        let is_here = self.store.records().get(&key::http(&source).0)?.is_some();
        Ok(is_here.then_some((source, validators)))
    }

    /// The file of `source`, from the store or from its server.
    pub fn fetch_http(&self, source: &HttpSource, caller: Caller<'_>) -> Result<Snapshot, RemoteError> {
        if let Some(record) = self.store.records().get(&key::http(source).0)? {
            let layers = record.output;
            return Ok(Snapshot { layers });
        }
        match self.download(&source.url, &source.name, None, caller)? {
            Some(arrived) if arrived.file.digest == source.digest => self.publish_http(source, arrived),
            Some(arrived) => Err(RemoteError::Checksum {
                url: http::public(&source.url),
                expected: source.digest,
                actual: arrived.file.digest,
            }),
            None => Err(HttpError::unasked(&source.url).into()),
        }
    }

    /// Downloads a file into a draft; `None` when it is the known one.
    fn download(
        &self,
        url: &str,
        name: &str,
        known: Option<&Validators>,
        caller: Caller<'_>,
    ) -> Result<Option<Arrived>, RemoteError> {
        let began = Instant::now();
        let draft = self.store.layers().draft()?;
        draft.set_root(0o755, 0, 0)?;
        let mut file = File::create_new(draft.diff_path().join(name)).map_err(file_error(name))?;
        let wanted = Download {
            url,
            known,
            limit: FILE_LIMIT,
        };
        let outcome = http::fetch(self.images.client()?, &wanted, &mut file, caller)?;
        let Outcome::Downloaded(downloaded) = outcome else {
            return Ok(None);
        };
        let modified = downloaded.validators.modified().unwrap_or(0);
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(modified);
        file.set_permissions(std::fs::Permissions::from_mode(FILE_MODE))
            .and_then(|()| file.set_modified(time))
            .map_err(file_error(name))?;
        Ok(Some(Arrived {
            draft,
            file: downloaded,
            began,
        }))
    }

    fn publish_http(&self, source: &HttpSource, arrived: Arrived) -> Result<Snapshot, RemoteError> {
        let shown = http::public(&source.url);
        let snapshot = self.publish(arrived.draft, key::http(source), &shown, arrived.began)?;
        // Who names the content does not ask for its time: the file is there for them, too.
        let timeless = HttpSource {
            modified: None,
            ..source.clone()
        };
        if timeless != *source {
            self.remember_source(&snapshot, key::http(&timeless), &shown, arrived.began)?;
        }
        let validators = arrived.file.validators;
        let known = RemoteFile {
            shown,
            digest: arrived.file.digest,
            size: validators.size,
            etag: validators.etag,
            last_modified: validators.last_modified,
            settled: validators.settled,
        };
        self.store.remotes().put(&source.url, &known)?;
        Ok(snapshot)
    }

    /// Finds the commit of an address.
    pub fn resolve_git(&self, address: &GitAddress, caller: Caller<'_>) -> Result<GitSource, RemoteError> {
        let found = self.repositories.resolve(address, caller)?;
        Ok(GitSource {
            remote: address.remote.clone(),
            commit: found.commit,
            reference: found.reference,
            tag: found.tag,
            subdirectory: address.subdirectory.clone(),
            keep_git_dir: address.keep_git_dir.unwrap_or(false),
            submodules: address.submodules.unwrap_or(true),
            commit_time: address.modified == Modified::Commit,
        })
    }

    /// The files of `source`, from the store or from the repository.
    pub fn fetch_git(&self, source: &GitSource, caller: Caller<'_>) -> Result<Snapshot, RemoteError> {
        let (key, parts) = key::git(source);
        if let Some(record) = self.store.records().get(&key)? {
            let layers = record.output;
            return Ok(Snapshot { layers });
        }
        let began = Instant::now();
        let draft = self.store.layers().draft()?;
        let wanted = Checkout {
            remote: &source.remote,
            commit: &source.commit,
            reference: source.reference.as_deref(),
            tag: source.tag.as_deref(),
            subdirectory: &source.subdirectory,
            keep_git_dir: source.keeps_git_dir(),
            submodules: source.submodules,
            modified: if source.commit_time {
                Modified::Commit
            } else {
                Modified::Checkout
            },
        };
        self.repositories.check_out(&wanted, &draft.diff_path(), caller)?;
        draft.set_root(0o755, 0, 0)?;
        let name = format!("git {}", kiln_remote::git::public_remote(&source.remote));
        self.publish(draft, (key, parts), &name, began)
    }

    /// Makes a layer of a draft and remembers it under the source's key.
    fn publish(
        &self,
        draft: LayerDraft,
        (key, parts): (Key, Vec<KeyPart>),
        name: &str,
        began: Instant,
    ) -> Result<Snapshot, RemoteError> {
        let layer = commit(&self.store, draft, &Prehashed::default())?;
        let snapshot = Snapshot {
            layers: vec![layer.id().clone()],
        };
        self.remember_source(&snapshot, (key, parts), name, began)?;
        Ok(snapshot)
    }

    fn remember_source(
        &self,
        snapshot: &Snapshot,
        (key, parts): (Key, Vec<KeyPart>),
        name: &str,
        began: Instant,
    ) -> Result<(), RemoteError> {
        Ok(self.store.records().put(&Record {
            key,
            kind: RecordKind::Definition,
            parts,
            output: snapshot.layers.clone(),
            step: name.to_owned(),
            created_ms: jiff::Timestamp::now().as_millisecond().unsigned_abs(),
            duration_ms: began.elapsed().as_millis() as u64,
        })?)
    }
}

/// A downloaded file in a draft.
struct Arrived {
    draft: LayerDraft,
    file: Downloaded,
    began: Instant,
}

fn file_error(name: &str) -> impl FnOnce(std::io::Error) -> RemoteError {
    let name = name.to_owned();
    move |source| RemoteError::File { name, source }
}
