//! Both walks on real directories.

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::root::Device;
use crate::testing::{TempDir, is_root, may_mount, mount_overlay};
use crate::{ContentHash, Entry, EntryKind, Error, Root, TreePath};

fn open(path: &Path) -> OwnedFd {
    fs::File::open(path).unwrap().into()
}

fn all(path: &Path) -> Listing {
    plain(
        open(path).as_fd(),
        PlainOptions::default(),
        &Everything,
        &Forgetful,
    )
    .unwrap()
}

fn paths(listing: &Listing) -> Vec<String> {
    listing
        .entries()
        .iter()
        .map(|entry| entry.path.to_string())
        .collect()
}

fn get<'a>(listing: &'a Listing, path: &str) -> &'a Entry {
    listing
        .get(&TreePath::new(path).unwrap())
        .unwrap_or_else(|| panic!("{path} is not listed"))
}

/// Remembers everything, whatever its age, and counts.
#[derive(Default)]
struct Memory {
    known: Mutex<HashMap<(TreePath, StatKey), ContentHash>>,
    hits: AtomicUsize,
    reads: AtomicUsize,
}

impl Memory {
    /// Hits and reads since it was last asked.
    fn counts(&self) -> (usize, usize) {
        (
            self.hits.swap(0, Ordering::Relaxed),
            self.reads.swap(0, Ordering::Relaxed),
        )
    }
}

impl HashMemory for Memory {
    fn recall(&self, path: &TreePath, key: &StatKey) -> Option<ContentHash> {
        let found = self.known.lock().unwrap().get(&(path.clone(), *key)).copied();
        self.hits
            .fetch_add(usize::from(found.is_some()), Ordering::Relaxed);
        found
    }

    fn remember(&self, path: &TreePath, key: &StatKey, content: ContentHash) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.known.lock().unwrap().insert((path.clone(), *key), content);
    }
}

#[test]
fn every_kind_is_listed() {
    let temp = TempDir::new();
    let root = Root::open(temp.path()).unwrap();
    root.create_dir("d", 0o2750).unwrap();
    fs::write(temp.path().join("d/file"), "bytes").unwrap();
    root.chmod("d/file", 0o640).unwrap();
    fs::write(temp.path().join("empty"), "").unwrap();
    root.hard_link("d/file", "d/twin").unwrap();
    root.hard_link("d/file", "a-first").unwrap();
    root.symlink("no/where", "link").unwrap();
    root.mkfifo("pipe", 0o600).unwrap();
    root.mksocket("socket", 0o600).unwrap();
    root.set_times("link", crate::Timestamp { secs: -3, nanos: 5 })
        .unwrap();
    let listing = all(temp.path());
    assert_eq!(
        paths(&listing),
        [
            "a-first", "d", "d/file", "d/twin", "empty", "link", "pipe", "socket"
        ]
    );
    let file = EntryKind::File {
        size: 5,
        content: ContentHash::of(b"bytes"),
    };
    assert_eq!(
        (&get(&listing, "a-first").kind, get(&listing, "a-first").mode),
        (&file, 0o640)
    );
    let target = TreePath::new("a-first").unwrap();
    for name in ["d/file", "d/twin"] {
        assert_eq!(
            get(&listing, name).kind,
            EntryKind::HardLink {
                target: target.clone()
            }
        );
        assert_eq!(get(&listing, name).mode, 0o640);
    }
    assert_eq!(
        (&get(&listing, "d").kind, get(&listing, "d").mode),
        (&EntryKind::Directory { opaque: false }, 0o2750)
    );
    assert_eq!(
        get(&listing, "empty").kind,
        EntryKind::File {
            size: 0,
            content: ContentHash::of(b"")
        }
    );
    assert_eq!(
        get(&listing, "link").kind,
        EntryKind::Symlink {
            target: b"no/where".to_vec()
        }
    );
    assert_eq!(
        get(&listing, "link").mtime,
        crate::Timestamp { secs: -3, nanos: 5 }
    );
    assert_eq!(get(&listing, "pipe").kind, EntryKind::Fifo);
    assert_eq!(get(&listing, "socket").kind, EntryKind::Socket);
}

#[test]
fn a_layer_in_overlay_form() {
    if !is_root() {
        return;
    }
    let temp = TempDir::new();
    let root = Root::open(temp.path()).unwrap();
    for dir in ["opaque", "user-opaque", "with-marks", "plain"] {
        root.create_dir(dir, 0o755).unwrap();
    }
    root.set_xattr("opaque", "trusted.overlay.opaque", b"y").unwrap();
    root.set_xattr("user-opaque", "user.overlay.opaque", b"y")
        .unwrap();
    root.set_xattr("with-marks", "trusted.overlay.opaque", b"x")
        .unwrap();
    root.set_xattr("plain", "trusted.overlay.impure", b"y").unwrap();
    root.set_xattr("plain", "user.kept", b"v").unwrap();
    root.set_xattr("plain", "trusted.kept", b"w").unwrap();
    root.mknod("gone", Device::Char(0, 0), 0).unwrap();
    root.mknod("null", Device::Char(1, 3), 0o666).unwrap();
    root.mknod("disk", Device::Block(8, 1), 0o660).unwrap();
    root.create_file("with-marks/gone", 0o644).unwrap();
    root.set_xattr("with-marks/gone", "trusted.overlay.whiteout", b"")
        .unwrap();
    fs::write(temp.path().join("program"), "x").unwrap();
    root.chown("program", 5, 6).unwrap();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    root.set_xattr("program", "security.capability", &capability)
        .unwrap();
    let listing = layer(root.open_dir("").unwrap().as_fd()).unwrap();
    let kind = |path: &str| get(&listing, path).kind.clone();
    assert_eq!(kind("opaque"), EntryKind::Directory { opaque: true });
    assert_eq!(kind("user-opaque"), EntryKind::Directory { opaque: true });
    assert_eq!(kind("with-marks"), EntryKind::Directory { opaque: false });
    assert_eq!(kind("gone"), EntryKind::Whiteout);
    assert_eq!(kind("with-marks/gone"), EntryKind::Whiteout);
    assert_eq!(kind("null"), EntryKind::CharDevice { major: 1, minor: 3 });
    assert_eq!(kind("disk"), EntryKind::BlockDevice { major: 8, minor: 1 });
    let xattrs = |path: &str| get(&listing, path).xattrs.clone();
    assert_eq!(xattrs("opaque"), [].into());
    assert_eq!(
        xattrs("plain"),
        [
            (b"user.kept".to_vec(), b"v".to_vec()),
            (b"trusted.kept".to_vec(), b"w".to_vec())
        ]
        .into()
    );
    assert_eq!(
        xattrs("program"),
        [(b"security.capability".to_vec(), capability.to_vec())].into()
    );
    assert_eq!(
        (get(&listing, "program").uid, get(&listing, "program").gid),
        (5, 6)
    );
    // The same directory as an ordinary one: nothing means anything.
    assert_eq!(
        get(&all(temp.path()), "gone").kind,
        EntryKind::CharDevice { major: 0, minor: 0 }
    );

    root.set_xattr("program", "trusted.overlay.metacopy", b"")
        .unwrap();
    let error = layer(root.open_dir("").unwrap().as_fd()).unwrap_err();
    assert!(matches!(error, Error::ForeignLayer { .. }), "{error}");
}

#[test]
fn merging_shows_what_the_kernel_shows() {
    if !may_mount() {
        return;
    }
    let temp = TempDir::new();
    let dirs = ["lower", "middle", "upper", "work"].map(|name| temp.path().join(name));
    for dir in &dirs {
        fs::create_dir(dir).unwrap();
    }
    let [lower, middle, upper, work] = &dirs;
    let bottom = Root::open(lower).unwrap();
    for dir in ["keep", "empty", "replace", "replace/below", "to-file", "opaque"] {
        bottom.create_dir(dir, 0o755).unwrap();
    }
    for file in [
        "keep/a",
        "keep/b",
        "replace/below/x",
        "to-file/x",
        "opaque/old",
        "from-file",
        "linked",
        "mode",
    ] {
        fs::write(lower.join(file), file).unwrap();
    }
    bottom.hard_link("linked", "linked-2").unwrap();
    bottom.hard_link("linked", "linked-3").unwrap();
    symlink("keep", lower.join("link")).unwrap();
    let compare = |layers: &[&Path], mount: &Root| {
        let layers: Vec<_> = layers
            .iter()
            .map(|dir| layer(open(dir).as_fd()).unwrap())
            .collect();
        let merged = Listing::merge_all(&layers);
        let seen = mount.open_dir("").unwrap();
        let seen = plain(seen.as_fd(), PlainOptions::default(), &Everything, &Forgetful).unwrap();
        assert_eq!(paths(&merged), paths(&seen));
        for (merged, seen) in merged.entries().iter().zip(seen.entries()) {
            assert_eq!(merged, seen);
        }
        assert_eq!(merged.content_hash(), seen.content_hash());
    };

    let Some(mount) = mount_overlay(&[lower], middle, work) else {
        return;
    };
    mount.remove_file("keep/a").unwrap();
    mount.remove_all("replace").unwrap();
    mount.create_dir("replace", 0o711).unwrap();
    mount.create_file("replace/new", 0o600).unwrap();
    mount.remove_all("to-file").unwrap();
    mount.create_file("to-file", 0o644).unwrap();
    mount.remove_file("from-file").unwrap();
    mount.create_dir("from-file", 0o755).unwrap();
    mount.remove_file("linked").unwrap();
    mount.chmod("mode", 0o700).unwrap();
    mount.chmod("empty", 0o700).unwrap();
    mount.remove_file("link").unwrap();
    mount.symlink("keep/b", "link").unwrap();
    compare(&[lower, middle], &mount);
    drop(mount);

    fs::remove_dir_all(work).unwrap();
    fs::create_dir(work).unwrap();
    let Some(mount) = mount_overlay(&[middle, lower], upper, work) else {
        return;
    };
    mount.remove_all("replace").unwrap();
    mount.create_dir("replace", 0o755).unwrap();
    mount.create_file("replace/below", 0o600).unwrap();
    mount.remove_all("keep").unwrap();
    mount.create_dir("keep", 0o755).unwrap();
    mount.create_file("linked", 0o640).unwrap();
    mount.rename("mode", "zmode").unwrap();
    compare(&[lower, middle, upper], &mount);
}

#[test]
fn a_policy_decides() {
    let temp = TempDir::new();
    for dir in ["src/deep", "target/debug", "docs/empty", "vendor/kept"] {
        fs::create_dir_all(temp.path().join(dir)).unwrap();
    }
    for file in [
        "src/a",
        "src/deep/b",
        "target/debug/c",
        "docs/d",
        "vendor/kept/e",
        "vendor/f",
    ] {
        fs::write(temp.path().join(file), file).unwrap();
    }
    let asked = Mutex::new(Vec::new());
    let policy = |path: &TreePath, is_dir: bool| {
        asked.lock().unwrap().push((path.to_string(), is_dir));
        match path.as_bytes() {
            b"target" => Decision::Prune,
            b"vendor/kept/e" => Decision::Include,
            path if path.starts_with(b"vendor") || path.starts_with(b"docs") => Decision::ExcludeButDescend,
            _ => Decision::Include,
        }
    };
    let dir = open(temp.path());
    let listing = plain(dir.as_fd(), PlainOptions::default(), &policy, &Forgetful).unwrap();
    assert_eq!(
        paths(&listing),
        [
            "src",
            "src/a",
            "src/deep",
            "src/deep/b",
            "vendor",
            "vendor/kept",
            "vendor/kept/e"
        ]
    );
    let asked = asked.into_inner().unwrap();
    assert!(!asked.iter().any(|(path, _)| path.starts_with("target/")));
    assert!(asked.contains(&("target".to_owned(), true)));
    assert!(asked.contains(&("docs/d".to_owned(), false)));
}

#[test]
fn remembered_files_are_not_read() {
    let temp = TempDir::new();
    fs::create_dir(temp.path().join("d")).unwrap();
    for file in ["a", "b", "d/c"] {
        fs::write(temp.path().join(file), file).unwrap();
    }
    fs::write(temp.path().join("empty"), "").unwrap();
    let memory = Memory::default();
    let walk = || {
        plain(
            open(temp.path()).as_fd(),
            PlainOptions::default(),
            &Everything,
            &memory,
        )
        .unwrap()
    };
    let first = walk();
    assert_eq!(memory.counts(), (0, 3));
    assert_eq!(walk(), first);
    assert_eq!(memory.counts(), (3, 0));
    // Changed without a change of size or of the modification time: the change time tells.
    let modified = fs::metadata(temp.path().join("b")).unwrap().modified().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::write(temp.path().join("b"), "x").unwrap();
    fs::File::options()
        .write(true)
        .open(temp.path().join("b"))
        .unwrap()
        .set_modified(modified)
        .unwrap();
    let changed = walk();
    assert_eq!(memory.counts(), (2, 1));
    assert_ne!(changed.content_hash(), first.content_hash());
    assert_eq!(
        get(&changed, "b").kind,
        EntryKind::File {
            size: 1,
            content: ContentHash::of(b"x")
        }
    );
}

#[test]
fn only_selected_files_are_read() {
    let temp = TempDir::new();
    fs::create_dir_all(temp.path().join("d/e")).unwrap();
    for file in ["a", "d/b", "d/e/c"] {
        fs::write(temp.path().join(file), file).unwrap();
    }
    let dir = open(temp.path());
    let memory = Memory::default();
    let survey = survey(dir.as_fd(), PlainOptions { xattrs: false }, &Everything).unwrap();
    let found: Vec<_> = survey
        .paths()
        .map(|(path, is_dir)| (path.to_string(), is_dir))
        .collect();
    let expected = [
        ("a", false),
        ("d", true),
        ("d/b", false),
        ("d/e", true),
        ("d/e/c", false),
    ];
    assert_eq!(found, expected.map(|(path, is_dir)| (path.to_owned(), is_dir)));
    let listing = survey
        .hash(dir.as_fd(), &|path| path.as_bytes() == b"d/e/c", &memory)
        .unwrap();
    assert_eq!(paths(&listing), ["d", "d/e", "d/e/c"]);
    assert_eq!(memory.counts(), (0, 1));
}

#[test]
fn wide_deep_and_large() {
    let temp = TempDir::new();
    let root = Root::open(temp.path()).unwrap();
    root.create_dir("wide", 0o755).unwrap();
    for at in 0..1500 {
        fs::write(temp.path().join(format!("wide/{at}")), at.to_string()).unwrap();
    }
    let deep = vec!["directory"; 500].join("/");
    let mut below = Root::open(temp.path()).unwrap();
    for _ in 0..500 {
        below.create_dir("directory", 0o755).unwrap();
        below = below.sub_root("directory").unwrap();
    }
    let large: Vec<u8> = (0..1_000_000_u32).map(|at| at as u8).collect();
    std::io::Write::write_all(&mut below.create_file("large", 0o644).unwrap(), &large).unwrap();
    let listing = all(temp.path());
    assert_eq!(listing.len(), 1501 + 501);
    let content = ContentHash::of(&large);
    assert_eq!(
        get(&listing, &format!("{deep}/large")).kind,
        EntryKind::File {
            size: 1_000_000,
            content
        }
    );
    assert_eq!(
        get(&listing, "wide/777").kind,
        EntryKind::File {
            size: 3,
            content: ContentHash::of(b"777")
        }
    );
    assert!(listing.entries().is_sorted_by(|a, b| a.path < b.path));
}

/// Grows the file whenever its key is looked up, which is before it is read.
struct Writer(std::path::PathBuf);
impl HashMemory for Writer {
    fn recall(&self, _path: &TreePath, _key: &StatKey) -> Option<ContentHash> {
        fs::write(&self.0, "longer").unwrap();
        None
    }
    fn remember(&self, _path: &TreePath, key: &StatKey, content: ContentHash) {
        assert_eq!((key.size, content), (6, ContentHash::of(b"longer")));
    }
}

#[test]
fn a_file_that_never_rests_is_an_error_and_not_a_wrong_hash() {
    let temp = TempDir::new();
    let path = temp.path().join("log");
    fs::write(&path, "0").unwrap();
    let dir = open(temp.path());
    let listing = plain(
        dir.as_fd(),
        PlainOptions::default(),
        &Everything,
        &Writer(path.clone()),
    )
    .unwrap();
    assert_eq!(
        get(&listing, "log").kind,
        EntryKind::File {
            size: 6,
            content: ContentHash::of(b"longer")
        }
    );

    let survey = survey(dir.as_fd(), PlainOptions::default(), &Everything).unwrap();
    fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(&dir, "log", rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    let error = survey.hash(dir.as_fd(), &|_| true, &Forgetful).unwrap_err();
    assert!(
        matches!(&error, Error::Unstable { path } if path.as_bytes() == b"log"),
        "{error}"
    );
}

/// A memory that vouches for files without attributes, as that of contexts does.
#[derive(Default)]
struct Plain(Memory);

impl HashMemory for Plain {
    fn recall(&self, path: &TreePath, key: &StatKey) -> Option<ContentHash> {
        self.0.recall(path, key)
    }
    fn remember(&self, path: &TreePath, key: &StatKey, content: ContentHash) {
        self.0.remember(path, key, content);
    }
    fn implies_no_xattrs(&self) -> bool {
        true
    }
}

/// Attributes are seen although remembered files are not asked for them: files that have any are never remembered,
/// and setting one on a remembered file changes its ctime.
#[test]
fn attributes_of_remembered_files_are_never_missed() {
    let temp = TempDir::new();
    let root = Root::open(temp.path()).unwrap();
    for name in ["bare", "marked"] {
        fs::write(temp.path().join(name), name).unwrap();
    }
    root.set_xattr("marked", "user.mark", b"1").unwrap();
    let dir = open(temp.path());
    let memory = Plain::default();
    let walk = || plain(dir.as_fd(), PlainOptions::default(), &Everything, &memory).unwrap();
    for _ in 0..2 {
        let listing = walk();
        assert!(get(&listing, "bare").xattrs.is_empty());
        assert_eq!(get(&listing, "marked").xattrs.len(), 1);
    }
    std::thread::sleep(std::time::Duration::from_millis(20));
    root.set_xattr("bare", "user.mark", b"1").unwrap();
    assert_eq!(get(&walk(), "bare").xattrs.len(), 1);
}
