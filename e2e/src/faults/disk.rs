//! A small file system on a loop device, which fills and empties at random.

use crate::builder::run;
use crate::machine::TempFolder;
use crate::random::Random;
use crate::{Result, ensure};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A file system of its own; it goes away with the value.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempFolder,
    mounted: bool,
}

impl SmallDisk {
    /// Makes one of so many bytes.
    pub fn new(size: u64) -> Result<Self> {
        let mut disk = Self {
            folder: TempFolder::new("small-disk")?,
            mounted: false,
        };
        let image = disk.folder.join("image");
        File::create(&image)?.set_len(size)?;
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0"])
            .arg(&image))?
        .success()?;
        std::fs::create_dir(disk.path())?;
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(disk.path()))?
        .success()?;
        disk.mounted = true;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.join("disk")
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Bytes that are free.
    pub fn free(&self) -> Result<u64> {
        let space = statvfs(self.path())?;
        Ok(space.f_bavail * space.f_frsize)
    }

    /// Leaves about so many bytes free, and no more than there are.
    pub fn leave(&self, bytes: u64) -> Result<()> {
        let filler = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.filler())?;
        let there = filler.metadata()?.len();
        let wanted = (there + self.free()?).saturating_sub(bytes);
        if wanted < there {
            filler.set_len(wanted)?;
        } else if wanted > there {
            // Somebody else may be faster: then it is full anyway.
            let _ = fallocate(&filler, FallocateFlags::empty(), there, wanted - there);
        }
        Ok(())
    }

    /// Gives all space back.
    pub fn empty(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.filler())?)
    }

    /// Fills and empties until told to stop; returns how often it was full.
    pub fn fill_at_random(&self, random: &mut Random, stop: &AtomicBool) -> Result<usize> {
        let mut full = 0;
        while !stop.load(Ordering::Relaxed) {
            let left = match random.below(4) {
                0 => 0,
                1 => random.below(1 << 20),
                2 => random.below(8 << 20),
                _ => u64::MAX,
            };
            full += usize::from(left == 0);
            self.leave(left)?;
            std::thread::sleep(random.up_to(Duration::from_millis(400)));
        }
        Ok(full)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg("-l").arg(self.path()).status();
        }
    }
}

/// The loop devices whose file lies in a folder.
pub fn loops_in(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/sys/block").into_iter().flatten() {
        let entry = entry?;
        let file = std::fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if Path::new(file.trim()).starts_with(folder) {
            found.push(format!("{}: {}", entry.file_name().display(), file.trim()));
        }
    }
    Ok(found)
}

/// Takes the file system away and demands that its device goes, too.
pub fn finish(mut disk: SmallDisk) -> Result<()> {
    run(Command::new("umount").arg(disk.path()))?.success()?;
    disk.mounted = false;
    // Processes of others that were started meanwhile may hold a copy of the mount for a moment.
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let left = loops_in(disk.folder.path())?;
        if left.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "loop devices are left: {left:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
