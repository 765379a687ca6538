//! `--cache-from` and `--cache-to`.

use std::path::{Path, PathBuf};

use kiln_image::compress::Compression;
use kiln_image::{Digest, Reference};
use kiln_solver::LayerCompression;
use kiln_solver::remote_cache::{CacheExport, CacheLocation, CacheMode, CacheOptions};

use super::fields::fields;
use crate::report::Failure;

/// The tag of a cache in a folder unless another one is given.
const TAG: &str = "latest";
/// Kinds of caches that others have.
const OTHERS: &[&str] = &["gha", "s3", "azblob"];

/// Both flags' values.
pub(super) fn options(from: &[String], to: &[String]) -> Result<CacheOptions, Failure> {
    let mut options = CacheOptions {
        imports: from.iter().map(|text| import(text)).collect::<Result<_, _>>()?,
        ..CacheOptions::default()
    };
    for text in to {
        match export(text)? {
            Some(export) => options.exports.push(export),
            None => options.inline = true,
        }
    }
    Ok(options)
}

/// A flag's value, taken apart: every field must be asked for.
struct Fields<'a> {
    flag: &'static str,
    text: &'a str,
    left: Vec<(String, String)>,
}

impl<'a> Fields<'a> {
    fn new(flag: &'static str, text: &'a str) -> Result<Self, Failure> {
        // The short form: the name in a registry.
        let fields = if text.contains('=') {
            fields(flag, text)?
        } else {
            vec![
                ("type".to_owned(), "registry".to_owned()),
                ("ref".to_owned(), text.to_owned()),
            ]
        };
        Ok(Self {
            flag,
            text,
            left: fields,
        })
    }

    fn wrong(&self, what: &str) -> Failure {
        Failure::usage(format!("{} {}: {what}", self.flag, self.text))
    }

    /// Takes a field out; of several the last counts.
    fn take(&mut self, name: &str) -> Option<String> {
        let mut value = None;
        self.left.retain_mut(|(key, text)| {
            let found = key == name;
            if found {
                value = Some(std::mem::take(text));
            }
            !found
        });
        value
    }

    fn require(&mut self, name: &str, kind: &str) -> Result<String, Failure> {
        self.take(name)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| self.wrong(&format!("type={kind} needs {name}")))
    }

    fn bool(&mut self, name: &str, default: bool) -> Result<bool, Failure> {
        match self.take(name).as_deref() {
            None => Ok(default),
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(self.wrong(&format!("{name} is true or false, not {other:?}"))),
        }
    }

    fn kind(&mut self) -> Result<String, Failure> {
        let kind = self.take("type").unwrap_or_else(|| "registry".to_owned());
        if OTHERS.contains(&kind.as_str()) {
            return Err(self.wrong(&format!(
                "caches of type {kind} are not supported; use registry or local"
            )));
        }
        Ok(kind)
    }

    fn reference(&mut self) -> Result<Reference, Failure> {
        let name = self.require("ref", "registry")?;
        name.parse()
            .map_err(|error| self.wrong(&format!("{name:?} is no name: {error}")))
    }

    fn digest(&mut self) -> Result<Option<Digest>, Failure> {
        match self.take("digest") {
            None => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|error| self.wrong(&format!("{text:?} is no digest: {error}"))),
        }
    }

    fn end(self) -> Result<(), Failure> {
        match self.left.first() {
            None => Ok(()),
            Some((key, _)) => Err(self.wrong(&format!("there is no attribute {key}"))),
        }
    }
}

fn import(text: &str) -> Result<CacheLocation, Failure> {
    let mut fields = Fields::new("--cache-from", text)?;
    let location = match &*fields.kind()? {
        "registry" => CacheLocation::Registry(fields.reference()?),
        "local" => CacheLocation::Folder {
            path: folder(&fields.require("src", "local")?),
            tag: fields.take("tag").unwrap_or_else(|| TAG.to_owned()),
            digest: fields.digest()?,
        },
        other => return Err(fields.wrong(&format!("there is no type {other}; it is registry or local"))),
    };
    fields.end()?;
    Ok(location)
}

/// `None` is the inline cache.
fn export(text: &str) -> Result<Option<CacheExport>, Failure> {
    let mut fields = Fields::new("--cache-to", text)?;
    let kind = fields.kind()?;
    let mode = match fields.take("mode").as_deref() {
        None | Some("min") => CacheMode::Min,
        Some("max") => CacheMode::Max,
        Some(other) => return Err(fields.wrong(&format!("mode is min or max, not {other:?}"))),
    };
    let target = match &*kind {
        "registry" => CacheLocation::Registry(fields.reference()?),
        "local" => CacheLocation::Folder {
            path: folder(&fields.require("dest", "local")?),
            tag: fields.take("tag").unwrap_or_else(|| TAG.to_owned()),
            digest: None,
        },
        "inline" if mode == CacheMode::Max => {
            return Err(fields.wrong("an inline cache has the image's own layers only: mode=min"));
        }
        "inline" => {
            fields.end()?;
            return Ok(None);
        }
        other => {
            return Err(fields.wrong(&format!(
                "there is no type {other}; it is registry, local or inline"
            )));
        }
    };
    if let CacheLocation::Registry(reference) = &target
        && reference.digest.is_some()
    {
        return Err(fields.wrong("a cache cannot be written to a digest"));
    }
    // The only forms that are written.
    for name in ["image-manifest", "oci-mediatypes"] {
        if !fields.bool(name, true)? {
            return Err(fields.wrong(&format!(
                "{name}=false is not supported: caches are OCI image manifests"
            )));
        }
    }
    let compression = compression(&mut fields)?;
    let ignore_error = fields.bool("ignore-error", false)?;
    fields.end()?;
    Ok(Some(CacheExport {
        target,
        mode,
        compression,
        ignore_error,
    }))
}

fn compression(fields: &mut Fields<'_>) -> Result<LayerCompression, Failure> {
    let compression = match fields.take("compression").as_deref() {
        // As a push has it: both then share blobs, and what is compressed once serves both.
        None | Some("gzip") => Compression::Gzip,
        Some("zstd") => Compression::Zstd,
        Some("uncompressed") => Compression::None,
        Some(other) => {
            return Err(fields.wrong(&format!(
                "compression is gzip, zstd or uncompressed, not {other:?}"
            )));
        }
    };
    let level = match fields.take("compression-level") {
        None => None,
        Some(text) => {
            let level = text
                .parse()
                .ok()
                .filter(|level| compression.levels().contains(level));
            let levels = compression.levels();
            let range = format!("compression-level is {} to {}", levels.start(), levels.end());
            Some(level.ok_or_else(|| fields.wrong(&range))?)
        }
    };
    Ok(LayerCompression {
        compression,
        level,
        force: fields.bool("force-compression", false)?,
    })
}

fn folder(text: &str) -> PathBuf {
    Path::new(text).to_owned()
}

#[cfg(test)]
mod tests {
    use kiln_solver::remote_cache::{CacheLocation, CacheMode};

    use super::{export, import, options};

    #[test]
    fn forms() {
        let short = import("team/app:cache").unwrap();
        assert_eq!(short, import("type=registry,ref=team/app:cache").unwrap());
        assert_eq!(short, import("ref=team/app:cache").unwrap());
        assert!(matches!(
            import("type=local,src=/c,tag=x").unwrap(),
            CacheLocation::Folder { tag, digest: None, .. } if tag == "x"
        ));
        let max = export(
            "type=registry,ref=a/b,mode=max,image-manifest=true,compression=gzip,compression-level=9,ignore-error=true",
        );
        let max = max.unwrap().unwrap();
        assert!(max.ignore_error && max.mode == CacheMode::Max && max.compression.level == Some(9));
        let several = [
            "type=inline".to_owned(),
            "a/b".to_owned(),
            "type=local,dest=d".to_owned(),
        ];
        let several = options(&[], &several).unwrap();
        assert!(several.inline && several.exports.len() == 2);
    }

    #[test]
    fn errors() {
        for (text, expected) in [
            ("type=registry", "needs ref"),
            ("type=gha", "not supported"),
            ("type=inline,mode=max", "mode=min"),
            ("type=local,src=x", "needs dest"),
            ("type=registry,ref=A B", "no name"),
            ("ref=a,mode=some", "min or max"),
            ("ref=a,colour=red", "no attribute colour"),
            ("ref=a,compression=lzma", "gzip, zstd"),
            ("ref=a,compression=gzip,compression-level=10", "0 to 9"),
            ("ref=a,image-manifest=false", "image manifests"),
            ("ref=a,ignore-error=maybe", "true or false"),
        ] {
            let error = format!("{:?}", export(text).unwrap_err());
            assert!(error.contains(expected), "{text}: {error}");
        }
        let error = format!("{:?}", import("type=inline").unwrap_err());
        assert!(error.contains("registry or local"), "{error}");
    }
}
