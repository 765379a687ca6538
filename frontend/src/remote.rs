//! The files and repositories that steps take from elsewhere: each is looked up once, all of them in parallel.
//!
//! Their addresses hold variables of the stage, so they are known only when the instructions are lowered; what they
//! have must be known before the graph is made. So this comes between the two, and only for stages that are needed.

use kiln_image::Digest;
use kiln_parser::{Diagnostic, Span};
use kiln_remote::git::{GitAddress, public_remote};
use kiln_remote::http;
use kiln_solver::at_once;
use kiln_solver::graph::{Op, Source};

use crate::resolve::{RemoteFailure, RemoteResolver};
use crate::step::source_span;

/// How many sources are looked up at once.
const PARALLEL: usize = 8;

/// A source from elsewhere, as an instruction asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RemoteRequest {
    /// One file from a server.
    Http {
        /// Its URL.
        url: String,
        /// The content that it must have.
        checksum: Option<Digest>,
    },
    /// The files of a repository.
    Git(Box<GitAddress>),
}

impl RemoteRequest {
    /// What a person sees while it is loaded.
    pub(crate) fn step_name(&self) -> String {
        match self {
            Self::Http { url, .. } => format!("[internal] load {}", http::public(url)),
            Self::Git(address) => {
                let remote = public_remote(&address.remote);
                let reference = address.reference.as_deref();
                let place = match (reference, address.subdirectory.as_str()) {
                    (None, "") => String::new(),
                    (reference, "") => format!("#{}", reference.unwrap_or_default()),
                    (reference, subdirectory) => {
                        format!("#{}:{subdirectory}", reference.unwrap_or_default())
                    }
                };
                format!("[internal] load git source {remote}{place}")
            }
        }
    }
}

/// Sources asked for, and what was found.
#[derive(Debug, Default)]
pub(crate) struct Remotes {
    waiting: Vec<(RemoteRequest, Span)>,
    found: Vec<(RemoteRequest, Op)>,
}

impl Remotes {
    /// Asks for a source; `span` is where it is written. A second request for the same one changes nothing.
    pub(crate) fn request(&mut self, request: &RemoteRequest, span: Span) {
        let is_same = |(other, _): &(RemoteRequest, Span)| other == request;
        if !self.waiting.iter().any(is_same) {
            self.waiting.push((request.clone(), span));
        }
    }

    /// The operation of a source, once it is resolved.
    pub(crate) fn get(&self, request: &RemoteRequest) -> Option<&Op> {
        let found = self.found.iter().find(|(other, _)| other == request);
        found.map(|(_, op)| op)
    }

    /// Looks up all that were asked for.
    pub(crate) fn resolve(&mut self, resolver: &dyn RemoteResolver) -> Result<(), Vec<Diagnostic>> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut errors = Vec::new();
        for batch in waiting.chunks(PARALLEL) {
            let results = at_once(batch, |(request, span)| look_up(request, *span, resolver));
            for ((request, span), result) in batch.iter().zip(results) {
                match result {
                    Ok(op) => self.found.push((request.clone(), op)),
                    Err(failure) => errors.push(diagnostic(*span, failure)),
                }
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        errors.sort_by_key(|error| error.span.start);
        Err(errors)
    }
}

fn look_up(request: &RemoteRequest, span: Span, resolver: &dyn RemoteResolver) -> Result<Op, RemoteFailure> {
    let span = Some(source_span(span));
    let name = request.step_name();
    Ok(Op::Source(match request {
        RemoteRequest::Http { url, checksum } => Source::Http(resolver.http(url, *checksum, &name, span)?),
        RemoteRequest::Git(address) => Source::Git(resolver.git(address, &name, span)?),
    }))
}

fn diagnostic(span: Span, failure: RemoteFailure) -> Diagnostic {
    let diagnostic = Diagnostic::error(span, failure.message);
    match failure.hint {
        Some(hint) => diagnostic.hint(hint),
        None => diagnostic,
    }
}

#[cfg(test)]
mod tests {
    use kiln_remote::git::{Dialect, GitAddress};

    use super::RemoteRequest;
    use crate::testing::{FakeResolver, lower_with, options};

    #[test]
    fn names_do_not_show_secrets() {
        let http = RemoteRequest::Http {
            url: "https://u:p@h/f?token=x".to_owned(),
            checksum: None,
        };
        assert_eq!(http.step_name(), "[internal] load https://h/f");
        let git = |text| {
            let address = GitAddress::parse(text, Dialect::Add).unwrap().unwrap();
            RemoteRequest::Git(Box::new(address)).step_name()
        };
        assert_eq!(
            git("https://u:p@h/r.git#main:sub"),
            "[internal] load git source https://u:xxxxx@h/r.git#main:sub"
        );
        assert_eq!(git("git@h:r"), "[internal] load git source git@h:r");
    }

    #[test]
    fn each_source_of_a_needed_stage_is_asked_for_once() {
        let text = "ARG H=host\nFROM busybox AS unneeded\nADD https://unneeded/f /\n\
                    FROM busybox AS a\nARG H\nADD https://$H/f /one/\nFROM a\nENV F=f\nADD https://host/$F ssh://git@h/r.git /two/\n";
        let resolver = FakeResolver::new([]);
        lower_with(text, &options(), &resolver).unwrap();
        assert_eq!(
            resolver.asked(),
            [
                "docker.io/library/busybox:latest",
                "https://host/f",
                "ssh://git@h/r.git"
            ]
        );
    }

    #[test]
    fn what_cannot_be_had_is_an_error_at_its_place() {
        let text = "FROM busybox\nADD https://missing/a /\nADD https://h/b https://missing/c /x/\n";
        let errors = lower_with(text, &options(), &FakeResolver::new([])).unwrap_err();
        let seen: Vec<(&str, &str)> = errors
            .iter()
            .map(|error| (error.message.as_str(), &text[error.span.start..error.span.end]))
            .collect();
        assert_eq!(
            seen,
            [
                ("failed to download https://missing/a", "https://missing/a"),
                ("failed to download https://missing/c", "https://missing/c"),
            ]
        );
    }
}
