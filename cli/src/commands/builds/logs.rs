//! `kiln builds logs`: all that the steps wrote, never clipped.

use std::io::{Read, Write};
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
            if !copy(&log, &name, Some(&format!("step {name}")), &mut out)? {
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
    let [_, _, ..] = logged.as_slice() else {
        if let Some((_, name)) = logged.first() {
            let alone = arguments.step.is_some();
            let title = logged
                .first()
                .filter(|_| !alone)
                .map(|(step, _)| step.name.clone());
            copy(&log, name, title.as_deref(), &mut out)?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    for (step, name) in logged {
        if !copy(&log, name, Some(&step.name), &mut out)? {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a log; says whether anybody still reads.
fn copy(log: &BuildLog, name: &str, title: Option<&str>, out: &mut impl Write) -> Result<bool, Failure> {
    let written = |result: std::io::Result<()>| match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::io("write to", "standard output", error)),
    };
    let Some(mut reader) = log.read(name)? else {
        return Ok(true);
    };
    let mut last = b'\n';
    if let Some(title) = title
        && !written(writeln!(out, "=== {}", visible(title.as_bytes())))?
    {
        return Ok(false);
    }
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = reader
            .read(&mut buffer)
            .map_err(|error| Failure::io("read", log.path().join(name), error))?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        last = bytes.last().copied().unwrap_or(last);
        if !written(out.write_all(bytes))? {
            return Ok(false);
        }
    }
    if title.is_some() && last != b'\n' && !written(out.write_all(b"\n"))? {
        return Ok(false);
    }
    written(out.flush())
}
