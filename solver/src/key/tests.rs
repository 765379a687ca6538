use kiln_cache::{Key, RecordKind};
use kiln_image::{Digest, Platform};
use kiln_tree::ContentHash;

use super::{RootIdentity, TakenIdentity, exec, file, git, http, image, merge, scratch};
use crate::graph::{
    Copy, CopySource, Exec, ExtraHost, FileAction, FileOp, GitSource, HttpSource, MakeDirectory, MakeFile,
    Mount, MountKind, NetworkMode, SandboxFile, SecurityMode, Sharing, SourceSpan, Ulimit,
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
            ..CopySource::default()
        }],
        destination: "/dst/".to_owned(),
        owner: None,
        mode: None,
        unpack: false,
        exclude: Vec::new(),
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

fn mount(kind: MountKind) -> Mount {
    Mount {
        target: "/t".to_owned(),
        kind,
        read_only: true,
        span: None,
    }
}

fn bind() -> Mount {
    mount(MountKind::Bind {
        input: 1,
        source: "dir".to_owned(),
    })
}

fn cache(mode: Option<u32>, uid: Option<u32>, gid: Option<u32>) -> Mount {
    mount(MountKind::Cache {
        namespace: String::new(),
        id: "/t".to_owned(),
        sharing: Sharing::Shared,
        input: None,
        source: String::new(),
        mode,
        uid,
        gid,
    })
}

fn secret(edit: impl FnOnce(&mut MountKind)) -> Mount {
    let mut kind = MountKind::Secret {
        id: "s".to_owned(),
        environment: None,
        file: true,
        required: false,
        mode: 0o400,
        uid: 0,
        gid: 0,
    };
    edit(&mut kind);
    mount(kind)
}

fn mounted_key(mount: Mount, identity: Option<TakenIdentity>) -> Key {
    let mut command = command();
    command.mounts = vec![mount];
    let kind = RecordKind::Definition;
    exec(
        kind,
        &command,
        NetworkMode::Host,
        &platform(),
        root(),
        &[identity],
    )
    .0
}

#[test]
fn every_parameter_of_a_mount_counts() {
    let plain = |mount| mounted_key(mount, None);
    let tmpfs = |size| plain(mount(MountKind::Tmpfs { size }));
    assert_all_differ(&[
        ("no mount", exec_key(|_| {})),
        ("a bind by files", mounted_key(bind(), Some(files()))),
        (
            "other files",
            mounted_key(bind(), Some(TakenIdentity::Files(ContentHash([77; 32])))),
        ),
        ("a bind by definition", mounted_key(bind(), Some(step()))),
        (
            "another source",
            mounted_key(
                mount(MountKind::Bind {
                    input: 1,
                    source: "other".to_owned(),
                }),
                Some(step()),
            ),
        ),
        (
            "another target",
            mounted_key(
                Mount {
                    target: "/u".to_owned(),
                    ..bind()
                },
                Some(files()),
            ),
        ),
        (
            "writable",
            mounted_key(
                Mount {
                    read_only: false,
                    ..bind()
                },
                Some(files()),
            ),
        ),
        ("a cache", plain(cache(None, None, None))),
        ("its mode", plain(cache(Some(0o700), None, None))),
        ("its owner", plain(cache(None, Some(7), None))),
        ("its group", plain(cache(None, None, Some(7)))),
        (
            "what it begins with",
            mounted_key(cache(None, None, None), Some(files())),
        ),
        ("a tmpfs", tmpfs(None)),
        ("its size", tmpfs(Some(7))),
        ("a secret", plain(secret(|_| {}))),
        (
            "its id",
            plain(secret(|kind| {
                if let MountKind::Secret { id, .. } = kind {
                    *id = "other".to_owned();
                }
            })),
        ),
        (
            "its variable",
            plain(secret(|kind| {
                if let MountKind::Secret { environment, .. } = kind {
                    *environment = Some("S".to_owned());
                }
            })),
        ),
        (
            "an agent",
            plain(mount(MountKind::Ssh {
                id: "s".to_owned(),
                required: false,
                mode: 0o600,
                uid: 0,
                gid: 0,
            })),
        ),
    ]);
}

#[test]
fn which_cache_directory_it_is_does_not_count() {
    let reference = mounted_key(cache(None, None, None), None);
    let mut other = cache(None, None, None);
    if let MountKind::Cache {
        namespace,
        id,
        sharing,
        ..
    } = &mut other.kind
    {
        *namespace = "team".to_owned();
        *id = "other".to_owned();
        *sharing = Sharing::Locked;
    }
    assert_eq!(mounted_key(other, None), reference);
    // By its files, a bind counts the same wherever they lie.
    let elsewhere = mount(MountKind::Bind {
        input: 3,
        source: "elsewhere".to_owned(),
    });
    assert_eq!(
        mounted_key(elsewhere, Some(files())),
        mounted_key(bind(), Some(files()))
    );
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
                ..CopySource::default()
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

/// From another step the patterns count too, for the same reason.
#[test]
fn what_is_left_out_counts_by_patterns_or_by_what_is_left() {
    let below = |copy: &mut Copy| copy.sources[0].below = Some("x".to_owned());
    let exclude = |patterns: &'static [&'static str]| {
        move |copy: &mut Copy| copy.exclude = patterns.iter().map(|&pattern| pattern.to_owned()).collect()
    };
    assert_all_differ(&[
        ("all", copy_key(step(), |_| {})),
        ("below", copy_key(step(), below)),
        ("without a", copy_key(step(), exclude(&["a"]))),
        ("without a and b", copy_key(step(), exclude(&["a", "b"]))),
        ("without b and a", copy_key(step(), exclude(&["b", "a"]))),
    ]);
    assert_eq!(copy_key(files(), below), copy_key(files(), |_| {}));
    assert_eq!(copy_key(files(), exclude(&["a"])), copy_key(files(), |_| {}));
}

#[test]
fn a_merge_is_its_inputs_in_their_order() {
    let [a, b] = [Key([1; 32]), Key([2; 32])];
    let key = |inputs: &[Key]| merge(&platform(), inputs).0;
    assert_all_differ(&[
        ("a b", key(&[a, b])),
        ("b a", key(&[b, a])),
        ("a", key(&[a])),
        ("a a", key(&[a, a])),
        ("none", key(&[])),
    ]);
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

fn file_source() -> HttpSource {
    HttpSource {
        url: "https://h/f".to_owned(),
        digest: Digest::from_bytes([3; 32]),
        name: "f".to_owned(),
        modified: Some(5),
        fresh: false,
    }
}

#[test]
fn a_file_by_http_counts_by_content_name_and_time() {
    let key = |edit: &dyn Fn(&mut HttpSource)| {
        let mut source = file_source();
        edit(&mut source);
        http(&source).0
    };
    let base = key(&|_| {});
    let same: [&dyn Fn(&mut HttpSource); 2] = [
        &|source| source.url = "https://other/dir/f".to_owned(),
        &|source| source.fresh = true,
    ];
    for edit in same {
        assert_eq!(key(edit), base);
    }
    let others: [&dyn Fn(&mut HttpSource); 4] = [
        &|source| source.digest = Digest::from_bytes([4; 32]),
        &|source| source.name = "g".to_owned(),
        &|source| source.modified = Some(6),
        &|source| source.modified = None,
    ];
    for edit in others {
        assert_ne!(key(edit), base);
    }
}

#[test]
fn a_commit_counts_by_its_hash_and_by_what_is_taken_of_it() {
    let key = |keep: bool, edit: &dyn Fn(&mut GitSource)| {
        let mut source = GitSource {
            remote: "https://h/r.git".to_owned(),
            commit: "0".repeat(40),
            reference: Some("refs/heads/main".to_owned()),
            submodules: true,
            keep_git_dir: keep,
            ..GitSource::default()
        };
        edit(&mut source);
        git(&source).0
    };
    let (plain, kept) = (key(false, &|_| {}), key(true, &|_| {}));
    assert_ne!(plain, kept);
    // What only a `.git` shows.
    let shown: [&dyn Fn(&mut GitSource); 3] = [
        &|source| source.remote = "https://other/r.git".to_owned(),
        &|source| source.reference = None,
        &|source| source.tag = Some("1".repeat(40)),
    ];
    for edit in shown {
        assert_eq!(key(false, edit), plain);
        assert_ne!(key(true, edit), kept);
    }
    let taken: [&dyn Fn(&mut GitSource); 4] = [
        &|source| source.commit = "1".repeat(40),
        &|source| source.subdirectory = "sub".to_owned(),
        &|source| source.submodules = false,
        &|source| source.commit_time = true,
    ];
    for edit in taken {
        assert_ne!(key(false, edit), plain);
        assert_ne!(key(true, edit), kept);
    }
    // A directory of a repository has no `.git` to keep.
    let below = |source: &mut GitSource| source.subdirectory = "sub".to_owned();
    assert_eq!(key(true, &below), key(false, &below));
}
