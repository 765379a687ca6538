//! Whether a cached result is what its step makes: what came of running the step once more.
//!
//! Content counts as it does in a layer's identity: bytes, modes, owners, extended attributes, links, devices, what is
//! hidden. Modification times are no part of it, so a step that only writes other times is as good as the same one;
//! they are counted apart.

use std::cmp::Ordering;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _};

use kiln_tree::{Entry, EntryKind, Listing};
use serde::{Deserialize, Serialize};

/// As many differences are named.
const NAMED: usize = 10;

/// A part of a hundred, 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(u8);

impl Percent {
    /// All of it.
    pub const ALL: Self = Self(100);

    /// `None` unless the number is from 1 to 100.
    pub fn new(percent: u8) -> Option<Self> {
        (1..=100).contains(&percent).then_some(Self(percent))
    }

    /// How many of `all` that is: at least one, if there is any.
    fn of(self, all: usize) -> usize {
        (all * usize::from(self.0)).div_ceil(100)
    }

    /// So many of `all`, each as likely as the others, in their order.
    pub(crate) fn sample<T>(self, mut all: Vec<T>) -> Vec<T> {
        let wanted = self.of(all.len());
        while all.len() > wanted {
            // A number that nobody can foresee: nothing else is asked of it.
            let random = RandomState::new().build_hasher().finish();
            let count = all.len() as u64;
            let at = usize::try_from(random % count).unwrap_or(0);
            all.remove(at);
        }
        all
    }
}

/// What came of running a cached step once more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Verified,
    /// Milliseconds that it took.
    pub milliseconds: u64,
    /// The name of its log, when it had a process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

/// How the results compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "result")]
pub enum Verified {
    /// The content is the same.
    Same {
        /// As many files have another modification time.
        #[serde(default)]
        times: usize,
    },
    /// The content is another one.
    Differs(Differences),
    /// It failed.
    Failed {
        /// How.
        message: String,
    },
    /// The cached layer's files are not those that the step made when it ran: they were changed in the store.
    Damaged {
        /// What is wrong.
        reason: String,
    },
    /// It could not be run.
    NotRun {
        /// Why.
        reason: String,
    },
}

impl Verified {
    /// Whether the cached result cannot be relied on.
    pub fn is_bad(&self) -> bool {
        match self {
            Self::Differs(_) | Self::Failed { .. } | Self::Damaged { .. } => true,
            Self::Same { .. } | Self::NotRun { .. } => false,
        }
    }
}

/// How two results of a step differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Differences {
    /// Paths whose content differs.
    pub paths: usize,
    /// Paths where nothing but the modification time does.
    pub times: usize,
    /// The first paths whose content differs.
    pub first: Vec<PathDifference>,
}

/// How one path differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathDifference {
    /// The path.
    pub path: String,
    /// In which respects.
    pub aspects: Vec<Aspect>,
}

/// A respect in which a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aspect {
    /// Only the cached result has it.
    Gone,
    /// Only the new result has it.
    New,
    /// It is something else: a directory instead of a file, another device.
    Kind,
    /// The bytes of a file.
    Bytes,
    /// What a symbolic or hard link points at.
    Link,
    /// Whether a directory hides what is below it.
    Opaque,
    /// Its permissions.
    Mode,
    /// Its owner or group.
    Owner,
    /// Its extended attributes.
    Attributes,
}

impl Aspect {
    fn words(self) -> &'static str {
        match self {
            Self::Gone => "is not made any more",
            Self::New => "is new",
            Self::Kind => "is something else",
            Self::Bytes => "has other bytes",
            Self::Link => "links elsewhere",
            Self::Opaque => "hides other files",
            Self::Mode => "has another mode",
            Self::Owner => "has another owner",
            Self::Attributes => "has other extended attributes",
        }
    }
}

impl fmt::Display for PathDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clean = |c: char| if c.is_control() { '?' } else { c };
        let path: String = self.path.chars().map(clean).collect();
        let words: Vec<&str> = self.aspects.iter().map(|aspect| aspect.words()).collect();
        write!(f, "/{path} {}", words.join(", "))
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same { times: 0 } => f.write_str("the same result"),
            Self::Same { times } => write!(f, "the same result, only times differ ({times})"),
            Self::Differs(differences) => {
                let named: Vec<String> = differences.first.iter().map(ToString::to_string).collect();
                write!(f, "another result: {}", named.join("; "))?;
                match differences.paths.saturating_sub(named.len()) {
                    0 => Ok(()),
                    more => write!(f, "; {more} more"),
                }
            }
            Self::Failed { message } => write!(f, "it fails now: {message}"),
            Self::Damaged { reason } => write!(f, "the cached layer is damaged: {reason}"),
            Self::NotRun { reason } => write!(f, "not run again: {reason}"),
        }
    }
}

/// Compares the cached layer with a new one.
pub(crate) fn compare(cached: &Listing, new: &Listing) -> Verified {
    let mut differences = Differences::default();
    let (mut old, mut now) = (
        cached.entries().iter().peekable(),
        new.entries().iter().peekable(),
    );
    loop {
        let order = match (old.peek(), now.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(now)) => old.path.cmp(&now.path),
        };
        let (entry, aspects) = match order {
            Ordering::Less => (old.next(), vec![Aspect::Gone]),
            Ordering::Greater => (now.next(), vec![Aspect::New]),
            Ordering::Equal => {
                let (Some(old), Some(now)) = (old.next(), now.next()) else {
                    break;
                };
                let aspects = aspects(old, now);
                if aspects.is_empty() && old.mtime != now.mtime {
                    differences.times += 1;
                }
                (Some(now), aspects)
            }
        };
        let Some(entry) = entry.filter(|_| !aspects.is_empty()) else {
            continue;
        };
        differences.paths += 1;
        if differences.first.len() < NAMED {
            differences.first.push(PathDifference {
                path: entry.path.to_string(),
                aspects,
            });
        }
    }
    if differences.paths == 0 {
        return Verified::Same {
            times: differences.times,
        };
    }
    Verified::Differs(differences)
}

fn aspects(old: &Entry, now: &Entry) -> Vec<Aspect> {
    let mut aspects = Vec::new();
    if old.kind != now.kind {
        aspects.push(match (&old.kind, &now.kind) {
            (EntryKind::File { .. }, EntryKind::File { .. }) => Aspect::Bytes,
            (EntryKind::Symlink { .. }, EntryKind::Symlink { .. })
            | (EntryKind::HardLink { .. }, EntryKind::HardLink { .. } | EntryKind::File { .. })
            | (EntryKind::File { .. }, EntryKind::HardLink { .. }) => Aspect::Link,
            (EntryKind::Directory { .. }, EntryKind::Directory { .. }) => Aspect::Opaque,
            _ => Aspect::Kind,
        });
    }
    if old.mode != now.mode {
        aspects.push(Aspect::Mode);
    }
    if (old.uid, old.gid) != (now.uid, now.gid) {
        aspects.push(Aspect::Owner);
    }
    if old.xattrs != now.xattrs {
        aspects.push(Aspect::Attributes);
    }
    aspects
}

#[cfg(test)]
mod tests {
    use kiln_tree::Entry;

    use super::{Aspect, Percent, Verified, compare};
    use crate::testing::{dir, file, link, listing, symlink};

    #[test]
    fn a_part_is_at_least_one_and_never_more_than_all() {
        let table = [
            (1, 0, 0),
            (1, 1, 1),
            (1, 100, 1),
            (1, 101, 2),
            (50, 3, 2),
            (100, 7, 7),
        ];
        for (percent, all, expected) in table {
            let percent = Percent::new(percent).unwrap();
            let sample = percent.sample((0..all).collect());
            assert_eq!(sample.len(), expected, "{percent:?} of {all}");
            assert!(
                sample.is_sorted(),
                "{sample:?} is not in the order of what it is of"
            );
        }
        assert!(Percent::new(0).is_none() && Percent::new(101).is_none());
    }

    #[test]
    fn every_member_is_drawn_at_some_time() {
        let mut drawn = std::collections::BTreeSet::new();
        for _ in 0..1_000 {
            drawn.extend(Percent(25).sample(vec!['a', 'b', 'c', 'd']));
        }
        assert_eq!(drawn.len(), 4, "{drawn:?}");
    }

    fn changed(mut entry: Entry, change: impl FnOnce(&mut Entry)) -> Entry {
        change(&mut entry);
        entry
    }

    #[test]
    fn every_aspect_is_told_and_times_are_apart() {
        let later = |entry: Entry| changed(entry, |entry| entry.mtime.secs += 1);
        let cached = listing(vec![
            dir("d"),
            file("d/bytes", "one"),
            file("d/gone", ""),
            file("d/kind", ""),
            file("d/linked", ""),
            file("d/mode", ""),
            file("d/owner", ""),
            symlink("d/symlink", "a"),
            file("d/time", ""),
            file("d/xattr", ""),
        ]);
        let new = listing(vec![
            later(dir("d")),
            later(file("d/bytes", "two")),
            dir("d/kind"),
            link("d/linked", "d/bytes"),
            changed(file("d/mode", ""), |entry| {
                entry.mode = 0o600;
                entry.gid = 7;
            }),
            changed(file("d/owner", ""), |entry| entry.uid = 7),
            file("d/new", ""),
            symlink("d/symlink", "b"),
            later(file("d/time", "")),
            changed(file("d/xattr", ""), |entry| {
                entry.xattrs.insert(b"user.a".to_vec(), b"b".to_vec());
            }),
        ]);
        let Verified::Differs(found) = compare(&cached, &new) else {
            panic!("they are not the same")
        };
        let told: Vec<(&str, &[Aspect])> = found
            .first
            .iter()
            .map(|path| (path.path.as_str(), path.aspects.as_slice()))
            .collect();
        let expected: [(&str, &[Aspect]); 9] = [
            ("d/bytes", &[Aspect::Bytes]),
            ("d/gone", &[Aspect::Gone]),
            ("d/kind", &[Aspect::Kind, Aspect::Mode]),
            ("d/linked", &[Aspect::Link]),
            ("d/mode", &[Aspect::Mode, Aspect::Owner]),
            ("d/new", &[Aspect::New]),
            ("d/owner", &[Aspect::Owner]),
            ("d/symlink", &[Aspect::Link]),
            ("d/xattr", &[Aspect::Attributes]),
        ];
        assert_eq!(told, expected);
        assert_eq!((found.paths, found.times), (9, 2));
    }

    #[test]
    fn only_times_are_the_same_content() {
        let one = listing(vec![dir("d"), file("d/f", "x")]);
        let other = listing(vec![
            dir("d"),
            changed(file("d/f", "x"), |entry| entry.mtime.nanos = 5),
        ]);
        assert_eq!(compare(&one, &one), Verified::Same { times: 0 });
        let verified = compare(&one, &other);
        assert_eq!(verified, Verified::Same { times: 1 });
        assert_eq!(verified.to_string(), "the same result, only times differ (1)");
        assert!(!verified.is_bad());
    }

    #[test]
    fn what_is_not_named_is_counted() {
        let files = |text: &str| listing((0..12).map(|at| file(&format!("f{at:02}"), text)).collect());
        let text = compare(&files("a"), &files("b")).to_string();
        assert!(
            text.starts_with("another result: /f00 has other bytes; /f01 has other bytes;"),
            "{text}"
        );
        assert!(text.ends_with("; /f09 has other bytes; 2 more"), "{text}");
    }
}
