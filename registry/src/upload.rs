//! Uploads of blobs: whole, in chunks, and what comes back.

use std::cell::RefCell;
use std::io::{self, Read};

use ureq::http::{Method, header};

use crate::auth::{Authorization, Scope};
use crate::client::Client;
use crate::endpoint::Endpoint;
use crate::error::ErrorKind;
use crate::failed::{Failed, Retry};
use crate::sink::BlobSource;
use crate::transport::{Payload, Request, Response};
use crate::url::Url;
use kiln_image::Descriptor;

/// Bytes of one chunk where a registry does not take a blob whole. Reverse proxies in front of small
/// registries often stop at 10 MiB.
const UPLOAD_CHUNK: u64 = 8 * 1024 * 1024;

/// Statuses by which registries and the proxies before them refuse a whole upload but may take chunks.
const NOT_WHOLE: &[u16] = &[400, 404, 405, 411, 413, 416, 501];

/// Codes by which a registry refuses the content or the name, not the way of sending.
const NOT_AT_ALL: &[&str] = &["DIGEST_INVALID", "SIZE_INVALID", "NAME_INVALID", "NAME_UNKNOWN"];

type Attempt<T> = std::result::Result<T, Failed>;

/// Whether the registry may take in chunks what it did not take whole.
pub(crate) fn may_take_chunks(failed: &Failed) -> bool {
    let failure = &failed.failure;
    let code = failure.code.as_deref().unwrap_or_default();
    failure.status.is_some_and(|status| NOT_WHOLE.contains(&status)) && !NOT_AT_ALL.contains(&code)
}

/// One blob on its way to one endpoint.
pub(crate) struct Upload<'a> {
    pub(crate) client: &'a Client,
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) blob: &'a Descriptor,
    pub(crate) source: &'a dyn BlobSource,
    pub(crate) progress: &'a dyn Fn(u64),
}

impl Upload<'_> {
    fn scope(&self) -> Scope {
        Scope::push(&self.endpoint.repository)
    }

    /// Opens an upload and says where to send the bytes.
    fn open(&self) -> Attempt<(Url, Response, Authorization)> {
        (self.progress)(0);
        let request = self
            .client
            .request(Method::POST, self.endpoint.url("blobs/uploads/"));
        let (response, authorization) = self.client.call_ok(self.endpoint, &self.scope(), &request)?;
        Ok((location(&response)?, response, authorization))
    }

    pub(crate) fn whole(&self) -> Attempt<()> {
        let (location, response, authorization) = self.open()?;
        drop(response);
        let url = location.with_query("digest", &self.blob.digest.to_string());
        let response = self.send(Method::PUT, &url, 0, self.blob.size, &authorization)?;
        self.accept(response, &authorization, "the upload")
    }

    pub(crate) fn chunked(&self) -> Attempt<()> {
        let (mut location, response, authorization) = self.open()?;
        let least = response
            .header("oci-chunk-min-length")
            .and_then(|text| text.trim().parse().ok());
        let chunk = UPLOAD_CHUNK.max(least.unwrap_or(0));
        drop(response);
        let mut offset = 0;
        while offset < self.blob.size {
            let length = chunk.min(self.blob.size - offset);
            let response = self.send(Method::PATCH, &location, offset, length, &authorization)?;
            if !response.status.is_success() {
                return Err(self.refused(response, &authorization));
            }
            location = self::location(&response)?;
            offset += length;
        }
        let url = location.with_query("digest", &self.blob.digest.to_string());
        let response = self.send(Method::PUT, &url, 0, 0, &authorization)?;
        self.accept(response, &authorization, "the chunks")
    }

    /// Sends `length` bytes from `offset`.
    fn send(
        &self,
        method: Method,
        url: &Url,
        offset: u64,
        length: u64,
        authorization: &Authorization,
    ) -> Attempt<Response> {
        let opened = self
            .source
            .open(offset)
            .map_err(|error| Failed::local(url, "read the blob", error))?;
        let mut reader = Watched::new(opened, offset, self.progress);
        let mut headers = vec![(header::CONTENT_TYPE, "application/octet-stream".to_owned())];
        if method == Method::PATCH {
            headers.push((header::CONTENT_RANGE, format!("{offset}-{}", offset + length - 1)));
        }
        let header = authorization
            .header
            .as_deref()
            .filter(|_| url.same_origin(&self.endpoint.base));
        let request = Request {
            method,
            url: url.clone(),
            headers,
            payload: Payload::Stream {
                reader: &mut reader,
                size: length,
            },
            patience: self.client.config.retry.commit_timeout,
        };
        let result = self.client.transport.send(request, header);
        if let Some(error) = reader.error.take() {
            return Err(Failed::local(url, "read the blob", error));
        }
        result.map_err(|error| match error.source.as_deref().and_then(short_source) {
            Some(short) => Failed::local(
                url,
                "read the blob",
                io::Error::new(short.kind(), short.to_string()),
            ),
            None => Failed::transport(error, &authorization.state),
        })
    }

    fn accept(&self, response: Response, authorization: &Authorization, what: &str) -> Attempt<()> {
        created(response, what, |response| self.refused(response, authorization))
    }

    /// A token may run out while a large blob is on its way: the next attempt has a new one.
    fn refused(&self, response: Response, authorization: &Authorization) -> Failed {
        if response.status != 401 || !response.url.same_origin(&self.endpoint.base) {
            return Failed::status(response, &authorization.state);
        }
        let url = response.url.clone();
        let client = self.client;
        let answer = client.authenticator.after_refusal(
            &client.transport,
            self.endpoint,
            &self.scope(),
            response,
            authorization,
        );
        if let Err(failed) = answer {
            return failed;
        }
        let cause = "the token was refused in the middle of the upload".to_owned();
        let mut failed = Failed::mismatch(ErrorKind::Unauthorized, &url, cause);
        failed.failure.status = Some(401);
        failed.failure.auth = authorization.state.clone();
        failed.retry = Retry::Again;
        failed
    }
}

/// Whether an upload is complete; `refused` says what other statuses than 2xx mean.
pub(crate) fn created(
    response: Response,
    what: &str,
    refused: impl FnOnce(Response) -> Failed,
) -> Attempt<()> {
    match response.status.as_u16() {
        201 | 204 => Ok(()),
        status if (200..300).contains(&status) => Err(Failed::protocol(
            &response.url,
            format!("{what} ended with status {status} instead of 201"),
        )),
        _ => Err(refused(response)),
    }
}

/// Where an upload goes on.
pub(crate) fn location(response: &Response) -> Attempt<Url> {
    let Some(location) = response.header("location") else {
        return Err(Failed::protocol(
            &response.url,
            "the registry opened no upload (no Location)".to_owned(),
        ));
    };
    response.url.join(location).map_err(|error| {
        Failed::protocol(
            &response.url,
            format!("the upload's address is unusable: {error}"),
        )
    })
}

/// The error by which the transport says that a source ended early.
fn short_source<'e>(error: &'e (dyn std::error::Error + Send + Sync + 'static)) -> Option<&'e io::Error> {
    match error.downcast_ref::<ureq::Error>() {
        Some(ureq::Error::Io(error))
            if error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<crate::transport::TooShort>())
                .is_some() =>
        {
            Some(error)
        }
        _ => None,
    }
}

/// Counts what is read, and keeps the source's own error apart from the network's.
pub(crate) struct Watched<'a> {
    inner: Box<dyn Read + 'a>,
    pub(crate) sent: u64,
    progress: &'a dyn Fn(u64),
    pub(crate) error: RefCell<Option<io::Error>>,
}

impl<'a> Watched<'a> {
    /// For a reader that begins so many bytes into the blob.
    pub(crate) fn new(inner: Box<dyn Read + 'a>, offset: u64, progress: &'a dyn Fn(u64)) -> Self {
        Self {
            inner,
            sent: offset,
            progress,
            error: RefCell::default(),
        }
    }
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(count) => {
                self.sent += count as u64;
                (self.progress)(self.sent);
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let copy = io::Error::new(error.kind(), error.to_string());
                self.error.replace(Some(error));
                Err(copy)
            }
        }
    }
}
