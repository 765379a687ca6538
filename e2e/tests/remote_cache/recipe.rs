//! The recipe of `docs/ci.md`, as it stands there.

use super::{ALL, Site};
use kiln_e2e::builder::{Ended, run};
use kiln_e2e::machine;
use kiln_e2e::progress;
use kiln_e2e::project::Project;
use kiln_e2e::trial::{Outcome, TestResult};
use kiln_e2e::{Result, ensure};

/// The script of docs/ci.md, as it stands there.
fn recipe() -> Result<String> {
    let page = std::fs::read_to_string(machine::checkout().join("docs/ci.md"))?;
    let (_, after) = page
        .split_once("runs the block after this line. -->\n```sh\n")
        .ok_or("docs/ci.md has no recipe for this test")?;
    let (script, _) = after.split_once("```\n").ok_or("the recipe does not end")?;
    Ok(script.to_owned())
}

/// Runs the recipe in the project's folder, on a machine that has nothing but kiln.
fn run_recipe(site: &Site, project: &Project, version: &str, user: Option<&str>) -> Result<Ended> {
    let script = project.scratch("recipe.sh");
    std::fs::write(&script, recipe()?)?;
    let kiln = project.kiln.command(["version"]);
    let folder = project.scratch("bin");
    std::fs::create_dir_all(&folder)?;
    let link = folder.join("kiln");
    if !link.exists() {
        std::os::unix::fs::symlink(kiln.get_program(), &link)?;
    }
    let mut command = match user {
        None => machine::command("sh", &project.scratch("home")),
        Some(user) => {
            let mut command = machine::command("setpriv", &project.scratch("home"));
            command.args(["--reuid", user, "--regid", user, "--init-groups", "sh"]);
            command
        }
    };
    let path = format!(
        "{}:{}",
        folder.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    command
        .arg(&script)
        .current_dir(project.path(""))
        .env("PATH", path)
        .env("KILN_CONFIG", project.kiln.config())
        .env("KILN_ROOT", &project.kiln.root)
        .env("REGISTRY", &site.registry.host)
        .env("IMAGE", "team/app")
        .env("VERSION", version);
    run(&mut command)
}

pub(super) fn ci_recipe() -> TestResult {
    recipe_runs(None)
}

pub(super) fn ci_recipe_without_root() -> TestResult {
    const USER: &str = "kiln-test";
    if !machine::is_root() {
        return Ok(Outcome::Skipped(
            "the other test of the recipe is this one already".to_owned(),
        ));
    }
    let users = std::fs::read_to_string("/etc/subuid").unwrap_or_default();
    if !users.lines().any(|line| line.starts_with(&format!("{USER}:")))
        || machine::program("setpriv").is_none()
    {
        return Ok(Outcome::Skipped(format!(
            "needs setpriv and a user {USER} with a range in /etc/subuid"
        )));
    }
    recipe_runs(Some(USER))
}

fn recipe_runs(user: Option<&str>) -> TestResult {
    let site = Site::new()?;
    let machine = |name: &str| -> Result<Project> {
        let project = site.machine(name)?;
        if let Some(user) = user {
            // The folder as this user's own; the store is made by the user.
            let folder = project.scratch("");
            run(machine::command("chown", &folder)
                .arg("-R")
                .arg(format!("{user}:{user}"))
                .arg(&folder))?
            .success()?;
        }
        Ok(project)
    };
    let first = machine("ci-first")?;
    let ended = run_recipe(&site, &first, "1", user)?.success()?;
    ensure!(progress::not_cached(&ended.stderr) == ALL, "{}", ended.stderr);
    let second = machine("ci-second")?;
    let ended = run_recipe(&site, &second, "2", user)?.success()?;
    let ran = progress::not_cached(&ended.stderr);
    ensure!(
        ran.is_empty(),
        "not cached on a fresh machine: {ran:?}\n{}",
        ended.stderr
    );
    let digest = |version: &str| {
        site.registry
            .raw_digest(&site.name(&format!("team/app:{version}")))
    };
    ensure!(
        digest("1")? == digest("2")?,
        "the two machines pushed different images"
    );
    // A changed file runs what depends on it, and the next machine has that, too.
    for (name, expected) in [("ci-third", &["COPY . ."][..]), ("ci-fourth", &[])] {
        let project = machine(name)?;
        project.write("app.py", "two\n")?;
        let ended = run_recipe(&site, &project, "3", user)?.success()?;
        let ran = progress::not_cached(&ended.stderr);
        ensure!(ran == expected, "{name}: not cached: {ran:?}\n{}", ended.stderr);
    }
    Ok(Outcome::Passed)
}
