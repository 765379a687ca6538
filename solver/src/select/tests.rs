use kiln_tree::{Entry, EntryKind, Listing, ResolveError};

use super::{SelectError, Selection, select, select_mounted};
use crate::graph::CopySource;
use crate::testing::{dir, file, link, listing, path, symlink};

fn sources(patterns: &[&str]) -> Vec<CopySource> {
    patterns
        .iter()
        .map(|pattern| CopySource {
            pattern: (*pattern).to_owned(),
            ..CopySource::default()
        })
        .collect()
}

fn chosen(listing: &Listing, patterns: &[&str]) -> Selection {
    match select(listing, &sources(patterns), &[]) {
        Ok(selection) => selection,
        Err((source, error)) => panic!("{}: {error}", source.pattern),
    }
}

fn hash(listing: &Listing, patterns: &[&str]) -> String {
    chosen(listing, patterns).hash.to_string()
}

fn sample() -> Vec<Entry> {
    vec![
        dir("a"),
        file("a/one.txt", "1"),
        file("a/two.txt", "2"),
        dir("a/sub"),
        file("a/sub/deep.txt", "3"),
        file(".hidden", "h"),
        file("top.txt", "t"),
        symlink("file_link", "a/one.txt"),
        symlink("dir_link", "a"),
        symlink("a/up", "../top.txt"),
        symlink("loop", "loop"),
        symlink("dangling", "none"),
        file("we[ird", "w"),
    ]
}

/// Pattern → places, each `name -> path`, directories with a slash.
#[test]
fn patterns_find_places() {
    let listing = listing(sample());
    let table: &[(&[&str], &[&str])] = &[
        (&["top.txt"], &["top.txt -> top.txt"]),
        (&["/top.txt"], &["top.txt -> top.txt"]),
        (&["../../top.txt"], &["top.txt -> top.txt"]),
        (&["a"], &["a -> a/"]),
        (&["a/"], &["a -> a/"]),
        (&["."], &[" -> /"]),
        (&["/"], &[" -> /"]),
        (&["a/./sub/.."], &["a -> a/"]),
        (&["a/*.txt"], &["one.txt -> a/one.txt", "two.txt -> a/two.txt"]),
        (&["*.txt"], &["top.txt -> top.txt"]),
        (&["*hid*"], &[".hidden -> .hidden"]),
        (&["*/*/deep.txt"], &["deep.txt -> a/sub/deep.txt"]),
        (&["no*"], &[]),
        (&["no*/x"], &[]),
        (&["top.txt/*"], &[]),
        (&["file_link"], &["file_link -> a/one.txt"]),
        (&["dir_link"], &["dir_link -> a/"]),
        (&["dir_link/one.txt"], &["one.txt -> a/one.txt"]),
        (
            &["dir_link/*.txt"],
            &["one.txt -> a/one.txt", "two.txt -> a/two.txt"],
        ),
        (&["dir_link/up"], &["up -> top.txt"]),
        (&["we\\[ird"], &["we[ird -> we[ird"]),
        (
            &["top.txt", "a/one.txt", "top.txt"],
            &["top.txt -> top.txt", "one.txt -> a/one.txt", "top.txt -> top.txt"],
        ),
    ];
    for (patterns, expected) in table {
        let found: Vec<String> = chosen(&listing, patterns)
            .places
            .iter()
            .map(|place| {
                let slash = if place.is_dir { "/" } else { "" };
                format!(
                    "{} -> {}{slash}",
                    String::from_utf8_lossy(place.written.file_name().unwrap_or_default()),
                    place.path
                )
            })
            .collect();
        assert_eq!(found, *expected, "{patterns:?}");
    }
}

#[test]
fn failures_name_their_source() {
    let listing = listing(sample());
    let table: &[(&str, &str)] = &[
        ("none", "\"/none\": none: not found"),
        ("a/none/x", "\"/a/none/x\": a/none: not found"),
        ("top.txt/x", "\"/top.txt/x\": top.txt: not found"),
        ("loop", "\"/loop\": loop: too many levels of symbolic links"),
        ("a/[", "\"a/[\": unterminated character class in pattern"),
        ("dangling", "\"/dangling\": none: not found"),
        ("dang*", "\"/dangling\": none: not found"),
    ];
    for (pattern, message) in table {
        let sources = sources(&["top.txt", pattern]);
        let (source, error) = select(&listing, &sources, &[]).expect_err(pattern);
        assert_eq!(source.pattern, *pattern);
        assert_eq!(error.to_string(), *message, "{pattern}");
    }
    let sources = sources(&["a\0b"]);
    let nul = select(&listing, &sources, &[]).map_err(|(_, error)| error);
    assert!(matches!(nul, Err(SelectError::Path { .. })));
    assert_eq!(
        ResolveError::NotFound { path: path("x") }.to_string(),
        "x: not found"
    );
}

#[test]
fn the_hash_is_of_what_a_copy_sees() {
    let base = listing(sample());
    let edited = |edit: &dyn Fn(&mut Vec<Entry>)| {
        let mut entries = sample();
        edit(&mut entries);
        listing(entries)
    };
    let set = |at: &'static str, new: Entry| {
        move |entries: &mut Vec<Entry>| {
            entries.retain(|entry| entry.path != path(at));
            entries.push(new.clone());
        }
    };
    let other_bytes = edited(&set("a/one.txt", file("a/one.txt", "new")));
    for patterns in [
        &["a"][..],
        &["a/one.txt"],
        &["dir_link"],
        &["file_link"],
        &["."],
        &["a/*"],
    ] {
        assert_ne!(
            hash(&base, patterns),
            hash(&other_bytes, patterns),
            "{patterns:?}"
        );
    }
    for patterns in [&["a/two.txt"][..], &["top.txt"], &["a/sub"], &["no*"]] {
        assert_eq!(
            hash(&base, patterns),
            hash(&other_bytes, patterns),
            "{patterns:?}"
        );
    }
    // Attributes count, times do not.
    let mode = edited(&set(
        "a/one.txt",
        Entry {
            mode: 0o755,
            ..file("a/one.txt", "1")
        },
    ));
    assert_ne!(hash(&base, &["a"]), hash(&mode, &["a"]));
    assert_ne!(hash(&base, &["a/one.txt"]), hash(&mode, &["a/one.txt"]));
    let touched = edited(&set(
        "a/one.txt",
        Entry {
            mtime: kiln_tree::Timestamp { secs: 99, nanos: 9 },
            ..file("a/one.txt", "1")
        },
    ));
    assert_eq!(
        hash(&base, &["a", "a/one.txt", "."]),
        hash(&touched, &["a", "a/one.txt", "."])
    );
    // A new file in a directory, and what a wildcard newly finds.
    let more = edited(&|entries: &mut Vec<Entry>| entries.push(file("a/three.txt", "3")));
    assert_ne!(hash(&base, &["a"]), hash(&more, &["a"]));
    assert_ne!(hash(&base, &["a/*.txt"]), hash(&more, &["a/*.txt"]));
    assert_eq!(hash(&base, &["a/t*o.txt"]), hash(&more, &["a/t*o.txt"]));
}

#[test]
fn names_count_where_they_reach_the_destination() {
    let renamed = |name: &str| listing(vec![file(name, "same"), dir("d1"), file("d1/x", "x")]);
    assert_ne!(hash(&renamed("a"), &["a"]), hash(&renamed("b"), &["b"]));
    // The contents of a directory are copied, not the directory.
    let directory = |name: &str| listing(vec![dir(name), file(&format!("{name}/x"), "x")]);
    assert_eq!(hash(&directory("d1"), &["d1"]), hash(&directory("d2"), &["d2"]));
    assert_ne!(hash(&directory("d1"), &["d1"]), hash(&directory("d1"), &["d1/x"]));
    let two = listing(vec![file("a", "1"), file("b", "2")]);
    assert_ne!(hash(&two, &["a", "b"]), hash(&two, &["b", "a"]));
    assert_eq!(hash(&two, &["a", "b"]), hash(&two, &["?"]));
}

#[test]
fn hard_links_across_the_border_count_as_files() {
    let inside = listing(vec![dir("d"), file("d/a", "same"), link("d/b", "d/a")]);
    let from_outside = listing(vec![
        file("a", "same"),
        dir("d"),
        link("d/a", "a"),
        link("d/b", "a"),
    ]);
    assert_eq!(
        hash(&inside, &["d"]),
        hash(&from_outside, &["d"]),
        "the first name inside is the file"
    );
    let apart = listing(vec![dir("d"), file("d/a", "same"), file("d/b", "same")]);
    assert_ne!(hash(&inside, &["d"]), hash(&apart, &["d"]));
    let other = listing(vec![
        file("a", "other"),
        dir("d"),
        link("d/a", "a"),
        link("d/b", "a"),
    ]);
    assert_ne!(hash(&from_outside, &["d"]), hash(&other, &["d"]));
    assert_eq!(
        hash(&from_outside, &["d/b"]),
        hash(&listing(vec![file("b", "same")]), &["b"])
    );
}

#[test]
fn a_device_is_no_directory() {
    let device = Entry {
        kind: EntryKind::CharDevice { major: 1, minor: 3 },
        ..file("null", "")
    };
    let listing = listing(vec![device]);
    assert!(!chosen(&listing, &["null"]).places[0].is_dir);
}

#[test]
fn a_mount_shows_one_place_whatever_characters_its_path_has() {
    let listing = listing(sample());
    for (source, place, is_dir) in [
        ("", "", true),
        ("/", "", true),
        ("a/", "a", true),
        ("dir_link", "a", true),
        ("dir_link/up", "top.txt", false),
        ("../../top.txt", "top.txt", false),
        ("we[ird", "we[ird", false),
    ] {
        let selection = select_mounted(&listing, source).unwrap();
        let found = &selection.places[0];
        assert_eq!(
            (found.path.to_string(), found.is_dir),
            (place.to_owned(), is_dir),
            "{source}"
        );
    }
    for source in ["a/*.txt", "none", "dangling", "loop", "top.txt/x"] {
        assert!(
            matches!(select_mounted(&listing, source), Err(SelectError::Resolve { .. })),
            "{source}"
        );
    }
}

#[test]
fn a_mount_counts_by_what_it_shows_and_not_by_its_name() {
    let hash = |entries: Vec<Entry>, source: &str| {
        select_mounted(&listing(entries), source)
            .unwrap()
            .hash
            .to_string()
    };
    let renamed = vec![dir("b"), file("b/uno.txt", "1"), file("same", "1")];
    assert_eq!(hash(sample(), "a/one.txt"), hash(renamed.clone(), "b/uno.txt"));
    assert_eq!(hash(sample(), "a/one.txt"), hash(renamed.clone(), "same"));
    assert_ne!(hash(sample(), "a/one.txt"), hash(sample(), "a/two.txt"));
    assert_ne!(hash(sample(), "a"), hash(renamed, "b"), "names below it count");
    let mut beside = sample();
    beside.push(file("zzz", "z"));
    assert_eq!(hash(sample(), "a"), hash(beside.clone(), "a"));
    assert_ne!(hash(sample(), ""), hash(beside, ""));
}

/// One source, the directory up to `|` and the pattern below it, less what is excluded.
fn filtered(listing: &Listing, source: &str, exclude: &[&str]) -> Result<Selection, String> {
    let (pattern, below) = match source.split_once('|') {
        Some((pattern, below)) => (pattern, Some(below.to_owned())),
        None => (source, None),
    };
    let source = CopySource {
        pattern: pattern.to_owned(),
        below,
        span: None,
    };
    let exclude: Vec<String> = exclude.iter().map(|&pattern| pattern.to_owned()).collect();
    select(listing, &[source], &exclude).map_err(|(_, error)| error.to_string())
}

/// Source, what is excluded, and the paths that make a difference.
#[test]
fn only_what_a_filter_takes_counts() {
    let all = ["a/one.txt", "a/two.txt", "a/sub/deep.txt", ".hidden", "top.txt"];
    let table: &[(&str, &[&str], &[&str])] = &[
        ("a", &["one.txt"], &["a/two.txt", "a/sub/deep.txt"]),
        ("a", &["sub"], &["a/one.txt", "a/two.txt"]),
        ("a", &["**", "!sub"], &["a/sub/deep.txt"]),
        ("a", &["a/one.txt"], &["a/one.txt", "a/two.txt", "a/sub/deep.txt"]),
        ("dir_link", &["*.txt"], &["a/sub/deep.txt"]),
        ("a*", &["*.txt", "sub"], &[]),
        ("top.txt", &["*.txt"], &[]),
        (
            "*",
            &["*.txt", ".hidden", "dangling", "loop", "we*"],
            &["a/one.txt", "a/sub/deep.txt"],
        ),
        ("|a/one.txt", &[], &["a/one.txt"]),
        ("|a/sub", &[], &["a/sub/deep.txt"]),
        ("a|sub", &[], &["a/sub/deep.txt"]),
        ("dir_link|one.txt", &[], &["a/one.txt"]),
        (
            "|**/*.txt",
            &["**/deep.txt", "top.txt"],
            &["a/one.txt", "a/two.txt"],
        ),
        ("|*", &["a"], &[".hidden", "top.txt"]),
        ("a|", &["t*"], &["a/one.txt", "a/sub/deep.txt"]),
        ("*|s?b", &[], &["a/sub/deep.txt"]),
        ("none*|x", &[], &[]),
        ("|none/*", &[], &[]),
    ];
    for (source, exclude, expected) in table {
        let hash = |entries: Vec<Entry>| {
            let chosen = filtered(&listing(entries), source, exclude).expect(source);
            chosen.hash.to_string()
        };
        let base = hash(sample());
        let differs = |at: &&str| {
            let mut entries = sample();
            entries.retain(|entry| entry.path != path(at));
            entries.push(file(at, "edited"));
            hash(entries) != base
        };
        let counting: Vec<&str> = all.iter().copied().filter(|at| differs(at)).collect();
        assert_eq!(counting, *expected, "{source} without {exclude:?}");
    }
}

#[test]
fn a_directory_above_counts_with_its_looks_and_not_with_its_neighbours() {
    let base = listing(sample());
    let hash = |listing: &Listing| {
        filtered(listing, "|a/sub/deep.txt", &[])
            .expect("a selection")
            .hash
    };
    let mut entries = sample();
    for entry in &mut entries {
        if entry.path == path("a/sub") {
            entry.mode = 0o700;
        }
    }
    assert_ne!(hash(&base), hash(&listing(entries)));
    let mut entries = sample();
    entries.push(dir("a/empty"));
    assert_eq!(hash(&base), hash(&listing(entries)));
}

#[test]
fn what_a_literal_names_below_a_directory_has_to_be_there() {
    let listing = listing(sample());
    for (source, exclude, missing) in [
        ("|a/none", &[][..], "a/none"),
        ("a|none/x", &[], "a/none/x"),
        ("|a/one.txt", &["**/*.txt"], "a/one.txt"),
        // Symlinks are not followed below the directory.
        ("|dir_link/one.txt", &[], "dir_link/one.txt"),
        ("top.txt|x", &[], "top.txt/x"),
    ] {
        let error = filtered(&listing, source, exclude).expect_err(source);
        assert_eq!(error, format!("\"/{missing}\": {missing}: not found"), "{source}");
    }
    assert!(
        filtered(&listing, "|dir_link", &[]).is_ok(),
        "a link itself is there"
    );
    assert_eq!(
        filtered(&listing, "|[", &[]).map(|_| ()),
        Err("\"[\": unterminated character class in pattern".to_owned())
    );
}

#[test]
fn a_hard_link_whose_first_name_is_left_out_counts_as_a_file() {
    let linked = listing(vec![
        dir("d"),
        file("d/a", "same"),
        link("d/b", "d/a"),
        link("d/c", "d/a"),
    ]);
    let plain = listing(vec![dir("d"), file("d/b", "same"), link("d/c", "d/b")]);
    let hash = |listing: &Listing| filtered(listing, "d", &["a"]).expect("a selection").hash;
    assert_eq!(hash(&linked), hash(&plain));
}
