//! Which part of a local directory some copy source can reach.
//!
//! Sources are patterns; a symlink on the way to what one names, or the named thing itself, draws in what it points
//! at. Symlinks further below a copied directory are copied as they are and draw in nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kiln_tree::TreePath;
use kiln_tree::walk::{Decision, Survey, WalkPolicy};

use crate::glob;

/// As many symlinks as Linux follows in one path.
const MAX_SYMLINKS: u32 = 40;

/// Where a path lies as seen from the wanted patterns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// A pattern selects it or something above it.
    Within,
    /// A pattern may select something below it.
    Above,
    /// Neither.
    Outside,
}

/// The patterns of everything that is wanted.
#[derive(Debug)]
pub(crate) struct Wanted {
    patterns: BTreeSet<TreePath>,
}

impl Wanted {
    /// What `sources` name; as far as it is known before any symlink was seen.
    pub(crate) fn new(sources: &[TreePath]) -> Self {
        Self {
            patterns: sources.iter().cloned().collect(),
        }
    }

    /// Adds what symlinks that were seen lead to; says whether there was anything new.
    pub(crate) fn follow(&mut self, survey: &Survey) -> bool {
        let seen = Seen::new(survey);
        let mut found = BTreeSet::new();
        for pattern in &self.patterns {
            seen.targets(pattern, &mut found);
        }
        let before = self.patterns.len();
        self.patterns.append(&mut found);
        self.patterns.len() > before
    }

    /// Whether what is at `path` is to be read and listed: all that is selected, and the symlinks on the way.
    pub(crate) fn selects(&self, path: &TreePath, symlinks: &BTreeSet<TreePath>) -> bool {
        match self.reach(path) {
            Reach::Within => true,
            Reach::Above => symlinks.contains(path),
            Reach::Outside => false,
        }
    }

    /// Where `path` lies.
    fn reach(&self, path: &TreePath) -> Reach {
        let mut reach = Reach::Outside;
        for pattern in &self.patterns {
            match reach_of(pattern, path) {
                Reach::Within => return Reach::Within,
                Reach::Above => reach = Reach::Above,
                Reach::Outside => {}
            }
        }
        reach
    }
}

fn reach_of(pattern: &TreePath, path: &TreePath) -> Reach {
    let mut wanted = pattern.components();
    for name in path.components() {
        let Some(component) = wanted.next() else {
            return Reach::Within;
        };
        // A malformed pattern selects nothing here; selecting reports it with its place.
        if !glob::matches(component, name).unwrap_or(false) {
            return Reach::Outside;
        }
    }
    if wanted.next().is_some() {
        Reach::Above
    } else {
        Reach::Within
    }
}

/// A context's own policy, cut down to what is wanted.
pub(crate) struct Narrowed<'a> {
    pub(crate) policy: &'a dyn WalkPolicy,
    pub(crate) wanted: &'a Wanted,
}

impl WalkPolicy for Narrowed<'_> {
    fn decide(&self, path: &TreePath, is_dir: bool) -> Decision {
        let reach = self.wanted.reach(path);
        if reach == Reach::Outside {
            return Decision::Prune;
        }
        match (reach, self.policy.decide(path, is_dir)) {
            (_, Decision::Prune) => Decision::Prune,
            // A symlink on the way is needed to find out where it leads.
            (Reach::Above, Decision::Include) if !is_dir => Decision::Include,
            (Reach::Above, _) => Decision::ExcludeButDescend,
            (_, decision) => decision,
        }
    }
}

/// What a survey saw, for lookups.
struct Seen<'a> {
    links: BTreeMap<&'a TreePath, &'a [u8]>,
    paths: Vec<(&'a TreePath, bool)>,
}

/// One component that is still to be walked.
#[derive(Clone)]
enum Component {
    Pattern(Vec<u8>),
    Name(Vec<u8>),
}

/// A walk along a pattern.
struct Way {
    at: TreePath,
    rest: VecDeque<Component>,
    symlinks: u32,
}

impl<'a> Seen<'a> {
    fn new(survey: &'a Survey) -> Self {
        Self {
            links: survey.symlinks().collect(),
            paths: survey.paths().collect(),
        }
    }

    /// Adds to `found` where `pattern` leads through symlinks.
    fn targets(&self, pattern: &TreePath, found: &mut BTreeSet<TreePath>) {
        if self.links.is_empty() {
            return;
        }
        let component = |name: &[u8]| {
            if glob::is_pattern(name) {
                Component::Pattern(name.to_vec())
            } else {
                Component::Name(name.to_vec())
            }
        };
        let rest = pattern.components().map(component).collect();
        let mut ways = vec![Way {
            at: TreePath::root(),
            rest,
            symlinks: 0,
        }];
        while let Some(mut way) = ways.pop() {
            if way.symlinks > 0 {
                found.extend(way.pattern());
            }
            match way.rest.pop_front() {
                None => {}
                Some(Component::Name(name)) if name == b".." => {
                    way.at = way.at.parent().unwrap_or_default();
                    ways.push(way);
                }
                Some(Component::Name(name)) => {
                    if let Ok(next) = way.at.join_name(&name) {
                        ways.extend(self.step(way, next));
                    }
                }
                Some(Component::Pattern(pattern)) => {
                    for (path, _) in self.matching(&way.at, &pattern, way.rest.is_empty()) {
                        let way = Way {
                            at: way.at.clone(),
                            rest: way.rest.clone(),
                            symlinks: way.symlinks,
                        };
                        ways.extend(self.step(way, (*path).clone()));
                    }
                }
            }
        }
    }

    /// Goes on at `next`, or where it leads if it is a symlink; nowhere when that would be a loop.
    fn step(&self, mut way: Way, next: TreePath) -> Option<Way> {
        let Some(target) = self.links.get(&next) else {
            way.at = next;
            return Some(way);
        };
        way.symlinks += 1;
        if target.first() == Some(&b'/') {
            way.at = TreePath::root();
        }
        let names = target
            .split(|&byte| byte == b'/')
            .filter(|name| !matches!(*name, b"" | b"."));
        for name in names.rev() {
            way.rest.push_front(Component::Name(name.to_vec()));
        }
        (way.symlinks <= MAX_SYMLINKS).then_some(way)
    }

    /// The directories in `directory` that match; where nothing comes after them, the symlinks: wildcards do not lead
    /// through symlinks.
    fn matching(
        &self,
        directory: &'a TreePath,
        pattern: &'a [u8],
        last: bool,
    ) -> impl Iterator<Item = &(&'a TreePath, bool)> {
        self.paths.iter().filter(move |(path, is_dir)| {
            (if last {
                self.links.contains_key(path)
            } else {
                *is_dir
            }) && path.parent().as_ref() == Some(directory)
                && glob::matches(pattern, path.file_name().unwrap_or_default()).unwrap_or(false)
        })
    }
}

impl Way {
    /// What is left to look at, as a pattern: up to the first `..`, which cannot be told before what it climbs out
    /// of was seen.
    fn pattern(&self) -> Option<TreePath> {
        if matches!(self.rest.front(), Some(Component::Name(name)) if name == b"..") {
            return None;
        }
        let mut bytes = escape(self.at.as_bytes());
        for component in &self.rest {
            bytes.push(b'/');
            match component {
                Component::Name(name) if name == b".." => break,
                Component::Name(name) => bytes.extend(escape(name)),
                Component::Pattern(pattern) => bytes.extend_from_slice(pattern),
            }
        }
        TreePath::clean(bytes).ok()
    }
}

/// The pattern that matches exactly `path`.
pub(crate) fn literal(path: &TreePath) -> Option<TreePath> {
    TreePath::clean(escape(path.as_bytes())).ok()
}

/// The pattern that matches exactly `name`.
fn escape(name: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(name.len());
    for byte in name {
        if glob::is_pattern(std::slice::from_ref(byte)) {
            escaped.push(b'\\');
        }
        escaped.push(*byte);
    }
    escaped
}
