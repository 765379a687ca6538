//! Whether all is well after a fault run.

use super::disk::SmallDisk;
use super::programs::{self, Work};
use super::site::{Fresh, Site, names};
use crate::builder::{Kiln, run};
use crate::{Result, ensure, machine, oci};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long processes may take to go after their parent was killed, and the upkeep to sweep.
const PATIENCE: Duration = Duration::from_mins(1);

/// Everything: what is left over, what the store says of itself, and what everybody gets out of it.
pub fn all(site: &Site) -> Result<()> {
    no_process(site)?;
    verified(site)?;
    rebuilt(site)?;
    swept(site)?;
    measured(site)?;
    pushed(site)?;
    caches(site)?;
    archives(site)?;
    verified(site)?;
    no_process(site)
}

/// No process of the store lives, nothing is mounted, and no lock is held.
pub fn no_process(site: &Site) -> Result<()> {
    let root = site.folder.path().display().to_string();
    let store = site.kiln.root.display().to_string();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut left = machine::processes_naming(&store)?;
        left.extend(machine::processes_naming(&format!("{root}/contexts"))?);
        if left.is_empty() {
            break;
        }
        ensure!(Instant::now() < deadline, "processes are left: {left:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mounts = machine::mounts_naming(&site.kiln.root)?;
    let small_disk = |mount: &&String| !mount.contains("/small-disk");
    let mounts: Vec<&String> = mounts.iter().filter(small_disk).collect();
    ensure!(mounts.is_empty(), "mounts are left: {mounts:#?}");
    Ok(())
}

/// `cache verify` finds nothing.
pub fn verified(site: &Site) -> Result<()> {
    let verified = site.run(&["cache", "verify"])?;
    let verified = verified
        .success()
        .map_err(|error| format!("cache verify: {error}"))?;
    ensure!(
        verified.stdout.contains("no damage") && verified.stderr.is_empty(),
        "cache verify says:\n{}{}",
        verified.stdout,
        verified.stderr
    );
    Ok(())
}

/// Each program is built again, from whatever is cached, and comes to what it must.
pub fn rebuilt(site: &Site) -> Result<()> {
    for work in Work::all() {
        let limits: &[&str] = if machine::is_root() {
            &["--memory=200m"]
        } else {
            &[]
        };
        let ended = run(&mut site.build(&site.kiln, "rebuild", work, limits)?)?
            .success()
            .map_err(|error| format!("the build of {}: {error}", work.tag()))?;
        ensure!(
            !ended.stderr.contains("WARN"),
            "the build of {} warns:\n{}",
            work.tag(),
            ended.stderr
        );
        let image = site.export(&site.kiln, &site.image(work), &site.folder)?;
        site.expect(work, &image, "built again")?;
    }
    Ok(())
}

/// Nothing temporary is left after the next build that runs a step, and no control group of the store's processes.
fn swept(site: &Site) -> Result<()> {
    let tmp = site.kiln.root.join("tmp");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut left = names(&tmp)?;
        left.remove("partial");
        let mut groups = Vec::new();
        left_groups(Path::new("/sys/fs/cgroup"), &site.started(), 0, &mut groups)?;
        if left.is_empty() && groups.is_empty() {
            break;
        }
        ensure!(
            Instant::now() < deadline,
            "temporary folders are left: {left:?}, and control groups: {groups:?}"
        );
        // Whoever has something to do sweeps. Where everything was cached, nobody had.
        let work = Work {
            program: 0,
            variant: 0,
        };
        run(&mut site.build(&site.kiln, "rebuild", work, &["--no-cache"])?)?.success()?;
    }
    saved_again(site)?;
    exported_again(site)?;
    for folder in ["archives", "caches"] {
        let mut left = BTreeSet::new();
        partial_files(&site.folder.join(folder), &mut left)?;
        ensure!(left.is_empty(), "unfinished files are left in {folder}: {left:?}");
    }
    Ok(())
}

/// On a full disk `cache prune` makes room.
pub fn can_make_room(site: &Site, disk: &SmallDisk) -> Result<()> {
    disk.leave(0)?;
    let free = disk.free()?;
    ensure!(free < 64 << 10, "the disk has {free} bytes free");
    let pruned = site.run(&["system", "prune", "--all", "--force"])?;
    let said = pruned
        .success()
        .map_err(|error| format!("system prune on a full disk: {error}"))?;
    ensure!(
        said.stderr.is_empty(),
        "system prune on a full disk: {}",
        said.stderr
    );
    let now = disk.free()?;
    ensure!(
        now > free,
        "system prune made no room: {free} and {now}\n{}",
        said.stdout
    );
    Ok(())
}

/// A kill between naming and renaming leaves a whole archive beside its place, which goes with the next one.
fn saved_again(site: &Site) -> Result<()> {
    let mut left = BTreeSet::new();
    partial_files(&site.folder.join("archives"), &mut left)?;
    for work in Work::all() {
        let archive = site.archive(work);
        let start = format!("{}.kiln-", archive.display());
        if !left.iter().any(|path| path.to_string_lossy().starts_with(&start)) {
            continue;
        }
        run(&mut site.build::<&str>(&site.kiln, "rebuild", work, &[])?)?.success()?;
        let save = [
            "save".into(),
            "-o".into(),
            archive.into_os_string(),
            site.image(work).into(),
        ];
        site.kiln.run::<OsString>(save)?.success()?;
    }
    Ok(())
}

/// A kill while a blob is written to a cache's folder leaves a part of it, which goes with the next export to there.
fn exported_again(site: &Site) -> Result<()> {
    for work in Work::all() {
        let folder = site.cache_folder(work);
        let mut left = BTreeSet::new();
        partial_files(&folder, &mut left)?;
        if !left.is_empty() {
            let export = format!("--cache-to=type=local,dest={},mode=max", folder.display());
            run(&mut site.build(&site.kiln, "rebuild", work, &[export])?)?.success()?;
        }
    }
    Ok(())
}

fn partial_files(folder: &Path, left: &mut BTreeSet<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            partial_files(&entry.path(), left)?;
        } else if name.contains(".kiln-") || name.ends_with(".partial") {
            left.insert(entry.path());
        }
    }
    Ok(())
}

/// The control groups that were made by these processes: `…/kiln/<pid>-<start>-…`.
fn left_groups(folder: &Path, pids: &BTreeSet<u32>, depth: usize, left: &mut Vec<PathBuf>) -> Result<()> {
    let is_kilns = folder.file_name().is_some_and(|name| name == "kiln");
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.split('-').next().and_then(|pid| pid.parse::<u32>().ok());
        if is_kilns && owner.is_some_and(|pid| pids.contains(&pid)) {
            left.push(entry.path());
        } else if depth < 6 {
            left_groups(&entry.path(), pids, depth + 1, left)?;
        }
    }
    Ok(())
}

/// `cache du` says what the disk says.
fn measured(site: &Site) -> Result<()> {
    if !machine::is_root() {
        // Only root sees every file.
        return Ok(());
    }
    let said: serde_json::Value =
        serde_json::from_str(&site.run(&["cache", "du", "--format", "json"])?.success()?.stdout)?;
    let said = said["Total"].as_u64().ok_or("cache du has no total")?;
    let du = run(Command::new("du").args(["-s", "-B1"]).arg(&site.kiln.root))?
        .success()?
        .stdout;
    let there: u64 = du.split('\t').next().unwrap_or_default().parse()?;
    ensure!(
        said.abs_diff(there) * 100 <= there,
        "cache du says {said} bytes, the disk has {there}"
    );
    Ok(())
}

/// Whatever the registry lists is whole, and is what it must be: to Kiln with an empty store, and to another tool.
fn pushed(site: &Site) -> Result<()> {
    let tags = site.tags("app")?;
    let fresh = Fresh::new()?;
    for work in Work::all().filter(|work| tags.contains(&work.tag())) {
        let name = site.image(work);
        fresh.kiln.run(["pull", &name])?.success()?;
        let image = site.export(&fresh.kiln, &name, &fresh.folder)?;
        site.expect(work, &image, "pulled")?;
        if machine::is_root() {
            let copied = by_skopeo(&fresh, &name)?;
            site.expect(work, &copied, "copied by skopeo")?;
            ensure!(copied.id == image.id, "{name}: {} and {}", copied.id, image.id);
        }
    }
    fresh.kiln.run(["cache", "verify"])?.success()?;
    Ok(())
}

fn by_skopeo(fresh: &Fresh, name: &str) -> Result<oci::Image> {
    let program = machine::program("skopeo").ok_or("skopeo is not on the PATH")?;
    let archive = fresh.folder.join("skopeo.tar");
    run(machine::command(program, fresh.folder.path())
        .args(["--insecure-policy", "copy", "-q", "--src-tls-verify=false"])
        .arg(format!("docker://{name}"))
        .arg(format!("oci-archive:{}:x", archive.display())))?
    .success()?;
    let image = oci::read(&archive);
    std::fs::remove_file(archive)?;
    image
}

/// What an empty store makes of the caches that were exported is what it must be, and none of them is broken.
fn caches(site: &Site) -> Result<()> {
    let in_registry = site.tags("cache")?;
    for program in 0..programs::PROGRAMS.len() {
        let work = Work {
            program,
            variant: program % programs::VARIANTS,
        };
        let folder = site.cache_folder(work);
        let mut sources = Vec::new();
        if in_registry.contains(work.name()) {
            sources.push(site.registry_cache(work));
        }
        if folder.join("index.json").exists() {
            sources.push(format!("type=local,src={}", folder.display()));
        }
        for source in sources {
            let fresh = Fresh::new()?;
            build_from(site, &fresh.kiln, work, &source)?;
            let image = site.export(&fresh.kiln, &site.image(work), &fresh.folder)?;
            site.expect(work, &image, &format!("built from {source}"))?;
            fresh.kiln.run(["cache", "verify"])?.success()?;
        }
    }
    Ok(())
}

fn build_from(site: &Site, kiln: &Kiln, work: Work, source: &str) -> Result<()> {
    let from = format!("--cache-from={source}");
    let ended = run(&mut site.build(kiln, "fresh", work, &[from])?)?.success()?;
    ensure!(
        !ended.stderr.contains("WARN"),
        "the build of {} from {source} warns:\n{}",
        work.tag(),
        ended.stderr
    );
    Ok(())
}

/// Every archive that has its name is whole.
fn archives(site: &Site) -> Result<()> {
    for work in Work::all() {
        let archive = site.archive(work);
        if archive.exists() {
            let image = oci::read(&archive).map_err(|error| format!("{}: {error}", archive.display()))?;
            site.expect(work, &image, "saved")?;
        }
    }
    Ok(())
}
