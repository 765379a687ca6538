//! Making room by the index is making room by looking at everything, whatever the index says.

use std::collections::BTreeSet;

use super::{attached::variant, *};
use crate::{
    disk::{limits::Keeper, oldest, prune},
    index::Entry,
};

/// A store of everything that can go, each thing used at another time.
fn filled() -> (Scratch, Arc<Store>) {
    let (dir, store) = testing::store();
    let list = |text: &str| {
        let bytes = text.repeat(20_000).into_bytes();
        store.blobs().put_bytes(&bytes).unwrap()
    };
    let lists = [list("one"), list("two"), list("of nobody")];
    let base = step(&store, "base", 50_000, &[]);
    let middle = step_with_lists(&store, "middle", 60_000, &base, &[lists[0]]);
    let top = step_with_lists(&store, "top", 70_000, &middle, &lists[..2]);
    let side = step_with_lists(&store, "side", 80_000, &base, &lists[1..2]);
    let alone = step(&store, "alone", 90_000, &[]);
    let used = step(&store, "used", 40_000, &[]);
    let kept = step(&store, "kept", 40_000, &used);
    image(&store, "kept", &kept[1..]);
    let blobs = [
        variant(&store, &side[1], "gzip-6", 30_000),
        variant(&store, &alone[0], "original", 30_000),
    ];
    let mount = cache_mount(&store, "/root/.cache");
    std::fs::write(mount.data().join("file"), vec![1; 50_000]).unwrap();
    drop(mount);
    std::fs::create_dir_all(dir.path().join("git/aa")).unwrap();
    // The base is older than what stands on it.
    for (layers, seconds) in [
        (&base, 9900),
        (&middle, 5000),
        (&top, 4000),
        (&side, 7000),
        (&alone, 6000),
        (&used, 9800),
        (&kept, 3000),
    ] {
        age_layer(&store, layers.last().unwrap(), seconds);
    }
    for (digest, seconds) in [(lists[2], 4500), (blobs[0], 10), (blobs[1], 8000)] {
        age(&store.blobs().path(&digest), seconds);
    }
    age(&dir.path().join("git/aa"), 6500);
    // When a blob was made counts, too.
    for layer in [&side[1], &alone[0]] {
        let diff_id = Digest::sha256_of(layer.as_str().as_bytes());
        let folder = store.variants().folder(&diff_id);
        for form in files::names(&folder).unwrap() {
            age(&folder.join(form), 100);
        }
    }
    drop(store);
    let store = other(&dir);
    (dir, store)
}

fn ids(pruned: &Pruned) -> Vec<&str> {
    pruned.items.iter().map(|item| item.id.as_str()).collect()
}

/// What the store has, but for what is the index's own.
fn there(store: &Store) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in ["layers", "blobs/sha256", "variants", "mounts", "git"] {
        let names = files::names(&store.root().join(folder)).unwrap();
        found.extend(names.iter().map(|name| format!("{folder}/{name}")));
    }
    found.extend(store.records().list().unwrap().iter().map(ToString::to_string));
    found
}

/// By the index.
fn room(store: &Store, need: u64, unused_for: Duration) -> Pruned {
    // A program that another test is just starting has this process's locks, too, for a moment.
    for _ in 0..50 {
        if let Some(pruned) = oldest::make_room(store, need, unused_for, &never).unwrap() {
            return pruned;
        }
        store.index().close();
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("nobody else has the index");
}

#[test]
fn the_same_goes_as_when_everything_is_looked_at() {
    for (need, seconds) in [
        (1, 0),
        (150_000, 0),
        (300_000, 0),
        (400_000, 0),
        (u64::MAX, 4200),
        (u64::MAX, 0),
    ] {
        let what = format!("{need} bytes, unused for {seconds} s");
        let unused_for = Duration::from_secs(seconds);
        let ((dir, by_index), (_other, by_files)) = (filled(), filled());
        let request = Prune {
            filter: Filter {
                unused_for: Some(unused_for),
                ..Filter::default()
            },
            ..Prune::default()
        };
        let catalog = Catalog::read(&by_files).unwrap();
        let wanted = prune::run(&by_files, &catalog, &request, Some(need), &never).unwrap();
        let found = room(&by_index, need, unused_for);
        assert_eq!(ids(&found), ids(&wanted), "{what}");
        assert_eq!(there(&by_index), there(&by_files), "{what}");
        assert!(
            found.bytes.abs_diff(wanted.bytes) < 20_000,
            "{what}: {} {}",
            found.bytes,
            wanted.bytes
        );
        let report = crate::verify::run(&by_index, crate::verify::Options::default(), &|_| {}).unwrap();
        assert_eq!(report.damage, [], "{what}");
        // The index has forgotten what is gone, and does not mind being asked again.
        drop(by_index);
        let next = other(&dir);
        assert_eq!(ids(&room(&next, 0, unused_for)), [""; 0], "{what}");
    }
}

#[test]
fn what_is_as_old_as_what_it_stands_on_goes_before_it() {
    let (dir, store) = testing::store();
    let mut layers = Vec::new();
    for n in 0..30 {
        layers = step(&store, &format!("s{n}"), 1000, &layers);
    }
    let time = std::time::SystemTime::now() - Duration::from_hours(1);
    for id in &layers {
        let path = store.layers().path(id).join("meta.json");
        std::fs::File::open(path).unwrap().set_modified(time).unwrap();
    }
    drop(store);
    let store = other(&dir);
    let found = room(&store, u64::MAX, Duration::ZERO);
    let expected: Vec<&str> = layers.iter().rev().map(LayerId::as_str).collect();
    assert_eq!(ids(&found), expected);
}

#[test]
fn an_index_that_lies_or_lags_makes_nothing_go_that_the_files_keep() {
    let (dir, store) = testing::store();
    let old = step(&store, "old", 10_000, &[]);
    let round = step(&store, "round", 10_000, &[]);
    let used = step(&store, "used", 10_000, &[]);
    let young = step(&store, "young", 10_000, &[]);
    let kept = step(&store, "kept", 10_000, &[]);
    image(&store, "kept", &kept);
    let list = store.blobs().put_bytes(b"list").unwrap();
    let refers = step_with_lists(&store, "refers", 10_000, &[], &[list]);
    for layers in [&old, &round, &used, &kept] {
        age_layer(&store, &layers[0], 9000);
    }
    let lie = |key, output: &[&LayerId], lists| {
        store.index().note(&Entry::Record {
            key,
            output: output.iter().map(|id| (*id).clone()).collect(),
            lists,
        });
    };
    let nothing = LayerId::from_diff_id(&Digest::from_bytes([9; 32]));
    // The records of others are said to be the old one's; what stands on what goes round; things that are not there.
    lie(key("young"), &[&old[0]], vec![]);
    lie(key("nothing"), &[&old[0], &round[0], &old[0]], vec![list]);
    lie(key("nothing"), &[&nothing, &old[0]], vec![]);
    lie(key("old"), &[&nothing], vec![Digest::from_bytes([8; 32])]);
    for layer in [&used[0], &young[0], &refers[0]] {
        store.index().note(&Entry::LayerGone(layer.clone()));
    }
    store.index().note(&Entry::ListGone(list));
    drop(store);
    let user = other(&dir);
    user.layers().require(&used[0]).unwrap();
    let store = other(&dir);
    let found = room(&store, u64::MAX, Duration::from_secs(5000));
    let mut gone = names(&found);
    gone.sort_unstable();
    assert_eq!(gone, ["RUN old", "RUN round"]);
    assert_eq!(store.records().peek(&key("old")).unwrap(), None);
    for name in ["used", "young", "kept", "refers"] {
        assert!(store.records().get(&key(name)).unwrap().is_some(), "{name}");
    }
    assert!(store.blobs().path(&list).exists());
    drop(store);
    // Where it knows nothing at all of a layer, that goes by its own time all the same.
    let maker = other(&dir);
    let unknown = step(&maker, "unknown", 10_000, &[]);
    age_layer(&maker, &unknown[0], 8000);
    let journal = files::names(&dir.path().join("index/journal")).unwrap();
    for name in journal {
        std::fs::remove_file(dir.path().join("index/journal").join(name)).unwrap();
    }
    drop(maker);
    let found = room(&other(&dir), u64::MAX, Duration::from_secs(5000));
    assert_eq!(ids(&found), [unknown[0].as_str()]);
}

#[test]
fn room_is_made_without_the_index_when_another_process_has_it() {
    let (dir, store) = testing::store();
    let layers = step(&store, "old", 100_000, &[]);
    age_layer(&store, &layers[0], 9000);
    drop(store);
    let path = dir.path().join("index/lock");
    let lock = files::open_lock(&path).unwrap();
    files::flock(&lock, rustix::fs::FlockOperation::LockExclusive, &path).unwrap();
    let store = other(&dir);
    assert!(
        oldest::make_room(&store, 1, Duration::ZERO, &never)
            .unwrap()
            .is_none()
    );
    let limits = DiskLimits {
        max_size: Some(Amount::Bytes(1)),
        ..DiskLimits::default()
    };
    let pruned = Keeper::new(limits).hold(&store, &never).unwrap();
    assert_eq!(names(&pruned), ["RUN old"]);
    drop(lock);
}

#[test]
fn who_is_told_to_stop_deletes_nothing_and_has_not_failed() {
    let (dir, store) = filled();
    let before = there(&store);
    let limits = DiskLimits {
        max_size: Some(Amount::Bytes(1)),
        min_free: Some(Amount::Percent(100)),
        min_free_spares: Duration::ZERO,
    };
    let mut keeper = Keeper::new(limits);
    keeper.tend(&store, &|| true);
    assert_eq!(there(&store), before);
    assert_eq!(store.take_warnings(), []);
    assert!(dir.path().join("index/measuring").exists());
    assert!(!dir.path().join("index/futile").exists(), "nothing was tried");
    // The next one gets it done.
    keeper.tend(&store, &never);
    assert!(there(&store).len() < before.len());
    assert_eq!(store.take_warnings(), []);
}
