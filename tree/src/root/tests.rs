//! What every operation does in a hostile tree, by both ways of resolving paths.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use super::{Device, FileType, Root};
use crate::Timestamp;
use crate::root::resolve::{Resolver, open_dir_beneath};
use crate::testing::{TempDir, is_root};

/// Runs `test` once a way of resolving, each in a fresh directory `root` with a secret beside it.
fn both(test: impl Fn(&Root, &Path)) {
    for resolver in [Resolver::Kernel, Resolver::Components] {
        let temp = TempDir::new();
        let inside = temp.path().join("root");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(temp.path().join("secret"), "outside").unwrap();
        let mut root = Root::open(&inside).unwrap();
        root.resolver = resolver;
        test(&root, &inside);
        assert_eq!(
            std::fs::read_to_string(temp.path().join("secret")).unwrap(),
            "outside"
        );
        let beside: Vec<_> = std::fs::read_dir(temp.path()).unwrap().collect();
        assert_eq!(beside.len(), 2, "something was made outside: {beside:?}");
    }
}

fn text(root: &Root, path: &str) -> String {
    let mut text = String::new();
    root.open_read(path).unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn no_path_leads_outside() {
    both(|root, dir| {
        std::fs::create_dir_all(dir.join("a/b")).unwrap();
        std::fs::write(dir.join("secret"), "inside").unwrap();
        symlink("../../../secret", dir.join("a/up")).unwrap();
        symlink("/secret", dir.join("a/absolute")).unwrap();
        symlink("/", dir.join("a/b/top")).unwrap();
        symlink("../../..", dir.join("a/b/far")).unwrap();
        for path in [
            "secret",
            "/secret",
            "../secret",
            "/../../secret",
            "a/../../secret",
            "a/b/../../../../secret",
            "a/up",
            "a/absolute",
            "a/b/top/secret",
            "a/b/far/secret",
            "a/b/far/../secret",
            "a/b/top/a/b/top/a/up",
            "./a/./up",
            "//a//up//",
        ] {
            assert_eq!(text(root, path), "inside", "{path}");
            assert_eq!(root.stat(path).unwrap().file_type, FileType::File, "{path}");
        }
        root.create_file("a/b/far/../new", 0o644).unwrap();
        root.create_dir("a/b/top/../dir", 0o755).unwrap();
        root.create_dir_all("a/b/far/x/../y/z", 0o755, None).unwrap();
        for path in ["new", "dir", "x", "y/z"] {
            assert!(dir.join(path).exists(), "{path}");
        }
    });
}

#[test]
fn loops_and_dead_ends_are_errors() {
    both(|root, dir| {
        symlink("loop", dir.join("loop")).unwrap();
        symlink("two", dir.join("one")).unwrap();
        symlink("one", dir.join("two")).unwrap();
        symlink("nowhere", dir.join("dangling")).unwrap();
        std::fs::write(dir.join("file"), "").unwrap();
        let errno = |path: &str| root.stat(path).unwrap_err().io().unwrap().raw_os_error();
        let code = |errno: rustix::io::Errno| Some(errno.raw_os_error());
        assert_eq!(errno("loop"), code(rustix::io::Errno::LOOP));
        assert_eq!(errno("one/x"), code(rustix::io::Errno::LOOP));
        assert_eq!(errno("dangling"), code(rustix::io::Errno::NOENT));
        assert_eq!(errno("file/x"), code(rustix::io::Errno::NOTDIR));
        assert_eq!(errno("none/x"), code(rustix::io::Errno::NOENT));
        assert_eq!(root.lstat("loop").unwrap().file_type, FileType::Symlink);
        assert_eq!(root.lstat_opt("none/x").unwrap(), None);
        assert_eq!(root.lstat_opt("file/x").unwrap(), None);
        assert!(root.create_dir_all("loop/x", 0o755, None).is_err());
        assert!(root.stat("a\0b").is_err());
    });
}

#[test]
fn a_long_path_of_many_links_resolves_alike() {
    both(|root, dir| {
        // 40 links are followed, 41 are not, by both.
        std::fs::write(dir.join("l0"), "end").unwrap();
        for at in 1..=41 {
            symlink(format!("l{}", at - 1), dir.join(format!("l{at}"))).unwrap();
        }
        assert_eq!(text(root, "l40"), "end");
        assert!(root.open_read("l41").is_err());
    });
}

#[test]
fn a_tree_deeper_than_a_path_can_be_long() {
    both(|root, _| {
        let name = "d".repeat(250);
        let mut deep = Root {
            fd: root.as_fd().try_clone_to_owned().unwrap(),
            resolver: root.resolver,
        };
        let mut path = Vec::new();
        for _ in 0..40 {
            deep.create_dir(&name, 0o755).unwrap();
            deep = deep.sub_root(&name).unwrap();
            path.extend_from_slice(name.as_bytes());
            path.push(b'/');
        }
        deep.create_file("file", 0o600)
            .unwrap()
            .write_all(b"deep")
            .unwrap();
        path.pop();
        let fd = open_dir_beneath(root.as_fd(), &path, rustix::fs::OFlags::RDONLY).unwrap();
        assert_eq!(super::read_dir_unchecked(&fd).unwrap()[0].name, b"file");
        assert_eq!(root.read([&path[..], b"/file"].concat(), 10).unwrap(), b"deep");
        assert!(root.remove_all(&name).unwrap());
        assert!(root.read_dir("").unwrap().is_empty());
    });
}

#[test]
fn open_beneath_refuses_symlinks() {
    both(|root, dir| {
        std::fs::create_dir_all(dir.join("a/b")).unwrap();
        symlink("a", dir.join("link")).unwrap();
        let open = |path: &[u8]| open_dir_beneath(root.as_fd(), path, rustix::fs::OFlags::PATH);
        let by_components =
            |path: &[u8]| super::component::open_dir_beneath(root.as_fd(), path, rustix::fs::OFlags::PATH);
        for (path, works) in [
            (&b"a/b"[..], true),
            (b"link/b", false),
            (b"link", false),
            (b"a/none", false),
        ] {
            assert_eq!(open(path).is_ok(), works);
            assert_eq!(by_components(path).is_ok(), works);
        }
    });
}

#[test]
fn files_are_created_anew() {
    both(|root, dir| {
        std::fs::write(dir.join("target"), "kept").unwrap();
        symlink("target", dir.join("link")).unwrap();
        let mut file = root.create_file("link", 0o4755).unwrap();
        assert_eq!(root.lstat("link").unwrap().mode, 0o4755);
        file.write_all(b"new").unwrap();
        assert_eq!(text(root, "target"), "kept");
        assert_eq!(text(root, "link"), "new");
        std::fs::create_dir(dir.join("dir")).unwrap();
        assert_eq!(
            root.create_file("dir", 0o644).unwrap_err().kind(),
            ErrorKind::IsADirectory
        );
        assert_eq!(
            root.create_file("", 0o644).unwrap_err().kind(),
            ErrorKind::IsADirectory
        );
    });
}

#[test]
fn directories_are_made_through_links() {
    both(|root, dir| {
        std::fs::create_dir(dir.join("real")).unwrap();
        symlink("/real", dir.join("link")).unwrap();
        symlink("../run/./lock", dir.join("real/dangling")).unwrap();
        assert_eq!(root.create_dir_all("link/a/b", 0o711, None).unwrap(), 2);
        assert_eq!(root.create_dir_all("/link/a/b/", 0o755, None).unwrap(), 0);
        assert_eq!(
            dir.join("real/a/b").metadata().unwrap().permissions().mode() & 0o7777,
            0o711
        );
        assert_eq!(root.create_dir_all("link/dangling/x", 0o755, None).unwrap(), 3);
        assert!(dir.join("run/lock/x").is_dir());
        std::fs::write(dir.join("file"), "").unwrap();
        let error = root.create_dir_all("file/x", 0o755, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotADirectory);
    });
}

#[test]
fn metadata_is_set_on_links_themselves() {
    both(|root, dir| {
        std::fs::write(dir.join("target"), "").unwrap();
        symlink("target", dir.join("link")).unwrap();
        let time = Timestamp {
            secs: -5,
            nanos: 123_456_789,
        };
        root.set_times("link", time).unwrap();
        assert_eq!(root.lstat("link").unwrap().mtime, time);
        assert_ne!(root.lstat("target").unwrap().mtime, time);
        assert!(root.chmod("link", 0o600).is_err(), "a symlink has no mode");
        root.chmod("target", 0o2751).unwrap();
        assert_eq!(root.lstat("target").unwrap().mode, 0o2751);
        assert_eq!(root.read_link("link").unwrap(), b"target");
        root.chmod("", 0o750).unwrap();
        assert_eq!(dir.metadata().unwrap().mode() & 0o7777, 0o750);
        if is_root() {
            root.chown("link", 12, 34).unwrap();
            let owner = |path| {
                root.lstat(path)
                    .map(|metadata| (metadata.uid, metadata.gid))
                    .unwrap()
            };
            assert_eq!(owner("link"), (12, 34));
            assert_eq!(owner("target"), (0, 0));
        }
    });
}

#[test]
fn special_files() {
    both(|root, _| {
        root.mkfifo("pipe", 0o622).unwrap();
        root.mksocket("socket", 0o755).unwrap();
        assert_eq!(root.lstat("pipe").unwrap().mode, 0o622);
        assert_eq!(root.lstat("pipe").unwrap().file_type, FileType::Fifo);
        assert_eq!(root.lstat("socket").unwrap().file_type, FileType::Socket);
        assert!(root.open_read("pipe").is_err(), "must neither wait nor open");
        if is_root() {
            root.mknod("null", Device::Char(1, 3), 0o666).unwrap();
            let null = root.lstat("null").unwrap();
            assert_eq!(
                (null.file_type, null.device, null.mode),
                (FileType::CharDevice, (1, 3), 0o666)
            );
            assert!(root.open_read("null").is_err());
        }
    });
}

#[test]
fn names_and_links() {
    both(|root, _| {
        root.create_file("a", 0o644).unwrap().write_all(b"a").unwrap();
        root.hard_link("a", "b").unwrap();
        assert_eq!(root.lstat("b").unwrap().nlink, 2);
        root.symlink("b", "c").unwrap();
        assert_eq!(
            root.symlink("x", "c").unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        root.rename("c", "d").unwrap();
        assert_eq!(text(root, "/d"), "a");
        root.create_dir("e", 0o755).unwrap();
        let names = root.read_dir("").unwrap();
        let names: Vec<_> = names
            .iter()
            .map(|entry| (&entry.name[..], entry.file_type))
            .collect();
        assert_eq!(
            names,
            [
                (&b"a"[..], FileType::File),
                (b"b", FileType::File),
                (b"d", FileType::Symlink),
                (b"e", FileType::Directory)
            ]
        );
        root.remove_dir("e").unwrap();
        root.remove_file("d").unwrap();
        assert_eq!(root.remove_file("d").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(root.read("a", 1).unwrap(), b"a");
        root.create_file("a", 0o644).unwrap().write_all(b"ab").unwrap();
        assert_eq!(root.read("a", 1).unwrap_err().kind(), ErrorKind::FileTooLarge);
    });
}

#[test]
fn trees_are_removed_and_links_not_followed() {
    both(|root, dir| {
        std::fs::create_dir_all(dir.join("a/b/c")).unwrap();
        std::fs::create_dir_all(dir.join("a/d")).unwrap();
        std::fs::create_dir_all(dir.join("kept")).unwrap();
        std::fs::write(dir.join("kept/file"), "").unwrap();
        symlink("../kept", dir.join("a/link")).unwrap();
        symlink("../../secret", dir.join("a/b/out")).unwrap();
        assert!(root.remove_all("a").unwrap());
        assert!(!root.remove_all("a").unwrap());
        assert!(!root.remove_all("none/a").unwrap());
        assert!(dir.join("kept/file").exists());
        symlink("kept", dir.join("link")).unwrap();
        assert!(root.remove_all("link").unwrap());
        assert!(dir.join("kept/file").exists());
        root.remove_all("").unwrap();
        assert!(root.read_dir("").unwrap().is_empty());
        assert!(dir.exists());
    });
}

#[test]
fn extended_attributes() {
    both(|root, _| {
        root.create_file("f", 0o644).unwrap();
        if let Err(error) = root.set_xattr("f", "user.small", b"1") {
            eprintln!("SKIPPED: no user attributes on this file system: {error}");
            return;
        }
        // ext4 takes nearly 4 KiB for all together.
        let large = vec![7; 3000];
        root.set_xattr("f", "user.large", &large).unwrap();
        root.set_xattr("f", "user.empty", b"").unwrap();
        let mut names = root.list_xattrs("f").unwrap();
        names.retain(|name| name.starts_with(b"user."));
        names.sort();
        assert_eq!(names, [&b"user.empty"[..], b"user.large", b"user.small"]);
        assert_eq!(root.get_xattr("f", "user.large").unwrap(), Some(large));
        assert_eq!(root.get_xattr("f", "user.empty").unwrap(), Some(vec![]));
        assert_eq!(root.get_xattr("f", "user.none").unwrap(), None);
        root.set_xattr("", "user.top", b"x").unwrap();
        assert_eq!(root.get_xattr("/", "user.top").unwrap(), Some(b"x".to_vec()));
    });
}
