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
}
