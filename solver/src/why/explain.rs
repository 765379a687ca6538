//! Compares each step that ran with the nearest earlier record of it.

use std::collections::HashMap;

use kiln_cache::{Key, KeyPart, Store};

use super::{Difference, Earlier, Why, align, parts};
use crate::report::{MadeOf, Missed, StepKind, StepOutcome, StepReport};

/// The content key of each definition key, as far as earlier builds tell.
fn content_keys(earlier: &[Earlier<'_>]) -> HashMap<Key, Key> {
    let steps = earlier.iter().rev().flat_map(|build| build.steps);
    steps
        .filter_map(|step| Some((step.key?, step.content_key?)))
        .collect()
}

/// What the steps of a build are compared with.
pub(super) struct Explainer<'a> {
    store: &'a Store,
    earlier: &'a [Earlier<'a>],
    /// For each earlier build, where in it each step of this one is.
    aligned: Vec<Vec<Option<usize>>>,
    content_keys: HashMap<Key, Key>,
}

impl<'a> Explainer<'a> {
    /// For the steps of `now`.
    pub(super) fn new(store: &'a Store, now: &[StepReport], earlier: &'a [Earlier<'a>]) -> Self {
        Self {
            store,
            earlier,
            aligned: earlier
                .iter()
                .map(|build| align::align(now, build.steps))
                .collect(),
            content_keys: content_keys(earlier),
        }
    }

    /// Why the step at `at` ran; `None` when it did not.
    pub(super) fn why(&self, now: &[StepReport], at: usize) -> Option<Why> {
        let step = now.get(at).filter(|step| step.is_miss())?;
        if step.ignored_cache {
            return Some(Why::IgnoredCache { by_stage: false });
        }
        if let Some(Missed::Expired { age_ms, ttl_ms }) = step.missed {
            return Some(Why::Expired { age_ms, ttl_ms });
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
            // With the same key, what a step before it made may be another content: it ran whatever its key.
            if same_key && !self.has_other_content(step, old) {
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
            name_steps(&mut differences, (now, at), (build.steps, old_at), aligned);
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

    /// Whether what the step works on is known to be something else than before, by content.
    fn has_other_content(&self, step: &StepReport, old: &StepReport) -> bool {
        matches!((step.content_key, self.old_content(old)), (Some(now), Some(before)) if now != before)
    }

    fn old_content(&self, old: &StepReport) -> Option<Key> {
        old.content_key
            .or_else(|| self.content_keys.get(&old.key?).copied())
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
        let old_content = self.old_content(old);
        let sources = sources_of(now, step);
        if !made_of.content.is_empty()
            && let Some(before) = kept(old_content)
        {
            return Some(parts::compare(self.store, &before, &made_of.content, sources));
        }
        let before = kept(Some(old_key))?;
        Some(parts::compare(self.store, &before, &made_of.definition, sources))
    }
}

/// Turns "the root differs" into which step or image it is.
fn name_steps(
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
        named.extend(differing_base(base, before));
    }
    if named.is_empty() {
        // It stands on something else than before, all of which was there.
        let first = step.inputs.first().and_then(|input| now.get(*input));
        let gone = old.inputs.first().and_then(|input| old_steps.get(*input));
        named.push(match (first, gone) {
            // Steps were taken away before it, or put into another order.
            (Some(_), Some(gone)) if gone.source.is_none() => Difference::Order {
                after: gone.name.clone(),
            },
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
fn differing_base(base: &StepReport, before: Option<&StepReport>) -> Option<Difference> {
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
