//! Headers that say what cannot be, or what other readers take otherwise.

use super::reader::TarReader;
use super::{EntryType, TarError};

/// A header, changed, and the blocks of its data.
fn entry(name: &str, kind: u8, data: &[u8], change: impl FnOnce(&mut tar::Header)) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[156] = kind;
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(data.len() as u64);
    change(&mut header);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn names(tar: &[u8]) -> Result<Vec<(String, EntryType)>, TarError> {
    let mut reader = TarReader::new(tar);
    let mut names = Vec::new();
    while let Some(entry) = reader.next()? {
        names.push((String::from_utf8_lossy(&entry.path).into_owned(), entry.kind));
    }
    Ok(names)
}

#[test]
fn data_of_a_directory_by_its_slash_is_skipped() {
    // Read as an entry, the data would be one that other readers do not see.
    let hidden = entry("hidden", b'0', b"", |_| {});
    let tar = [entry("d/", b'0', &hidden, |_| {}), entry("f", b'0', b"", |_| {})].concat();
    let expected = [
        ("d/".to_owned(), EntryType::Directory),
        ("f".to_owned(), EntryType::File),
    ];
    assert_eq!(names(&tar).unwrap(), expected);
}

#[test]
fn numbers_that_the_kernel_does_not_have() {
    let wrong = |tar: Vec<u8>| match names(&tar) {
        Err(TarError::Field { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let nobody = u64::from(u32::MAX);
    assert_eq!(
        wrong(entry("f", b'0', b"", |header| header.set_uid(nobody))),
        "uid"
    );
    assert_eq!(
        wrong(entry("f", b'0', b"", |header| header.set_gid(nobody))),
        "gid"
    );
    let pax = [
        entry("x", b'x', b"18 uid=4294967295\n", |_| {}),
        entry("f", b'0', b"", |_| {}),
    ];
    assert_eq!(wrong(pax.concat()), "uid");
    for (major, minor, fits) in [(0xfff, 0xf_ffff, true), (0x1000, 0, false), (0, 0x10_0000, false)] {
        let tar = entry("c", b'3', b"", |header| {
            header.set_device_major(major).unwrap();
            header.set_device_minor(minor).unwrap();
        });
        if fits {
            assert_eq!(names(&tar).unwrap().len(), 1);
        } else {
            assert_eq!(wrong(tar), "device number");
        }
    }
}
