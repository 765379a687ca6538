//! `Reference`: which image is meant, in Docker's grammar.

use std::fmt;
use std::str::FromStr;

use crate::{Digest, ParseDigestError};

/// The registry of names without one.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Its old name.
const LEGACY_REGISTRY: &str = "index.docker.io";
/// Where repositories of one component lie in the default registry.
const OFFICIAL: &str = "library/";
/// The tag of names with neither tag nor digest.
const DEFAULT_TAG: &str = "latest";
/// Greatest length of a repository's path.
const REPOSITORY_LENGTH: usize = 255;
/// Greatest length of a tag.
const TAG_LENGTH: usize = 128;

/// An image's name, completed as Docker does it: `alpine` is `docker.io/library/alpine:latest`.
///
/// `Display` gives this complete form, [`Self::familiar`] the short one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Host and port of the registry.
    pub registry: String,
    /// Path of the repository.
    pub repository: String,
    /// The tag; `latest` when neither tag nor digest is named.
    pub tag: Option<String>,
    /// The digest of the manifest or index.
    pub digest: Option<Digest>,
}

/// Why a text is no [`Reference`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseReferenceError {
    /// Nothing there.
    #[error("image name is empty")]
    Empty,
    /// A URL.
    #[error("image name {text:?} must not begin with a URL scheme")]
    Scheme {
        /// The text.
        text: String,
    },
    /// 64 hexadecimal digits, which could be meant as an image ID.
    #[error("image name {text:?} would be an image ID: 64 hexadecimal digits are no name")]
    Identifier {
        /// The text.
        text: String,
    },
    /// Upper-case letters in the repository.
    #[error("repository name {repository:?} must be lower case; did you mean {suggestion:?}?")]
    UpperCase {
        /// The repository.
        repository: String,
        /// The same in lower case.
        suggestion: String,
    },
    /// The part before the first slash is no host.
    #[error("registry {registry:?} of image name is not of the form host[:port]")]
    Registry {
        /// The part.
        registry: String,
    },
    /// A component of the repository is malformed.
    #[error(
        "repository name component {component:?} is invalid: letters and digits, separated by one '.', one or two '_' \
         or any number of '-', are expected"
    )]
    Repository {
        /// The component.
        component: String,
    },
    /// The repository is too long.
    #[error("repository name has {length} characters, more than the {REPOSITORY_LENGTH} allowed")]
    TooLong {
        /// How long.
        length: usize,
    },
    /// The tag is malformed.
    #[error(
        "tag {tag:?} is invalid: up to {TAG_LENGTH} letters, digits, '_', '.' and '-' are allowed, the first one no '.' \
         or '-'"
    )]
    Tag {
        /// The tag.
        tag: String,
    },
    /// The digest is malformed.
    #[error("digest of image name is invalid")]
    Digest(#[source] ParseDigestError),
}

impl Reference {
    /// Reads an image's name and completes it, with `latest` when neither tag nor digest is named.
    pub fn parse(text: &str) -> Result<Self, ParseReferenceError> {
        let mut reference = Self::parse_untagged(text)?;
        if reference.tag.is_none() && reference.digest.is_none() {
            reference.tag = Some(DEFAULT_TAG.to_owned());
        }
        Ok(reference)
    }

    /// As [`Self::parse`], but leaves a missing tag out.
    pub fn parse_untagged(text: &str) -> Result<Self, ParseReferenceError> {
        if text.is_empty() {
            return Err(ParseReferenceError::Empty);
        }
        if text.contains("://") {
            return Err(ParseReferenceError::Scheme { text: shown(text) });
        }
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == 64 && text.bytes().all(is_hex) {
            return Err(ParseReferenceError::Identifier { text: shown(text) });
        }
        let (registry, remainder) = split_registry(text);
        let (rest, digest) = match remainder.split_once('@') {
            None => (remainder, None),
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(ParseReferenceError::Digest)?)),
        };
        let (path, tag) = match rest.split_once(':') {
            None => (rest, None),
            Some((path, tag)) => (path, Some(tag)),
        };
        let official = registry == DEFAULT_REGISTRY && !path.contains('/');
        let repository = if official {
            format!("{OFFICIAL}{path}")
        } else {
            path.to_owned()
        };
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            let suggestion = path.to_ascii_lowercase();
            return Err(ParseReferenceError::UpperCase {
                repository: shown(path),
                suggestion: shown(&suggestion),
            });
        }
        if !is_registry(registry) {
            let registry = shown(registry);
            return Err(ParseReferenceError::Registry { registry });
        }
        if let Some(component) = repository.split('/').find(|component| !is_component(component)) {
            let component = shown(component);
            return Err(ParseReferenceError::Repository { component });
        }
        if repository.len() > REPOSITORY_LENGTH {
            let length = repository.len();
            return Err(ParseReferenceError::TooLong { length });
        }
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(ParseReferenceError::Tag { tag: shown(tag) });
        }
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag: tag.map(str::to_owned),
            digest,
        })
    }

    /// Registry and repository, complete.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The short form of the name alone.
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return self.name();
        }
        let short = match self.repository.strip_prefix(OFFICIAL) {
            Some(rest) if !rest.contains('/') => rest,
            _ => &self.repository,
        };
        // A first component like `a.b` would be read as a registry.
        match Self::parse_untagged(short) {
            Ok(read) if read.registry == self.registry && read.repository == self.repository => {
                short.to_owned()
            }
            _ => self.name(),
        }
    }

    /// The short form, as Docker shows it: without `docker.io/` and `library/`.
    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_name(), Suffix(self))
    }

    /// What a registry is asked for: the digest, or else the tag.
    pub fn tag_or_digest(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }

    /// The same image by this digest.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            digest: Some(digest),
            ..self.clone()
        }
    }
}

/// Tag and digest as they follow a name.
struct Suffix<'a>(&'a Reference);

impl fmt::Display for Suffix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tag) = &self.0.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.0.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.repository, Suffix(self))
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// Registry and the rest. The first component is a registry if it looks like a host, or if it could not be part of a
/// repository's name.
fn split_registry(text: &str) -> (&str, &str) {
    let Some((first, rest)) = text.split_once('/') else {
        return (DEFAULT_REGISTRY, text);
    };
    if first == LEGACY_REGISTRY {
        return (DEFAULT_REGISTRY, rest);
    }
    let is_host = first == "localhost"
        || first.contains(['.', ':'])
        || first.bytes().any(|byte| byte.is_ascii_uppercase());
    if is_host {
        (first, rest)
    } else {
        (DEFAULT_REGISTRY, text)
    }
}

fn is_registry(registry: &str) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = registry.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        let is_address = |byte: u8| byte.is_ascii_hexdigit() || byte == b':';
        return !address.is_empty()
            && address.bytes().all(is_address)
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = match registry.split_once(':') {
        None => (registry, None),
        Some((host, port)) => (host, Some(port)),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

/// Alphanumeric runs with `.`, `_`, `__` or any number of `-` between.
fn is_component(component: &str) -> bool {
    let is_alphanumeric = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
    let bytes = component.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    if !ends
        .iter()
        .all(|end| end.is_some_and(|&byte| is_alphanumeric(byte)))
    {
        return false;
    }
    let separators = bytes
        .split(|&byte| is_alphanumeric(byte))
        .filter(|run| !run.is_empty());
    separators
        .into_iter()
        .all(|run| matches!(run, b"." | b"_" | b"__") || run.iter().all(|&byte| byte == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= TAG_LENGTH
        && tag.bytes().next().is_some_and(is_word)
        && tag
            .bytes()
            .all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
}

/// A part of the text as it is shown in errors.
fn shown(text: &str) -> String {
    text.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn names_are_completed() {
        let at = format!("alpine@sha256:{HEX}");
        let both = format!("a.b:5000/c/d:e@sha256:{HEX}");
        let cases = [
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("alpine:3.19", "docker.io/library/alpine:3.19", "alpine:3.19"),
            (
                "docker.io/alpine",
                "docker.io/library/alpine:latest",
                "alpine:latest",
            ),
            (
                "index.docker.io/library/alpine",
                "docker.io/library/alpine:latest",
                "alpine:latest",
            ),
            ("user/app", "docker.io/user/app:latest", "user/app:latest"),
            (
                "library/a/b",
                "docker.io/library/a/b:latest",
                "library/a/b:latest",
            ),
            (
                "localhost",
                "docker.io/library/localhost:latest",
                "localhost:latest",
            ),
            ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
            ("localhost:5000/a:b", "localhost:5000/a:b", "localhost:5000/a:b"),
            (
                "127.0.0.1:5000/a",
                "127.0.0.1:5000/a:latest",
                "127.0.0.1:5000/a:latest",
            ),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
            ("HOST/a", "HOST/a:latest", "HOST/a:latest"),
            (
                "ghcr.io/a/b-c__d.e_f--g",
                "ghcr.io/a/b-c__d.e_f--g:latest",
                "ghcr.io/a/b-c__d.e_f--g:latest",
            ),
            (
                "docker.io/a.b/c",
                "docker.io/a.b/c:latest",
                "docker.io/a.b/c:latest",
            ),
            ("a:5000", "docker.io/library/a:5000", "a:5000"),
            (&at, &format!("docker.io/library/{at}"), &at),
            (&both, &both, &both),
        ];
        for (text, complete, familiar) in cases {
            let reference = Reference::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(reference.to_string(), complete, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        use ParseReferenceError as E;
        type Check = fn(&E) -> bool;
        let long_tag = format!("a:{}", "t".repeat(129));
        let long_name = "a/".repeat(128) + "b";
        let cases: [(&str, Check); 24] = [
            ("", |e| matches!(e, E::Empty)),
            (HEX, |e| matches!(e, E::Identifier { .. })),
            ("https://docker.io/a", |e| matches!(e, E::Scheme { .. })),
            (
                "Alpine",
                |e| matches!(e, E::UpperCase { suggestion, .. } if suggestion == "alpine"),
            ),
            ("docker.io/User/a", |e| matches!(e, E::UpperCase { .. })),
            (":tag", |e| matches!(e, E::Repository { .. })),
            ("a/", |e| matches!(e, E::Repository { .. })),
            ("a//b", |e| matches!(e, E::Repository { .. })),
            ("/a", |e| matches!(e, E::Repository { .. })),
            ("a..b", |e| matches!(e, E::Repository { .. })),
            ("a___b", |e| matches!(e, E::Repository { .. })),
            ("-a", |e| matches!(e, E::Repository { .. })),
            ("a-", |e| matches!(e, E::Repository { .. })),
            ("a b", |e| matches!(e, E::Repository { .. })),
            ("é", |e| matches!(e, E::Repository { .. })),
            ("a:", |e| matches!(e, E::Tag { .. })),
            ("a:.b", |e| matches!(e, E::Tag { .. })),
            ("a:b:c", |e| matches!(e, E::Tag { .. })),
            (&long_tag, |e| matches!(e, E::Tag { .. })),
            (&long_name, |e| matches!(e, E::TooLong { .. })),
            ("a@sha256:12", |e| matches!(e, E::Digest(_))),
            ("a@b@c", |e| matches!(e, E::Digest(_))),
            ("-.b/c", |e| matches!(e, E::Registry { .. })),
            ("a.b:x/c", |e| matches!(e, E::Registry { .. })),
        ];
        for (text, check) in cases {
            match Reference::parse(text) {
                Ok(reference) => panic!("{text:?} was taken as {reference}"),
                Err(error) => assert!(check(&error), "{text:?}: {error:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn both_forms_read_back(
            text in "([a-zA-Z0-9.-]{1,8}(:[0-9]{1,5})?/)?[a-z0-9]{1,4}([._/-]|__)?[a-z0-9]{1,4}(:[a-zA-Z0-9_.-]{1,9})?"
        ) {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
                prop_assert_eq!(&Reference::parse(&reference.familiar()).unwrap(), &reference);
                prop_assert!(reference.familiar().len() <= reference.to_string().len());
            }
        }

        #[test]
        fn nothing_panics(text in ".{0,80}") {
            let _ = Reference::parse(&text);
            let _ = text.parse::<crate::Platform>();
        }
    }
}
