//! `--output`, `--push` and `--load`: where the result of a build goes.

use std::path::PathBuf;

use kiln_image::Reference;
use kiln_solver::{LayerCompression, Needs};

use super::fields::fields;
use super::values;
use crate::arguments::Build;
use crate::commands::compression::compression;
use crate::report::Failure;

/// What somebody wants of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Output {
    /// An image of the store, and of a registry if it is to be pushed.
    Image {
        /// Names beside those of `--tag`.
        names: Vec<Reference>,
        push: bool,
        /// Without touching the tag.
        by_digest: bool,
        compression: LayerCompression,
    },
    /// An archive or a layout directory.
    Archive {
        docker: bool,
        /// A file, or the directory of a layout; standard output without.
        dest: Option<PathBuf>,
        /// A directory instead of a tar.
        directory: bool,
        names: Vec<Reference>,
        compression: LayerCompression,
    },
    /// The files, in a directory.
    Local {
        dest: PathBuf,
        /// A directory a platform; without, when there are several.
        split: Option<bool>,
    },
    /// The files, as a tar; to standard output without a destination.
    Tar { dest: Option<PathBuf> },
    /// Nothing: the cache is filled.
    CacheOnly,
}

/// All outputs of a build; none means an image of the store.
#[derive(Debug, Clone, Default)]
pub(super) struct Outputs {
    pub(super) outputs: Vec<Output>,
}

impl Outputs {
    /// What was asked for, checked as far as that goes before the build.
    pub(super) fn new(arguments: &Build, tags: &[Reference]) -> Result<Self, Failure> {
        let mut outputs = Vec::new();
        for text in &arguments.outputs {
            outputs.push(parse(text)?);
        }
        if arguments.push {
            push_flag(&mut outputs);
        }
        if arguments.load {
            if arguments.push {
                return Err(Failure::usage("--push and --load may not be set together"));
            }
            let has_image = |output: &Output| matches!(output, Output::Image { .. });
            if !outputs.is_empty() && !outputs.iter().any(has_image) {
                outputs.push(image(false));
            }
        }
        let to_stdout = outputs.iter().filter(|output| output.is_stdout()).count();
        if to_stdout > 1 {
            return Err(Failure::usage("only one --output can go to standard output"));
        }
        for output in &outputs {
            if let Output::Image {
                names, push: true, ..
            } = output
                && names.is_empty()
                && tags.is_empty()
            {
                return Err(Failure::usage("tag is needed when pushing to registry")
                    .hint("name the image with -t REGISTRY/NAME:TAG"));
            }
        }
        Ok(Self { outputs })
    }

    /// The names that the image gets in the store: all of them, unless it goes elsewhere only.
    pub(super) fn names(&self, tags: &[Reference]) -> Vec<Reference> {
        let mut names = Vec::new();
        let mut kept = self.outputs.is_empty();
        for output in &self.outputs {
            if let Output::Image { names: own, .. } = output {
                kept = true;
                names.extend(own.iter().cloned());
            }
        }
        if kept {
            names.splice(0..0, tags.iter().cloned());
        }
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
    }

    /// How layers are to be compressed while the build still runs.
    pub(super) fn early_compression(&self) -> Option<LayerCompression> {
        self.outputs.iter().find_map(|output| match output {
            Output::Image {
                push: true,
                compression,
                ..
            }
            | Output::Archive { compression, .. } => Some(*compression),
            _ => None,
        })
    }

    /// The name in whose repository a push of layers that are compressed like this begins.
    pub(super) fn early_upload(&self, tags: &[Reference]) -> Option<Reference> {
        let form = self.early_compression()?;
        let names = self.outputs.iter().find_map(|output| match output {
            Output::Image {
                names,
                push: true,
                compression,
                ..
            } if *compression == form => Some(names),
            _ => None,
        })?;
        tags.iter().chain(names).min_by_key(|name| name.name()).cloned()
    }

    /// What is needed of the image here. What is only pushed needs no files, nor does what goes nowhere.
    pub(super) fn needs(&self) -> Needs {
        let mut needs = None;
        for output in &self.outputs {
            match (output, needs) {
                (Output::CacheOnly, _) => {}
                (
                    Output::Image {
                        push: true,
                        compression,
                        ..
                    },
                    None,
                ) => needs = Some(*compression),
                (
                    Output::Image {
                        push: true,
                        compression,
                        ..
                    },
                    Some(same),
                ) if *compression == same => {}
                _ => return Needs::Files,
            }
        }
        match needs {
            Some(form) => Needs::Blobs(form),
            None if self.outputs.is_empty() => Needs::Files,
            None => Needs::Nothing,
        }
    }

    /// Standard output is taken.
    pub(super) fn use_stdout(&self) -> bool {
        self.outputs.iter().any(Output::is_stdout)
    }
}

impl Output {
    fn is_stdout(&self) -> bool {
        matches!(self, Self::Archive { dest: None, .. } | Self::Tar { dest: None })
    }
}

fn image(push: bool) -> Output {
    Output::Image {
        names: Vec::new(),
        push,
        by_digest: false,
        compression: LayerCompression::default(),
    }
}

/// `--push`: what is an image anyway is pushed; else there is one more output.
fn push_flag(outputs: &mut Vec<Output>) {
    let mut found = false;
    for output in outputs.iter_mut() {
        if let Output::Image { push, .. } = output {
            *push = true;
            found = true;
        }
    }
    if !found {
        outputs.push(image(true));
    }
}

/// The attributes of one `--output`, taken one by one.
struct Attributes<'a> {
    text: &'a str,
    fields: Vec<(String, String)>,
}

impl Attributes<'_> {
    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.fields.iter().position(|(key, _)| key == name)?;
        Some(self.fields.remove(at).1)
    }

    fn flag(&mut self, name: &str) -> Result<Option<bool>, Failure> {
        match self.take(name).as_deref() {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(other) => Err(self.wrong(&format!("{name}={other}: expected true or false"))),
        }
    }

    fn wrong(&self, what: &str) -> Failure {
        Failure::usage(format!("--output {}: {what}", self.text))
    }

    fn compression(&mut self) -> Result<LayerCompression, Failure> {
        let word = self.take("compression");
        let level = match self.take("compression-level") {
            None => None,
            Some(text) => match text.parse::<i32>() {
                Ok(level) => Some(level),
                Err(_) => return Err(self.wrong(&format!("compression-level={text}: expected a number"))),
            },
        };
        let force = self.flag("force-compression")?.unwrap_or(false);
        // The forms that Kiln has are OCI's.
        if self.flag("oci-mediatypes")? == Some(false) {
            return Err(self.wrong("oci-mediatypes=false: Kiln writes OCI media types only"));
        }
        let names = ("compression=", "compression-level=");
        compression((word.as_deref(), level), force, names)
            .map_err(|failure| self.wrong(&failure.message_text()))
    }

    fn names(&mut self) -> Result<Vec<Reference>, Failure> {
        let text = self.take("name").unwrap_or_default();
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(values::name).collect()
    }

    /// Where to; `-` is standard output.
    fn dest(&mut self) -> Option<PathBuf> {
        self.take("dest").map(PathBuf::from)
    }

    /// Nothing may be left: an attribute that does nothing would look as if it did.
    fn end(&self, kind: &str) -> Result<(), Failure> {
        match self.fields.first() {
            None => Ok(()),
            Some((key, _)) => Err(self.wrong(&format!("type {kind} has no attribute {key:?} in Kiln"))),
        }
    }
}

fn parse(text: &str) -> Result<Output, Failure> {
    if text == "-" {
        return Ok(Output::Tar { dest: None });
    }
    // As Docker: something without `=` is a directory.
    if !text.contains('=') {
        return Ok(Output::Local {
            dest: PathBuf::from(text),
            split: None,
        });
    }
    let mut attributes = Attributes {
        text,
        fields: fields("--output", text)?,
    };
    let Some(kind) = attributes.take("type") else {
        return Err(attributes.wrong("type is required"));
    };
    let output = match kind.as_str() {
        "image" | "registry" => {
            let push = attributes.flag("push")?.unwrap_or(false) || kind == "registry";
            let by_digest = attributes.flag("push-by-digest")?.unwrap_or(false);
            // Both are what happens anyway.
            for name in ["unpack", "store"] {
                if attributes.flag(name)? == Some(false) {
                    return Err(attributes.wrong(&format!(
                        "{name}=false: an image whose layers are here is always kept"
                    )));
                }
            }
            Output::Image {
                names: attributes.names()?,
                push: push || by_digest,
                by_digest,
                compression: attributes.compression()?,
            }
        }
        "oci" | "docker" => archive(&mut attributes, &kind)?,
        "local" => local(&mut attributes)?,
        "tar" => Output::Tar {
            dest: attributes.dest().filter(|dest| dest.as_os_str() != "-"),
        },
        "cacheonly" => Output::CacheOnly,
        other => {
            return Err(attributes.wrong(&format!(
                "unknown type {other:?}: expected image, registry, oci, docker, local, tar or cacheonly"
            )));
        }
    };
    attributes.end(&kind)?;
    Ok(output)
}

fn archive(attributes: &mut Attributes<'_>, kind: &str) -> Result<Output, Failure> {
    let directory = attributes.flag("tar")? == Some(false);
    let dest = attributes.dest();
    let (names, compression) = (attributes.names()?, attributes.compression()?);
    if dest.is_none() && kind == "docker" && !directory {
        // Into the store, where `docker` has its images.
        return Ok(Output::Image {
            names,
            push: false,
            by_digest: false,
            compression,
        });
    }
    let dest = dest.filter(|dest| dest.as_os_str() != "-");
    if directory && dest.is_none() {
        return Err(attributes.wrong("tar=false needs dest=DIRECTORY"));
    }
    Ok(Output::Archive {
        docker: kind == "docker",
        dest,
        directory,
        names,
        compression,
    })
}

fn local(attributes: &mut Attributes<'_>) -> Result<Output, Failure> {
    let split = attributes.flag("platform-split")?;
    if let Some(mode) = attributes.take("mode").filter(|mode| mode != "copy") {
        return Err(attributes.wrong(&format!("mode={mode}: only copy is supported")));
    }
    match attributes.dest() {
        Some(dest) if dest.as_os_str() == "-" => {
            Err(attributes.wrong("files cannot go to standard output; type=tar can"))
        }
        Some(dest) => Ok(Output::Local { dest, split }),
        None => Err(attributes.wrong("dest is required for local output")),
    }
}

#[cfg(test)]
mod tests;
