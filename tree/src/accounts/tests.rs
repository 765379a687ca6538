use super::{AccountError, Identity, identity, owner};
use crate::Root;
use crate::testing::TempDir;

const PASSWD: &str = "\
# a comment
root:x:0:0:root:/root:/bin/sh
app:x:1000:1001:App:/home/app:/bin/sh
1500:x:7:8:a name that is a number:/odd:
number:x:1500:1501::/home/number:/bin/sh
  spaced:x:1600:1601::/home/spaced:/bin/sh  
short:x:1
words:x:one:two::/:
huge:x:4294967296:1::/:
bare:x:9:9
:::
app:x:2000:2000:the second one:/other:
";

const GROUP: &str = "\
root:x:0:
app:x:1001:
wheel:x:10:root,app
audio:x:29:other, app,app
video:x:44:app
staff:x:50
broken:x:many:app
2000:x:77:
";

/// A root with these account files.
fn with(passwd: Option<&str>, group: Option<&str>, test: impl FnOnce(&Root)) {
    let dir = TempDir::new();
    std::fs::create_dir(dir.path().join("etc")).unwrap();
    for (name, text) in [("passwd", passwd), ("group", group)] {
        if let Some(text) = text {
            std::fs::write(dir.path().join("etc").join(name), text).unwrap();
        }
    }
    test(&Root::open(dir.path()).unwrap());
}

#[test]
fn whom_a_process_runs_as() {
    with(Some(PASSWD), Some(GROUP), |root| {
        let table: &[(&str, u32, u32, &[u32], &str)] = &[
            ("", 0, 0, &[0, 10], "/root"),
            ("root", 0, 0, &[0, 10], "/root"),
            ("0", 0, 0, &[0, 10], "/root"),
            ("app", 1000, 1001, &[1001, 10, 29, 44], "/home/app"),
            ("1000", 1000, 1001, &[1001, 10, 29, 44], "/home/app"),
            ("app:", 1000, 1001, &[1001, 10, 29, 44], "/home/app"),
            // A group that is named is the only one. The primary one is always among them.
            ("app:staff", 1000, 50, &[50], "/home/app"),
            ("app:99", 1000, 99, &[99], "/home/app"),
            (":staff", 0, 50, &[50], "/root"),
            ("4242", 4242, 0, &[0], "/"),
            ("4242:4243", 4242, 4243, &[4243], "/"),
            // A number is always an id.
            ("1500", 1500, 1501, &[1501], "/home/number"),
            ("app:2000", 1000, 2000, &[2000], "/home/app"),
            ("spaced", 1600, 1601, &[1601], "/home/spaced"),
            ("bare", 9, 9, &[9], "/"),
        ];
        for &(spec, uid, gid, groups, home) in table {
            let expected = Identity {
                uid,
                gid,
                groups: groups.to_vec(),
                home: home.to_owned(),
            };
            assert_eq!(identity(root, spec).unwrap(), expected, "{spec:?}");
        }
        for (spec, wanted) in [
            ("nobody", "user"),
            ("App", "user"),
            ("-1", "user"),
            ("4294967296", "user"),
            ("short", "user"),
            ("words", "user"),
            ("huge", "user"),
            ("app:none", "group"),
            ("app:broken", "group"),
            ("nobody:none", "user"),
        ] {
            match identity(root, spec) {
                Err(AccountError::Unknown { kind, .. }) => assert_eq!(kind, wanted, "{spec:?}"),
                other => panic!("{spec:?}: {other:?}"),
            }
        }
    });
}

#[test]
fn whom_a_copy_belongs_to() {
    with(Some(PASSWD), Some(GROUP), |root| {
        for (spec, expected) in [
            ("root", (0, 0)),
            ("0", (0, 0)),
            ("app", (1000, 1001)),
            ("app:staff", (1000, 50)),
            ("app:7", (1000, 7)),
            // A number alone is user and group.
            ("1000", (1000, 1000)),
            ("1000:", (1000, 1000)),
            ("1000:staff", (1000, 50)),
            ("1000:1", (1000, 1)),
            (":staff", (0, 50)),
            ("root:wheel", (0, 10)),
        ] {
            assert_eq!(owner(root, spec).unwrap(), expected, "{spec:?}");
        }
        assert!(matches!(
            owner(root, "nobody"),
            Err(AccountError::Unknown { kind: "user", .. })
        ));
        assert!(matches!(
            owner(root, "1:none"),
            Err(AccountError::Unknown { kind: "group", .. })
        ));
    });
}

#[test]
fn without_account_files_numbers_and_root_work() {
    with(None, None, |root| {
        for (spec, uid, gid) in [
            ("", 0, 0),
            ("root", 0, 0),
            ("root:root", 0, 0),
            ("5", 5, 0),
            ("5:6", 5, 6),
        ] {
            let found = identity(root, spec).unwrap();
            assert_eq!(
                (found.uid, found.gid, found.home.as_str()),
                (uid, gid, "/"),
                "{spec:?}"
            );
        }
        assert_eq!(owner(root, "5:root").unwrap(), (5, 0));
        match identity(root, "app") {
            Err(error @ AccountError::Unknown { .. }) => {
                assert_eq!(error.to_string(), "no user \"app\" in /etc/passwd of the image");
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(
            owner(root, "app"),
            Err(AccountError::Unknown { kind: "user", .. })
        ));
    });
}

#[test]
fn files_that_are_none_are_an_error() {
    let dir = TempDir::new();
    std::fs::create_dir_all(dir.path().join("etc/passwd")).unwrap();
    let root = Root::open(dir.path()).unwrap();
    assert!(matches!(
        identity(&root, "app"),
        Err(AccountError::Read {
            file: "/etc/passwd",
            ..
        })
    ));
    // Numbers that need no file get on without.
    assert_eq!(owner(&root, "1:2").unwrap(), (1, 2));
    std::fs::remove_dir(dir.path().join("etc/passwd")).unwrap();
    // A pipe does not hold anybody up.
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path().join("etc/passwd"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    assert!(matches!(identity(&root, "app"), Err(AccountError::Read { .. })));
}

#[test]
fn links_do_not_lead_out_of_the_image() {
    let dir = TempDir::new();
    std::fs::create_dir(dir.path().join("etc")).unwrap();
    std::os::unix::fs::symlink("../../../../../../lib/passwd", dir.path().join("etc/passwd")).unwrap();
    std::fs::create_dir(dir.path().join("lib")).unwrap();
    std::fs::write(dir.path().join("lib/passwd"), "inside:x:3:4::/in:\n").unwrap();
    let root = Root::open(dir.path()).unwrap();
    assert_eq!(identity(&root, "inside").unwrap().uid, 3);
}
