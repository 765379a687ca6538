//! What a build came to as comparable facts, and the list of differences between builders that are intended.
//!
//! The list is `testdata/peer-differences.toml`; every entry has a reason.

use crate::case::Case;
use crate::{Result, ensure, machine, oci};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What is compared of two builds.
#[derive(Debug)]
pub struct Facts {
    /// The lines of [`crate::tree::Tree::changes_since`].
    pub tree: Vec<String>,
    /// The config in the form of [`oci::build_config`].
    pub config: Value,
}

/// One entry of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    /// `docker`, `buildah`.
    peer: String,
    /// The case; `*` stands for any text.
    case: String,
    /// A path of the tree; `*` stands for any text.
    path: Option<String>,
    /// A field of the config: `author`, `config.Env`.
    field: Option<String>,
    /// Why it is meant to be so.
    reason: String,
}

/// The list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Differences {
    difference: Vec<Difference>,
}

impl Differences {
    /// Reads the list.
    pub fn load() -> Result<Self> {
        let file = machine::testdata().join("peer-differences.toml");
        let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let list: Self = toml::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
        let empty = list
            .difference
            .iter()
            .find(|entry| entry.reason.is_empty() || entry.path.is_some() == entry.field.is_some());
        match empty {
            Some(entry) => Err(format!("{entry:?} needs a reason, and either a path or a field").into()),
            None => Ok(list),
        }
    }

    /// Fails when something differs between ours and the peer's that the list does not explain.
    pub fn check(&self, peer: &str, case: &Case, ours: &Facts, theirs: &Facts) -> Result<()> {
        let problems = self.unexplained(peer, &case.name, ours, theirs);
        ensure!(
            problems.is_empty(),
            "{}\n(- kiln, + {peer})\n{}",
            case.settings.about,
            problems.join("\n")
        );
        Ok(())
    }

    /// What differs between ours and the peer's, without what the list explains: lines to show.
    pub(crate) fn unexplained(&self, peer: &str, case: &str, ours: &Facts, theirs: &Facts) -> Vec<String> {
        let entries: Vec<&Difference> = self
            .difference
            .iter()
            .filter(|entry| entry.peer == peer && matches(&entry.case, case))
            .collect();
        let mut found = Vec::new();
        let sets = [&ours.tree, &theirs.tree].map(|lines| lines.iter().collect::<BTreeSet<_>>());
        for (sign, mine, other) in [('-', &sets[0], &sets[1]), ('+', &sets[1], &sets[0])] {
            for line in mine.difference(other) {
                let path = line
                    .strip_prefix("deleted ")
                    .unwrap_or(line)
                    .split(' ')
                    .next()
                    .unwrap_or_default();
                let explains =
                    |entry: &&Difference| entry.path.as_ref().is_some_and(|pattern| matches(pattern, path));
                if !entries.iter().any(explains) {
                    found.push(format!("  {sign} {line}"));
                }
            }
        }
        let (ours, theirs) = (fields(&ours.config), fields(&theirs.config));
        for name in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
            let explained = entries.iter().any(|entry| entry.field.as_ref() == Some(name));
            if ours.get(name) != theirs.get(name) && !explained {
                let show = |fields: &BTreeMap<String, Value>| {
                    fields.get(name).map_or("nothing".into(), Value::to_string)
                };
                found.push(format!("  {name}: {} here, {} there", show(&ours), show(&theirs)));
            }
        }
        found
    }
}

/// `author`, `config.Env`, …
fn fields(config: &Value) -> BTreeMap<String, Value> {
    let mut fields = BTreeMap::new();
    for (name, value) in config.as_object().into_iter().flatten() {
        match value {
            Value::Object(inner) if name == "config" => {
                fields.extend(
                    inner
                        .iter()
                        .map(|(inner, value)| (format!("config.{inner}"), value.clone())),
                );
            }
            _ => {
                fields.insert(name.clone(), value.clone());
            }
        }
    }
    fields
}

/// Whether a text matches a pattern in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            (0..=text.len()).any(|at| text.is_char_boundary(at) && matches(rest, &text[at..]))
        }),
    }
}

impl Facts {
    /// The facts of an image.
    pub fn of(built: &crate::case::Built, with_times: bool) -> Self {
        let tree = built.image.tree.changes_since(&built.base, with_times);
        Self {
            tree,
            config: oci::build_config(&built.image.config),
        }
    }

    /// Leaves of the lines about such paths (patterns, with the reason) no more than that they exist.
    pub fn blur(&mut self, volatile: &BTreeMap<String, String>) {
        for line in &mut self.tree {
            let path = line.split(' ').next().unwrap_or_default();
            if volatile.keys().any(|pattern| matches(pattern, path)) {
                *line = format!("{path} volatile");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn list(text: &str) -> Differences {
        toml::from_str(text).unwrap()
    }

    fn facts(tree: &[&str], config: Value) -> Facts {
        Facts {
            tree: tree.iter().map(|line| (*line).to_owned()).collect(),
            config,
        }
    }

    #[test]
    fn patterns() {
        assert!(
            matches("a*c", "abc") && matches("*", "") && matches("/d/*", "/d/x/y") && matches("é*", "éa")
        );
        assert!(!matches("a*c", "abd") && !matches("a", "ab"));
    }

    #[test]
    fn volatile_paths_are_compared_by_name_alone() {
        let mut one = facts(&["/log/a file 1", "/b file 1", "deleted /log/c"], json!({}));
        one.blur(&BTreeMap::from([("/log/*".to_owned(), "the time".to_owned())]));
        assert_eq!(one.tree, ["/log/a volatile", "/b file 1", "deleted /log/c"]);
    }

    #[test]
    fn only_listed_differences_are_explained() {
        let list = list(
            "difference = [{ peer = 'p', case = 'c*', path = '/known*', reason = 'r' },
                { peer = 'p', case = '*', field = 'config.Hostname', reason = 'r' }]",
        );
        let ours = facts(
            &["/a file", "/b file"],
            json!({"os": "linux", "config": {"User": "1"}}),
        );
        let theirs = facts(
            &["/a file", "/known/x dir", "deleted /known"],
            json!({"os": "linux", "config": {"User": "2", "Hostname": "h"}}),
        );
        let expected = ["  - /b file", "  config.User: \"1\" here, \"2\" there"];
        assert_eq!(list.unexplained("p", "case", &ours, &theirs), expected);
        assert_eq!(list.unexplained("q", "case", &ours, &theirs).len(), 5);
    }
}
