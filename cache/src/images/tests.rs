//! Images and names: putting, finding, removing, and files that are damaged.

use kiln_tree::Listing;

use super::names::{NAME, NAME_VERSION};
use super::*;
use crate::{LayerId, Store, testing};

pub(super) fn image(store: &Store, config: &str) -> ImageRecord {
    let config = store.blobs().put_bytes(config.as_bytes()).unwrap();
    let diff_id = Digest::sha256_of(b"layer");
    let layer = LayerId::from_diff_id(&diff_id);
    let draft = store.layers().draft().unwrap();
    store.layers().commit(draft, &layer, Listing::default()).unwrap();
    ImageRecord {
        id: config,
        config,
        layers: vec![ImageLayer {
            layer,
            diff_id,
            blob: None,
        }],
        manifests: Vec::new(),
        repo_digests: Vec::new(),
        platform: serde_json::from_str(r#"{"os":"linux","architecture":"amd64"}"#).unwrap(),
        created: None,
        size: 0,
        names: Vec::new(),
    }
}

const ONE: &str = "docker.io/library/one:latest";
const TWO: &str = "docker.io/library/two:1.0";

#[test]
fn names_come_and_go() {
    let (_dir, store) = testing::store();
    let images = store.images();
    let (first, second) = (image(&store, "first"), image(&store, "second"));
    images.put(&first, &[ONE.to_owned(), TWO.to_owned()]).unwrap();
    assert_eq!(images.by_id(&first.id).unwrap(), Some(first.clone()));
    assert_eq!(images.id_of_name(ONE).unwrap(), Some(first.id));
    assert_eq!(images.list().unwrap()[0].names, [ONE, TWO]);

    // A name that moves leaves the old image dangling.
    images.put(&second, &[ONE.to_owned(), TWO.to_owned()]).unwrap();
    let list = images.list().unwrap();
    assert_eq!(list.len(), 2);
    let dangling = list.iter().find(|record| record.id == first.id).unwrap();
    assert!(dangling.names.is_empty());

    assert!(matches!(
        images.tag(&Digest::sha256_of(b"?"), ONE),
        Err(Error::ImageNotFound(_))
    ));
    images.tag(&first.id, TWO).unwrap();
    assert_eq!(images.id_of_name(TWO).unwrap(), Some(first.id));
}

#[test]
fn a_name_without_an_image_is_nobodys() {
    let (_dir, store) = testing::store();
    let images = store.images();
    let record = image(&store, "first");
    images.put(&record, &[ONE.to_owned(), TWO.to_owned()]).unwrap();
    images
        .untag(&[TWO.to_owned(), "docker.io/library/none:1".to_owned()])
        .unwrap();
    assert_eq!(images.id_of_name(TWO).unwrap(), None);
    images.untag(&[ONE.to_owned()]).unwrap();
    // Like one whose name moved on: it stays.
    assert_eq!(images.by_id(&record.id).unwrap(), Some(record));
    assert!(images.names().unwrap().is_empty());
}

#[test]
fn finds_by_id_and_prefix() {
    let (_dir, store) = testing::store();
    let images = store.images();
    // Two ids that begin with the same digit are sure among 17.
    let all: Vec<ImageRecord> = (0..17).map(|n| image(&store, &n.to_string())).collect();
    for record in &all {
        images.put(record, &[]).unwrap();
    }
    let first = &all[0];
    for text in [
        first.id.to_string(),
        first.id.hex(),
        first.id.hex()[..40].to_owned(),
        first.id.to_string()[..40].to_owned(),
    ] {
        assert_eq!(images.get(&text).unwrap().unwrap().id, first.id, "{text}");
    }
    let ambiguous = (0..16)
        .map(|digit| format!("{digit:x}"))
        .find_map(|digit| images.get(&digit).err());
    assert!(matches!(ambiguous, Some(Error::AmbiguousImage { .. })));
    assert!(matches!(
        images.require(&"0".repeat(64)),
        Err(Error::ImageNotFound(_))
    ));
}

#[test]
fn finds_by_familiar_name_and_digest() {
    let (_dir, store) = testing::store();
    let images = store.images();
    let mut record = image(&store, "x");
    let digest = Digest::sha256_of(b"manifest");
    record.repo_digests = vec![format!("docker.io/library/one@{digest}")];
    images.put(&record, &[ONE.to_owned()]).unwrap();
    for text in [
        "one",
        "one:latest",
        "library/one",
        ONE,
        &format!("one@{digest}"),
        &format!("one:latest@{digest}"),
    ] {
        assert_eq!(
            images.get(text).unwrap().map(|found| found.id),
            Some(record.id),
            "{text}"
        );
    }
    for text in [
        "two",
        "one:other",
        &format!("two@{digest}"),
        &format!("one@{}", record.id),
        "UPPER",
        "",
    ] {
        assert_eq!(images.get(text).unwrap(), None, "{text}");
    }
}

#[test]
fn removes_as_docker_does() {
    let (_dir, store) = testing::store();
    let images = store.images();
    let record = image(&store, "x");
    images.put(&record, &[ONE.to_owned(), TWO.to_owned()]).unwrap();
    let id = record.id.to_string();
    assert!(matches!(images.remove(&id, false), Err(Error::ImageHasNames { names, .. }) if names.len() == 2));
    let removed = images.remove("one", false).unwrap();
    assert_eq!(
        removed,
        Removed {
            untagged: vec![ONE.to_owned()],
            deleted: Vec::new()
        }
    );
    let removed = images.remove(&id, false).unwrap();
    assert_eq!(
        removed,
        Removed {
            untagged: vec![TWO.to_owned()],
            deleted: vec![record.id]
        }
    );
    assert!(matches!(
        images.remove("one", false),
        Err(Error::ImageNotFound(_))
    ));
    images.put(&record, &[ONE.to_owned(), TWO.to_owned()]).unwrap();
    assert_eq!(images.remove(&id, true).unwrap().untagged.len(), 2);
    assert!(images.list().unwrap().is_empty());
    assert!(
        store.layers().get(&record.layers[0].layer).unwrap().is_some(),
        "layers stay"
    );
}

#[test]
fn a_second_put_adds_what_is_known_and_writes_only_changes() {
    let (dir, store) = testing::store();
    let images = store.images();
    let mut record = image(&store, "x");
    record.repo_digests = vec!["docker.io/library/a@sha256:0".to_owned()];
    images.put(&record, &[ONE.to_owned()]).unwrap();
    record.repo_digests = vec!["docker.io/library/b@sha256:0".to_owned()];
    images.put(&record, &[ONE.to_owned()]).unwrap();
    assert_eq!(images.by_id(&record.id).unwrap().unwrap().repo_digests.len(), 2);
    let inode = || {
        use std::os::unix::fs::MetadataExt;
        let path = dir.path().join("images");
        [images.id_path(&record.id), images.name_path(ONE)].map(|file| {
            assert!(file.starts_with(&path));
            std::fs::metadata(file).unwrap().ino()
        })
    };
    let before = inode();
    images.put(&record, &[ONE.to_owned()]).unwrap();
    assert_eq!(inode(), before);
}

#[test]
fn an_image_needs_its_layers_and_outlives_its_boot() {
    let (dir, store) = testing::store();
    let mut record = image(&store, "x");
    store.images().put(&record, &[ONE.to_owned()]).unwrap();
    let next = testing::open(dir.path(), "bbbb");
    assert_eq!(next.images().id_of_name(ONE).unwrap(), Some(record.id));
    assert!(
        next.layers().get(&record.layers[0].layer).unwrap().is_some(),
        "put synced it"
    );
    record.layers[0].layer = LayerId::from_diff_id(&Digest::sha256_of(b"none"));
    assert!(matches!(
        store.images().put(&record, &[]),
        Err(Error::LayerMissing(_))
    ));
}

#[test]
fn an_image_is_only_done_when_its_layers_are_on_disk() {
    let (dir, store) = testing::store();
    let record = image(&store, "x");
    let layer = record.layers[0].layer.clone();
    // As it is after the sync of an image without a name has failed: its record is there.
    let bytes = sealed::seal(KIND, VERSION, &record).unwrap();
    std::fs::write(store.images().id_path(&record.id), bytes).unwrap();
    store.images().put(&record, &[]).unwrap();
    let later = testing::open(dir.path(), "bbbb");
    assert!(later.layers().get(&layer).unwrap().is_some(), "it was synced");
}

#[test]
fn a_disk_that_fails_gives_no_name() {
    let (dir, store) = testing::store();
    let record = image(&store, "x");
    store.shared.durability.fail_for_test();
    let put = |store: &Store| store.images().put(&record, &[ONE.to_owned()]);
    assert!(matches!(put(&store), Err(Error::NotWritten { .. })));
    assert_eq!(store.images().id_of_name(ONE).unwrap(), None);
    let next = testing::open(dir.path(), "aaaa");
    assert!(
        matches!(put(&next), Err(Error::LayerMissing(_))),
        "its layer is lost, and has to be made again"
    );
}

#[test]
fn damaged_files_are_set_aside() {
    let (_dir, store) = testing::store();
    let images = store.images();
    let record = image(&store, "x");
    images.put(&record, &[ONE.to_owned()]).unwrap();
    let good = std::fs::read(images.id_path(&record.id)).unwrap();
    for bad in [&b""[..], &good[..good.len() / 2], &vec![0; good.len()]] {
        std::fs::write(images.id_path(&record.id), bad).unwrap();
        assert_eq!(images.by_id(&record.id).unwrap(), None);
        assert_eq!(store.take_warnings().len(), 1);
        assert!(!images.id_path(&record.id).exists());
    }
    std::fs::write(images.name_path(ONE), "zzz").unwrap();
    assert_eq!(images.id_of_name(ONE).unwrap(), None);
    assert_eq!(store.take_warnings().len(), 1);
    images.put(&record, &[ONE.to_owned()]).unwrap();
    assert_eq!(images.id_of_name(ONE).unwrap(), Some(record.id));
}

#[test]
fn names_become_file_names() {
    let cases = [
        (ONE, "docker.io%2Flibrary%2Fone%3Alatest"),
        ("..", "%2E."),
        (".x", "%2Ex"),
        ("a%b", "a%25b"),
        ("é", "%C3%A9"),
    ];
    for (name, file) in cases {
        assert_eq!(escape(name), file);
    }
    let long = "x/".repeat(200);
    assert!(escape(&long).len() < 255);
    assert_ne!(escape(&long), escape(&"x/".repeat(201)));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let _ = parse(&body);
        let _ = parse(&sealed::seal_bytes(KIND, VERSION, &body));
        let _ = parse_name(&sealed::seal_bytes(NAME, NAME_VERSION, &body), "x");
    }
}
