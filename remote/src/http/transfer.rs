//! The transfer of one body: hashed on the way, resumed after a cut, never beyond its bound.

use std::fs::File;
use std::io::{Seek as _, Write as _};

use kiln_image::Sha256;
use kiln_registry::http::{Http, HttpFailure, HttpRequest, HttpResponse};

use super::error::{HttpError, HttpErrorKind};
use super::{Download, Downloaded, Outcome, Validators, name};
use crate::caller::Caller;

/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;
/// So many new bytes make a cut connection a new trouble and not the old one again.
const PROGRESS: u64 = 1024 * 1024;

/// A download between its requests.
pub(super) struct Transfer<'a> {
    http: Http<'a>,
    wanted: &'a Download<'a>,
    authorization: Option<String>,
    caller: Caller<'a>,
    into: &'a mut File,
    hasher: Sha256,
    received: u64,
    /// The version that the bytes so far belong to.
    version: Option<Validators>,
}

/// How a request ended badly.
enum Broken {
    /// Something that another attempt may heal.
    Network(HttpFailure),
    /// Nothing heals it.
    Final(HttpError),
}

/// How a request ended well.
enum Ended {
    Unchanged,
    Complete(Downloaded),
}

impl<'a> Transfer<'a> {
    pub(super) fn new(
        http: Http<'a>,
        wanted: &'a Download<'a>,
        authorization: Option<String>,
        caller: Caller<'a>,
        into: &'a mut File,
    ) -> Self {
        Self {
            http,
            wanted,
            authorization,
            caller,
            into,
            hasher: Sha256::new(),
            received: 0,
            version: None,
        }
    }

    /// Asks until the file is there. `conditions` go along as long as no byte came.
    pub(super) fn run(mut self, mut conditions: Vec<(&'static str, String)>) -> Result<Outcome, HttpError> {
        let mut attempts = self.http.attempts();
        loop {
            if (self.caller.canceled)() {
                return Err(self.error(HttpErrorKind::Canceled, "canceled"));
            }
            let before = self.received;
            match self.stretch(&mut conditions) {
                Ok(Ended::Unchanged) => return Ok(Outcome::Unchanged),
                Ok(Ended::Complete(downloaded)) => return Ok(Outcome::Downloaded(downloaded)),
                Err(Broken::Final(error)) => return Err(error),
                Err(Broken::Network(failure)) => {
                    if self.received.saturating_sub(before) >= PROGRESS {
                        attempts.reset();
                    }
                    attempts
                        .pause(failure)
                        .map_err(|failure| HttpError::failed(self.wanted.url, failure.into_failure()))?;
                }
            }
        }
    }

    /// One request: from where we are to the end, or to where it breaks.
    fn stretch(&mut self, conditions: &mut Vec<(&'static str, String)>) -> Result<Ended, Broken> {
        let headers = if let Some(headers) = self.resumption() {
            headers
        } else {
            self.restart()?;
            conditions.clone()
        };
        let request = HttpRequest {
            head: false,
            url: self.wanted.url,
            headers,
            authorization: self.authorization.as_deref(),
        };
        let response = self.http.send(&request).map_err(Broken::Network)?;
        match response.status() {
            200..=205 => {
                self.restart()?;
                self.version = Some(Validators::of(&response));
            }
            206 if self.received > 0 => {
                if response.range_start() != Some(self.received) {
                    self.version = None;
                    let cause = "the answer is not the part that was asked for";
                    return Err(Broken::Network(response.into_repeatable(cause)));
                }
            }
            304 if !conditions.is_empty() => {
                if self
                    .wanted
                    .known
                    .is_some_and(|known| known.confirmed_by(&response))
                {
                    return Ok(Ended::Unchanged);
                }
                conditions.clear();
                let cause = "the server takes another version for the known one";
                return Err(Broken::Network(response.into_repeatable(cause)));
            }
            416 if self.received > 0 => {
                self.version = None;
                let cause = "the server does not continue the file";
                return Err(Broken::Network(response.into_repeatable(cause)));
            }
            _ => return Err(Broken::Network(response.into_failure())),
        }
        self.receive(response)
    }

    /// Headers that ask for the rest of the version that was begun; `None` when it has to be begun anew.
    fn resumption(&self) -> Option<Vec<(&'static str, String)>> {
        let version = self.version.as_ref().filter(|_| self.received > 0)?;
        // Only strong validators may be compared by byte ranges.
        let strong = version.etag.as_ref().filter(|tag| !tag.starts_with("W/"));
        let settled = version.last_modified.as_ref().filter(|_| version.settled);
        let validator = strong.or(settled)?;
        Some(vec![
            ("range", format!("bytes={}-", self.received)),
            ("if-range", validator.clone()),
        ])
    }

    fn restart(&mut self) -> Result<(), Broken> {
        if self.received > 0 {
            let restarted = self.into.set_len(0).and_then(|()| self.into.rewind());
            restarted.map_err(|error| Broken::Final(self.local("start over", error)))?;
        }
        self.hasher = Sha256::new();
        self.received = 0;
        self.version = None;
        Ok(())
    }

    fn receive(&mut self, mut response: HttpResponse) -> Result<Ended, Broken> {
        let announced = response
            .content_length()
            .map(|length| length.saturating_add(self.received));
        self.check_size(announced.unwrap_or(0))?;
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = response.read(&mut buffer).map_err(Broken::Network)?;
            if count == 0 {
                break;
            }
            if (self.caller.canceled)() {
                return Err(Broken::Final(self.error(HttpErrorKind::Canceled, "canceled")));
            }
            self.check_size(self.received + count as u64)?;
            let bytes = &buffer[..count];
            if let Err(error) = self.into.write_all(bytes) {
                return Err(Broken::Final(self.local("write the file", error)));
            }
            self.hasher.update(bytes);
            self.received += count as u64;
            (self.caller.progress)(self.received, announced);
        }
        if announced.is_some_and(|announced| announced != self.received) {
            return Err(Broken::Network(response.cut()));
        }
        let hasher = std::mem::take(&mut self.hasher);
        Ok(Ended::Complete(Downloaded {
            digest: hasher.finish(),
            validators: Validators {
                size: self.received,
                ..self.version.take().unwrap_or_default()
            },
            suggested_name: response.header("content-disposition").and_then(name::suggested),
            media_type: response.header("content-type").map(str::to_owned),
        }))
    }

    fn check_size(&self, size: u64) -> Result<(), Broken> {
        if size <= self.wanted.limit {
            return Ok(());
        }
        let cause = format!("the file has more than {} bytes", self.wanted.limit);
        Err(Broken::Final(self.error(HttpErrorKind::TooLarge, cause)))
    }

    fn error(&self, kind: HttpErrorKind, cause: impl Into<String>) -> HttpError {
        HttpError::new(self.wanted.url, kind, cause)
    }

    fn local(&self, doing: &str, error: std::io::Error) -> HttpError {
        self.error(HttpErrorKind::Local, format!("{doing}: {error}"))
            .source(error)
    }
}
