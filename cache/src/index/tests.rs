use kiln_tree::{ContentHash, Listing};

use super::*;
use crate::{LayerId, Record, RecordKind, Store, sealed, testing};

const PATIENCE: Duration = Duration::from_mins(1);

fn key(n: u8) -> Key {
    Key([n; 32])
}

fn item(n: u8) -> Item {
    Item::Record(key(n))
}

fn merge(store: &Store) -> bool {
    store.index().merge(&AtomicBool::new(false)).unwrap()
}

fn put_record(store: &Store, n: u8, at_ms: u64) {
    let record = Record {
        key: key(n),
        kind: RecordKind::Content,
        parts: vec![],
        output: vec![],
        step: String::new(),
        identity: Some(key(100)),
        created_ms: at_ms,
        duration_ms: 0,
    };
    store.records().put(&record).unwrap();
}

fn journals(store: &Store) -> usize {
    files::names(&store.root().join("index/journal")).unwrap().len()
}

#[test]
fn notes_are_merged_and_answered() {
    let (dir, store) = testing::store();
    let layer = Item::Layer(LayerId::from_content(&ContentHash::of(b"x")));
    let index = store.index();
    for (entry, what) in [
        (
            Entry::Used {
                item: item(1),
                at_ms: 50,
            },
            "newer first",
        ),
        (
            Entry::Used {
                item: item(1),
                at_ms: 20,
            },
            "an older one does not count",
        ),
        (
            Entry::Used {
                item: layer.clone(),
                at_ms: 10,
            },
            "a layer",
        ),
        (
            Entry::Used {
                item: item(2),
                at_ms: 5,
            },
            "to be forgotten",
        ),
        (
            Entry::Forget {
                item: item(2),
                at_ms: 6,
            },
            "forgotten",
        ),
        (
            Entry::Step {
                identity: key(9),
                record: key(1),
                at_ms: 1,
            },
            "first",
        ),
        (
            Entry::Step {
                identity: key(9),
                record: key(3),
                at_ms: 2,
            },
            "second",
        ),
    ] {
        index
            .note(&entry)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    assert!(merge(&store));
    assert_eq!(journals(&store), 0);
    assert_eq!(index.last_use(&item(1), PATIENCE), Some(50));
    assert_eq!(index.last_use(&item(2), PATIENCE), None);
    assert_eq!(index.nearest(&key(9), PATIENCE), Some(key(3)));
    assert_eq!(index.nearest(&key(8), PATIENCE), None);
    assert_eq!(index.oldest(PATIENCE).unwrap(), [(layer, 10), (item(1), 50)]);

    // Another process cannot have it meanwhile, and does not wait: its notes stay in its journal.
    let other = testing::open(dir.path(), "aaaa");
    other
        .index()
        .note(&Entry::Used {
            item: item(4),
            at_ms: 1,
        })
        .unwrap();
    assert!(!merge(&other));
    assert_eq!(other.index().last_use(&item(1), PATIENCE), None);
    assert_eq!(journals(&other), 1);
    drop(store);
    drop(other);
    let third = testing::open(dir.path(), "aaaa");
    assert_eq!(
        third.index().last_use(&item(4), PATIENCE),
        Some(1),
        "merged by whoever comes next"
    );
    assert_eq!(
        third.index().last_use(&item(1), PATIENCE),
        Some(50),
        "kept across a clean end"
    );
}

#[test]
fn a_live_journal_is_left_alone() {
    let (dir, store) = testing::store();
    let other = testing::open(dir.path(), "aaaa");
    other.index().used(item(1)).unwrap();
    other.index().flush().unwrap();
    assert!(merge(&store));
    assert_eq!(journals(&store), 1);
    drop(other);
    assert!(merge(&store));
    assert_eq!(journals(&store), 0);
}

#[test]
fn built_from_the_files_whatever_happened_to_it() {
    let (dir, store) = testing::store();
    put_record(&store, 1, 10);
    put_record(&store, 2, 30);
    put_record(&store, 3, 20);
    let id = LayerId::from_content(&ContentHash::of(b"x"));
    store
        .layers()
        .commit(store.layers().draft().unwrap(), &id, Listing::default())
        .unwrap();
    store.sync().unwrap();
    drop(store);
    let sled = dir.path().join("index/sled");
    let state = dir.path().join("index/state");
    let check = |what: &str| {
        let store = testing::open(dir.path(), "aaaa");
        assert_eq!(store.index().nearest(&key(100), PATIENCE), Some(key(2)), "{what}");
        assert_eq!(store.index().last_use(&item(3), PATIENCE), Some(20), "{what}");
        assert_eq!(store.index().oldest(PATIENCE).unwrap().len(), 4, "{what}");
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
        let mut value: serde_json::Value = sealed::open("index", 1, &std::fs::read(&state).unwrap()).unwrap();
        value["clean"] = false.into();
        std::fs::write(&state, sealed::seal("index", 1, &value).unwrap()).unwrap();
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
    put_record(&store, 2, 30);
    store.sync().unwrap();
    assert!(merge(&store));
    drop(store);
    let next = testing::open(dir.path(), "bbbb");
    assert_eq!(next.index().nearest(&key(100), PATIENCE), Some(key(2)));
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
        put_record(&store, n, u64::from(n));
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
        assert_eq!(index.nearest(&key(100)).unwrap(), Some(key(39)));
        assert_eq!(index.oldest().unwrap().len(), 40);
        index.close().unwrap();
        assert!(!store.index().has_work().unwrap());
        break;
    }
    assert!(rounds > 3, "it was never cut off: {rounds}");
}

#[test]
fn few_journals_are_not_worth_the_opening() {
    let (dir, store) = testing::store();
    put_record(&store, 1, 10);
    assert!(store.index().has_work().unwrap(), "there is none yet");
    assert!(merge(&store));
    assert!(!store.index().has_work().unwrap());
    for n in 0..JOURNALS {
        assert!(!store.index().has_work().unwrap(), "{n} journals");
        testing::open(dir.path(), "aaaa").index().used(item(1)).unwrap();
    }
    assert!(store.index().has_work().unwrap());
    assert!(merge(&store));
    assert!(!store.index().has_work().unwrap());
}
