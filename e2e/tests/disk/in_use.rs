//! What somebody uses is not deleted, and what nobody uses any more can be.

use crate::gate::Gate;
use crate::{json, names, total};
use kiln_e2e::builder::{Ended, Kiln, Request, run};
use kiln_e2e::project::Project;
use kiln_e2e::trial::{Outcome, TestResult};
use kiln_e2e::{Result, bail, ensure};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) fn four_under_ceiling() -> TestResult {
    let project = Project::new("disk-four", &[])?;
    let kiln = &project.kiln;
    // About what one builder's own steps take: the four always have too much.
    let ceiling = total(kiln)? + 3_000_000;
    std::fs::write(
        kiln.config(),
        format!("[cache]\nmax-size = \"{ceiling}\"\nmin-free = \"0\"\n"),
    )?;
    let end = Instant::now() + Duration::from_secs(20);
    thread::scope(|scope| -> Result<()> {
        let builders: Vec<_> = (0..4)
            .map(|number| {
                scope.spawn({
                    let project = &project;
                    move || {
                        builder(
                            project,
                            number,
                            end,
                            "dd if=/dev/urandom of=/big bs=1M count=2 2> /dev/null; sleep 0.7;",
                        )
                    }
                })
            })
            .collect();
        for one in builders {
            match one.join() {
                Ok(done) => done?,
                Err(_) => bail!("a thread panicked"),
            }
        }
        Ok(())
    })?;
    let report = kiln.run(["cache", "verify"])?.success()?.stdout;
    ensure!(report.contains("no damage"), "{report}");
    // Each round left four megabytes or more behind.
    let now = total(kiln)?;
    ensure!(
        now < ceiling + 20_000_000,
        "{now} of {ceiling}: nothing was evicted"
    );
    Ok(Outcome::Passed)
}

pub(crate) fn killed_holder() -> TestResult {
    let project = Project::new(
        "disk-holder",
        &[("Dockerfile", "FROM busybox:latest\nRUN echo held > /held\n")],
    )?;
    let kiln = &project.kiln;
    project.build(&[])?;
    kiln.run(["rmi", &project.request.tag])?.success()?;
    let held = |kiln: &Kiln| -> Result<bool> {
        let items = json(kiln, &["cache", "du", "--format", "json"])?;
        let items = items["Cache"].as_array().ok_or("no cache")?.clone();
        Ok(items.iter().any(|item| {
            item["Description"]
                .as_str()
                .is_some_and(|step| step.contains("echo held"))
                && item["InUse"] == true
        }))
    };
    ensure!(!held(kiln)?, "nobody uses it yet");
    project.write(
        "Dockerfile",
        "FROM busybox:latest\nRUN echo held > /held\nRUN cat /held; sleep 60\n",
    )?;
    let mut child = kiln
        .build_command(&project.request)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while !held(kiln)? {
        ensure!(Instant::now() < deadline, "the build does not hold its layer");
        thread::sleep(Duration::from_millis(50));
    }
    let said = kiln.run(["cache", "prune", "-af"])?.success()?.stdout;
    ensure!(held(kiln)?, "it was deleted under the build: {said}");
    child.kill()?;
    child.wait()?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while held(kiln)? {
        ensure!(Instant::now() < deadline, "a killed process holds it still");
        thread::sleep(Duration::from_millis(50));
    }
    kiln.run(["cache", "prune", "-af"])?.success()?;
    let items = json(kiln, &["cache", "du", "--format", "json"])?.to_string();
    ensure!(!items.contains("echo held"), "it is still there");
    Ok(Outcome::Passed)
}

pub(crate) fn in_use() -> TestResult {
    let project = Project::new("disk-in-use", &[])?;
    let kiln = &project.kiln;
    let end = Instant::now() + Duration::from_secs(12);
    let deleted = AtomicU64::new(0);
    thread::scope(|scope| -> Result<()> {
        let builders: Vec<_> = (0..4)
            .map(|number| {
                scope.spawn({
                    let project = &project;
                    move || builder(project, number, end, "")
                })
            })
            .collect();
        let pruner = |kill: bool| {
            let deleted = &deleted;
            move || -> Result<()> {
                while Instant::now() < end {
                    let mut child = kiln
                        .command(["cache", "prune", "--all", "--force"])
                        .stdout(std::process::Stdio::null())
                        .spawn()?;
                    if kill {
                        thread::sleep(Duration::from_millis(30));
                        child.kill()?;
                        child.wait()?;
                    } else {
                        ensure!(child.wait()?.success(), "a prune failed");
                        deleted.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(())
            }
        };
        let pruners = [scope.spawn(pruner(false)), scope.spawn(pruner(true))];
        for one in builders.into_iter().chain(pruners) {
            match one.join() {
                Ok(done) => done?,
                Err(_) => bail!("a thread panicked"),
            }
        }
        Ok(())
    })?;
    ensure!(
        deleted.into_inner() > 3,
        "hardly anything was pruned: no race was run"
    );
    let report = kiln.run(["cache", "verify"])?.success()?.stdout;
    ensure!(report.contains("no damage"), "{report}");
    Ok(Outcome::Passed)
}

/// Builds, looks at the result, removes it, again and again.
fn builder(project: &Project, number: u64, end: Instant, more: &str) -> Result<()> {
    let kiln = &project.kiln;
    let context = project.scratch(&format!("context{number}"));
    std::fs::create_dir(&context)?;
    let mut round = 0;
    while Instant::now() < end {
        round += 1;
        // The first steps are those of all builders, the last ones its own.
        let text = format!(
            "FROM busybox:latest AS one\nRUN echo shared {0} > /shared; sleep 0.05\nFROM one AS two\nRUN {more} echo own {number} > /own\n\
             FROM one\nCOPY --from=two /own /copied\nRUN cat /shared /copied > /both && sleep 0.05 && cat /shared\n",
            round % 2
        );
        std::fs::write(context.join("Dockerfile"), text)?;
        let request = Request {
            context: context.clone(),
            file: None,
            tag: format!("in-use:{number}"),
            arguments: Vec::new(),
        };
        run(&mut kiln.build_command(&request))?
            .success()
            .map_err(|error| format!("builder {number}, round {round}: {error}"))?;
        let expected = format!("shared {}\nown {number}\n", round % 2);
        let found: Ended = kiln
            .run(["run", "--rm", &request.tag, "cat", "/both"])?
            .success()?;
        ensure!(found.stdout == expected, "builder {number}: {:?}", found.stdout);
        kiln.run(["rmi", "-f", &request.tag])?.success()?;
    }
    ensure!(round > 1, "builder {number} had only one round");
    Ok(())
}

pub(crate) fn container() -> TestResult {
    let project = Project::new(
        "disk-container",
        &[("Dockerfile", "FROM busybox:latest\nRUN echo hi > /f\n")],
    )?;
    project.build(&[])?;
    let kiln = &project.kiln;
    let gate = Gate::open()?;
    let mut child = kiln
        .command([
            "run",
            "--name",
            "held",
            &project.request.tag,
            "sh",
            "-c",
            &format!("{}; cat /f; ls /bin | wc -l", gate.question()),
        ])
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    // It runs when it asks.
    let deadline = Instant::now() + Duration::from_mins(1);
    let asking = gate.asked(|| Instant::now() > deadline)?;
    ensure!(asking.is_some(), "the container does not run");
    let said = kiln
        .run(["system", "prune", "--all", "--force"])?
        .success()?
        .stdout;
    ensure!(!said.contains("Deleted Containers"), "{said}");
    let df = kiln.run(["system", "df"])?.success()?.stdout;
    ensure!(
        df.lines()
            .any(|line| line.starts_with("Containers      1       1")),
        "{df}"
    );
    drop(asking);
    let status = child.wait()?;
    let mut text = String::new();
    if let Some(mut out) = child.stdout.take() {
        std::io::Read::read_to_string(&mut out, &mut text)?;
    }
    ensure!(status.success() && text.starts_with("hi\n"), "{status}: {text}");
    let said = kiln
        .run(["system", "prune", "--all", "--force"])?
        .success()?
        .stdout;
    ensure!(said.contains("Deleted Containers:\n"), "{said}");
    ensure!(names(&kiln.root.join("layers"))?.is_empty(), "layers are left");
    Ok(Outcome::Passed)
}
