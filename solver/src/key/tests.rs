use kiln_cache::{Key, RecordKind};
use kiln_image::{Digest, Platform};
use kiln_tree::ContentHash;

use super::{RootIdentity, TakenIdentity, exec, file, image, scratch};
use crate::graph::{
    Copy, CopySource, Exec, ExtraHost, FileAction, FileOp, MakeDirectory, MakeFile, NetworkMode, SandboxFile,
    SecurityMode, SourceSpan, Ulimit,
};

fn platform() -> Platform {
    "linux/amd64".parse().expect("a platform")
}

fn root() -> RootIdentity {
    RootIdentity::Definition(Key([1; 32]))
}

fn command() -> Exec {
    Exec {
        args: vec!["sh".to_owned(), "-c".to_owned(), "make".to_owned()],
        env: vec!["PATH=/bin".to_owned(), "A=1".to_owned()],
        unkeyed_env: Vec::new(),
        cwd: "/src".to_owned(),
        user: "app".to_owned(),
        network: NetworkMode::Default,
        files: vec![SandboxFile {
            path: "/dev/script".to_owned(),
            data: b"echo".to_vec(),
            mode: 0o755,
        }],
        mounts: Vec::new(),
        security: SecurityMode::Sandbox,
        hostname: None,
        extra_hosts: Vec::new(),
        ulimits: Vec::new(),
    }
}

fn extra_host(name: &str, address: [u8; 4]) -> ExtraHost {
    ExtraHost {
        name: name.to_owned(),
        address: address.into(),
    }
}

fn ulimit(name: &str, value: i64) -> Ulimit {
    Ulimit {
        name: name.to_owned(),
        soft: value,
        hard: value,
    }
}

fn exec_key(edit: impl FnOnce(&mut Exec)) -> Key {
    let mut command = command();
    edit(&mut command);
    exec(
        RecordKind::Definition,
        &command,
        NetworkMode::Host,
        &platform(),
        root(),
        &[],
    )
    .0
}

fn copy() -> Copy {
    Copy {
        from: 1,
        sources: vec![CopySource {
            pattern: "a".to_owned(),
            span: None,
        }],
        destination: "/dst/".to_owned(),
        owner: None,
        mode: None,
        unpack: false,
    }
}

fn files() -> TakenIdentity {
    TakenIdentity::Files(ContentHash([2; 32]))
}

fn step() -> TakenIdentity {
    TakenIdentity::Definition(Key([3; 32]))
}

fn copy_key(identity: TakenIdentity, edit: impl FnOnce(&mut Copy)) -> Key {
    let mut copy = copy();
    edit(&mut copy);
    let op = FileOp {
        actions: vec![FileAction::Copy(copy)],
    };
    file(
        RecordKind::Definition,
        &op,
        &platform(),
        root(),
        &[Some(identity)],
    )
    .0
}

fn file_key(action: FileAction) -> Key {
    file(
        RecordKind::Definition,
        &FileOp {
            actions: vec![action],
        },
        &platform(),
        root(),
        &[None],
    )
    .0
}

fn make_file(edit: impl FnOnce(&mut MakeFile)) -> Key {
    let mut make = MakeFile {
        destination: "/dst".to_owned(),
        name: "script".to_owned(),
        data: b"text".to_vec(),
        mode: None,
        owner: None,
    };
    edit(&mut make);
    file_key(FileAction::MakeFile(make))
}

fn make_directory(edit: impl FnOnce(&mut MakeDirectory)) -> Key {
    let mut make = MakeDirectory {
        path: "/dst".to_owned(),
        mode: 0o755,
        owner: String::new(),
    };
    edit(&mut make);
    file_key(FileAction::MakeDirectory(make))
}

/// No two of them are the same.
fn assert_all_differ(keys: &[(&str, Key)]) {
    for (at, (name, key)) in keys.iter().enumerate() {
        for (other_name, other) in &keys[..at] {
            assert_ne!(key, other, "{name} and {other_name}");
        }
    }
}

#[test]
fn every_parameter_of_a_process_counts() {
    assert_all_differ(&[
        ("as it is", exec_key(|_| {})),
        (
            "an argument",
            exec_key(|exec| exec.args[2] = "make all".to_owned()),
        ),
        (
            "arguments cut differently",
            exec_key(|exec| exec.args = vec!["sh".to_owned(), "-c make".to_owned()]),
        ),
        ("a value", exec_key(|exec| exec.env[1] = "A=2".to_owned())),
        (
            "a variable's name",
            exec_key(|exec| exec.env[1] = "B=1".to_owned()),
        ),
        ("a variable less", exec_key(|exec| drop(exec.env.pop()))),
        (
            "the working directory",
            exec_key(|exec| exec.cwd = "/".to_owned()),
        ),
        ("the user", exec_key(|exec| exec.user = "0".to_owned())),
        (
            "a file's bytes",
            exec_key(|exec| exec.files[0].data = b"echo 1".to_vec()),
        ),
        ("a file's mode", exec_key(|exec| exec.files[0].mode = 0o644)),
        (
            "a file's place",
            exec_key(|exec| exec.files[0].path = "/dev/other".to_owned()),
        ),
        ("no file", exec_key(|exec| exec.files.clear())),
        (
            "insecure",
            exec_key(|exec| exec.security = SecurityMode::Insecure),
        ),
        (
            "the host name",
            exec_key(|exec| exec.hostname = Some("here".to_owned())),
        ),
        (
            "an extra host",
            exec_key(|exec| exec.extra_hosts = vec![extra_host("db", [10, 0, 0, 1])]),
        ),
        (
            "its name",
            exec_key(|exec| exec.extra_hosts = vec![extra_host("cache", [10, 0, 0, 1])]),
        ),
        (
            "a limit",
            exec_key(|exec| exec.ulimits = vec![ulimit("nofile", 10)]),
        ),
        (
            "its value",
            exec_key(|exec| exec.ulimits = vec![ulimit("nofile", 20)]),
        ),
        (
            "its kind",
            exec_key(|exec| exec.ulimits = vec![ulimit("nproc", 10)]),
        ),
    ]);
    let key = |kind, network, platform: &str, root| {
        exec(
            kind,
            &command(),
            network,
            &platform.parse().expect("a platform"),
            root,
            &[],
        )
        .0
    };
    let (definition, content) = (RecordKind::Definition, RecordKind::Content);
    assert_all_differ(&[
        (
            "as it is",
            key(definition, NetworkMode::Host, "linux/amd64", root()),
        ),
        (
            "the network",
            key(definition, NetworkMode::None, "linux/amd64", root()),
        ),
        (
            "the platform",
            key(definition, NetworkMode::Host, "linux/arm64", root()),
        ),
        (
            "the root",
            key(
                definition,
                NetworkMode::Host,
                "linux/amd64",
                RootIdentity::Definition(Key([9; 32])),
            ),
        ),
        (
            "content",
            key(
                content,
                NetworkMode::Host,
                "linux/amd64",
                RootIdentity::Content(ContentHash([1; 32])),
            ),
        ),
        ("kind", key(content, NetworkMode::Host, "linux/amd64", root())),
    ]);
}

#[test]
fn what_is_no_part_of_a_process_does_not_count() {
    let reference = exec_key(|_| {});
    assert_eq!(
        exec_key(|exec| exec.unkeyed_env = vec!["HTTP_PROXY=http://p".to_owned()]),
        reference
    );
    let at = |address| exec_key(|exec| exec.extra_hosts = vec![extra_host("db", address)]);
    assert_eq!(at([10, 0, 0, 1]), at([10, 0, 0, 2]), "where a host is");
    // It counts as the request's default was filled in.
    assert_eq!(exec_key(|exec| exec.network = NetworkMode::None), reference);
}

#[test]
fn every_parameter_of_a_copy_counts() {
    for identity in [files(), step()] {
        assert_all_differ(&[
            ("as it is", copy_key(identity, |_| {})),
            (
                "the destination",
                copy_key(identity, |copy| copy.destination = "/dst".to_owned()),
            ),
            (
                "the owner",
                copy_key(identity, |copy| copy.owner = Some("0".to_owned())),
            ),
            (
                "the mode",
                copy_key(identity, |copy| copy.mode = Some("644".to_owned())),
            ),
            ("unpacking", copy_key(identity, |copy| copy.unpack = true)),
        ]);
    }
    assert_all_differ(&[
        ("files", copy_key(files(), |_| {})),
        (
            "other files",
            copy_key(TakenIdentity::Files(ContentHash([4; 32])), |_| {}),
        ),
        ("a step", copy_key(step(), |_| {})),
        (
            "another step",
            copy_key(TakenIdentity::Definition(Key([4; 32])), |_| {}),
        ),
    ]);
}

/// From another step the sources count as written, since nobody knows yet what they select; where the files are
/// known, only those count.
#[test]
fn sources_count_by_name_or_by_what_they_select() {
    let sources = |patterns: &'static [&str]| {
        move |copy: &mut Copy| {
            let source = |pattern: &&str| CopySource {
                pattern: (*pattern).to_owned(),
                span: None,
            };
            copy.sources = patterns.iter().map(source).collect();
        }
    };
    assert_all_differ(&[
        ("a", copy_key(step(), sources(&["a"]))),
        ("b", copy_key(step(), sources(&["b"]))),
        ("a b", copy_key(step(), sources(&["a", "b"]))),
        ("b a", copy_key(step(), sources(&["b", "a"]))),
        ("none", copy_key(step(), sources(&[]))),
    ]);
    assert_eq!(
        copy_key(step(), sources(&["/x/../a/"])),
        copy_key(step(), sources(&["a"]))
    );
    assert_eq!(
        copy_key(files(), sources(&["a", "b"])),
        copy_key(files(), sources(&["*"]))
    );
}

#[test]
fn places_in_the_source_text_do_not_count() {
    let moved = |copy: &mut Copy| copy.sources[0].span = Some(SourceSpan { start: 1, end: 2 });
    assert_eq!(copy_key(step(), moved), copy_key(step(), |_| {}));
    assert_eq!(copy_key(files(), |copy| copy.from = 7), copy_key(files(), |_| {}));
}

#[test]
fn every_parameter_of_made_files_and_directories_counts() {
    assert_all_differ(&[
        ("a directory", make_directory(|_| {})),
        ("its path", make_directory(|make| make.path = "/other".to_owned())),
        ("its mode", make_directory(|make| make.mode = 0o700)),
        ("its owner", make_directory(|make| make.owner = "app".to_owned())),
        ("a file", make_file(|_| {})),
        (
            "the destination",
            make_file(|make| make.destination = "/dst/".to_owned()),
        ),
        ("the name", make_file(|make| make.name = "other".to_owned())),
        ("the bytes", make_file(|make| make.data = b"other".to_vec())),
        ("the mode", make_file(|make| make.mode = Some("600".to_owned()))),
        ("the owner", make_file(|make| make.owner = Some("app".to_owned()))),
        ("a copy", copy_key(files(), |_| {})),
        ("a process", exec_key(|_| {})),
    ]);
}

#[test]
fn actions_count_in_their_order() {
    let directory = |path: &str| {
        FileAction::MakeDirectory(MakeDirectory {
            path: path.to_owned(),
            mode: 0o755,
            owner: String::new(),
        })
    };
    let key = |actions| {
        file(
            RecordKind::Definition,
            &FileOp { actions },
            &platform(),
            root(),
            &[],
        )
        .0
    };
    assert_all_differ(&[
        ("none", key(vec![])),
        ("a", key(vec![directory("/a")])),
        ("a b", key(vec![directory("/a"), directory("/b")])),
        ("b a", key(vec![directory("/b"), directory("/a")])),
    ]);
}

/// Records of yesterday are found tomorrow only if keys stay as they are. Whoever changes these values on purpose
/// raises `KEY_VERSION`, if the meaning of a part changed.
#[test]
fn the_keys_of_today_stay_the_keys_of_tomorrow() {
    let arm: Platform = "linux/arm64/v8".parse().expect("a platform");
    let content = exec(
        RecordKind::Content,
        &command(),
        NetworkMode::None,
        &arm,
        RootIdentity::Content(ContentHash([5; 32])),
        &[],
    );
    let keys = [
        scratch(&platform()),
        image(&Digest::sha256_of(b"manifest"), &platform()),
        exec_key(|_| {}),
        content.0,
        copy_key(files(), |_| {}),
        copy_key(step(), |_| {}),
        make_file(|_| {}),
        make_directory(|_| {}),
    ];
    let keys = keys.map(|key| key.to_string());
    let pinned = [
        "92bdeab17ed3a890b41d017f02ddc9e57d17e31f5065bf6119e15714cfbcfcb8",
        "1f0bcae0070349fa8efdcfcc93ec4ed900b83439f6bd47ade7197f96d268ee3e",
        "9b3ec62b3b48847a4bcf8f02d83be6598ea6f802d54d061b589fee0193c40be0",
        "dc1be4028bd821751df822db026af15df246114c295cf5914942c28ccb89e485",
        "4d1aaae266d0f118916a48d5202dadb5bcb7a98492c332c94d1ac21abe080153",
        "fec1ab5d2a4068c6ff20efaed21ad6ed26be8266ca67bf43ea8e113d85828cd6",
        "863361323b6a54b27d192700a68b4d81371a7c7188d9748a312c0446d9f033c6",
        "f6869ccb251ee78e66d463ccb70a19b3f485dbdc14f18ffccb5ab635c2993eb0",
    ];
    assert_eq!(keys.as_slice(), pinned);
}
