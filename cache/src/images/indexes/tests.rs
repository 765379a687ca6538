use kiln_image::Platform;

use super::*;
use crate::{
    Store,
    images::tests::image,
    testing,
    verify::{self, Damage},
};

const NAME: &str = "docker.io/library/app:1";
const OTHER: &str = "docker.io/library/app:2";

fn platform(text: &str) -> Platform {
    text.parse().unwrap()
}

fn image_for(store: &Store, config: &str, platform: &str) -> ImageRecord {
    ImageRecord {
        platform: self::platform(platform),
        ..image(store, config)
    }
}

/// An index of an amd64 and an arm64 image, kept under [`NAME`].
fn built(store: &Store) -> (IndexRecord, Vec<ImageRecord>) {
    let records: Vec<ImageRecord> = ["linux/amd64", "linux/arm64"]
        .map(|platform| image_for(store, platform, platform))
        .into();
    for record in &records {
        store.images().put(record, &[]).unwrap();
    }
    let entries = records.iter().map(|record| IndexedImage {
        image: record.id,
        platform: record.platform.clone(),
    });
    let index = IndexRecord::new(entries.collect());
    store.images().put_index(&index, &[NAME.to_owned()]).unwrap();
    (index, records)
}

#[test]
fn a_name_gives_the_image_of_the_platform() {
    let (_dir, store) = testing::store();
    let (index, records) = built(&store);
    let images = store.images();
    for (wanted, expected) in [
        (Some("linux/amd64"), Some(0)),
        (Some("linux/amd64/v3"), Some(0)),
        (Some("linux/arm64"), Some(1)),
        (Some("linux/arm/v7"), None),
        (Some("linux/s390x"), None),
    ] {
        for text in ["app:1", NAME, &index.id.to_string(), &index.id.hex()[..20]] {
            let found = images.get_for(text, wanted.map(platform).as_ref()).unwrap();
            let expected = expected.map(|position: usize| records[position].id);
            assert_eq!(found.map(|found| found.id), expected, "{text} {wanted:?}");
        }
    }
    let own = images.get("app:1").unwrap().unwrap();
    assert!(own.platform.satisfies(&Platform::host()) || own.id == records[0].id);
    assert_eq!(own.names, [NAME]);
    assert_eq!(
        images.indexes().unwrap(),
        [IndexRecord {
            names: vec![NAME.to_owned()],
            ..index
        }]
    );
}

#[test]
fn the_id_says_which_images_and_in_which_order() {
    let (_dir, store) = testing::store();
    let (index, _) = built(&store);
    let mut entries = index.images.clone();
    assert_eq!(IndexRecord::new(entries.clone()).id, index.id);
    entries.reverse();
    assert_ne!(IndexRecord::new(entries.clone()).id, index.id);
    entries[0].platform = platform("linux/riscv64");
    assert!(matches!(
        store.images().put_index(
            &IndexRecord::new(vec![IndexedImage {
                image: Digest::sha256_of(b"nowhere"),
                platform: platform("linux/amd64"),
            }]),
            &[]
        ),
        Err(Error::ImageNotFound(_))
    ));
}

#[test]
fn the_images_go_with_the_last_name_of_their_index() {
    let (_dir, store) = testing::store();
    let (index, records) = built(&store);
    let images = store.images();
    images.tag(&index.id, OTHER).unwrap();
    let own = "docker.io/library/own:1";
    images.tag(&records[1].id, own).unwrap();
    assert!(matches!(
        images.remove(&records[0].id.to_string(), true),
        Err(Error::ImageInIndex { .. })
    ));
    assert!(images.remove(NAME, false).unwrap().deleted.is_empty());
    assert!(images.find(OTHER).unwrap().is_some());
    let removed = images.remove(OTHER, false).unwrap();
    assert_eq!(removed.untagged, [OTHER]);
    assert_eq!(removed.deleted, [index.id, records[0].id]);
    assert!(images.find(&index.id.to_string()).unwrap().is_none());
    assert!(images.get(own).unwrap().is_some());
}

#[test]
fn an_image_of_an_index_outlives_its_own_name() {
    let (_dir, store) = testing::store();
    let (_, records) = built(&store);
    store.images().tag(&records[0].id, OTHER).unwrap();
    let removed = store.images().remove(OTHER, false).unwrap();
    assert_eq!((removed.untagged.len(), removed.deleted.len()), (1, 0));
    assert!(store.images().by_id(&records[0].id).unwrap().is_some());
}

#[test]
fn pulls_for_several_platforms_join() {
    let (_dir, store) = testing::store();
    let images = store.images();
    let all = |_: &Platform| true;
    let amd64 = image_for(&store, "amd64", "linux/amd64");
    let arm64 = image_for(&store, "arm64", "linux/arm64");
    let newer = image_for(&store, "newer", "linux/arm64");
    images.join(&amd64, NAME, all).unwrap();
    assert_eq!(images.id_of_name(NAME).unwrap(), Some(amd64.id));
    images.join(&arm64, NAME, all).unwrap();
    let get = |wanted: &str| {
        images
            .get_for(NAME, Some(&platform(wanted)))
            .unwrap()
            .map(|found| found.id)
    };
    assert_eq!(
        (get("linux/amd64"), get("linux/arm64")),
        (Some(amd64.id), Some(arm64.id))
    );
    images.join(&amd64, NAME, all).unwrap();
    images.join(&newer, NAME, all).unwrap();
    assert_eq!(
        (get("linux/amd64"), get("linux/arm64")),
        (Some(amd64.id), Some(newer.id))
    );
    assert_eq!(
        images.indexes().unwrap().len(),
        1,
        "lists that were replaced are gone"
    );
    // The name has nothing for the other platform any more.
    images
        .join(&newer, NAME, |platform| platform.architecture != "amd64")
        .unwrap();
    assert_eq!(images.id_of_name(NAME).unwrap(), Some(newer.id));
    assert!(images.indexes().unwrap().is_empty());
}

#[test]
fn one_digest_may_mean_several_platforms() {
    let (_dir, store) = testing::store();
    let digest = Digest::sha256_of(b"index");
    for name in ["linux/amd64", "linux/arm64"] {
        let record = ImageRecord {
            repo_digests: vec![format!("app@{digest}")],
            ..image_for(&store, name, name)
        };
        store.images().put(&record, &[]).unwrap();
        let text = format!("app@{digest}");
        let found = store.images().get_for(&text, Some(&platform(name))).unwrap();
        assert_eq!(found.map(|found| found.id), Some(record.id));
    }
}

#[test]
fn damaged_indexes_are_set_aside_and_reported() {
    let (_dir, store) = testing::store();
    let (index, _) = built(&store);
    let path = store.images().index_path(&index.id);
    let good = std::fs::read(&path).unwrap();
    for bad in [&b""[..], &good[..good.len() / 2], &vec![0; good.len()]] {
        std::fs::write(&path, bad).unwrap();
        assert_eq!(store.images().find(NAME).unwrap(), None);
        assert_eq!(store.take_warnings().len(), 1);
        assert!(!path.exists());
    }
}

#[test]
fn verification_misses_an_image_of_an_index() {
    let (_dir, store) = testing::store();
    let (index, records) = built(&store);
    let damaged = || {
        let report = verify::run(&store, verify::Options::default(), &|_| {}).unwrap();
        let of_index = |damage: &Damage| matches!(damage, Damage::Index { .. } | Damage::Name { .. });
        report
            .damage
            .into_iter()
            .filter(of_index)
            .collect::<Vec<Damage>>()
    };
    assert_eq!(damaged(), []);
    std::fs::remove_file(store.images().id_path(&records[1].id)).unwrap();
    let reason = format!("image {} is missing or damaged", records[1].id);
    let (name, image) = (NAME.to_owned(), index.id);
    // The index goes in a repair, and its name with it.
    let wanted = [
        Damage::Index { id: index.id, reason },
        Damage::Name { name, image },
    ];
    assert_eq!(damaged(), wanted);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let _ = parse_index(&body);
        let _ = parse_index(&sealed::seal_bytes(KIND, VERSION, &body));
    }
}
