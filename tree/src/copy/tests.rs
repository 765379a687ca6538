//! Copies between real directories.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;
use crate::root::FileType;
use crate::testing::{TempDir, is_root, may_mount, mount_overlay};
use crate::walk::{self, Everything, Forgetful, HashMemory, PlainOptions, StatKey};
use crate::{ContentHash, Entry, EntryKind, Listing};

/// A source and a destination directory, with a secret beside them.
struct Stage {
    temp: TempDir,
    source: Root,
    dest: Root,
}

impl Stage {
    fn new() -> Self {
        let temp = TempDir::new();
        for dir in ["source", "dest"] {
            fs::create_dir(temp.path().join(dir)).unwrap();
        }
        fs::write(temp.path().join("secret"), "outside").unwrap();
        let open = |dir: &str| Root::open(&temp.path().join(dir)).unwrap();
        Self {
            source: open("source"),
            dest: open("dest"),
            temp,
        }
    }

    fn source_path(&self, path: &str) -> PathBuf {
        self.temp.path().join("source").join(path)
    }

    fn dest_path(&self, path: &str) -> PathBuf {
        self.temp.path().join("dest").join(path)
    }

    fn listing(&self) -> Listing {
        list(&self.source)
    }

    fn copy(&self, from: &str, to: &str) -> Result<Copied, CopyError> {
        self.copy_with(from, to, |_| {})
    }

    fn copy_excluding(&self, from: &str, to: &str, exclude: &Exclude<'_>) -> Result<Copied, CopyError> {
        let listing = self.listing();
        let source = ListedSource {
            root: &self.source,
            listing: &listing,
            verify: false,
        };
        let mut request = CopyRequest::new(&source, path(from), to.as_bytes());
        request.exclude = Some(exclude);
        request.owner = possible_owner();
        copy(&request, &self.dest)
    }

    fn copy_with(
        &self,
        from: &str,
        to: &str,
        adjust: impl FnOnce(&mut CopyRequest<'_>),
    ) -> Result<Copied, CopyError> {
        let listing = self.listing();
        let source = ListedSource {
            root: &self.source,
            listing: &listing,
            verify: false,
        };
        let mut request = CopyRequest::new(&source, path(from), to.as_bytes());
        request.owner = possible_owner();
        adjust(&mut request);
        copy(&request, &self.dest)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(
                fs::read_to_string(self.temp.path().join("secret")).unwrap(),
                "outside"
            );
            assert_eq!(
                fs::read_dir(self.temp.path()).unwrap().count(),
                3,
                "something was made outside"
            );
        }
    }
}

/// An ordinary user cannot make the directories above a destination belong to root.
fn possible_owner() -> Option<(u32, u32)> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    (!uid.is_root()).then(|| (uid.as_raw(), gid.as_raw()))
}

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

fn list(root: &Root) -> Listing {
    let dir = root.open_dir("").unwrap();
    walk::plain(
        std::os::fd::AsFd::as_fd(&dir),
        PlainOptions::default(),
        &Everything,
        &Forgetful,
    )
    .unwrap()
}

fn paths(root: &Root) -> Vec<String> {
    list(root)
        .entries()
        .iter()
        .map(|entry| entry.path.to_string())
        .collect()
}

fn get(root: &Root, at: &str) -> Entry {
    list(root)
        .get_linked(&path(at))
        .unwrap_or_else(|| panic!("{at} is not there"))
        .clone()
}

fn text(stage: &Stage, at: &str) -> String {
    fs::read_to_string(stage.dest_path(at)).unwrap()
}

/// What is at the destination before.
#[derive(Debug, Clone, Copy)]
enum Before {
    Nothing,
    File,
    Directory,
    LinkToFile,
    LinkToDirectory,
    Dangling,
}

fn put(stage: &Stage, before: Before) {
    fs::create_dir(stage.dest_path("real-dir")).unwrap();
    fs::write(stage.dest_path("real-file"), "untouched").unwrap();
    let at = stage.dest_path("at");
    match before {
        Before::Nothing => {}
        Before::File => fs::write(at, "old").unwrap(),
        Before::Directory => fs::create_dir(at).unwrap(),
        Before::LinkToFile => symlink("real-file", at).unwrap(),
        Before::LinkToDirectory => symlink("/real-dir", at).unwrap(),
        Before::Dangling => symlink("../nowhere", at).unwrap(),
    }
}

/// Every kind of source onto every kind of destination, with and without a slash at the end.
#[test]
fn matrix() {
    use Before::{Dangling, Directory, File, LinkToDirectory, LinkToFile, Nothing};
    // Where the source `x` is found afterwards, or what is wrong.
    let file: [(&str, Before, Result<&str, &str>); 12] = [
        ("at", Nothing, Ok("at")),
        ("at", File, Ok("at")),
        ("at", Directory, Ok("at/x")),
        ("at", LinkToFile, Ok("at")),
        ("at", LinkToDirectory, Ok("real-dir/x")),
        ("at", Dangling, Ok("at")),
        ("at/", Nothing, Ok("at/x")),
        ("at/", File, Err("at is not a directory")),
        ("at/", Directory, Ok("at/x")),
        ("at/", LinkToFile, Err("at is not a directory")),
        ("at/", LinkToDirectory, Ok("real-dir/x")),
        ("at/", Dangling, Ok("nowhere/x")),
    ];
    for (to, before, expected) in file {
        for kind in ["file", "symlink", "pipe"] {
            let stage = Stage::new();
            put(&stage, before);
            match kind {
                "file" => fs::write(stage.source_path("x"), "new").unwrap(),
                "symlink" => symlink("elsewhere", stage.source_path("x")).unwrap(),
                _ => stage.source.mkfifo("x", 0o600).unwrap(),
            }
            let outcome = stage.copy_with("x", to, |request| request.follow_source_symlink = false);
            let shown = format!("{kind} to {to} with {before:?}");
            match (outcome, expected) {
                (Ok(_), Ok(at)) => {
                    let found = stage
                        .dest
                        .lstat(at)
                        .unwrap_or_else(|error| panic!("{shown}: {error}"));
                    let wanted = stage.source.lstat("x").unwrap();
                    assert_eq!(found.file_type, wanted.file_type, "{shown}");
                    assert_eq!(found.mtime, wanted.mtime, "{shown}");
                }
                (Err(error), Err(wanted)) => assert_eq!(error.to_string(), wanted, "{shown}"),
                (outcome, _) => panic!("{shown}: {outcome:?}"),
            }
            assert_eq!(text(&stage, "real-file"), "untouched", "{shown}");
        }
    }
    let directory: [(&str, Before, Result<&str, &str>); 12] = [
        ("at", Nothing, Ok("at/f")),
        ("at", File, Err("at is not a directory")),
        ("at", Directory, Ok("at/f")),
        ("at", LinkToFile, Err("at is not a directory")),
        ("at", LinkToDirectory, Ok("real-dir/f")),
        ("at", Dangling, Ok("nowhere/f")),
        ("at/", Nothing, Ok("at/f")),
        ("at/", File, Err("at is not a directory")),
        ("at/", Directory, Ok("at/f")),
        ("at/", LinkToFile, Err("at is not a directory")),
        ("at/", LinkToDirectory, Ok("real-dir/f")),
        ("at/", Dangling, Ok("nowhere/f")),
    ];
    for (to, before, expected) in directory {
        let stage = Stage::new();
        put(&stage, before);
        fs::create_dir(stage.source_path("x")).unwrap();
        fs::write(stage.source_path("x/f"), "new").unwrap();
        match (stage.copy("x", to), expected) {
            (Ok(_), Ok(at)) => assert_eq!(text(&stage, at), "new"),
            (Err(error), Err(wanted)) => assert_eq!(error.to_string(), wanted),
            (outcome, _) => panic!("directory to {to} with {before:?}: {outcome:?}"),
        }
        assert_eq!(text(&stage, "real-file"), "untouched");
    }
}

#[test]
fn a_directory_itself() {
    for (to, exists, expected) in [
        ("new", false, "new/f"),
        ("new/", false, "new/x/f"),
        ("old", true, "old/x/f"),
        ("a/b", false, "a/b/f"),
    ] {
        let stage = Stage::new();
        fs::create_dir(stage.source_path("x")).unwrap();
        fs::write(stage.source_path("x/f"), "1").unwrap();
        fs::hard_link(stage.source_path("x/f"), stage.source_path("x/g")).unwrap();
        stage.source.chmod("x", 0o710).unwrap();
        if exists {
            fs::create_dir(stage.dest_path("old")).unwrap();
        }
        stage
            .copy_with("x", to, |request| request.copy_dir_contents = false)
            .unwrap();
        assert_eq!(text(&stage, expected), "1", "{to}");
        let copied = path(expected).parent().unwrap();
        assert_eq!(stage.dest.lstat(&copied).unwrap().mode, 0o710, "{to}");
        assert_eq!(stage.dest.lstat(expected).unwrap().nlink, 2, "{to}");
    }
}

#[test]
fn everything_about_entries_is_kept() {
    let stage = Stage::new();
    let source = &stage.source;
    source.create_dir_all("d/deep", 0o755, None).unwrap();
    source.chmod("d/deep", 0o2750).unwrap();
    fs::write(stage.source_path("d/file"), "bytes").unwrap();
    source.chmod("d/file", 0o4711).unwrap();
    source.hard_link("d/file", "d/deep/twin").unwrap();
    source.hard_link("d/file", "again").unwrap();
    source.symlink("/no/where", "d/link").unwrap();
    source.mkfifo("d/pipe", 0o620).unwrap();
    source.mksocket("d/socket", 0o755).unwrap();
    fs::write(stage.source_path("large"), vec![3; 700_000]).unwrap();
    source.set_xattr("d/file", "user.name", b"value").unwrap();
    source.set_xattr("d/deep", "user.dir", b"x").unwrap();
    let root = is_root();
    if root {
        source
            .mknod("d/null", crate::root::Device::Char(1, 3), 0o666)
            .unwrap();
        source
            .mknod("d/disk", crate::root::Device::Block(8, 1), 0o660)
            .unwrap();
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        fs::write(stage.source_path("capable"), "").unwrap();
        source.chown("capable", 3, 4).unwrap();
        source
            .set_xattr("capable", "security.capability", &capability)
            .unwrap();
        source.set_xattr("d/link", "trusted.on-link", b"t").unwrap();
        for path in ["d", "d/link", "d/file", "d/pipe"] {
            source.chown(path, 1000, 2000).unwrap();
        }
        source.chmod("d/file", 0o4711).unwrap();
    }
    let time = Timestamp {
        secs: 1_000_000_000,
        nanos: 42,
    };
    for path in ["d/link", "d/file", "d/pipe", "d/deep", "d"] {
        source.set_times(path, time).unwrap();
    }
    let copied = stage.copy("", "/").unwrap();
    let (from, to) = (stage.listing(), list(&stage.dest));
    for (from, to) in from.entries().iter().zip(to.entries()) {
        assert_eq!(from, to);
    }
    assert_eq!(from.len(), to.len());
    assert_eq!(copied.entries, from.len() as u64);
    assert_eq!(copied.bytes, 700_000 + 5);
    assert_eq!(copied.refused, Refused::default());
    // Once more, onto itself: everything is replaced.
    stage.copy("", "/").unwrap();
    assert_eq!(list(&stage.dest), from);
}

#[test]
fn nested_directories_are_overwritten_and_the_top_one_kept() {
    let stage = Stage::new();
    fs::create_dir_all(stage.source_path("x/sub")).unwrap();
    stage.source.chmod("x", 0o700).unwrap();
    stage.source.chmod("x/sub", 0o711).unwrap();
    fs::create_dir_all(stage.dest_path("at/sub")).unwrap();
    fs::write(stage.dest_path("at/sub/kept"), "").unwrap();
    stage.dest.chmod("at", 0o755).unwrap();
    stage.dest.chmod("at/sub", 0o777).unwrap();
    stage.copy("x", "at").unwrap();
    assert_eq!(stage.dest.lstat("at").unwrap().mode, 0o755);
    assert_eq!(stage.dest.lstat("at/sub").unwrap().mode, 0o711);
    assert_eq!(
        stage.dest.lstat("at/sub").unwrap().mtime,
        stage.source.lstat("x/sub").unwrap().mtime
    );
    assert!(stage.dest_path("at/sub/kept").exists());
    // One that is made new gets the usual mode and not the source's.
    stage.copy("x", "new").unwrap();
    assert_eq!(stage.dest.lstat("new").unwrap().mode, 0o755);
}

#[test]
fn nothing_is_written_through_nested_symlinks() {
    let stage = Stage::new();
    fs::create_dir_all(stage.source_path("x/sub")).unwrap();
    fs::write(stage.source_path("x/sub/secret"), "new").unwrap();
    fs::write(stage.source_path("x/link"), "new").unwrap();
    symlink("../..", stage.dest_path("sub")).unwrap();
    symlink("../secret", stage.dest_path("link")).unwrap();
    let error = stage.copy("x", "/").unwrap_err();
    assert!(
        matches!(&error, CopyError::OntoFile { dest, .. } if dest == "sub"),
        "{error}"
    );
    fs::remove_file(stage.dest_path("sub")).unwrap();
    stage.copy("x", "/").unwrap();
    assert_eq!(stage.dest.lstat("link").unwrap().file_type, FileType::File);
    assert_eq!(text(&stage, "sub/secret"), "new");
    // A file onto a directory, below.
    fs::create_dir(stage.dest_path("y")).unwrap();
    fs::create_dir(stage.dest_path("y/link")).unwrap();
    let error = stage.copy("x", "y").unwrap_err();
    assert!(
        matches!(&error, CopyError::OntoDirectory { dest, .. } if dest == "link"),
        "{error}"
    );
    let error = stage.copy("x/link", "y/").unwrap_err();
    assert!(matches!(&error, CopyError::OntoDirectory { .. }), "{error}");
}

#[test]
fn symlinked_parents_stay_inside() {
    let stage = Stage::new();
    fs::write(stage.source_path("f"), "1").unwrap();
    symlink("../../..", stage.dest_path("up")).unwrap();
    symlink("/usr/bin", stage.dest_path("bin")).unwrap();
    stage.copy("f", "up/secret").unwrap();
    assert_eq!(text(&stage, "secret"), "1");
    stage.copy("f", "/bin/tool").unwrap();
    assert_eq!(text(&stage, "usr/bin/tool"), "1");
    stage.copy("f", "../../../a/../b/c/").unwrap();
    assert_eq!(text(&stage, "b/c/f"), "1");
}

#[test]
fn source_symlinks() {
    let stage = Stage::new();
    fs::create_dir(stage.source_path("real")).unwrap();
    fs::write(stage.source_path("real/f"), "1").unwrap();
    symlink("real", stage.source_path("dir-link")).unwrap();
    symlink("/dir-link/f", stage.source_path("file-link")).unwrap();
    symlink("../../secret", stage.source_path("out")).unwrap();
    symlink("loop", stage.source_path("loop")).unwrap();
    symlink("f", stage.source_path("real/inner")).unwrap();
    stage.copy("dir-link", "a").unwrap();
    assert_eq!(text(&stage, "a/f"), "1");
    assert_eq!(
        get(&stage.dest, "a/inner").kind,
        EntryKind::Symlink {
            target: b"f".to_vec()
        }
    );
    stage.copy("file-link", "b/").unwrap();
    assert_eq!(
        get(&stage.dest, "b/file-link").kind,
        get(&stage.source, "real/f").kind
    );
    stage
        .copy_with("file-link", "c/", |request| request.follow_source_symlink = false)
        .unwrap();
    assert_eq!(
        get(&stage.dest, "c/file-link").kind,
        get(&stage.source, "file-link").kind
    );
    stage.copy("dir-link/f", "d").unwrap();
    assert!(matches!(stage.copy("out", "e"), Err(CopyError::NotFound { path: at }) if at == path("secret")));
    assert!(matches!(
        stage.copy("loop", "e"),
        Err(CopyError::SymlinkLoop { .. })
    ));
    assert!(matches!(stage.copy("none/x", "e"), Err(CopyError::NotFound { path: at }) if at == path("none")));
}

#[test]
fn a_destination_symlink_is_followed_when_asked() {
    for (target, expected) in [("real", "real"), ("/d/../real", "real"), ("new/deep", "new/deep")] {
        let stage = Stage::new();
        fs::write(stage.source_path("f"), "1").unwrap();
        fs::write(stage.dest_path("real"), "0").unwrap();
        fs::create_dir(stage.dest_path("d")).unwrap();
        symlink(target, stage.dest_path("link")).unwrap();
        stage
            .copy_with("f", "link", |request| request.follow_dest_symlink = true)
            .unwrap();
        assert_eq!(text(&stage, expected), "1");
        assert_eq!(stage.dest.lstat("link").unwrap().file_type, FileType::Symlink);
    }
    let stage = Stage::new();
    fs::write(stage.source_path("f"), "1").unwrap();
    symlink("link", stage.dest_path("link")).unwrap();
    let outcome = stage.copy_with("f", "link", |request| request.follow_dest_symlink = true);
    assert!(outcome.is_err());
}

#[test]
fn owner_and_mode_of_the_request() {
    let stage = Stage::new();
    fs::create_dir_all(stage.source_path("x/sub")).unwrap();
    fs::write(stage.source_path("x/plain"), "").unwrap();
    fs::write(stage.source_path("x/sub/tool"), "").unwrap();
    symlink("tool", stage.source_path("x/sub/link")).unwrap();
    stage.source.chmod("x/plain", 0o600).unwrap();
    stage.source.chmod("x/sub/tool", 0o700).unwrap();
    let mode = |at: &str| stage.dest.lstat(at).unwrap().mode;
    stage
        .copy_with("x", "p/symbolic", |request| {
            request.mode = "u=rwX,go=rX".parse().ok();
        })
        .unwrap();
    assert_eq!(
        [
            "p",
            "p/symbolic",
            "p/symbolic/plain",
            "p/symbolic/sub",
            "p/symbolic/sub/tool"
        ]
        .map(mode),
        [0o755, 0o755, 0o644, 0o755, 0o755]
    );
    stage
        .copy_with("x", "q/octal", |request| request.mode = "4750".parse().ok())
        .unwrap();
    assert_eq!(
        ["q", "q/octal", "q/octal/plain", "q/octal/sub", "q/octal/sub/tool"].map(mode),
        // Directories on the way take no set-id bits.
        [0o750, 0o750, 0o4750, 0o4750, 0o4750]
    );
    if !is_root() {
        return;
    }
    let owner = |at: &str| stage.dest.lstat(at).map(|found| (found.uid, found.gid)).unwrap();
    stage.source.chown("x/plain", 11, 12).unwrap();
    stage.copy("x", "r/kept").unwrap();
    assert_eq!(
        ["r", "r/kept", "r/kept/plain", "r/kept/sub"].map(owner),
        [(0, 0), (0, 0), (11, 12), (0, 0)]
    );
    fs::create_dir(stage.dest_path("old")).unwrap();
    stage
        .copy_with("x", "old/s/t", |request| request.owner = Some((5, 6)))
        .unwrap();
    assert_eq!(
        [
            "old",
            "old/s",
            "old/s/t",
            "old/s/t/plain",
            "old/s/t/sub",
            "old/s/t/sub/link"
        ]
        .map(owner),
        [(0, 0), (5, 6), (5, 6), (5, 6), (5, 6), (5, 6)]
    );
    // Set-id bits outlive the change of owner.
    stage.source.chmod("x/plain", 0o6755).unwrap();
    stage
        .copy_with("x/plain", "u", |request| request.owner = Some((5, 6)))
        .unwrap();
    assert_eq!((owner("u"), mode("u")), ((5, 6), 0o6755));
}

#[test]
fn exclusion() {
    let stage = Stage::new();
    fs::create_dir_all(stage.source_path("x/keep/a")).unwrap();
    fs::create_dir_all(stage.source_path("x/drop/b")).unwrap();
    for file in ["x/keep/a/f", "x/drop/f", "x/drop/b/exception", "x/f"] {
        fs::write(stage.source_path(file), file).unwrap();
    }
    fs::hard_link(stage.source_path("x/drop/f"), stage.source_path("x/keep/linked")).unwrap();
    fs::hard_link(
        stage.source_path("x/drop/f"),
        stage.source_path("x/keep/linked-too"),
    )
    .unwrap();
    let exclude = |at: &TreePath| at.starts_with(&path("drop")) && at.file_name() != Some(b"exception");
    stage.copy_excluding("x", "/", &exclude).unwrap();
    assert_eq!(
        paths(&stage.dest),
        [
            "drop",
            "drop/b",
            "drop/b/exception",
            "f",
            "keep",
            "keep/a",
            "keep/a/f",
            "keep/linked",
            "keep/linked-too"
        ]
    );
    assert_eq!(text(&stage, "keep/linked"), "x/drop/f");
    assert_eq!(stage.dest.lstat("keep/linked").unwrap().nlink, 2);
    // A single file is asked by its name.
    let exclude = |at: &TreePath| at == &path("f");
    let copied = stage.copy_excluding("x/f", "/single/", &exclude).unwrap();
    assert_eq!(copied.entries, 0);
    assert!(!stage.dest_path("single/f").exists());
}

/// Directories that are only on the way to what is copied: new ones look as in the source; of those that are there, the
/// mode alone changes.
#[test]
fn directories_on_the_way_of_a_filtered_copy() {
    if !is_root() {
        eprintln!("SKIPPED: needs root to change owners");
        return;
    }
    let stage = Stage::new();
    for dir in ["old/taken", "new"] {
        fs::create_dir_all(stage.source_path(dir)).unwrap();
    }
    for (dir, mode) in [("old", 0o711), ("old/taken", 0o722), ("new", 0o733)] {
        fs::write(stage.source_path(dir).join("f"), dir).unwrap();
        stage.source.chmod(dir, mode).unwrap();
        stage.source.chown(dir, 3, 4).unwrap();
    }
    fs::create_dir_all(stage.dest_path("old/taken")).unwrap();
    stage.dest.chown("old", 1, 2).unwrap();
    stage.dest.chown("old/taken", 1, 2).unwrap();
    let exclude = |at: &TreePath| !at.starts_with(&path("old/taken")) && *at != path("new/f");
    let listing = stage.listing();
    let source = ListedSource {
        root: &stage.source,
        listing: &listing,
        verify: false,
    };
    let mut request = CopyRequest::new(&source, path(""), b"/");
    request.exclude = Some(&exclude);
    copy(&request, &stage.dest).unwrap();
    let looks = |at: &str| {
        let entry = get(&stage.dest, at);
        (entry.mode, entry.uid, entry.gid)
    };
    assert_eq!(looks("old"), (0o711, 1, 2));
    assert_eq!(looks("old/taken"), (0o722, 3, 4), "taken itself");
    assert_eq!(looks("new"), (0o733, 3, 4));
    assert_eq!(
        paths(&stage.dest),
        ["new", "new/f", "old", "old/taken", "old/taken/f"]
    );
}

#[test]
fn times_are_clamped() {
    let stage = Stage::new();
    fs::create_dir(stage.source_path("x")).unwrap();
    for file in ["x/old", "x/new"] {
        fs::write(stage.source_path(file), "").unwrap();
    }
    let clamp = Timestamp {
        secs: 1_500_000_000,
        nanos: 0,
    };
    let old = Timestamp {
        secs: 1_400_000_000,
        nanos: 9,
    };
    stage.source.set_times("x/old", old).unwrap();
    stage
        .copy_with("x", "a/b", |request| request.clamp_mtime = Some(clamp))
        .unwrap();
    let mtime = |at: &str| stage.dest.lstat(at).unwrap().mtime;
    assert_eq!(
        ["a", "a/b", "a/b/old", "a/b/new"].map(mtime),
        [clamp, clamp, old, clamp]
    );
    // Directories that are there already are left alone, also on the way through a dangling link.
    symlink("run/lock", stage.dest_path("dangling")).unwrap();
    let before = mtime("");
    stage
        .copy_with("x", "dangling/c", |request| request.clamp_mtime = Some(clamp))
        .unwrap();
    assert_eq!(
        ["run", "run/lock", "run/lock/c", "run/lock/c/new"].map(mtime),
        [clamp; 4]
    );
    assert!(mtime("") >= before);
}

type Change = fn(&Stage);

#[test]
fn a_file_that_changed_since_it_was_listed_is_noticed() {
    let changes: [(&str, Change); 5] = [
        ("same length", |stage| {
            fs::write(stage.source_path("d/f"), "other").unwrap();
        }),
        ("longer", |stage| {
            fs::write(stage.source_path("d/f"), "bytes and more").unwrap();
        }),
        ("gone", |stage| fs::remove_file(stage.source_path("d/f")).unwrap()),
        ("a symlink out", |stage| {
            fs::remove_file(stage.source_path("d/f")).unwrap();
            symlink("../../secret", stage.source_path("d/f")).unwrap();
        }),
        ("its directory a symlink", |stage| {
            fs::rename(stage.source_path("d"), stage.source_path("e")).unwrap();
            symlink("e", stage.source_path("d")).unwrap();
        }),
    ];
    for (what, change) in changes {
        let stage = Stage::new();
        fs::create_dir(stage.source_path("d")).unwrap();
        fs::write(stage.source_path("d/f"), "bytes").unwrap();
        let listing = stage.listing();
        let source = ListedSource {
            root: &stage.source,
            listing: &listing,
            verify: true,
        };
        let request = CopyRequest::new(&source, TreePath::root(), b"/");
        copy(&request, &stage.dest).unwrap();
        change(&stage);
        match copy(&request, &stage.dest) {
            Err(CopyError::Changed { path: at }) => assert!(at.starts_with(&path("d")), "{what}: {at}"),
            other => panic!("{what}: {other:?}"),
        }
    }
}

/// Counts what a [`Prehashed`] knows and does not know.
struct Counting<'a>(&'a Prehashed, std::sync::Mutex<(u32, Vec<TreePath>)>);

impl HashMemory for Counting<'_> {
    fn recall(&self, path: &TreePath, key: &StatKey) -> Option<ContentHash> {
        let found = self.0.recall(path, key);
        self.1.lock().unwrap().0 += u32::from(found.is_some());
        found
    }

    fn remember(&self, path: &TreePath, _key: &StatKey, _content: ContentHash) {
        self.1.lock().unwrap().1.push(path.clone());
    }
}

#[test]
fn a_layer_of_copied_files_need_not_be_read_again() {
    if !may_mount() {
        return;
    }
    let stage = Stage::new();
    for dir in 0..3 {
        fs::create_dir(stage.source_path(&format!("d{dir}"))).unwrap();
        for file in 0..100 {
            fs::write(
                stage.source_path(&format!("d{dir}/f{file}")),
                format!("{dir} {file}"),
            )
            .unwrap();
        }
    }
    for dir in ["lower", "upper", "work"] {
        stage.dest.create_dir(dir, 0o755).unwrap();
    }
    fs::write(stage.dest_path("lower/d0"), "in the way").unwrap();
    let dirs = ["lower", "upper", "work"].map(|dir| stage.dest_path(dir));
    let Some(mount) = mount_overlay(&[&dirs[0]], &dirs[1], &dirs[2]) else {
        return;
    };
    mount.remove_file("d0").unwrap();
    let listing = stage.listing();
    for verify in [true, false] {
        let source = ListedSource {
            root: &stage.source,
            listing: &listing,
            verify,
        };
        let copied = copy(&CopyRequest::new(&source, TreePath::root(), b"/app"), &mount).unwrap();
        assert_eq!(copied.prehashed.len(), 300);
        let upper = stage.dest.open_dir("upper").unwrap();
        let memory = Counting(&copied.prehashed, std::sync::Mutex::default());
        let layer = walk::layer_with(std::os::fd::AsFd::as_fd(&upper), &memory).unwrap();
        let (hits, read) = memory.1.into_inner().unwrap();
        assert_eq!((hits, read), (300, vec![]));
        assert_eq!(layer, walk::layer(std::os::fd::AsFd::as_fd(&upper)).unwrap());
        assert_eq!(layer.get(&path("d0")).unwrap().kind, EntryKind::Whiteout);
        let app: Vec<_> = layer
            .below(&path("app"))
            .iter()
            .map(|entry| &entry.kind)
            .collect();
        let from: Vec<_> = listing.entries().iter().map(|entry| &entry.kind).collect();
        assert_eq!(app, from);
    }
}

#[test]
fn deep_and_wide_trees() {
    let stage = Stage::new();
    let name = "directory-with-a-long-name-".repeat(5);
    let mut deep = stage.source.try_clone().unwrap();
    for _ in 0..60 {
        deep.create_dir(&name, 0o755).unwrap();
        deep = deep.sub_root(&name).unwrap();
    }
    std::io::Write::write_all(&mut deep.create_file("f", 0o644).unwrap(), b"deep").unwrap();
    fs::create_dir(stage.source_path("wide")).unwrap();
    for file in 0..300 {
        fs::write(stage.source_path(&format!("wide/{file}")), file.to_string()).unwrap();
    }
    stage.copy("", "/").unwrap();
    assert_eq!(list(&stage.dest), stage.listing());
}
