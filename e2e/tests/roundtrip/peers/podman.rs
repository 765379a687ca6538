//! podman.

use super::{COMPRESSIONS, exported_fits, inspection_fits};
use crate::fixture::{Fixture, fixture};
use kiln_e2e::builder::{Ended, run};
use kiln_e2e::machine::{self, TempFolder};
use kiln_e2e::server::Registry;
use kiln_e2e::trial::{Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use serde_json::Value;
use std::path::PathBuf;

/// podman with a storage of its own.
struct Podman<'a> {
    fixture: &'a Fixture,
    program: PathBuf,
    /// podman takes no path of more than 50 characters.
    run_root: TempFolder,
}

impl Podman<'_> {
    fn run(&self, arguments: &[&str]) -> Result<Ended> {
        let home = self.fixture.project.scratch("podman");
        let policy = home.join("policy.json");
        if !home.exists() {
            std::fs::create_dir(&home)?;
            std::fs::write(&policy, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#)?;
            std::fs::write(
                home.join("containers.conf"),
                "[engine]\nevents_logger = \"none\"\n",
            )?;
            std::fs::write(home.join("registries.conf"), "")?;
        }
        let mut command = machine::command(&self.program, &home);
        command
            .env("CONTAINERS_CONF", home.join("containers.conf"))
            .env("CONTAINERS_REGISTRIES_CONF", home.join("registries.conf"))
            .env("XDG_RUNTIME_DIR", self.run_root.path());
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]);
        command
            .arg("--root")
            .arg(home.join("root"))
            .arg("--runroot")
            .arg(self.run_root.path());
        command.args(arguments);
        if matches!(arguments[0], "pull" | "load" | "push") {
            command.arg("--signature-policy").arg(policy);
        }
        run(&mut command)
    }

    fn ok(&self, arguments: &[&str]) -> Result<String> {
        let ended = self.run(arguments)?.success();
        Ok(ended
            .map_err(|error| format!("podman {arguments:?}: {error}"))?
            .stdout)
    }

    /// podman sees the layers and the configuration as they are.
    fn has(&self, name: &str) -> Result<()> {
        let inspected: Value = serde_json::from_str(&self.ok(&["image", "inspect", name])?)?;
        inspection_fits(&inspected[0], self.fixture)
    }
}

pub(crate) fn podman() -> TestResult {
    let Some(program) = machine::program("podman") else {
        return Ok(Outcome::Skipped("podman is not on the PATH".to_owned()));
    };
    if !machine::is_root() {
        return Ok(Outcome::Skipped(
            "podman keeps all owners as root only".to_owned(),
        ));
    }
    let registry = Registry::start()?;
    let fixture = fixture("podman")?;
    let podman = Podman {
        fixture: &fixture,
        program,
        run_root: TempFolder::short()?,
    };
    for (at, (compression, transports)) in COMPRESSIONS.iter().enumerate() {
        let (name, digest) = fixture.push(&registry, &format!("p{at}/app:1"), compression)?;
        let id = podman.ok(&["pull", "-q", "--tls-verify=false", &name])?;
        ensure!(
            fixture.built.id == format!("sha256:{}", id.trim()),
            "podman calls the image {id}"
        );
        podman.has(&name)?;
        let digests = podman.ok(&["image", "inspect", "--format", "{{.Digest}}", &name])?;
        ensure!(digests.trim() == digest, "podman tells the digest {digests}");
        for format in *transports {
            let archive = fixture.project.scratch(&format!("podman-{format}{at}.tar"));
            podman.ok(&[
                "save",
                "-q",
                "--format",
                format,
                "-o",
                &archive.display().to_string(),
                &name,
            ])?;
            fixture.is_in(&archive)?;
            let back = fixture.comes_back_in(&archive)?;
            ensure!(back.name == name, "podman's {format} is called {}", back.name);
        }
        let pushed = format!("{}/p{at}/pushed:1", registry.host);
        podman.ok(&["push", "-q", "--tls-verify=false", &name, &pushed])?;
        fixture.comes_back_from(&pushed)?;
        podman.ok(&["rmi", "-f", &name])?;
    }
    for format in ["docker", "oci"] {
        let archive = fixture.save(format)?;
        let told = podman.ok(&["load", "-q", "-i", &archive.display().to_string()])?;
        let name = told.trim().rsplit(' ').next().unwrap_or_default().to_owned();
        ensure!(name.ends_with("podman:test"), "podman loaded {told:?}");
        podman.has(&name)?;
        let tar = fixture.project.scratch("podman-export.tar");
        let container = podman.ok(&["create", &name])?;
        podman.ok(&["export", "-o", &tar.display().to_string(), container.trim()])?;
        exported_fits(&tar, &fixture)?;
        podman.ok(&["rm", container.trim()])?;
        podman.ok(&["rmi", "-f", &name])?;
    }
    Ok(Outcome::Passed)
}
