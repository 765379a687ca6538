//! Every kind of file of a store, damaged: a check names it, and a repair sets it aside.

use std::{io::Write, os::fd::AsFd, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use kiln_image::Digest;
use kiln_tree::walk;

use super::*;
use crate::{Error, ImageLayer, ImageRecord, Key, KeyPart, Layer, Record, RecordKind, testing};

fn layer(store: &Store) -> Arc<Layer> {
    let draft = store.layers().draft().unwrap();
    let diff = draft.diff_path();
    std::fs::create_dir(diff.join("etc")).unwrap();
    std::fs::write(diff.join("etc/file"), "text").unwrap();
    let listing = walk::layer(File::open(&diff).unwrap().as_fd()).unwrap();
    let id = LayerId::from_content(&listing.content_hash());
    store.layers().commit(draft, &id, listing).unwrap()
}

/// A store with one of everything; returns the paths of what can be damaged.
struct Full {
    dir: testing::Scratch,
    store: Arc<Store>,
    layer: Arc<Layer>,
    key: Key,
    config: Digest,
}

const NAME: &str = "docker.io/library/one:latest";

fn full() -> Full {
    let (dir, store) = testing::store();
    let layer = layer(&store);
    let parts = vec![KeyPart::new("a", "b")];
    let key = Key::of("exec", &parts);
    let record = Record {
        key,
        kind: RecordKind::Definition,
        parts,
        output: vec![layer.id().clone()],
        step: "RUN".to_owned(),
        created_ms: 1,
        duration_ms: 1,
    };
    store.records().put(&record).unwrap();
    let config = store.blobs().put_bytes(b"config").unwrap();
    let image = ImageRecord {
        id: config,
        config,
        layers: vec![ImageLayer {
            layer: layer.id().clone(),
            diff_id: Digest::sha256_of(b"tar"),
            blob: None,
        }],
        manifests: vec![],
        repo_digests: vec![],
        platform: serde_json::from_str("{}").unwrap(),
        created: None,
        size: 4,
        names: vec![],
    };
    store.images().put(&image, &[NAME.to_owned()]).unwrap();
    let build = crate::BuildId::new();
    store.builds().put(&build, &1).unwrap();
    let mut log = store.builds().log(&build).step("1").unwrap();
    log.write_all(&b"output ".repeat(1000)).unwrap();
    drop(log);
    let variant = crate::Variant {
        diff_id: Digest::sha256_of(b"tar"),
        form: "gzip-6".to_owned(),
        blob: kiln_image::Descriptor::new("m/t", Digest::sha256_of(b"gone"), 4),
        repositories: BTreeSet::new(),
    };
    store.variants().put(&variant).unwrap();
    let remote = crate::RemoteFile {
        shown: "https://h/f".to_owned(),
        digest: config,
        size: 6,
        etag: None,
        last_modified: None,
        settled: false,
    };
    store.remotes().put("https://h/f", &remote).unwrap();
    Full {
        dir,
        store,
        layer,
        key,
        config,
    }
}

fn check(store: &Store) -> Vec<Damage> {
    run(store, Options::default(), &|_| {}).unwrap().damage
}

#[test]
fn a_whole_store_is_whole() {
    let full = full();
    let steps = std::cell::Cell::new(0);
    let report = run(&full.store, Options::default(), &|_| steps.set(steps.get() + 1)).unwrap();
    assert_eq!(report.damage, []);
    let counts = (
        report.layers,
        report.entries,
        report.records,
        report.blobs,
        report.blob_bytes,
        report.images,
    );
    assert_eq!(counts, (1, 2, 1, 1, 6, 1));
    assert!(steps.get() >= 8);
    assert_eq!(repair(&full.store, &report).unwrap(), []);
    // Synced by the image: everything counts in the next boot too.
    let next = testing::open(full.dir.path(), "bbbb");
    let report = run(&next, Options::default(), &|_| {}).unwrap();
    assert_eq!((report.damage, report.unsynced), (vec![], 0));
}

/// How a case damages the store, and the damage that must be told.
type Case = (&'static str, fn(&Full), fn(&Damage, &Full) -> bool);

const CASES: &[Case] = &[
    (
        "a file in a layer",
        |full| write(&full.layer.diff_path().join("etc/file"), "TEXT"),
        |damage, full| matches!(damage, Damage::LayerContent { id, path, .. } if id == full.layer.id() && path.as_bytes() == b"etc/file"),
    ),
    (
        "a file missing in a layer",
        |full| remove_file(&full.layer.diff_path().join("etc/file")),
        |damage, _| matches!(damage, Damage::LayerContent { reason, .. } if reason == "is missing"),
    ),
    (
        "a file too many in a layer",
        |full| write(&full.layer.diff_path().join("a"), ""),
        |damage, _| matches!(damage, Damage::LayerContent { reason, .. } if reason == "should not be there"),
    ),
    (
        "a mode in a layer",
        |full| mode(&full.layer.diff_path().join("etc/file"), 0o600),
        |damage, _| matches!(damage, Damage::LayerContent { reason, .. } if reason.contains("0600")),
    ),
    (
        "a listing",
        |full| write(&full.layer.path().join("listing"), ""),
        |damage, full| matches!(damage, Damage::Layer { id, .. } if id == full.layer.id()),
    ),
    (
        "a layer's meta data",
        |full| write(&full.layer.path().join("meta.json"), "{}"),
        |damage, _| matches!(damage, Damage::Layer { .. }),
    ),
    (
        "a whole layer",
        |full| std::fs::remove_dir_all(full.layer.path()).unwrap(),
        |damage, full| matches!(damage, Damage::Image { id, .. } if *id == full.config),
    ),
    (
        "a record of a damaged layer",
        |full| write(&full.layer.path().join("listing"), "x"),
        |damage, full| matches!(damage, Damage::RecordLayer { key, .. } if *key == full.key),
    ),
    (
        "a record",
        |full| write(&full.store.records().path(&full.key), "x"),
        |damage, full| matches!(damage, Damage::Record { key, .. } if *key == full.key),
    ),
    (
        "a blob",
        |full| write(&full.store.blobs().path(&full.config), "cONFIG"),
        |damage, full| matches!(damage, Damage::Blob { digest, .. } if *digest == full.config),
    ),
    (
        "a config",
        |full| remove_file(&full.store.blobs().path(&full.config)),
        |damage, full| matches!(damage, Damage::Image { id, .. } if *id == full.config),
    ),
    (
        "an image",
        |full| write(&full.store.images().id_path(&full.config), ""),
        |damage, _| matches!(damage, Damage::Image { .. }),
    ),
    (
        "the name of a damaged image",
        |full| write(&full.layer.diff_path().join("etc/file"), "TEXT"),
        |damage, _| matches!(damage, Damage::Name { name, .. } if name == NAME),
    ),
    (
        "an image gone",
        |full| remove_file(&full.store.images().id_path(&full.config)),
        |damage, _| matches!(damage, Damage::Name { name, .. } if name == NAME),
    ),
    (
        "a name",
        |full| write(&full.store.images().name_path(NAME), "?"),
        |damage, _| matches!(damage, Damage::File { .. }),
    ),
    (
        "a memory of hashes",
        |full| write(&full.dir.path().join("hashes/x"), "?"),
        |damage, _| matches!(damage, Damage::File { .. }),
    ),
    (
        "a layer's DiffID",
        |full| write(&full.layer.path().join("diffid"), "?"),
        |damage, _| matches!(damage, Damage::File { .. }),
    ),
    (
        "when a blob was published",
        |full| write(&full.dir.path().join("blobs/stamps/x"), "?"),
        |damage, _| matches!(damage, Damage::File { .. }),
    ),
    (
        "a build",
        |full| {
            let id = &full.store.builds().list().unwrap()[0];
            write(&full.store.builds().path(id), "");
        },
        |damage, _| matches!(damage, Damage::File { .. }),
    ),
    (
        "a log",
        |full| {
            let id = &full.store.builds().list().unwrap()[0];
            let path = full.store.builds().log_path(id).join("1");
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(path, bytes).unwrap();
        },
        |damage, _| matches!(damage, Damage::File { path, .. } if path.ends_with("1")),
    ),
    (
        "what a layer is as a blob",
        |full| {
            write(
                &full
                    .store
                    .variants()
                    .folder(&Digest::sha256_of(b"tar"))
                    .join("gzip-6"),
                "?",
            );
        },
        |damage, _| matches!(damage, Damage::File { path, .. } if path.ends_with("gzip-6")),
    ),
    (
        "what a layer is as a blob, under another one's name",
        |full| {
            let folder = full.store.variants().folder(&Digest::sha256_of(b"tar"));
            std::fs::rename(folder.join("gzip-6"), folder.join("zstd-3")).unwrap();
        },
        |damage, _| matches!(damage, Damage::File { reason, .. } if reason.contains("gzip-6")),
    ),
    (
        "what is known of a download",
        |full| {
            let folder = full.dir.path().join("remotes");
            let name = &files::names(&folder).unwrap()[0];
            write(&folder.join(name), "kiln-remote 1 0\n{}");
        },
        |damage, _| matches!(damage, Damage::File { path, .. } if path.parent().is_some_and(|folder| folder.ends_with("remotes"))),
    ),
];

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn remove_file(path: &Path) {
    std::fs::remove_file(path).unwrap();
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn every_damage_is_told_and_repaired() {
    for (what, damage, told) in CASES {
        let full = full();
        damage(&full);
        let found = check(&full.store);
        assert!(
            found.iter().any(|damage| told(damage, &full)),
            "{what}: {found:?}"
        );
        let report = Report {
            damage: found,
            ..Report::default()
        };
        repair(&full.store, &report).unwrap();
        // What hangs on the damaged thing went with it: one repair is enough.
        assert_eq!(check(&full.store), [], "{what}");
        let again = layer(&full.store);
        assert_eq!(check(&full.store), [], "{what}");
        assert_eq!(
            std::fs::read_to_string(again.diff_path().join("etc/file")).unwrap(),
            "text",
            "{what}"
        );
    }
}

#[test]
fn repair_waits_for_nobody() {
    let full = full();
    let other = testing::open(full.dir.path(), "aaaa");
    assert!(matches!(
        repair(&full.store, &Report::default()),
        Err(Error::Busy { .. })
    ));
    drop(other);
    repair(&full.store, &Report::default()).unwrap();
}

#[test]
fn what_an_earlier_boot_left_is_no_damage_and_is_dropped() {
    let (dir, store) = testing::store();
    let made = layer(&store);
    let path = made.path();
    write(&path.join("diff/etc/file"), "torn");
    drop((made, store));
    let next = testing::open(dir.path(), "bbbb");
    let report = run(&next, Options::default(), &|_| {}).unwrap();
    assert_eq!((report.damage.len(), report.unsynced), (0, 1));
    assert!(next.maintenance().wait(std::time::Duration::from_mins(1)));
    assert!(!path.exists());
    assert_eq!(next.take_warnings(), []);
}
