//! Kiln where a container around it withholds something, as `docs/ci.md` has it. The containers' conditions are made
//! with `unshare` and `setpriv`: no container program is needed.

use kiln_e2e::base;
use kiln_e2e::builder::{Ended, run};
use kiln_e2e::machine::{self, TempFolder};
use kiln_e2e::trial::{self, Named, Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let tests: &[Named] = &[
        ("a hidden part of /proc is named", hidden_proc),
        ("a store on an overlay is named", store_on_overlay),
        ("root without rights over the machine has all user ids", all_ids),
        ("root without any right is told what it needs", no_rights),
    ];
    trial::run_all("confined", tests)
}

/// Like the root of a container: no right over mounts.
const CONTAINER_ROOT: &str = "setpriv --bounding-set=-sys_admin";
/// In a mount namespace where a part of /proc is covered, as all of it that is locked for whoever comes.
const HIDDEN: &str = "mount -t tmpfs none /proc/irq";

/// What the machine lacks for such a test.
fn missing() -> Option<Outcome> {
    if !machine::is_root() {
        return Some(Outcome::Skipped(
            "needs root to make a container's conditions".to_owned(),
        ));
    }
    let program = ["unshare", "setpriv"]
        .into_iter()
        .find(|name| machine::program(name).is_none());
    program.map(|name| Outcome::Skipped(format!("needs {name}")))
}

/// Runs a shell script in a mount namespace of its own; `$KILN` is the binary with its store in `$STORE`.
fn confined(folder: &TempFolder, script: &str) -> Result<Ended> {
    let home = folder.join("home");
    std::fs::create_dir_all(&home)?;
    let kiln = format!(
        "{} --root {}",
        machine::kiln()?.display(),
        store(folder).display()
    );
    let base = base::base("busybox:latest")?;
    let import = format!(
        "import -c 'CMD [\"sh\"]' {} busybox:latest > /dev/null",
        base.tar.display()
    );
    let mut command = machine::command("unshare", &home);
    command
        .args(["--mount", "sh", "-c", script])
        .current_dir(folder.path())
        .env("KILN", kiln)
        .env("IMPORT", import);
    run(&mut command)
}

fn store(folder: &TempFolder) -> std::path::PathBuf {
    folder.join("store")
}

fn context(folder: &TempFolder, dockerfile: &str) -> Result<()> {
    std::fs::create_dir_all(folder.join("context"))?;
    Ok(std::fs::write(folder.join("context/Dockerfile"), dockerfile)?)
}

/// The commands of a test: the base image, and what is asked of Kiln.
fn script(before: &str, around: &str, command: &str) -> String {
    format!("set -e\n{before}\n{around} sh -c \"$KILN $IMPORT\"\nexec {around} sh -c \"$KILN {command}\"\n")
}

const BUILD: &str = "build --progress plain -t x context";

fn hidden_proc() -> TestResult {
    if let Some(missing) = missing() {
        return Ok(missing);
    }
    if !Path::new("/proc/irq").exists() {
        return Ok(Outcome::Skipped("needs /proc/irq".to_owned()));
    }
    let folder = TempFolder::new("hidden-proc")?;
    context(&folder, "FROM busybox:latest\nRUN true\n")?;
    let said = confined(&folder, &script(HIDDEN, CONTAINER_ROOT, BUILD))?.failure(1)?;
    ensure!(
        said.contains("mount proc /proc") && said.contains("hint: this container hides parts of /proc"),
        "{said}"
    );
    let info = confined(&folder, &script(HIDDEN, CONTAINER_ROOT, "info"))?.success()?;
    let row = info
        .stdout
        .lines()
        .find(|line| line.contains("process file system"));
    ensure!(row.is_some_and(|row| row.starts_with("NO ")), "{}", info.stdout);
    // What only copies needs no processes.
    context(&folder, "FROM busybox:latest\nCOPY Dockerfile /d\n")?;
    confined(&folder, &script(HIDDEN, CONTAINER_ROOT, BUILD))?.success()?;
    Ok(Outcome::Passed)
}

fn store_on_overlay() -> TestResult {
    if let Some(missing) = missing() {
        return Ok(missing);
    }
    let folder = TempFolder::new("store-overlay")?;
    context(&folder, "FROM busybox:latest\nCOPY Dockerfile /d\n")?;
    let mount = "mkdir -p lower upper work store\nmount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work none store";
    let said = confined(&folder, &script(mount, "", BUILD))?.failure(1)?;
    ensure!(
        said.contains("it is itself an overlay") && said.contains("hint: put the store on a volume"),
        "{said}"
    );
    let info = confined(&folder, &script(mount, "", "info"))?.success()?;
    let row = info
        .stdout
        .lines()
        .find(|line| line.contains("store's file system"));
    ensure!(row.is_some_and(|row| row.starts_with("NO ")), "{}", info.stdout);
    Ok(Outcome::Passed)
}

fn all_ids() -> TestResult {
    if let Some(missing) = missing() {
        return Ok(missing);
    }
    let folder = TempFolder::new("all-ids")?;
    let dockerfile =
        "FROM busybox:latest\nRUN touch /f && chown 1234:4321 /f && stat -c %u:%g /f\nUSER 77\nRUN id -u\n";
    context(&folder, dockerfile)?;
    // An empty list of ranges: this root has no subordinate ids.
    let ranges = "touch none\nfor f in /etc/subuid /etc/subgid; do [ ! -e $f ] || mount --bind none $f; done";
    let built = confined(&folder, &script(ranges, CONTAINER_ROOT, BUILD))?.success()?;
    ensure!(
        built.stderr.contains(" 1234:4321\n") && built.stderr.contains(" 77\n"),
        "{}",
        built.stderr
    );
    let info = confined(&folder, &script(ranges, CONTAINER_ROOT, "info"))?.success()?;
    ensure!(
        info.stdout.contains("Rootless:   yes\nKernel:"),
        "{}",
        info.stdout
    );
    Ok(Outcome::Passed)
}

fn no_rights() -> TestResult {
    if let Some(missing) = missing() {
        return Ok(missing);
    }
    let folder = TempFolder::new("no-rights")?;
    let without = "setpriv --bounding-set=-all";
    let ranges = "touch none\nfor f in /etc/subuid /etc/subgid; do [ ! -e $f ] || mount --bind none $f; done";
    let script = format!("set -e\n{ranges}\nexec {without} sh -c \"$KILN info\"\n");
    let ended = confined(&folder, &script)?;
    ensure!(ended.code == Some(1), "{ended:?}");
    ensure!(
        ended
            .stderr
            .contains("hint: root of a container needs the capability SETFCAP"),
        "{}",
        ended.stderr
    );
    // What the machine has is told all the same.
    ensure!(
        ended.stdout.contains("What this machine gives:"),
        "{}",
        ended.stdout
    );
    Ok(Outcome::Passed)
}
