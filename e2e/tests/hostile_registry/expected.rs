//! The texts that users read: `testdata/hostile-registry.txt`, a section a case.

use crate::case::World;
use kiln_e2e::{Result, bail, machine};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

static FILE: Mutex<()> = Mutex::new(());

fn path() -> PathBuf {
    machine::testdata().join("hostile-registry.txt")
}

/// Compares what a case told with its section, or writes the section.
pub(crate) fn compare(name: &str, told: &str) -> Result<()> {
    let _turn = FILE.lock();
    let mut sections = read()?;
    if sections.get(name).map(String::as_str) == Some(told) {
        return Ok(());
    }
    if std::env::var_os("KILN_E2E_BLESS").is_none() {
        let wanted = sections.get(name).map_or("(no section)", String::as_str);
        bail!("the text differs from testdata/hostile-registry.txt\n--- wanted\n{wanted}\n--- told\n{told}");
    }
    sections.insert(name.to_owned(), told.to_owned());
    let text: Vec<String> = sections
        .iter()
        .map(|(name, told)| format!("== {name}\n{told}"))
        .collect();
    Ok(std::fs::write(path(), text.join("\n"))?)
}

fn read() -> Result<BTreeMap<String, String>> {
    let text = match std::fs::read_to_string(path()) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error.into()),
    };
    let sections = format!("\n{text}\n");
    let sections = sections.split("\n== ").skip(1);
    Ok(sections
        .filter_map(|section| section.split_once('\n'))
        .map(|(name, told)| (name.to_owned(), format!("{}\n", told.trim_end())))
        .collect())
}

/// The errors, warnings and hints of some output, without what differs from run to run: addresses, paths, and digests,
/// which are numbered.
pub(crate) fn told(output: &str, world: &World) -> String {
    let mut lines = Vec::new();
    let mut in_error = false;
    for line in output.lines() {
        in_error |= line.starts_with("ERROR:");
        let warning = line.contains("WARN");
        if in_error || warning {
            lines.push(line);
        }
    }
    let mut text = lines.join("\n") + "\n";
    for (there, name) in [
        (world.out.display().to_string(), "/OUT"),
        (world.host.clone(), "REGISTRY"),
        (world.other.clone(), "OTHER"),
    ] {
        text = text.replace(&there, name);
    }
    numbered(&numbered(&text, "sha256:"), "b3-")
}

/// Digests with this prefix by the order in which they come.
fn numbered(text: &str, prefix: &str) -> String {
    let mut known: Vec<&str> = Vec::new();
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(prefix) {
        let (before, from) = rest.split_at(at + prefix.len());
        let end = from.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(from.len());
        let (hex, after) = from.split_at(end);
        out += before;
        rest = after;
        if hex.len() != 64 {
            out += hex;
            continue;
        }
        let number = known.iter().position(|other| *other == hex).unwrap_or_else(|| {
            known.push(hex);
            known.len() - 1
        });
        let number = (number + 1).to_string();
        out.extend(["<", &number, ">"]);
    }
    out + rest
}
