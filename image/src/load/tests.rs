//! Tests of finding images in archives.

use std::io::Write as _;

use serde_json::{Value, json};

use super::*;
use crate::media_type;
use crate::tarball::{Member, MemberType, TarWriter};
use crate::testing::TempDir;

/// A tar in the making.
struct Archive(TarWriter<Vec<u8>>);

impl Archive {
    fn new() -> Self {
        Self(TarWriter::new(Vec::new()))
    }

    fn member(&mut self, name: &str, kind: MemberType<'_>) {
        let member = Member {
            name: name.as_bytes(),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: 0,
            xattrs: None,
        };
        self.0.member(&member).unwrap();
    }

    fn file(mut self, name: &str, bytes: &[u8]) -> Self {
        let size = bytes.len() as u64;
        self.member(name, MemberType::File { size });
        self.0.data(bytes).unwrap();
        self
    }

    fn json(self, name: &str, value: &Value) -> Self {
        self.file(name, value.to_string().as_bytes())
    }

    fn link(mut self, name: &str, target: &str) -> Self {
        let target = target.as_bytes();
        self.member(name, MemberType::Symlink { target });
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.finish().unwrap().0
    }

    fn contents(self, platforms: &[&str]) -> Result<Vec<LoadableImage>, LoadError> {
        read(&self.bytes(), platforms)
    }

    /// What the user is told of it.
    fn refused(self) -> String {
        let error = self.contents(&[]).unwrap_err();
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        text
    }
}

fn read(bytes: &[u8], platforms: &[&str]) -> Result<Vec<LoadableImage>, LoadError> {
    let folder = TempDir::new();
    let platforms: Vec<Platform> = platforms.iter().map(|name| name.parse().unwrap()).collect();
    let mut files = ImageFiles::of_tar(bytes, folder.path())?;
    contents(&mut files, &platforms)
}

/// A configuration for an architecture with a layer for each of these tars.
fn config(architecture: &str, layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|layer| Digest::sha256_of(layer).to_string())
        .collect();
    json!({"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}})
        .to_string()
        .into_bytes()
}

fn hex_of(bytes: &[u8]) -> String {
    Digest::sha256_of(bytes).hex()
}

fn blob_name(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", hex_of(bytes))
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::sha256_of(bytes).to_string(), "size": bytes.len()})
}

fn names(image: &LoadableImage) -> Vec<String> {
    image.names.iter().map(Reference::familiar).collect()
}

/// Adds an image of one layer; gives its entry for an index.
fn add_image(archive: Archive, architecture: &str) -> (Archive, Value) {
    let layer = format!("the layer of {architecture}").into_bytes();
    let config = config(architecture, &[&layer]);
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": descriptor(media_type::OCI_CONFIG, &config),
        "layers": [descriptor(media_type::OCI_LAYER, &layer)]})
    .to_string()
    .into_bytes();
    let mut entry = descriptor(media_type::OCI_MANIFEST, &manifest);
    entry["platform"] = json!({"os": "linux", "architecture": architecture});
    let archive = archive
        .file(&blob_name(&layer), &layer)
        .file(&blob_name(&config), &config)
        .file(&blob_name(&manifest), &manifest);
    (archive, entry)
}

fn layout(archive: Archive, manifests: &Value) -> Archive {
    archive
        .json("index.json", &json!({"schemaVersion": 2, "manifests": manifests}))
        .file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
}

fn docker(config_name: &str, config: &[u8], layers: &[&str], tags: &Value) -> Archive {
    Archive::new().file(config_name, config).json(
        "manifest.json",
        &json!([{"Config": config_name, "RepoTags": tags, "Layers": layers}]),
    )
}

#[test]
fn docker_archives_with_folders_links_and_dots() {
    let config = config("amd64", &[b"one", b"two", b"one"]);
    let name = format!("{}.json", hex_of(&config));
    let archive = docker(
        &name,
        &config,
        &["a/layer.tar", "./b/layer.tar", "c/layer.tar"],
        &json!(["app:1", "registry.example/app:2"]),
    )
    .file("./a/layer.tar", b"one")
    .file("b/layer.tar", b"two")
    .link("c/layer.tar", "../a/layer.tar");
    let folder = TempDir::new();
    let mut files = ImageFiles::of_tar(&archive.bytes()[..], folder.path()).unwrap();
    let images = contents(&mut files, &[]).unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(names(&images[0]), ["app:1", "registry.example/app:2"]);
    let manifest = &images[0].manifests[0];
    assert_eq!(manifest.config_bytes, config);
    for layer in &manifest.layers {
        let file = files.require(&layer.file, "the test").unwrap();
        assert_eq!(file.digest, layer.diff_id);
        assert_eq!(std::fs::read(&file.path).unwrap().len() as u64, file.size);
    }
    // Nothing but files of ours, whatever the archive calls its own.
    let mut there: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    there.sort();
    assert_eq!(there, ["0", "1", "2", "3"]);
}

#[test]
fn all_compressions() {
    let config = config("amd64", &[]);
    let plain = docker("c.json", &config, &[], &json!(null)).bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&plain).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&plain).unwrap();
    let compressed = [
        plain.clone(),
        gzip.finish().unwrap(),
        zstd::encode_all(&plain[..], 1).unwrap(),
        bzip2.finish().unwrap(),
        xz.finish().unwrap(),
    ];
    for bytes in compressed {
        let images = read(&bytes, &[]).unwrap();
        assert_eq!(images[0].manifests[0].config_bytes, config);
        assert_eq!(names(&images[0]), [""; 0]);
        // Cut short it is no archive any more, wherever it is cut.
        for length in [1, bytes.len() / 2] {
            assert!(read(&bytes[..length], &[]).is_err(), "{length}");
        }
        let cut = &bytes[..bytes.len() - 9];
        assert!(bytes == plain || read(cut, &[]).is_err());
    }
}

#[test]
fn layouts_with_several_platforms() {
    let (archive, amd64) = add_image(Archive::new(), "amd64");
    let (archive, arm64) = add_image(archive, "arm64");
    let mut attestation = descriptor(media_type::OCI_MANIFEST, b"not there");
    attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let mut lost = descriptor(media_type::OCI_MANIFEST, b"nor is this");
    lost["platform"] = json!({"os": "linux", "architecture": "s390x"});
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX,
        "manifests": [amd64, arm64, attestation, lost]})
    .to_string()
    .into_bytes();
    let entry = |name: &str| {
        let mut entry = descriptor(media_type::OCI_INDEX, &index);
        entry["annotations"] =
            json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": "1"});
        entry
    };
    let entries = json!([entry("docker.io/library/app:1"), entry("docker.io/library/app:2")]);
    let archive = layout(archive.file(&blob_name(&index), &index), &entries).bytes();

    let images = read(&archive, &[]).unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(names(&images[0]), ["app:1", "app:2"]);
    assert_eq!(images[0].index.as_ref().unwrap().bytes, index);
    let platforms: Vec<String> = images[0]
        .manifests
        .iter()
        .map(|manifest| manifest.platform.to_string())
        .collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    assert_eq!(images[0].incomplete.len(), 1);

    let images = read(&archive, &["linux/arm64"]).unwrap();
    assert_eq!(images[0].manifests.len(), 1);
    assert_eq!(images[0].manifests[0].platform.to_string(), "linux/arm64");
    let error = read(&archive, &["linux/s390x"]).unwrap_err();
    assert!(
        matches!(&error, LoadError::Missing { by, .. } if by == "app:1 for linux/s390x"),
        "{error}"
    );
    let error = read(&archive, &["linux/arm64", "linux/riscv64"]).unwrap_err();
    assert!(matches!(error, LoadError::NoPlatform { .. }), "{error}");
}

#[test]
fn names_of_layouts() {
    type Case<'a> = (&'a str, Value, &'a [&'a str]);
    let cases: [Case<'_>; 5] = [
        ("none", json!({}), &[]),
        // A tag alone is no name.
        ("tag", json!({"org.opencontainers.image.ref.name": "1.0"}), &[]),
        (
            "skopeo",
            json!({"org.opencontainers.image.ref.name": "localhost/app:1"}),
            &["localhost/app:1"],
        ),
        (
            "no name",
            json!({"org.opencontainers.image.ref.name": "What:Ever:This"}),
            &[],
        ),
        (
            "both",
            json!({"org.opencontainers.image.ref.name": "x:y", "io.containerd.image.name": "docker.io/library/app:1"}),
            &["app:1"],
        ),
    ];
    for (about, annotations, expected) in cases {
        let (archive, mut entry) = add_image(Archive::new(), "amd64");
        entry["annotations"] = annotations;
        let images = layout(archive, &json!([entry])).contents(&[]).unwrap();
        assert_eq!(names(&images[0]), expected, "{about}");
    }
    // Docker's list helps out.
    let (archive, entry) = add_image(Archive::new(), "amd64");
    let config = config("amd64", &[b"the layer of amd64"]);
    let archive = archive.json(
        "manifest.json",
        &json!([{"Config": blob_name(&config), "RepoTags": ["app:3"], "Layers": []}]),
    );
    let images = layout(archive, &json!([entry])).contents(&[]).unwrap();
    assert_eq!(names(&images[0]), ["app:3"]);
}

#[test]
fn one_name_for_several_manifests() {
    let (archive, mut amd64) = add_image(Archive::new(), "amd64");
    let (archive, mut arm64) = add_image(archive, "arm64");
    for entry in [&mut amd64, &mut arm64] {
        entry["annotations"] = json!({"io.containerd.image.name": "docker.io/library/app:1"});
    }
    let images = layout(archive, &json!([amd64, arm64])).contents(&[]).unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].manifests.len(), 2);
}

#[test]
fn archives_of_long_ago() {
    let archive = Archive::new()
        .json("repositories", &json!({"app": {"1": "top", "2": "top"}}))
        .json("base/json", &json!({"id": "base", "created": "2014-01-01T00:00:00Z", "container_config": {"Cmd": ["/bin/sh", "-c", "#(nop) ADD"]}}))
        .file("base/layer.tar", b"lower")
        .json(
            "top/json",
            &json!({"id": "top", "parent": "base", "created": "2014-01-02T00:00:00Z", "author": "me", "os": "linux",
                "architecture": "arm64", "config": {"Cmd": ["sh"], "Env": null}}),
        )
        .file("top/layer.tar", &zstd::encode_all(&b"upper"[..], 1).unwrap());
    let images = archive.contents(&[]).unwrap();
    assert_eq!(names(&images[0]), ["app:1", "app:2"]);
    let manifest = &images[0].manifests[0];
    assert_eq!(manifest.platform.to_string(), "linux/arm64");
    let diff_ids = [b"lower", b"upper"].map(|tar| Digest::sha256_of(tar));
    assert_eq!(manifest.config.rootfs.diff_ids, diff_ids);
    assert_eq!(manifest.config.history.len(), 2);
    assert_eq!(
        manifest.config.history[0].created_by.as_deref(),
        Some("/bin/sh -c #(nop) ADD")
    );
    assert_eq!(manifest.config.author.as_deref(), Some("me"));
    assert_eq!(manifest.config.created.as_deref(), Some("2014-01-02T00:00:00Z"));
    assert_eq!(
        ImageConfig::parse(&manifest.config_bytes).unwrap(),
        manifest.config
    );
    let endless = Archive::new()
        .json("repositories", &json!({"app": {"1": "a"}}))
        .json("a/json", &json!({"parent": "a"}));
    assert!(endless.refused().contains("more than 1000 layers"));
}

#[test]
fn hostile_archives() {
    let config = config("amd64", &[b"x"]);
    let one = |layer: &str| docker("c.json", &config, &[layer], &json!(["app:1"]));
    let (complete, entry) = add_image(Archive::new(), "amd64");
    let lying = |key: &str, value: Value| {
        let mut entry = entry.clone();
        entry[key] = value;
        json!([entry])
    };
    let nested = {
        let mut archive = Archive::new();
        let mut inner = descriptor(media_type::OCI_INDEX, b"");
        for _ in 0..9 {
            let index = json!({"schemaVersion": 2, "manifests": [inner]})
                .to_string()
                .into_bytes();
            inner = descriptor(media_type::OCI_INDEX, &index);
            archive = archive.file(&blob_name(&index), &index);
        }
        layout(archive, &json!([inner]))
    };
    let big = vec![b' '; limits::CONFIG_SIZE + 1];
    let cases = [
        (
            Archive::new().file("../x", b""),
            "entry \"../x\" leads out of the archive",
        ),
        (Archive::new().file("a/../../x", b""), "leads out of the archive"),
        (
            Archive::new().file("/etc/passwd", b""),
            "\"/etc/passwd\" is an absolute path",
        ),
        (one("../../etc/passwd"), "leads out of the archive"),
        (one("/etc/passwd"), "is an absolute path"),
        (
            one("l").link("l", "/etc/passwd"),
            "\"l\" is a link that leads out of the archive",
        ),
        (one("l").link("l", "../passwd"), "leads out of the archive"),
        (one("l").link("l", "l"), "\"l\" is a link to itself"),
        (one("l").link("l", "m").link("m", "l"), "is a link to itself"),
        (
            one("l").link("l", "m"),
            "the archive has no l, which manifest.json needs",
        ),
        (
            one("l").link("l", "m").file("l", b"x"),
            "holds two different files \"l\"",
        ),
        (one("l"), "the archive has no l, which manifest.json needs"),
        (
            one("l").file("l", b"x").file("l", b"y"),
            "holds two different files \"l\"",
        ),
        (
            Archive::new().file(&blob_name(b"this"), b"that"),
            "of the archive has the digest sha256:",
        ),
        (
            docker(&format!("{}.json", hex_of(b"other")), &config, &[], &json!(null)),
            "of the archive has the digest sha256:",
        ),
        (
            docker("c.json", &config, &[], &json!(["a:1"])),
            "lists 1 layers and the archive 0",
        ),
        (
            docker("c.json", b"{", &[], &json!(["a:1"])),
            "c.json of the archive is malformed: ",
        ),
        (
            docker("c.json", b"[]", &[], &json!(["No Name"])),
            "c.json of the archive is malformed: ",
        ),
        (
            docker("c.json", &config, &["l"], &json!(["No Name"])).file("l", b"x"),
            "the archive calls an image \"No Name\": ",
        ),
        (
            Archive::new().file("manifest.json", b"[]"),
            "the archive names no image",
        ),
        (
            Archive::new().file("manifest.json", b"{}"),
            "manifest.json of the archive is malformed: ",
        ),
        (
            Archive::new().file("manifest.json", &big),
            "is longer than the 8388608 bytes allowed",
        ),
        (
            Archive::new().file("etc/passwd", b""),
            "the archive holds no images",
        ),
        (
            Archive::new().file("index.json", b"{}").file("oci-layout", b"{}"),
            "oci-layout of the archive is malformed",
        ),
        (
            Archive::new()
                .file("index.json", b"{}")
                .file("oci-layout", br#"{"imageLayoutVersion":"9"}"#),
            "is an image layout of version \"9\"",
        ),
        (layout(complete, &lying("size", json!(3))), "of 3 bytes"),
        (
            layout(Archive::new(), &json!([entry])),
            ", which index.json needs",
        ),
        (
            layout(Archive::new(), &lying("digest", json!("md5:x"))),
            "index.json of the archive is malformed",
        ),
        (nested, "nests deeper than any real one"),
    ];
    for (archive, expected) in cases {
        let text = archive.refused();
        assert!(text.contains(expected), "{text:?} instead of {expected:?}");
    }
}

#[test]
fn endless_archives_end() {
    let mut archive = Archive::new();
    for number in 0..=limits::ARCHIVE_ENTRIES {
        archive.member(&number.to_string(), MemberType::Directory);
    }
    assert!(archive.refused().contains("more than 100000 entries"));
    // Few bytes of archive, many of documents.
    let space = vec![b' '; limits::CONFIG_SIZE];
    let entries: Vec<Value> = (0..9)
        .map(|_| json!({"Config": "c.json", "Layers": []}))
        .collect();
    let config = [&config("amd64", &[])[..], &space[1024..]].concat();
    let archive = Archive::new()
        .file("c.json", &config)
        .json("manifest.json", &json!(entries));
    assert!(
        archive
            .refused()
            .contains("bytes of manifests and configurations")
    );
}

#[test]
fn folders() {
    let (archive, entry) = add_image(Archive::new(), "amd64");
    let bytes = layout(archive, &json!([entry])).bytes();
    let source = TempDir::new();
    let root = kiln_tree::Root::open(source.path()).unwrap();
    crate::archive::extract(&bytes[..], &root, "", None).unwrap();
    let folder = TempDir::new();
    let mut files = ImageFiles::of_directory(source.path(), folder.path());
    let images = contents(&mut files, &[]).unwrap();
    let layer = &images[0].manifests[0].layers[0];
    let file = files.require(&layer.file, "the test").unwrap();
    assert!(file.path.starts_with(folder.path()));
    assert_eq!(std::fs::read(&file.path).unwrap(), b"the layer of amd64");
    // A blob that was changed.
    std::fs::write(source.path().join(&layer.file), "changed").unwrap();
    let folder = TempDir::new();
    let mut files = ImageFiles::of_directory(source.path(), folder.path());
    contents(&mut files, &[]).unwrap();
    assert!(matches!(files.get(&layer.file), Err(LoadError::Digest { .. })));
    assert!(matches!(files.get("../x"), Err(LoadError::Name { .. })));
}
