//! A checkout with its `.git`: a shallow repository of its own whose bytes depend on the commit alone.

use std::fs;
use std::path::{Path, PathBuf};

use super::address::public;
use super::error::GitError;
use super::mirror::{Mirror, file, kept};
use super::program::{Program, Run};
use super::repositories::Checkout;

/// Makes the repository `into/.git` from the mirror and checks the files out.
pub(super) fn begin(mirror: &Mirror<'_>, wanted: &Checkout<'_>, into: &Path) -> Result<(), GitError> {
    let git_dir = into.join(".git");
    let here = Here {
        program: mirror.program(),
        remote: wanted.remote,
        git_dir: &git_dir,
        work_tree: into,
    };
    let format = if wanted.commit.len() == 64 {
        "sha256"
    } else {
        "sha1"
    };
    here.git(
        "init",
        &[
            "init",
            "--quiet",
            "--template=",
            &format!("--object-format={format}"),
        ],
    )?;
    let object = wanted.tag.unwrap_or(wanted.commit);
    let name = wanted.reference.unwrap_or("refs/kiln/checkout");
    let refspec = format!("+{}:{name}", kept(object));
    let source = format!("file://{}", mirror.path.display());
    let mut fetch = here.run(
        "fetch",
        &[
            "fetch",
            "--quiet",
            "--no-tags",
            "--depth=1",
            "--update-shallow",
            "--update-head-ok",
            "--no-write-fetch-head",
            "--",
            &source,
            &refspec,
        ],
    );
    fetch.local = true;
    here.program.run(&fetch)?;
    // Not on a branch: what was asked for is this commit.
    let commit = here.git(
        "rev-parse",
        &[
            "rev-parse",
            "--verify",
            "--end-of-options",
            &format!("{name}^{{commit}}"),
        ],
    )?;
    let commit = String::from_utf8_lossy(&commit).trim().to_owned();
    here.git("update-ref", &["update-ref", "--no-deref", "HEAD", &commit])?;
    if wanted.reference.is_none() {
        here.git("update-ref", &["update-ref", "-d", name])?;
    }
    here.git("read-tree", &["read-tree", "--reset", "-u", &commit])?;
    here.git("remote", &["remote", "add", "origin", &public(wanted.remote)])?;
    Ok(())
}

/// Fetches submodules with git's own command, which puts their repositories where git looks for them, and removes
/// what depends on the moment.
pub(super) fn finish(
    program: Program<'_>,
    mirror: &Mirror<'_>,
    wanted: &Checkout<'_>,
    config: &[(String, String)],
    into: &Path,
) -> Result<(), GitError> {
    let git_dir = into.join(".git");
    if wanted.submodules && !super::submodules::of(mirror, wanted)?.is_empty() {
        let mut update = Run::new(
            "submodule",
            wanted.remote,
            &[
                "submodule",
                "--quiet",
                "update",
                "--init",
                "--recursive",
                "--depth=1",
            ],
        );
        update.config = config;
        // It runs git in many places, so these come from the place and not from the environment.
        update.work_tree = None;
        update.git_dir = None;
        update.place = Some(into);
        program.run(&update)?;
    }
    let mut repositories = vec![git_dir.clone()];
    modules(&git_dir.join("modules"), &mut repositories)?;
    for repository in repositories {
        settle(program, wanted.remote, &repository)?;
    }
    Ok(())
}

/// The repositories of submodules below `directory`.
fn modules(directory: &Path, found: &mut Vec<PathBuf>) -> Result<(), GitError> {
    if !directory.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(directory).map_err(file("read", directory))? {
        let path = entry.map_err(file("read", directory))?.path();
        if path.join("HEAD").is_file() && path.join("objects").is_dir() {
            modules(&path.join("modules"), found)?;
            found.push(path);
        } else {
            modules(&path, found)?;
        }
    }
    Ok(())
}

/// Packs anew, so that the packs do not show what was fetched before; writes an index without inode numbers; drops
/// logs.
fn settle(program: Program<'_>, remote: &str, git_dir: &Path) -> Result<(), GitError> {
    let git = |action, arguments: &[&str]| {
        let mut run = Run::new(action, remote, arguments);
        run.git_dir = Some(git_dir);
        program.run(&run)
    };
    git("repack", &["repack", "--quiet", "-a", "-d", "-f"])?;
    let index = git_dir.join("index");
    fs::remove_file(&index).map_err(file("remove", &index))?;
    git("read-tree", &["read-tree", "HEAD"])?;
    for leftover in ["FETCH_HEAD", "ORIG_HEAD", "COMMIT_EDITMSG", "description"] {
        remove(&git_dir.join(leftover))?;
    }
    let logs = git_dir.join("logs");
    match fs::remove_dir_all(&logs) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file("remove", &logs)(error)),
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> Result<(), GitError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file("remove", path)(error)),
        _ => Ok(()),
    }
}

/// The repository that is made.
#[derive(Clone, Copy)]
struct Here<'a> {
    program: Program<'a>,
    remote: &'a str,
    git_dir: &'a Path,
    work_tree: &'a Path,
}

impl Here<'_> {
    fn run(&self, action: &'static str, arguments: &[&str]) -> Run<'_> {
        let mut run = Run::new(action, self.remote, arguments);
        run.git_dir = Some(self.git_dir);
        run.work_tree = Some(self.work_tree);
        run
    }

    fn git(&self, action: &'static str, arguments: &[&str]) -> Result<Vec<u8>, GitError> {
        self.program.run(&self.run(action, arguments))
    }
}
