//! Never a wrong hit: files that change behind the back of their times, and what a power loss tears.

use super::says;
use kiln_e2e::builder::{Ended, run};
use kiln_e2e::machine;
use kiln_e2e::progress;
use kiln_e2e::project::Project;
use kiln_e2e::trial::{Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What a build of `FROM scratch, COPY data` has in that file.
fn built_data(project: &Project) -> Result<String> {
    let out = project.scratch("out");
    if out.exists() {
        std::fs::remove_dir_all(&out)?;
    }
    let dest = format!("type=local,dest={}", out.display());
    project.try_build(&["-o", &dest])?.success()?;
    Ok(std::fs::read_to_string(out.join("data"))?)
}

fn data_project(name: &str) -> Result<(Project, PathBuf)> {
    let dockerfile = "FROM scratch\nCOPY data /data\n";
    let project = Project::with_bases(name, &[], &[("Dockerfile", dockerfile), ("data", "bytes 00\n")])?;
    let path = project.path("data");
    Ok((project, path))
}

/// The same file, the same size, the same modification time, other bytes; at once after a build, when the clock of the
/// file system may not have moved, and later, when what is known of the file is believed.
pub(super) fn rewritten_in_place() -> TestResult {
    let (project, path) = data_project("in-place")?;
    let before = path.metadata()?;
    for round in 0..12 {
        let bytes = format!("bytes {round:02}\n");
        let mut file = OpenOptions::new().write(true).open(&path)?;
        file.write_all(bytes.as_bytes())?;
        file.set_modified(before.modified()?)?;
        drop(file);
        let now = path.metadata()?;
        ensure!(
            (now.ino(), now.size(), now.mtime(), now.mtime_nsec())
                == (before.ino(), before.size(), before.mtime(), before.mtime_nsec()),
            "the file is not what it was but for its bytes"
        );
        let found = built_data(&project)?;
        ensure!(found == bytes, "round {round}: {found:?} was built of {bytes:?}");
        if round % 4 == 3 {
            // Long enough for the file to have settled.
            std::thread::sleep(Duration::from_millis(2_500));
            let again = built_data(&project)?;
            ensure!(again == bytes, "round {round}, later: {again:?}");
        }
    }
    Ok(Outcome::Passed)
}

/// Two files of equal size and time trade their names, and one takes the inode number of the other.
pub(super) fn swapped_files() -> TestResult {
    let (project, path) = data_project("swapped")?;
    let other = project.path("other");
    std::fs::write(&other, "bytes 01\n")?;
    let time = path.metadata()?.modified()?;
    File::options().write(true).open(&other)?.set_modified(time)?;
    ensure!(built_data(&project)? == "bytes 00\n", "the first build");
    // Files settle, and are remembered.
    std::thread::sleep(Duration::from_millis(2_500));
    ensure!(built_data(&project)? == "bytes 00\n", "the second build");
    let aside = project.path("aside");
    std::fs::rename(&path, &aside)?;
    std::fs::rename(&other, &path)?;
    std::fs::rename(&aside, &other)?;
    let found = built_data(&project)?;
    ensure!(found == "bytes 01\n", "after the swap: {found:?}");
    // Gone and made anew: most file systems give the number of the inode that was freed last.
    for round in 2..8 {
        let bytes = format!("bytes {round:02}\n");
        std::fs::remove_file(&path)?;
        std::fs::write(&path, &bytes)?;
        File::options().write(true).open(&path)?.set_modified(time)?;
        let found = built_data(&project)?;
        ensure!(found == bytes, "round {round}: {found:?}");
    }
    Ok(Outcome::Passed)
}

/// Somebody writes to a file all the time. A build may give up, and must not keep what it did not read.
pub(super) fn changing_file() -> TestResult {
    let dockerfile = "FROM scratch\nCOPY data /data\n";
    let project = Project::with_bases("changing", &[], &[("Dockerfile", dockerfile)])?;
    let path = project.path("data");
    let blocks = [vec![b'a'; 1 << 20], vec![b'b'; 1 << 20]];
    std::fs::write(&path, &blocks[0])?;
    let stop = AtomicBool::new(false);
    let (mut built, mut refused) = (0, 0);
    std::thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(|| -> Result<()> {
            let file = OpenOptions::new().write(true).open(&path)?;
            for block in blocks.iter().cycle() {
                for (at, piece) in block.chunks(4096).enumerate() {
                    file.write_all_at(piece, at as u64 * 4096)?;
                }
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
            }
            Ok(())
        });
        let mut builds = || -> Result<()> {
            for _ in 0..8 {
                let ended = project.try_build(&[])?;
                if ended.code == Some(0) {
                    built += 1;
                    continue;
                }
                let told = ended.failure(1)?;
                ensure!(told.contains("chang"), "it fails for something else:\n{told}");
                refused += 1;
            }
            Ok(())
        };
        let result = builds();
        stop.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| "the writer panicked")??;
        result
    })?;
    ensure!(built + refused == 8, "{built} and {refused}");
    // Every layer has the files that its listing, and so its key, speaks of.
    project.kiln.run(["cache", "verify"])?.success()?;
    let now = std::fs::read_to_string(&path)?;
    ensure!(built_data(&project)? == now, "the last build has other bytes");
    Ok(Outcome::Passed)
}

/// A layer that was not on disk when the power went: what is left of it may be anything, and is not looked at.
pub(super) fn power_loss() -> TestResult {
    let Some(unshare) = machine::program("unshare") else {
        return Ok(Outcome::Skipped("needs unshare".to_owned()));
    };
    if !machine::is_root() {
        return Ok(Outcome::Skipped("needs root".to_owned()));
    }
    // A build that fails leaves its good steps behind, and nobody waits for the disk.
    let dockerfile = "FROM busybox:latest\nRUN echo right > /made\nRUN false\n";
    let project = Project::new("power-loss", &[("Dockerfile", dockerfile)])?;
    project.try_build(&[])?.failure(1)?;
    let good = "FROM busybox:latest\nRUN echo right > /made\n";
    project.write("Dockerfile", good)?;
    let mut torn = 0;
    for layer in std::fs::read_dir(project.kiln.root.join("layers"))? {
        let file = layer?.path().join("diff/made");
        if file.exists() {
            std::fs::write(&file, "\0\0\0\0\0\0")?;
            torn += 1;
        }
    }
    ensure!(torn == 1, "{torn} layers have the file");
    // The same kernel, of which a file says that it was started anew.
    let boot = project.scratch("boot-id");
    std::fs::write(&boot, "01234567-89ab-cdef-0123-456789abcdef\n")?;
    let rebooted = |command: &Command| -> Result<Ended> {
        let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
        let mut outer = Command::new(&unshare);
        outer.args(["--mount", "sh", "-c", script]).arg(&boot);
        outer.arg(command.get_program()).args(command.get_args());
        outer.env_clear();
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                outer.env(name, value);
            }
        }
        if let Some(folder) = command.get_current_dir() {
            outer.current_dir(folder);
        }
        run(&mut outer)
    };
    let ended = rebooted(&project.kiln.build_command(&project.request))?.success()?;
    let ran = progress::not_cached(&ended.stderr);
    ensure!(
        ran == ["RUN echo right > /made"],
        "ran: {ran:?}\n{}",
        ended.stderr
    );
    says(&ended, "may not have reached the disk before a power loss")?;
    let arguments = ["run", "--rm", &project.request.tag, "cat", "/made"];
    let shown = rebooted(&project.kiln.command(arguments))?.success()?.stdout;
    ensure!(shown == "right\n", "the image has {shown:?}");
    rebooted(&project.kiln.command(["cache", "verify"]))?.success()?;
    Ok(Outcome::Passed)
}
