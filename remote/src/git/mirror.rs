//! What was fetched from one remote: a bare repository in a folder, for one process at a time.
//!
//! The references `refs/kiln/commits/<hash>` say which commits are there with all their files. Git makes a
//! reference only after it has checked that nothing is missing, so a process killed in between leaves a commit
//! that does not count. Nothing is ever collected: the folder goes as a whole, or stays.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_image::Digest;
use rustix::fs::{FlockOperation, flock};

use super::address::public;
use super::error::GitError;
use super::program::{Program, Run};

/// How often a lock is asked for.
const PATIENCE: Duration = Duration::from_millis(50);
/// What servers and git say when a commit or a shallow history cannot be had in this way, and another may work.
const OTHER_WAY: &[&str] = &[
    "not our ref",
    "unadvertised object",
    "does not allow request for",
    "Server does not support",
    "couldn't find remote ref",
    "shallow",
    "--depth",
    "no such remote ref",
    "remote error: upload-pack",
];

/// The bare repository of a remote, locked.
#[derive(Debug)]
pub(super) struct Mirror<'a> {
    program: Program<'a>,
    pub(super) path: PathBuf,
    remote: &'a str,
    config: &'a [(String, String)],
    _lock: File,
}

impl<'a> Mirror<'a> {
    /// Opens the repository of `remote` below `folder`, or makes it, and waits until no other process uses it.
    pub(super) fn open(
        program: Program<'a>,
        folder: &Path,
        remote: &'a str,
        config: &'a [(String, String)],
        hash_length: usize,
    ) -> Result<Self, GitError> {
        let name = Digest::sha256_of(remote.as_bytes()).hex();
        std::fs::create_dir_all(folder).map_err(file("create", folder))?;
        let lock = lock(&program, &folder.join(format!("{name}.lock")))?;
        let mirror = Self {
            program,
            path: folder.join(name),
            remote,
            config,
            _lock: lock,
        };
        if !mirror.path.join("HEAD").exists() {
            mirror.make(hash_length)?;
        }
        Ok(mirror)
    }

    fn make(&self, hash_length: usize) -> Result<(), GitError> {
        // A killed process may have left half of one.
        self.remove()?;
        std::fs::create_dir(&self.path).map_err(file("create", &self.path))?;
        let format = if hash_length == 64 { "sha256" } else { "sha1" };
        let format = format!("--object-format={format}");
        self.git("init", &["init", "--quiet", "--bare", "--template=", &format])?;
        Ok(())
    }

    /// Forgets everything: the folder turned out to be damaged.
    pub(super) fn reset(&self, hash_length: usize) -> Result<(), GitError> {
        self.make(hash_length)
    }

    fn remove(&self) -> Result<(), GitError> {
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(file("remove", &self.path)(error))
            }
            _ => Ok(()),
        }
    }

    /// What runs git.
    pub(super) fn program(&self) -> Program<'a> {
        self.program
    }

    /// Runs git in the repository.
    pub(super) fn git(&self, action: &'static str, arguments: &[&str]) -> Result<Vec<u8>, GitError> {
        self.program.run(&self.run(action, arguments))
    }

    /// A run in the repository, to be completed.
    pub(super) fn run<'b>(&'b self, action: &'static str, arguments: &[&str]) -> Run<'b> {
        let mut run = Run::new(action, self.remote, arguments);
        run.git_dir = Some(&self.path);
        run.config = self.config;
        run
    }

    /// Makes sure that `hash`, a commit or a tag, is there with everything that it needs.
    pub(super) fn require(&self, hash: &str, reference: Option<&str>) -> Result<(), GitError> {
        let kept = kept(hash);
        if self.has(&kept)? {
            return Ok(());
        }
        let mut ways = vec![Way::Commit];
        ways.extend(reference.map(Way::Reference));
        ways.push(Way::Everything);
        for way in ways {
            match self.fetch(&way, hash, &kept) {
                Ok(()) if self.points_at(&kept, hash)? => return Ok(()),
                Ok(()) => {}
                Err(GitError::Failed { message, .. })
                    if OTHER_WAY.iter().any(|said| message.contains(said)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(GitError::NoCommit {
            remote: public(self.remote),
            commit: hash.to_owned(),
        })
    }

    fn has(&self, reference: &str) -> Result<bool, GitError> {
        let run = self.run(
            "rev-parse",
            &["rev-parse", "--quiet", "--verify", "--end-of-options", reference],
        );
        Ok(self.program.output(&run)?.status.success())
    }

    /// Whether the kept reference is what it is called by. A branch that has moved on brings another commit, which
    /// must not stay under this name.
    fn points_at(&self, kept: &str, hash: &str) -> Result<bool, GitError> {
        let run = self.run(
            "rev-parse",
            &["rev-parse", "--quiet", "--verify", "--end-of-options", kept],
        );
        let output = self.program.output(&run)?;
        if !output.status.success() {
            return Ok(false);
        }
        if String::from_utf8_lossy(&output.stdout).trim() == hash {
            return Ok(true);
        }
        self.git("update-ref", &["update-ref", "-d", kept])?;
        Ok(false)
    }

    fn fetch(&self, way: &Way<'_>, hash: &str, kept: &str) -> Result<(), GitError> {
        let mut arguments = vec!["fetch", "--quiet", "--no-write-fetch-head"];
        let refspec = match way {
            Way::Commit => format!("+{hash}:{kept}"),
            Way::Reference(name) => format!("+{name}:{kept}"),
            Way::Everything => "+refs/heads/*:refs/kiln/heads/*".to_owned(),
        };
        match way {
            Way::Commit | Way::Reference(_) => arguments.extend(["--depth=1", "--no-tags"]),
            Way::Everything => {
                arguments.push("--tags");
                if self.path.join("shallow").exists() {
                    arguments.push("--unshallow");
                }
            }
        }
        arguments.extend(["--", self.remote, &refspec]);
        self.git("fetch", &arguments)?;
        if matches!(way, Way::Everything) {
            let object = format!("{hash}^{{}}");
            let run = self.run("cat-file", &["cat-file", "-e", &object]);
            if self.program.output(&run)?.status.success() {
                self.git("update-ref", &["update-ref", kept, hash])?;
            }
        }
        Ok(())
    }
}

/// How a commit may be had.
#[derive(Debug)]
enum Way<'a> {
    /// By its hash, alone. Most servers give it.
    Commit,
    /// By the reference that points at it, or did a moment ago.
    Reference(&'a str),
    /// With all branches and tags, and their history.
    Everything,
}

/// The reference that keeps an object.
pub(super) fn kept(hash: &str) -> String {
    format!("refs/kiln/commits/{hash}")
}

fn lock(program: &Program<'_>, path: &Path) -> Result<File, GitError> {
    let opened = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path);
    let lock = opened.map_err(file("open", path))?;
    loop {
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(lock),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(file("lock", path)(error.into())),
        }
        if (program.caller.canceled)() {
            return Err(GitError::Canceled);
        }
        std::thread::sleep(PATIENCE);
    }
}

/// Names a file in an error of its.
pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> GitError {
    let path = path.to_owned();
    move |source| GitError::File { action, path, source }
}
