//! Asks a remote where a reference points.

use super::address::{is_commit_hash, public};
use super::error::GitError;
use super::program::{Program, Run};
use super::repositories::ResolvedCommit;

/// The commit of `reference`, or of the remote's default branch.
pub(super) fn reference(
    program: Program<'_>,
    remote: &str,
    reference: Option<&str>,
    config: &[(String, String)],
) -> Result<ResolvedCommit, GitError> {
    let peeled = reference.map(|name| format!("{name}^{{}}"));
    let mut arguments = vec!["ls-remote"];
    match (reference, &peeled) {
        (Some(name), Some(peeled)) => arguments.extend(["--", remote, name, peeled]),
        _ => arguments.extend(["--symref", "--", remote, "HEAD"]),
    }
    let mut run = Run::new("ls-remote", remote, &arguments);
    run.config = config;
    let answer = program.run(&run)?;
    let answer = String::from_utf8_lossy(&answer);
    let found = match reference {
        Some(name) => choose(&answer, name),
        None => head(&answer),
    };
    let found = found.ok_or_else(|| GitError::NoReference {
        remote: public(remote),
        reference: reference.unwrap_or("HEAD").to_owned(),
    })?;
    let hashes = std::iter::once(&found.commit).chain(&found.tag);
    if hashes.into_iter().all(|hash| is_commit_hash(hash)) {
        return Ok(found);
    }
    Err(GitError::Answer {
        action: "ls-remote",
        remote: public(remote),
    })
}

/// The lines `<hash>\t<reference>`.
fn lines(answer: &str) -> impl Iterator<Item = (&str, &str)> {
    answer.lines().filter_map(|line| line.split_once('\t'))
}

/// Of all references that end with `name`: the one that is called so exactly, then a branch, then a tag.
fn choose(answer: &str, name: &str) -> Option<ResolvedCommit> {
    let bare = |prefix: &str| format!("{prefix}{}", name.strip_prefix(prefix).unwrap_or(name));
    [bare("refs/"), bare("refs/heads/"), bare("refs/tags/")]
        .into_iter()
        .find_map(|full| {
            let hash_of = |wanted: &str| {
                lines(answer)
                    .find(|(_, name)| *name == wanted)
                    .map(|(hash, _)| hash)
            };
            let hash = hash_of(&full)?.to_owned();
            Some(match hash_of(&format!("{full}^{{}}")) {
                Some(commit) => ResolvedCommit {
                    commit: commit.to_owned(),
                    tag: Some(hash),
                    reference: Some(full),
                },
                None => ResolvedCommit {
                    commit: hash,
                    tag: None,
                    reference: Some(full),
                },
            })
        })
}

/// What `HEAD` points at, and the branch that it names; servers of old do not say the latter.
fn head(answer: &str) -> Option<ResolvedCommit> {
    let is_head = |(_, name): &(&str, &str)| *name == "HEAD";
    let branch = lines(answer)
        .filter(is_head)
        .find_map(|(target, _)| target.strip_prefix("ref: "));
    let hash = lines(answer)
        .filter(is_head)
        .find(|(hash, _)| !hash.starts_with("ref: "))
        .map(|(hash, _)| hash)?;
    Some(ResolvedCommit {
        commit: hash.to_owned(),
        tag: None,
        reference: branch
            .filter(|branch| branch.starts_with("refs/"))
            .map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::{choose, head};

    #[test]
    fn exact_names_come_first_then_branches_then_tags() {
        let answer =
            "1\trefs/heads/v1\n2\trefs/tags/v1\n3\trefs/tags/v1^{}\n4\trefs/heads/x/v1\n5\trefs/pull/v1\n";
        for (name, commit, tag, reference) in [
            ("v1", "1", None, "refs/heads/v1"),
            ("refs/tags/v1", "3", Some("2"), "refs/tags/v1"),
            ("tags/v1", "3", Some("2"), "refs/tags/v1"),
            ("heads/v1", "1", None, "refs/heads/v1"),
            ("pull/v1", "5", None, "refs/pull/v1"),
            ("x/v1", "4", None, "refs/heads/x/v1"),
        ] {
            let found = choose(answer, name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(
                (
                    found.commit.as_str(),
                    found.tag.as_deref(),
                    found.reference.as_deref()
                ),
                (commit, tag, Some(reference)),
                "{name}"
            );
        }
        assert_eq!(choose(answer, "1"), None);
        assert_eq!(choose("", "main"), None);
    }

    #[test]
    fn head_names_its_branch_when_the_server_says_so() {
        let found = head("ref: refs/heads/main\tHEAD\nabc\tHEAD\n").expect("a head");
        assert_eq!(
            (found.commit.as_str(), found.reference.as_deref()),
            ("abc", Some("refs/heads/main"))
        );
        assert_eq!(head("abc\tHEAD\n").expect("a head").reference, None);
        assert_eq!(head(""), None);
    }
}
