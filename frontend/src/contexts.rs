//! Named contexts: what `--build-context NAME=VALUE` puts in the place of stages and images.
//!
//! A name is compared as an image's familiar name without `:latest`, so `busybox`, `busybox:latest` and
//! `docker.io/library/busybox` are one. `NAME::os/architecture` counts for that platform alone and goes before `NAME`.
//! A value is taken as it is: it is never looked up among the names again, so no chain and no circle can arise.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use kiln_image::{Digest, Platform, Reference};
use kiln_parser::Span;

use crate::fetch::RemoteContext;
use crate::images::ImageRequest;
use crate::options::LowerOptions;
use crate::stage::{Files, Origin};

/// Names that always mean something else.
const RESERVED: [&str; 2] = ["scratch", crate::MAIN_CONTEXT];

/// The named contexts of a build. Nothing of them is read before a step that the target needs asks for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedContexts {
    values: BTreeMap<String, ContextValue>,
}

/// What a named context is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextValue {
    /// Nothing (`docker-image://scratch`).
    Scratch,
    /// A directory of this machine. Its own ignore file counts.
    Directory(PathBuf),
    /// An image.
    Image(Reference),
    /// An image of an OCI layout on this machine.
    Layout(LayoutImage),
    /// A repository, or an archive or a single file at an address.
    Remote(RemoteContext),
}

/// An image of an OCI layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutImage {
    /// The layout's directory.
    pub path: PathBuf,
    /// The image's tag in the layout; `latest` when neither tag nor digest is named.
    pub tag: Option<String>,
    /// The digest of its manifest or index.
    pub digest: Option<Digest>,
}

/// An image that a named context stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextImage {
    /// The context's name.
    pub name: String,
    /// Where the image comes from.
    pub location: ImageLocation,
}

/// Where the image of a named context comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageLocation {
    /// The store or a registry.
    Registry(Reference),
    /// An OCI layout.
    Layout(LayoutImage),
}

/// As progress has it: no path of this machine.
impl fmt::Display for ImageLocation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => formatter.write_str(&reference.familiar()),
            Self::Layout(_) => formatter.write_str("OCI load from client"),
        }
    }
}

/// Why the text of a named context means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: {reason}")]
pub struct NamedContextError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl NamedContexts {
    /// Adds `NAME=VALUE`; an earlier value of the same name is forgotten. What is at the value is not looked at.
    pub fn add(&mut self, text: &str) -> Result<(), NamedContextError> {
        let error = |reason: String| NamedContextError {
            text: text.to_owned(),
            reason,
        };
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| error("NAME=VALUE is expected".to_owned()))?;
        let key = parse_name(name).map_err(error)?;
        let value = ContextValue::parse(value).map_err(error)?;
        self.values.insert(key, value);
        Ok(())
    }

    /// The contexts by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ContextValue)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The contexts by name, to be completed by what the command line alone knows.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut ContextValue)> {
        self.values.iter_mut().map(|(name, value)| (name.as_str(), value))
    }

    /// The context of exactly this name.
    pub(crate) fn get(&self, name: &str) -> Option<&ContextValue> {
        self.values.get(name)
    }

    /// The context that stands for a stage or an image called `name` on `platform`, under the name that it was given.
    pub fn find(&self, name: &str, platform: &Platform) -> Option<(&str, &ContextValue)> {
        if self.values.is_empty()
            || RESERVED
                .iter()
                .any(|reserved| name.eq_ignore_ascii_case(reserved))
        {
            return None;
        }
        let name = familiar(name).ok()?;
        let exact = format!("{name}::{}", platform.normalized());
        let (name, value) = self
            .values
            .get_key_value(&exact)
            .or_else(|| self.values.get_key_value(&name))?;
        Some((name, value))
    }
}

/// The key of a name: `NAME` or `NAME::PLATFORM`.
fn parse_name(name: &str) -> Result<String, String> {
    let (name, platform) = match name.split_once("::") {
        Some((name, platform)) => (name, Some(platform)),
        None => (name, None),
    };
    let invalid = |error: &dyn fmt::Display| format!("invalid context name {name:?}: {error}");
    let key = familiar(name).map_err(|error| invalid(&error))?;
    let Some(platform) = platform else { return Ok(key) };
    let platform: Platform = platform
        .parse()
        .map_err(|error| format!("invalid platform of context {name:?}: {error}"))?;
    Ok(format!("{key}::{platform}"))
}

fn familiar(name: &str) -> Result<String, kiln_image::ParseReferenceError> {
    let name = Reference::parse_untagged(name)?.familiar();
    Ok(name
        .strip_suffix(":latest")
        .map_or_else(|| name.clone(), str::to_owned))
}

impl ContextValue {
    /// Reads a value by its form alone.
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the value is empty".to_owned());
        }
        if let Some(image) = text.strip_prefix("docker-image://") {
            if image == "scratch" {
                return Ok(Self::Scratch);
            }
            let reference = Reference::parse(image);
            return reference
                .map(Self::Image)
                .map_err(|error| format!("invalid image name {image:?}: {error}"));
        }
        if let Some(layout) = text.strip_prefix("oci-layout://") {
            return LayoutImage::parse(layout).map(Self::Layout);
        }
        if let Some(remote) = RemoteContext::parse(text) {
            return remote.map(Self::Remote).map_err(|error| error.to_string());
        }
        for scheme in ["target:", "input:"] {
            if text.starts_with(scheme) {
                return Err(format!("{scheme} contexts exist inside of bake files only"));
            }
        }
        match text.split_once("://") {
            Some((scheme, _)) => Err(format!(
                "unknown scheme {scheme}://; a context is a directory, docker-image://, oci-layout://, a git \
                 repository or an http(s) address"
            )),
            None => Ok(Self::Directory(PathBuf::from(text))),
        }
    }
}

impl LayoutImage {
    /// `path[:tag][@digest]`. What does not look like a tag or digest belongs to the path.
    fn parse(text: &str) -> Result<Self, String> {
        let (mut path, mut digest, mut tag) = (text, None, None);
        if let Some((before, after)) = path.rsplit_once('@')
            && after.contains(':')
            && !after.contains('/')
        {
            let parsed = after
                .parse()
                .map_err(|error| format!("invalid digest {after:?}: {error}"))?;
            (path, digest) = (before, Some(parsed));
        }
        if let Some((before, after)) = path.rsplit_once(':')
            && is_tag(after)
        {
            (path, tag) = (before, Some(after.to_owned()));
        }
        if path.is_empty() {
            return Err("the path of the OCI layout is missing".to_owned());
        }
        if tag.is_none() && digest.is_none() {
            tag = Some("latest".to_owned());
        }
        Ok(Self {
            path: PathBuf::from(path),
            tag,
            digest,
        })
    }
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || b".-".contains(&byte))
}

/// What the named context for `name` on `platform` makes of it, when there is one.
pub(crate) fn origin(name: &str, platform: &Platform, span: Span, options: &LowerOptions) -> Option<Origin> {
    let (key, value) = options.contexts.find(name, platform)?;
    let image = |reference: Reference, location| {
        Origin::Image(Box::new(ImageRequest {
            reference,
            platform: platform.clone(),
            written: name.to_owned(),
            span,
            context: Some(ContextImage {
                name: key.to_owned(),
                location,
            }),
        }))
    };
    Some(match value {
        ContextValue::Scratch => Origin::Scratch,
        ContextValue::Image(reference) => {
            image(reference.clone(), ImageLocation::Registry(reference.clone()))
        }
        // Its name is shown and nothing else; it parsed once already.
        ContextValue::Layout(layout) => image(
            Reference::parse(name).ok()?,
            ImageLocation::Layout(layout.clone()),
        ),
        ContextValue::Directory(_) | ContextValue::Remote(_) => Origin::Files(Box::new(Files {
            name: key.to_owned(),
            platform: platform.clone(),
        })),
    })
}

#[cfg(test)]
mod tests;
