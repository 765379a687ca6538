//! `testdata/catalogue`: what a user reads in each situation of the catalogue of errors, as text and as JSON.
//!
//! `KILN_UPDATE_EXPECTED=1` writes the expectations anew, to be looked at in the diff of the commit.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kiln_frontend::{
    BuildError, ImageResolver, LowerOptions, ResolveError, ResolveErrorKind, ResolvedImage, check,
};
use kiln_image::{Digest, ImageConfig, Platform, Reference};
use kiln_solver::graph::{ImageSource, SourceSpan};
use serde::Deserialize;
use serde_json::Value;

use super::answers;
use crate::report::Failure;
use crate::style::Style;

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata")
}

/// Has busybox, and an image for another platform.
struct Shelf;

impl ImageResolver for Shelf {
    fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        _span: Option<SourceSpan>,
    ) -> Result<ResolvedImage, ResolveError> {
        match reference.repository.as_str() {
            "library/busybox" => Ok(ResolvedImage {
                source: ImageSource {
                    reference: reference.to_string(),
                    digest: Digest::sha256_of(b"busybox"),
                    layers: Vec::new(),
                },
                config: ImageConfig::default(),
                platform: platform.clone(),
            }),
            "library/elsewhere" => {
                let available = vec!["linux/s390x".parse().unwrap(), "linux/arm64".parse().unwrap()];
                let kind = ResolveErrorKind::NoPlatform { available };
                Err(ResolveError::new(kind, "the index has no such platform"))
            }
            _ => Err(ResolveError::new(
                ResolveErrorKind::NotFound,
                "manifest unknown (asked as anonymous)",
            )),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    row: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    situation: String,
    #[serde(default)]
    cases: Vec<String>,
    #[serde(default)]
    builds: Vec<String>,
    /// What is still to come.
    open: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    target: Option<String>,
}

fn rows() -> Vec<Row> {
    let text = std::fs::read_to_string(testdata().join("catalogue/rows.toml")).unwrap();
    toml::from_str::<Rows>(&text).unwrap().row
}

#[test]
fn every_row_has_its_cases() {
    let mut named = BTreeSet::new();
    for row in rows() {
        let situation = &row.situation;
        let is_shown = !row.cases.is_empty() || !row.builds.is_empty();
        assert!(is_shown || row.open.is_some(), "{situation}: nothing shows it");
        for build in &row.builds {
            let case = testdata().join("build").join(build).join("case.toml");
            assert!(case.exists(), "{situation}: there is no build {build}");
        }
        named.extend(row.cases);
    }
    let folders: BTreeSet<String> = std::fs::read_dir(testdata().join("catalogue"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert_eq!(named, folders, "rows.toml names the folders, each at least once");
}

#[test]
fn errors_read_as_expected() {
    for name in rows().into_iter().flat_map(|row| row.cases) {
        let folder = testdata().join("catalogue").join(&name);
        let source = std::fs::read(folder.join("Dockerfile")).unwrap();
        let options: Options = match std::fs::read_to_string(folder.join("options.toml")) {
            Ok(text) => toml::from_str(&text).unwrap(),
            Err(_) => Options::default(),
        };
        let mut lower = LowerOptions::new("linux/amd64".parse().unwrap());
        lower.target = options.target;
        let findings = check(&source, &lower, None, &Shelf);
        assert!(!findings.errors.is_empty(), "{name} has no error");
        let lines = answers::Source {
            bytes: &source,
            name: "Dockerfile",
        };
        let json = answers::check(&findings, lines, true).unwrap();
        let json: Value = serde_json::from_str(&json).unwrap();
        let failure = Failure::build(&BuildError::Dockerfile(findings.errors), &source, "Dockerfile");
        let json = serde_json::to_string_pretty(&json["errors"]).unwrap();
        crate::expected::check(
            &format!("../catalogue/{name}/expected.txt"),
            &failure.render(Style::PLAIN),
        );
        crate::expected::check(&format!("../catalogue/{name}/expected.json"), &(json + "\n"));
    }
}
