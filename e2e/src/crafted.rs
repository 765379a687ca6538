//! Layers and images that no tool would make: tars by the header, compressed streams by the frame, documents by the
//! field. The same call always gives the same bytes.

use crate::hostile_registry::{Site, digest};
use serde_json::{Value, json};
use std::io::Write as _;

/// The media type of an OCI manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// That of an OCI index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// That of an OCI configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// That of a layer with gzip.
pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// That of a layer with zstd.
pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Bytes that a header has for a name. Longer ones get a PAX header.
const FIELD: usize = 100;
/// The size of a tar's blocks.
const BLOCK: usize = 512;

/// A tar in the making.
#[derive(Debug, Clone, Default)]
pub struct Tar {
    bytes: Vec<u8>,
}

/// One entry. What is not said is as usual.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a str,
    /// The type flag.
    pub kind: u8,
    /// What a link names.
    pub link: &'a str,
    /// What the header says of the size; the data's own by default.
    pub size: Option<&'a [u8]>,
    /// The data.
    pub data: &'a [u8],
    /// The mode.
    pub mode: u32,
    /// The owner's field as it stands in the header.
    pub owner: &'a [u8],
    /// The numbers of a device.
    pub device: (u32, u32),
}

impl Default for Entry<'_> {
    fn default() -> Self {
        Self {
            name: "",
            kind: b'0',
            link: "",
            size: None,
            data: b"",
            mode: 0o644,
            owner: b"0000000\0",
            device: (0, 0),
        }
    }
}

impl Tar {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one entry more.
    #[must_use]
    pub fn entry(mut self, entry: &Entry<'_>) -> Self {
        let long = [("path", entry.name), ("linkpath", entry.link)];
        let long: Vec<(&str, &str)> = long.into_iter().filter(|(_, text)| text.len() > FIELD).collect();
        if !long.is_empty() {
            self = self.pax(&long);
        }
        let mut header = [0; BLOCK];
        let mut put = |at: usize, most: usize, bytes: &[u8]| {
            let count = bytes.len().min(most);
            header[at..at + count].copy_from_slice(&bytes[..count]);
        };
        put(0, 100, entry.name.as_bytes());
        put(100, 8, format!("{:07o}\0", entry.mode).as_bytes());
        put(108, 8, entry.owner);
        put(116, 8, b"0000000\0");
        let size = format!("{:011o}\0", entry.data.len());
        put(124, 12, entry.size.unwrap_or(size.as_bytes()));
        put(136, 12, b"00000000000\0");
        put(148, 8, b"        ");
        put(156, 1, &[entry.kind]);
        put(157, 100, entry.link.as_bytes());
        put(257, 8, b"ustar\x0000");
        put(329, 8, format!("{:07o}\0", entry.device.0).as_bytes());
        put(337, 8, format!("{:07o}\0", entry.device.1).as_bytes());
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(entry.data);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
        self
    }

    /// With a file more.
    #[must_use]
    pub fn file(self, name: &str, data: &[u8]) -> Self {
        self.entry(&Entry {
            name,
            data,
            ..Entry::default()
        })
    }

    /// With a directory more.
    #[must_use]
    pub fn directory(self, name: &str) -> Self {
        self.entry(&Entry {
            name,
            kind: b'5',
            mode: 0o755,
            ..Entry::default()
        })
    }

    /// With a symbolic link more.
    #[must_use]
    pub fn symlink(self, name: &str, link: &str) -> Self {
        self.entry(&Entry {
            name,
            link,
            kind: b'2',
            ..Entry::default()
        })
    }

    /// With a hard link more.
    #[must_use]
    pub fn hard_link(self, name: &str, link: &str) -> Self {
        self.entry(&Entry {
            name,
            link,
            kind: b'1',
            ..Entry::default()
        })
    }

    /// With an entry of this name by a GNU long name.
    #[must_use]
    pub fn long_name(self, name: &str) -> Self {
        let data = [name.as_bytes(), b"\0"].concat();
        self.entry(&Entry {
            name: "././@LongLink",
            kind: b'L',
            data: &data,
            ..Entry::default()
        })
        .file("short", b"x")
    }

    /// With a PAX header of these records in front of the next entry.
    #[must_use]
    pub fn pax(self, records: &[(&str, &str)]) -> Self {
        let data: Vec<u8> = records
            .iter()
            .flat_map(|(key, value)| record(key, value))
            .collect();
        self.entry(&Entry {
            name: "PaxHeaders/x",
            kind: b'x',
            data: &data,
            ..Entry::default()
        })
    }

    /// Its bytes, with the two blocks of zeros at the end.
    pub fn end(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }

    /// Its bytes, without an end.
    pub fn cut(self) -> Vec<u8> {
        self.bytes
    }
}

/// `LENGTH key=value\n`, where LENGTH counts itself.
fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len();
    loop {
        let text = format!("{length}{rest}");
        if text.len() == length {
            return text.into_bytes();
        }
        length = text.len();
    }
}

/// The bytes with gzip.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    gzip_with(|encoder| encoder.write_all(bytes))
}

/// What a function writes, with gzip: for what is too large for memory before it is compressed.
pub fn gzip_with(
    write: impl FnOnce(&mut flate2::write::GzEncoder<Vec<u8>>) -> std::io::Result<()>,
) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // Memory takes everything.
    let _ = write(&mut encoder);
    encoder.finish().unwrap_or_default()
}

/// A zstd frame that wants a window of two to the power of `window_log`, in front of these bytes and so many pieces of
/// 128 KiB of zeros. Each piece takes four bytes.
pub fn zstd_bomb(window_log: u8, start: &[u8], zeros: usize) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, (window_log - 10) << 3];
    let mut block = |last: bool, kind: u32, size: usize, bytes: &[u8]| {
        let header = u32::from(last) | kind << 1 | u32::try_from(size).unwrap_or(0) << 3;
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.extend_from_slice(bytes);
    };
    block(false, 0, start.len(), start);
    for _ in 0..zeros {
        block(false, 1, 128 << 10, &[0]);
    }
    block(true, 0, 0, &[]);
    frame
}

/// One layer of an image: its blob, and what the documents say of it.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The blob.
    pub blob: Vec<u8>,
    /// Its media type.
    pub media_type: &'static str,
    /// The digest of the tar.
    pub diff_id: String,
}

impl Layer {
    /// A tar with gzip.
    pub fn of(tar: &[u8]) -> Self {
        Self::from_blob(gzip(tar), tar)
    }

    /// A blob that is said to be this tar.
    pub fn from_blob(blob: Vec<u8>, tar: &[u8]) -> Self {
        Self {
            blob,
            media_type: LAYER_GZIP,
            diff_id: digest(tar),
        }
    }
}

/// An image's documents, to be changed before they are put on a site.
#[derive(Debug, Clone)]
pub struct Crafted {
    /// The configuration.
    pub config: Value,
    /// The manifest; its `config` descriptor is filled in by [`Crafted::put`].
    pub manifest: Value,
    /// The blobs of the layers.
    pub blobs: Vec<Vec<u8>>,
}

/// A descriptor of bytes.
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

impl Crafted {
    /// An honest image of these layers.
    pub fn new(layers: &[Layer]) -> Self {
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let descriptors: Vec<Value> = layers
            .iter()
            .map(|layer| descriptor(layer.media_type, &layer.blob))
            .collect();
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self {
            config: json!({
                "architecture": architecture, "os": "linux", "config": {"Cmd": ["/f"]},
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
            }),
            manifest: json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": null, "layers": descriptors}),
            blobs: layers.iter().map(|layer| layer.blob.clone()).collect(),
        }
    }

    /// An honest image of one tar.
    pub fn of_tar(tar: &[u8]) -> Self {
        Self::new(&[Layer::of(tar)])
    }

    /// An honest image of one file.
    pub fn plain() -> Self {
        Self::of_tar(&Tar::new().directory("d").file("d/f", b"content\n").end())
    }

    /// Puts everything on a site, the manifest under the tag; the manifest's bytes are returned.
    pub fn put(&self, site: &mut Site, tag: &str) -> Vec<u8> {
        let config = self.config.to_string();
        let mut manifest = self.manifest.clone();
        if manifest["config"].is_null() {
            manifest["config"] = descriptor(CONFIG, config.as_bytes());
        }
        site.put_blob(config);
        for blob in &self.blobs {
            site.put_blob(blob.clone());
        }
        let bytes = manifest.to_string().into_bytes();
        site.put_manifest(Some(tag), MANIFEST, bytes.clone());
        bytes
    }

    /// A site with nothing but this image, as `app:1`.
    pub fn site(&self) -> Site {
        let mut site = Site::default();
        self.put(&mut site, "1");
        site
    }
}
