//! OCI image layouts and `docker save` archives.

mod reader;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::tarball::{Member, MemberType, TarWriter};
use crate::{Descriptor, Digest, Index, Reference, Sha256};

pub use reader::LayoutReader;

/// The annotation with the tag (or whatever the writer of a layout calls an image).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation with the complete name, as containerd and Docker read it.
pub const IMAGE_NAME: &str = "io.containerd.image.name";
/// The content of `oci-layout`.
const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// Blobs are copied in pieces of this size.
const BUFFER: usize = 128 << 10;

/// What can go wrong with a layout.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Writing failed.
    #[error("write {name} of image layout")]
    Write {
        /// Which file.
        name: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Reading failed.
    #[error("read {name} of image layout")]
    Read {
        /// Which file.
        name: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A blob is not what its descriptor says.
    #[error("blob {expected} of {expected_size} bytes is really {found} of {found_size} bytes")]
    Blob {
        /// The digest in the descriptor.
        expected: Digest,
        /// The size in the descriptor.
        expected_size: u64,
        /// The digest of the bytes.
        found: Digest,
        /// How many bytes there are.
        found_size: u64,
    },
    /// A blob that an image needs was not added.
    #[error("blob {digest} is not in the image layout")]
    Missing {
        /// Its digest.
        digest: Digest,
    },
    /// A document of the layout is malformed.
    #[error("{name} of image layout is malformed")]
    Malformed {
        /// Which file.
        name: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A layout of a version that is not known here.
    #[error("image layout has version {version:?}, only 1.0.0 is known")]
    Version {
        /// The version.
        version: String,
    },
}

/// Which files beside the blobs a layout gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An OCI layout only.
    Oci,
    /// An OCI layout that `docker load` takes as well: with `manifest.json` and `repositories`.
    Docker,
}

/// An image of a layout.
#[derive(Debug, Clone)]
pub struct SavedImage {
    /// Its manifest or index, which was added as a blob.
    pub root: Descriptor,
    /// Its names.
    pub names: Vec<Reference>,
    /// For [`Form::Docker`]: the configuration and layers of the image that `docker load` is to take.
    pub docker: Option<(Descriptor, Vec<Descriptor>)>,
}

/// An entry of `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Where a layout is written to. Blobs come first, [`Self::finish`] writes the rest.
#[derive(Debug)]
pub struct Writer<W: Write> {
    target: Target<W>,
    blobs: BTreeSet<Digest>,
}

#[derive(Debug)]
enum Target<W: Write> {
    Directory(PathBuf, W),
    Tar(TarWriter<W>),
}

impl Writer<io::Sink> {
    /// A layout in the directory `path`, made if missing.
    pub fn directory(path: &Path) -> Result<Self, LayoutError> {
        let blobs = path.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(write_error("blobs/sha256"))?;
        Ok(Self {
            target: Target::Directory(path.to_owned(), io::sink()),
            blobs: BTreeSet::new(),
        })
    }
}

impl<W: Write> Writer<W> {
    /// A layout as a tar stream.
    pub fn tar(out: W) -> Result<Self, LayoutError> {
        let mut tar = TarWriter::new(out);
        for name in ["blobs/", "blobs/sha256/"] {
            tar.member(&member(name, MemberType::Directory, 0o755))
                .map_err(write_error(name))?;
        }
        Ok(Self {
            target: Target::Tar(tar),
            blobs: BTreeSet::new(),
        })
    }

    /// Whether this blob was added already.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.blobs.contains(digest)
    }

    /// Adds a blob, once; verifies size and digest on the way.
    pub fn blob(&mut self, descriptor: &Descriptor, reader: impl Read) -> Result<(), LayoutError> {
        if !self.contains(&descriptor.digest) {
            self.file(&blob_name(&descriptor.digest), descriptor, reader)?;
            self.blobs.insert(descriptor.digest);
        }
        Ok(())
    }

    /// Writes `oci-layout`, `index.json` and what the form asks for.
    pub fn finish(mut self, images: &[SavedImage], form: Form) -> Result<W, LayoutError> {
        for image in images {
            self.check(image, form)?;
        }
        let index = Index::new(images.iter().flat_map(entries).collect());
        self.document("index.json", &index.to_bytes())?;
        if form == Form::Docker {
            let name = "manifest.json";
            let json = serde_json::to_vec(&docker_images(images));
            self.document(name, &json.map_err(malformed(name))?)?;
            let name = "repositories";
            let json = serde_json::to_vec(&repositories(images));
            self.document(name, &json.map_err(malformed(name))?)?;
        }
        // What makes the directory a layout comes last.
        self.document("oci-layout", OCI_LAYOUT)?;
        match self.target {
            Target::Directory(_, out) => Ok(out),
            Target::Tar(tar) => tar.finish().map(|(out, _)| out).map_err(write_error("end")),
        }
    }

    fn check(&self, image: &SavedImage, form: Form) -> Result<(), LayoutError> {
        let docker = image.docker.as_ref().filter(|_| form == Form::Docker);
        let docker = docker
            .into_iter()
            .flat_map(|(config, layers)| std::iter::once(config).chain(layers));
        match std::iter::once(&image.root)
            .chain(docker)
            .find(|blob| !self.contains(&blob.digest))
        {
            None => Ok(()),
            Some(blob) => Err(LayoutError::Missing { digest: blob.digest }),
        }
    }

    fn document(&mut self, name: &str, bytes: &[u8]) -> Result<(), LayoutError> {
        self.file(name, &Descriptor::of("", bytes), bytes)
    }

    fn file(
        &mut self,
        name: &str,
        descriptor: &Descriptor,
        mut reader: impl Read,
    ) -> Result<(), LayoutError> {
        match &mut self.target {
            Target::Directory(path, _) => {
                // A blob that is there is complete: it gets its name last.
                let temporary = path.join(format!("{name}.partial"));
                let mut file = fs::File::create(&temporary).map_err(write_error(name))?;
                let copied = copy(name, descriptor, &mut reader, |bytes| file.write_all(bytes));
                let done =
                    copied.and_then(|()| fs::rename(&temporary, path.join(name)).map_err(write_error(name)));
                if done.is_err() {
                    // The error that is told is the first one.
                    let _ = fs::remove_file(&temporary);
                }
                done
            }
            Target::Tar(tar) => {
                let kind = MemberType::File {
                    size: descriptor.size,
                };
                tar.member(&member(name, kind, 0o644))
                    .map_err(write_error(name))?;
                copy(name, descriptor, &mut reader, |bytes| tar.data(bytes))
            }
        }
    }
}

fn copy(
    name: &str,
    descriptor: &Descriptor,
    reader: &mut impl Read,
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), LayoutError> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    let mut size = 0;
    loop {
        let n = match reader.read(&mut buffer) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => {
                return Err(LayoutError::Read {
                    name: name.to_owned(),
                    source,
                });
            }
        };
        hasher.update(&buffer[..n]);
        size += n as u64;
        if n == 0 || size > descriptor.size {
            break;
        }
        write(&buffer[..n]).map_err(write_error(name))?;
    }
    let found = hasher.finish();
    verify(descriptor, found, size)
}

/// Whether bytes with this digest and so many of them are what the descriptor says.
fn verify(descriptor: &Descriptor, found: Digest, found_size: u64) -> Result<(), LayoutError> {
    if found == descriptor.digest && found_size == descriptor.size {
        return Ok(());
    }
    Err(LayoutError::Blob {
        expected: descriptor.digest,
        expected_size: descriptor.size,
        found,
        found_size,
    })
}

pub(crate) fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// One entry of the index a name, as readers look for exactly one name in each.
fn entries(image: &SavedImage) -> Vec<Descriptor> {
    if image.names.is_empty() {
        return vec![image.root.clone()];
    }
    let entry = |name: &Reference| {
        let mut descriptor = image.root.clone();
        let tag = name.tag_or_digest();
        descriptor.annotations.insert(REF_NAME.to_owned(), tag);
        descriptor
            .annotations
            .insert(IMAGE_NAME.to_owned(), name.to_string());
        descriptor
    };
    image.names.iter().map(entry).collect()
}

fn docker_images(images: &[SavedImage]) -> Vec<DockerImage> {
    let entry = |image: &SavedImage| {
        let (config, layers) = image.docker.as_ref()?;
        let tags: Vec<String> = tagged(image).map(Reference::familiar).collect();
        Some(DockerImage {
            config: blob_name(&config.digest),
            repo_tags: (!tags.is_empty()).then_some(tags),
            layers: layers.iter().map(|layer| blob_name(&layer.digest)).collect(),
        })
    };
    images.iter().filter_map(entry).collect()
}

/// Repository to tag to top layer: what the oldest readers look at.
fn repositories(images: &[SavedImage]) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for image in images {
        let Some(top) = image.docker.as_ref().and_then(|(_, layers)| layers.last()) else {
            continue;
        };
        for name in tagged(image) {
            let tags = repositories.entry(name.familiar_name()).or_default();
            tags.insert(name.tag.clone().unwrap_or_default(), top.digest.hex());
        }
    }
    repositories
}

/// The names with a tag and no digest: the only ones that Docker's files hold.
fn tagged(image: &SavedImage) -> impl Iterator<Item = &Reference> {
    image
        .names
        .iter()
        .filter(|name| name.tag.is_some() && name.digest.is_none())
}

fn member<'a>(name: &'a str, kind: MemberType<'a>, mode: u32) -> Member<'a> {
    Member {
        name: name.as_bytes(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: 0,
        xattrs: None,
    }
}

fn write_error(name: &str) -> impl FnOnce(io::Error) -> LayoutError + '_ {
    |source| LayoutError::Write {
        name: name.to_owned(),
        source,
    }
}

fn malformed(name: &str) -> impl FnOnce(serde_json::Error) -> LayoutError + '_ {
    |source| LayoutError::Malformed {
        name: name.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
