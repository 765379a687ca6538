//! A disk that takes what is written and fails to keep it, as one does that has less room than it promises. A command whose
//! bytes did not reach it fails and says so; nothing of what was lost is believed, by no command before or after the disk
//! is in order again; and then everything can be had again as it should be.

use kiln_e2e::base::base;
use kiln_e2e::builder::{Ended, Kiln, Request};
use kiln_e2e::faults::say;
use kiln_e2e::faults::thin::{self, Kind, ThinDisk};
use kiln_e2e::machine::{self, TempFolder};
use kiln_e2e::server::Registry;
use kiln_e2e::trial::{Outcome, TestResult};
use kiln_e2e::{Result, ensure, oci};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Some 65 MiB; the largest layer goes to the disk before the build is over.
const DOCKERFILE: &str = "FROM busybox:latest\n\
    RUN mkdir /small && for i in $(seq 300); do echo $i > /small/$i; done\n\
    RUN seq 1 2000000 > /a\n\
    RUN seq 2 2000000 > /b\n\
    RUN seq 3 4500000 > /c\n\
    RUN cat /a /b /c | sha256sum > /sum && cp /small/7 /seven\n";
const NAME: &str = "late:test";

const MIB: u64 = 1 << 20;
const ORDERED: &str = "errors=continue,data=ordered";

/// How the disk fails: what its file system does then, its room, its mount options.
type Way = (Kind, u64, &'static str);

/// No command takes longer, whatever the disk does.
const PATIENCE: Duration = Duration::from_mins(3);

/// A store on a disk that did not fail, and what the image holds there.
struct Scene {
    folder: TempFolder,
    good: Kiln,
    expected: BTreeMap<Vec<u8>, String>,
}

impl Scene {
    fn new() -> Result<Self> {
        let folder = TempFolder::new("late")?;
        std::fs::create_dir(folder.join("context"))?;
        std::fs::write(folder.join("context/Dockerfile"), DOCKERFILE)?;
        let good = Kiln::with_bases(&folder, &["busybox:latest"])?;
        let mut scene = Self {
            folder,
            good,
            expected: BTreeMap::new(),
        };
        build(&scene, &scene.good, &[])?.success()?;
        scene.expected = scene.content(&scene.good, NAME)?;
        Ok(scene)
    }

    fn kiln_on(&self, disk: &ThinDisk) -> Result<Kiln> {
        let mut kiln = Kiln::new(&self.folder)?;
        kiln.root = disk.path().join("root");
        Ok(kiln)
    }

    /// What an image of a store holds.
    fn content(&self, kiln: &Kiln, name: &str) -> Result<BTreeMap<Vec<u8>, String>> {
        let archive = self.save(kiln, name, "export.tar")?;
        let image = oci::read(&archive)?;
        std::fs::remove_file(archive)?;
        Ok(image.tree.lines(false))
    }

    fn save(&self, kiln: &Kiln, name: &str, file: &str) -> Result<PathBuf> {
        let archive = self.folder.join(file);
        let mut command = kiln.command(["save", "--format=oci", "-o"]);
        timed(command.arg(&archive).arg(name))?.success()?;
        Ok(archive)
    }

    fn expect(&self, kiln: &Kiln, name: &str, when: &str) -> Result<()> {
        let found = self
            .content(kiln, name)
            .map_err(|error| format!("{when}: {error}"))?;
        let odd: Vec<&String> = found
            .iter()
            .filter(|(path, line)| self.expected.get(*path) != Some(line))
            .map(|(_, line)| line)
            .take(10)
            .collect();
        ensure!(
            odd.is_empty() && found.len() == self.expected.len(),
            "{when}: another content, {} entries instead of {}: {odd:#?}",
            found.len(),
            self.expected.len()
        );
        Ok(())
    }
}

/// Runs a command to its end, which has to come.
fn timed(command: &mut std::process::Command) -> Result<Ended> {
    let begun = Instant::now();
    let ended = kiln_e2e::builder::run(command)?;
    ensure!(begun.elapsed() < PATIENCE, "it took {:?}", begun.elapsed());
    Ok(ended)
}

fn build(scene: &Scene, kiln: &Kiln, arguments: &[&str]) -> Result<Ended> {
    timed(&mut build_command(scene, kiln, arguments))
}

fn build_command(scene: &Scene, kiln: &Kiln, arguments: &[&str]) -> std::process::Command {
    kiln.build_command(&Request {
        context: scene.folder.join("context"),
        file: None,
        tag: NAME.to_owned(),
        arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
    })
}

/// Fails unless a failure says that it is the disk's, and which one it is.
fn is_told(ended: &Ended, disk: &ThinDisk) -> Result<()> {
    let text = &ended.stderr;
    let words = [
        "did not take everything that was written to it",
        "No space left on device",
        "Input/output error",
        "Read-only file system",
        "Structure needs cleaning",
        // What the kernel dropped was read again.
        "stored layer is damaged",
    ];
    let place = disk.path().display().to_string();
    ensure!(
        ended.code == Some(1)
            && words.iter().any(|word| text.contains(word))
            && (text.contains(&place)
                || text.contains("(`dmesg`)")
                || text.contains("did not complete successfully")
                || text.contains("stored layer is damaged"))
            && !text.contains("panicked"),
        "exit code {:?}, and the disk {place} is not blamed:\n{text}",
        ended.code
    );
    Ok(())
}

/// Something to do with a store that brings the image there.
type Work<'a> = &'a dyn Fn(&Kiln) -> Result<Ended>;

/// One disk that fails under one kind of work.
fn fails_late(scene: &Scene, way: Way, name: &str, work: Work) -> Result<()> {
    let (kind, room, options) = way;
    let mut disk = ThinDisk::new(kind, room, options)?;
    let kiln = scene.kiln_on(&disk)?;
    kiln.import(&base("busybox:latest")?)?;

    let first = work(&kiln)?;
    is_told(&first, &disk)?;
    has_no_image(&kiln, name, &disk)?;

    // There is room again, and what is in memory still hides what is missing on disk.
    disk.give_room()?;
    let second = work(&kiln)?;
    let went = second.code == Some(0);
    if went {
        scene.expect(&kiln, name, "as soon as there is room")?;
    } else {
        is_told(&second, &disk)?;
    }

    disk.remount()?;
    if went {
        // It was said to be on disk.
        scene.expect(
            &kiln,
            name,
            "what was built as soon as there was room, from the disk",
        )?;
    }
    let verified = kiln.run(["cache", "verify"])?;
    let damaged = verified.stdout.matches("damaged: ").count();
    ensure!(
        verified.code == Some(i32::from(damaged > 0)) && nothing_believed_is_damaged(&verified.stdout),
        "cache verify: {verified:?}"
    );
    let third = work(&kiln)?;
    third
        .success()
        .map_err(|error| format!("on a disk in order: {error}"))?;
    scene.expect(&kiln, name, "on a disk in order")?;
    let repaired = kiln.run(["cache", "verify", "--repair"])?.success()?;
    let aside = repaired.stdout.matches("set aside: ").count();
    ensure!(
        repaired.stdout.matches("damaged: ").count() <= aside,
        "not all that is damaged was set aside:\n{}",
        repaired.stdout
    );

    disk.remount()?;
    let verified = kiln.run(["cache", "verify"])?.success()?;
    ensure!(verified.stdout.contains("no damage"), "{}", verified.stdout);
    scene.expect(&kiln, name, "from the disk, at last")?;
    let mounts = machine::mounts_naming(&kiln.root)?;
    ensure!(mounts.is_empty(), "mounts are left: {mounts:#?}");
    say(&format!(
        "{way:?}: again at once: {went}, damaged {damaged}, set aside in the end {aside}"
    ));
    disk.finish()
}

/// Files that are known by their checksum not to be whole may be damaged. What is in a layer that counts as written may not,
/// and neither may a name, which came after it.
fn nothing_believed_is_damaged(verified: &str) -> bool {
    let mut damaged = verified.lines().filter_map(|line| line.strip_prefix("damaged: "));
    damaged.all(|line| !(line.starts_with("name ") || line.starts_with("layer ") && line.contains(": /")))
}

/// No image has the name. A file system that became read-only lets nobody look.
fn has_no_image(kiln: &Kiln, name: &str, disk: &ThinDisk) -> Result<()> {
    let shown = kiln.run(["history", name])?;
    ensure!(shown.code == Some(1), "an image of what was lost: {shown:?}");
    if shown.stderr.contains("no such image") {
        return Ok(());
    }
    is_told(&shown, disk)
}

/// Runs the ways, unless this machine cannot.
fn ways(ways: &[Way], name: &str, work: impl Fn(&Scene, &Kiln) -> Result<Ended> + Sync) -> TestResult {
    if let Some(obstacle) = thin::obstacle() {
        return Ok(Outcome::Skipped(obstacle));
    }
    thin::apart(|| {
        let scene = Scene::new()?;
        for &way in ways {
            fails_late(&scene, way, name, &|kiln| work(&scene, kiln))
                .map_err(|error| format!("{way:?}: {error}"))?;
        }
        Ok(Outcome::Passed)
    })
}

pub(super) fn builds() -> TestResult {
    let all = [
        (Kind::RoomForJournal, 6 * MIB, "errors=remount-ro"),
        (Kind::RoomForJournal, 16 * MIB, ORDERED),
        (Kind::RoomForJournal, 30 * MIB, ORDERED),
        (Kind::RoomForJournal, 50 * MIB, "errors=remount-ro"),
        (Kind::Journal, 20 * MIB, ORDERED),
        (Kind::Journal, 40 * MIB, "errors=remount-ro"),
    ];
    ways(&all, NAME, |scene, kiln| build(scene, kiln, &[]))
}

pub(super) fn loads() -> TestResult {
    let all = [
        (Kind::RoomForJournal, 20 * MIB, "errors=remount-ro"),
        (Kind::RoomForJournal, 40 * MIB, ORDERED),
    ];
    ways(&all, NAME, |scene, kiln| {
        let archive = scene.folder.join("late.tar");
        if !archive.exists() {
            scene.save(&scene.good, NAME, "late.tar")?;
        }
        timed(kiln.command(["load", "-i"]).arg(archive))
    })
}

pub(super) fn pulls() -> TestResult {
    let registry = Registry::start()?;
    let name = format!("{}/{NAME}", registry.host);
    let all = [
        (Kind::RoomForJournal, 20 * MIB, "errors=remount-ro"),
        (Kind::RoomForJournal, 40 * MIB, ORDERED),
    ];
    ways(&all, &name, |scene, kiln| {
        if registry.manifest(NAME).is_err() {
            scene.good.run(["tag", NAME, &name])?.success()?;
            timed(&mut scene.good.command(["push", &name]))?.success()?;
        }
        timed(&mut kiln.command(["pull", &name]))
    })
}

/// A cache that was exported from a store that fails is right, or there is none.
pub(super) fn cache_exports() -> TestResult {
    let registry = Registry::start()?;
    let cache = format!("type=registry,ref={}/cache:late", registry.host);
    let (to, from) = (
        format!("--cache-to={cache},mode=max"),
        format!("--cache-from={cache}"),
    );
    let all = [
        (Kind::RoomForJournal, 24 * MIB, "errors=remount-ro"),
        (Kind::RoomForJournal, 50 * MIB, ORDERED),
    ];
    ways(&all, NAME, |scene, kiln| {
        let ended = build(scene, kiln, &[&to])?;
        let folder = TempFolder::new("late-fresh")?;
        let fresh = Kiln::with_bases(&folder, &["busybox:latest"])?;
        build(scene, &fresh, &[&from])?.success()?;
        scene.expect(&fresh, NAME, "from the cache")?;
        Ok(ended)
    })
}

/// The kernel tells of a failed write once: somebody else may be the one who hears of it.
pub(super) fn told_to_another() -> TestResult {
    if let Some(obstacle) = thin::obstacle() {
        return Ok(Outcome::Skipped(obstacle));
    }
    thin::apart(told_once)
}

fn told_once() -> TestResult {
    let scene = Scene::new()?;
    // Too little to be written back early.
    std::fs::write(
        scene.folder.join("context/Dockerfile"),
        "FROM busybox:latest\nRUN seq 1 3000000 > /a\nRUN sleep 6\n",
    )?;
    let disk = ThinDisk::new(Kind::NoJournal, 12 * MIB, "errors=continue")?;
    let kiln = scene.kiln_on(&disk)?;
    kiln.import(&base("busybox:latest")?)?;
    let mut command = build_command(&scene, &kiln, &[]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let others_are_told = || -> Result<bool> { Ok(rustix::fs::syncfs(File::open(disk.path())?).is_err()) };
    // Until it is told no more: whoever opens a file then does not hear of it.
    let (mut heard, mut silent) = (false, 0);
    while child.try_wait()?.is_none() && silent < 10 {
        std::thread::sleep(Duration::from_millis(50));
        if others_are_told()? {
            (heard, silent) = (true, 0);
        } else if heard {
            silent += 1;
        }
    }
    let ended = Ended::from(child.wait_with_output()?);
    ensure!(heard && silent == 10, "nobody else was told:\n{}", ended.stderr);
    ensure!(
        ended
            .stderr
            .contains("did not take everything that was written to it"),
        "the build did not hear of it:\n{}",
        ended.stderr
    );
    is_told(&ended, &disk)?;
    has_no_image(&kiln, NAME, &disk)?;
    disk.finish()?;
    Ok(Outcome::Passed)
}
