//! `kiln save`.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use kiln_image::layout::Form;
use kiln_solver::{SaveError, SaveRequest};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};

use crate::arguments::{ArchiveFormat, Save};
use crate::machine::Machine;
use crate::report::Failure;

/// Runs `kiln save`.
pub(crate) fn run(machine: &Machine, arguments: &Save) -> Result<ExitCode, Failure> {
    let engine = machine.engine()?;
    let form = match arguments.format {
        ArchiveFormat::Docker => Form::Docker,
        ArchiveFormat::Oci => Form::Oci,
    };
    let request = SaveRequest {
        images: arguments.images.clone(),
        form,
        platforms: super::platforms(&arguments.platforms)?,
        names: None,
        compression: None,
    };
    match &arguments.output {
        Some(path) => into_file(path, |out| engine.save(&request, out).map(drop).map_err(failure))?,
        None if std::io::stdout().is_terminal() => {
            return Err(
                Failure::usage("an archive is not written to a terminal").hint("use -o FILE, or redirect")
            );
        }
        None => engine
            .save(&request, BufWriter::new(std::io::stdout().lock()))
            .map_err(failure)
            .map(drop)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Lets `write` write a file: without a name, or beside the target where the file system cannot do that. It becomes the
/// target by a rename when it is complete, so that a failure leaves no half file. A kill leaves none either; or one that
/// the next call for the same target takes away, if it came just between naming and renaming.
/// What is no regular file (a pipe, a device) is written to as it is.
pub(super) fn into_file<T>(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut draft = Draft::begin(path)?;
    let written = write(&mut draft.out).and_then(|value| draft.finish().map(|()| value));
    if written.is_err() {
        draft.discard();
    }
    written
}

/// A file in the making.
struct Draft<'a> {
    target: &'a Path,
    out: BufWriter<File>,
    place: Place,
}

/// Where a draft is.
enum Place {
    /// In the target itself, which is no regular file.
    Target,
    /// In a file without a name, which gets this one for a moment.
    Nameless(PathBuf),
    /// In a file of this name.
    Beside(PathBuf),
}

impl<'a> Draft<'a> {
    fn begin(target: &'a Path) -> Result<Self, Failure> {
        let special = std::fs::metadata(target).is_ok_and(|there| !there.is_file() && !there.is_dir());
        if !special {
            sweep(target);
        }
        let mut beside = target.as_os_str().to_owned();
        beside.push(format!("{BESIDE}{}", std::process::id()));
        let beside = PathBuf::from(beside);
        let create = |path: &Path| File::create(path).map_err(|error| Failure::io("create", path, error));
        let (file, place) = if special {
            (create(target)?, Place::Target)
        } else if let Some(file) = nameless(target) {
            (file, Place::Nameless(beside))
        } else {
            (create(&beside)?, Place::Beside(beside))
        };
        // Tells `sweep` that somebody is at it. Where files cannot be locked, nothing is swept either.
        let _ = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        Ok(Self {
            target,
            out: BufWriter::with_capacity(1 << 20, file),
            place,
        })
    }

    fn finish(&mut self) -> Result<(), Failure> {
        let target = self.target;
        self.out
            .flush()
            .map_err(|error| Failure::io("write", target, error))?;
        let named = match &self.place {
            Place::Target => return Ok(()),
            Place::Beside(path) => path,
            Place::Nameless(path) => {
                let open = format!("/proc/self/fd/{}", self.out.get_ref().as_raw_fd());
                rustix::fs::linkat(CWD, open, CWD, path, AtFlags::SYMLINK_FOLLOW)
                    .map_err(|errno| Failure::io("create", target, errno.into()))?;
                path
            }
        };
        std::fs::rename(named, target).map_err(|error| Failure::io("create", target, error))
    }

    fn discard(&self) {
        if let Place::Nameless(path) | Place::Beside(path) = &self.place {
            // It may not be there; and the first error is the one to tell.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What stands between a target's name and the number of the process in the name of a draft.
const BESIDE: &str = ".kiln-";

fn folder_of(target: &Path) -> &Path {
    match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Takes away drafts of `target` whose processes are gone: nobody holds their lock. What cannot be taken away is no
/// matter to who writes the target now.
fn sweep(target: &Path) {
    let Some(name) = target.file_name() else { return };
    for entry in std::fs::read_dir(folder_of(target))
        .into_iter()
        .flatten()
        .flatten()
    {
        let found = entry.file_name();
        let number = found
            .as_bytes()
            .strip_prefix(name.as_bytes())
            .and_then(|rest| rest.strip_prefix(BESIDE.as_bytes()));
        if number.is_none_or(|number| number.is_empty() || !number.iter().all(u8::is_ascii_digit)) {
            continue;
        }
        if let Ok(file) = File::open(entry.path())
            && rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// A file without a name in the folder of `target`; `None` where that cannot be had.
fn nameless(target: &Path) -> Option<File> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(folder_of(target), flags, Mode::from_raw_mode(0o666)).ok()?;
    Some(File::from(file))
}

pub(super) fn failure(error: SaveError) -> Failure {
    match error {
        SaveError::NoPlatform {
            image,
            wanted,
            available,
        } => super::no_platform(&image, &wanted, &available)
            .hint("--platform picks one of them; --format oci takes them all"),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Place, into_file, nameless};
    use crate::report::Failure;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn a_file_is_there_whole_or_as_it_was() {
        let folder = std::env::temp_dir().join(format!("kiln-cli-save-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let target = folder.join("target");
        let write = |text: &'static str| {
            into_file(&target, |out| {
                out.write_all(text.as_bytes()).unwrap();
                // While it is being written, nothing of it is to be seen where the file system can do that.
                let seen = names(&folder);
                assert!(
                    nameless(&target).is_none()
                        || seen
                            .iter()
                            .all(|name| !name.ends_with(&std::process::id().to_string())),
                    "{seen:?}"
                );
                if text == "fails" {
                    Err(Failure::message("no"))
                } else {
                    Ok(())
                }
            })
        };
        write("one").unwrap();
        assert!(write("fails").is_err());
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "one");
        write("two").unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "two");
        assert_eq!(names(&folder), ["target"]);
        // What killed processes left goes; what one is at, and what only looks like it, stays.
        for name in ["target.kiln-1", "target.kiln-2", "target.kiln-x", "other.kiln-1"] {
            std::fs::write(folder.join(name), name).unwrap();
        }
        let held = std::fs::File::open(folder.join("target.kiln-2")).unwrap();
        held.lock().unwrap();
        write("three").unwrap();
        let mut left = names(&folder);
        left.sort_unstable();
        assert_eq!(left, ["other.kiln-1", "target", "target.kiln-2", "target.kiln-x"]);
        drop(held);
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(into_file(&target, |_| Ok(())).is_err(), "its folder is gone");
        assert!(
            into_file(Path::new("/dev/null"), |out| {
                out.write_all(b"x").unwrap();
                Ok(())
            })
            .is_ok()
        );
        assert!(matches!(
            super::Draft::begin(Path::new("/dev/null")).unwrap().place,
            Place::Target
        ));
    }
}
