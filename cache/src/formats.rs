//! The bytes of format version 1, as they are on disks already: every later program must read them, and must not
//! write other bytes under the same version. The files lie in `testdata/v1`.

use std::path::PathBuf;

use kiln_image::{Descriptor, Digest};
use kiln_tree::ContentHash;

use crate::{
    ImageLayer, ImageRecord, Key, KeyPart, LayerId, MountBase, MountIdentity, MountRecord, Record,
    RecordKind, RemoteFile, Stamp, hashes, images, index::journal, mounts, records, remotes, sealed,
    variants,
};

fn stored(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("testdata/v1")
        .join(name);
    if std::env::var_os("KILN_WRITE_FORMATS").is_some() && !path.exists() {
        std::fs::write(&path, bytes).unwrap();
    }
    std::fs::read(path).unwrap()
}

#[test]
fn record() {
    let layer = LayerId::from_content(&ContentHash([0xab; 32]));
    let mut parts = vec![
        KeyPart::new("command", "echo \"hi\""),
        KeyPart::new("files", "00ff"),
    ];
    parts[1].listing = Some(Digest::from_bytes([0xcd; 32]));
    let record = Record {
        key: Key::of("exec", &parts),
        kind: RecordKind::Definition,
        parts,
        output: vec![LayerId::from_diff_id(&Digest::from_bytes([1; 32])), layer],
        step: "RUN echo \"hi\"".to_owned(),
        created_ms: 1_700_000_000_123,
        duration_ms: 45,
    };
    let stamp = Stamp {
        boot: "3ee0cbbd-0ba6-4d7f-b1f6-b4e3ab2f1a4e".parse().unwrap(),
        epoch: 7,
    };
    let written = records::encode(&record, &stamp).unwrap();
    // It has a field that is not written any more, and not read.
    let bytes = stored("record", &written);
    assert_eq!(records::parse(&bytes), Ok((record.clone(), stamp.clone())));
    assert_eq!(records::parse(&written), Ok((record, stamp)));
}

#[test]
fn journal_file() {
    let layer = LayerId::from_content(&ContentHash([0xab; 32]));
    let entries = vec![
        journal::Entry::Record {
            key: Key([1; 32]),
            output: vec![LayerId::from_diff_id(&Digest::from_bytes([2; 32])), layer.clone()],
            lists: vec![Digest::from_bytes([3; 32])],
        },
        journal::Entry::LayerGone(layer),
        journal::Entry::ListGone(Digest::from_bytes([3; 32])),
    ];
    let mut written = journal::header();
    for entry in &entries {
        journal::encode(entry, &mut written);
    }
    let bytes = stored("journal", &written);
    assert_eq!(bytes, written);
    assert_eq!(journal::parse(&bytes), entries);
}

#[test]
fn hash_memory() {
    let written = hashes::tests::example();
    let bytes = stored("hashes", &written);
    assert_eq!(bytes, written);
    assert_eq!(hashes::parse(bytes), Ok(2));
}

#[test]
fn image_and_name() {
    let id = Digest::from_bytes([4; 32]);
    let blob: Descriptor = serde_json::from_str(&format!(
        r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{id}","size":9}}"#
    ))
    .unwrap();
    let layer = LayerId::from_diff_id(&Digest::from_bytes([5; 32]));
    let image = ImageRecord {
        id,
        config: id,
        layers: vec![ImageLayer {
            layer,
            diff_id: Digest::from_bytes([5; 32]),
            blob: Some(blob),
        }],
        manifests: vec![],
        repo_digests: vec![format!("docker.io/library/python@{id}")],
        platform: serde_json::from_str(r#"{"os":"linux","architecture":"arm","variant":"v7"}"#).unwrap(),
        created: Some("2023-11-14T22:13:20Z".to_owned()),
        size: 4096,
        names: vec![],
    };
    let written = sealed::seal(images::KIND, images::VERSION, &image).unwrap();
    let bytes = stored("image", &written);
    assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&written));
    assert_eq!(images::parse(&bytes), Ok(image));

    let (file, name) = (
        "docker.io%2Flibrary%2Fpython%3A3.11-slim",
        "docker.io/library/python:3.11-slim",
    );
    let written = images::encode_name(name, &id).unwrap();
    let bytes = stored("name", &written);
    assert_eq!(bytes, written);
    assert_eq!(images::parse_name(&bytes, file), Ok((name.to_owned(), id)));
}

#[test]
fn cache_mount() {
    let record = MountRecord {
        identity: MountIdentity {
            namespace: "team".to_owned(),
            id: "/root/.cache".to_owned(),
            base: MountBase {
                mode: Some(0o700),
                uid: None,
                gid: Some(5),
                seed: Some(ContentHash([6; 32])),
            },
        },
        created_ms: 1_700_000_000_123,
        used_ms: 1_700_000_000_456,
    };
    let written = sealed::seal(mounts::KIND, mounts::VERSION, &record).unwrap();
    let bytes = stored("mount", &written);
    assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&written));
    assert_eq!(
        sealed::open::<MountRecord>(mounts::KIND, mounts::VERSION, &bytes),
        Ok(record.clone())
    );
    let key = String::from_utf8(stored("mount-key", record.identity.key().to_string().as_bytes())).unwrap();
    assert_eq!(record.identity.key().to_string(), key.trim());
}

#[test]
fn remote_file() {
    let file = RemoteFile {
        shown: "https://example.org/f.tar".to_owned(),
        digest: Digest::from_bytes([6; 32]),
        size: 1234,
        etag: Some("\"abc\"".to_owned()),
        last_modified: Some("Sun, 06 Nov 1994 08:49:37 GMT".to_owned()),
        settled: true,
    };
    let written = remotes::encode(&file).unwrap();
    let bytes = stored("remote", &written);
    assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&written));
    assert_eq!(remotes::parse(&bytes), Ok(file));
}

#[test]
fn variant() {
    let variant = variants::Variant {
        diff_id: Digest::from_bytes([7; 32]),
        form: "gzip-6".to_owned(),
        blob: Descriptor::new(
            "application/vnd.oci.image.layer.v1.tar+gzip",
            Digest::from_bytes([8; 32]),
            9,
        ),
        repositories: ["docker.io/library/python".to_owned()].into(),
    };
    let written = variants::encode(&variant).unwrap();
    let bytes = stored("variant", &written);
    assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&written));
    assert_eq!(variants::parse(&bytes), Ok(variant));
}

#[test]
fn key() {
    let parts = [KeyPart::new("command", "true"), KeyPart::new("input", "b3-00")];
    let pinned = String::from_utf8(stored("key", Key::of("exec", &parts).to_string().as_bytes())).unwrap();
    assert_eq!(Key::of("exec", &parts).to_string(), pinned.trim());
}
