//! What the store keeps of a build: its steps, their keys, outcomes and times.

use kiln_cache::BuildId;
use kiln_solver::task::Reporter;
use kiln_solver::{Engine, SolveError, StepReport, chain};
use serde::{Deserialize, Serialize};

use crate::build::{BuildError, BuildRequest, Built};

/// One build, good or bad. The output of its steps is beside it in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// What the user calls the Dockerfile.
    pub dockerfile: String,
    /// The build context.
    pub context: String,
    /// The stage that was asked for.
    pub target: Option<String>,
    /// The platforms that were asked for, with commas.
    pub platform: String,
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

/// Keeps what is known of the build `id`. That it cannot be kept is told and changes nothing else.
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
        Err(error) => BuildOutcome::Failed {
            message: chain(error),
        },
    };
    let record = BuildRecord {
        dockerfile: request.dockerfile_name.clone(),
        context: request.context.to_string_lossy().into_owned(),
        target: request.options.target.clone(),
        platform: platforms(request),
        began_ms: id.began_ms(),
        duration_ms: reporter.elapsed().as_millis() as u64,
        outcome,
        steps,
    };
    if let Err(error) = engine.store().builds().put(id, &record) {
        reporter.warn(
            format!("the record of this build is not kept: {}", chain(&error)),
            None,
        );
    }
}
