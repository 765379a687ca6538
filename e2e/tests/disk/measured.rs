//! What Kiln says it takes is what the disk says, whatever was built, pushed and pruned.

use crate::{dockerfile, du, names, total};
use kiln_e2e::builder::Kiln;
use kiln_e2e::project::Project;
use kiln_e2e::server::Registry;
use kiln_e2e::trial::{Outcome, TestResult};
use kiln_e2e::{Result, ensure, machine};
use serde_json::Value;
use std::path::Path;

fn agree(kiln: &Kiln, when: &str) -> Result<()> {
    let said = total(kiln)?;
    let there = du(&kiln.root)?;
    ensure!(
        said.abs_diff(there) * 100 <= there,
        "{when}: cache du says {said}, the disk {there}"
    );
    let df = kiln.run(["system", "df", "--format", "json"])?.success()?.stdout;
    let mut sum = 0;
    for line in df.lines() {
        let row: Value = serde_json::from_str(line)?;
        sum += row["Bytes"].as_u64().ok_or("no bytes")?;
    }
    ensure!(
        sum.abs_diff(there) * 100 <= there,
        "{when}: system df says {sum}, the disk {there}"
    );
    Ok(())
}

pub(crate) fn fifty() -> TestResult {
    if !machine::is_root() {
        return Ok(Outcome::Skipped("needs root: du must see every file".to_owned()));
    }
    let project = Project::new("disk-fifty", &[])?;
    let kiln = &project.kiln;
    for seed in 0..50_u64 {
        project.write("Dockerfile", &dockerfile(seed))?;
        project.write(&format!("file{}", seed % 5), &seed.to_string().repeat(1000))?;
        project.build(&[])?;
        agree(kiln, &format!("build {seed}"))?;
        let prune: &[&str] = match seed % 10 {
            1 => &["cache", "prune", "-f", "--keep", "1MB"],
            3 => &["cache", "prune", "-f", "--filter", "type=exec.cachemount"],
            5 => &["cache", "prune", "-f", "--max-used-space", "500kB"],
            7 => &["system", "prune", "-f"],
            9 => &["cache", "prune", "-f", "--all"],
            _ => continue,
        };
        let before = du(&kiln.root)?;
        let said = kiln.run(prune.iter().copied())?.success()?.stdout;
        ensure!(said.contains("Total reclaimed space: "), "{prune:?}: {said}");
        agree(kiln, &format!("{prune:?} after build {seed}"))?;
        ensure!(
            du(&kiln.root)? <= before + 100_000,
            "{prune:?} made the store larger"
        );
    }
    kiln.run(["cache", "verify"])?.success()?;
    Ok(Outcome::Passed)
}

/// The next number of a row that begins with a seed.
fn next(random: &mut u64, below: u64) -> u64 {
    *random = random
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*random >> 33) % below
}

const PRUNES: [&[&str]; 7] = [
    &["cache", "prune", "-f"],
    &["cache", "prune", "-f", "--keep", "700kB"],
    &["cache", "prune", "-f", "--filter", "type=internal"],
    &["cache", "prune", "-f", "--filter", "type=regular", "--all"],
    &["image", "prune", "-f"],
    &["system", "prune", "-f"],
    &["system", "prune", "-f", "--all"],
];

pub(crate) fn any_order() -> TestResult {
    if !machine::is_root() {
        return Ok(Outcome::Skipped("needs root: du must see every file".to_owned()));
    }
    if let Some(obstacle) = Registry::obstacle() {
        return Ok(Outcome::Skipped(obstacle));
    }
    let registry = Registry::start()?;
    let seed = std::env::var("KILN_E2E_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let mut random: u64 = seed.unwrap_or(20);
    let mut project = Project::new("disk-any-order", &[])?;
    std::fs::write(
        project.kiln.config(),
        format!("[registry.\"{}\"]\ninsecure = true\n", registry.host),
    )?;
    let names: Vec<String> = (0..3).map(|at| format!("{}/any:{at}", registry.host)).collect();
    let mut pushed = vec![false; names.len()];
    for step in 0..50 {
        let at = usize::try_from(next(&mut random, 3))?;
        let name = &names[at];
        let has_image =
            |name: &str| Ok::<_, kiln_e2e::Error>(project.kiln.run(["inspect", name])?.code == Some(0));
        let what = match next(&mut random, 10) {
            0..=3 => {
                let seed = next(&mut random, 30);
                project.kiln.import(&kiln_e2e::base::base("busybox:latest")?)?;
                project.write("Dockerfile", &dockerfile(seed))?;
                project.write(&format!("file{}", seed % 5), &seed.to_string().repeat(1000))?;
                project.request.tag.clone_from(name);
                project.build(&[])?;
                format!("build of {name}")
            }
            4 | 5 if has_image(name)? => {
                project.kiln.run(["push", name])?.success()?;
                pushed[at] = true;
                format!("push of {name}")
            }
            6 if pushed[at] => {
                project.kiln.run(["pull", name])?.success()?;
                format!("pull of {name}")
            }
            7 if has_image(name)? => {
                project.kiln.run(["rmi", name])?.success()?;
                format!("rmi of {name}")
            }
            _ => {
                let prune = PRUNES[usize::try_from(next(&mut random, PRUNES.len() as u64))?];
                let before = du(&project.kiln.root)?;
                let said = project.kiln.run(prune.iter().copied())?.success()?.stdout;
                ensure!(said.contains("Total reclaimed space: "), "{prune:?}: {said}");
                ensure!(
                    du(&project.kiln.root)? <= before + 100_000,
                    "{prune:?} made the store larger"
                );
                format!("{prune:?}")
            }
        };
        agree(&project.kiln, &format!("step {step}, after {what}"))?;
    }
    let kiln = &project.kiln;
    kiln.run(["cache", "verify"])?.success()?;
    // In the end nothing stays that nobody needs.
    kiln.run(["system", "prune", "-f", "--all"])?.success()?;
    for folder in [
        "layers",
        "mounts",
        "blobs/sha256",
        "blobs/stamps",
        "variants",
        "images/ids",
    ] {
        let left = names_or_none(&kiln.root.join(folder))?;
        ensure!(left.is_empty(), "{folder} still has {left:?}");
    }
    agree(kiln, "after everything was pruned")?;
    Ok(Outcome::Passed)
}

fn names_or_none(folder: &Path) -> Result<Vec<String>> {
    if folder.exists() {
        names(folder)
    } else {
        Ok(Vec::new())
    }
}
