//! How long a process works, and how much memory it takes.

use crate::{Result, bail};
use std::process::Command;
use std::time::{Duration, Instant};

/// What a process took.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Processor time in seconds, user and system, ended children included.
    pub seconds: f64,
    /// From its beginning to its end.
    pub elapsed: Duration,
    /// Highest resident set, in KiB, as often as it was looked at.
    pub peak: u64,
}

/// Runs a command and looks at it until it ends, or until `patience` is over.
#[expect(clippy::cast_precision_loss, reason = "times are compared, not added up")]
pub fn measure(command: &mut Command, patience: Duration) -> Result<Measured> {
    let began = Instant::now();
    let mut child = command.spawn()?;
    let proc = format!("/proc/{}", child.id());
    let mut peak = 0;
    loop {
        let stat = std::fs::read_to_string(format!("{proc}/stat"))?;
        let fields: Vec<&str> = stat
            .rsplit_once(") ")
            .map_or(Vec::new(), |(_, rest)| rest.split(' ').collect());
        if fields.first() == Some(&"Z") {
            let elapsed = began.elapsed();
            // User and system time of the process, then of its children, in ticks.
            let ticks: u64 = fields
                .get(11..15)
                .unwrap_or_default()
                .iter()
                .filter_map(|field| field.parse::<u64>().ok())
                .sum();
            let seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
            let code = child.wait()?.code();
            return Ok(Measured {
                code,
                seconds,
                elapsed,
                peak,
            });
        }
        let status = std::fs::read_to_string(format!("{proc}/status")).unwrap_or_default();
        let now = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
        peak = peak.max(now.unwrap_or(0));
        if began.elapsed() > patience {
            child.kill()?;
            child.wait()?;
            bail!("no answer after {} s", patience.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
