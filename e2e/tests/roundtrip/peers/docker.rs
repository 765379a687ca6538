//! The Docker daemon.

use super::{COMPRESSIONS, exported_fits, inspection_fits};
use crate::fixture::{Fixture, fixture};
use kiln_e2e::builder::run;
use kiln_e2e::machine;
use kiln_e2e::server::Registry;
use kiln_e2e::trial::{Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Docker daemon that the tests were given; it is left as it was.
struct Docker<'a> {
    fixture: &'a Fixture,
    program: PathBuf,
    host: String,
    /// The container and the images that it gets.
    container: String,
    names: Vec<String>,
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        // After a failure in the middle; else they are gone.
        let _ = run(&mut self.command(&["rm", "-f", &self.container]));
        for name in &self.names {
            let _ = run(&mut self.command(&["rmi", "-f", name]));
        }
    }
}

impl Docker<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.fixture.tool(&self.program);
        command.env("DOCKER_HOST", &self.host).args(arguments);
        command
    }

    fn ok(&self, arguments: &[&str]) -> Result<String> {
        let ended = run(&mut self.command(arguments))?.success();
        Ok(ended
            .map_err(|error| format!("docker {arguments:?}: {error}"))?
            .stdout)
    }

    fn has(&self, name: &str) -> Result<Value> {
        let mut inspected: Value = serde_json::from_str(&self.ok(&["image", "inspect", name])?)?;
        inspection_fits(&inspected[0], self.fixture)?;
        Ok(inspected[0].take())
    }

    fn save(&self, name: &str, archive: &Path) -> Result<()> {
        let file = std::fs::File::create(archive)?;
        let status = self.command(&["save", name]).stdout(file).status()?;
        ensure!(status.success(), "docker save {name}: {status}");
        Ok(())
    }

    fn load(&self, archive: &Path) -> Result<String> {
        let mut command = self.command(&["load"]);
        let ended = run(command.stdin(std::fs::File::open(archive)?))?.success();
        Ok(ended
            .map_err(|error| format!("docker load of {}: {error}", archive.display()))?
            .stdout)
    }
}

pub(crate) fn dockerd() -> TestResult {
    let Some(host) = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()) else {
        return Ok(Outcome::Skipped("DOCKER_HOST names no Docker daemon".to_owned()));
    };
    let Some(program) = machine::program("docker") else {
        return Ok(Outcome::Skipped("docker is not on the PATH".to_owned()));
    };
    if !machine::is_root() {
        return Ok(Outcome::Skipped(
            "the daemon keeps all owners, which the image of root has".to_owned(),
        ));
    }
    let registry = Registry::start()?;
    let fixture = fixture(&format!("docker{}", std::process::id()))?;
    let of_registry = |at: usize| ["app", "pushed"].map(|name| format!("{}/d{at}/{name}:1", registry.host));
    let mut names: Vec<String> = (0..COMPRESSIONS.len()).flat_map(of_registry).collect();
    names.push(fixture.project.request.tag.clone());
    let docker = Docker {
        fixture: &fixture,
        program,
        host,
        container: fixture.project.request.tag.replace(':', "-"),
        names,
    };
    for (at, (compression, _)) in COMPRESSIONS.iter().enumerate() {
        let (name, digest) = fixture.push(&registry, &format!("d{at}/app:1"), compression)?;
        docker.ok(&["pull", "-q", &name])?;
        let inspected = docker.has(&name)?;
        let repository = name.trim_end_matches(":1");
        ensure!(
            inspected["RepoDigests"][0] == format!("{repository}@{digest}"),
            "docker tells the digests {}",
            inspected["RepoDigests"]
        );
        let archive = fixture.project.scratch(&format!("docker{at}.tar"));
        docker.save(&name, &archive)?;
        fixture.is_in(&archive)?;
        let back = fixture.comes_back_in(&archive)?;
        ensure!(back.name == name, "docker's archive has the name {}", back.name);
        let pushed = format!("{}/d{at}/pushed:1", registry.host);
        docker.ok(&["tag", &name, &pushed])?;
        docker.ok(&["push", "-q", &pushed])?;
        fixture.comes_back_from(&pushed)?;
        // Layers that came compressed are saved as they came.
        let fresh = crate::fixture::Fresh::new()?;
        fresh.kiln.run(["pull", &name])?.success()?;
        let saved = fresh.folder.join("saved.tar");
        run(fresh.kiln.command(["save", "-o"]).arg(&saved).arg(&name))?.success()?;
        docker.ok(&["rmi", "-f", &name, &pushed])?;
        docker.load(&saved)?;
        docker.has(&name)?;
        docker.ok(&["rmi", "-f", &name])?;
    }
    let told = docker.load(&fixture.save("docker")?)?;
    let name = &fixture.project.request.tag;
    ensure!(
        told.contains(&format!("Loaded image: {name}")),
        "docker load told {told:?}"
    );
    docker.has(name)?;
    docker.ok(&["create", "--name", &docker.container, name])?;
    let tar = fixture.project.scratch("docker-export.tar");
    docker.ok(&["export", "-o", &tar.display().to_string(), &docker.container])?;
    exported_fits(&tar, &fixture)?;
    Ok(Outcome::Passed)
}
