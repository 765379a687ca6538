//! Why a step ran: what its keys are made of, against the nearest earlier record of the same step.
//!
//! Asked only of builds that were not fully cached, and after their steps are done. [`align`] finds the same step in
//! an earlier build, [`parts`] compares what the keys are made of, [`files`] names the files behind a hash, and
//! [`text`] puts it into words.

mod align;
mod files;
mod parts;
mod text;

use std::collections::HashMap;

use kiln_cache::{Key, KeyPart, Store};
use serde::{Deserialize, Serialize};

pub(crate) use files::FileList;
pub use files::{FileChange, FileChanges};

use crate::report::{MadeOf, Missed, StepKind, StepOutcome, StepReport};

/// Why a step ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "cause")]
pub enum Why {
    /// The request said so.
    IgnoredCache,
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
    /// Steps that did not run, although something before them did, because their inputs came out the same.
    pub steps: usize,
    /// What they took when they ran.
    pub saved_ms: u64,
}

/// What the summary of a build that was not fully cached says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The steps that ran, and why.
    pub why: Vec<StepWhy>,
    /// What early cutoff saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_cutoff: Option<Cutoff>,
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
    /// The summary of a build; `None` when nothing ran.
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
        (!why.is_empty() || early_cutoff.is_some()).then_some(Self { why, early_cutoff })
    }
}

/// What early cutoff did for these steps.
pub fn cutoff(steps: &[StepReport]) -> Option<Cutoff> {
    let mut after_miss = vec![false; steps.len()];
    let mut cutoff = Cutoff::default();
    for (at, step) in steps.iter().enumerate() {
        let follows = |input: &usize| after_miss.get(*input).copied().unwrap_or(false);
        let inherited = step.inputs.iter().any(follows);
        after_miss[at] = inherited || step.is_miss();
        if inherited && step.outcome == StepOutcome::CachedByContent {
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
    let explainer = Explainer {
        store,
        earlier,
        aligned: earlier
            .iter()
            .map(|build| align::align(now, build.steps))
            .collect(),
        content_keys: content_keys(earlier),
    };
    let found: Vec<Option<Why>> = (0..now.len()).map(|at| explainer.why(now, at)).collect();
    for (step, why) in now.iter_mut().zip(found) {
        step.why = why;
    }
}

/// The content key of each definition key, as far as earlier builds tell.
fn content_keys(earlier: &[Earlier<'_>]) -> HashMap<Key, Key> {
    let steps = earlier.iter().rev().flat_map(|build| build.steps);
    steps
        .filter_map(|step| Some((step.key?, step.content_key?)))
        .collect()
}

struct Explainer<'a> {
    store: &'a Store,
    earlier: &'a [Earlier<'a>],
    /// For each earlier build, where in it each step of this one is.
    aligned: Vec<Vec<Option<usize>>>,
    content_keys: HashMap<Key, Key>,
}

impl Explainer<'_> {
    fn why(&self, now: &[StepReport], at: usize) -> Option<Why> {
        let step = now.get(at).filter(|step| step.is_miss())?;
        if step.ignored_cache {
            return Some(Why::IgnoredCache);
        }
        if self.earlier.is_empty() {
            return Some(Why::FirstBuild);
        }
        let mut fallback = None;
        for (build, aligned) in self.earlier.iter().zip(&self.aligned) {
            let old = aligned.get(at).copied().flatten();
            let Some((old_at, old)) = old.and_then(|old| Some((old, build.steps.get(old)?))) else {
                continue;
            };
            let same_key = old.key.is_some() && old.key == step.key;
            let build_id = build.build.to_owned();
            if matches!(old.outcome, StepOutcome::Failed | StepOutcome::Canceled) {
                if same_key {
                    fallback.get_or_insert(Why::NeverFinished { build: build_id });
                }
                continue;
            }
            if same_key {
                let missed = step.missed;
                return Some(Why::Lost {
                    build: build_id,
                    missed,
                });
            }
            let differences = self.compare(now, step, old);
            let Some(mut differences) = differences else {
                fallback.get_or_insert(Why::Lost {
                    build: build_id,
                    missed: None,
                });
                continue;
            };
            self.name_steps(&mut differences, (now, at), (build.steps, old_at), aligned);
            if differences.is_empty() {
                // By content nothing differs: the record was there once.
                let missed = step.missed;
                return Some(Why::Lost {
                    build: build_id,
                    missed,
                });
            }
            return Some(Why::Changed {
                build: build_id,
                differences,
            });
        }
        Some(fallback.unwrap_or(Why::NewStep))
    }

    /// How the keys differ; `None` when the earlier record is gone.
    fn compare(&self, now: &[StepReport], step: &StepReport, old: &StepReport) -> Option<Vec<Difference>> {
        let old_key = old.key?;
        let kept = |key: Option<Key>| -> Option<Vec<KeyPart>> {
            // A record that cannot be read is as good as gone.
            Some(self.store.records().peek(&key?).ok()??.parts)
        };
        let made_of = match &step.made_of {
            Some(made_of) => made_of.clone(),
            None => MadeOf {
                definition: kept(step.key)?,
                content: kept(step.content_key).unwrap_or_default(),
            },
        };
        let old_content = old
            .content_key
            .or_else(|| self.content_keys.get(&old_key).copied());
        let sources = sources_of(now, step);
        if !made_of.content.is_empty()
            && let Some(before) = kept(old_content)
        {
            return Some(parts::compare(self.store, &before, &made_of.content, sources));
        }
        let before = kept(Some(old_key))?;
        Some(parts::compare(self.store, &before, &made_of.definition, sources))
    }

    /// Turns "the root differs" into which step or image it is.
    fn name_steps(
        &self,
        differences: &mut Vec<Difference>,
        (now, at): (&[StepReport], usize),
        (old_steps, old_at): (&[StepReport], usize),
        aligned: &[Option<usize>],
    ) {
        let Some(position) = differences.iter().position(parts::is_unnamed_root) else {
            return;
        };
        differences.remove(position);
        let (Some(step), Some(old)) = (now.get(at), old_steps.get(old_at)) else {
            return;
        };
        let bases = step.inputs.iter().take(step.in_base);
        let mut named: Vec<Difference> = Vec::new();
        for input in bases.filter_map(|input| now.get(*input).map(|base| (*input, base))) {
            let (input, base) = input;
            let before = aligned
                .get(input)
                .copied()
                .flatten()
                .and_then(|old| old_steps.get(old));
            named.extend(self.base(base, before));
        }
        if named.is_empty() {
            // It stands on something else than before, all of which was there.
            let first = step.inputs.first().and_then(|input| now.get(*input));
            let gone = old.inputs.first().and_then(|input| old_steps.get(*input));
            named.push(match (first, gone) {
                (Some(base), _) => base_now(base),
                (None, _) => Difference::Setting {
                    name: "base".to_owned(),
                    before: gone.map(|base| base.name.clone()),
                    after: Some("scratch".to_owned()),
                },
            });
        }
        differences.extend(named);
    }

    /// How a step that another one stands on differs from before.
    fn base(&self, base: &StepReport, before: Option<&StepReport>) -> Option<Difference> {
        let digest = |step: &StepReport| step.source.as_ref().map(|source| source.digest.clone());
        if base.kind == StepKind::Source {
            let old = before.and_then(digest);
            return match &base.source {
                Some(source) if old.as_ref() != Some(&source.digest) => Some(Difference::Base {
                    image: source.what.clone(),
                    before: old,
                    after: source.digest.clone(),
                }),
                _ => None,
            };
        }
        let same = before.is_some_and(|before| before.key == base.key) && !base.outcome.worked();
        (!same).then(|| base_now(base))
    }
}

fn base_now(base: &StepReport) -> Difference {
    match &base.source {
        Some(source) => Difference::Base {
            image: source.what.clone(),
            before: None,
            after: source.digest.clone(),
        },
        None => Difference::Step {
            name: base.name.clone(),
        },
    }
}

/// What a step takes files from, beside its root: its name, when there is only one.
fn sources_of<'a>(now: &'a [StepReport], step: &StepReport) -> Option<&'a str> {
    let mut sources = step
        .inputs
        .iter()
        .skip(step.in_base)
        .filter_map(|input| now.get(*input));
    let first = sources.next()?;
    sources
        .all(|other| other.name == first.name)
        .then_some(first.name.as_str())
}

#[cfg(test)]
mod tests;
