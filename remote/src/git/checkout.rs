//! The files of a commit, in a directory.

use std::fs;
use std::path::{Path, PathBuf};

use super::address::public;
use super::error::GitError;
use super::mirror::{Mirror, file};
use super::repositories::{Checkout, Repositories};
use super::submodules::{self, Chain};
use super::{keep, tidy};
use crate::caller::Caller;

/// See [`Repositories::check_out`].
pub(super) fn run(
    repositories: &Repositories,
    wanted: &Checkout<'_>,
    into: &Path,
    caller: Caller<'_>,
) -> Result<(), GitError> {
    let chain = Chain::begin(wanted.remote, wanted.commit, wanted.subdirectory);
    if wanted.subdirectory.is_empty() {
        let keeps = wanted.keep_git_dir;
        return whole(repositories, wanted, keeps, into, &chain, caller)
            .and_then(|time| tidy::tidy(into, time.filter(|_| is_by_commit(wanted))));
    }
    // Beside nothing else: `into` is empty.
    let all = into.join(".kiln-checkout");
    fs::create_dir(&all).map_err(file("create", &all))?;
    let time = whole(repositories, wanted, false, &all, &chain, caller)?;
    let inner = inner(&all, wanted)?;
    move_up(&inner, &all, into)?;
    tidy::tidy(into, time.filter(|_| is_by_commit(wanted)))
}

fn is_by_commit(wanted: &Checkout<'_>) -> bool {
    wanted.modified == super::Modified::Commit
}

/// Checks out one repository and its submodules; the commit's time.
pub(super) fn whole(
    repositories: &Repositories,
    wanted: &Checkout<'_>,
    keep_git_dir: bool,
    into: &Path,
    chain: &Chain<'_>,
    caller: Caller<'_>,
) -> Result<Option<i64>, GitError> {
    let program = repositories.program(caller);
    let config = repositories.config(program, wanted.remote, chain.main())?;
    let mirror = Mirror::open(
        program,
        &repositories.folder,
        wanted.remote,
        &config,
        wanted.commit.len(),
    )?;
    let fetched = fetch_and_read(&mirror, wanted, keep_git_dir, into);
    let time = match fetched {
        // A repository that lost a file of its own cannot tell. It is made anew, once.
        Err(GitError::Failed { action, .. }) if action != "fetch" => {
            mirror.reset(wanted.commit.len())?;
            clear(into)?;
            fetch_and_read(&mirror, wanted, keep_git_dir, into)?
        }
        fetched => fetched?,
    };
    let modules = if wanted.submodules && !keep_git_dir {
        submodules::of(&mirror, wanted)?
    } else {
        Vec::new()
    };
    if keep_git_dir {
        keep::finish(program, &mirror, wanted, &config, into)?;
    }
    // Others may use the repository while its submodules are fetched: two that contain each other must not
    // wait for each other.
    drop(mirror);
    submodules::check_out(repositories, wanted, &modules, into, chain, caller)?;
    Ok(time)
}

fn fetch_and_read(
    mirror: &Mirror<'_>,
    wanted: &Checkout<'_>,
    keep_git_dir: bool,
    into: &Path,
) -> Result<Option<i64>, GitError> {
    mirror.require(wanted.commit, wanted.reference)?;
    if keep_git_dir {
        if let Some(tag) = wanted.tag {
            mirror.require(tag, wanted.reference)?;
        }
        keep::begin(mirror, wanted, into)?;
    } else {
        read_files(mirror, wanted, into)?;
    }
    let commit = format!("{}^{{commit}}", wanted.commit);
    let arguments = ["show", "--no-patch", "--format=%ct", "--end-of-options", &commit];
    let time = mirror.git("show", &arguments)?;
    Ok(String::from_utf8_lossy(&time).trim().parse().ok())
}

/// Checks out all files with an index that is thrown away.
fn read_files(mirror: &Mirror<'_>, wanted: &Checkout<'_>, into: &Path) -> Result<(), GitError> {
    let index = mirror.path.join("kiln-index");
    let tree = format!("{}^{{tree}}", wanted.commit);
    let mut run = mirror.run("read-tree", &["read-tree", "--reset", "-u", &tree]);
    run.work_tree = Some(into);
    run.index = Some(&index);
    let result = mirror.program().run(&run).map(drop);
    // It may not have come to be, and the next checkout does not read it.
    let _ = fs::remove_file(&index);
    result
}

/// The wanted directory. Each component must be a directory itself: a link may lead anywhere.
fn inner(all: &Path, wanted: &Checkout<'_>) -> Result<PathBuf, GitError> {
    let mut inner = all.to_owned();
    for component in wanted.subdirectory.split('/') {
        inner.push(component);
        let is_directory = fs::symlink_metadata(&inner).is_ok_and(|metadata| metadata.is_dir());
        if !is_directory {
            return Err(GitError::Subdirectory {
                remote: public(wanted.remote),
                subdirectory: wanted.subdirectory.to_owned(),
            });
        }
    }
    Ok(inner)
}

/// Moves what is in `inner` to `into` and removes `all`, which lies in `into`.
fn move_up(inner: &Path, all: &Path, into: &Path) -> Result<(), GitError> {
    // A file of the same name as our directory could not be moved beside it.
    let aside = into.join(".kiln-checkout-done");
    fs::rename(inner, &aside).map_err(file("move", inner))?;
    fs::remove_dir_all(all).map_err(file("remove", all))?;
    for entry in fs::read_dir(&aside).map_err(file("read", &aside))? {
        let entry = entry.map_err(file("read", &aside))?;
        if entry.file_name() == ".kiln-checkout-done" {
            return Err(file("move", &entry.path())(
                std::io::ErrorKind::AlreadyExists.into(),
            ));
        }
        fs::rename(entry.path(), into.join(entry.file_name())).map_err(file("move", &entry.path()))?;
    }
    fs::remove_dir(&aside).map_err(file("remove", &aside))
}

/// Empties a directory that is to be filled again.
fn clear(directory: &Path) -> Result<(), GitError> {
    for entry in fs::read_dir(directory).map_err(file("read", directory))? {
        let path = entry.map_err(file("read", directory))?.path();
        let is_directory = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir());
        let removed = if is_directory {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(file("remove", &path))?;
    }
    Ok(())
}
