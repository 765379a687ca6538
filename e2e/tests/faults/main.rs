//! One store, four processes at a time, and what must not happen to them: kills at any moment, a disk that fills, one that
//! fails late, bytes that change. Afterwards everything that anybody can get out of the store, the registry, the caches and the archives
//! is compared with what a store that nothing happened to makes of the same Dockerfiles.
//!
//! `KILN_E2E_FAULTS` says how many processes are killed; `KILN_E2E_SEED` repeats a run's choices.

mod late;

use kiln_e2e::builder::Ended;
use kiln_e2e::faults::checks;
use kiln_e2e::faults::crew::{self, Counts, Plan};
use kiln_e2e::faults::disk::{self, SmallDisk};
use kiln_e2e::faults::flips;
use kiln_e2e::faults::jobs::Kind;
use kiln_e2e::faults::say;
use kiln_e2e::faults::site::Site;
use kiln_e2e::random::{self, Random};
use kiln_e2e::server::Registry;
use kiln_e2e::trial::{self, Named, Outcome, TestResult};
use kiln_e2e::{Result, ensure, machine};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

fn main() -> ExitCode {
    let tests: &[Named] = &[
        ("kill -9 of four processes on one store", kills),
        ("a small disk that fills at random", small_disk),
        ("a hundred changed bytes", changed_bytes),
        ("builds on a disk that fails late", late::builds),
        ("loads on a disk that fails late", late::loads),
        ("pulls on a disk that fails late", late::pulls),
        ("cache exports on a disk that fails late", late::cache_exports),
        (
            "a failed write that another program was told of",
            late::told_to_another,
        ),
    ];
    let with_registry = |&(name, test): &Named| {
        trial::test(format!("faults/{name}"), move || match Registry::obstacle() {
            Some(obstacle) => Ok(Outcome::Skipped(obstacle)),
            None => test(),
        })
    };
    trial::run(tests.iter().map(with_registry).collect())
}

/// So many are killed unless `KILN_E2E_FAULTS` says how many.
const KILLS: usize = 30;
/// After so many the store is looked at.
const ROUND: usize = 30;
const FLIPS: usize = 100;

/// How much is to be done.
fn amount() -> Result<usize> {
    match std::env::var("KILN_E2E_FAULTS") {
        Ok(text) => text
            .parse()
            .map_err(|error| format!("KILN_E2E_FAULTS={text}: {error}").into()),
        Err(_) => Ok(KILLS),
    }
}

/// Runs a test with a seed that is told, again when it fails.
fn seeded(name: &str, test: impl FnOnce(&mut Random) -> TestResult) -> TestResult {
    let seed = random::seed()?;
    say(&format!("{name}: KILN_E2E_SEED={seed}"));
    let begun = Instant::now();
    let done = test(&mut Random::new(seed)).map_err(|error| {
        let error = format!("KILN_E2E_SEED={seed}: {error}");
        // At once: the other tests may go on for long.
        say(&format!("{name}: {error}"));
        error
    })?;
    say(&format!("{name}: {:.1} s", begun.elapsed().as_secs_f64()));
    Ok(done)
}

/// Of what was not killed only what is excused may fail.
fn excused(kind: Kind, ended: &Ended) -> Result<()> {
    ensure!(kind.excuses_failure(&ended.stderr), "it must not fail");
    Ok(())
}

fn kills() -> TestResult {
    seeded("kills", |random| {
        let site = Site::new("faults-kills")?;
        let (amount, mut counts, mut round) = (amount()?, Counts::default(), 0);
        while counts.sum().killed < amount {
            round += 1;
            let plan = Plan {
                kills: ROUND.min(amount - counts.sum().killed),
                commands: 0,
                kill_percent: 80,
                accept: excused,
            };
            let done = crew::work(&site, &plan, random).and_then(|done| {
                checks::all(&site)?;
                Ok(done)
            });
            counts.add(&done.map_err(|error| format!("round {round}: {error}"))?);
        }
        say(&counts.table());
        ensure!(
            counts.sum().ended > amount / 10,
            "hardly anything came to its end:\n{}",
            counts.table()
        );
        Ok(Outcome::Passed)
    })
}

/// Programs of steps that failed without a word.
static SILENT: AtomicUsize = AtomicUsize::new(0);

/// What fails on a full disk says so and names it.
fn disk_is_named(kind: Kind, ended: &Ended) -> Result<()> {
    if excused(kind, ended).is_ok() {
        return Ok(());
    }
    let text = ended.stderr.to_lowercase();
    ensure!(ended.code == Some(1), "another exit code than 1");
    if text.contains("did not complete successfully: exit code") && !text.contains("no space left") {
        // A program that keeps silent; when there was space again before it ended, nobody can tell.
        SILENT.fetch_add(1, Ordering::Relaxed);
        return Ok(());
    }
    ensure!(
        text.contains("hint: the disk is full"),
        "a failure that does not say that the disk is full"
    );
    Ok(())
}

fn small_disk() -> TestResult {
    if !machine::is_root() {
        let reason = "needs root, to mount a small file system";
        return Ok(Outcome::Skipped(reason.to_owned()));
    }
    seeded("small disk", |random| {
        let disk = SmallDisk::new(128 << 20)?;
        let mut site = Site::new("faults-disk")?;
        site.kiln.root = disk.path().join("root");
        let commands = amount()? * 2;
        let plan = Plan {
            kills: 0,
            commands,
            kill_percent: 0,
            accept: disk_is_named,
        };
        let stop = AtomicBool::new(false);
        let (mut filling, disk_ref) = (random.split(), &disk);
        let counts = std::thread::scope(|scope| {
            let filler = scope.spawn(|| disk_ref.fill_at_random(&mut filling, &stop));
            let done = crew::work(&site, &plan, random);
            stop.store(true, Ordering::Relaxed);
            let full = filler
                .join()
                .unwrap_or_else(|_| Err("the filler panicked".into()))?;
            ensure!(full > 0, "the disk was never full");
            done
        })?;
        let silent = SILENT.load(Ordering::Relaxed);
        say(&format!("{}\nwithout a word: {silent}", counts.table()));
        ensure!(
            counts.sum().failed > silent * 2,
            "{silent} programs failed without a word"
        );
        ensure!(
            counts.sum().failed * 20 > commands,
            "hardly anything failed: the disk was not full enough\n{}",
            counts.table()
        );
        // Nothing is damaged while it is full, and everything goes when it is not.
        disk.leave(0)?;
        checks::verified(&site)?;
        checks::can_make_room(&site, &disk)?;
        disk.empty()?;
        checks::all(&site)?;
        drop(site);
        disk::finish(disk)?;
        Ok(Outcome::Passed)
    })
}

fn changed_bytes() -> TestResult {
    seeded("changed bytes", |random| {
        let site = Site::new("faults-bytes")?;
        let plan = Plan {
            kills: 0,
            commands: 40,
            kill_percent: 0,
            accept: excused,
        };
        crew::work(&site, &plan, random)?;
        // Whatever was pruned last: now each program is there.
        checks::rebuilt(&site)?;
        let flips = flips::flip(&site, FLIPS, random)?;
        let found = site.run(&["cache", "verify"])?;
        ensure!(
            found.code == Some(1),
            "verify of {} flips: {found:?}",
            flips.len()
        );
        let missed = flips::not_found(&flips, &found.stdout);
        ensure!(missed.is_empty(), "not found: {missed:#?}\n{}", found.stdout);
        let repaired = site.run(&["cache", "repair"])?.success()?;
        say(&format!(
            "changed bytes: {} set aside",
            repaired.stdout.matches("set aside: ").count()
        ));
        checks::all(&site)?;
        Ok(Outcome::Passed)
    })
}
