//! What an honest registry has and says.

use super::{Answer, Request};
use crate::oci;
use std::collections::BTreeMap;

/// What an honest registry has.
#[derive(Debug, Default)]
pub struct Site {
    /// Media type and bytes of manifests, by tag and by digest.
    pub manifests: BTreeMap<String, (String, Vec<u8>)>,
    /// Blobs by digest.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// What else there is to download, by path.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Uploads that are under way, by number.
    uploads: BTreeMap<usize, Vec<u8>>,
    opened: usize,
}

/// `sha256:…` of bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", oci::sha256(bytes))
}

impl Site {
    /// Keeps a blob; its digest is returned.
    pub fn put_blob(&mut self, bytes: impl Into<Vec<u8>>) -> String {
        let bytes = bytes.into();
        let digest = digest(&bytes);
        self.blobs.insert(digest.clone(), bytes);
        digest
    }

    /// Keeps a manifest under its digest, and under a tag if there is one; the digest is returned.
    pub fn put_manifest(&mut self, tag: Option<&str>, media_type: &str, bytes: impl Into<Vec<u8>>) -> String {
        let bytes = bytes.into();
        let digest = digest(&bytes);
        for name in tag.into_iter().chain([digest.as_str()]) {
            self.manifests
                .insert(name.to_owned(), (media_type.to_owned(), bytes.clone()));
        }
        digest
    }

    /// What an honest registry says.
    pub fn answer(&mut self, request: &Request) -> Answer {
        let read = matches!(request.method.as_str(), "GET" | "HEAD");
        if let Some(name) = request.manifest() {
            return if read {
                self.give_manifest(name)
            } else {
                self.take_manifest(name, request)
            };
        }
        if request.is_upload() {
            return self.upload(request);
        }
        if let Some(bytes) = self.files.get(&request.path).filter(|_| read) {
            return Answer::of(bytes.clone());
        }
        match request.blob() {
            Some(name) if read => self.give_blob(name, request.range()),
            _ if request.path.ends_with("/tags/list") => Answer::of(r#"{"tags":["1"]}"#),
            _ if request.path == "/v2/" => Answer::of("{}"),
            _ => Answer::complaint(404, "UNSUPPORTED", "no such thing"),
        }
    }

    fn give_manifest(&self, name: &str) -> Answer {
        match self.manifests.get(name) {
            Some((media_type, bytes)) => Answer::of(bytes.clone())
                .with("Content-Type", media_type)
                .with("Docker-Content-Digest", digest(bytes)),
            None => Answer::complaint(404, "MANIFEST_UNKNOWN", "manifest unknown"),
        }
    }

    fn take_manifest(&mut self, name: &str, request: &Request) -> Answer {
        let media_type = request.headers.get("content-type").cloned().unwrap_or_default();
        let tag = (!name.starts_with("sha256:")).then_some(name);
        let digest = self.put_manifest(tag, &media_type, request.body.clone());
        Answer::status(201).with("Docker-Content-Digest", digest)
    }

    fn give_blob(&self, name: &str, range: Option<usize>) -> Answer {
        let Some(bytes) = self.blobs.get(name) else {
            return Answer::complaint(404, "BLOB_UNKNOWN", "blob unknown to registry");
        };
        let all = bytes.len();
        match range.filter(|start| *start < all) {
            Some(start) => Answer::of(&bytes[start..])
                .but(206)
                .with("Content-Range", format!("bytes {start}-{}/{all}", all - 1)),
            None => Answer::of(bytes.clone()),
        }
    }

    fn upload(&mut self, request: &Request) -> Answer {
        let (start, number) = request.path.rsplit_once('/').unwrap_or_default();
        if request.method == "POST" {
            self.opened += 1;
            self.uploads.insert(self.opened, Vec::new());
            return Answer::status(202).with("Location", format!("{start}/{}", self.opened));
        }
        let number: usize = number.parse().unwrap_or(0);
        let Some(upload) = self.uploads.get_mut(&number) else {
            return Answer::complaint(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry");
        };
        upload.extend_from_slice(&request.body);
        match request.method.as_str() {
            "PATCH" => {
                let last = upload.len().saturating_sub(1);
                Answer::status(202)
                    .with("Location", request.path.clone())
                    .with("Range", format!("0-{last}"))
            }
            "DELETE" => {
                self.uploads.remove(&number);
                Answer::status(204)
            }
            _ => {
                let bytes = self.uploads.remove(&number).unwrap_or_default();
                let digest = self.put_blob(bytes);
                if request.query.contains(&digest.replace(':', "%3A")) || request.query.contains(&digest) {
                    Answer::status(201).with("Docker-Content-Digest", digest)
                } else {
                    Answer::complaint(
                        400,
                        "DIGEST_INVALID",
                        "provided digest did not match uploaded content",
                    )
                }
            }
        }
    }
}
