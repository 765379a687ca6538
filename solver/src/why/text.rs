//! Reasons in words.

use std::fmt;

use super::{Cutoff, Difference, FileChange, FileChanges, StepVerified, StepWhy, Summary, Why};
use crate::report::Missed;
use crate::verify::Verified;

/// Values are shown up to here.
const VALUE: usize = 40;
/// As many files are named of each kind of change.
const NAMED: usize = 3;

/// A value for one line: short, and without what moves the cursor.
fn value(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if clean.chars().count() <= VALUE {
        return format!("\"{clean}\"");
    }
    let start: String = clean.chars().take(VALUE - 1).collect();
    format!("\"{start}…\"")
}

/// A digest with the digits that tell it from others.
fn digest(text: &str) -> String {
    let (algorithm, hex) = text.split_once(':').unwrap_or(("", text));
    let short: String = hex.chars().take(12).collect();
    if algorithm.is_empty() {
        short
    } else {
        format!("{algorithm}:{short}")
    }
}

fn change(f: &mut fmt::Formatter<'_>, before: Option<&str>, after: Option<&str>) -> fmt::Result {
    match (before, after) {
        (Some(before), Some(after)) => write!(f, " changed: {} -> {}", value(before), value(after)),
        (None, Some(after)) => write!(f, " is new: {}", value(after)),
        (Some(before), None) => write!(f, " is gone: {}", value(before)),
        (None, None) => f.write_str(" changed"),
    }
}

impl FileChanges {
    /// Adds the changes of another selection of the same step.
    pub(super) fn add(&mut self, other: Self) {
        self.changed += other.changed;
        self.added += other.added;
        self.removed += other.removed;
        self.mode += other.mode;
        self.attributes += other.attributes;
        self.first.extend(other.first);
    }

    fn count(&self, change: FileChange) -> usize {
        match change {
            FileChange::Changed => self.changed,
            FileChange::Added => self.added,
            FileChange::Removed => self.removed,
            FileChange::Mode => self.mode,
            FileChange::Attributes => self.attributes,
        }
    }
}

impl fmt::Display for FileChanges {
    /// `src/main.rs changed, lib/a and 3 more added`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            (FileChange::Changed, "changed"),
            (FileChange::Added, "added"),
            (FileChange::Removed, "removed"),
            (FileChange::Mode, "changed its mode"),
            (FileChange::Attributes, "changed its owner or attributes"),
        ];
        let mut separator = "";
        for (kind, word) in kinds {
            let count = self.count(kind);
            if count == 0 {
                continue;
            }
            let first = self.first.iter().filter(|(_, change)| *change == kind);
            let names: Vec<String> = first.take(NAMED).map(|(name, _)| clean(name)).collect();
            f.write_str(separator)?;
            separator = ", ";
            let more = count.saturating_sub(names.len());
            match (names.is_empty(), more) {
                (true, _) => write!(f, "{count}")?,
                (false, 0) => f.write_str(&names.join(", "))?,
                (false, more) => write!(f, "{} and {more} more", names.join(", "))?,
            }
            let word = if count > 1 {
                word.replace(" its ", " their ")
            } else {
                word.to_owned()
            };
            write!(f, " {word}")?;
        }
        if separator.is_empty() {
            f.write_str("the files differ")?;
        }
        Ok(())
    }
}

/// A name without what moves the cursor.
fn clean(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command { .. } => f.write_str("the command changed"),
            Self::Files { of, mount, changes } => {
                if let Some(mount) = mount {
                    write!(f, "mount {}: ", clean(mount))?;
                }
                match (changes, of) {
                    (Some(changes), Some(of)) if !of.starts_with("[internal]") => {
                        write!(f, "{changes} in {}", clean(of))
                    }
                    (Some(changes), _) => write!(f, "{changes}"),
                    (None, Some(of)) => write!(f, "other files of {} (which is not known)", clean(of)),
                    (None, None) => f.write_str("other files (which is not known)"),
                }
            }
            Self::Variable {
                name,
                before,
                after,
                declared,
                mentioned,
            } => {
                let instruction = declared
                    .as_ref()
                    .map_or("variable", |declared| declared.instruction.as_str());
                write!(f, "{instruction} {name}")?;
                change(f, before.as_deref(), after.as_deref())?;
                let line = declared
                    .as_ref()
                    .map(|declared| format!("line {}", declared.line));
                let use_ = mentioned
                    .and_then(|mentioned| (!mentioned).then(|| "not mentioned by the command".to_owned()));
                let notes: Vec<String> = line.into_iter().chain(use_).collect();
                if notes.is_empty() {
                    Ok(())
                } else {
                    write!(f, " ({})", notes.join(", "))
                }
            }
            Self::Mount {
                target,
                property,
                before,
                after,
            } => {
                // A mount that is new or gone differs in what it is.
                let whole = property == "kind" && (before.is_none() || after.is_none());
                if whole {
                    write!(f, "mount {}", clean(target))?;
                } else {
                    write!(f, "mount {}: {property}", clean(target))?;
                }
                change(f, before.as_deref(), after.as_deref())
            }
            Self::Instruction { name, before, after } | Self::Setting { name, before, after } => {
                write!(f, "{name}")?;
                change(f, before.as_deref(), after.as_deref())
            }
            Self::Base { image, before, after } => match before {
                Some(before) => write!(f, "base {image} changed: {} -> {}", digest(before), digest(after)),
                None => write!(f, "base is now {image}: {}", digest(after)),
            },
            Self::Order { after } => write!(f, "it came after {} before", clean(after)),
            Self::Step { name } => write!(f, "after {}", clean(name)),
        }
    }
}

fn expired(f: &mut fmt::Formatter<'_>, age_ms: u64, ttl_ms: u64) -> fmt::Result {
    write!(
        f,
        "its result is {} old, and --cache-ttl is {}",
        length(age_ms),
        length(ttl_ms)
    )
}

/// A length of time with as much of it as matters: `90s`, `26h`, `9d`.
fn length(milliseconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let unit = UNITS.iter().find(|(size, _)| {
        // The first of which there are a few, or an exact number.
        milliseconds >= 2 * size || milliseconds >= *size && milliseconds.is_multiple_of(*size)
    });
    match unit {
        Some((size, name)) => format!("{}{name}", milliseconds / size),
        None => format!("{milliseconds}ms"),
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IgnoredCache { by_stage: false } => f.write_str("--no-cache"),
            Self::IgnoredCache { by_stage: true } => f.write_str("--no-cache-filter"),
            Self::Expired { age_ms, ttl_ms } => expired(f, *age_ms, *ttl_ms),
            Self::FirstBuild => f.write_str("no earlier record"),
            Self::NewStep => f.write_str("no earlier record of this step"),
            Self::NeverFinished { .. } => f.write_str("it has not succeeded before"),
            Self::Lost { missed, .. } => f.write_str(match missed {
                Some(Missed::Unsynced) => {
                    "its result may not have reached the disk before a power loss, or the disk failed"
                }
                Some(Missed::Damaged) => "its record was damaged",
                Some(Missed::Newer) => "its record is of a newer version",
                Some(Missed::LayerGone) => "its layer is no longer in the store",
                Some(Missed::Expired { age_ms, ttl_ms }) => return expired(f, *age_ms, *ttl_ms),
                None => "its result is no longer in the store",
            }),
            Self::Changed { differences, .. } => {
                let mut separator = "";
                for difference in differences {
                    write!(f, "{separator}{difference}")?;
                    separator = "; ";
                }
                Ok(())
            }
        }
    }
}

impl Why {
    /// Whether this says no more than that an earlier step ran.
    pub fn is_consequence(&self) -> bool {
        matches!(self, Self::Changed { differences, .. }
            if !differences.is_empty() && differences.iter().all(|one| matches!(one, Difference::Step { .. })))
    }
}

impl fmt::Display for Cutoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (steps, were) = if self.steps == 1 {
            ("step was", "its")
        } else {
            ("steps were", "their")
        };
        let tenths = self.saved_ms / 100;
        write!(
            f,
            "{} {steps} kept, {were} inputs came out the same (saved {}.{}s)",
            self.steps,
            tenths / 10,
            tenths % 10
        )
    }
}

impl Summary {
    /// How many cached steps were run once more, and how many of these did not make what the cache has.
    fn verification(&self) -> Option<String> {
        let run = |step: &&StepVerified| !matches!(step.verification.outcome, Verified::NotRun { .. });
        let run = self.verified.iter().filter(run).count();
        let bad = self
            .verified
            .iter()
            .filter(|step| step.verification.outcome.is_bad())
            .count();
        let not_run = match self.verified.len() - run {
            0 => String::new(),
            not_run => format!("; {not_run} could not be run"),
        };
        let (steps, were) = if run == 1 {
            ("step", "was")
        } else {
            ("steps", "were")
        };
        let result = match bad {
            0 => "the same results".to_owned(),
            1 => "1 gave another result".to_owned(),
            bad => format!("{bad} gave other results"),
        };
        (!self.verified.is_empty())
            .then(|| format!("cache verification: {run} cached {steps} {were} run again: {result}{not_run}"))
    }

    /// The lines of a build's summary: the reason of the first step that has one of its own, and what was saved.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let roots: Vec<&StepWhy> = self
            .why
            .iter()
            .filter(|step| !step.why.is_consequence())
            .collect();
        let shown = roots.first().copied().or(self.why.first());
        if let Some(first) = shown {
            if self.why.iter().all(|step| step.why == Why::FirstBuild) {
                lines.push("why: no earlier build of this Dockerfile and target".to_owned());
            } else {
                let others = self.why.len() - 1;
                let more = match others {
                    0 => String::new(),
                    1 => " (1 more step ran)".to_owned(),
                    others => format!(" ({others} more steps ran)"),
                };
                lines.push(format!("why: {}: {}{more}", clean(&first.step), first.why));
            }
        }
        lines.extend(self.early_cutoff.map(|cutoff| format!("early cutoff: {cutoff}")));
        lines.extend(self.verification());
        lines
    }
}
