//! `testdata/frontend/<case>/`: a Dockerfile, perhaps `options.toml`, and what comes out.
//!
//! A case with a `docker.json` was built by Docker 28.5, too: author, config and history of that image, as Docker
//! wrote them, are facts that must come out here.
//!
//! `KILN_BLESS=1 cargo test -p kiln-frontend` writes the expectations anew; read the diff.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kiln_parser::Diagnostic;
use kiln_solver::graph::{NetworkMode, Op};
use serde::Deserialize;

use crate::testing::{FakeImage, FakeResolver, dump, dump_diagnostics, lower_with, options};
use crate::{LowerOptions, Lowered};

/// `options.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CaseOptions {
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
    pub(crate) images: BTreeMap<String, FakeImage>,
}

impl CaseOptions {
    /// Those of a case's folder.
    pub(crate) fn load(case: &Path) -> Self {
        match fs::read_to_string(case.join("options.toml")) {
            Ok(text) => toml::from_str(&text).unwrap(),
            Err(_) => Self::default(),
        }
    }

    pub(crate) fn lower_options(&self) -> LowerOptions {
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

fn cases() -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    cases
}

fn lower_case(case: &Path) -> (Result<Lowered, Vec<Diagnostic>>, FakeResolver) {
    let text = text(case);
    let case_options = CaseOptions::load(case);
    let resolver = FakeResolver::new(case_options.images.clone());
    let lowered = lower_with(&text, &case_options.lower_options(), &resolver);
    (lowered, resolver)
}

fn text(case: &Path) -> String {
    fs::read_to_string(case.join("Dockerfile")).unwrap()
}

fn run(case: &Path) -> String {
    let text = text(case);
    let (lowered, resolver) = lower_case(case);
    let out = match lowered {
        Ok(lowered) => dump(&lowered) + &dump_diagnostics(&text, &lowered.warnings),
        Err(errors) => dump_diagnostics(&text, &errors),
    };
    format!("{out}resolved {:?}\n", resolver.asked())
}

/// What Docker made of a case.
#[derive(Debug, PartialEq, Deserialize)]
struct DockerImage {
    author: Option<String>,
    config: kiln_image::Config,
    history: Vec<kiln_image::History>,
}

#[test]
fn images_are_as_dockers() {
    let mut compared = 0;
    for case in cases() {
        let Ok(json) = fs::read_to_string(case.join("docker.json")) else {
            continue;
        };
        let docker: DockerImage = serde_json::from_str(&json).unwrap();
        let mut config = lower_case(&case).0.unwrap().config;
        // Only what the file itself adds has a comment.
        config.history.retain(|entry| entry.comment.is_some());
        let ours = DockerImage {
            author: config.author,
            config: config.config,
            history: config.history,
        };
        assert_eq!(ours, docker, "{}", case.display());
        compared += 1;
    }
    assert!(compared >= 2, "the cases with Docker's images are gone");
}

#[test]
fn cases_lower_as_expected() {
    let update = std::env::var_os("KILN_BLESS").is_some();
    let cases = cases();
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

/// What the exporter relies on: a layer for each history entry of the file that is not empty, in order.
#[test]
fn each_step_has_its_history_entry() {
    let mut steps_seen = 0;
    for case in cases() {
        let (Ok(lowered), _) = lower_case(&case) else {
            continue;
        };
        let own = lowered
            .config
            .history
            .iter()
            .filter(|entry| entry.comment.is_some() && !entry.empty_layer);
        let mut keywords: Vec<String> = own
            .filter_map(|entry| first_word(entry.created_by.as_deref()?))
            .collect();
        let mut current = lowered.target;
        while let Some(&below) = lowered.graph.inputs(current).first() {
            let name = &lowered.graph.get(current).unwrap().name;
            let text = name.split_once("] ").unwrap().1;
            let text = text.strip_prefix("LINK ").unwrap_or(text);
            let text = text.strip_prefix("ONBUILD ").unwrap_or(text);
            assert_eq!(first_word(text), keywords.pop(), "{}: {name}", case.display());
            current = below;
            steps_seen += 1;
        }
        assert!(
            keywords.is_empty(),
            "{}: {keywords:?} made no layer",
            case.display()
        );
        assert!(matches!(lowered.graph.get(current).unwrap().op, Op::Source(_)));
    }
    assert!(steps_seen > 50, "the cases have more steps than {steps_seen}");
}

fn first_word(text: &str) -> Option<String> {
    text.split_whitespace().next().map(str::to_owned)
}

/// Whatever the parser lets through is lowered or refused.
#[test]
fn no_part_of_a_file_panics() {
    for case in cases() {
        let text = text(&case);
        for (end, _) in text.char_indices().step_by(7) {
            let parsed = kiln_parser::parse(&text[..end]);
            let lowered = crate::lower(&parsed.dockerfile, &options(), None, &FakeResolver::new([]));
            assert!(lowered.is_ok() || lowered.is_err_and(|errors| !errors.is_empty()));
        }
    }
}
