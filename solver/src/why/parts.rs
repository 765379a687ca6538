//! Compares the readable parts of two keys of the same kind.

use std::collections::BTreeMap;

use kiln_cache::{KeyPart, Store};

use super::files::FileList;
use super::{Difference, FileChanges};

/// What the difference of the root is called until its step is found.
const ROOT: &str = "base";

/// Whether this says no more than that the root differs.
pub(super) fn is_unnamed_root(difference: &Difference) -> bool {
    matches!(difference, Difference::Setting { name, .. } if name == ROOT)
}

/// The parts of each name, in order.
type ByName<'a> = BTreeMap<&'a str, Vec<&'a KeyPart>>;

fn by_name(parts: &[KeyPart]) -> ByName<'_> {
    let mut names = ByName::new();
    for part in parts {
        // Arguments are one command.
        let name = if part.name.starts_with("argument ") {
            "command"
        } else {
            part.name.as_str()
        };
        names.entry(name).or_default().push(part);
    }
    names
}

/// The differences from `before` to `after`, the most telling first. `of` names what files are taken from.
pub(super) fn compare(
    store: &Store,
    before: &[KeyPart],
    after: &[KeyPart],
    of: Option<&str>,
) -> Vec<Difference> {
    let (old, new) = (by_name(before), by_name(after));
    let mut names: Vec<&str> = new.keys().chain(old.keys()).copied().collect();
    names.sort_unstable();
    names.dedup();
    let mut differences = Vec::new();
    for name in names {
        let none = Vec::new();
        let (old, new) = (old.get(name).unwrap_or(&none), new.get(name).unwrap_or(&none));
        let values = |parts: &[&KeyPart]| parts.iter().map(|part| part.value.clone()).collect::<Vec<_>>();
        let (old_values, new_values) = (values(old), values(new));
        if old_values != new_values {
            differences.push(difference(
                store,
                name,
                (old, &old_values),
                (new, &new_values),
                of,
            ));
        }
    }
    // A copy that is taken from elsewhere, and a mount that is another one, differ in more than one part.
    differences.sort_by_key(rank);
    differences.dedup();
    differences
}

fn joined(values: &[String]) -> Option<String> {
    (!values.is_empty()).then(|| values.join(", "))
}

fn difference(
    store: &Store,
    name: &str,
    (old, old_values): (&[&KeyPart], &[String]),
    (new, new_values): (&[&KeyPart], &[String]),
    of: Option<&str>,
) -> Difference {
    let (before, after) = (joined(old_values), joined(new_values));
    let of = of.map(str::to_owned);
    if name == "command" {
        return Difference::Command {
            before: old_values.join(" "),
            after: new_values.join(" "),
        };
    }
    if matches!(name, "base" | "base content") {
        return Difference::Setting {
            name: ROOT.to_owned(),
            before: None,
            after: None,
        };
    }
    if matches!(name, "copy files" | "copy from") {
        let changes = changes(store, old, new);
        return Difference::Files {
            of,
            mount: None,
            changes,
        };
    }
    if let Some(name) = name.strip_prefix("env ") {
        return Difference::Variable {
            name: name.to_owned(),
            before,
            after,
            declared: None,
            mentioned: None,
        };
    }
    if let Some(mount) = name.strip_prefix("mount ") {
        let (target, property) = mount.split_once(' ').unwrap_or((mount, "kind"));
        let target = target.to_owned();
        if matches!(property, "files" | "from") && !old.is_empty() && !new.is_empty() {
            return Difference::Files {
                of,
                mount: Some(target),
                changes: changes(store, old, new),
            };
        }
        // Hashes say nothing to a reader.
        let shown = |value: Option<String>| value.filter(|_| !matches!(property, "files" | "from"));
        return Difference::Mount {
            target,
            property: property.to_owned(),
            before: shown(before),
            after: shown(after),
        };
    }
    let instruction = ["copy ", "make ", "file "]
        .iter()
        .any(|start| name.starts_with(start));
    if instruction {
        let hashed = name.starts_with("file ") || name == "make file content";
        let shown = |value: Option<String>| value.filter(|_| !hashed);
        return Difference::Instruction {
            name: if hashed {
                "heredoc".to_owned()
            } else {
                name.to_owned()
            },
            before: shown(before),
            after: shown(after),
        };
    }
    Difference::Setting {
        name: name.to_owned(),
        before,
        after,
    }
}

/// Which files differ; `None` when that is not kept.
fn changes(store: &Store, old: &[&KeyPart], new: &[&KeyPart]) -> Option<FileChanges> {
    let mut all = FileChanges::default();
    if old.len() != new.len() {
        return None;
    }
    for (old, new) in old.iter().zip(new).filter(|(old, new)| old.value != new.value) {
        let list = |part: &KeyPart| -> Option<FileList> {
            // A blob that cannot be read is as good as none.
            FileList::decode(&store.blobs().read(part.listing.as_ref()?).ok()??)
        };
        let changes = list(new)?.changes_since(list(old)?);
        all.add(changes);
    }
    Some(all)
}

/// The most telling first; what only follows from something else last.
fn rank(difference: &Difference) -> u8 {
    match difference {
        Difference::Command { .. } => 0,
        Difference::Instruction { .. } => 1,
        Difference::Files { .. } => 2,
        Difference::Variable { .. } => 3,
        Difference::Mount { .. } => 4,
        Difference::Setting { .. } if is_unnamed_root(difference) => 8,
        Difference::Setting { .. } => 5,
        Difference::Base { .. } => 6,
        Difference::Order { .. } | Difference::Step { .. } => 7,
    }
}
