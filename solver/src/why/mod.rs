//! Why a step ran: what its keys are made of, against the nearest earlier record of the same step.
//!
//! Asked only of builds that were not fully cached, and after their steps are done. `explain` goes over
//! the steps, `align` finds the same one in an earlier build, `parts` compares what the keys are made of, `files` names the files behind a hash, and
//! `text` puts it into words.

mod align;
mod explain;
mod files;
mod parts;
mod text;

use kiln_cache::Store;
use serde::{Deserialize, Serialize};

pub use align::StepName;
pub(crate) use files::FileList;
pub use files::{FileChange, FileChanges};

use crate::report::{Missed, StepKind, StepOutcome, StepReport};
use crate::verify::Verification;
use explain::Explainer;

/// Why a step ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "cause")]
pub enum Why {
    /// The request said so.
    IgnoredCache {
        /// Of this stage, and not of all; filled in by who knows the request.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        by_stage: bool,
    },
    /// There is a result, and it is older than the request allows.
    Expired {
        /// How old it was, in milliseconds.
        age_ms: u64,
        /// How old it may be.
        ttl_ms: u64,
    },
    /// There is no record of an earlier build to compare with.
    FirstBuild,
    /// No earlier build had this step.
    NewStep,
    /// It had begun before, but never finished.
    NeverFinished {
        /// The build that tried.
        build: String,
    },
    /// Nothing differs, but the earlier result is gone.
    Lost {
        /// The build that had it.
        build: String,
        /// What is known of the loss.
        missed: Option<Missed>,
    },
    /// Something that its key is made of differs.
    Changed {
        /// The build that is compared with.
        build: String,
        /// What differs, the most telling first.
        differences: Vec<Difference>,
    },
}

/// One difference between a step and its earlier record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Difference {
    /// The command of a process.
    Command {
        /// As it was.
        before: String,
        /// As it is.
        after: String,
    },
    /// Something else that the instruction says: a destination, an owner, a text.
    Instruction {
        /// What it is.
        name: String,
        /// As it was; several values with commas.
        before: Option<String>,
        /// As it is.
        after: Option<String>,
    },
    /// The files that it copies or mounts.
    Files {
        /// The step that they come from, or the context.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<String>,
        /// Where they are mounted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mount: Option<String>,
        /// Which; unknown when their list is not kept.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        changes: Option<FileChanges>,
    },
    /// A variable of the environment.
    Variable {
        /// Its name.
        name: String,
        /// Its value before.
        before: Option<String>,
        /// Its value now.
        after: Option<String>,
        /// `ARG` or `ENV`, where it is declared in the text; filled in by who knows the text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        declared: Option<Declaration>,
        /// Whether the step's text mentions it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mentioned: Option<bool>,
    },
    /// A mount, but for its files.
    Mount {
        /// Where.
        target: String,
        /// Which property.
        property: String,
        /// As it was.
        before: Option<String>,
        /// As it is.
        after: Option<String>,
    },
    /// A setting of the process or the build: user, working directory, platform, network, limits.
    Setting {
        /// Which.
        name: String,
        /// As it was.
        before: Option<String>,
        /// As it is.
        after: Option<String>,
    },
    /// The image that it works on.
    Base {
        /// The image.
        image: String,
        /// The digest before, where the earlier build's is known.
        before: Option<String>,
        /// The digest now.
        after: String,
    },
    /// It is the same, and so is all before it, but it came after another step.
    Order {
        /// That step, under its old name.
        after: String,
    },
    /// An earlier step has another result.
    Step {
        /// That step.
        name: String,
    },
}

/// Where a variable is declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declaration {
    /// `ARG` or `ENV`.
    pub instruction: String,
    /// The line.
    pub line: usize,
}

/// An earlier build of the same thing.
#[derive(Debug, Clone, Copy)]
pub struct Earlier<'a> {
    /// Its id.
    pub build: &'a str,
    /// Its steps.
    pub steps: &'a [StepReport],
}

/// What early cutoff did for a build.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cutoff {
    /// Steps that did not run, although something before them was made or fetched anew, because their inputs came
    /// out the same.
    pub steps: usize,
    /// What they took when they ran.
    pub saved_ms: u64,
}

/// What the summary of a build says in which something was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The steps that ran, and why.
    pub why: Vec<StepWhy>,
    /// What early cutoff saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_cutoff: Option<Cutoff>,
    /// The cached steps that were run once more, and what came of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verified: Vec<StepVerified>,
}

/// A cached step that was run once more, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepVerified {
    /// The step.
    pub step: String,
    /// Its line in the source text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// What came of it.
    #[serde(flatten)]
    pub verification: Verification,
}

/// A step that ran, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepWhy {
    /// The step.
    pub step: String,
    /// Its line in the source text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Why it ran.
    #[serde(flatten)]
    pub why: Why,
}

impl Summary {
    /// The summary of a build; `None` when nothing was done.
    pub fn of(steps: &[StepReport]) -> Option<Self> {
        let why: Vec<StepWhy> = steps
            .iter()
            .filter_map(|step| {
                Some(StepWhy {
                    step: step.name.clone(),
                    line: step.line,
                    why: step.why.clone()?,
                })
            })
            .collect();
        let early_cutoff = cutoff(steps);
        let verified: Vec<StepVerified> = steps
            .iter()
            .filter_map(|step| {
                Some(StepVerified {
                    step: step.name.clone(),
                    line: step.line,
                    verification: step.verified.clone()?,
                })
            })
            .collect();
        let is_something = !why.is_empty() || early_cutoff.is_some() || !verified.is_empty();
        is_something.then_some(Self {
            why,
            early_cutoff,
            verified,
        })
    }
}

/// What early cutoff did for these steps: those whose definition was another one and whose inputs had the same content
/// after all, and those after a file that was downloaded again and had not changed.
pub fn cutoff(steps: &[StepReport]) -> Option<Cutoff> {
    let mut after_download = vec![false; steps.len()];
    let mut cutoff = Cutoff::default();
    for (at, step) in steps.iter().enumerate() {
        let follows = |input: &usize| after_download.get(*input).copied().unwrap_or(false);
        let downloaded = step.source.as_ref().is_some_and(|source| source.downloaded);
        after_download[at] = downloaded || step.inputs.iter().any(follows);
        let was_kept = match step.outcome {
            StepOutcome::CachedByContent => true,
            StepOutcome::Cached => step.kind != StepKind::Source && after_download[at],
            _ => false,
        };
        if was_kept {
            cutoff.steps += 1;
            cutoff.saved_ms += step.saved_ms.unwrap_or(0);
        }
    }
    (cutoff.steps > 0).then_some(cutoff)
}

/// For each step of `now`, which one of `earlier` it is: by stage, text and order.
pub fn same_steps(now: &[StepReport], earlier: &[StepReport]) -> Vec<Option<usize>> {
    align::align(now, earlier)
}

/// Says of each step of `now` that ran why it did. `earlier` are builds of the same thing, the newest first.
pub fn explain(store: &Store, now: &mut [StepReport], earlier: &[Earlier<'_>]) {
    let explainer = Explainer::new(store, now, earlier);
    let found: Vec<Option<Why>> = (0..now.len()).map(|at| explainer.why(now, at)).collect();
    for (step, why) in now.iter_mut().zip(found) {
        step.why = why;
    }
}

#[cfg(test)]
mod tests;
