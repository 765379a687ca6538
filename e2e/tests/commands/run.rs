//! `run`: options, binds, streams, exit codes.

use super::hello;
use kiln_e2e::builder::Ended;
use kiln_e2e::machine;
use kiln_e2e::trial::{Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use std::io::Write as _;
use std::process::Stdio;

pub(super) fn exit_codes_of_run() -> TestResult {
    let project = hello("exit-run")?;
    project.build(&[])?;
    let run = |arguments: &[&str]| -> Result<Ended> {
        project
            .kiln
            .run(["run", "--rm"].iter().chain(arguments).map(ToString::to_string))
    };
    run(&["exit-run:test", "true"])?.failure(0)?;
    run(&["exit-run:test", "sh", "-c", "exit 7"])?.failure(7)?;
    run(&["exit-run:test", "sh", "-c", "sh -c 'kill -15 $$'; exit $?"])?.failure(143)?;
    run(&["exit-run:test", "/etc/passwd"])?.failure(126)?;
    run(&["exit-run:test", "no-such-program"])?.failure(127)?;
    let unknown = run(&["127.0.0.1:1/none:none"])?.failure(125)?;
    ensure!(
        unknown.contains("127.0.0.1:1/none"),
        "the image is not named:\n{unknown}"
    );
    run(&["--no-such-flag", "exit-run:test"])?.failure(125)?;
    Ok(Outcome::Passed)
}

pub(super) fn run_options() -> TestResult {
    let project = hello("options")?;
    project.build(&[])?;
    let run = |arguments: &[&str]| -> Result<String> {
        let arguments = ["run", "--rm"].iter().chain(arguments).map(ToString::to_string);
        Ok(project.kiln.run(arguments)?.success()?.stdout)
    };
    let image = "options:test";
    ensure!(
        run(&["-e", "X=1", "-e", "A=c", image, "sh", "-c", "echo $X$A"])? == "1c\n",
        "-e"
    );
    ensure!(
        run(&["-w", "/new/folder", image, "pwd"])? == "/new/folder\n",
        "-w"
    );
    ensure!(
        run(&["-u", "33:100", image, "id", "-u"])? == "33\n",
        "-u with numbers"
    );
    ensure!(
        run(&["-u", "nobody", image, "id", "-g"])? == "65534\n",
        "-u with a name"
    );
    ensure!(
        run(&["--entrypoint", "echo", image, "a", "b"])? == "a b\n",
        "--entrypoint"
    );
    ensure!(
        run(&["--entrypoint", "pwd", image])? == "/\n",
        "--entrypoint drops CMD"
    );
    let hostname = run(&["--name", "somename", image, "hostname"])?;
    ensure!(!hostname.trim().is_empty(), "no hostname");
    ensure!(
        run(&[
            image,
            "sh",
            "-c",
            "ls /proc/1/cmdline && echo $$ && ls /dev/shm | wc -l"
        ])?
        .contains("\n1\n0"),
        "own pids"
    );
    Ok(Outcome::Passed)
}

pub(super) fn run_binds() -> TestResult {
    let project = hello("binds")?;
    project.build(&[])?;
    let folder = project.scratch("bound");
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("in"), "from outside\n")?;
    let volume = format!("{}:/mnt/v", folder.display());
    let seen = project.kiln.run([
        "run",
        "--rm",
        "-v",
        &volume,
        "binds:test",
        "sh",
        "-c",
        "cat /mnt/v/in; echo x > /mnt/v/out",
    ])?;
    ensure!(seen.success()?.stdout == "from outside\n", "the file is not seen");
    ensure!(
        std::fs::read_to_string(folder.join("out"))? == "x\n",
        "the write is not seen"
    );
    let read_only = format!("{volume}:ro");
    let refused = project.kiln.run([
        "run",
        "--rm",
        "-v",
        &read_only,
        "binds:test",
        "touch",
        "/mnt/v/no",
    ])?;
    ensure!(
        refused.code == Some(1) && !folder.join("no").exists(),
        "a read-only bind was written: {refused:?}"
    );
    Ok(Outcome::Passed)
}

pub(super) fn run_streams() -> TestResult {
    let project = hello("stdin")?;
    project.build(&[])?;
    let mut command = project.kiln.command([
        "run",
        "--rm",
        "-i",
        "stdin:test",
        "sh",
        "-c",
        "wc -c; head -c 3000000 /dev/zero | tr '\\0' x",
    ]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().ok_or("no stdin")?;
    let writer = std::thread::spawn(move || stdin.write_all(&vec![b'y'; 1_000_000]));
    let output = child.wait_with_output()?;
    writer.join().map_err(|_| "the writer panicked")??;
    let ended = Ended::from(output).success()?;
    let (count, rest) = ended.stdout.split_once('\n').ok_or("no line")?;
    ensure!(count.trim() == "1000000", "the process read {count:?} bytes");
    ensure!(rest.len() == 3_000_000, "{} bytes came out", rest.len());
    Ok(Outcome::Passed)
}

pub(super) fn run_leaves_nothing() -> TestResult {
    let project = hello("leaves")?;
    project.build(&[])?;
    let before = folder_size(&project.kiln.root)?;
    for _ in 0..3 {
        let script = "head -c 1000000 /dev/zero > /big && wc -c < /big";
        let ran = project
            .kiln
            .run(["run", "--rm", "leaves:test", "sh", "-c", script])?
            .success()?;
        ensure!(
            ran.stdout.trim() == "1000000",
            "the container printed {:?}",
            ran.stdout
        );
    }
    let after = folder_size(&project.kiln.root)?;
    ensure!(
        after < before + 500_000,
        "the store grew from {before} to {after} bytes"
    );
    let mounts = machine::mounts_naming(&project.kiln.root)?;
    ensure!(mounts.is_empty(), "mounts are left: {mounts:?}");
    Ok(Outcome::Passed)
}

/// Bytes in a folder; files that an ordinary user may not look into count nothing.
fn folder_size(folder: &std::path::Path) -> Result<u64> {
    let mut size = 0;
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(0);
    };
    for entry in entries {
        let entry = entry?;
        let metadata = entry.path().symlink_metadata()?;
        size += if metadata.is_dir() {
            folder_size(&entry.path())?
        } else {
            metadata.len()
        };
    }
    Ok(size)
}
