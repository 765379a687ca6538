//! Mounts of RUN over several builds and processes: what they keep, share, hide, and what they make a step's key of.

use kiln_e2e::builder::{Ended, Request};
use kiln_e2e::machine;
use kiln_e2e::project::Project;
use kiln_e2e::trial::{self, Named, Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime};

fn main() -> ExitCode {
    let tests: &[Named] = &[
        ("a cache mount is kept from build to build", cache_is_kept),
        (
            "a bind of the context counts by what it shows",
            bind_counts_by_content,
        ),
        (
            "a bind of a stage counts by what it shows",
            bind_of_stage_cuts_off,
        ),
        ("what a mount shows has the times of now", times_are_fresh),
        (
            "a writable bind never reaches the context",
            bind_spares_the_context,
        ),
        ("locked: one build waits for the other", locked_waits),
        ("shared: two builds use one directory at once", shared_at_once),
        ("private: two builds have a directory each", private_apart),
        ("a killed build lets go of its cache mounts", killed_lets_go),
        ("a waiting build can be interrupted", waiting_is_interrupted),
        ("two builds that want the same two caches both end", no_deadlock),
    ];
    trial::run_all("mounts", tests)
}

/// Fails unless exactly these steps ran.
fn ran(found: &[String], expected: &[&str]) -> Result<()> {
    ensure!(found == expected, "not cached: {found:?}, expected: {expected:?}");
    Ok(())
}

/// A word that no other process's command line holds.
fn marker() -> String {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    format!("kiln-e2e-mounts-{}-{}", std::process::id(), now.as_nanos())
}

/// Starts a build of its own tag with a build argument `WHO`.
fn start(project: &Project, who: &str) -> Result<Child> {
    let request = Request {
        tag: format!("mounts:{who}"),
        arguments: vec!["--build-arg".to_owned(), format!("WHO={who}")],
        ..project.request.clone()
    };
    let mut command = project.kiln.build_command(&request);
    Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

fn end(child: Child) -> Result<String> {
    Ok(Ended::from(child.wait_with_output()?).success()?.stderr)
}

/// Waits until a process names the marker: the step runs.
fn wait_for(marker: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while machine::processes_naming(marker)?.is_empty() {
        ensure!(Instant::now() < deadline, "the step did not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The store is whole, and nothing lies about.
fn whole(project: &Project) -> Result<()> {
    project.kiln.run(["cache", "verify"])?.success()?;
    let mounts = machine::mounts_naming(&project.kiln.root)?;
    ensure!(mounts.is_empty(), "mounts are left: {mounts:#?}");
    Ok(())
}

/// How many directories of cache mounts the store has.
fn directories(project: &Project) -> Result<usize> {
    let mut count = 0;
    for key in std::fs::read_dir(project.kiln.root.join("mounts"))? {
        count += std::fs::read_dir(key?.path())?.count();
    }
    Ok(count)
}

fn cache_is_kept() -> TestResult {
    let dockerfile = "FROM busybox:latest\nARG WHO\n\
        RUN --mount=type=cache,target=/c echo $WHO >> /c/log && cp /c/log /out\n";
    let project = Project::new("cache-kept", &[("Dockerfile", dockerfile)])?;
    let build = |arguments: &[&str]| -> Result<(usize, String)> {
        let ran = project.build(arguments)?.len();
        Ok((ran, project.shell("cat /out; ls -A /c 2> /dev/null; true")?))
    };
    ensure!(
        build(&["--build-arg", "WHO=one"])? == (1, "one\n".to_owned()),
        "the first build"
    );
    ensure!(
        build(&["--build-arg", "WHO=two"])? == (1, "one\ntwo\n".to_owned()),
        "the cache mount was not kept"
    );
    ensure!(
        build(&["--build-arg", "WHO=one"])? == (0, "one\n".to_owned()),
        "what a cache mount holds changed a key"
    );
    let namespace = "BUILDKIT_CACHE_MOUNT_NS=other";
    ensure!(
        build(&["--build-arg", "WHO=three", "--build-arg", namespace])? == (1, "three\n".to_owned()),
        "the namespace does not tell cache mounts apart"
    );
    ensure!(
        build(&["--build-arg", "WHO=four"])? == (1, "one\ntwo\nfour\n".to_owned()),
        "the namespace changed the other cache mount"
    );
    whole(&project)?;
    Ok(Outcome::Passed)
}

fn bind_counts_by_content() -> TestResult {
    let step = "RUN --mount=source=in,target=/in cat /in/* > /out";
    let dockerfile = format!("FROM busybox:latest\n{step}\n");
    let files = [
        ("Dockerfile", dockerfile.as_str()),
        ("in/a", "a\n"),
        ("beside", "x\n"),
        (".dockerignore", "in/*.log\n"),
    ];
    let project = Project::new("bind-content", &files)?;
    ran(&project.build(&[])?, &[step])?;
    ran(&project.build(&[])?, &[])?;
    project.write("beside", "y\n")?;
    project.write("new/file", "y\n")?;
    project.write("in/a.log", "ignored\n")?;
    ran(&project.build(&[])?, &[])?;
    std::fs::File::options()
        .write(true)
        .open(project.path("in/a"))?
        .set_modified(SystemTime::now() + Duration::from_secs(99))?;
    ran(&project.build(&[])?, &[])?;
    project.write("in/a", "b\n")?;
    ran(&project.build(&[])?, &[step])?;
    ensure!(project.shell("cat /out")? == "b\n", "the step saw the old file");
    project.write("in/c", "c\n")?;
    ran(&project.build(&[])?, &[step])?;
    ensure!(
        project.shell("cat /out")? == "b\nc\n",
        "the step did not see the new file"
    );
    whole(&project)?;
    Ok(Outcome::Passed)
}

fn bind_of_stage_cuts_off() -> TestResult {
    let make = "RUN echo $ROUND > /noise && mkdir /d && echo $WHAT > /d/f";
    let take = "RUN --mount=from=made,source=/d,target=/d cat /d/f > /out";
    let dockerfile =
        format!("FROM busybox:latest AS made\nARG ROUND WHAT=x\n{make}\nFROM busybox:latest\n{take}\n");
    let project = Project::new("bind-stage", &[("Dockerfile", &dockerfile)])?;
    let shown = |round: &str, what: &str| make.replace("$ROUND", round).replace("$WHAT", what);
    let build = |round: &str, what: &str| {
        let (round, what) = (format!("ROUND={round}"), format!("WHAT={what}"));
        project.build(&["--build-arg", &round, "--build-arg", &what])
    };
    // The progress shows commands with the values of this point, or as written; either will do here.
    let names = |found: Vec<String>, round: &str, what: &str| -> Vec<String> {
        let shown = shown(round, what);
        found
            .into_iter()
            .map(|step| if step == shown { make.to_owned() } else { step })
            .collect()
    };
    ran(&names(build("1", "x")?, "1", "x"), &[make, take])?;
    ran(&names(build("2", "x")?, "2", "x"), &[make])?;
    ran(&names(build("2", "y")?, "2", "y"), &[make, take])?;
    ensure!(project.shell("cat /out")? == "y\n", "the step saw the old file");
    Ok(Outcome::Passed)
}

/// Tools like make compare times with what they keep in a cache mount; old ones of equal content would mislead them.
fn times_are_fresh() -> TestResult {
    let dockerfile =
        "FROM busybox:latest\nARG WHO\nRUN --mount=source=f,target=/f echo $WHO && stat -c %Y /f > /out\n";
    let project = Project::new("fresh-times", &[("Dockerfile", dockerfile), ("f", "same\n")])?;
    for (who, seconds) in [("a", 1_000_000_000), ("b", 1_500_000_000)] {
        std::fs::File::options()
            .write(true)
            .open(project.path("f"))?
            .set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))?;
        project.build(&["--build-arg", &format!("WHO={who}")])?;
        let shown = project.shell("cat /out")?;
        ensure!(shown == format!("{seconds}\n"), "the step saw the time {shown}");
    }
    Ok(Outcome::Passed)
}

fn bind_spares_the_context() -> TestResult {
    let dockerfile = "FROM busybox:latest\n\
        RUN --mount=target=/c,rw echo changed > /c/f && rm -r /c/d && touch /c/new && cat /c/f > /out\n\
        RUN --mount=source=f,target=/f,rw echo changed > /f && cat /f >> /out\n\
        RUN --mount=target=/c cat /c/f /c/d/g >> /out && ! test -e /c/new\n";
    let files = [("Dockerfile", dockerfile), ("f", "f\n"), ("d/g", "g\n")];
    let project = Project::new("bind-spares", &files)?;
    project.build(&[])?;
    ensure!(
        project.shell("cat /out")? == "changed\nchanged\nf\ng\n",
        "the steps saw something else"
    );
    for (path, text) in [("f", "f\n"), ("d/g", "g\n")] {
        ensure!(
            std::fs::read_to_string(project.path(path))? == text,
            "{path} was changed"
        );
    }
    ensure!(!project.path("new").exists(), "a file was made in the context");
    let image = project.image()?;
    ensure!(image.tree.get("c").is_none(), "a mountpoint is in the image");
    whole(&project)?;
    Ok(Outcome::Passed)
}

fn locked_waits() -> TestResult {
    let marker = marker();
    let dockerfile = format!(
        "FROM busybox:latest\nARG WHO\nRUN --mount=type=cache,target=/c,sharing=locked \
         : {marker}; echo begin >> /c/log; sleep 1.5; echo end >> /c/log; cp /c/log /out\n"
    );
    let project = Project::new("locked", &[("Dockerfile", &dockerfile)])?;
    let first = start(&project, "a")?;
    wait_for(&marker)?;
    let second = start(&project, "b")?;
    let (one, two) = (end(first)?, end(second)?);
    let waiting = "waiting for the cache mount /c";
    ensure!(!one.contains(waiting), "the first build waited:\n{one}");
    ensure!(
        two.contains(waiting),
        "the second build does not say that it waits:\n{two}"
    );
    let log = project
        .kiln
        .run(["run", "--rm", "mounts:b", "cat", "/out"])?
        .success()?
        .stdout;
    ensure!(
        log == "begin\nend\nbegin\nend\n",
        "they were at it at once:\n{log}"
    );
    ensure!(directories(&project)? == 1, "there is more than one directory");
    whole(&project)?;
    Ok(Outcome::Passed)
}

/// Each of two builds waits for a file of the other, so that none ends unless both see one directory.
fn shared_at_once() -> TestResult {
    let dockerfile = "FROM busybox:latest\nARG WHO\nRUN --mount=type=cache,target=/c touch /c/$WHO; \
        for i in $(seq 300); do [ -e /c/a ] && [ -e /c/b ] && exit 0; sleep 0.1; done; exit 1\n";
    let project = Project::new("shared", &[("Dockerfile", dockerfile)])?;
    let (one, two) = (start(&project, "a")?, start(&project, "b")?);
    end(one)?;
    end(two)?;
    ensure!(directories(&project)? == 1, "there is more than one directory");
    whole(&project)?;
    Ok(Outcome::Passed)
}

fn private_apart() -> TestResult {
    let marker = marker();
    let dockerfile = format!(
        "FROM busybox:latest\nARG WHO\nRUN --mount=type=cache,target=/c,sharing=private \
         : {marker}; touch /c/$WHO; sleep 1.5; ls /c > /out\n"
    );
    let project = Project::new("private", &[("Dockerfile", &dockerfile)])?;
    let first = start(&project, "a")?;
    wait_for(&marker)?;
    let second = start(&project, "b")?;
    let (one, two) = (end(first)?, end(second)?);
    ensure!(
        directories(&project)? == 2,
        "there are not two directories:\n{one}{two}"
    );
    for (who, expected) in [("a", "a\n"), ("b", "b\n")] {
        let tag = format!("mounts:{who}");
        let shown = project
            .kiln
            .run(["run", "--rm", &tag, "cat", "/out"])?
            .success()?
            .stdout;
        ensure!(shown == expected, "build {who} saw {shown:?}");
    }
    end(start(&project, "c")?)?;
    let shown = project
        .kiln
        .run(["run", "--rm", "mounts:c", "cat", "/out"])?
        .success()?
        .stdout;
    ensure!(shown == "a\nc\n", "a free directory is not used again: {shown:?}");
    ensure!(directories(&project)? == 2, "a third directory was made");
    whole(&project)?;
    Ok(Outcome::Passed)
}

/// A build that holds a locked cache mount for a minute.
fn holder(name: &str, marker: &str) -> Result<(Project, Child)> {
    let dockerfile = format!(
        "FROM busybox:latest\nARG WHO\nRUN --mount=type=cache,target=/c,sharing=locked \
         : {marker}; echo $WHO >> /c/log; [ $WHO = b ] || sleep 60; true\n"
    );
    let project = Project::new(name, &[("Dockerfile", &dockerfile)])?;
    let child = start(&project, "a")?;
    wait_for(marker)?;
    Ok((project, child))
}

fn killed_lets_go() -> TestResult {
    let (project, mut first) = holder("killed", &marker())?;
    first.kill()?;
    first.wait()?;
    let begun = Instant::now();
    end(start(&project, "b")?)?;
    ensure!(
        begun.elapsed() < Duration::from_secs(30),
        "the second build took {:?}",
        begun.elapsed()
    );
    ensure!(directories(&project)? == 1, "there is more than one directory");
    whole(&project)?;
    Ok(Outcome::Passed)
}

fn waiting_is_interrupted() -> TestResult {
    let (project, mut first) = holder("interrupted", &marker())?;
    let second = start(&project, "b")?;
    // It has nothing to do but wait by then.
    std::thread::sleep(Duration::from_secs(2));
    let begun = Instant::now();
    kill_process(
        Pid::from_raw(second.id().try_into()?).ok_or("no pid")?,
        Signal::INT,
    )?;
    let ended = Ended::from(second.wait_with_output()?);
    let took = begun.elapsed();
    let held = first.try_wait()?.is_none();
    first.kill()?;
    first.wait()?;
    ensure!(held, "the first build ended too early");
    ensure!(ended.code != Some(0), "an interrupted build succeeded: {ended:?}");
    ensure!(
        ended.stderr.contains("waiting for the cache mount /c"),
        "it did not wait:\n{}",
        ended.stderr
    );
    ensure!(took < Duration::from_secs(10), "it took {took:?} to stop");
    Ok(Outcome::Passed)
}

fn no_deadlock() -> TestResult {
    let step = |one: &str, two: &str| {
        format!(
            "RUN --mount=type=cache,id=x,target={one},sharing=locked \
             --mount=type=cache,id=y,target={two},sharing=locked echo $WHO; sleep 0.05\n"
        )
    };
    let steps = |one: &str, two: &str| step(one, two).repeat(8);
    let dockerfile = format!(
        "FROM busybox:latest AS one\nARG WHO\n{}FROM busybox:latest AS two\nARG WHO\n{}\
         FROM busybox:latest\nRUN --mount=from=one,target=/one --mount=from=two,target=/two true\n",
        steps("/a", "/b"),
        steps("/b", "/a")
    );
    let project = Project::new("deadlock", &[("Dockerfile", &dockerfile)])?;
    let children = [start(&project, "a")?, start(&project, "b")?];
    let deadline = Instant::now() + Duration::from_secs(100);
    for mut child in children {
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                child.kill()?;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        end(child)?;
    }
    Ok(Outcome::Passed)
}
