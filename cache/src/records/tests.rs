use kiln_tree::{ContentHash, Listing};
use proptest::prelude::*;

use super::*;
use crate::{Store, testing};

fn layer(store: &Store, name: &str) -> LayerId {
    let id = LayerId::from_content(&ContentHash::of(name.as_bytes()));
    store
        .layers()
        .commit(store.layers().draft().unwrap(), &id, Listing::default())
        .unwrap();
    id
}

fn record(output: Vec<LayerId>) -> Record {
    let mut parts = vec![
        KeyPart::new("command", "echo \"x\"\nä"),
        KeyPart::new("files", "abc"),
    ];
    parts[1].listing = Some(kiln_image::Digest::sha256_of(b"listing"));
    Record {
        key: Key::of("exec", &parts),
        kind: RecordKind::Definition,
        parts,
        output,
        step: "RUN echo".to_owned(),
        created_ms: u64::MAX,
        duration_ms: 12,
    }
}

fn miss(store: &Store, key: &Key) -> Miss {
    match store.records().lookup(key).unwrap() {
        Lookup::Miss(miss) => miss,
        Lookup::Hit(record) => panic!("hit: {record:?}"),
    }
}

#[test]
fn what_was_put_is_got() {
    let (dir, store) = testing::store();
    let record = record(vec![layer(&store, "a"), layer(&store, "b")]);
    assert_eq!(miss(&store, &record.key), Miss::Absent);
    store.records().put(&record).unwrap();
    assert_eq!(store.records().get(&record.key).unwrap().as_ref(), Some(&record));
    let other = testing::open(dir.path(), "aaaa");
    assert_eq!(other.records().get(&record.key).unwrap().as_ref(), Some(&record));
    assert_eq!(store.records().list().unwrap(), [record.key]);
    store.records().remove(&record.key).unwrap();
    store.records().remove(&record.key).unwrap();
    assert_eq!(other.records().get(&record.key).unwrap(), None);
}

#[test]
fn no_hit_without_the_layers() {
    let (_dir, store) = testing::store();
    let gone = LayerId::from_content(&ContentHash::of(b"gone"));
    let record = record(vec![layer(&store, "a"), gone.clone()]);
    store.records().put(&record).unwrap();
    assert_eq!(miss(&store, &record.key), Miss::LayerMissing(gone));
    assert_eq!(store.records().peek(&record.key).unwrap(), Some(record));
}

#[test]
fn no_hit_on_what_a_power_loss_may_have_torn() {
    let (dir, store) = testing::store();
    let kept = record(vec![layer(&store, "a")]);
    store.records().put(&kept).unwrap();
    store.sync().unwrap();
    let mut lost = Record {
        key: Key([1; 32]),
        ..kept.clone()
    };
    store.records().put(&lost).unwrap();
    let later = layer(&store, "later");
    // A record that another boot rewrites is good again, but only with layers that are.
    let next = testing::open(dir.path(), "bbbb");
    assert!(next.records().get(&kept.key).unwrap().is_some());
    assert_eq!(miss(&next, &lost.key), Miss::Unsynced);
    lost.output = vec![later.clone()];
    next.records().put(&lost).unwrap();
    assert_eq!(miss(&next, &lost.key), Miss::LayerMissing(later.clone()));
    layer(&next, "later");
    assert!(
        next.records().get(&lost.key).unwrap().is_some(),
        "the commit replaced the untrusted layer"
    );
}

#[test]
fn damage_is_a_miss_and_set_aside() {
    let (_dir, store) = testing::store();
    let record = record(vec![layer(&store, "a")]);
    store.records().put(&record).unwrap();
    let path = store.records().path(&record.key);
    let good = std::fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for bad in [
        vec![],
        good[..good.len() - 1].to_vec(),
        vec![0; good.len()],
        flipped,
    ] {
        std::fs::write(&path, &bad).unwrap();
        let Miss::Damaged(warning) = miss(&store, &record.key) else {
            panic!("{}", bad.len())
        };
        assert_eq!(std::fs::read(warning.moved_to.unwrap()).unwrap(), bad);
        assert!(!path.exists());
    }
    // A whole record in the wrong place.
    let other = Key([9; 32]);
    std::fs::create_dir_all(store.records().path(&other).parent().unwrap()).unwrap();
    std::fs::write(store.records().path(&other), &good).unwrap();
    assert!(matches!(miss(&store, &other), Miss::Damaged(_)));
    // Of a newer program: a miss, and left alone.
    std::fs::write(&path, sealed::seal_bytes(KIND, VERSION + 1, b"who knows")).unwrap();
    assert_eq!(miss(&store, &record.key), Miss::Newer(2));
    assert!(path.exists());
    store.records().put(&record).unwrap();
    assert!(store.records().get(&record.key).unwrap().is_some());
}

#[test]
fn fields_of_later_programs_are_ignored() {
    let record = record(vec![]);
    let stamp = Stamp {
        boot: "aa".parse().unwrap(),
        epoch: 1,
    };
    let bytes = encode(&record, &stamp).unwrap();
    let body = sealed::open_bytes(KIND, VERSION, &bytes).unwrap();
    let mut value: serde_json::Value = serde_json::from_slice(body).unwrap();
    value["new_field"] = serde_json::json!({"x": [1]});
    let bytes = sealed::seal_bytes(KIND, VERSION, &serde_json::to_vec(&value).unwrap());
    assert_eq!(parse(&bytes), Ok((record, stamp)));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&body);
        let _ = parse(&sealed::seal_bytes(KIND, VERSION, &body));
    }

    #[test]
    fn any_record_round_trips(
        step in ".*", name in ".*", value in ".*", created_ms: u64, duration_ms: u64, epoch: u64, content: bool,
    ) {
        let record = Record {
            key: Key([3; 32]),
            kind: if content { RecordKind::Content } else { RecordKind::Definition },
            parts: vec![KeyPart::new(name, value)],
            output: vec![],
            step,
            created_ms,
            duration_ms,
        };
        let stamp = Stamp { boot: "aa".parse().unwrap(), epoch };
        prop_assert_eq!(parse(&encode(&record, &stamp).unwrap()), Ok((record, stamp)));
    }
}
