//! `testdata/frontend/<case>/`: a Dockerfile, perhaps `options.toml`, and what comes out.
//!
//! `KILN_BLESS=1 cargo test -p kiln-frontend` writes the expectations anew; read the diff.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kiln_solver::graph::NetworkMode;
use serde::Deserialize;

use crate::LowerOptions;
use crate::testing::{FakeImage, FakeResolver, dump, dump_diagnostics, lower_with, options};

/// `options.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CaseOptions {
    /// `--build-arg NAME=VALUE`.
    build_args: BTreeMap<String, String>,
    /// `--build-arg NAME` without a value to be found.
    valueless_build_args: Vec<String>,
    target: Option<String>,
    platform: Option<String>,
    no_cache: bool,
    no_cache_filter: Vec<String>,
    labels: BTreeMap<String, String>,
    network: Option<NetworkMode>,
    images: BTreeMap<String, FakeImage>,
}

impl CaseOptions {
    fn lower_options(&self) -> LowerOptions {
        let mut lower = options();
        let given = self
            .build_args
            .iter()
            .map(|(name, value)| (name.clone(), Some(value.clone())));
        lower.build_args = given.collect();
        lower
            .build_args
            .extend(self.valueless_build_args.iter().map(|name| (name.clone(), None)));
        lower.target.clone_from(&self.target);
        if let Some(platform) = &self.platform {
            lower.target_platform = platform.parse().unwrap();
            lower.platform_requested = true;
        }
        lower.no_cache = self.no_cache;
        lower.no_cache_filter.clone_from(&self.no_cache_filter);
        lower.labels.clone_from(&self.labels);
        lower.network = self.network.unwrap_or_default();
        lower
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/frontend")
}

fn run(case: &Path) -> String {
    let text = fs::read_to_string(case.join("Dockerfile")).unwrap();
    let case_options: CaseOptions = match fs::read_to_string(case.join("options.toml")) {
        Ok(text) => toml::from_str(&text).unwrap(),
        Err(_) => CaseOptions::default(),
    };
    let resolver = FakeResolver::new(case_options.images.clone());
    let out = match lower_with(&text, &case_options.lower_options(), &resolver) {
        Ok(lowered) => dump(&lowered) + &dump_diagnostics(&text, &lowered.warnings),
        Err(errors) => dump_diagnostics(&text, &errors),
    };
    format!("{out}resolved {:?}\n", resolver.asked())
}

#[test]
fn cases_lower_as_expected() {
    let update = std::env::var_os("KILN_BLESS").is_some();
    let mut cases: Vec<PathBuf> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    assert!(cases.len() > 10, "the cases are in {}", folder().display());
    let mut wrong = Vec::new();
    for case in cases {
        let actual = run(&case);
        let path = case.join("expected.txt");
        if update {
            fs::write(&path, &actual).unwrap();
        } else if fs::read_to_string(&path).unwrap_or_default() != actual {
            wrong.push(format!("=== {}\n{actual}", case.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "these are not as expected.txt says:\n{}",
        wrong.join("\n")
    );
}
