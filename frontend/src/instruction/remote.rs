//! Sources of ADD that are elsewhere: which they are, and what the flags say about them.

use kiln_image::Digest;
use kiln_parser::ast::{Add, Word};
use kiln_parser::{Diagnostic, Span};
use kiln_remote::git::{AddressError, Dialect, GitAddress};
use kiln_remote::http::file_name;
use kiln_tree::glob;

use super::Context;
use crate::remote::RemoteRequest;
use crate::state::StageState;

/// The flags of an ADD that concern such sources, expanded.
#[derive(Debug, Clone, Default)]
pub(super) struct RemoteFlags {
    checksum: Option<(String, Span)>,
    keep_git_dir: Option<(bool, Span)>,
}

impl RemoteFlags {
    /// The flags of `add`.
    pub(super) fn of(add: &Add, stage: &StageState, context: Context<'_>) -> Result<Self, Diagnostic> {
        let checksum = match &add.checksum {
            Some(word) => Some((context.expander.word(word, &stage.environment)?, word.span)),
            None => None,
        };
        Ok(Self {
            checksum: checksum.filter(|(value, _)| !value.is_empty()),
            keep_git_dir: add.keep_git_dir.as_ref().map(|flag| (flag.value, flag.span)),
        })
    }

    /// What `source`, written as `word`, asks for; `None` when it is a path.
    pub(super) fn request(&self, word: &Word, source: &str) -> Result<Option<RemoteRequest>, Diagnostic> {
        if let Some(address) = GitAddress::parse(source, Dialect::Add) {
            let address = address.map_err(|error| address_error(word.span, &error))?;
            return self.git(address).map(Some);
        }
        if is_url(source) {
            return Ok(Some(RemoteRequest::Http {
                url: source.to_owned(),
                checksum: self.digest()?,
            }));
        }
        match &self.checksum {
            None => Ok(None),
            Some((_, span)) => Err(Diagnostic::error(
                *span,
                "checksum can't be specified for non-HTTP(S) and non-git sources",
            )),
        }
    }

    fn git(&self, mut address: GitAddress) -> Result<RemoteRequest, Diagnostic> {
        if let Some((checksum, span)) = &self.checksum {
            address
                .agree_checksum(checksum)
                .map_err(|error| address_error(*span, &error))?;
        }
        if let Some((keep, span)) = self.keep_git_dir {
            address
                .agree_keep_git_dir(keep)
                .map_err(|error| address_error(span, &error))?;
        }
        Ok(RemoteRequest::Git(Box::new(address)))
    }

    fn digest(&self) -> Result<Option<Digest>, Diagnostic> {
        let Some((text, span)) = &self.checksum else {
            return Ok(None);
        };
        let algorithm = text.split_once(':').map(|(algorithm, _)| algorithm);
        match text.parse::<Digest>() {
            Ok(digest) => Ok(Some(digest)),
            Err(_) if algorithm.is_some_and(|algorithm| algorithm != "sha256") => Err(Diagnostic::error(
                *span,
                format!(
                    "checksum algorithm {:?} is not supported for URLs",
                    algorithm.unwrap_or_default()
                ),
            )
            .hint("give the file's SHA-256: --checksum=sha256:<64 hexadecimal digits>")),
            Err(error) => Err(
                Diagnostic::error(*span, format!("invalid checksum {text:?}: {error}"))
                    .hint("a checksum of a URL is sha256:<64 hexadecimal digits>"),
            ),
        }
    }
}

fn address_error(span: Span, error: &AddressError) -> Diagnostic {
    Diagnostic::error(span, error.to_string())
}

/// The pattern that selects a request's result in its layer: one file by its name, or everything.
pub(super) fn pattern(request: &RemoteRequest) -> String {
    let RemoteRequest::Http { url, .. } = request else {
        return String::new();
    };
    // A name is no pattern.
    let pattern = glob::escape(file_name(url));
    // It is text still: backslashes were put in, nothing else.
    String::from_utf8_lossy(&pattern).into_owned()
}

/// Whether a source is the address of something to be downloaded.
pub(crate) fn is_url(source: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| {
        source
            .get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    })
}

/// Whether a source of ADD is fetched: what [`RemoteFlags::request`] does not take for a path.
pub(crate) fn is_fetched(source: &str) -> bool {
    GitAddress::parse(source, Dialect::Add).is_some() || is_url(source)
}

/// Why a source that is elsewhere cannot be copied by COPY.
pub(super) fn refuse_copy(source: &str) -> Option<&'static str> {
    if GitAddress::parse(source, Dialect::Add).is_some() {
        return Some("a source of COPY cannot be a git repository; ADD can");
    }
    is_url(source).then_some("a source of COPY cannot be a URL; ADD can")
}

#[cfg(test)]
mod tests {
    use kiln_solver::graph::{FileAction, Op, Source};

    use crate::testing::{last_op, lowered, messages};

    const SUM: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    #[test]
    fn what_is_fetched_is_no_path() {
        for (source, fetched) in [
            ("https://h/a", true),
            ("HTTP://h/a", true),
            ("git@h:r.git", true),
            ("ssh://git@h/r.git", true),
            ("a/b", false),
            ("ftp://h/a", false),
        ] {
            assert_eq!(super::is_fetched(source), fetched, "{source}");
        }
    }

    #[test]
    fn kinds_of_sources_mix_in_their_order() {
        let lowered = lowered("FROM busybox\nADD a b https://h/x%20* c git@h:r.git#:sub d --no /to/\n");
        let Op::File(file) = last_op(&lowered) else {
            panic!("an ADD makes files")
        };
        let copies: Vec<(usize, Vec<&str>)> = file
            .actions
            .iter()
            .map(|action| {
                let FileAction::Copy(copy) = action else {
                    panic!("only copies")
                };
                let patterns = copy.sources.iter().map(|source| source.pattern.as_str());
                (copy.from, patterns.collect())
            })
            .collect();
        assert_eq!(
            copies,
            [
                (1, vec!["a", "b"]),
                (2, vec!["x \\*"]),
                (1, vec!["c"]),
                (3, vec![""]),
                (1, vec!["d", "--no"]),
            ]
        );
        let inputs: Vec<String> = lowered
            .graph
            .inputs(lowered.target)
            .into_iter()
            .filter_map(|input| match &lowered.graph.get(input)?.op {
                Op::Source(Source::Http(http)) => Some(format!("{} {}", http.url, http.name)),
                Op::Source(Source::Git(git)) => Some(format!("{} {}", git.remote, git.subdirectory)),
                Op::Source(Source::Local(local)) => Some(local.name.clone()),
                _ => None,
            })
            .collect();
        assert_eq!(inputs, ["context", "https://h/x%20* x *", "git@h:r.git sub"]);
    }

    #[test]
    fn archives_from_elsewhere_stay_as_they_are_unless_asked_for() {
        for (flag, expected) in [("", false), ("--unpack=true", true), ("--unpack=false", false)] {
            let lowered = lowered(&format!("FROM busybox\nADD {flag} https://h/a.tar /\n"));
            let Op::File(file) = last_op(&lowered) else {
                panic!("an ADD makes files")
            };
            let [FileAction::Copy(copy)] = file.actions.as_slice() else {
                panic!("it is one copy")
            };
            assert_eq!(copy.unpack, expected, "{flag}");
        }
    }

    #[test]
    fn flags_are_checked_against_what_the_source_turns_out_to_be() {
        for (add, message) in [
            (
                "--checksum=sha512:00 https://h/f /",
                "checksum algorithm \"sha512\" is not supported for URLs",
            ),
            ("--checksum=abc https://h/f /", "invalid checksum \"abc\": "),
            (
                "--checksum=$S $F /",
                "checksum can't be specified for non-HTTP(S) and non-git sources",
            ),
            (
                "--checksum=$S https://h/r.git /",
                "invalid checksum \"sha256:9f86",
            ),
            (
                "--checksum=ab https://h/r.git?checksum=cd /",
                "conflicting checksum: \"cd\" and \"ab\"",
            ),
            (
                "--keep-git-dir=true https://h/r.git?keep-git-dir=false /",
                "conflicting keep-git-dir: \"false\" and \"true\"",
            ),
            ("https://h/r.git#a?b /", "invalid reference \"a?b\""),
            ("https://h/r.git?depth=1 /", "unknown query parameter \"depth\""),
        ] {
            let messages = messages(&format!("FROM busybox\nENV S={SUM} F=file\nADD {add}\n"));
            assert_eq!(messages.len(), 1, "{add}");
            assert!(messages[0].starts_with(message), "{add}: {}", messages[0]);
        }
        lowered(&format!(
            "FROM busybox\nENV S={SUM}\nADD --checksum=$S https://h/f /\n"
        ));
        lowered("FROM busybox\nENV F=f\nADD --checksum=$UNSET $F /\n");
        lowered("FROM busybox\nADD --keep-git-dir=true f /\n");
    }
}
