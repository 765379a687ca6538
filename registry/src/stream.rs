//! Uploads of blobs that are still being made: the bytes go out as they come, and which blob they are is said in the end.
//!
//! Nothing here is tried again, for the bytes come once: whoever wants the blob there in any case has it in a file by
//! the time that something is known to have failed, and uploads that ([`Client::put_blob`]).

use std::io::Read;

use ureq::http::{Method, header};

use crate::auth::{Authorization, Scope};
use crate::client::{Client, Purpose};
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::failed::Failed;
use crate::transport::{Payload, Request, Response};
use crate::upload::{Watched, created, location};
use crate::url::Url;
use kiln_image::{Descriptor, Reference};

const OPERATION: &str = "upload blob to";

/// Bytes that a registry has taken, and that are no blob before they are [committed](Client::commit_streamed).
#[derive(Debug)]
pub struct Streamed {
    endpoint: Endpoint,
    location: Url,
    size: u64,
}

/// An upload that was opened.
struct Opened {
    endpoint: Endpoint,
    location: Url,
    authorization: Authorization,
}

impl Client {
    /// Sends the bytes of `source`, up to its end. `progress` gets the number of bytes so far.
    ///
    /// When the source fails, the registry is told that nothing more comes.
    pub fn stream_blob(
        &self,
        reference: &Reference,
        source: &mut dyn Read,
        progress: &dyn Fn(u64),
    ) -> Result<Streamed> {
        // Endpoints are tried before the first byte is taken from the source, and none after it.
        let opened = self.on_endpoints(OPERATION, reference, Purpose::Push, |endpoint| {
            let request = self.request(Method::POST, endpoint.url("blobs/uploads/"));
            let scope = Scope::push(&endpoint.repository);
            let (response, authorization) = self.call_ok(endpoint, &scope, &request)?;
            Ok(Opened {
                endpoint: endpoint.clone(),
                location: location(&response)?,
                authorization,
            })
        })?;
        self.send_stream(&opened, source, progress).map_err(|failed| {
            if failed.failure.kind == ErrorKind::Local {
                self.end_upload(&opened.endpoint, &opened.location);
            }
            Error::new(OPERATION, reference, Vec::new(), *failed.failure)
        })
    }

    fn send_stream(
        &self,
        opened: &Opened,
        source: &mut dyn Read,
        progress: &dyn Fn(u64),
    ) -> std::result::Result<Streamed, Failed> {
        let Opened {
            endpoint,
            location: url,
            authorization,
        } = opened;
        let mut reader = Watched::new(Box::new(source), 0, progress);
        let request = Request {
            method: Method::PATCH,
            url: url.clone(),
            headers: vec![(header::CONTENT_TYPE, "application/octet-stream".to_owned())],
            payload: Payload::Chunked(&mut reader),
            patience: self.config.retry.commit_timeout,
        };
        // An upload's address may be on another host, which gets no credentials.
        let header = authorization
            .header
            .as_deref()
            .filter(|_| url.same_origin(&endpoint.base));
        let result = self.transport.send(request, header);
        if let Some(error) = reader.error.take() {
            return Err(Failed::local(url, "read the blob", error));
        }
        let response = result.map_err(|error| Failed::transport(error, &authorization.state))?;
        if !response.status.is_success() {
            return Err(Failed::status(response, &authorization.state));
        }
        check_range(&response, reader.sent)?;
        Ok(Streamed {
            endpoint: endpoint.clone(),
            location: location(&response)?,
            size: reader.sent,
        })
    }

    /// Makes the bytes that were sent a blob of the repository.
    pub fn commit_streamed(
        &self,
        reference: &Reference,
        streamed: Streamed,
        blob: &Descriptor,
    ) -> Result<()> {
        let commit = || {
            let Streamed {
                endpoint,
                location,
                size,
            } = streamed;
            if size != blob.size {
                let cause = format!("{size} bytes were sent instead of {}", blob.size);
                return Err(Failed::mismatch(ErrorKind::SizeMismatch, &location, cause));
            }
            let url = location.with_query("digest", &blob.digest.to_string());
            let mut request = self.request(Method::PUT, url);
            request.patience = self.config.retry.commit_timeout;
            // The token may have run out while the bytes went their way: a 401 is answered.
            let scope = Scope::push(&endpoint.repository);
            let (response, authorization) = self.call(&endpoint, &scope, &request)?;
            created(response, "the upload", |response| {
                Failed::status(response, &authorization.state)
            })
        };
        commit().map_err(|failed| Error::new(OPERATION, reference, Vec::new(), *failed.failure))
    }

    /// Tells the registry that the bytes are not wanted there.
    pub fn abandon_streamed(&self, streamed: &Streamed) {
        self.end_upload(&streamed.endpoint, &streamed.location);
    }

    fn end_upload(&self, endpoint: &Endpoint, location: &Url) {
        let mut request = self.request(Method::DELETE, location.clone());
        request.patience = self.config.retry.connect_timeout;
        // A courtesy: registries forget abandoned uploads by themselves.
        let _ = self.call(endpoint, &Scope::push(&endpoint.repository), &request);
    }
}

/// What the registry says to have, if it does.
fn check_range(response: &Response, sent: u64) -> std::result::Result<(), Failed> {
    let Some(range) = response.header("range") else {
        return Ok(());
    };
    if is_range_to(range, sent) {
        return Ok(());
    }
    let cause = format!("the registry has bytes {range:?} of an upload of {sent}");
    Err(Failed::protocol(&response.url, cause))
}

fn is_range_to(range: &str, sent: u64) -> bool {
    let range = range.trim();
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let Some(last) = range.strip_prefix("0-").and_then(|last| last.parse::<u64>().ok()) else {
        return false;
    };
    // Of nothing, there is no last byte: registries say 0.
    last == sent.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::is_range_to;

    #[test]
    fn ranges() {
        for (range, sent, want) in [
            ("0-99", 100, true),
            (" bytes=0-99", 100, true),
            ("0-0", 0, true),
            ("0-0", 1, true),
            ("0-98", 100, false),
            ("1-99", 100, false),
            ("0-", 100, false),
            ("100", 100, false),
            ("0-99999999999999999999999", 100, false),
        ] {
            assert_eq!(is_range_to(range, sent), want, "{range} {sent}");
        }
    }
}
