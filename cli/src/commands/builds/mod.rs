//! `kiln builds`: the history.

mod diff;
mod html;
mod list;
mod logs;
mod path;
mod remove;
mod show;

use std::process::ExitCode;

use kiln_cache::{BuildId, Store};
use kiln_frontend::{BuildOutcome, BuildRecord};
use kiln_solver::StepReport;

use crate::arguments::Builds;
use crate::exit;
use crate::machine::Machine;
use crate::report::Failure;

/// As many digits of an id are shown: those of the time.
const SHORT: usize = 12;

/// Runs `kiln builds …`.
pub(crate) fn run(machine: &Machine, command: &Builds) -> Result<ExitCode, Failure> {
    let store = machine.store()?;
    match command {
        Builds::Ls(arguments) => list::run(&store, arguments),
        Builds::Show(arguments) => show::run(&store, arguments),
        Builds::Logs(arguments) => logs::run(&store, arguments),
        Builds::Diff(arguments) => diff::run(&store, arguments),
        Builds::Rm(arguments) => remove::run(&store, arguments),
    }
}

/// A build of the history.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) id: BuildId,
    pub(super) record: BuildRecord,
    /// A process is at work on it.
    pub(super) running: bool,
}

impl Found {
    /// How it ended, in a word.
    fn status(&self) -> &'static str {
        match (&self.record.outcome, self.running) {
            (_, true) => "running",
            (BuildOutcome::Unfinished, false) => "killed",
            (BuildOutcome::Succeeded { .. }, _) => "done",
            (BuildOutcome::Failed { .. }, _) => "failed",
            (BuildOutcome::Canceled, _) => "canceled",
        }
    }

    /// With what the command ended, as far as that is known.
    fn exit_code(&self) -> Option<u8> {
        match &self.record.outcome {
            BuildOutcome::Unfinished => None,
            BuildOutcome::Succeeded { .. } => Some(0),
            BuildOutcome::Failed { .. } => Some(exit::FAILURE),
            BuildOutcome::Canceled => Some(exit::INTERRUPTED),
        }
    }

    /// What it built: its first name, or its context.
    fn title(&self) -> &str {
        self.record.names.first().unwrap_or(&self.record.context)
    }

    /// Steps whose result was there, and all that count.
    fn cached(&self) -> (usize, usize) {
        let steps = || self.record.steps.iter().filter(|step| is_step(step));
        let cached = steps().filter(|step| !step.outcome.worked() && step.why.is_none());
        (cached.count(), steps().count())
    }
}

/// Whether a step is one of the Dockerfile's that does work.
fn is_step(step: &StepReport) -> bool {
    step.kind != kiln_solver::report::StepKind::Source
}

/// An id as it is shown.
fn short(id: &BuildId) -> &str {
    id.as_str().get(..SHORT).unwrap_or(id.as_str())
}

/// What is kept of a build; `None` when it is damaged, gone, or of another version.
fn read(store: &Store, id: &BuildId) -> Result<Option<Found>, Failure> {
    let Some(record) = store.builds().get(id)? else {
        return Ok(None);
    };
    Ok(Some(Found {
        id: id.clone(),
        record,
        running: store.builds().is_running(id)?,
    }))
}

/// The one id that `text` means.
fn find_id(store: &Store, text: &str) -> Result<BuildId, Failure> {
    let mut ids = store.builds().find(text)?;
    match (ids.len(), ids.pop()) {
        (1, Some(id)) => Ok(id),
        (0, _) if text == "latest" => Err(Failure::message("there are no builds yet")),
        (_, None) => {
            Err(Failure::message(format!("no build with the id {text}")).hint("kiln builds ls lists them"))
        }
        (count, Some(_)) => Err(Failure::message(format!(
            "{count} builds have an id that begins with {text}"
        ))
        .hint("kiln builds ls --no-trunc shows whole ids")),
    }
}

/// The one build that `text` means.
pub(super) fn find(store: &Store, text: &str) -> Result<Found, Failure> {
    let id = find_id(store, text)?;
    read(store, &id)?.ok_or_else(|| Failure::message(format!("the record of build {id} cannot be read")))
}

/// The steps that `wanted` means: one by its number in the list, or all with these words.
pub(super) fn matching<'a>(
    steps: &'a [StepReport],
    wanted: Option<&str>,
) -> Result<Vec<(usize, &'a StepReport)>, Failure> {
    let numbered = steps.iter().enumerate().map(|(at, step)| (at + 1, step));
    let Some(wanted) = wanted else {
        return Ok(numbered.collect());
    };
    let number: Option<usize> = wanted.parse().ok();
    let found: Vec<_> = numbered
        .filter(|(at, step)| match number {
            Some(number) => *at == number,
            None => step.name.contains(wanted),
        })
        .collect();
    if found.is_empty() {
        return Err(Failure::message(format!("the build has no step {wanted}"))
            .hint("kiln builds show lists its steps"));
    }
    Ok(found)
}

/// A time as people read it: `32ms`, `1.4s`, `12m 5s`.
fn seconds(milliseconds: u64) -> String {
    match milliseconds {
        ..1_000 => return format!("{milliseconds}ms"),
        1_000..600_000 => {}
        _ => return format!("{}m {}s", milliseconds / 60_000, milliseconds / 1000 % 60),
    }
    #[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
    let seconds = milliseconds as f64 / 1000.0;
    format!("{seconds:.1}s")
}

/// When a build began, as RFC 3339.
fn time(milliseconds: u64) -> String {
    let time = jiff::Timestamp::from_millisecond(i64::try_from(milliseconds).unwrap_or(0));
    time.map(|time| time.to_string()).unwrap_or_default()
}
