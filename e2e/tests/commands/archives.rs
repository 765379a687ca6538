//! Root file systems that come and go: `import`, and exports that other tools take.

use super::hello;
use kiln_e2e::builder::run;
use kiln_e2e::machine;
use kiln_e2e::project::Project;
use kiln_e2e::trial::{Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use serde_json::Value;

pub(super) fn import_changes() -> TestResult {
    let project = Project::with_bases("import", &[], &[])?;
    let base = kiln_e2e::base::base("busybox:latest")?;
    let mut command = project.kiln.command([
        "import",
        "--change",
        "ENV A=b c=d",
        "--change",
        "CMD [\"sh\", \"-c\", \"echo $A$c\"]",
        "--change",
        "WORKDIR /tmp",
        "-",
        "streamed:1",
    ]);
    let ended = run(command.stdin(std::fs::File::open(&base.tar)?))?.success()?;
    ensure!(
        ended.stdout.starts_with("sha256:"),
        "import prints {:?}",
        ended.stdout
    );
    ensure!(
        project.kiln.run(["run", "--rm", "streamed:1"])?.success()?.stdout == "bd\n",
        "the changes do not count"
    );
    let bad = project.scratch("bad.tar");
    std::fs::write(&bad, "no tar at all")?;
    let refused = run(project.kiln.command(["import"]).arg(&bad).arg("bad:1"))?;
    ensure!(
        refused.code == Some(1),
        "a file that is no tar was imported: {refused:?}"
    );
    Ok(Outcome::Passed)
}

pub(super) fn export_is_taken() -> TestResult {
    let project = hello("export")?;
    project.build(&[])?;
    let archive = project.scratch("image.oci.tar");
    run(project
        .kiln
        .command(["save", "--format", "oci", "-o"])
        .arg(&archive)
        .arg("export:test"))?
    .success()?;
    let mut missing: Vec<&str> = ["skopeo", "umoci", "crun"]
        .into_iter()
        .filter(|name| machine::program(name).is_none())
        .collect();
    let layout = project.scratch("layout");
    std::fs::create_dir(&layout)?;
    run(machine::command("tar", &layout)
        .arg("-xf")
        .arg(&archive)
        .arg("-C")
        .arg(&layout))?
    .success()?;
    if let Some(skopeo) = machine::program("skopeo") {
        let source = format!("oci:{}:test", layout.display());
        let shown = run(machine::command(&skopeo, &layout).args(["inspect", &source]))?.success()?;
        let value: Value = serde_json::from_str(&shown.stdout)?;
        let layers = value["Layers"].as_array().map(Vec::len);
        ensure!(
            layers == Some(project.image()?.diff_ids.len()),
            "skopeo sees {layers:?} layers"
        );
        let target = format!("oci:{}:copy", project.scratch("copied").display());
        run(machine::command(&skopeo, &layout).args(["--insecure-policy", "copy", "-q", &source, &target]))?
            .success()?;
    }
    if let Some(umoci) = machine::program("umoci") {
        let bundle = project.scratch("bundle");
        let image = format!("{}:test", layout.display());
        let mut command = machine::command(&umoci, &layout);
        command.arg("unpack");
        if !machine::is_root() {
            command.arg("--rootless");
        }
        run(command.args(["--image", &image]).arg(&bundle))?.success()?;
        ensure!(
            std::fs::read_to_string(bundle.join("rootfs/f"))? == "content\n",
            "umoci unpacked another file"
        );
        match machine::program("crun") {
            Some(crun) if machine::is_root() => {
                relax(&bundle.join("config.json"))?;
                let state = project.scratch("crun");
                // Debian's crun runs only where cgroup v2 is all there is, so it gets a view of its own in which that
                // is so; nothing of it is seen outside.
                let script = "mount -t cgroup2 none /sys/fs/cgroup 2>/dev/null; exec \"$@\"";
                let mut command = machine::command("unshare", &layout);
                command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
                command.arg(&crun).arg("--root").arg(&state).args([
                    "--cgroup-manager",
                    "disabled",
                    "run",
                    "--bundle",
                ]);
                let ended = run(command.arg(&bundle).arg("kiln-e2e-export"))?.success()?;
                ensure!(
                    ended.stdout.contains("content"),
                    "the container printed {:?}",
                    ended.stdout
                );
            }
            Some(_) => missing.push("crun (needs root)"),
            None => {}
        }
    }
    if missing.is_empty() {
        return Ok(Outcome::Passed);
    }
    Ok(Outcome::Skipped(format!(
        "partly: without {}",
        missing.join(", ")
    )))
}

/// umoci's bundle asks for a terminal and for limits that not every machine may set.
fn relax(config: &std::path::Path) -> Result<()> {
    let mut spec: Value = serde_json::from_slice(&std::fs::read(config)?)?;
    spec["process"]["terminal"] = Value::Bool(false);
    if let Some(process) = spec["process"].as_object_mut() {
        process.remove("rlimits");
    }
    Ok(std::fs::write(config, serde_json::to_vec(&spec)?)?)
}
