//! Publishing, reading and replacing layers, with damage and with others at the same time.

use std::{
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::Path,
};

use kiln_image::Digest;
use kiln_tree::walk;

use super::{meta::DIFF_ID, *};
use crate::{Store, testing};

fn fill(draft: &LayerDraft, text: &str) -> Listing {
    let diff = draft.diff_path();
    std::fs::create_dir(diff.join("etc")).unwrap();
    std::fs::write(diff.join("etc/file"), text).unwrap();
    std::os::unix::fs::symlink("file", diff.join("etc/link")).unwrap();
    walk::layer(std::fs::File::open(&diff).unwrap().as_fd()).unwrap()
}

fn commit(store: &Store, text: &str) -> Arc<Layer> {
    let draft = store.layers().draft().unwrap();
    let listing = fill(&draft, text);
    let id = LayerId::from_content(&listing.content_hash());
    store.layers().commit(draft, &id, listing).unwrap()
}

#[test]
fn the_upperdir_becomes_the_layer() {
    let (dir, store) = testing::store();
    let draft = store.layers().draft().unwrap();
    let listing = fill(&draft, "text");
    let inode = std::fs::metadata(draft.diff_path().join("etc/file"))
        .unwrap()
        .ino();
    let id = LayerId::from_content(&listing.content_hash());
    let layer = store.layers().commit(draft, &id, listing.clone()).unwrap();
    let file = layer.diff_path().join("etc/file");
    assert_eq!(std::fs::metadata(file).unwrap().ino(), inode, "moved, not copied");
    assert_eq!(layer.size(), 4);
    assert_eq!(layer.content(), listing.content_hash());
    let other = testing::open(dir.path(), "aaaa");
    let seen = other.layers().require(&id).unwrap();
    assert_eq!(*seen.listing().unwrap(), listing);
    assert_eq!(other.layers().list().unwrap(), [id]);
    drop((layer, store));
    assert!(
        files::names(&dir.path().join("tmp"))
            .unwrap()
            .iter()
            .all(|name| name == "partial"),
        "work is gone"
    );
}

#[test]
fn the_first_one_wins() {
    let (_dir, store) = testing::store();
    let first = commit(&store, "same");
    let inode = std::fs::metadata(first.diff_path()).unwrap().ino();
    let second = commit(&store, "same");
    assert_eq!(first.id(), second.id());
    assert_eq!(std::fs::metadata(second.diff_path()).unwrap().ino(), inode);
}

#[test]
fn diff_ids_come_later() {
    let (_dir, store) = testing::store();
    let layer = commit(&store, "x");
    assert_eq!(layer.diff_id(), None);
    let digest = Digest::sha256_of(b"tar");
    layer.set_diff_id(&digest).unwrap();
    assert_eq!(layer.diff_id(), Some(digest));
    for bad in ["", "kiln-diffid 1 0\n{}"] {
        std::fs::write(layer.path().join(DIFF_ID), bad).unwrap();
        assert_eq!(layer.diff_id(), None, "computed again");
    }
    layer.set_diff_id(&digest).unwrap();
    assert_eq!(layer.diff_id(), Some(digest));
    let pulled = LayerId::from_diff_id(&digest);
    assert_eq!(pulled.to_string(), format!("sha256-{}", digest.hex()));
    assert_eq!(pulled.diff_id(), Some(digest));
}

#[test]
fn the_root_folder_gets_mode_and_owner() {
    let (_dir, store) = testing::store();
    let draft = store.layers().draft().unwrap();
    let meta = std::fs::metadata(draft.diff_path()).unwrap();
    assert_eq!(meta.mode() & 0o7777, 0o755);
    let (uid, gid) = (meta.uid(), meta.gid());
    draft.set_root(0o1777, uid, gid).unwrap();
    assert_eq!(
        std::fs::metadata(draft.diff_path()).unwrap().mode() & 0o7777,
        0o1777
    );
}

#[test]
fn a_damaged_or_unsynced_layer_is_absent_and_replaced() {
    let (dir, store) = testing::store();
    let layer = commit(&store, "x");
    let id = layer.id().clone();
    let meta = layer.path().join("meta.json");
    let good = std::fs::read(&meta).unwrap();
    let open = || testing::open(dir.path(), "aaaa");
    for bad in [&b""[..], &good[..good.len() - 3], &vec![0; good.len()]] {
        std::fs::write(&meta, bad).unwrap();
        let store = open();
        assert!(store.layers().get(&id).unwrap().is_none());
        assert_eq!(store.take_warnings().len(), 1);
    }
    std::fs::remove_file(&meta).unwrap();
    let store = open();
    assert!(store.layers().get(&id).unwrap().is_none());
    assert_eq!(*commit(&store, "x").id(), id);
    assert!(open().layers().get(&id).unwrap().is_some(), "replaced");

    let next = testing::open(dir.path(), "bbbb");
    assert!(next.layers().get(&id).unwrap().is_none(), "never synced");
    std::fs::write(
        dir.path().join("layers").join(id.as_str()).join("diff/etc/file"),
        "\0",
    )
    .unwrap();
    let again = commit(&next, "x");
    assert_eq!(
        std::fs::read_to_string(again.diff_path().join("etc/file")).unwrap(),
        "x"
    );
}

#[test]
fn a_layer_that_the_disk_did_not_take_is_absent_and_made_again() {
    let (dir, store) = testing::store();
    let safe = commit(&store, "safe").id().clone();
    store.sync().unwrap();
    let lost = commit(&store, "lost").id().clone();
    store.shared.durability.fail_for_test();

    let next = testing::open(dir.path(), "aaaa");
    assert!(next.layers().get(&safe).unwrap().is_some());
    assert!(next.layers().get(&lost).unwrap().is_none());
    let bad = dir
        .path()
        .join("layers")
        .join(lost.as_str())
        .join("diff/etc/file");
    std::fs::write(bad, "\0").unwrap();
    let again = commit(&next, "lost");
    assert_eq!(*again.id(), lost);
    assert_eq!(
        std::fs::read_to_string(again.diff_path().join("etc/file")).unwrap(),
        "lost"
    );
    // A container may be on it.
    let warnings = next.take_warnings();
    let aside = warnings[0].moved_to.as_ref().unwrap();
    assert!(aside.join("diff/etc/file").exists());
    next.sync().unwrap();
    let later = testing::open(dir.path(), "bbbb");
    assert!(later.layers().get(&lost).unwrap().is_some());
}

#[test]
fn a_damaged_listing_is_an_error_that_names_it() {
    let (dir, store) = testing::store();
    let (one, two) = (commit(&store, "x"), commit(&store, "y"));
    let path = one.path().join("listing");
    let good = std::fs::read(&path).unwrap();
    for bad in [&b""[..], &good[..good.len() / 2], &vec![0; good.len()]] {
        std::fs::write(&path, bad).unwrap();
        let store = testing::open(dir.path(), "aaaa");
        let error = store.layers().require(one.id()).unwrap().listing().unwrap_err();
        assert!(
            matches!(&error, Error::Damaged { path: named, .. } if *named == path),
            "{error}"
        );
    }
    assert!(two.listing().is_ok());
}

#[test]
fn ids_are_safe_file_names() {
    let hex = ContentHash::of(b"x").to_string();
    for good in [format!("b3-{hex}"), format!("sha256-{hex}")] {
        assert_eq!(good.parse::<LayerId>().unwrap().to_string(), good);
    }
    for bad in [
        String::new(),
        "b3-".to_owned(),
        format!("b4-{hex}"),
        "b3-../..".to_owned(),
        format!("b3-{hex}/"),
    ] {
        assert!(bad.parse::<LayerId>().is_err(), "{bad}");
    }
}

#[test]
fn snapshots_differ_by_order() {
    let [a, b] = ["a", "b"].map(|text| LayerId::from_content(&ContentHash::of(text.as_bytes())));
    let one = Snapshot::default().with(a.clone()).with(b.clone());
    let two = Snapshot { layers: vec![b, a] };
    assert_ne!(one.content_key(), two.content_key());
    assert_eq!(one.content_key(), one.clone().content_key());
}

fn copy(from: &Path, to: &Path, arguments: &[&str]) {
    let status = std::process::Command::new("cp")
        .args(arguments)
        .arg(from)
        .arg(to)
        .status()
        .unwrap();
    assert!(status.success());
}

type Spoil = fn(&Path);

#[test]
fn a_copied_layer_is_checked_before_it_is_believed() {
    let (dir, store) = testing::store();
    let draft = store.layers().draft().unwrap();
    std::fs::create_dir(draft.diff_path().join("d")).unwrap();
    std::fs::write(draft.diff_path().join("d/f"), "text").unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    std::fs::File::open(draft.diff_path().join("d/f"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    let listing = walk::layer(std::fs::File::open(draft.diff_path()).unwrap().as_fd()).unwrap();
    let id = LayerId::from_content(&listing.content_hash());
    store.layers().commit(draft, &id, listing).unwrap();
    drop(store);
    let at = |name: &str| dir.path().with_extension(name);
    let found = |root: &Path| {
        let store = testing::open(root, "aaaa");
        let found = store.layers().get(&id).unwrap().is_some();
        (found, store.take_warnings())
    };
    let faithful = at("faithful");
    copy(dir.path(), &faithful, &["-a"]);
    let folder = faithful.join("layers").join(id.as_str());
    assert_eq!(found(&faithful), (true, vec![]));
    assert!(folder.join("checked").exists());
    // From now on it is as good as made here; only who looks at everything finds that it was changed.
    std::fs::write(folder.join("diff/d/f"), "TEXT").unwrap();
    assert_eq!(found(&faithful), (true, vec![]));
    // Moved, not copied: nothing to check.
    let moved = at("moved");
    std::fs::rename(&faithful, &moved).unwrap();
    assert_eq!(found(&moved), (true, vec![]));
    // A copy of the copy is checked again.
    copy(&moved, &faithful, &["-a"]);
    let (is_there, warnings) = found(&faithful);
    assert!(!is_there && warnings.len() == 1);
    let text = warnings[0].to_string();
    assert!(text.contains("copied") && text.contains("d/f"), "{text}");
    assert!(!folder.exists());

    let spoil: [(&str, Spoil); 3] = [
        ("missing", |folder| {
            std::fs::remove_file(folder.join("diff/d/f")).unwrap();
        }),
        ("no files", |folder| {
            std::fs::remove_dir_all(folder.join("diff")).unwrap();
        }),
        ("time", |folder| {
            std::fs::File::open(folder.join("diff/d/f"))
                .unwrap()
                .set_modified(std::time::SystemTime::now())
                .unwrap();
        }),
    ];
    for (what, spoil) in spoil {
        let copied = at("spoilt");
        copy(dir.path(), &copied, &["-a"]);
        spoil(&copied.join("layers").join(id.as_str()));
        let (is_there, warnings) = found(&copied);
        assert!(!is_there && warnings.len() == 1, "{what}: {warnings:?}");
        assert!(warnings[0].to_string().contains(what), "{what}: {warnings:?}");
        // Made anew, it is in order.
        let store = testing::open(&copied, "aaaa");
        let draft = store.layers().draft().unwrap();
        std::fs::create_dir(draft.diff_path().join("d")).unwrap();
        std::fs::write(draft.diff_path().join("d/f"), "text").unwrap();
        let listing = walk::layer(std::fs::File::open(draft.diff_path()).unwrap().as_fd()).unwrap();
        store.layers().commit(draft, &id, listing).unwrap();
        drop(store);
        assert_eq!(found(&copied), (true, vec![]), "{what}");
        crate::remove::tree(&copied).unwrap();
    }
    for name in ["faithful", "moved"] {
        crate::remove::tree(&at(name)).unwrap();
    }
}
