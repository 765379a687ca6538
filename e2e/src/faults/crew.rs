//! Four processes at a time on one store, some of which are killed.

use super::jobs::{self, Kind};
use super::site::Site;
use crate::builder::Ended;
use crate::random::Random;
use crate::{Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many work at the same time.
const WORKERS: usize = 4;
/// A command that takes longer than this hangs.
const PATIENCE: Duration = Duration::from_mins(5);
/// How long a command is thought to take before one was seen to its end.
const FIRST_GUESS: Duration = Duration::from_millis(500);

/// What the crew is to do.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// It goes on until so many processes were killed while at work,
    pub kills: usize,
    /// and until so many commands were started.
    pub commands: usize,
    /// So many of a hundred commands are to be killed.
    pub kill_percent: u64,
    /// Whether a command that failed may do so.
    pub accept: fn(Kind, &Ended) -> Result<()>,
}

/// What became of the commands of a kind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Count {
    /// Killed while at work.
    pub killed: usize,
    /// Ended well.
    pub ended: usize,
    /// Failed, as they may.
    pub failed: usize,
}

/// What became of all commands.
#[derive(Debug, Clone, Default)]
pub struct Counts(BTreeMap<Kind, Count>);

impl Counts {
    /// The sum over all kinds.
    pub fn sum(&self) -> Count {
        self.0.values().fold(Count::default(), |sum, count| Count {
            killed: sum.killed + count.killed,
            ended: sum.ended + count.ended,
            failed: sum.failed + count.failed,
        })
    }

    fn started(&self) -> usize {
        let sum = self.sum();
        sum.killed + sum.ended + sum.failed
    }

    /// Adds what became of others.
    pub fn add(&mut self, others: &Self) {
        for (kind, other) in &others.0 {
            let count = self.0.entry(*kind).or_default();
            count.killed += other.killed;
            count.ended += other.ended;
            count.failed += other.failed;
        }
    }

    /// A table of it.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:26} {:>6} {:>6} {:>6}\n",
            "command", "killed", "ended", "failed"
        );
        for (kind, count) in &self.0 {
            let _ = writeln!(
                text,
                "{:26} {:>6} {:>6} {:>6}",
                kind.name(),
                count.killed,
                count.ended,
                count.failed
            );
        }
        let sum = self.sum();
        text + &format!(
            "{:26} {:>6} {:>6} {:>6}",
            "sum", sum.killed, sum.ended, sum.failed
        )
    }
}

/// What the workers share.
struct Crew<'a> {
    site: &'a Site,
    plan: &'a Plan,
    counts: Mutex<Counts>,
    /// How long commands take that are not killed.
    times: Mutex<BTreeMap<Kind, Duration>>,
    failed: AtomicBool,
}

/// Runs commands until the plan is fulfilled. When one fails that may not, the others end and the error is returned.
pub fn work(site: &Site, plan: &Plan, random: &mut Random) -> Result<Counts> {
    let crew = Crew {
        site,
        plan,
        counts: Mutex::default(),
        times: Mutex::default(),
        failed: AtomicBool::new(false),
    };
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (mut random, crew) = (random.split(), &crew);
                scope.spawn(move || {
                    let done = crew.worker(worker, &mut random);
                    crew.failed.fetch_or(done.is_err(), Ordering::Relaxed);
                    done
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| Err("a worker panicked".into())))
            .collect()
    });
    results.into_iter().collect::<Result<()>>()?;
    Ok(crew.counts.into_inner().unwrap_or_else(PoisonError::into_inner))
}

impl Crew<'_> {
    fn is_over(&self) -> bool {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        self.failed.load(Ordering::Relaxed)
            || (counts.sum().killed >= self.plan.kills && counts.started() >= self.plan.commands)
    }

    fn worker(&self, worker: usize, random: &mut Random) -> Result<()> {
        let log = self.site.folder.join(format!("worker{worker}.log"));
        while !self.is_over() {
            let kind = Kind::choose(random);
            let (mut command, what) = jobs::command(self.site, kind, worker, random)?;
            command
                .stdout(Stdio::null())
                .stderr(std::fs::File::create(&log)?)
                .process_group(0);
            let moment = random
                .percent(self.plan.kill_percent)
                .then(|| moment(self.expected(kind), random));
            let begun = Instant::now();
            let mut child = command.spawn()?;
            self.site.note_started(child.id());
            let ending =
                end(&mut child, moment, random.percent(30)).map_err(|error| format!("{what}: {error}"))?;
            let stderr = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
            match ending {
                Ending::Code(code) => {
                    self.note_time(kind, begun.elapsed());
                    let ended = Ended {
                        code,
                        stdout: String::new(),
                        stderr,
                    };
                    self.judge(kind, &ended)
                        .map_err(|error| format!("{what} ended with {code:?}: {error}\n{}", ended.stderr))?;
                }
                Ending::Killed => self.count(kind, |count| count.killed += 1),
            }
        }
        Ok(())
    }

    fn judge(&self, kind: Kind, ended: &Ended) -> Result<()> {
        ensure!(!ended.stderr.contains("panicked at"), "it panicked");
        if ended.code == Some(0) {
            self.count(kind, |count| count.ended += 1);
            return Ok(());
        }
        (self.plan.accept)(kind, ended)?;
        self.count(kind, |count| count.failed += 1);
        Ok(())
    }

    fn count(&self, kind: Kind, change: impl FnOnce(&mut Count)) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        change(counts.0.entry(kind).or_default());
    }

    fn expected(&self, kind: Kind) -> Duration {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.get(&kind).copied().unwrap_or(FIRST_GUESS)
    }

    /// Commands of a kind differ much: the longest counts most.
    fn note_time(&self, kind: Kind, took: Duration) {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let known = times.entry(kind).or_insert(took);
        *known = took.max((*known * 7 + took) / 8);
    }
}

/// When to kill a command that is thought to take so long: anywhere, but often right after its start or near its end.
fn moment(expected: Duration, random: &mut Random) -> Duration {
    match random.below(10) {
        0 => random.up_to(Duration::from_millis(15)),
        1 | 2 => expected.mul_f64(0.7) + random.up_to(expected.mul_f64(0.4)),
        _ => random.up_to(expected),
    }
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    /// Killed by this crew.
    Killed,
    /// With this code; none when a signal ended it.
    Code(Option<i32>),
}

/// Waits for the end of a command, whose code is returned, or kills it at the moment: with its whole process group, or
/// alone.
fn end(child: &mut Child, moment: Option<Duration>, alone: bool) -> Result<Ending> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Ending::Code(status.code()));
        }
        if moment.is_some_and(|moment| begun.elapsed() >= moment) {
            return kill(child, alone);
        }
        if begun.elapsed() > PATIENCE {
            kill(child, false)?;
            bail!("it hangs: not over after {PATIENCE:?}");
        }
        let left = moment.map_or(Duration::MAX, |moment| moment.saturating_sub(begun.elapsed()));
        std::thread::sleep(left.min(Duration::from_millis(5)));
    }
}

fn kill(child: &mut Child, alone: bool) -> Result<Ending> {
    let pid = Pid::from_raw(child.id().try_into()?).ok_or("no pid")?;
    // Not reaped yet: the number is still the child's, even if it has just ended.
    let _ = if alone {
        kill_process(pid, Signal::KILL)
    } else {
        kill_process_group(pid, Signal::KILL)
    };
    let status = child.wait()?;
    Ok(match status.signal() {
        Some(_) => Ending::Killed,
        None => Ending::Code(status.code()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_killed_or_ends() {
        let sleep = |seconds: &str| {
            let mut command = std::process::Command::new("sleep");
            command.arg(seconds).process_group(0);
            command.spawn().unwrap()
        };
        let soon = Some(Duration::from_millis(20));
        for alone in [true, false] {
            assert_eq!(end(&mut sleep("60"), soon, alone).unwrap(), Ending::Killed);
        }
        assert_eq!(end(&mut sleep("0"), None, false).unwrap(), Ending::Code(Some(0)));
    }

    #[test]
    fn moments_lie_all_over() {
        let mut random = Random::new(3);
        let expected = Duration::from_secs(1);
        let moments: Vec<Duration> = (0..1000).map(|_| moment(expected, &mut random)).collect();
        let between = |low: u64, high: u64| {
            let (low, high) = (Duration::from_millis(low), Duration::from_millis(high));
            moments
                .iter()
                .filter(|moment| **moment >= low && **moment < high)
                .count()
        };
        assert!(between(0, 15) > 50 && between(200, 500) > 100 && between(700, 1100) > 200);
    }
}
