//! Names to digests, digests to manifests.

use serde::Deserialize;
use ureq::http::{Method, header};

use crate::auth::Scope;
use crate::client::{Client, Purpose};
use crate::config::MANIFEST_LIMIT;
use crate::endpoint::Endpoint;
use crate::error::{ErrorKind, Result};
use crate::failed::Failed;
use crate::transport::Response;
use kiln_image::media_type::{ACCEPTED_MANIFESTS, OCI_INDEX, OCI_MANIFEST};
use kiln_image::{Digest, Reference};

/// Every kind of manifest that can be pulled: OCI and Docker schema 2, single and multi-platform.
pub const ACCEPT_MANIFESTS: &[&str] = &ACCEPTED_MANIFESTS;

/// Types that say nothing about a manifest: some servers send them for every file.
const MEANINGLESS_TYPES: &[&str] = &["", "application/json", "application/octet-stream", "text/plain"];

/// What a name stands for at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Digest of the manifest or index.
    pub digest: Digest,
    /// Its media type, without parameters.
    pub media_type: String,
    /// Its size in bytes; `None` when the server did not say.
    pub size: Option<u64>,
    /// Its bytes, verified, when they had to be fetched to know the digest.
    pub bytes: Option<Vec<u8>>,
}

/// A manifest or index whose bytes match its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedManifest {
    /// sha256 of `bytes`.
    pub digest: Digest,
    /// Media type, without parameters.
    pub media_type: String,
    /// The bytes as they came.
    pub bytes: Vec<u8>,
}

impl Client {
    /// What the reference stands for: one HEAD where the registry plays along, otherwise a GET.
    /// `accept` are the media types wanted, normally [`ACCEPT_MANIFESTS`].
    pub fn resolve(&self, reference: &Reference, accept: &[&str]) -> Result<Resolved> {
        let accept = accept.join(", ");
        let purpose = if reference.digest.is_some() {
            Purpose::Content
        } else {
            Purpose::Name
        };
        self.on_endpoints("resolve", reference, purpose, |endpoint| {
            if let Some(resolved) = self.head(endpoint, reference, &accept)? {
                return Ok(resolved);
            }
            let fetched = self.get(endpoint, &name(reference), reference.digest.as_ref(), &accept)?;
            Ok(Resolved {
                digest: fetched.digest,
                media_type: fetched.media_type,
                size: Some(fetched.bytes.len() as u64),
                bytes: Some(fetched.bytes),
            })
        })
    }

    /// The manifest or index that the reference names, by digest when it has one, otherwise by tag.
    pub fn manifest(&self, reference: &Reference) -> Result<FetchedManifest> {
        let purpose = if reference.digest.is_some() {
            Purpose::Content
        } else {
            Purpose::Name
        };
        self.fetch_manifest(reference, &name(reference), reference.digest.as_ref(), purpose)
    }

    /// As [`Self::manifest`], but asked of the registry itself and of no mirror: for whoever is going to replace it.
    pub fn manifest_to_replace(&self, reference: &Reference) -> Result<FetchedManifest> {
        let (name, digest) = (name(reference), reference.digest.as_ref());
        self.fetch_manifest(reference, &name, digest, Purpose::Push)
    }

    /// A manifest of the reference's repository by digest, such as an entry of an index.
    pub fn manifest_by_digest(&self, reference: &Reference, digest: &Digest) -> Result<FetchedManifest> {
        self.fetch_manifest(reference, &digest.to_string(), Some(digest), Purpose::Content)
    }

    fn fetch_manifest(
        &self,
        reference: &Reference,
        name: &str,
        digest: Option<&Digest>,
        purpose: Purpose,
    ) -> Result<FetchedManifest> {
        let accept = ACCEPT_MANIFESTS.join(", ");
        self.on_endpoints("fetch manifest of", reference, purpose, |endpoint| {
            self.get(endpoint, name, digest, &accept)
        })
    }

    /// `Ok(None)`: the registry's answer does not do, a GET will tell more. That holds for errors,
    /// too: the answer to a HEAD has no body that could explain them.
    fn head(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        accept: &str,
    ) -> std::result::Result<Option<Resolved>, Failed> {
        let mut request = self.request(
            Method::HEAD,
            endpoint.url(&format!("manifests/{}", name(reference))),
        );
        request.headers.push((header::ACCEPT, accept.to_owned()));
        let scope = Scope::pull(&endpoint.repository);
        self.retrying(&request.url, || {
            let (response, authorization) = match self.call(endpoint, &scope, &request) {
                Err(failed)
                    if failed
                        .failure
                        .status
                        .is_some_and(|status| (400..500).contains(&status)) =>
                {
                    return if failed.failure.status == Some(429) {
                        Err(failed)
                    } else {
                        Ok(None)
                    };
                }
                result => result?,
            };
            let status = response.status.as_u16();
            if (400..500).contains(&status) && status != 429 || status == 501 {
                return Ok(None);
            }
            if status != 200 {
                return Err(Failed::status(response, &authorization.state));
            }
            let (Some(digest), Some(media_type)) = (content_digest(&response), media_type(&response)) else {
                return Ok(None);
            };
            if reference.digest.is_some_and(|wanted| wanted != digest) {
                return Ok(None);
            }
            Ok(Some(Resolved {
                digest,
                media_type,
                size: response.content_length(),
                bytes: None,
            }))
        })
    }

    fn get(
        &self,
        endpoint: &Endpoint,
        name: &str,
        wanted: Option<&Digest>,
        accept: &str,
    ) -> std::result::Result<FetchedManifest, Failed> {
        let mut request = self.request(Method::GET, endpoint.url(&format!("manifests/{name}")));
        request.headers.push((header::ACCEPT, accept.to_owned()));
        let scope = Scope::pull(&endpoint.repository);
        self.retrying(&request.url, || {
            let (mut response, authorization) = self.call_ok(endpoint, &scope, &request)?;
            if response
                .content_length()
                .is_some_and(|length| length > MANIFEST_LIMIT)
            {
                return Err(too_large(&response));
            }
            let bytes = response
                .read_limited(MANIFEST_LIMIT)
                .map_err(|error| Failed::body(&response.url, error, &authorization.state))?
                .ok_or_else(|| too_large(&response))?;
            let digest = Digest::sha256_of(&bytes);
            let claimed = content_digest(&response);
            if let Some(wanted) = wanted.or(claimed.as_ref())
                && *wanted != digest
            {
                let cause = format!("the manifest's digest is {digest} instead of {wanted}");
                return Err(Failed::mismatch(ErrorKind::DigestMismatch, &response.url, cause));
            }
            let media_type = match media_type(&response) {
                Some(media_type) => media_type,
                None => own_media_type(&bytes).ok_or_else(|| {
                    Failed::protocol(&response.url, "the answer is no image manifest".to_owned())
                })?,
            };
            Ok(FetchedManifest {
                digest,
                media_type,
                bytes,
            })
        })
    }
}

fn too_large(response: &Response) -> Failed {
    let cause = format!(
        "the manifest is larger than {} MiB",
        MANIFEST_LIMIT / (1024 * 1024)
    );
    Failed::protocol(&response.url, cause)
}

/// The last part of the manifest's URL: digest before tag, since it says more.
fn name(reference: &Reference) -> String {
    match (&reference.digest, &reference.tag) {
        (Some(digest), _) => digest.to_string(),
        (None, Some(tag)) => tag.clone(),
        (None, None) => "latest".to_owned(),
    }
}

/// `Docker-Content-Digest`, when it is one that we can verify.
fn content_digest(response: &Response) -> Option<Digest> {
    response.header("docker-content-digest")?.trim().parse().ok()
}

/// `Content-Type` without parameters, unless it says nothing.
fn media_type(response: &Response) -> Option<String> {
    let value = response.header("content-type").unwrap_or_default();
    let value = value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    (!MEANINGLESS_TYPES.contains(&value.as_str())).then_some(value)
}

/// The type that a manifest states or shows.
fn own_media_type(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
        config: Option<serde::de::IgnoredAny>,
    }
    let shape: Shape = serde_json::from_slice(bytes).ok()?;
    shape
        .media_type
        .or_else(|| shape.manifests.map(|_| OCI_INDEX.to_owned()))
        .or_else(|| shape.config.map(|_| OCI_MANIFEST.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_show_what_they_are() {
        let cases: &[(&str, Option<&str>)] = &[
            (r#"{"schemaVersion":2,"mediaType":"x/y"}"#, Some("x/y")),
            (r#"{"schemaVersion":2,"manifests":[]}"#, Some(OCI_INDEX)),
            (
                r#"{"schemaVersion":2,"config":{},"layers":[]}"#,
                Some(OCI_MANIFEST),
            ),
            (r#"{"schemaVersion":2}"#, None),
            ("<html>", None),
        ];
        for (text, want) in cases {
            assert_eq!(own_media_type(text.as_bytes()).as_deref(), *want, "{text}");
        }
    }
}
