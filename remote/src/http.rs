//! One file by HTTP: downloaded, or found unchanged.

mod error;
mod name;

use std::fs::File;

use kiln_image::Digest;
use kiln_registry::Client;

use crate::caller::Caller;

pub use error::{HttpError, HttpErrorKind};
pub use name::{UNNAMED, file_name};

/// What a server said about a file's version, to ask it by next time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validators {
    /// Its `ETag`, as it came.
    pub etag: Option<String>,
    /// Its `Last-Modified`, as it came.
    pub last_modified: Option<String>,
}

impl Validators {
    /// The file's time, in seconds since 1970; `None` when the server gave none that can be read.
    pub fn modified(&self) -> Option<i64> {
        None
    }
}

/// A file that is wanted.
#[derive(Debug, Clone)]
pub struct Download<'a> {
    /// Its URL, `http` or `https`; user information becomes basic authentication.
    pub url: &'a str,
    /// What is known of the version that is here already.
    pub known: Option<&'a Validators>,
    /// No more bytes than these are taken.
    pub limit: u64,
}

/// A file that was downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downloaded {
    /// The digest of its bytes.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
    /// Its version.
    pub validators: Validators,
    /// The name that `Content-Disposition` gives it; without directories.
    pub suggested_name: Option<String>,
    /// Its `Content-Type`.
    pub media_type: Option<String>,
}

/// What came of a download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The version is the one that is known; nothing was written.
    Unchanged,
    /// Another version, or the first one.
    Downloaded(Downloaded),
}

/// Downloads a file into `into`, an empty file open for writing. Cut transfers are resumed as the client's retry
/// policy says; after an error `into` holds whatever came.
///
/// With [`Download::known`] the server is first asked with `HEAD` and then with a conditional `GET`: some servers
/// have entity tags but do not honour `If-None-Match`.
pub fn fetch(
    client: &Client,
    wanted: &Download<'_>,
    into: &mut File,
    caller: Caller<'_>,
) -> Result<Outcome, HttpError> {
    let _ = (client, into, caller);
    Err(HttpError::new(wanted.url, HttpErrorKind::Canceled, "canceled"))
}
