//! `kiln builds logs`: all that the steps wrote, never clipped.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use kiln_cache::{BuildLog, Store};
use kiln_solver::StepReport;

use super::{find, matching};
use crate::arguments::BuildsLogs;
use crate::progress::visible;
use crate::report::Failure;

/// Runs `kiln builds logs`. A step's log is written as it is; several have their names above.
pub(super) fn run(store: &Store, arguments: &BuildsLogs) -> Result<ExitCode, Failure> {
    let found = find(store, &arguments.build)?;
    let log = store.builds().log(&found.id);
    let mut out = std::io::stdout().lock();
    if found.record.steps.is_empty() {
        // Under way, or killed: the steps' names are not known yet.
        for name in log.steps()? {
            if let Copied::NobodyReads = copy(&log, &name, Some(&format!("step {name}")), &mut out)? {
                break;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let steps = matching(&found.record.steps, arguments.step.as_deref())?;
    let logged: Vec<(&StepReport, &str)> = steps
        .into_iter()
        .flat_map(|(_, step)| {
            let again = step.verified.as_ref();
            let again = again.and_then(|verified| verified.log.as_deref());
            step.log
                .as_deref()
                .into_iter()
                .chain(again)
                .map(move |log| (step, log))
        })
        .collect();
    let alone = logged.len() == 1 && arguments.step.is_some();
    let mut gone = 0;
    for (step, name) in &logged {
        let title = (!alone).then_some(step.name.as_str());
        match copy(&log, name, title, &mut out)? {
            Copied::All => {}
            Copied::Gone => gone += 1,
            Copied::NobodyReads => return Ok(ExitCode::SUCCESS),
        }
    }
    if gone == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let message = format!(
        "the logs of {gone} of {} steps are no longer kept: logs take up to 1 GiB, the oldest go first",
        logged.len()
    );
    if gone == logged.len() {
        return Err(Failure::message(message));
    }
    crate::report::warning(&message);
    Ok(ExitCode::SUCCESS)
}

/// What became of writing a log.
enum Copied {
    All,
    /// There is no such log any more.
    Gone,
    /// The reader has gone away.
    NobodyReads,
}

/// Writes a log, and its title when there is one.
fn copy(log: &BuildLog, name: &str, title: Option<&str>, out: &mut impl Write) -> Result<Copied, Failure> {
    let Some(mut reader) = log.read(name)? else {
        return Ok(Copied::Gone);
    };
    let mut write = |bytes: &[u8]| match out.write_all(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::io("write to", "standard output", error)),
    };
    if let Some(title) = title
        && !write(format!("=== {}\n", visible(title.as_bytes())).as_bytes())?
    {
        return Ok(Copied::NobodyReads);
    }
    let mut last = b'\n';
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = reader
            .read(&mut buffer)
            .map_err(|error| Failure::io("read", log.path().join(name), error))?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        last = bytes.last().copied().unwrap_or(last);
        if !write(bytes)? {
            return Ok(Copied::NobodyReads);
        }
    }
    if title.is_some() && last != b'\n' && !write(b"\n")? {
        return Ok(Copied::NobodyReads);
    }
    match out.flush() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::io("write to", "standard output", error))
        }
        _ => Ok(Copied::All),
    }
}
