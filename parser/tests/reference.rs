//! `docs/dockerfile.md` against the tables that the parser reads.
//!
//! Text between `<!-- table: NAME -->` and `<!-- end -->` is made here; `KILN_UPDATE_EXPECTED=1` writes it anew.

use std::fmt::Write as _;
use std::path::PathBuf;

use kiln_parser::instruction::{INSTRUCTIONS, InstructionInfo};
use kiln_parser::mount::{MountKey, MountType};
use kiln_parser::rules::{RULES, Rule};

const TYPES: [MountType; 5] = [
    MountType::Bind,
    MountType::Cache,
    MountType::Tmpfs,
    MountType::Secret,
    MountType::Ssh,
];

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/dockerfile.md")
}

#[test]
fn tables_are_those_of_the_parser() {
    let text = std::fs::read_to_string(path()).unwrap();
    let mut made = text.clone();
    for (name, table) in [
        ("instructions", instructions()),
        ("mounts", mounts()),
        ("checks", checks()),
    ] {
        made = with_table(&made, name, &table);
    }
    if std::env::var_os("KILN_UPDATE_EXPECTED").is_some() {
        std::fs::write(path(), &made).unwrap();
    } else {
        assert_eq!(text, made, "KILN_UPDATE_EXPECTED=1 writes the tables anew");
    }
}

#[test]
fn every_instruction_and_flag_is_described() {
    let text = std::fs::read_to_string(path()).unwrap();
    for info in INSTRUCTIONS {
        let heading = format!("\n## {}\n", info.name);
        let (_, section) = text
            .split_once(&heading)
            .unwrap_or_else(|| panic!("no section {}", info.name));
        let section = section.split("\n## ").next().unwrap_or_default();
        for flag in info.flags {
            let word = format!("--{}", flag.name);
            let described = section
                .split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '-'))
                .any(|found| found == word);
            assert!(described, "{}: {word} is not described", info.name);
        }
    }
}

/// `text` with the named table replaced.
fn with_table(text: &str, name: &str, table: &str) -> String {
    let begin = format!("<!-- table: {name} -->\n");
    let (before, rest) = text
        .split_once(&begin)
        .unwrap_or_else(|| panic!("no place for the table {name}"));
    let (_, after) = rest
        .split_once("<!-- end -->")
        .unwrap_or_else(|| panic!("the table {name} has no end"));
    format!("{before}{begin}{table}<!-- end -->{after}")
}

fn instructions() -> String {
    let mut table = "| Instruction | Here-documents | JSON | In ONBUILD |\n|---|---|---|---|\n".to_owned();
    let mut sorted: Vec<&InstructionInfo> = INSTRUCTIONS.iter().collect();
    sorted.sort_by_key(|info| info.name);
    for info in sorted {
        let usage = info.usage.replace('|', "\\|");
        let [heredoc, json, onbuild] = [info.heredoc, info.json, info.onbuild].map(mark);
        let _ = writeln!(table, "| `{usage}` | {heredoc} | {json} | {onbuild} |");
    }
    table
}

fn mounts() -> String {
    let mut table = "| Option | Also |".to_owned();
    let mut line = "|---|---|".to_owned();
    for kind in TYPES {
        let _ = write!(table, " `{}` |", kind.name());
        line.push_str("---|");
    }
    let _ = write!(table, "\n{line}\n");
    let mut keys: Vec<MountKey> = Vec::new();
    for key in MountKey::names().filter_map(MountKey::parse) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    for key in keys {
        let aliases: Vec<String> = MountKey::names()
            .filter(|name| *name != key.name() && MountKey::parse(name) == Some(key))
            .map(|name| format!("`{name}`"))
            .collect();
        let _ = write!(table, "| `{}` | {} |", key.name(), aliases.join(", "));
        for kind in TYPES {
            let _ = write!(table, " {} |", mark(kind.keys().contains(&key)));
        }
        table.push('\n');
    }
    table
}

fn checks() -> String {
    let mut table = "| Check | What it finds | Experimental |\n|---|---|---|\n".to_owned();
    let mut sorted: Vec<&Rule> = RULES.iter().collect();
    sorted.sort_by_key(|rule| rule.name);
    for rule in sorted {
        let name = match rule.url() {
            Some(url) => format!("[{}]({url})", rule.name),
            None => rule.name.to_owned(),
        };
        let description = rule.description.replace('|', "\\|");
        let experimental = mark(rule.experimental);
        let _ = writeln!(table, "| {name} | {description} | {experimental} |");
    }
    table
}

fn mark(holds: bool) -> &'static str {
    if holds { "yes" } else { "" }
}
