//! Pushing: which blobs are there, mounts from another repository, blobs, manifests.

use ureq::http::{Method, header};

use crate::auth::Scope;
use crate::client::{Client, Purpose};
use crate::endpoint::Endpoint;
use crate::error::{ErrorKind, Result};
use crate::failed::{Failed, Retry};
use crate::sink::BlobSource;
use crate::transport::Response;
use crate::upload::{Upload, location, may_take_chunks};
use kiln_image::{Descriptor, Digest, Reference};

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
