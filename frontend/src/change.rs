//! `--change`: Dockerfile instructions that change an image's configuration without building anything.

use kiln_image::{Config, Digest, ImageConfig, Platform, Reference};
use kiln_remote::git::GitAddress;
use kiln_solver::graph::{GitSource, HttpSource, ImageSource, SourceSpan};

use crate::lower::lower;
use crate::options::LowerOptions;
use crate::resolve::{ImageResolver, RemoteFailure, RemoteResolver, ResolveError, ResolvedImage};

/// The instructions that `docker import` and `docker commit` take.
const ALLOWED: [&str; 12] = [
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// An instruction that cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{instruction}: {message}")]
pub struct ChangeError {
    /// The instruction.
    pub instruction: String,
    /// What is wrong with it.
    pub message: String,
}

/// The configuration that `changes` make of an empty one.
pub fn changed_config(changes: &[String], platform: &Platform) -> Result<Config, ChangeError> {
    for change in changes {
        let keyword = change
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_uppercase();
        if !ALLOWED.contains(&keyword.as_str()) || change.contains('\n') {
            let message = format!(
                "only {} can be changed, one instruction a time",
                ALLOWED.join(", ")
            );
            return Err(ChangeError {
                instruction: change.clone(),
                message,
            });
        }
    }
    // One Dockerfile of all changes: ENV sees what an earlier ENV set.
    let text = format!("FROM base\n{}\n", changes.join("\n"));
    let failed = |message: String, offset: usize| {
        let line = text.get(..offset).unwrap_or_default().matches('\n').count();
        let instruction = line
            .checked_sub(1)
            .and_then(|line| changes.get(line))
            .cloned()
            .unwrap_or_default();
        ChangeError { instruction, message }
    };
    let parsed = kiln_parser::parse(text.as_bytes());
    if let Some(error) = parsed.diagnostics.iter().find(|diagnostic| diagnostic.is_error()) {
        return Err(failed(error.message.clone(), error.span.start));
    }
    let lowered = lower(
        &parsed.dockerfile,
        &LowerOptions::new(platform.clone()),
        None,
        &Empty,
    )
    .map_err(|errors| {
        errors.first().map_or_else(
            || failed(String::new(), 0),
            |error| failed(error.message.clone(), error.span.start),
        )
    })?;
    Ok(lowered.config.config)
}

/// Every name is an image without layers and configuration.
struct Empty;

impl RemoteResolver for Empty {
    fn http(
        &self,
        _url: &str,
        _checksum: Option<Digest>,
        _name: &str,
        _span: Option<SourceSpan>,
    ) -> Result<HttpSource, RemoteFailure> {
        Err(nothing_from_elsewhere())
    }

    fn git(
        &self,
        _address: &GitAddress,
        _name: &str,
        _span: Option<SourceSpan>,
    ) -> Result<GitSource, RemoteFailure> {
        Err(nothing_from_elsewhere())
    }
}

/// ADD is none of the instructions that change a configuration only.
fn nothing_from_elsewhere() -> RemoteFailure {
    RemoteFailure {
        message: "nothing can be added here".to_owned(),
        hint: None,
    }
}

impl ImageResolver for Empty {
    fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        _span: Option<SourceSpan>,
    ) -> Result<ResolvedImage, ResolveError> {
        let digest = kiln_image::Digest::sha256_of(b"");
        let source = ImageSource {
            reference: reference.to_string(),
            digest,
            layers: Vec::new(),
        };
        Ok(ResolvedImage {
            source,
            config: ImageConfig::default(),
            platform: platform.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::changed_config;
    use kiln_image::Platform;

    #[test]
    fn changes_are_instructions() {
        let changes = [
            "ENV A=1".to_owned(),
            "ENV B=${A}2".to_owned(),
            "CMD [\"sh\"]".to_owned(),
        ];
        let config = changed_config(&changes, &Platform::host()).expect("valid changes");
        assert!(config.env.contains(&"B=12".to_owned()), "{:?}", config.env);
        assert_eq!(config.cmd, ["sh"]);
    }

    #[test]
    fn a_wrong_change_is_named() {
        let changes = ["ENV A=1".to_owned(), "RUN true".to_owned()];
        let error = changed_config(&changes, &Platform::host()).expect_err("RUN is no change");
        assert_eq!(error.instruction, "RUN true");
    }
}
