//! Tests of unpacking and packing.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use kiln_tree::{ContentHash, Entry, EntryKind, Listing, Root, Timestamp, TreePath};
use proptest::prelude::*;

use super::*;
use crate::tarball::{Member, MemberType, TarError, TarWriter};
use crate::testing::TempDir;

/// Whiteouts, owners and devices need it.
fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIPPED: needs root");
    }
    root
}

fn path(text: &str) -> TreePath {
    text.try_into().unwrap()
}

/// A tar of members, each with its data.
fn tar(members: &[(&str, MemberType<'_>, &[u8])]) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new());
    for (name, kind, data) in members {
        let kind = match kind {
            MemberType::File { .. } => MemberType::File {
                size: data.len() as u64,
            },
            other => *other,
        };
        let member = Member {
            name: name.as_bytes(),
            kind,
            mode: 0o750,
            uid: 1,
            gid: 2,
            mtime: 1_000_000,
            xattrs: None,
        };
        writer.member(&member).unwrap();
        writer.data(data).unwrap();
    }
    writer.finish().unwrap().0
}

const DIR: MemberType<'static> = MemberType::Directory;
const FILE: MemberType<'static> = MemberType::File { size: 0 };

fn link(target: &str) -> MemberType<'_> {
    MemberType::Symlink {
        target: target.as_bytes(),
    }
}

fn hard(target: &str) -> MemberType<'_> {
    MemberType::HardLink {
        target: target.as_bytes(),
    }
}

fn unpack_into(dir: &TempDir, tar: &[u8]) -> Result<Unpacked, LayerError> {
    unpack(tar, &Root::open(dir.path()).unwrap(), &UnpackOptions::default())
}

fn unpacked(members: &[(&str, MemberType<'_>, &[u8])]) -> Result<(TempDir, Unpacked), LayerError> {
    let dir = TempDir::new();
    let unpacked = unpack_into(&dir, &tar(members))?;
    Ok((dir, unpacked))
}

/// One line an entry.
fn lines(listing: &Listing) -> Vec<String> {
    let line = |entry: &Entry| match &entry.kind {
        EntryKind::Directory { opaque: true } => format!("{}/ opaque", entry.path),
        EntryKind::Directory { .. } => format!("{}/", entry.path),
        EntryKind::File { size, .. } => format!("{} {size}", entry.path),
        EntryKind::HardLink { target } => format!("{} = {target}", entry.path),
        EntryKind::Symlink { target } => format!("{} -> {}", entry.path, String::from_utf8_lossy(target)),
        EntryKind::Whiteout => format!("{} whiteout", entry.path),
        other => format!("{} {other:?}", entry.path),
    };
    listing.entries().iter().map(line).collect()
}

/// What a walk of the directory says, as far as it must agree with the listing.
fn assert_walk_agrees(dir: &TempDir, listing: &Listing) {
    let root = std::fs::File::open(dir.path()).unwrap();
    let walked = kiln_tree::walk::layer(root.as_fd()).unwrap();
    assert_eq!(walked.entries(), listing.entries());
}

#[test]
fn every_kind_is_unpacked_as_listed() {
    if !is_root() {
        return;
    }
    let (dir, unpacked) = unpacked(&[
        ("./", DIR, b""),
        ("d/", DIR, b""),
        ("d/f", FILE, b"hello"),
        ("/abs", FILE, b"x"),
        ("../up/../../esc", FILE, b"y"),
        ("d/l", link("/etc/passwd"), b""),
        ("a", hard("d/f"), b""),
        ("null", MemberType::CharDevice { major: 1, minor: 3 }, b""),
        ("loop", MemberType::BlockDevice { major: 7, minor: 0 }, b""),
        ("pipe", MemberType::Fifo, b""),
        ("gone/.wh.x", FILE, b""),
        ("d/.wh..wh..opq", FILE, b""),
        (".wh..wh.plnk/1.2", FILE, b""),
    ])
    .unwrap();
    let expected = [
        "a 5",
        "abs 1",
        "d/ opaque",
        "d/f = a",
        "d/l -> /etc/passwd",
        "esc 1",
        "gone/",
        "gone/x whiteout",
        "loop BlockDevice { major: 7, minor: 0 }",
        "null CharDevice { major: 1, minor: 3 }",
        "pipe Fifo",
    ];
    assert_eq!(lines(&unpacked.listing), expected);
    assert_eq!(unpacked.refused, Refused::default());
    assert_eq!(unpacked.implicit_directories, [path("gone")]);
    assert_walk_agrees(&dir, &unpacked.listing);
    let root = std::fs::metadata(dir.path()).unwrap();
    assert_eq!(
        (root.mode() & 0o7777, root.uid(), root.mtime()),
        (0o750, 1, 1_000_000)
    );
}

#[test]
fn the_digest_covers_what_follows_the_archive() {
    let mut bytes = tar(&[("f", FILE, b"hello")]);
    for padding in [0, 512, 10_240, 700_000] {
        bytes.resize(bytes.len() + padding, 0);
        let dir = TempDir::new();
        let unpacked = unpack_into(&dir, &bytes).unwrap();
        assert_eq!(unpacked.diff_id, Digest::sha256_of(&bytes));
        assert_eq!(unpacked.size, bytes.len() as u64);
    }
}

#[test]
fn later_entries_win() {
    if !is_root() {
        return;
    }
    let (dir, unpacked) = unpacked(&[
        ("f", FILE, b"first"),
        ("g", hard("f"), b""),
        ("f", FILE, b"second one"),
        ("d/", DIR, b""),
        ("d/x/y", FILE, b"1"),
        ("d/.wh.z", FILE, b""),
        ("d", link("f"), b""),
        ("e", FILE, b"1"),
        ("e/", DIR, b""),
        ("e/i", FILE, b"1"),
        ("k/n", FILE, b"1"),
        ("k/", DIR, b""),
        (".wh.k", FILE, b""),
        (".wh.f", FILE, b""),
    ])
    .unwrap();
    let expected = ["d -> f", "e/", "e/i 1", "f 10", "g 5", "k/ opaque", "k/n 1"];
    assert_eq!(lines(&unpacked.listing), expected);
    assert_eq!(std::fs::read(dir.path().join("g")).unwrap(), b"first");
    assert_walk_agrees(&dir, &unpacked.listing);
}

/// Each of these entries once cost as much as the depth of its directory squared.
#[test]
fn deep_directories_are_cheap() {
    if !is_root() {
        return;
    }
    let top = "d/".repeat(800);
    let names: Vec<String> = (0..400).map(|number| format!("{top}{number}/f")).collect();
    let members: Vec<Plain<'_>> = names.iter().map(|name| (&name[..], FILE, &b"1"[..])).collect();
    let (dir, unpacked) = unpacked(&members).unwrap();
    assert_eq!(unpacked.listing.entries().len(), 800 + 2 * names.len());
    assert_walk_agrees(&dir, &unpacked.listing);
}

/// What is remembered of a path ends with the link or directory that it led through, and no more than that.
#[test]
fn replacing_forgets_what_was_below_and_nothing_else() {
    if !is_root() {
        return;
    }
    let (dir, unpacked) = unpacked(&[
        ("d/.wh.a", FILE, b""),
        ("d/e/.wh.b", FILE, b""),
        ("d-/.wh.c", FILE, b""),
        ("d", FILE, b"1"),
        ("q/", DIR, b""),
        ("s", link("q"), b""),
        ("q/t", link("../q"), b""),
        ("s/t/x", FILE, b"1"),
        ("s/t/t/", DIR, b""),
        ("s/t/y", FILE, b"1"),
    ])
    .unwrap();
    let expected = [
        "d 1",
        "d-/",
        "d-/c whiteout",
        "q/",
        "q/t/",
        "q/t/y 1",
        "q/x 1",
        "s -> q",
    ];
    assert_eq!(lines(&unpacked.listing), expected);
    assert_walk_agrees(&dir, &unpacked.listing);
}

#[test]
fn symbolic_links_never_lead_out() {
    if !is_root() {
        return;
    }
    let (dir, unpacked) = unpacked(&[
        ("real/", DIR, b""),
        ("in", link("/real"), b""),
        ("in/f", FILE, b"1"),
        ("up", link("../../../../.."), b""),
        ("up/g", FILE, b"1"),
        ("new", link("not/yet"), b""),
        ("new/h", FILE, b"1"),
        ("hl", hard("in/f"), b""),
    ])
    .unwrap();
    let expected = [
        "g 1",
        "hl 1",
        "in -> /real",
        "new -> not/yet",
        "not/",
        "not/yet/",
        "not/yet/h 1",
        "real/",
        "real/f = hl",
        "up -> ../../../../..",
    ];
    assert_eq!(lines(&unpacked.listing), expected);
    assert_walk_agrees(&dir, &unpacked.listing);
}

type Plain<'a> = (&'a str, MemberType<'a>, &'a [u8]);
type Check = fn(&LayerError) -> bool;

#[test]
fn hostile_layers_are_refused() {
    let long = "n".repeat(256);
    let deep = "d/".repeat(2100) + "f";
    let long_way = "d/../".repeat(800);
    let cases: [(&[Plain<'_>], Check); 13] = [
        (&[("l", link(&long_way), b""), ("l/l/l/f", FILE, b"")], |e| {
            matches!(e, LayerError::Name { .. })
        }),
        (&[("l", link("l"), b""), ("l/f", FILE, b"")], |e| {
            matches!(e, LayerError::Name { .. })
        }),
        (&[("f", FILE, b""), ("f/g", FILE, b"")], |e| {
            matches!(e, LayerError::NotADirectory { .. })
        }),
        (&[("h", hard("nowhere"), b"")], |e| {
            matches!(e, LayerError::HardLinkTarget { .. })
        }),
        (&[("h", hard("h"), b"")], |e| {
            matches!(e, LayerError::HardLinkTarget { .. })
        }),
        (&[("d/", DIR, b""), ("h", hard("d"), b"")], |e| {
            matches!(e, LayerError::HardLinkTarget { .. })
        }),
        (&[("d/f", FILE, b""), ("d", hard("d/f"), b"")], |e| {
            matches!(e, LayerError::HardLinkTarget { .. })
        }),
        (&[("h", hard("../../etc/passwd"), b"")], |e| {
            matches!(e, LayerError::HardLinkTarget { .. })
        }),
        (&[(".wh.", FILE, b"")], |e| matches!(e, LayerError::Name { .. })),
        (&[(".wh...", FILE, b"")], |e| matches!(e, LayerError::Name { .. })),
        (&[(".wh..wh..opq", FILE, b"")], |e| {
            matches!(e, LayerError::OpaqueRoot)
        }),
        (&[(&long, FILE, b"")], |e| matches!(e, LayerError::Name { .. })),
        (&[(&deep, FILE, b"")], |e| matches!(e, LayerError::Name { .. })),
    ];
    for (members, check) in cases {
        match unpacked(members) {
            Ok((_, unpacked)) => panic!("taken: {:?}", lines(&unpacked.listing)),
            Err(error) => assert!(check(&error), "{error:?}"),
        }
    }
}

#[test]
fn overlay_attributes_of_the_tar_are_dropped() {
    if !is_root() {
        return;
    }
    let names = [
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "user.overlay.opaque",
        "trusted.a",
    ];
    let value = b"y\n5 a=\0".to_vec();
    let xattrs: BTreeMap<Vec<u8>, Vec<u8>> = names
        .iter()
        .map(|name| (name.as_bytes().to_vec(), value.clone()))
        .collect();
    let mut writer = TarWriter::new(Vec::new());
    let member = Member {
        name: b"d/",
        kind: DIR,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: 0,
        xattrs: Some(&xattrs),
    };
    writer.member(&member).unwrap();
    let dir = TempDir::new();
    let unpacked = unpack_into(&dir, &writer.finish().unwrap().0).unwrap();
    let kept = &unpacked.listing.entries()[0];
    assert_eq!(kept.kind, EntryKind::Directory { opaque: false });
    assert_eq!(kept.xattrs, BTreeMap::from([(b"trusted.a".to_vec(), value)]));
    assert_walk_agrees(&dir, &unpacked.listing);
}

struct Broken;
impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("gone"))
    }
}

#[test]
fn streams_that_end_early_or_fail_are_errors() {
    let bytes = tar(&[("f", FILE, &[1; 3000])]);
    for length in [100, 512, 600, 3000] {
        let error = unpack_into(&TempDir::new(), &bytes[..length]).unwrap_err();
        assert!(
            matches!(error, LayerError::Tar(TarError::Truncated { .. })),
            "{length}: {error:?}"
        );
    }
    let dir = TempDir::new();
    let root = Root::open(dir.path()).unwrap();
    let error = unpack((&bytes[..1000]).chain(Broken), &root, &UnpackOptions::default()).unwrap_err();
    assert!(
        matches!(&error, LayerError::Read(source) if source.to_string() == "gone"),
        "{error:?}"
    );
}

struct Below(TempDir);
impl Lower for Below {
    fn entry(&self, path: &TreePath) -> Option<Entry> {
        let kind = match path.as_bytes() {
            b"tmp" => EntryKind::Directory { opaque: false },
            b"lib" => EntryKind::Symlink {
                target: b"tmp".to_vec(),
            },
            b"file" => EntryKind::File {
                size: 3,
                content: ContentHash::of(b"low"),
            },
            _ => return None,
        };
        Some(Entry {
            path: path.clone(),
            kind,
            mode: 0o1777,
            uid: 0,
            gid: 0,
            mtime: Timestamp { secs: 5, nanos: 0 },
            xattrs: BTreeMap::new(),
        })
    }
    fn open(&self, _: &TreePath) -> io::Result<std::fs::File> {
        let path = self.0.path().join("f");
        std::fs::write(&path, "low")?;
        std::fs::File::open(path)
    }
}

#[test]
fn lower_layers_give_links_and_directories() {
    if !is_root() {
        return;
    }
    let below = Below(TempDir::new());
    let bytes = tar(&[
        ("tmp/a", FILE, b"1"),
        ("lib/b", FILE, b"1"),
        ("c", hard("file"), b""),
    ]);
    let dir = TempDir::new();
    let root = Root::open(dir.path()).unwrap();
    let options = UnpackOptions {
        lower: Some(&below),
        ..UnpackOptions::default()
    };
    let unpacked = unpack(&bytes[..], &root, &options).unwrap();
    assert_eq!(lines(&unpacked.listing), ["c 3", "tmp/", "tmp/a 1", "tmp/b 1"]);
    assert_eq!(unpacked.listing.get(&path("tmp")).unwrap().mode, 0o1777);
    assert_walk_agrees(&dir, &unpacked.listing);
}

#[test]
fn sparse_files_of_the_gnu_tool_forms() {
    // PAX form 1.0: the map is in front of the data.
    let mut map = b"2\n5\n3\n1000\n2\n".to_vec();
    map.resize(512, 0);
    map.extend(b"abcde");
    let records =
        "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n23 GNU.sparse.name=big\n28 GNU.sparse.realsize=2000\n";
    let mut builder = tar::Builder::new(Vec::new());
    let mut put = |kind: tar::EntryType, data: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_path("placeholder").unwrap();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(data.len() as u64);
        header.set_entry_type(kind);
        header.set_cksum();
        builder.append(&header, data).unwrap();
    };
    put(tar::EntryType::XHeader, records.as_bytes());
    put(tar::EntryType::Regular, &map);
    put(tar::EntryType::Regular, b"next");
    let dir = TempDir::new();
    let unpacked = unpack_into(&dir, &builder.into_inner().unwrap()).unwrap();
    let mut expected = vec![0; 2000];
    expected[5..8].copy_from_slice(b"abc");
    expected[1000..1002].copy_from_slice(b"de");
    assert_eq!(std::fs::read(dir.path().join("big")).unwrap(), expected);
    let EntryKind::File { size, content } = unpacked.listing.entries()[0].kind else {
        panic!("{:?}", unpacked.listing);
    };
    assert_eq!((size, content), (2000, ContentHash::of(&expected)));
    assert_eq!(lines(&unpacked.listing), ["big 2000", "placeholder 4"]);
}

#[test]
fn long_names_of_the_other_writer() {
    // The tar crate writes GNU long names.
    let (name, target) = ("x/".repeat(80) + "f", "y/".repeat(90));
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(2);
    builder.append_data(&mut header, &name, &b"hi"[..]).unwrap();
    header.set_size(0);
    header.set_entry_type(tar::EntryType::Symlink);
    builder.append_link(&mut header, "l", &target).unwrap();
    let dir = TempDir::new();
    let unpacked = unpack_into(&dir, &builder.into_inner().unwrap()).unwrap();
    assert!(unpacked.listing.get(&path(&name)).is_some());
    let kind = EntryKind::Symlink {
        target: target.into_bytes(),
    };
    assert_eq!(unpacked.listing.get(&path("l")).unwrap().kind, kind);
}

#[test]
fn damage_is_told() {
    type Change = fn(&std::path::Path);
    let changes: [Change; 4] = [
        |path| std::fs::write(path, "hellO").unwrap(),
        |path| std::fs::write(path, "hell").unwrap(),
        |path| std::fs::write(path, "hello!").unwrap(),
        |path| std::fs::remove_file(path).unwrap(),
    ];
    if !is_root() {
        return;
    }
    for change in changes {
        let (dir, unpacked) = unpacked(&[("d/f", FILE, b"hello")]).unwrap();
        let root = Root::open(dir.path()).unwrap();
        diff_id(&unpacked.listing, &root).unwrap();
        change(&dir.path().join("d/f"));
        let error = diff_id(&unpacked.listing, &root).unwrap_err();
        assert!(
            matches!(error, LayerError::Damaged { .. } | LayerError::Place { .. }),
            "{error:?}"
        );
    }
}

#[test]
fn packing_is_deterministic_and_exported_blobs_agree() {
    if !is_root() {
        return;
    }
    let (dir, unpacked) = unpacked(&[
        ("d/", DIR, b""),
        ("d/.wh..wh..opq", FILE, b""),
        ("d/f", FILE, &vec![9; 100_000]),
        (".wh.w", FILE, b""),
    ])
    .unwrap();
    let root = Root::open(dir.path()).unwrap();
    let mut first = Vec::new();
    let size = pack(&unpacked.listing, &root, &mut first).unwrap();
    assert_eq!(size, first.len() as u64);
    let names: Vec<_> = tar::Archive::new(&first[..])
        .entries()
        .unwrap()
        .map(|entry| String::from_utf8(entry.unwrap().path_bytes().into_owned()).unwrap())
        .collect();
    assert_eq!(names, ["d/", "d/.wh..wh..opq", "d/f", ".wh.w"]);
    for compression in [
        crate::compress::Compression::Gzip,
        crate::compress::Compression::Zstd,
    ] {
        let mut blob = Vec::new();
        let exported = export(&unpacked.listing, &root, compression, None, &mut blob).unwrap();
        assert_eq!(exported.diff_id, Digest::sha256_of(&first));
        assert_eq!(exported.digest, Digest::sha256_of(&blob));
        assert_eq!((exported.size, exported.tar_size), (blob.len() as u64, size));
        let mut plain = Vec::new();
        decompress(&blob[..]).unwrap().read_to_end(&mut plain).unwrap();
        assert_eq!(plain, first);
    }
}

#[test]
fn decoded_bytes_of_export_are_readable_by_the_archive_module() {
    let bytes = tar(&[
        ("d/", DIR, b""),
        ("d/.wh.x", FILE, b"1"),
        ("d/f", FILE, b"22"),
        ("h", hard("d/f"), b""),
    ]);
    let gzip =
        crate::compress::compress(&bytes[..], crate::compress::Compression::Gzip, None, Vec::new()).unwrap();
    if !is_root() {
        return;
    }
    for stream in [&bytes, &gzip] {
        let dir = TempDir::new();
        let root = Root::open(dir.path()).unwrap();
        // A link that is there already must not lead out of the destination.
        std::fs::create_dir(dir.path().join("to")).unwrap();
        std::os::unix::fs::symlink("/elsewhere", dir.path().join("to/d")).unwrap();
        let tar = crate::archive::open(&stream[..]).unwrap().unwrap();
        let done = crate::archive::extract(tar, &root, "to", Some((7, 8))).unwrap();
        assert_eq!((done.entries, done.bytes), (4, 3));
        let file = std::fs::symlink_metadata(dir.path().join("to/d/f")).unwrap();
        assert_eq!(
            (file.uid(), file.gid(), file.nlink(), file.mtime()),
            (7, 8, 2, 1_000_000)
        );
        assert_eq!(file.permissions().mode() & 0o7777, 0o750);
        assert_eq!(std::fs::read(dir.path().join("to/d/.wh.x")).unwrap(), b"1");
        assert!(!dir.path().join("elsewhere").exists());
        let directory = std::fs::symlink_metadata(dir.path().join("to/d")).unwrap();
        assert!(directory.is_dir());
        assert_eq!(directory.mtime(), 1_000_000);
    }
    for other in [
        &b"text"[..],
        &[0; 2000],
        b"\x1f\x8b\x08garbage",
        b"BZh9garbage",
        &gzip[..20],
    ] {
        assert!(crate::archive::open(other).unwrap().is_none());
    }
}

/// Members in any order over few names, so that they replace, link to and lie below each other.
fn members() -> impl Strategy<Value = Vec<(String, u8, String, Vec<u8>)>> {
    let name = || "(\\.wh\\.)?[ab](/[ab]){0,2}(/\\.wh\\.[ab]|/\\.wh\\.\\.wh\\.\\.opq)?";
    let data = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..20),
        proptest::collection::vec(any::<u8>(), 500..1100)
    ];
    proptest::collection::vec((name(), 0_u8..8, "[ab](/[ab]){0,2}|/|\\.\\./a", data), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn packing_what_was_unpacked_changes_nothing(members in members()) {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let members: Vec<_> = members
            .iter()
            .map(|(name, kind, target, data)| {
                let kind = match kind {
                    0 | 1 => DIR,
                    2 => link(target),
                    3 => hard(target),
                    4 => MemberType::CharDevice { major: 1, minor: 3 },
                    5 => MemberType::Fifo,
                    _ => FILE,
                };
                let data = if kind == FILE { data.as_slice() } else { b"" };
                (name.as_str(), kind, data)
            })
            .collect();
        let Ok((dir, first)) = unpacked(&members) else {
            return Ok(());
        };
        assert_walk_agrees(&dir, &first.listing);
        let root = Root::open(dir.path()).unwrap();
        let mut bytes = Vec::new();
        pack(&first.listing, &root, &mut bytes).unwrap();
        let again = TempDir::new();
        let second = unpack_into(&again, &bytes).unwrap();
        prop_assert_eq!(&second.listing, &first.listing);
        prop_assert!(second.implicit_directories.is_empty());
        prop_assert_eq!(second.diff_id, diff_id(&first.listing, &root).unwrap());
        assert_walk_agrees(&again, &second.listing);
    }

    #[test]
    fn damaged_tars_never_panic(at in 0_usize..6000, byte: u8, cut in 0_usize..8000) {
        let mut bytes = tar(&[
            ("d/", DIR, b""),
            (&"n/".repeat(70), DIR, b""),
            ("d/f", FILE, &[5; 1500]),
            ("h", hard("d/f"), b""),
        ]);
        let length = bytes.len();
        bytes[at % length] = byte;
        bytes.truncate(cut.max(512));
        let _ = unpack_into(&TempDir::new(), &bytes);
    }
}
