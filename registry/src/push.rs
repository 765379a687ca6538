//! Uploads: blobs whole or in chunks, mounts from another repository, manifests, tags.

use std::cell::RefCell;
use std::io::{self, Read};

use serde::Deserialize;
use ureq::http::{Method, header};

use crate::auth::{Authorization, Scope};
use crate::client::{Client, Plain, Purpose};
use crate::endpoint::Endpoint;
use crate::error::{ErrorKind, Result};
use crate::failed::{Failed, Retry};
use crate::sink::BlobSource;
use crate::transport::{Payload, Request, Response};
use crate::url::Url;
use kiln_image::{Descriptor, Digest, Reference};

/// Size of one chunk where a registry does not take a blob whole. Reverse proxies in front of small
/// registries often stop at 10 MiB.
const UPLOAD_CHUNK: u64 = 8 * 1024 * 1024;
/// One page of a tag list.
const TAG_PAGE_LIMIT: u64 = 8 * 1024 * 1024;
/// Pages of a tag list. A server that points back at itself does not hold us for ever.
const TAG_PAGES: usize = 1000;
/// Bytes of all tags: half a million of a usual length.
const TAGS_LIMIT: usize = 16 * 1024 * 1024;

/// Statuses by which registries and the proxies before them refuse a whole upload but may take chunks.
const NOT_WHOLE: &[u16] = &[400, 404, 405, 411, 413, 416, 501];

/// Codes by which a registry refuses the content or the name, not the way of sending.
const NOT_AT_ALL: &[&str] = &["DIGEST_INVALID", "SIZE_INVALID", "NAME_INVALID", "NAME_UNKNOWN"];

type Attempt<T> = std::result::Result<T, Failed>;

impl Client {
    /// Whether the registry has the blob (in this repository).
    pub fn blob_exists(&self, reference: &Reference, blob: &Descriptor) -> Result<bool> {
        self.on_endpoints("look for blob of", reference, Purpose::Push, |endpoint| {
            self.look_for_blob(endpoint, &Scope::push(&endpoint.repository), blob)
                .or_else(|failed| match failed.failure.status {
                    // Nobody else is asked: it is here that the blob is to be.
                    Some(404) => Ok(false),
                    _ => Err(failed),
                })
        })
    }

    /// Makes a blob of another repository of the same registry part of this one, without a transfer.
    /// False if the registry would not (then the blob has to be uploaded).
    pub fn mount_blob(&self, reference: &Reference, digest: &Digest, from: &Reference) -> Result<bool> {
        if reference.registry != from.registry || reference.repository == from.repository {
            return Ok(false);
        }
        self.on_endpoints("mount blob into", reference, Purpose::Push, |endpoint| {
            let scope = Scope::push(&endpoint.repository).and_pull(&from.repository);
            let url = endpoint
                .url("blobs/uploads/")
                .with_query("mount", &digest.to_string())
                .with_query("from", &from.repository);
            let request = self.request(Method::POST, url);
            self.retrying(&request.url, || {
                let (response, authorization) = self.call(endpoint, &scope, &request)?;
                match response.status.as_u16() {
                    201 => Ok(true),
                    // Not found there, or no right to read it: an ordinary upload was opened instead.
                    202 => {
                        self.cancel_upload(endpoint, &scope, response);
                        Ok(false)
                    }
                    _ => Err(Failed::status(response, &authorization.state)),
                }
            })
        })
    }

    /// Uploads a blob: in one request, or in chunks where the registry does not take it whole.
    /// `progress` gets the number of bytes sent; it goes back to 0 when an attempt fails.
    pub fn put_blob(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        source: &dyn BlobSource,
        progress: &dyn Fn(u64),
    ) -> Result<()> {
        self.on_endpoints("upload blob to", reference, Purpose::Push, |endpoint| {
            let upload = Upload {
                client: self,
                endpoint,
                blob,
                source,
                progress,
            };
            let url = endpoint.url("blobs/uploads/");
            match self.retrying(&url, || upload.whole()) {
                // The first refusal says more, if chunks fail as well.
                Err(failed) if may_take_chunks(&failed) => self
                    .retrying(&url, || upload.chunked())
                    .map_err(|second| if second.is_final() { second } else { failed }),
                result => result,
            }
        })
    }

    /// Uploads a manifest or index under the reference's digest or tag. Its blobs must be there.
    pub fn put_manifest(&self, reference: &Reference, media_type: &str, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::sha256_of(bytes);
        let name = match (&reference.tag, &reference.digest) {
            (Some(tag), _) => tag.clone(),
            (None, Some(digest)) => digest.to_string(),
            (None, None) => digest.to_string(),
        };
        self.on_endpoints("upload manifest to", reference, Purpose::Push, |endpoint| {
            let mut request = self.request(Method::PUT, endpoint.url(&format!("manifests/{name}")));
            request
                .headers
                .push((header::CONTENT_TYPE, media_type.to_owned()));
            request.body = Some(bytes);
            request.patience = self.config.retry.commit_timeout;
            let scope = Scope::push(&endpoint.repository);
            self.retrying(&request.url, || {
                let (response, _) = self
                    .call_ok(endpoint, &scope, &request)
                    .map_err(again_when_disturbed)?;
                let stored = response
                    .header("docker-content-digest")
                    .and_then(|text| text.trim().parse().ok());
                match stored {
                    Some(stored) if digest != stored => {
                        let cause = format!("the registry stored {stored} instead of {digest}");
                        Err(Failed::mismatch(ErrorKind::DigestMismatch, &response.url, cause))
                    }
                    _ => Ok(digest),
                }
            })
        })
    }

    /// All tags of the repository, in the registry's order.
    pub fn tags(&self, reference: &Reference) -> Result<Vec<String>> {
        self.on_endpoints("list tags of", reference, Purpose::Name, |endpoint| {
            let (mut tags, mut size) = (Vec::new(), 0);
            let mut next = Some(endpoint.url("tags/list"));
            for _ in 0..TAG_PAGES {
                let Some(url) = next else { return Ok(tags) };
                let request = self.request(Method::GET, url.clone());
                let (page, link) = self.retrying(&url, || self.tag_page(endpoint, &request))?;
                size += page.iter().map(String::len).sum::<usize>();
                if size > TAGS_LIMIT {
                    let cause = format!("the tag list has more than {} MiB", TAGS_LIMIT >> 20);
                    return Err(Failed::protocol(&endpoint.base, cause));
                }
                tags.extend(page);
                next = link;
            }
            Err(Failed::protocol(
                &endpoint.base,
                format!("the tag list has more than {TAG_PAGES} pages"),
            ))
        })
    }

    fn tag_page(&self, endpoint: &Endpoint, request: &Plain<'_>) -> Attempt<(Vec<String>, Option<Url>)> {
        #[derive(Deserialize)]
        struct Page {
            // Null for a repository without tags.
            tags: Option<Vec<String>>,
        }
        let (mut response, authorization) =
            self.call_ok(endpoint, &Scope::pull(&endpoint.repository), request)?;
        let bytes = response
            .read_limited(TAG_PAGE_LIMIT)
            .map_err(|error| Failed::body(&response.url, error, &authorization.state))?;
        let page = bytes.and_then(|bytes| serde_json::from_slice::<Page>(&bytes).ok());
        let Some(page) = page else {
            return Err(Failed::protocol(
                &response.url,
                "the answer is no tag list".to_owned(),
            ));
        };
        let link = response.header("link").and_then(next_link);
        let next = match link.map(|link| response.url.join(link)) {
            None => None,
            Some(Ok(url)) => Some(url),
            Some(Err(error)) => {
                return Err(Failed::protocol(
                    &response.url,
                    format!("unusable link to the next page: {error}"),
                ));
            }
        };
        Ok((page.tags.unwrap_or_default(), next))
    }

    fn cancel_upload(&self, endpoint: &Endpoint, scope: &Scope, response: Response) {
        let location = location(&response);
        // Its connection goes back first: a thread holds one at a time.
        drop(response);
        if let Ok(location) = location {
            // A courtesy: registries forget abandoned uploads by themselves.
            let _ = self.call(endpoint, scope, &self.request(Method::DELETE, location));
        }
    }
}

/// A registry that keeps its links in files may read one of a blob of this manifest just while somebody else, who pushes the
/// same blob, writes it. It then says that a digest is invalid, although none was given to it.
fn again_when_disturbed(mut failed: Failed) -> Failed {
    if failed.failure.status == Some(400) && failed.failure.code.as_deref() == Some("DIGEST_INVALID") {
        failed.retry = Retry::Again;
    }
    failed
}

fn may_take_chunks(failed: &Failed) -> bool {
    let failure = &failed.failure;
    let code = failure.code.as_deref().unwrap_or_default();
    failure.status.is_some_and(|status| NOT_WHOLE.contains(&status)) && !NOT_AT_ALL.contains(&code)
}

/// The target of `<…>; rel="next"`.
fn next_link(header: &str) -> Option<&str> {
    let (target, parameters) = header.trim().strip_prefix('<')?.split_once('>')?;
    let parameters = parameters.replace([' ', '"'], "").to_ascii_lowercase();
    parameters
        .split([';', ','])
        .any(|parameter| parameter == "rel=next")
        .then_some(target)
}

/// One blob on its way to one endpoint.
struct Upload<'a> {
    client: &'a Client,
    endpoint: &'a Endpoint,
    blob: &'a Descriptor,
    source: &'a dyn BlobSource,
    progress: &'a dyn Fn(u64),
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

    fn whole(&self) -> Attempt<()> {
        let (location, response, authorization) = self.open()?;
        drop(response);
        let url = location.with_query("digest", &self.blob.digest.to_string());
        let response = self.send(Method::PUT, &url, 0, self.blob.size, &authorization)?;
        self.accept(response, &authorization, "the upload")
    }

    fn chunked(&self) -> Attempt<()> {
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

#[cfg(test)]
mod tests {
    use super::next_link;

    #[test]
    fn links() {
        let cases = [
            (
                "</v2/a/tags/list?last=x&n=2>; rel=\"next\"",
                Some("/v2/a/tags/list?last=x&n=2"),
            ),
            ("<https://h/p>;rel=next", Some("https://h/p")),
            ("<https://h/p>; rel=\"prev\"", None),
            ("https://h/p", None),
            ("<", None),
        ];
        for (header, want) in cases {
            assert_eq!(next_link(header), want, "{header}");
        }
    }
}
