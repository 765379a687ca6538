//! The ceiling, held while a build goes on.

use crate::du;
use crate::gate::Gate;
use kiln_e2e::builder::run;
use kiln_e2e::project::Project;
use kiln_e2e::trial::{Outcome, TestResult};
use kiln_e2e::{Result, bail, ensure, machine};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Steps of two megabytes each; `before` comes before each.
fn steps(word: &str, count: usize, before: &str) -> String {
    let mut text = "FROM busybox:latest\n".to_owned();
    for number in 0..count {
        let step = format!(
            "RUN {before}; echo {word} > /{word}{number}; dd if=/dev/urandom of=/random{number} bs=1M count=2\n"
        );
        text += &step;
    }
    text
}

/// What a step of [`steps`] writes.
const STEP: u64 = 2 << 20;

/// `index` says whether another process has it all the time.
pub(crate) fn ceiling(index: &str) -> TestResult {
    if !machine::is_root() {
        return Ok(Outcome::Skipped("needs root: du must see every file".to_owned()));
    }
    let name = format!("disk-ceiling-{index}");
    let project = Project::new(&name, &[("Dockerfile", &steps("old", 10, "true"))])?;
    let kiln = &project.kiln;
    project.build(&[])?;
    let lock = std::fs::File::create(kiln.root.join("index/lock"))?;
    if index == "without" {
        lock.lock()?;
    }
    kiln.run(["rmi", &project.request.tag])?.success()?;
    // Room for one step more; the eight that follow have to get theirs from the old ones.
    let ceiling = du(&kiln.root)? + STEP;
    std::fs::write(
        kiln.config(),
        format!("[cache]\nmax-size = \"{ceiling}\"\nmin-free = \"0\"\n"),
    )?;
    let gate = Gate::open()?;
    let ask = gate.question();
    project.write("Dockerfile", &format!("{}RUN {ask}\n", steps("new", 8, &ask)))?;
    let (over, most) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| -> Result<()> {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                most.fetch_max(du(&kiln.root).unwrap_or(0), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(50));
            }
        });
        let tended = scope.spawn(|| gate.tend(&over, &kiln.root, ceiling));
        let built = project.build(&[]);
        over.store(true, Ordering::Relaxed);
        match tended.join() {
            Ok(tended) => tended.and(built.map(drop)),
            Err(_) => bail!("a thread panicked"),
        }
    })?;
    let most = most.into_inner();
    // Room is made when a step has ended.
    ensure!(
        most <= ceiling + 2 * STEP,
        "the store grew to {most}, the ceiling is {ceiling}"
    );
    ensure!(
        most > ceiling - 4 * STEP,
        "the store never came near its ceiling: {most} of {ceiling}"
    );
    // After the last step there was room. What describes it came then, and on a slow machine the next commands make room for
    // that.
    project.write("Dockerfile.next", "FROM busybox:latest\nRUN sleep 1\n")?;
    let (context, next) = (project.path("."), project.path("Dockerfile.next"));
    let deadline = Instant::now() + Duration::from_mins(1);
    while du(&kiln.root)? > ceiling {
        ensure!(
            Instant::now() < deadline,
            "the store takes {} at the end, the ceiling is {ceiling}",
            du(&kiln.root)?
        );
        let mut build = kiln.command(["build", "--no-cache", "-q", "-f"]);
        run(build.arg(&next).arg(&context))?.success()?;
    }
    ensure!(
        project.shell("cat /new0 /new7")? == "new\nnew\n",
        "the image is wrong"
    );
    ensure!(
        project.build(&[])?.is_empty(),
        "what was just built is not cached"
    );
    kiln.run(["cache", "verify"])?.success()?;
    Ok(Outcome::Passed)
}
