//! Checkouts of repositories that a test makes, by the real git.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failure in a helper is a failed test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use kiln_remote::Caller;
use kiln_remote::git::{
    Checkout, Dialect, GitAddress, GitError, GitSettings, Modified, Repositories, ResolvedCommit,
};

/// A folder that is gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kiln-git-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn directory(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn repositories(&self) -> Repositories {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let settings = GitSettings {
            environment: vec![("PATH".into(), path)],
            allow_files: true,
        };
        Repositories::new(self.0.join("mirrors"), settings)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A repository to fetch from.
struct Origin(PathBuf);

impl Origin {
    fn new(folder: &Folder, name: &str) -> Self {
        let origin = Self(folder.directory(name));
        origin.git(&["init", "-q", "-b", "main"]);
        origin
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "protocol.file.allow=always"])
            .args(arguments)
            .current_dir(&self.0)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .envs([
                ("GIT_AUTHOR_NAME", "a"),
                ("GIT_AUTHOR_EMAIL", "a@example.org"),
                ("GIT_AUTHOR_DATE", "1000000000 +0000"),
                ("GIT_COMMITTER_NAME", "c"),
                ("GIT_COMMITTER_EMAIL", "c@example.org"),
                ("GIT_COMMITTER_DATE", "1100000000 +0000"),
            ])
            .output()
            .expect("git runs");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn commit(&self) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", "x"]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn remote(&self) -> String {
        format!("file://{}", self.0.display())
    }

    /// An address of this repository; tests only can have files for remotes.
    fn address(&self, rest: &str) -> GitAddress {
        let address = GitAddress::parse(&format!("https://h/r.git{rest}"), Dialect::Add);
        GitAddress {
            remote: self.remote(),
            ..address.unwrap().unwrap()
        }
    }
}

fn resolve(repositories: &Repositories, address: &GitAddress) -> Result<ResolvedCommit, GitError> {
    repositories.resolve(address, Caller::default())
}

/// Resolves and checks out below `folder`.
fn check_out(folder: &Folder, address: &GitAddress, name: &str) -> Result<PathBuf, GitError> {
    let repositories = folder.repositories();
    let found = resolve(&repositories, address)?;
    let into = folder.directory(name);
    let wanted = Checkout {
        remote: &address.remote,
        commit: &found.commit,
        reference: found.reference.as_deref(),
        tag: found.tag.as_deref(),
        subdirectory: &address.subdirectory,
        keep_git_dir: address.keep_git_dir.unwrap_or(false),
        submodules: address.submodules.unwrap_or(true),
        modified: address.modified,
    };
    repositories.check_out(&wanted, &into, Caller::default())?;
    Ok(into)
}

/// All files below a directory: path, mode and bytes.
fn files(root: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    fn walk(root: &Path, path: &Path, found: &mut BTreeMap<String, (u32, Vec<u8>)>) {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let bytes = if metadata.is_dir() {
                walk(root, &path, found);
                Vec::new()
            } else if metadata.is_symlink() {
                fs::read_link(&path)
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes()
            } else {
                fs::read(&path).unwrap()
            };
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.insert(name, (metadata.permissions().mode() & 0o7777, bytes));
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

fn names(root: &Path) -> Vec<String> {
    files(root).into_keys().collect()
}

fn error(result: Result<PathBuf, GitError>) -> String {
    result.expect_err("it is refused").to_string()
}

#[test]
fn a_commit_becomes_files_with_plain_modes_and_no_git_directory() {
    let folder = Folder::new();
    let origin = Origin::new(&folder, "origin");
    origin.write("a", "one").write("bin/run", "#!/bin/sh\n");
    fs::set_permissions(origin.0.join("bin/run"), fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::symlink("/etc", origin.0.join("link")).unwrap();
    origin.commit();
    let into = check_out(&folder, &origin.address(""), "out").unwrap();
    let files = files(&into);
    let seen: Vec<(&str, u32)> = files
        .iter()
        .map(|(name, (mode, _))| (name.as_str(), *mode))
        .collect();
    assert_eq!(
        seen,
        [("a", 0o644), ("bin", 0o755), ("bin/run", 0o755), ("link", 0o777)]
    );
    assert_eq!(files["a"].1, b"one");
}

#[test]
fn branches_tags_and_hashes_lead_to_their_commit() {
    let folder = Folder::new();
    let origin = Origin::new(&folder, "origin");
    let first = origin.write("a", "one").commit();
    origin.git(&["tag", "plain"]);
    origin.git(&["tag", "-a", "-m", "x", "annotated"]);
    origin.git(&["branch", "annotated-too"]);
    let tag = origin.git(&["rev-parse", "annotated"]);
    let second = origin.write("a", "two").commit();
    let repositories = folder.repositories();
    for (rest, commit, tag, reference) in [
        ("", &second, None, Some("refs/heads/main")),
        ("#main", &second, None, Some("refs/heads/main")),
        ("#plain", &first, None, Some("refs/tags/plain")),
        (
            "?tag=annotated",
            &first,
            Some(tag.as_str()),
            Some("refs/tags/annotated"),
        ),
        (
            "#annotated",
            &first,
            Some(tag.as_str()),
            Some("refs/tags/annotated"),
        ),
        (&format!("#{first}"), &first, None, None),
    ] {
        let found = resolve(&repositories, &origin.address(rest)).unwrap();
        assert_eq!(found.commit, *commit, "{rest}");
        assert_eq!(
            (found.tag.as_deref(), found.reference.as_deref()),
            (tag, reference),
            "{rest}"
        );
    }
    for (rest, text) in [
        ("#main", "two"),
        ("#annotated", "one"),
        (&format!("#{first}"), "one"),
        (&format!("#{tag}"), "one"),
    ] {
        let name = rest.replace('#', "out-");
        let into = check_out(&folder, &origin.address(rest), &name).unwrap();
        assert_eq!(fs::read_to_string(into.join("a")).unwrap(), text, "{rest}");
    }
    let message = error(check_out(&folder, &origin.address("#nothing"), "none"));
    assert_eq!(
        message,
        format!("repository {} does not contain ref nothing", origin.remote())
    );
    let unknown = "0".repeat(40);
    let message = error(check_out(
        &folder,
        &origin.address(&format!("#{unknown}")),
        "none",
    ));
    assert!(
        message.starts_with(&format!("commit {unknown} is not in ")),
        "{message}"
    );
}

#[test]
fn checksums_are_beginnings_of_the_commit_or_of_its_tag() {
    let folder = Folder::new();
    let origin = Origin::new(&folder, "origin");
    let commit = origin.write("a", "one").commit();
    origin.git(&["tag", "-a", "-m", "x", "v1"]);
    let tag = origin.git(&["rev-parse", "v1"]);
    let repositories = folder.repositories();
    for good in [
        format!("?ref=v1&checksum={commit}"),
        format!("?ref=v1&checksum={}", &tag[..8]),
        format!("?checksum={}", &commit[..7]),
        format!("?ref={commit}&checksum={}", &commit[..7]),
    ] {
        assert_eq!(
            resolve(&repositories, &origin.address(&good)).unwrap().commit,
            commit,
            "{good}"
        );
    }
    let wrong = if commit.starts_with('0') { "1" } else { "0" }.repeat(8);
    for rest in [
        format!("?checksum={wrong}"),
        format!("?ref={commit}&checksum={wrong}"),
    ] {
        let message = resolve(&repositories, &origin.address(&rest))
            .unwrap_err()
            .to_string();
        assert_eq!(
            message,
            format!(
                "expected checksum of {} to match {wrong}, got {commit}",
                origin.remote()
            )
        );
    }
}

#[test]
fn a_second_fetch_of_a_commit_needs_no_remote() {
    let folder = Folder::new();
    let origin = Origin::new(&folder, "origin");
    let commit = origin.write("a", "one").commit();
    check_out(&folder, &origin.address(""), "first").unwrap();
    let hidden = folder.0.join("hidden");
    fs::rename(&origin.0, &hidden).unwrap();
    let into = check_out(&folder, &origin.address(&format!("#{commit}")), "second").unwrap();
    assert_eq!(names(&into), ["a"]);
    // A mirror that lost a pack is made anew.
    fs::rename(&hidden, &origin.0).unwrap();
    let packs: Vec<String> = names(&folder.0.join("mirrors"));
    for pack in packs.iter().filter(|name| {
        Path::new(name)
            .extension()
            .is_some_and(|e| e == "pack" || e == "idx")
    }) {
        fs::remove_file(folder.0.join("mirrors").join(pack)).unwrap();
    }
    let into = check_out(&folder, &origin.address(&format!("#{commit}")), "third").unwrap();
    assert_eq!(names(&into), ["a"]);
}

#[test]
fn a_commit_behind_the_branch_is_found() {
    let folder = Folder::new();
    let origin = Origin::new(&folder, "origin");
    let first = origin.write("a", "one").commit();
    origin.write("a", "two").commit();
    // As servers are that give out references only.
    origin.git(&["config", "uploadpack.allowAnySHA1InWant", "false"]);
    check_out(&folder, &origin.address("#main"), "tip").unwrap();
    let into = check_out(&folder, &origin.address(&format!("#{first}")), "old").unwrap();
    assert_eq!(fs::read_to_string(into.join("a")).unwrap(), "one");
}

#[test]
fn a_subdirectory_is_all_there_is() {
    let folder = Folder::new();
    let origin = Origin::new(&folder, "origin");
    origin
        .write("a", "one")
        .write("sub/dir/b", "two")
        .write("sub/c", "three");
    std::os::unix::fs::symlink("sub", origin.0.join("link")).unwrap();
    std::os::unix::fs::symlink("/etc", origin.0.join("sub/out")).unwrap();
    origin.commit();
    let into = check_out(&folder, &origin.address("#main:sub"), "sub").unwrap();
    assert_eq!(names(&into), ["c", "dir", "dir/b", "out"]);
    let into = check_out(&folder, &origin.address("?subdir=sub/dir&keep-git-dir"), "deep").unwrap();
    assert_eq!(names(&into), ["b"]);
    for wrong in ["link", "sub/out", "a", "none", "link/dir", "sub/out/ssl"] {
        let message = error(check_out(
            &folder,
            &origin.address(&format!("#main:{wrong}")),
            &wrong.replace('/', "-"),
        ));
        assert_eq!(
            message,
            format!("{wrong:?} is no directory of {}", origin.remote())
        );
    }
}

fn with_submodules(folder: &Folder) -> Origin {
    let inner = Origin::new(folder, "inner.git");
    inner.write("i", "inner").commit();
    let middle = Origin::new(folder, "middle.git");
    middle.write("m", "middle").commit();
    middle.git(&[
        "submodule",
        "--quiet",
        "add",
        "--name",
        "x",
        &inner.remote(),
        "in",
    ]);
    middle.commit();
    let origin = Origin::new(folder, "origin.git");
    origin.write("o", "origin").commit();
    origin.git(&["submodule", "--quiet", "add", &middle.remote(), "libs/mid"]);
    // An address beside this repository.
    let modules = fs::read_to_string(origin.0.join(".gitmodules")).unwrap();
    origin.write(".gitmodules", &modules.replace(&middle.remote(), "../middle.git"));
    origin.commit();
    origin
}

#[test]
fn submodules_come_along_unless_told_otherwise() {
    let folder = Folder::new();
    let origin = with_submodules(&folder);
    let into = check_out(&folder, &origin.address(""), "out").unwrap();
    assert_eq!(
        names(&into),
        [
            ".gitmodules",
            "libs",
            "libs/mid",
            "libs/mid/.gitmodules",
            "libs/mid/in",
            "libs/mid/in/i",
            "libs/mid/m",
            "o"
        ]
    );
    let into = check_out(&folder, &origin.address("?submodules=false"), "without").unwrap();
    assert_eq!(names(&into), [".gitmodules", "libs", "libs/mid", "o"]);
    let into = check_out(&folder, &origin.address("#main:libs/mid/in"), "below").unwrap();
    assert_eq!(names(&into), ["i"]);
}

#[test]
fn hostile_submodules_are_refused() {
    let hash = "0123456789012345678901234567890123456789";
    for (url, reason) in [
        ("ext::sh -c touch% /tmp/x", "its address leads nowhere"),
        ("--upload-pack=x", "its address leads nowhere"),
        ("/etc", "its address leads nowhere"),
        ("ssh://-oProxyCommand=x/y", "its address leads nowhere"),
        ("ftp://h/x", "not allowed"),
    ] {
        let folder = Folder::new();
        let origin = Origin::new(&folder, "origin.git");
        origin.write(
            ".gitmodules",
            &format!("[submodule \"s\"]\n\tpath = s\n\turl = \"{url}\"\n"),
        );
        origin.git(&["add", "-A"]);
        origin.git(&[
            "update-index",
            "--add",
            "--cacheinfo",
            &format!("160000,{hash},s"),
        ]);
        origin.git(&["commit", "-q", "-m", "x"]);
        let message = error(check_out(&folder, &origin.address(""), "out"));
        assert!(
            message.starts_with("submodule \"s\" of ") && message.contains(reason),
            "{url}: {message}"
        );
    }
}

#[test]
fn a_kept_git_directory_works_and_is_the_same_each_time() {
    let folder = Folder::new();
    let origin = with_submodules(&folder);
    let commit = origin.git(&["rev-parse", "HEAD"]);
    origin.git(&["tag", "-a", "-m", "x", "v1"]);
    for (number, rest) in [
        "?keep-git-dir&ref=main",
        "?keep-git-dir&tag=v1",
        &format!("?keep-git-dir&ref={commit}"),
    ]
    .into_iter()
    .enumerate()
    {
        let address = origin.address(rest);
        let first = check_out(&folder, &address, &format!("first-{number}")).unwrap();
        let other = Folder::new();
        let second = check_out(&other, &address, "second").unwrap();
        let (first_files, second_files) = (files(&first), files(&second));
        assert_eq!(
            first_files.keys().collect::<Vec<_>>(),
            second_files.keys().collect::<Vec<_>>(),
            "{rest}"
        );
        for (name, file) in &first_files {
            assert!(second_files[name] == *file, "{rest}: {name} differs");
        }
        let here = Origin(first.clone());
        assert_eq!(here.git(&["rev-parse", "HEAD"]), commit);
        assert_eq!(here.git(&["status", "--porcelain"]), "", "{rest}");
        assert_eq!(here.git(&["remote", "get-url", "origin"]), origin.remote());
        here.git(&["fsck"]);
        assert_eq!(Origin(first.join("libs/mid")).git(&["status", "--porcelain"]), "");
        assert!(!first.join(".git/logs").exists());
    }
    let described = Origin(folder.0.join("first-1")).git(&["describe"]);
    assert_eq!(described, "v1");
}

#[test]
fn times_are_those_of_the_commit_when_asked_for() {
    let folder = Folder::new();
    let origin = Origin::new(&folder, "origin");
    origin.write("d/a", "one");
    std::os::unix::fs::symlink("a", origin.0.join("d/link")).unwrap();
    origin.commit();
    let address = origin.address("?mtime=commit");
    assert_eq!(address.modified, Modified::Commit);
    let into = check_out(&folder, &address, "out").unwrap();
    for name in ["d", "d/a", "d/link"] {
        assert_eq!(
            fs::symlink_metadata(into.join(name)).unwrap().mtime(),
            1_100_000_000,
            "{name}"
        );
    }
}

#[test]
fn hooks_filters_and_settings_of_a_repository_do_nothing() {
    let folder = Folder::new();
    let origin = Origin::new(&folder, "origin");
    origin
        .write(".gitattributes", "* filter=evil\n")
        .write("a", "one")
        .commit();
    let hook = "#!/bin/sh\ntouch \"$(dirname \"$0\")/../../ran\"\n";
    for name in ["post-checkout", "reference-transaction", "post-index-change"] {
        origin.write(&format!(".git/hooks/{name}"), hook);
        fs::set_permissions(
            origin.0.join(".git/hooks").join(name),
            fs::Permissions::from_mode(0o755),
        )
        .unwrap();
    }
    let into = check_out(&folder, &origin.address(""), "out").unwrap();
    assert_eq!(fs::read_to_string(into.join("a")).unwrap(), "one");
    assert!(!folder.0.join("ran").exists());
}

#[test]
fn protocols_of_the_machine_are_closed_to_builds() {
    let folder = Folder::new();
    let origin = Origin::new(&folder, "origin");
    origin.write("a", "one").commit();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let settings = GitSettings {
        environment: vec![("PATH".into(), path)],
        allow_files: false,
    };
    let repositories = Repositories::new(folder.0.join("closed"), settings);
    let message = resolve(&repositories, &origin.address(""))
        .unwrap_err()
        .to_string();
    assert!(message.contains("transport 'file' not allowed"), "{message}");
}

#[test]
fn a_machine_without_git_says_what_to_install() {
    let folder = Folder::new();
    let settings = GitSettings {
        environment: vec![("PATH".into(), folder.0.clone().into())],
        allow_files: false,
    };
    let repositories = Repositories::new(folder.0.join("none"), settings);
    let address = GitAddress::parse("https://u:p@h/r.git", Dialect::Add)
        .unwrap()
        .unwrap();
    let error = resolve(&repositories, &address).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the program git is needed for https://u:xxxxx@h/r.git and was not found"
    );
    assert!(error.hint().unwrap().contains("install the package git"));
}

#[test]
fn a_fetch_can_be_canceled() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let folder = Folder::new();
    let address = GitAddress::parse(&format!("git://127.0.0.1:{port}/r"), Dialect::Add)
        .unwrap()
        .unwrap();
    let began = std::time::Instant::now();
    let caller = Caller {
        canceled: &|| began.elapsed().as_millis() > 300,
        ..Caller::default()
    };
    let result = folder.repositories().resolve(&address, caller);
    assert!(matches!(result, Err(GitError::Canceled)), "{result:?}");
    assert!(began.elapsed().as_secs() < 20);
}
