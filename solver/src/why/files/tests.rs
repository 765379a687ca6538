use proptest::prelude::*;

use super::*;
use crate::graph::CopySource;
use crate::select::select;
use crate::testing::{dir, file, listing, path};

fn list_of(entries: Vec<Entry>) -> FileList {
    let listing = listing(entries);
    let all = [CopySource {
        pattern: ".".to_owned(),
        ..CopySource::default()
    }];
    FileList::of(&select(&listing, &all, &[]).unwrap(), &listing)
}

fn sample() -> Vec<Entry> {
    vec![
        dir("a"),
        file("a/one", "1"),
        file("a/two", "2"),
        dir("a/b"),
        file("a/b/deep", "3"),
        file("top", "t"),
    ]
}

fn changes(before: Vec<Entry>, after: Vec<Entry>) -> String {
    list_of(after).changes_since(list_of(before)).to_string()
}

#[test]
fn changes_are_named() {
    let without = |name: &str| -> Vec<Entry> {
        sample()
            .into_iter()
            .filter(|entry| entry.path != path(name))
            .collect()
    };
    let with = |entry: Entry| -> Vec<Entry> { sample().into_iter().chain([entry]).collect() };
    let mode = |name: &str| -> Vec<Entry> {
        let mut entries = sample();
        entries
            .iter_mut()
            .filter(|entry| entry.path == path(name))
            .for_each(|entry| entry.mode = 0o755);
        entries
    };
    let many: Vec<Entry> = (0..9)
        .map(|n| file(&format!("n{n}"), "x"))
        .chain(sample())
        .collect();
    let table = [
        (with(file("top", "T")), "top changed"),
        (with(file("x", "x")), "x added"),
        (without("a/one"), "a/one removed"),
        (mode("top"), "top changed its mode"),
        (
            without("a/b/deep")
                .into_iter()
                .chain([file("top", "T"), file("x", "x")])
                .collect(),
            "top changed, x added, a/b/deep removed",
        ),
        (many, "n0, n1, n2 and 6 more added"),
        (sample(), "the files differ"),
    ];
    for (after, expected) in table {
        assert_eq!(changes(sample(), after), expected);
    }
    let owner = {
        let mut entries = sample();
        entries[1].uid = 7;
        entries
    };
    assert_eq!(changes(sample(), owner), "a/one changed its owner or attributes");
}

/// However deep each of them was folded, two lists can be compared.
#[test]
fn folded_lists_compare() {
    let folded = |entries: Vec<Entry>, most| {
        let mut list = list_of(entries);
        list.bound(most);
        assert!(list.entries.len() <= most, "{list:?}");
        FileList::decode(&list.encode()).unwrap()
    };
    let mut deep = sample();
    deep.push(file("a/b/deep", "other"));
    for (one, other, expected) in [
        (4, 4, "a changed"),
        (4, 100, "a changed"),
        (100, 5, "a/b changed"),
        (1, 100, ". changed"),
    ] {
        let changes = folded(deep.clone(), one).changes_since(folded(sample(), other));
        assert_eq!(changes.to_string(), expected, "{one} {other}");
        let same = folded(sample(), one).changes_since(folded(sample(), other));
        assert_eq!(same, FileChanges::default(), "{one} {other}");
    }
}

proptest! {
    #[test]
    fn round_trip(names in proptest::collection::btree_set("[a-c]{1,2}(/[a-c]{1,3}){0,3}", 0..40)) {
        let list = list_of(names.iter().map(|name| file(name, name)).collect());
        prop_assert_eq!(FileList::decode(&list.encode()), Some(list));
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        FileList::decode(&[MAGIC, &bytes].concat());
        FileList::decode(&bytes);
    }

    /// Lists that nobody wrote this way: in any order, twice the same, of any depth. They can be compared, too.
    #[test]
    fn any_lists_compare(before in any_list(), after in any_list()) {
        if let (Some(before), Some(after)) = (FileList::decode(&before), FileList::decode(&after)) {
            let changes = after.clone().changes_since(before);
            prop_assert!(changes.first.len() <= 5 * NAMED);
            prop_assert_eq!(after.clone().changes_since(after), FileChanges::default());
        }
    }
}

/// The bytes of a list whose form is right and whose content is any.
fn any_list() -> impl Strategy<Value = Vec<u8>> {
    let entry = (any::<[u8; 15]>(), 0..12u16, "[a-c/]{0,9}");
    let entries = proptest::collection::vec(entry, 0..20);
    let depth = prop_oneof![0..6u16, any::<u16>()];
    (depth, entries).prop_map(|(depth, entries)| {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&depth.to_le_bytes());
        for (facts, shared, own) in entries {
            bytes.extend_from_slice(&facts);
            bytes.extend_from_slice(&shared.to_le_bytes());
            bytes.extend_from_slice(&u16::try_from(own.len()).unwrap().to_le_bytes());
            bytes.extend_from_slice(own.as_bytes());
        }
        bytes
    })
}

/// A damaged list must not cost more than one that was written: it is bounded in number and depth.
#[test]
fn what_no_build_writes_is_refused() {
    let mut deep = MAGIC.to_vec();
    deep.extend_from_slice(&u16::MAX.to_le_bytes());
    deep.extend_from_slice(&[b'f'; 15]);
    let path = "a/".repeat(3000) + "a";
    deep.extend_from_slice(&0u16.to_le_bytes());
    deep.extend_from_slice(&u16::try_from(path.len()).unwrap().to_le_bytes());
    deep.extend_from_slice(path.as_bytes());
    assert_eq!(FileList::decode(&deep), None);
    let mut many = MAGIC.to_vec();
    many.extend_from_slice(&u16::MAX.to_le_bytes());
    for number in 0..=MOST_ENTRIES {
        let name = format!("{number}");
        many.extend_from_slice(&[b'f'; 15]);
        many.extend_from_slice(&0u16.to_le_bytes());
        many.extend_from_slice(&u16::try_from(name.len()).unwrap().to_le_bytes());
        many.extend_from_slice(name.as_bytes());
    }
    assert_eq!(FileList::decode(&many), None);
}
