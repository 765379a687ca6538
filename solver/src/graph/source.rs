//! Operations that bring content from outside: images, local directories, files from servers, git repositories.

use kiln_image::{Descriptor, Digest};
use serde::{Deserialize, Serialize};

/// Where outside content comes from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Source {
    /// Nothing at all: an empty root file system (`FROM scratch`).
    Scratch,
    /// An image whose manifest was resolved beforehand.
    Image(ImageSource),
    /// A local directory that the request of the build names.
    Local(LocalSource),
    /// One file from a server, whose content is known beforehand.
    Http(HttpSource),
    /// The files of a commit that was looked up beforehand.
    Git(GitSource),
}

/// A file from a server. Its result is one layer with this file in its root, for root alone to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpSource {
    /// Where it is.
    pub url: String,
    /// Its content.
    pub digest: Digest,
    /// What it is called in the layer.
    pub name: String,
    /// What the server says about its time, in seconds since 1970. Not known for a file whose content was named
    /// beforehand: its server need not be asked.
    pub modified: Option<u64>,
    /// It was downloaded a moment ago, when its content was looked up: its result is there, and yet new.
    #[serde(default)]
    pub fresh: bool,
}

/// The files of a commit. Its result is one layer with them in its root.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitSource {
    /// The repository, as git is given it.
    pub remote: String,
    /// The commit's full hash.
    pub commit: String,
    /// The full name of the reference that led to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The hash of the annotated tag that led to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The directory that is wanted; empty for all.
    #[serde(default)]
    pub subdirectory: String,
    /// `.git` stays.
    #[serde(default)]
    pub keep_git_dir: bool,
    /// Submodules come along.
    pub submodules: bool,
    /// The files have the commit's time and not that of their checkout.
    #[serde(default)]
    pub commit_time: bool,
}

/// A resolved image: everything that is needed to have its layers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImageSource {
    /// Canonical reference as asked for, such as `docker.io/library/busybox:latest`.
    pub reference: String,
    /// Digest of the platform's manifest, or of the configuration for an image that was built or imported
    /// here and has no manifest yet.
    pub digest: Digest,
    /// The layers, bottom first.
    pub layers: Vec<SourceLayer>,
}

/// A layer of an [`ImageSource`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SourceLayer {
    /// Identity in the store.
    pub layer: kiln_cache::LayerId,
    /// Digest of the uncompressed layer tar.
    pub diff_id: Digest,
    /// The compressed blob in the registry, when there is one.
    pub blob: Option<Descriptor>,
}

/// A local directory, by the name under which the request lists it (`context` is the main one).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalSource {
    /// The context's name.
    pub name: String,
}

impl GitSource {
    /// Whether the result has a `.git`: a directory of a repository never has.
    pub(crate) fn keeps_git_dir(&self) -> bool {
        self.keep_git_dir && self.subdirectory.is_empty()
    }
}
