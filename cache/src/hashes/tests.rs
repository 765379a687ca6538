use proptest::prelude::*;

use super::*;
use crate::testing;

const HOUR_AGO: i64 = 3600;

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

fn key(ino: u64, age_secs: i64) -> StatKey {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
        .cast_signed();
    let time = Timestamp {
        secs: now - age_secs,
        nanos: 5,
    };
    StatKey {
        dev: 1,
        ino,
        size: ino * 10,
        mtime: time,
        ctime: time,
    }
}

#[test]
fn remembers_across_opens() {
    let (dir, store) = testing::store();
    let memory = store.hashes().open(dir.path()).unwrap();
    let keys: Vec<_> = (0..5000).map(|ino| key(ino, HOUR_AGO)).collect();
    for (at, key) in keys.iter().enumerate() {
        memory.remember(
            &path(&format!("dir/file-{at}")),
            key,
            ContentHash::of(&at.to_le_bytes()),
        );
    }
    assert!(memory.save().unwrap());
    let memory = store.hashes().open(dir.path()).unwrap();
    assert_eq!(memory.len(), 5000);
    for (at, key) in keys.iter().enumerate() {
        let found = memory.recall(&path(&format!("dir/file-{at}")), key);
        assert_eq!(found, Some(ContentHash::of(&at.to_le_bytes())));
    }
    assert!(!memory.save().unwrap(), "nothing was learned");
    // Every field counts.
    let good = keys[7];
    let later = Timestamp {
        secs: good.mtime.secs,
        nanos: 6,
    };
    for other in [
        StatKey { dev: 2, ..good },
        StatKey { ino: 8, ..good },
        StatKey { size: 1, ..good },
        StatKey { mtime: later, ..good },
        StatKey { ctime: later, ..good },
    ] {
        assert_eq!(memory.recall(&path("dir/file-7"), &other), None);
    }
    assert_eq!(memory.recall(&path("dir/file-8"), &good), None, "the path counts");
}

#[test]
fn what_was_just_changed_is_not_kept() {
    let opened = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000_500);
    let at = |secs: i64, millis: u32| Timestamp {
        secs,
        nanos: millis * 1_000_000,
    };
    let cases = [
        (at(999_990, 1), at(999_990, 1), true, "long ago"),
        (
            at(1_000_000, 399),
            at(1_000_000, 399),
            true,
            "101 ms before, fine clock",
        ),
        (
            at(1_000_000, 400),
            at(1_000_000, 400),
            false,
            "100 ms before, fine clock",
        ),
        (
            at(1_000_000, 450),
            at(1_000_000, 450),
            false,
            "50 ms before, fine clock",
        ),
        (
            at(999_999, 0),
            at(999_999, 0),
            false,
            "1.5 s before, coarse clock",
        ),
        (at(999_998, 0), at(999_998, 0), true, "2.5 s before, coarse clock"),
        (
            at(5, 0),
            at(1_000_000, 450),
            false,
            "the mtime was set back, the ctime tells",
        ),
        (at(1_000_000, 450), at(5, 1), false, "the mtime tells"),
        (at(2_000_000, 0), at(5, 1), false, "from the future"),
    ];
    for (mtime, ctime, kept, what) in cases {
        let key = StatKey {
            dev: 1,
            ino: 1,
            size: 1,
            mtime,
            ctime,
        };
        assert_eq!(settled(&key, opened), kept, "{what}");
    }
}

#[test]
fn forgets_what_is_not_used_and_keeps_what_is() {
    let (dir, store) = testing::store();
    let (old, used) = (key(1, HOUR_AGO), key(2, HOUR_AGO));
    let memory = store.hashes().open(dir.path()).unwrap();
    memory.remember(&path("old"), &old, ContentHash::of(b"old"));
    memory.remember(&path("used"), &used, ContentHash::of(b"used"));
    memory.save().unwrap();
    for round in 0..=u64::from(MAX_AGE) {
        let memory = store.hashes().open(dir.path()).unwrap();
        assert!(memory.recall(&path("used"), &used).is_some());
        memory.remember(&path("new"), &key(100 + round, HOUR_AGO), ContentHash::of(b"new"));
        memory.save().unwrap();
    }
    let memory = store.hashes().open(dir.path()).unwrap();
    assert!(memory.recall(&path("used"), &used).is_some());
    assert!(memory.recall(&path("old"), &old).is_none());
    assert_eq!(memory.len(), 2);
}

fn saved() -> Vec<u8> {
    let stamp = Stamp {
        boot: "aaaa".parse().unwrap(),
        epoch: 3,
    };
    let entries: Vec<_> = [3_u64, 1 << 50, u64::MAX]
        .iter()
        .map(|hash| {
            (
                *hash,
                Remembered {
                    key: key(*hash >> 8, 9),
                    content: ContentHash::of(b"x"),
                    age: 1,
                },
            )
        })
        .collect();
    encode(&entries, &stamp)
}

#[test]
fn damage_is_found_and_harmless() {
    let (dir, store) = testing::store();
    let memory = store.hashes().open(dir.path()).unwrap();
    let good = saved();
    assert_eq!(parse(good.clone()), Ok(3));
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert!(matches!(parse(bad), Err(Flaw::Damaged(_))), "byte {at}");
        assert!(
            matches!(parse(good[..at].to_vec()), Err(Flaw::Damaged(_))),
            "cut {at}"
        );
    }
    for bad in [vec![], vec![0; good.len()], good[..50].to_vec()] {
        std::fs::write(&memory.path, bad).unwrap();
        assert!(store.hashes().open(dir.path()).unwrap().is_empty());
        assert_eq!(store.take_warnings().len(), 1);
        assert!(!memory.path.exists(), "set aside");
    }
}

#[test]
fn an_unsynced_memory_does_not_outlive_its_boot() {
    let (dir, store) = testing::store();
    let memory = store.hashes().open(dir.path()).unwrap();
    memory.remember(&path("a"), &key(1, HOUR_AGO), ContentHash::of(b"a"));
    memory.save().unwrap();
    assert!(
        testing::open(dir.path(), "bbbb")
            .hashes()
            .open(dir.path())
            .unwrap()
            .is_empty()
    );
    store.sync().unwrap();
    assert_eq!(
        testing::open(dir.path(), "bbbb")
            .hashes()
            .open(dir.path())
            .unwrap()
            .len(),
        1
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = parse(bytes);
    }

    #[test]
    fn any_body_with_a_right_checksum_is_read_without_panic(
        count in 0_u32..8,
        body in proptest::collection::vec(any::<u8>(), 0..800),
    ) {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&body);
        let sum = blake3::hash(&bytes);
        bytes.extend_from_slice(sum.as_bytes());
        let _ = parse(bytes);
    }
}

/// A memory file with all fields different.
pub(crate) fn example() -> Vec<u8> {
    let stamp = Stamp {
        boot: "3ee0cbbd-0ba6-4d7f-b1f6-b4e3ab2f1a4e".parse().unwrap(),
        epoch: 9,
    };
    let (mtime, ctime) = (Timestamp { secs: -5, nanos: 6 }, Timestamp { secs: 7, nanos: 8 });
    let one = Remembered {
        key: StatKey {
            dev: 1,
            ino: 2,
            size: 3,
            mtime,
            ctime,
        },
        content: ContentHash([9; 32]),
        age: 4,
    };
    let two = Remembered {
        age: 0,
        content: ContentHash([7; 32]),
        ..one
    };
    let mut entries = [
        (path_hash(&path("app.py")), one),
        (path_hash(&path("src/lib.rs")), two),
    ];
    entries.sort_by_key(|(hash, _)| *hash);
    encode(&entries, &stamp)
}
