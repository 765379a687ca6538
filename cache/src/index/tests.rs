use kiln_tree::ContentHash;

use super::*;
use crate::{KeyPart, Record, RecordKind, Store, disk::never, sealed, testing};

fn key(n: u8) -> Key {
    Key([n; 32])
}

fn layer(n: u8) -> LayerId {
    LayerId::from_content(&ContentHash([n; 32]))
}

fn list(n: u8) -> Digest {
    Digest::from_bytes([n; 32])
}

/// Tries it a while: a program that another test is just starting has this process's locks, too, for a moment.
fn patiently(attempt: impl Fn() -> bool) -> bool {
    (0..50).any(|_| {
        let done = attempt();
        if !done {
            std::thread::sleep(Duration::from_millis(20));
        }
        done
    })
}

fn merge(store: &Store) -> bool {
    patiently(|| store.index().merge(&AtomicBool::new(false)))
}

/// Opens the database, so that it can be asked.
fn opened(store: &Store) -> bool {
    patiently(|| {
        let is_open = store.index().standing(&never).is_some();
        if !is_open {
            store.index().close();
        }
        is_open
    })
}

fn records_of(store: &Store, n: u8) -> Option<Vec<Key>> {
    opened(store);
    store.index().records_of(&layer(n), &never)
}

/// Record `n` has layer `n` on layer 100 on layer 101, and refers to the lists `n` and 100.
fn record(n: u8) -> Record {
    let part = |list| KeyPart {
        listing: Some(list),
        ..KeyPart::new("copy files", "x")
    };
    Record {
        key: key(n),
        kind: RecordKind::Content,
        parts: vec![part(list(n)), part(list(100))],
        output: vec![layer(101), layer(100), layer(n)],
        step: String::new(),
        created_ms: 1,
        duration_ms: 0,
    }
}

fn put_record(store: &Store, n: u8) {
    store.records().put(&record(n)).unwrap();
}

/// Lets the layer look as if it were there.
fn make_layer(store: &Store, n: u8) -> std::path::PathBuf {
    let path = store.layers().path(&layer(n));
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn journals(store: &Store) -> usize {
    files::names(&store.root().join("index/journal")).unwrap().len()
}

#[test]
fn notes_are_merged_and_answered() {
    let (dir, store) = testing::store();
    for n in [1, 2] {
        make_layer(&store, n);
        put_record(&store, n);
    }
    store.index().note(&Entry::of(&Record {
        key: key(3),
        ..record(2)
    }));
    assert!(merge(&store));
    assert_eq!(journals(&store), 0);
    assert!(opened(&store));
    let index = store.index();
    let mut standing = index.standing(&never).unwrap();
    standing.sort_unstable();
    let expected = [(1, 100), (2, 100), (100, 101)];
    assert_eq!(
        standing,
        expected.map(|(upper, lower)| (layer(upper), layer(lower)))
    );
    assert_eq!(records_of(&store, 1), Some(vec![key(1)]));
    assert_eq!(records_of(&store, 2), Some(vec![key(2), key(3)]));
    assert_eq!(
        records_of(&store, 100),
        Some(vec![]),
        "it is no record's topmost layer"
    );
    assert_eq!(index.referring_to(&list(1), &never), Some(vec![key(1)]));
    let all = vec![key(1), key(2), key(3)];
    assert_eq!(index.referring_to(&list(100), &never), Some(all));

    // Another process cannot have it meanwhile, and does not wait: its notes stay in its journal.
    let other = testing::open(dir.path(), "aaaa");
    put_record(&other, 4);
    assert!(!merge(&other));
    assert_eq!(records_of(&other, 1), None);
    assert_eq!(journals(&other), 1);
    drop(store);
    // Somebody who is told to stop does not wait either.
    assert_eq!(other.index().standing(&|| true), None);
    drop(other);
    let third = testing::open(dir.path(), "aaaa");
    assert_eq!(
        records_of(&third, 4),
        Some(vec![key(4)]),
        "merged by whoever comes next"
    );
    assert_eq!(
        records_of(&third, 1),
        Some(vec![key(1)]),
        "kept across a clean end"
    );
}

#[test]
fn what_is_gone_is_forgotten_unless_it_is_there_again() {
    let (dir, store) = testing::store();
    for n in [1, 2] {
        make_layer(&store, n);
        put_record(&store, n);
    }
    store.index().note(&Entry::ListGone(list(1)));
    for n in [1, 2] {
        store.index().note(&Entry::LayerGone(layer(n)));
    }
    // Layer 2 was made again by somebody whose journal was merged before.
    std::fs::remove_dir(store.layers().path(&layer(1))).unwrap();
    assert!(merge(&store));
    assert_eq!(records_of(&store, 1), Some(vec![]));
    assert_eq!(records_of(&store, 2), Some(vec![key(2)]));
    let standing = store.index().standing(&never).unwrap();
    assert!(!standing.contains(&(layer(1), layer(100))) && standing.contains(&(layer(2), layer(100))));
    assert_eq!(store.index().referring_to(&list(1), &never), Some(vec![]));
    // It goes also when it was known before.
    drop(store);
    let store = testing::open(dir.path(), "aaaa");
    std::fs::remove_dir(store.layers().path(&layer(2))).unwrap();
    store.index().note(&Entry::LayerGone(layer(2)));
    assert!(merge(&store));
    assert_eq!(records_of(&store, 2), Some(vec![]));
    assert_eq!(
        store.index().standing(&never),
        Some(vec![(layer(100), layer(101))])
    );
}

#[test]
fn a_live_journal_is_left_alone() {
    let (dir, store) = testing::store();
    let other = testing::open(dir.path(), "aaaa");
    put_record(&other, 1);
    assert!(merge(&store));
    assert_eq!(journals(&store), 1);
    drop(other);
    assert!(merge(&store));
    assert_eq!(journals(&store), 0);
}

#[test]
fn a_journal_that_cannot_be_written_is_a_doubt() {
    let (dir, store) = testing::store();
    std::fs::remove_dir(dir.path().join("index/journal")).unwrap();
    std::fs::write(dir.path().join("index/journal"), "a file").unwrap();
    put_record(&store, 1);
    assert!(dir.path().join("index/doubt").exists());
    assert!(
        store.records().peek(&key(1)).unwrap().is_some(),
        "nobody else minds"
    );
}

#[test]
fn built_from_the_files_whatever_happened_to_it() {
    let (dir, store) = testing::store();
    for n in 1..4 {
        put_record(&store, n);
    }
    store.sync().unwrap();
    drop(store);
    let sled = dir.path().join("index/sled");
    let state = dir.path().join("index/state");
    let check = |what: &str| {
        let store = testing::open(dir.path(), "aaaa");
        assert_eq!(records_of(&store, 3), Some(vec![key(3)]), "{what}");
        assert_eq!(store.index().standing(&never).unwrap().len(), 4, "{what}");
        let referring = store.index().referring_to(&list(100), &never);
        assert_eq!(referring, Some(vec![key(1), key(2), key(3)]), "{what}");
    };
    let biggest = || {
        let mut files: Vec<_> = std::fs::read_dir(&sled)
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        files.retain(|path| path.is_file());
        files
            .into_iter()
            .max_by_key(|path| path.metadata().unwrap().len())
            .unwrap()
    };
    check("no index yet");
    check("a clean end");
    std::fs::remove_dir_all(&sled).unwrap();
    check("lost");
    let unclean = || {
        let mut value: serde_json::Value =
            sealed::open("index-state", 1, &std::fs::read(&state).unwrap()).unwrap();
        value["clean"] = false.into();
        std::fs::write(&state, sealed::seal("index-state", 1, &value).unwrap()).unwrap();
    };
    unclean();
    check("not ended cleanly, yet whole");
    std::fs::remove_file(&state).unwrap();
    check("no word of how it ended");
    std::fs::write(&state, "?").unwrap();
    check("a damaged word of how it ended");
    std::fs::write(dir.path().join("index/doubt"), "").unwrap();
    check("in doubt");
    assert!(!dir.path().join("index/doubt").exists());
    let file = biggest();
    let length = file.metadata().unwrap().len();
    std::fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(length / 2)
        .unwrap();
    check("truncated, after a clean end");
    unclean();
    let file = biggest();
    std::fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(length / 2)
        .unwrap();
    check("truncated");
    unclean();
    std::fs::write(biggest(), vec![0; 4096]).unwrap();
    check("zeroed");
    for name in files::names(&sled).unwrap() {
        let path = sled.join(name);
        if path.is_file() {
            std::fs::write(path, "garbage").unwrap();
        }
    }
    check("garbage");
    std::fs::remove_dir_all(&sled).unwrap();
    std::fs::write(&sled, "a file").unwrap();
    check("no folder at all");
}

#[test]
fn a_clean_end_that_was_not_synced_is_checked_after_a_power_loss() {
    let (dir, store) = testing::store();
    put_record(&store, 2);
    store.sync().unwrap();
    assert!(merge(&store));
    drop(store);
    let next = testing::open(dir.path(), "bbbb");
    assert_eq!(records_of(&next, 2), Some(vec![key(2)]));
}

#[test]
fn one_of_another_version_is_made_anew() {
    let (dir, store) = testing::store();
    put_record(&store, 1);
    assert!(merge(&store));
    drop(store);
    let state = dir.path().join("index/state");
    let value: serde_json::Value = sealed::open("index-state", 1, &std::fs::read(&state).unwrap()).unwrap();
    std::fs::write(&state, sealed::seal("index", 1, &value).unwrap()).unwrap();
    // What a program of that version did not tell of.
    let bytes = crate::records::encode(
        &record(2),
        &serde_json::from_value(value["stamp"].clone()).unwrap(),
    );
    let store = testing::open(dir.path(), "aaaa");
    let path = store.records().path(&key(2));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes.unwrap()).unwrap();
    assert_eq!(records_of(&store, 2), Some(vec![key(2)]));
}

#[test]
fn a_panic_inside_is_an_error() {
    let panicked: Result<(), String> = guarded(|| panic!("as sled does"));
    assert!(panicked.is_err());
}

#[test]
fn a_rebuild_that_is_cut_off_goes_on_where_it_was() {
    let (dir, store) = testing::store();
    for n in 0..40 {
        put_record(&store, n);
    }
    drop(store);
    // Each process gets a little done: the first look at `stop` says go on, the fourth says stop.
    let mut rounds = 0;
    loop {
        let store = testing::open(dir.path(), "aaaa");
        let looks = std::cell::Cell::new(0);
        let stop = || {
            looks.set(looks.get() + 1);
            looks.get() > 3
        };
        let opened = open_and_merge(&store.shared, &stop).unwrap();
        rounds += 1;
        let Some(index) = opened else {
            assert!(store.index().has_work().unwrap(), "round {rounds}");
            assert!(!dir.path().join("index/doubt").exists());
            assert!(rounds < 40, "it never ends");
            continue;
        };
        assert_eq!(index.records_of(&layer(39)).unwrap(), [key(39)]);
        assert_eq!(index.standing().unwrap().len(), 41);
        index.close().unwrap();
        assert!(!store.index().has_work().unwrap());
        break;
    }
    assert!(rounds > 3, "it was never cut off: {rounds}");
}

#[test]
fn few_journals_are_not_worth_the_opening() {
    let (dir, store) = testing::store();
    put_record(&store, 1);
    assert!(store.index().has_work().unwrap(), "there is none yet");
    assert!(merge(&store));
    assert!(!store.index().has_work().unwrap());
    for n in 0..JOURNALS {
        assert!(!store.index().has_work().unwrap(), "{n} journals");
        put_record(&testing::open(dir.path(), "aaaa"), 1);
    }
    assert!(store.index().has_work().unwrap());
    assert!(merge(&store));
    assert!(!store.index().has_work().unwrap());
}
