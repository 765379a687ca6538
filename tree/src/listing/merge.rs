//! What layers look like on top of each other.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;

use crate::{Entry, EntryKind, Listing, TreePath};

impl Listing {
    /// The tree that shows when the layer `upper` lies on `lower`: whiteouts and opaque directories are carried out
    /// and gone from the result.
    pub fn merge(lower: &Listing, upper: &Listing) -> Listing {
        Self::merge_all([lower, upper])
    }

    /// The tree that shows when `layers` lie on each other, the lowest first.
    pub(crate) fn merge_all<'a>(layers: impl IntoIterator<Item = &'a Listing>) -> Listing {
        let merged = layers
            .into_iter()
            .fold(Vec::new(), |lower, upper| overlay(lower, &upper.entries));
        Listing {
            entries: merged.into_iter().map(Cow::into_owned).collect(),
        }
    }
}

/// Lays `upper` on `lower`, which has neither whiteouts nor opaque directories any more.
fn overlay<'a>(lower: Vec<Cow<'a, Entry>>, upper: &'a [Entry]) -> Vec<Cow<'a, Entry>> {
    let mut merged = Merged {
        entries: Vec::with_capacity(lower.len() + upper.len()),
        hidden_below: None,
        hidden_files: HashMap::new(),
        first_names: HashMap::new(),
    };
    let mut upper = upper.iter().peekable();
    for entry in lower {
        let mut replaced = false;
        while let Some(next) = upper.next_if(|next| match next.path.cmp(&entry.path) {
            Ordering::Less => true,
            Ordering::Equal => {
                replaced = true;
                true
            }
            Ordering::Greater => false,
        }) {
            merged.upper(next);
        }
        merged.lower(entry, replaced);
    }
    upper.for_each(|entry| merged.upper(entry));
    merged.entries
}

struct Merged<'a> {
    entries: Vec<Cow<'a, Entry>>,
    /// An upper path at and below which nothing of the lower tree shows.
    hidden_below: Option<&'a TreePath>,
    /// Lower files that do not show, whose later hard links may.
    hidden_files: HashMap<TreePath, EntryKind>,
    /// The first name that shows of a file whose first lower name does not.
    first_names: HashMap<TreePath, TreePath>,
}

impl<'a> Merged<'a> {
    fn upper(&mut self, entry: &'a Entry) {
        let hides = !matches!(entry.kind, EntryKind::Directory { opaque: false });
        // A hiding directory further up stays in force for all below it.
        if hides && !self.is_hidden(&entry.path) {
            self.hidden_below = Some(&entry.path);
        }
        match entry.kind {
            EntryKind::Whiteout => {}
            EntryKind::Directory { opaque: true } => {
                let kind = EntryKind::Directory { opaque: false };
                self.entries.push(Cow::Owned(Entry {
                    kind,
                    ..entry.clone()
                }));
            }
            _ => self.entries.push(Cow::Borrowed(entry)),
        }
    }

    fn lower(&mut self, mut entry: Cow<'a, Entry>, replaced: bool) {
        if replaced || self.is_hidden(&entry.path) {
            if matches!(entry.kind, EntryKind::File { .. }) {
                let Entry { path, kind, .. } = entry.into_owned();
                self.hidden_files.insert(path, kind);
            }
            return;
        }
        if let EntryKind::HardLink { target } = &entry.kind
            && let Some(file) = self.hidden_files.get(target)
        {
            // The names that still show are one file still; the first of them takes the lost name's part.
            let kind = if let Some(first) = self.first_names.get(target) {
                EntryKind::HardLink {
                    target: first.clone(),
                }
            } else {
                self.first_names.insert(target.clone(), entry.path.clone());
                file.clone()
            };
            entry.to_mut().kind = kind;
        }
        self.entries.push(entry);
    }

    fn is_hidden(&self, path: &TreePath) -> bool {
        self.hidden_below.is_some_and(|hidden| path.starts_with(hidden))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use crate::TreePath;
    use crate::listing::samples::{dir, file, link, opaque, path, symlink, whiteout};
    use crate::{Entry, EntryKind, Listing};

    fn listing(entries: Vec<Entry>) -> Listing {
        Listing::from_entries(entries)
    }

    fn check(name: &str, lower: Vec<Entry>, upper: Vec<Entry>, expected: Vec<Entry>) {
        let merged = Listing::merge(&listing(lower), &listing(upper));
        assert_eq!(merged, listing(expected), "{name}");
    }

    #[test]
    fn table() {
        check(
            "addition",
            vec![file("a", "1")],
            vec![file("b", "2")],
            vec![file("a", "1"), file("b", "2")],
        );
        check(
            "replacement",
            vec![file("a", "1")],
            vec![file("a", "2")],
            vec![file("a", "2")],
        );
        check(
            "whiteout of a file",
            vec![file("a", "1"), file("b", "")],
            vec![whiteout("a")],
            vec![file("b", "")],
        );
        check(
            "whiteout of a tree and not of its namesakes",
            vec![
                dir("a"),
                dir("a/d"),
                file("a/d/f", ""),
                file("a-b", ""),
                file("a.b", ""),
            ],
            vec![whiteout("a")],
            vec![file("a-b", ""), file("a.b", "")],
        );
        check(
            "whiteout of nothing",
            vec![file("a", "")],
            vec![whiteout("b")],
            vec![file("a", "")],
        );
        check(
            "directories merge, the upper one's metadata shows",
            vec![dir("a"), file("a/x", "1")],
            vec![
                Entry {
                    mode: 0o700,
                    ..dir("a")
                },
                file("a/y", "2"),
            ],
            vec![
                Entry {
                    mode: 0o700,
                    ..dir("a")
                },
                file("a/x", "1"),
                file("a/y", "2"),
            ],
        );
        check(
            "an opaque directory hides, also between its own entries",
            vec![
                dir("a"),
                file("a/a", "1"),
                dir("a/d"),
                file("a/d/x", ""),
                file("a/z", "1"),
                file("b", ""),
            ],
            vec![opaque("a"), dir("a/d"), file("a/m", "2"), whiteout("a/n")],
            vec![dir("a"), dir("a/d"), file("a/m", "2"), file("b", "")],
        );
        check(
            "a file over a directory",
            vec![dir("a"), file("a/x", "1"), file("b", "")],
            vec![symlink("a", "b")],
            vec![symlink("a", "b"), file("b", "")],
        );
        check(
            "a directory over a file",
            vec![file("a", "1")],
            vec![dir("a"), file("a/x", "")],
            vec![dir("a"), file("a/x", "")],
        );
        check(
            "whiteouts at the bottom",
            vec![whiteout("a"), opaque("b")],
            vec![],
            vec![dir("b")],
        );
    }

    #[test]
    fn hard_links_stay_whole_when_their_first_name_is_hidden() {
        let lower = || vec![file("a", "1"), link("b", "a"), link("c", "a")];
        check(
            "replaced",
            lower(),
            vec![file("a", "2")],
            vec![file("a", "2"), file("b", "1"), link("c", "b")],
        );
        check(
            "removed",
            lower(),
            vec![whiteout("a")],
            vec![file("b", "1"), link("c", "b")],
        );
        check(
            "second removed",
            lower(),
            vec![whiteout("b")],
            vec![file("a", "1"), link("c", "a")],
        );
        check(
            "first two",
            lower(),
            vec![whiteout("a"), whiteout("b")],
            vec![file("c", "1")],
        );
        let three = Listing::merge_all([
            &listing(lower()),
            &listing(vec![whiteout("a")]),
            &listing(vec![file("b", "3")]),
        ]);
        assert_eq!(three, listing(vec![file("b", "3"), file("c", "1")]));
    }

    #[test]
    fn three_layers() {
        let merged = Listing::merge_all([
            &listing(vec![dir("d"), file("d/x", "1")]),
            &listing(vec![whiteout("d")]),
            &listing(vec![dir("d"), file("d/y", "3")]),
        ]);
        assert_eq!(merged, listing(vec![dir("d"), file("d/y", "3")]));
        assert!(matches!(
            merged.get(&path("d")).unwrap().kind,
            EntryKind::Directory { opaque: false }
        ));
    }

    /// A layer as a real directory could be: what has something below it is a directory.
    fn layers() -> impl Strategy<Value = Listing> {
        let one = (
            prop::collection::vec(prop::sample::select(&["a", "b", "a-"][..]), 1..4),
            0..5,
            "[xyz]",
        );
        prop::collection::vec(one, 0..8).prop_map(|picks| {
            let mut entries = BTreeMap::new();
            for (names, kind, text) in picks {
                let at = names.join("/");
                let entry = match kind {
                    0 => dir(&at),
                    1 => opaque(&at),
                    2 => whiteout(&at),
                    _ => file(&at, &text),
                };
                entries.entry(path(&at)).or_insert(entry);
                for above in path(&at).ancestors() {
                    let entry = entries
                        .entry(above.clone())
                        .or_insert_with(|| dir(&above.to_string()));
                    if !entry.kind.is_dir() {
                        *entry = dir(&above.to_string());
                    }
                }
            }
            listing(entries.into_values().collect())
        })
    }

    /// What overlayfs does, entry by entry.
    fn slow_merge(layers: &[Listing]) -> Vec<Entry> {
        let mut shown: BTreeMap<TreePath, Entry> = BTreeMap::new();
        for layer in layers {
            let hides = |entry: &&Entry| !matches!(entry.kind, EntryKind::Directory { opaque: false });
            for entry in layer.entries().iter().filter(hides) {
                shown.retain(|path, _| !path.starts_with(&entry.path));
            }
            for entry in layer
                .entries()
                .iter()
                .filter(|entry| entry.kind != EntryKind::Whiteout)
            {
                let mut entry = entry.clone();
                if let EntryKind::Directory { opaque } = &mut entry.kind {
                    *opaque = false;
                }
                shown.insert(entry.path.clone(), entry);
            }
        }
        shown.into_values().collect()
    }

    proptest! {
        #[test]
        fn any_layers(layers in prop::collection::vec(layers(), 1..4)) {
            let merged = Listing::merge_all(&layers);
            prop_assert_eq!(merged.entries(), &slow_merge(&layers)[..]);
        }
    }
}
