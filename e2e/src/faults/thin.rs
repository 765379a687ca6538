//! A disk that promises more than it has: an ext4 on a loop device whose sparse file lies on a small tmpfs. The kernel
//! takes what is written, and only when it writes it back does the disk fail.
//!
//! It is mounted where nobody else sees it: a process that was started meanwhile would keep a copy of the mount, and with it
//! all that is in memory.

use super::disk::loops_in;
use crate::builder::run;
use crate::machine::{self, TempFolder};
use crate::{Result, ensure};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// What the file system believes to have.
const BELIEVED: u64 = 512 << 20;
/// What the tables at its beginning and its journal take.
const TABLES: u64 = 4 << 20;
const BLOCK: u64 = 4096;
/// The kernel frees a device soon after its last use.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the file system does when the disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Its journal finds no room either: it becomes read-only by itself.
    Journal,
    /// Its journal has its room: files are lost, until something of the file system itself is.
    RoomForJournal,
    /// It has no journal, and goes on whatever happens. When its own tables fail, too, it tells nobody of all files that
    /// it lost.
    NoJournal,
}

/// Runs a test on a thread with mounts of its own, which go with it, however it ends.
pub fn apart<T: Send>(test: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let with_own_mounts = || {
        #[expect(deprecated, reason = "what is unsafe are open files, and these stay shared")]
        rustix::thread::unshare(UnshareFlags::NEWNS)?;
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
        test()
    };
    std::thread::scope(|scope| {
        let ended = scope.spawn(with_own_mounts).join();
        ended.unwrap_or_else(|_| Err("the test panicked".into()))
    })
}

/// The disk. Mounts and the loop device go with the value.
#[derive(Debug)]
pub struct ThinDisk {
    folder: TempFolder,
    options: &'static str,
    has_room: bool,
    is_mounted: bool,
}

/// Why there can be none on this machine.
pub fn obstacle() -> Option<String> {
    if !machine::is_root() {
        return Some("needs root, to mount a file system that fails".to_owned());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("needs loop devices".to_owned());
    }
    let missing = ["mkfs.ext4", "e2fsck", "debugfs"]
        .into_iter()
        .find(|name| machine::program(name).is_none());
    missing.map(|name| format!("needs the program {name}"))
}

fn tool(name: &str, arguments: &[&str], path: &Path) -> Result<String> {
    let program = machine::program(name).ok_or_else(|| format!("{name} is not on the PATH"))?;
    let ended = run(Command::new(program).args(arguments).arg(path))?;
    Ok(ended
        .success()
        .map_err(|error| format!("{name}: {error}"))?
        .stdout)
}

impl ThinDisk {
    /// One that has room for so many bytes besides the file system's own, mounted with these options besides.
    pub fn new(kind: Kind, room: u64, options: &'static str) -> Result<Self> {
        let mut disk = Self {
            folder: TempFolder::new("thin-disk")?,
            options,
            has_room: false,
            is_mounted: false,
        };
        for part in ["room", "disk"] {
            std::fs::create_dir(disk.folder.join(part))?;
        }
        let size = format!("size={},mode=755", room + 2 * TABLES);
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(disk.folder.join("room")))?
        .success()?;
        disk.has_room = true;
        let file = File::create(disk.image())?;
        file.set_len(BELIEVED)?;
        let journal: &[&str] = match kind {
            Kind::NoJournal => &["-O", "^has_journal"],
            _ => &["-J", "size=4"],
        };
        let common = ["-q", "-F", "-m", "0", "-b", "4096", "-N", "8192"];
        tool("mkfs.ext4", &[&common, journal].concat(), &disk.image())?;
        fallocate(&file, FallocateFlags::empty(), 0, TABLES)?;
        if kind == Kind::RoomForJournal {
            let begin = journal_begin(&disk.image())?;
            fallocate(&file, FallocateFlags::empty(), begin * BLOCK, TABLES)?;
        }
        disk.mount()?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.folder.join("room/image")
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.join("disk")
    }

    fn mount(&mut self) -> Result<()> {
        // A device that is made so goes with its mount.
        let options = format!("loop,{}", self.options);
        run(Command::new("mount")
            .args(["-t", "ext4", "-o", &options])
            .arg(self.image())
            .arg(self.path()))?
        .success()?;
        self.is_mounted = true;
        Ok(())
    }

    /// Takes the mount away and waits until the device is free.
    fn unmount(&mut self) -> Result<()> {
        run(Command::new("umount").arg(self.path()))?.success()?;
        self.is_mounted = false;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = loops_in(&self.folder.join("room"))?;
            if left.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "loop devices are left: {left:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Gives it all the room that it promises.
    pub fn give_room(&self) -> Result<()> {
        let size = format!("remount,size={}", BELIEVED * 2);
        run(Command::new("mount")
            .args(["-o", &size])
            .arg(self.folder.join("room")))?
        .success()?;
        Ok(())
    }

    /// Unmounts it, has it repaired and mounts it again: nothing that is in memory only is left.
    pub fn remount(&mut self) -> Result<()> {
        self.unmount()?;
        let checked = run(Command::new("e2fsck").args(["-f", "-y"]).arg(self.image()))?;
        // 1: errors were corrected.
        ensure!(matches!(checked.code, Some(0 | 1)), "e2fsck: {checked:?}");
        self.mount()
    }

    /// Takes it away and demands that nothing of it is left.
    pub fn finish(mut self) -> Result<()> {
        self.unmount()?;
        run(Command::new("umount").arg(self.folder.join("room")))?.success()?;
        self.has_room = false;
        let left = machine::mounts_naming(self.folder.path())?;
        ensure!(left.is_empty(), "mounts are left: {left:#?}");
        Ok(())
    }
}

/// Takes away what Kiln keeps until the next boot of a store's lost writes.
fn forget_lost(store: &Path) {
    let hash = blake3::hash(store.as_os_str().as_encoded_bytes()).to_hex();
    for entry in std::fs::read_dir("/run/kiln/lost")
        .into_iter()
        .flatten()
        .flatten()
    {
        if entry.file_name().to_string_lossy().starts_with(&hash[..32]) {
            // It does no harm where it is.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

impl Drop for ThinDisk {
    fn drop(&mut self) {
        forget_lost(&self.path().join("root"));
        // What cannot be taken away is seen by whoever removes the folder.
        if self.is_mounted {
            let _ = Command::new("umount").arg("-l").arg(self.path()).status();
        }
        if self.has_room {
            let room = self.folder.join("room");
            let _ = Command::new("umount").arg("-l").arg(room).status();
        }
    }
}

/// The first block of the journal: of `(0-1023):65536-66559` below `EXTENTS:`.
fn journal_begin(image: &Path) -> Result<u64> {
    let shown = tool("debugfs", &["-R", "stat <8>"], image)?;
    let blocks = shown.lines().find_map(|line| line.strip_prefix("(0-1023):"));
    let begin = blocks.and_then(|blocks| blocks.split('-').next()?.parse().ok());
    begin.ok_or_else(|| format!("no journal in one piece:\n{shown}").into())
}
