//! Ctrl-C while a registry asks for patience.

use kiln_e2e::builder::Kiln;
use kiln_e2e::ensure;
use kiln_e2e::hostile_registry::{Answer, HostileRegistry, Reserved, Site};
use kiln_e2e::machine::TempFolder;
use kiln_e2e::trial::{Outcome, TestResult};
use rustix::process::{Pid, Signal, kill_process};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// What may pass between the signal and the end; the registry asks for ten times as much.
const SOON: Duration = Duration::from_secs(5);

/// A pull and a build end with the first signal, although they were told to come back in fifty seconds.
pub(crate) fn while_waiting() -> TestResult {
    for command in ["pull", "build"] {
        let folder = TempFolder::new("hostile-registry-interrupted")?;
        let registry = HostileRegistry::start(
            Reserved::new()?,
            Site::default(),
            Box::new(|_, _| Some(Answer::status(503).with("Retry-After", "50"))),
            0,
            true,
        );
        let kiln = Kiln::new(&folder)?;
        let name = format!("{}/app:1", registry.host);
        std::fs::create_dir(folder.join("context"))?;
        std::fs::write(folder.join("context/Dockerfile"), format!("FROM {name}\n"))?;
        let mut process = match command {
            "pull" => kiln.command(["pull", &name]),
            _ => kiln.command([command.into(), folder.join("context").into_os_string()]),
        };
        let child = process.stderr(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let asked = Instant::now();
        while registry.seen().is_empty() {
            ensure!(
                asked.elapsed() < Duration::from_secs(30),
                "{command}: nothing was asked"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(200));
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let began = Instant::now();
        kill_process(pid.ok_or("no process")?, Signal::INT)?;
        let output = child.wait_with_output()?;
        let (taken, told) = (began.elapsed(), String::from_utf8_lossy(&output.stderr));
        ensure!(taken < SOON, "{command} took {taken:?} to end\n{told}");
        ensure!(
            output.status.code() == Some(130),
            "{command} ended with {:?}\n{told}",
            output.status
        );
    }
    Ok(Outcome::Passed)
}
