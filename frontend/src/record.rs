//! What the store keeps of a build: its steps, their keys, outcomes, times and reasons.

use std::sync::{Arc, Mutex, PoisonError};

use kiln_cache::{BuildId, RunningBuild};
use kiln_solver::task::Reporter;
use kiln_solver::{Engine, Hook, SolveError, StepReport, chain};
use kiln_tree::ContentHash;
use serde::{Deserialize, Serialize};

use crate::build::{BuildError, BuildRequest, Built};
use crate::why;

/// One build, good or bad. The output of its steps is beside it in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// What the user calls the Dockerfile.
    pub dockerfile: String,
    /// The hash (blake3) of its text.
    #[serde(default)]
    pub dockerfile_hash: String,
    /// The build context.
    pub context: String,
    /// The stage that was asked for.
    pub target: Option<String>,
    /// The platforms that were asked for, with commas.
    pub platform: String,
    /// The names that were asked for.
    #[serde(default)]
    pub names: Vec<String>,
    /// When it began, in milliseconds since 1970.
    pub began_ms: u64,
    /// How long it took.
    pub duration_ms: u64,
    /// How it ended.
    pub outcome: BuildOutcome,
    /// What became of each step that the build came to.
    pub steps: Vec<StepReport>,
}

/// How a build ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildOutcome {
    /// It has not ended, or nobody was left to say how.
    Unfinished,
    /// There is an image.
    Succeeded {
        /// Its id.
        image: String,
        /// The names that it was given.
        names: Vec<String>,
    },
    /// There is none.
    Failed {
        /// Why, in one line.
        message: String,
    },
    /// The user stopped it.
    Canceled,
}

/// `linux/amd64,linux/arm64`.
fn platforms(request: &BuildRequest) -> String {
    if request.platforms.is_empty() {
        return request.options.target_platform.to_string();
    }
    let names: Vec<String> = request.platforms.iter().map(ToString::to_string).collect();
    names.join(",")
}

impl BuildRecord {
    /// What is known of a build before it has done anything.
    fn new(request: &BuildRequest, id: &BuildId) -> Self {
        Self {
            dockerfile: request.dockerfile_name.clone(),
            dockerfile_hash: ContentHash::of(&request.dockerfile).to_string(),
            context: request.context.name(),
            target: request.options.target.clone(),
            platform: platforms(request),
            names: request.names.iter().map(ToString::to_string).collect(),
            began_ms: id.began_ms(),
            duration_ms: 0,
            outcome: BuildOutcome::Unfinished,
            steps: Vec::new(),
        }
    }
}

/// A build under way. It announces itself in the store when its first step runs: a fully cached build never does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Announced(Arc<Mutex<Option<RunningBuild>>>);

impl Announced {
    /// Announces the build `id` when called.
    pub(crate) fn hook(&self, engine: &Engine, request: &BuildRequest, id: &BuildId) -> Hook {
        let (kept, store) = (Arc::clone(&self.0), Arc::clone(engine.store()));
        let (record, id) = (BuildRecord::new(request, id), id.clone());
        Hook::new(move || {
            // Without an announcement nothing is lost but that others see the build before it ends.
            let running = store.builds().begin(&id, &record).ok();
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = running;
        })
    }
}

/// Finds out why steps ran, tells it, and keeps what is known of the build `id`. That it cannot be kept is told and
/// changes nothing else.
pub(crate) fn keep(
    engine: &Engine,
    request: &BuildRequest,
    id: &BuildId,
    reporter: &Reporter,
    steps: Vec<StepReport>,
    result: &Result<Built, BuildError>,
) {
    let outcome = match result {
        Ok(built) => BuildOutcome::Succeeded {
            image: built.id.to_string(),
            names: request.names.iter().map(ToString::to_string).collect(),
        },
        Err(BuildError::Solve(SolveError::Canceled)) => BuildOutcome::Canceled,
        Err(BuildError::Dockerfile(errors)) if !errors.is_empty() => BuildOutcome::Failed {
            message: errors
                .iter()
                .map(|error| error.message.as_str())
                .collect::<Vec<_>>()
                .join("; "),
        },
        Err(error) => BuildOutcome::Failed {
            message: chain(error),
        },
    };
    let mut record = BuildRecord {
        duration_ms: reporter.elapsed().as_millis() as u64,
        outcome,
        steps,
        ..BuildRecord::new(request, id)
    };
    why::explain(engine.store(), request, id, &mut record, reporter);
    if let Err(error) = engine.store().builds().put(id, &record) {
        reporter.warn(
            format!("the record of this build is not kept: {}", chain(&error)),
            None,
        );
    }
}
