//! Submodules: repositories within a repository, fetched like any other.
//!
//! Git's own `submodule` command would keep their addresses in the settings of the shared repository, where those
//! of another commit could be in the way; and it would take addresses that we do not.

use std::collections::BTreeMap;
use std::path::Path;

use super::address::{Modified, is_commit_hash, public};
use super::checkout;
use super::error::GitError;
use super::mirror::Mirror;
use super::repositories::{Checkout, Repositories};
use crate::caller::Caller;

/// Submodules in submodules, at most.
const DEPTH: usize = 16;

/// The repositories that lead to a submodule, the main one first.
#[derive(Debug, Clone)]
pub(super) struct Chain<'a> {
    main: &'a str,
    links: Vec<(String, String)>,
    /// What is wanted of this repository: a directory, or all.
    wanted: String,
}

impl<'a> Chain<'a> {
    pub(super) fn begin(remote: &'a str, commit: &str, subdirectory: &str) -> Self {
        Self {
            main: remote,
            links: vec![(remote.to_owned(), commit.to_owned())],
            wanted: subdirectory.to_owned(),
        }
    }

    /// The remote of the main repository.
    pub(super) fn main(&self) -> &'a str {
        self.main
    }

    /// The part of `self.wanted` below `path`; `None` when nothing of it lies there.
    fn below(&self, path: &str) -> Option<String> {
        if self.wanted.is_empty() || path == self.wanted {
            return Some(String::new());
        }
        let within = |inner: &str, outer: &str| {
            let rest = inner.strip_prefix(outer)?.strip_prefix('/')?;
            Some(rest.to_owned())
        };
        within(path, &self.wanted)
            .map(|_| String::new())
            .or_else(|| within(&self.wanted, path))
    }
}

/// A submodule of a commit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Submodule {
    path: String,
    commit: String,
    url: String,
}

/// The submodules of a commit that is in the mirror.
pub(super) fn of(mirror: &Mirror<'_>, wanted: &Checkout<'_>) -> Result<Vec<Submodule>, GitError> {
    let tree = format!("{}^{{tree}}", wanted.commit);
    let listed = mirror.git("ls-tree", &["ls-tree", "-r", "-z", "--full-tree", &tree])?;
    let links = links(&listed);
    if links.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |path: &str, reason: &str| GitError::Submodule {
        remote: public(wanted.remote),
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let blob = format!("{}:.gitmodules", wanted.commit);
    let listed = mirror
        .git(
            "config",
            &["config", "--blob", &blob, "--no-includes", "-z", "--list"],
        )
        .map_err(|_| failed(&links[0].0, "the repository has no readable .gitmodules"))?;
    let addresses = addresses(&String::from_utf8_lossy(&listed));
    let mut modules = Vec::new();
    for (path, commit) in links {
        let Some(address) = addresses.get(&path) else {
            return Err(failed(&path, "it has no address in .gitmodules"));
        };
        // `update = none`: the repository's authors do not want it checked out.
        let Some(url) = address else { continue };
        let url = absolute(wanted.remote, url).ok_or_else(|| failed(&path, "its address leads nowhere"))?;
        modules.push(Submodule { path, commit, url });
    }
    Ok(modules)
}

/// The places and commits of submodules in `git ls-tree -z`.
fn links(listed: &[u8]) -> Vec<(String, String)> {
    String::from_utf8_lossy(listed)
        .split('\0')
        .filter_map(|entry| {
            let (facts, path) = entry.split_once('\t')?;
            let commit = facts.strip_prefix("160000 commit ")?;
            is_commit_hash(commit).then(|| (path.to_owned(), commit.to_owned()))
        })
        .collect()
}

/// By place: the address, or `None` for what is not to be checked out.
fn addresses(listed: &str) -> BTreeMap<String, Option<String>> {
    let mut by_name: BTreeMap<&str, [Option<&str>; 3]> = BTreeMap::new();
    for entry in listed.split('\0') {
        let (key, value) = entry.split_once('\n').unwrap_or((entry, ""));
        let Some((name, variable)) = key
            .strip_prefix("submodule.")
            .and_then(|rest| rest.rsplit_once('.'))
        else {
            continue;
        };
        let slot = match variable {
            "path" => 0,
            "url" => 1,
            "update" => 2,
            _ => continue,
        };
        by_name.entry(name).or_default()[slot] = Some(value);
    }
    by_name
        .into_values()
        .filter_map(|[path, url, update]| {
            let path = path?.trim_end_matches('/').to_owned();
            match update {
                Some("none") => Some((path, None)),
                _ => Some((path, Some(url?.to_owned()))),
            }
        })
        .collect()
}

/// An address as seen from a repository: `../other.git` lies beside it.
fn absolute(remote: &str, url: &str) -> Option<String> {
    if !url.starts_with("./") && !url.starts_with("../") {
        return is_remote(url).then(|| url.to_owned());
    }
    let mut base = remote.trim_end_matches('/');
    let mut rest = url;
    loop {
        if let Some(next) = rest.strip_prefix("./") {
            rest = next;
        } else if let Some(next) = rest.strip_prefix("../") {
            let start = base.find("://").map_or(0, |at| at + 3);
            let cut = base[start..].rfind(['/', ':'])?;
            base = &base[..start + cut];
            rest = next;
        } else {
            break;
        }
    }
    // What was cut at a colon goes on behind one.
    let was_path = !base.contains("://") && !base.contains(':');
    let separator = if was_path { ':' } else { '/' };
    Some(format!("{base}{separator}{rest}"))
}

/// Whether git may be given this address: nothing that is an option, a path of this machine or a program.
fn is_remote(url: &str) -> bool {
    let clean = url.bytes().all(|byte| byte > b' ' && byte != 0x7f);
    match url.split_once("://") {
        // Which of the protocols are possible is known where git is run.
        Some((scheme, rest)) => {
            let host = rest.split('/').next().unwrap_or_default();
            let host = host.rsplit('@').next().unwrap_or_default();
            clean && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !host.starts_with('-')
        }
        None => clean && !url.starts_with(['-', '/', '.']) && url.contains(':') && !url.contains("::"),
    }
}

/// Checks out submodules into their places, and theirs.
pub(super) fn check_out(
    repositories: &Repositories,
    parent: &Checkout<'_>,
    modules: &[Submodule],
    into: &Path,
    chain: &Chain<'_>,
    caller: Caller<'_>,
) -> Result<(), GitError> {
    for module in modules {
        let Some(wanted) = chain.below(&module.path) else {
            continue;
        };
        let failed = |reason: String| GitError::Submodule {
            remote: public(parent.remote),
            path: module.path.clone(),
            reason,
        };
        let link = (module.url.clone(), module.commit.clone());
        if chain.links.len() >= DEPTH || chain.links.contains(&link) {
            return Err(failed("it contains itself, or too many others".to_owned()));
        }
        let place = into.join(&module.path);
        // Git has made an empty directory; a repository cannot have anything else at the place of a submodule.
        if !std::fs::symlink_metadata(&place).is_ok_and(|metadata| metadata.is_dir()) {
            return Err(failed("its place is no directory".to_owned()));
        }
        let mut inner = chain.clone();
        inner.links.push(link);
        inner.wanted = wanted;
        let checkout = Checkout {
            remote: &module.url,
            commit: &module.commit,
            reference: None,
            tag: None,
            subdirectory: "",
            keep_git_dir: false,
            submodules: true,
            modified: Modified::Checkout,
        };
        checkout::whole(repositories, &checkout, false, &place, &inner, caller).map_err(
            |error| match error {
                GitError::Canceled | GitError::NoProgram { .. } | GitError::Submodule { .. } => error,
                error => failed(error.to_string()),
            },
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Chain, absolute, addresses, links};

    #[test]
    fn relative_addresses_lie_beside_the_repository() {
        for (remote, url, expected) in [
            ("https://h/a/b.git", "../c.git", Some("https://h/a/c.git")),
            ("https://h/a/b.git/", "../../c.git", Some("https://h/c.git")),
            ("https://h/a/b.git", "./c.git", Some("https://h/a/b.git/c.git")),
            ("git@h:a/b.git", "../c.git", Some("git@h:a/c.git")),
            ("git@h:b.git", "../c.git", Some("git@h:c.git")),
            ("https://h", "../../c.git", None),
            (
                "https://h/b.git",
                "https://other/c.git",
                Some("https://other/c.git"),
            ),
            ("https://h/b.git", "git@h:c.git", Some("git@h:c.git")),
            ("https://h/b.git", "-ufoo:x", None),
            ("https://h/b.git", "ext::sh -c x", None),
            ("https://h/b.git", "ext::sh", None),
            ("https://h/b.git", "/etc", None),
            ("https://h/b.git", "ssh://-oProxyCommand=x/y", None),
            ("https://h/b.git", "ssh://git@-oProxyCommand=x/y", None),
        ] {
            assert_eq!(absolute(remote, url).as_deref(), expected, "{remote} {url}");
        }
    }

    #[test]
    fn lists_are_read() {
        let hash = "0123456789012345678901234567890123456789";
        let listed = format!("100644 blob {hash}\ta\0160000 commit {hash}\tlibs/x\0160000 commit -x\ty\0");
        assert_eq!(links(listed.as_bytes()), [("libs/x".to_owned(), hash.to_owned())]);
        let listed = "submodule.a.b.path\nlibs/x\0submodule.a.b.url\n../x\0submodule.n.path\nn\0submodule.n.update\nnone\0core.sshcommand\nevil\0";
        let found = addresses(listed);
        assert_eq!(found.get("libs/x"), Some(&Some("../x".to_owned())));
        assert_eq!(found.get("n"), Some(&None));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn only_submodules_of_the_wanted_directory_count() {
        let chain = |wanted| Chain::begin("https://h/r.git", "", wanted);
        assert_eq!(chain("").below("x").as_deref(), Some(""));
        assert_eq!(chain("a/b").below("a/b/x").as_deref(), Some(""));
        assert_eq!(chain("a/b").below("a").as_deref(), Some("b"));
        assert_eq!(chain("a").below("ab"), None);
        assert_eq!(chain("a/b").below("a/c"), None);
    }
}
