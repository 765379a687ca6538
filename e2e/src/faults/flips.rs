//! Changes bytes in the files of a store, as a failing disk does.

use super::site::Site;
use crate::random::Random;
use crate::{Result, ensure};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// One changed byte.
#[derive(Debug)]
pub struct Flip {
    /// The file, from the store's folder on.
    pub file: String,
    /// What kind of file it is.
    pub part: &'static str,
    /// Which byte.
    pub at: u64,
    /// Its bits that were changed.
    pub bits: u8,
}

/// The parts of a store that are changed, by the beginnings and ends of names; whether `cache verify` must name what
/// was changed there. Logs, the index and `synced/epoch` need not be: they are read with care. Not in it are cache mounts
/// and git repositories, whose bytes belong to the steps and to git, and `version`.
const PARTS: &[(&str, &str, bool)] = &[
    ("layers/", "/meta.json", true),
    ("layers/", "/listing", true),
    ("layers/", "/diffid", true),
    ("layers/", "/usage", true),
    ("layers/", "", true),
    ("blobs/sha256/", "", true),
    ("blobs/stamps/", "", true),
    ("records/", "", true),
    ("images/ids/", "", true),
    ("images/names/", "", true),
    ("builds/", ".json", true),
    ("builds/", "", false),
    ("hashes/", "", true),
    ("variants/", "", true),
    ("remotes/", "", true),
    ("index/", "", false),
    ("synced/boots/", "", true),
    ("synced/", "", false),
];

fn part_of(name: &str) -> Option<usize> {
    PARTS
        .iter()
        .position(|(start, end, _)| name.starts_with(start) && name.ends_with(end))
}

/// Changes `count` bytes: each part of the store gets some, be it large or small.
pub fn flip(site: &Site, count: usize, random: &mut Random) -> Result<Vec<Flip>> {
    let root = &site.kiln.root;
    let mut parts: BTreeMap<usize, Vec<PathBuf>> = BTreeMap::new();
    collect(root, root, &mut parts)?;
    let all: Vec<(usize, Vec<PathBuf>)> = parts.into_iter().collect();
    ensure!(all.len() > 8, "the store has only {} kinds of files", all.len());
    let mut flips: Vec<Flip> = Vec::new();
    for attempt in 0.. {
        if flips.len() == count {
            break;
        }
        ensure!(
            attempt < count * 20,
            "hardly any file of the store can be changed"
        );
        // Each part has its turn; half of all go to what matters most.
        let (part, files) = match attempt % 2 {
            0 => &all[(attempt / 2) % all.len()],
            _ => &all[random.index(all.len())],
        };
        let path = &files[random.index(files.len())];
        let file = path.strip_prefix(root)?.display().to_string();
        let bits = u8::try_from(1 + random.below(255))?;
        // An ordinary user cannot write to all.
        if let Some(at) = change(path, bits, random)
            && !flips.iter().any(|flip| flip.file == file && flip.at == at)
        {
            flips.push(Flip {
                file,
                part: PARTS[*part].0,
                at,
                bits,
            });
        }
    }
    Ok(flips)
}

/// The files that can be changed, by part.
fn collect(root: &Path, folder: &Path, parts: &mut BTreeMap<usize, Vec<PathBuf>>) -> Result<()> {
    // An ordinary user cannot look into all.
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(root, &path, parts)?;
        } else if entry.file_type()?.is_file() && entry.metadata()?.len() > 0 {
            let name = path.strip_prefix(root)?.display().to_string();
            if let Some(part) = part_of(&name) {
                parts.entry(part).or_default().push(path);
            }
        }
    }
    Ok(())
}

fn change(path: &Path, bits: u8, random: &mut Random) -> Option<u64> {
    let file = File::options().read(true).write(true).open(path).ok()?;
    let metadata = file.metadata().ok()?;
    let at = random.below(metadata.size());
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).ok()?;
    file.write_all_at(&[byte[0] ^ bits], at).ok()?;
    // As a failing disk does it: nothing tells of it.
    let _ = file.set_modified(metadata.modified().ok()?);
    Some(at)
}

/// The flips that a report of `cache verify` must name and does not: by the layer, digest, key or name of the file.
pub fn not_found<'a>(flips: &'a [Flip], report: &str) -> Vec<&'a Flip> {
    let named = |flip: &&Flip| {
        let mut parts = flip.file.split('/').skip(1);
        let first = parts.next().unwrap_or_default();
        let word = match flip.part {
            "blobs/sha256/" | "records/" | "images/ids/" => parts.next().unwrap_or_default(),
            "layers/" => first,
            _ => &flip.file,
        };
        report.contains(word)
    };
    let must = |flip: &&Flip| part_of(&flip.file).is_some_and(|part| PARTS[part].2);
    flips.iter().filter(must).filter(|flip| !named(flip)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_be_found_is_looked_for_by_name() {
        let flip = |file: &str| Flip {
            file: file.to_owned(),
            part: PARTS[part_of(file).unwrap()].0,
            at: 0,
            bits: 1,
        };
        let flips = [
            flip("layers/b3-1/diff/a"),
            flip("records/ab/abcd"),
            flip("blobs/sha256/77"),
            flip("builds/1.log/0"),
        ];
        let report = "damaged: layer b3-1: /a: has other bytes\ndamaged: blob sha256:77: x";
        let missing: Vec<&str> = not_found(&flips, report)
            .iter()
            .map(|flip| flip.file.as_str())
            .collect();
        assert_eq!(missing, ["records/ab/abcd"]);
        assert!(part_of("mounts/a/0/data/x").is_none() && part_of("version").is_none());
    }
}
