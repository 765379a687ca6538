//! Builds at the same time, builds that are cut off, disks that are full.

use kiln_e2e::builder::{Ended, Request, drafts};
use kiln_e2e::machine::{self, SmallDisk, TempFolder};
use kiln_e2e::project::Project;
use kiln_e2e::random::Random;
use kiln_e2e::trial::{self, Named, Outcome, TestResult};
use kiln_e2e::{Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let tests: &[Named] = &[
        ("independent stages run at the same time", parallel_stages),
        ("jobs 1 runs one step after another", one_job),
        ("a failing step cancels the others", failure_cancels),
        ("interrupt and termination clean up", interrupt_cleans_up),
        (
            "Ctrl-C ends an export while layers are compressed",
            export_interrupted,
        ),
        ("kill -9 at fifty moments does no damage", kill_loop),
        ("eight builds at once on one root", eight_builds),
        ("a full disk is told and does no damage", full_disk),
        ("a damaged store is found by verify", verify_finds_damage),
        ("a store copied while in use builds right", copied_in_use),
        (
            "a lost or broken index does not matter and is made anew",
            broken_index,
        ),
        ("a store of another version is refused", other_versions),
    ];
    trial::run_all("robustness", tests)
}

/// A Dockerfile of `count` stages that each run `script` (with their number in place of `@`), and one that needs all.
fn stages(count: usize, script: &str) -> String {
    let mut text = String::new();
    for number in 0..count {
        let script = script.replace('@', &number.to_string());
        let stage =
            format!("FROM busybox:latest AS s{number}\nRUN {script} && echo {number} > /out{number}\n");
        text += &stage;
    }
    text += "FROM busybox:latest\n";
    for number in 0..count {
        let stage = format!("COPY --from=s{number} /out{number} /out{number}\n");
        text += &stage;
    }
    text
}

fn parallel_stages() -> TestResult {
    // Each waits for an answer that it gets when all have asked.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let ask = format!(
        "nc {} < /dev/null",
        listener.local_addr()?.to_string().replace(':', " ")
    );
    let project = Project::new("parallel", &[("Dockerfile", &stages(6, &ask))])?;
    let over = AtomicBool::new(false);
    let met = std::thread::scope(|scope| -> Result<usize> {
        let meeting = scope.spawn(|| {
            let mut asking = Vec::new();
            let deadline = Instant::now() + Duration::from_mins(2);
            while asking.len() < 6 && Instant::now() < deadline && !over.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => asking.push(stream),
                    Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
            }
            // From now on nobody has to wait: a build whose stages do not meet comes to its end, too.
            drop(listener);
            asking.len()
        });
        let built = project.try_build(&["--jobs", "8"]);
        over.store(true, Ordering::Relaxed);
        let met = meeting.join().map_err(|_| "the meeting panicked")?;
        built?
            .success()
            .map_err(|error| format!("{met} stages met: {error}"))?;
        Ok(met)
    })?;
    ensure!(met == 6, "only {met} stages ran at the same time");
    ensure!(
        project.shell("cat /out*")? == "0\n1\n2\n3\n4\n5\n",
        "the image lacks a stage's file"
    );
    Ok(Outcome::Passed)
}

fn one_job() -> TestResult {
    let project = Project::new("one-job", &[("Dockerfile", &stages(4, "sleep 0.5"))])?;
    let start = Instant::now();
    project.build(&["--jobs", "1"])?;
    let took = start.elapsed();
    ensure!(
        took >= Duration::from_secs(2),
        "four steps of half a second took {took:?} with one job"
    );
    Ok(Outcome::Passed)
}

fn failure_cancels() -> TestResult {
    let marker = marker();
    let dockerfile = format!(
        "FROM busybox:latest AS slow\nRUN : {marker}; sleep 600; touch /a\nFROM busybox:latest AS bad\n\
         RUN sleep 0.5; echo reason; exit 5\nFROM busybox:latest\nCOPY --from=slow /a /a\nCOPY --from=bad /b /b\n"
    );
    let project = Project::new("cancels", &[("Dockerfile", &dockerfile)])?;
    let start = Instant::now();
    let stderr = project.try_build(&["--jobs", "4"])?.failure(1)?;
    ensure!(
        start.elapsed() < Duration::from_mins(3),
        "the failed build took {:?}",
        start.elapsed()
    );
    ensure!(stderr.contains("reason"), "the reason is not shown:\n{stderr}");
    nothing_left(&project.kiln.root, &marker)?;
    Ok(Outcome::Passed)
}

/// A word that no other process's command line holds.
fn marker() -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    format!("kiln-e2e-marker-{}-{}", std::process::id(), now.as_nanos())
}

/// Waits until no process names the marker or the store; then there must be no mount and no temporary file either.
fn nothing_left(root: &Path, marker: &str) -> Result<()> {
    let root_name = root.display().to_string();
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let left = [
            machine::processes_naming(marker)?,
            machine::processes_naming(&root_name)?,
        ]
        .concat();
        if left.is_empty() {
            break;
        }
        ensure!(Instant::now() < deadline, "processes are left: {left:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mounts = machine::mounts_naming(root)?;
    ensure!(mounts.is_empty(), "mounts are left: {mounts:#?}");
    Ok(())
}

/// What lies in the store's folder for work in progress; a folder that is empty is no leftover.
fn temporary_files(root: &Path) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for entry in std::fs::read_dir(root.join("tmp")).into_iter().flatten() {
        let path = entry?.path();
        let empty = std::fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_none());
        if !empty {
            left.push(path.display().to_string());
        }
    }
    Ok(left)
}

fn start(command: &mut Command) -> Result<Child> {
    Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(child.id().try_into()?).ok_or("no pid")?;
    Ok(kill_process(pid, signal)?)
}

fn interrupt_cleans_up() -> TestResult {
    for interrupt in [Signal::INT, Signal::TERM] {
        let marker = marker();
        let dockerfile = stages(
            3,
            &format!(": {marker}; dd if=/dev/zero of=/big bs=1M count=5; sleep 600"),
        );
        let project = Project::new("interrupt", &[("Dockerfile", &dockerfile)])?;
        let child = start(&mut project.kiln.build_command(&project.request))?;
        let deadline = Instant::now() + Duration::from_mins(2);
        while machine::processes_naming(&marker)?.len() < 3 {
            ensure!(Instant::now() < deadline, "the steps did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        let begun = Instant::now();
        signal(&child, interrupt)?;
        let ended = Ended::from(child.wait_with_output()?);
        ensure!(
            begun.elapsed() < Duration::from_secs(30),
            "it took {:?} to stop",
            begun.elapsed()
        );
        ensure!(ended.code != Some(0), "an interrupted build succeeded: {ended:?}");
        nothing_left(&project.kiln.root, &marker)?;
        let left = temporary_files(&project.kiln.root)?;
        ensure!(left.is_empty(), "temporary files are left: {left:?}");
        project.kiln.run(["cache", "verify"])?.success()?;
    }
    Ok(Outcome::Passed)
}

/// Whether the store has some bytes of a blob in the making.
fn blob_comes(root: &Path) -> bool {
    drafts(root)
        .filter_map(|draft| std::fs::metadata(draft.join("blob")).ok())
        .any(|blob| blob.len() > 0)
}

/// At that level the jobs that have begun take seconds, and all of them far longer.
fn export_interrupted() -> TestResult {
    let project = Project::with_bases(
        "export-interrupted",
        &[],
        &[("Dockerfile", "FROM scratch\nCOPY f /f\n")],
    )?;
    let mut random = Random::new(7);
    let letters: Vec<u8> = (0..48 << 20)
        .map(|_| b"acgt"[(random.number() >> 62) as usize])
        .collect();
    std::fs::write(project.path("f"), letters)?;
    project.build(&[])?;
    let dest = project.scratch("image.tar");
    let mut request = project.request.clone();
    let output = format!(
        "type=oci,dest={},compression=zstd,compression-level=19",
        dest.display()
    );
    request.arguments = vec!["--output".into(), output];
    let mut child = start(&mut project.kiln.build_command(&request))?;
    let deadline = Instant::now() + Duration::from_mins(2);
    while !blob_comes(&project.kiln.root) {
        ensure!(
            Instant::now() < deadline && child.try_wait()?.is_none(),
            "nothing is compressed"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let begun = Instant::now();
    signal(&child, Signal::INT)?;
    let ended = Ended::from(child.wait_with_output()?);
    let taken = begun.elapsed();
    ended.failure(130)?;
    ensure!(taken < Duration::from_secs(15), "it took {taken:?} to end");
    ensure!(!dest.exists(), "a part of the archive is there");
    nothing_left(&project.kiln.root, &dest.display().to_string())?;
    project.kiln.run(["cache", "verify"])?.success()?;
    Ok(Outcome::Passed)
}

fn kill_loop() -> TestResult {
    let marker = marker();
    // Several stages that write, read and copy, so that every part of the store is in motion.
    let script = format!(": {marker}; dd if=/dev/zero of=/z bs=64k count=8 2> /dev/null; sleep 0.0@");
    let files = [(
        "Dockerfile",
        format!(
            "{}COPY . /context/\nARG ROUND\nRUN echo $ROUND > /round\n",
            stages(4, &script)
        ),
    )];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let project = Project::new("kill", &files)?;
    for number in 0..200 {
        project.write(&format!("files/{number}"), &number.to_string())?;
    }
    let begun = Instant::now();
    project.build(&["--no-cache", "--build-arg", "ROUND=first"])?;
    let mut whole_build = begun.elapsed();
    let mut random = u64::from(std::process::id()) * 2 + 1;
    let mut cut_off = 0;
    for round in 0..50 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let share = f64::from((random >> 40) as u32) / f64::from(1_u32 << 24);
        let moment = whole_build.mul_f64(share * 1.1);
        project.write("files/0", &format!("round {round}"))?;
        let mut request = project.request.clone();
        request.arguments = [
            "--no-cache".into(),
            "--build-arg".into(),
            format!("ROUND={round}"),
        ]
        .into();
        let mut child = start(
            project
                .kiln
                .build_command(&request)
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        )?;
        let begun = Instant::now();
        while child.try_wait()?.is_none() && begun.elapsed() < moment {
            std::thread::sleep(Duration::from_millis(2));
        }
        if child.try_wait()?.is_none() {
            cut_off += 1;
        } else {
            // How long a build takes differs from one to the next on a busy machine.
            whole_build = begun.elapsed();
        }
        child.kill()?;
        child.wait()?;
        nothing_left(&project.kiln.root, &marker)
            .map_err(|error| format!("round {round} after {moment:?}: {error}"))?;
        if round % 10 == 9 {
            let verified = project.kiln.run(["cache", "verify"])?;
            verified
                .success()
                .map_err(|error| format!("cache verify after round {round}: {error}"))?;
        }
    }
    ensure!(
        cut_off >= 20,
        "only {cut_off} of 50 builds were still running when they were killed"
    );
    project.build(&["--build-arg", "ROUND=last"])?;
    ensure!(
        project.shell("cat /round /out3 /context/files/0")? == "last\n3\nround 49",
        "the image after it is wrong"
    );
    let image = project.image()?;
    ensure!(
        image.tree.get("context/files/199").is_some(),
        "the image after it lacks a file"
    );
    project.kiln.run(["cache", "verify"])?.success()?;
    let left = temporary_files(&project.kiln.root)?;
    ensure!(left.is_empty(), "the next build did not sweep: {left:?}");
    Ok(Outcome::Passed)
}

fn eight_builds() -> TestResult {
    let project = Project::new("eight", &[])?;
    // Two of them, each, share all but the last step; all share the first.
    let mut children = Vec::new();
    for number in 0..8 {
        let pair = number / 2;
        let context = project.scratch(&format!("context{number}"));
        std::fs::create_dir(&context)?;
        std::fs::write(context.join("f"), format!("file {pair}\n"))?;
        let dockerfile = format!(
            "FROM busybox:latest AS base\nRUN sleep 0.2; echo shared > /shared\nFROM base AS pair\nCOPY f /f\n\
             RUN sleep 0.1; cat /f /shared > /both\nFROM base\nCOPY --from=pair /both /both\nRUN echo {number} > /own\n"
        );
        std::fs::write(context.join("Dockerfile"), dockerfile)?;
        let request = Request {
            context,
            file: None,
            tag: format!("eight:{number}"),
            arguments: Vec::new(),
        };
        children.push(start(&mut project.kiln.build_command(&request))?);
    }
    for (number, child) in children.into_iter().enumerate() {
        let ended = Ended::from(child.wait_with_output()?);
        ended
            .success()
            .map_err(|error| format!("build {number}: {error}"))?;
    }
    for number in 0..8 {
        let tag = format!("eight:{number}");
        let shown = project
            .kiln
            .run(["run", "--rm", &tag, "sh", "-c", "cat /both /own"])?
            .success()?
            .stdout;
        ensure!(
            shown == format!("file {}\nshared\n{number}\n", number / 2),
            "image {number} holds {shown:?}"
        );
        project.export(&tag)?;
    }
    project.kiln.run(["cache", "verify"])?.success()?;
    Ok(Outcome::Passed)
}

fn full_disk() -> TestResult {
    if !machine::is_root() {
        return Ok(Outcome::Skipped(
            "needs root, to mount a small file system".into(),
        ));
    }
    let folder = TempFolder::new("small-disk")?;
    let _disk = SmallDisk::at(folder.path(), "24m")?;
    let dockerfile = "FROM busybox:latest\nRUN dd if=/dev/zero of=/big bs=1M count=40\n";
    let mut project = Project::with_bases("full", &[], &[("Dockerfile", dockerfile)])?;
    project.kiln.root = folder.join("root");
    project.kiln.import(&kiln_e2e::base::base("busybox:latest")?)?;
    let stderr = project.try_build(&[])?.failure(1)?;
    ensure!(
        stderr.contains("No space left on device"),
        "the full disk is not told:\n{stderr}"
    );
    project.write("Dockerfile", "FROM busybox:latest\nCOPY big /big\n")?;
    std::fs::File::create(project.path("big"))?.set_len(40 << 20)?;
    let stderr = project.try_build(&[])?.failure(1)?;
    ensure!(
        stderr.to_lowercase().contains("no space left on device"),
        "the full disk is not told:\n{stderr}"
    );
    // A program that says nothing of it.
    project.write(
        "Dockerfile",
        "FROM busybox:latest\nRUN dd if=/dev/zero of=/big bs=1M count=40 2> /dev/null\n",
    )?;
    let stderr = project.try_build(&[])?.failure(1)?;
    ensure!(
        stderr.contains("hint: the disk is full"),
        "the full disk is not told:\n{stderr}"
    );
    // One that does not even notice it: its result is not taken for good.
    project.write(
        "Dockerfile",
        "FROM busybox:latest\nRUN dd if=/dev/zero of=/big bs=1M count=40 2> /dev/null; true\n",
    )?;
    let stderr = project.try_build(&[])?.failure(1)?;
    ensure!(
        stderr.contains("may be cut off") && stderr.contains("hint: the disk is full"),
        "what a full disk cut off is taken for whole:\n{stderr}"
    );
    project.kiln.run(["cache", "verify"])?.success()?;
    project.write("Dockerfile", "FROM busybox:latest\nRUN echo fits > /small\n")?;
    project.build(&[])?;
    ensure!(
        project.shell("cat /small")? == "fits\n",
        "the build after it is wrong"
    );
    Ok(Outcome::Passed)
}

fn verify_finds_damage() -> TestResult {
    let project = Project::new(
        "damage",
        &[(
            "Dockerfile",
            "FROM busybox:latest\nRUN echo unharmed-content > /victim\n",
        )],
    )?;
    project.build(&[])?;
    project.kiln.run(["cache", "verify"])?.success()?;
    let Some(victim) = find(&project.kiln.root, "victim")? else {
        bail!("the step's file is not in the store")
    };
    std::fs::write(&victim, "damaged--content\n")?;
    let found = project.kiln.run(["cache", "verify"])?;
    ensure!(
        found.code == Some(1),
        "verify ended with {:?}:\n{}{}",
        found.code,
        found.stdout,
        found.stderr
    );
    ensure!(
        format!("{}{}", found.stdout, found.stderr).contains("victim"),
        "verify does not name the file: {found:?}"
    );
    Ok(Outcome::Passed)
}

/// The first file of a name below a folder.
fn find(folder: &Path, name: &str) -> Result<Option<std::path::PathBuf>> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(None);
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name() == name {
            return Ok(Some(entry.path()));
        }
        if entry.file_type()?.is_dir()
            && let Some(found) = find(&entry.path(), name)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Steps with what copiers lose: opaque folders, whiteouts, owners, hard links.
fn fragile(round: u32) -> String {
    format!(
        "FROM busybox:latest\nRUN mkdir -p /d && echo low > /d/low && echo both > /d/both && touch /owned && chown 12:34 /owned\n\
         RUN rm -rf /d && mkdir /d && echo high > /d/high && ln /d/high /d/again && rm /bin/false\n\
         RUN echo {round} > /round\nCOPY . /context/\nRUN ls /d > /listed; ls -n /owned > /owner\n"
    )
}

const SHOWN: &str = "cat /listed; ls /d; ls /bin/false 2>&1; cat /round";

fn shown(round: u32) -> String {
    format!("again\nhigh\nagain\nhigh\nls: /bin/false: No such file or directory\n{round}\n")
}

fn copied_in_use() -> TestResult {
    let project = Project::new("copied", &[("Dockerfile", &fragile(0))])?;
    for number in 0..100 {
        project.write(&format!("files/{number}"), &number.to_string())?;
    }
    project.build(&[])?;
    // As CI caches do it: attributes go along, or do not.
    let copiers: [(&str, &str); 2] = [
        ("cp", "cp -a \"$FROM\" \"$TO\""),
        (
            "tar",
            "mkdir \"$TO\" && tar -C \"$FROM\" -cf - . | tar -C \"$TO\" -xf -",
        ),
    ];
    let mut round = 0;
    for (name, script) in copiers {
        let to: PathBuf = project.scratch(&format!("copy-{name}"));
        let mut copier = Command::new("sh");
        copier
            .args(["-c", script])
            .env("FROM", &project.kiln.root)
            .env("TO", &to)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let begun = round;
        let mut copier = copier.spawn()?;
        // Builds and prunes go on beside it. It ends when it ends: files that vanish under it are no failure here.
        while copier.try_wait()?.is_none() || round < begun + 3 {
            round += 1;
            project.write("Dockerfile", &fragile(round))?;
            project.build(&[])?;
            if round % 2 == 0 {
                project.kiln.run(["cache", "prune", "-f"])?.success()?;
            }
        }
        let mut copy = Project::with_bases(&format!("copied-{name}"), &[], &[])?;
        copy.request.context.clone_from(&project.request.context);
        copy.kiln.root.clone_from(&to);
        // The base may have lost what cannot be made again.
        copy.kiln.import(&kiln_e2e::base::base("busybox:latest")?)?;
        let ran = copy.build(&[])?;
        ensure!(
            copy.shell(SHOWN)? == shown(round),
            "{name}: {} after {ran:?}",
            copy.shell(SHOWN)?
        );
        for file in ["cat /owner", "ls -n /owned"] {
            let owner = copy.shell(file)?;
            let ids: Vec<&str> = owner.split_whitespace().skip(2).take(2).collect();
            ensure!(ids == ["12", "34"], "{name}: {file}: {owner}");
        }
        ensure!(
            copy.build(&[])?.is_empty(),
            "{name}: what was just built is not cached"
        );
        copy.image()?;
        if name == "tar" {
            let aside = std::fs::read_dir(to.join("damaged"))?.count();
            ensure!(
                aside > 0,
                "tar lost the attributes of opaque folders, and nobody noticed"
            );
        }
        // What the build had no use for may be broken still; a repair leaves nothing of that.
        copy.kiln.run(["cache", "repair"])?.success()?;
        copy.kiln.run(["cache", "repair"])?.success()?;
        copy.kiln.run(["cache", "verify"])?.success()?;
        ensure!(
            copy.build(&[])?.is_empty(),
            "{name}: the repair took what was in order"
        );
    }
    project.kiln.run(["cache", "verify"])?.success()?;
    Ok(Outcome::Passed)
}

fn broken_index() -> TestResult {
    let project = Project::new("index", &[])?;
    let folder = project.kiln.root.join("index");
    let (sled, mut number) = (folder.join("sled"), 0);
    let build = |number: u32| -> Result<()> {
        // Long enough for what goes on beside it.
        project.write(
            "Dockerfile",
            &format!("FROM busybox:latest\nRUN echo same > /same\nRUN sleep 1; echo {number} > /number\n"),
        )?;
        let ran = project.build(&[])?;
        ensure!(
            ran.len() == if number == 0 { 2 } else { 1 },
            "build {number}: {ran:?} ran"
        );
        let found = project.shell("cat /same /number")?;
        ensure!(found == format!("same\n{number}\n"), "build {number}: {found}");
        Ok(())
    };
    let whole = || {
        sled.is_dir()
            && ["doubt", "rebuilding"]
                .iter()
                .all(|name| !folder.join(name).exists())
    };
    // It is made beside a build, as far as that leaves time for it, or beside the next ones.
    let build_until_whole = |number: &mut u32| -> Result<()> {
        for _ in 0..30 {
            build(*number)?;
            *number += 1;
            if whole() {
                return Ok(());
            }
        }
        bail!("there is no index after thirty builds")
    };
    build_until_whole(&mut number)?;
    let largest = || -> Result<PathBuf> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&sled)? {
            let path = entry?.path();
            if path.is_file() {
                files.push((std::fs::metadata(&path)?.len(), path));
            }
        }
        Ok(files.into_iter().max().ok_or("no file")?.1)
    };
    let noise: Vec<u8> = (0..40_000_u32)
        .flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let breakings: [(&str, &dyn Fn() -> Result<()>); 5] = [
        ("lost", &|| Ok(std::fs::remove_dir_all(&folder)?)),
        ("without its database", &|| Ok(std::fs::remove_dir_all(&sled)?)),
        ("cut off", &|| {
            let file = std::fs::File::options().write(true).open(largest()?)?;
            file.set_len(file.metadata()?.len() / 3)?;
            Ok(std::fs::write(folder.join("doubt"), "")?)
        }),
        ("overwritten", &|| {
            for entry in std::fs::read_dir(&sled)? {
                let path = entry?.path();
                if path.is_file() {
                    std::fs::write(path, &noise)?;
                }
            }
            Ok(std::fs::write(folder.join("state"), &noise)?)
        }),
        ("all noise", &|| {
            std::fs::remove_dir_all(&sled)?;
            std::fs::create_dir_all(folder.join("journal"))?;
            for name in ["sled", "state", "size", "swept", "rebuilding", "journal/1-x"] {
                std::fs::write(folder.join(name), &noise)?;
            }
            Ok(())
        }),
    ];
    for (what, breaking) in breakings {
        breaking().map_err(|error| format!("{what}: {error}"))?;
        // The builds themselves are right whatever the index is.
        build_until_whole(&mut number).map_err(|error| format!("{what}: {error}"))?;
        project.kiln.run(["cache", "verify"])?.success()?;
    }
    Ok(Outcome::Passed)
}

fn other_versions() -> TestResult {
    let project = Project::new(
        "version",
        &[("Dockerfile", "FROM busybox:latest\nRUN echo 1 > /f\n")],
    )?;
    project.build(&[])?;
    let file = project.kiln.root.join("version");
    let own = std::fs::read_to_string(&file)?;
    let (_, rest) = own.split_once('\n').ok_or("one line")?;
    let table = [
        (
            format!("kiln-store 0\n{rest}"),
            ["format 0", "older kiln", "works with format 1", "another --root"],
        ),
        (
            "kiln-store 99\nwho knows\n".to_owned(),
            ["format 99", "newer kiln", "works with format 1", "another --root"],
        ),
        (
            "what is this".to_owned(),
            [
                "unreadable",
                "kiln-store <number>",
                "move the folder away",
                "another --root",
            ],
        ),
        (
            String::new(),
            [
                "unreadable",
                "kiln-store <number>",
                "move the folder away",
                "another --root",
            ],
        ),
    ];
    for (text, words) in table {
        std::fs::write(&file, &text)?;
        for command in [
            &["images"][..],
            &["cache", "du"],
            &["system", "prune", "-f"],
            &["cache", "repair"],
        ] {
            let stderr = project.kiln.run(command.iter().copied())?.failure(1)?;
            for word in words {
                ensure!(
                    stderr.contains(word),
                    "{text:?}: {command:?}: no {word:?} in {stderr}"
                );
            }
        }
        let stderr = project.try_build(&[])?.failure(1)?;
        ensure!(
            words.iter().all(|word| stderr.contains(word)),
            "{text:?}: {stderr}"
        );
        ensure!(std::fs::read_to_string(&file)? == text, "{text:?} was changed");
    }
    std::fs::write(&file, own)?;
    ensure!(project.build(&[])?.is_empty(), "something was deleted");
    Ok(Outcome::Passed)
}
