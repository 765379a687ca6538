//! One file by HTTP: downloaded, or found unchanged.

mod authorization;
mod error;
mod name;
mod transfer;

use std::fs::File;

use kiln_image::Digest;
use kiln_registry::Client;
use kiln_registry::http::{HttpRequest, HttpResponse, parse_date};

use crate::caller::Caller;
use transfer::Transfer;

pub use error::{HttpError, HttpErrorKind, public};
pub use name::file_name;

/// A file this much older than its download does not change within the second that its time is given in.
const SETTLED_SECONDS: u64 = 60;

/// What a server said about a file's version, to ask it by next time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validators {
    /// Its `ETag`, as it came.
    pub etag: Option<String>,
    /// Its `Last-Modified`, as it came.
    pub last_modified: Option<String>,
    /// It was not new when it was downloaded, so that its time and size tell it from other versions.
    pub settled: bool,
    /// Its size.
    pub size: u64,
}

impl Validators {
    /// The file's time, in seconds since 1970; `None` when the server gave none that can be read.
    pub fn modified(&self) -> Option<u64> {
        self.last_modified.as_deref().and_then(parse_date)
    }

    fn of(response: &HttpResponse) -> Self {
        let text = |name: &str| response.header(name).map(str::to_owned);
        let last_modified = text("last-modified");
        let changed = last_modified.as_deref().and_then(parse_date);
        let now = response.header("date").and_then(parse_date);
        let settled =
            matches!((changed, now), (Some(changed), Some(now)) if changed + SETTLED_SECONDS <= now);
        Self {
            etag: text("etag"),
            last_modified,
            settled,
            size: 0,
        }
    }

    /// Whether an answer is about this very version.
    fn confirmed_by(&self, response: &HttpResponse) -> bool {
        let tag = response.header("etag");
        match (response.status(), &self.etag) {
            (304, Some(_)) if tag.is_none() => true,
            (200 | 304, Some(known)) => tag.is_some_and(|tag| comparable(tag) == comparable(known)),
            (200, None) => {
                self.settled
                    && tag.is_none()
                    && self.last_modified.is_some()
                    && response.header("last-modified") == self.last_modified.as_deref()
                    && response.content_length() == Some(self.size)
            }
            _ => false,
        }
    }
}

/// An entity tag for the weak comparison.
fn comparable(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
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
    /// Its version, and its size.
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
    let authorization = authorization::header(wanted.url, caller.credentials)?;
    let http = client.http();
    let mut headers = Vec::new();
    if let Some(known) = wanted.known {
        if let Some(etag) = &known.etag {
            headers.push(("if-none-match", etag.clone()));
        }
        let request = HttpRequest {
            head: true,
            url: wanted.url,
            headers: headers.clone(),
            authorization: authorization.as_deref(),
        };
        // Servers that do not know HEAD say so in many ways, and one that cannot be reached will not be reached
        // by GET either, which then gives the error.
        if http
            .send(&request)
            .is_ok_and(|response| known.confirmed_by(&response))
        {
            return Ok(Outcome::Unchanged);
        }
    }
    Transfer::new(http, wanted, authorization, caller, into).run(headers)
}
