//! Download of blobs: streamed, hashed on the way, resumed after a cut, never beyond their size.

use std::io::{self, Read as _};

use ureq::http::{Method, header};

use crate::auth::Scope;
use crate::client::{Client, Purpose, Retries};
use crate::endpoint::Endpoint;
use crate::error::{ErrorKind, Result};
use crate::failed::{Failed, Retry};
use crate::response::content_range;
use crate::sink::BlobSink;
use crate::transport::Response;
use crate::url::Url;
use kiln_image::{Descriptor, Reference, Sha256};

/// Bytes read at a time: large enough that calls do not count, small enough for any thread count.
const CHUNK: usize = 64 * 1024;
/// So many new bytes make a cut connection a new trouble and not the old one again. A server that
/// gives one byte a connection is given up all the same.
const PROGRESS: u64 = 1024 * 1024;

impl Client {
    /// Downloads the blob into the sink. `progress` gets the number of the blob's bytes that are in
    /// the sink; it may go down when the download has to start over.
    ///
    /// Bytes that the sink already holds are hashed and not fetched again. After `Ok` the sink holds
    /// exactly the blob that the descriptor names. See [`BlobSink`] for what it holds after an error.
    pub fn fetch_blob(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        sink: &mut dyn BlobSink,
        progress: &dyn Fn(u64),
    ) -> Result<()> {
        let started = Download::start(blob, sink, progress);
        let mut download = match started {
            Ok(download) => Ok(download),
            Err(error) => Err(Some(error)),
        };
        self.on_endpoints("fetch blob of", reference, Purpose::Content, |endpoint| {
            let url = endpoint.url(&format!("blobs/{}", blob.digest));
            match &mut download {
                Ok(download) => self.download(endpoint, &url, download),
                Err(error) => {
                    // Taken at most once: a local failure ends the walk over the endpoints.
                    let error = error
                        .take()
                        .unwrap_or_else(|| io::Error::other("the sink failed"));
                    Err(Failed::local(&url, "read what is already there", error))
                }
            }
        })
    }

    /// Whether the blob can be downloaded, without downloading it. Asks for no more than the right to read.
    pub fn has_blob(&self, reference: &Reference, blob: &Descriptor) -> Result<bool> {
        self.on_endpoints("look for blob of", reference, Purpose::Content, |endpoint| {
            self.look_for_blob(endpoint, &Scope::pull(&endpoint.repository), blob)
        })
        .or_else(|error| match error.kind() {
            ErrorKind::NotFound => Ok(false),
            _ => Err(error),
        })
    }

    /// Whether what an endpoint has by the blob's digest is of its size. That it has nothing is an error.
    pub(crate) fn look_for_blob(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
        blob: &Descriptor,
    ) -> std::result::Result<bool, Failed> {
        let request = self.request(Method::HEAD, endpoint.url(&format!("blobs/{}", blob.digest)));
        self.retrying(&request.url, || {
            let (response, authorization) = self.call(endpoint, scope, &request)?;
            match response.status.as_u16() {
                200 => Ok(response.content_length().is_none_or(|length| length == blob.size)),
                _ => Err(Failed::status(response, &authorization.state)),
            }
        })
    }

    fn download(
        &self,
        endpoint: &Endpoint,
        url: &Url,
        download: &mut Download<'_>,
    ) -> std::result::Result<(), Failed> {
        let mut retries = Retries::new(&self.config);
        download.inherited = download.received > 0;
        loop {
            retries.check(url)?;
            if download.received == download.blob.size {
                // Bytes of an earlier process or of another endpoint may be damaged: then, and only
                // then, once more from the start.
                match download.finish(url) {
                    Err(failed) if download.inherited && failed.failure.kind == ErrorKind::DigestMismatch => {
                        download.inherited = false;
                        continue;
                    }
                    result => return result,
                }
            }
            let before = download.received;
            if let Err(failed) = self.stretch(endpoint, url, download, &retries) {
                if download.received.saturating_sub(before) >= PROGRESS {
                    retries.reset();
                }
                let Err(failed) = retries.pause(failed) else {
                    continue;
                };
                // Bytes of a blob of another size are worth nothing to the next endpoint or process.
                if failed.failure.kind == ErrorKind::SizeMismatch {
                    download.restart(url)?;
                }
                return Err(failed);
            }
        }
    }

    /// One request: from where we are to the end, or to where it breaks.
    fn stretch(
        &self,
        endpoint: &Endpoint,
        url: &Url,
        download: &mut Download<'_>,
        retries: &Retries<'_>,
    ) -> std::result::Result<(), Failed> {
        let mut request = self.request(Method::GET, url.clone());
        if download.received > 0 {
            request
                .headers
                .push((header::RANGE, format!("bytes={}-", download.received)));
        }
        let (mut response, authorization) =
            self.call(endpoint, &Scope::pull(&endpoint.repository), &request)?;
        let skip = match response.status.as_u16() {
            200 => download.received,
            206 => download.check_range(&response)?,
            416 if download.received > 0 => {
                download.restart(url)?;
                let mut failed = Failed::status(response, &authorization.state);
                failed.retry = Retry::Again;
                return Err(failed);
            }
            status if (200..300).contains(&status) => {
                return Err(Failed::protocol(
                    url,
                    format!("unexpected answer (status {status})"),
                ));
            }
            _ => return Err(Failed::status(response, &authorization.state)),
        };
        download.check_length(&response)?;
        let answered = response.url.clone();
        download
            .receive(&mut response.reader(), skip, &answered, retries)
            .map_err(|error| match error {
                Broken::Failed(failed) => failed,
                Broken::Body(error) => Failed::body(&answered, error, &authorization.state),
            })
    }
}

/// How reading a body ended badly.
enum Broken {
    Failed(Failed),
    Body(io::Error),
}

/// A download between its stretches, which may come from several endpoints.
struct Download<'a> {
    blob: &'a Descriptor,
    sink: &'a mut dyn BlobSink,
    progress: &'a dyn Fn(u64),
    hasher: Sha256,
    received: u64,
    /// The sink's first bytes are not from the endpoint that is being asked.
    inherited: bool,
}

impl<'a> Download<'a> {
    fn start(
        blob: &'a Descriptor,
        sink: &'a mut dyn BlobSink,
        progress: &'a dyn Fn(u64),
    ) -> io::Result<Self> {
        let mut hasher = Sha256::new();
        let mut received = sink.offset();
        if received > 0 && (received > blob.size || !hash_existing(sink, received, &mut hasher)?) {
            sink.restart()?;
            hasher = Sha256::new();
            received = 0;
        }
        progress(received);
        Ok(Self {
            blob,
            sink,
            progress,
            hasher,
            received,
            inherited: received > 0,
        })
    }

    fn restart(&mut self, url: &Url) -> std::result::Result<(), Failed> {
        self.sink
            .restart()
            .map_err(|error| Failed::local(url, "start over", error))?;
        self.hasher = Sha256::new();
        self.received = 0;
        (self.progress)(0);
        Ok(())
    }

    /// Where a partial answer starts, as the number of bytes to skip.
    fn check_range(&self, response: &Response) -> std::result::Result<u64, Failed> {
        let range = response.header("content-range").and_then(content_range);
        match range {
            Some((start, total)) if start <= self.received => {
                if let Some(total) = total.filter(|total| *total != self.blob.size) {
                    return Err(self.wrong_size(&response.url, total));
                }
                Ok(self.received - start)
            }
            _ => {
                let cause = "the answer is not the part that was asked for".to_owned();
                Err(Failed::protocol(&response.url, cause))
            }
        }
    }

    /// Refuses a body that announces more or less than what is wanted.
    fn check_length(&self, response: &Response) -> std::result::Result<(), Failed> {
        let Some(length) = response.content_length() else {
            return Ok(());
        };
        let start = if response.status == 206 {
            response
                .header("content-range")
                .and_then(content_range)
                .map_or(self.received, |(start, _)| start)
        } else {
            0
        };
        // Part of what is left is fine (a proxy may cut ranges); a whole body must be whole.
        let end = start.saturating_add(length);
        let wrong = end > self.blob.size || (response.status == 200 && end != self.blob.size);
        if wrong {
            Err(self.wrong_size(&response.url, end))
        } else {
            Ok(())
        }
    }

    fn wrong_size(&self, url: &Url, got: u64) -> Failed {
        let cause = format!(
            "the blob {} has {got} bytes instead of {}",
            self.blob.digest, self.blob.size
        );
        Failed::mismatch(ErrorKind::SizeMismatch, url, cause)
    }

    /// Reads a body to its end, but never further than the blob's size.
    fn receive(
        &mut self,
        body: &mut dyn io::Read,
        mut skip: u64,
        url: &Url,
        retries: &Retries<'_>,
    ) -> std::result::Result<(), Broken> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = match body.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Broken::Body(error)),
            };
            if count == 0 {
                if self.received == self.blob.size {
                    return Ok(());
                }
                // Without a length an early end looks like the real one; another try will tell.
                let mut failed = self.wrong_size(url, self.received);
                failed.retry = Retry::Again;
                return Err(Broken::Failed(failed));
            }
            retries.check(url).map_err(Broken::Failed)?;
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(count);
            skip -= skipped as u64;
            let bytes = &buffer[skipped..count];
            if bytes.len() as u64 > self.blob.size - self.received {
                let cause = format!(
                    "the blob {} has more than {} bytes",
                    self.blob.digest, self.blob.size
                );
                let failed = Failed::mismatch(ErrorKind::SizeMismatch, url, cause);
                return Err(Broken::Failed(failed));
            }
            self.sink
                .write(bytes)
                .map_err(|error| Broken::Failed(Failed::local(url, "write the blob", error)))?;
            self.hasher.update(bytes);
            self.received += bytes.len() as u64;
            (self.progress)(self.received);
        }
    }

    /// All bytes are there: compares the digest, and starts over when it is wrong.
    fn finish(&mut self, url: &Url) -> std::result::Result<(), Failed> {
        let digest = std::mem::replace(&mut self.hasher, Sha256::new()).finish();
        if digest == self.blob.digest {
            return Ok(());
        }
        self.restart(url)?;
        let cause = format!("the blob's digest is {digest} instead of {}", self.blob.digest);
        Err(Failed::mismatch(ErrorKind::DigestMismatch, url, cause))
    }
}

/// Hashes what the sink already holds; false if it cannot be read.
fn hash_existing(sink: &mut dyn BlobSink, length: u64, hasher: &mut Sha256) -> io::Result<bool> {
    let Some(existing) = sink.existing()? else {
        return Ok(false);
    };
    let mut existing = existing.take(length);
    let mut buffer = vec![0; CHUNK];
    let mut hashed = 0;
    loop {
        match existing.read(&mut buffer) {
            Ok(0) => return Ok(hashed == length),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                hashed += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
