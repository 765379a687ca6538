//! Who may delete: the lock `locks/store`.
//!
//! Every process that has the store open holds it *shared*, from open to exit. Whoever takes things out of the
//! store whoever uses them (repair) needs it *exclusive*, and so has proof that no build holds a layer, and no
//! overlay is mounted on one. The kernel releases the lock of a killed process. Who makes room works beside
//! running builds, and leaves alone what they use: `src/uses.rs`.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::FlockOperation;

use crate::{Error, Result, files};

/// How long an open waits for a repair to end.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// A lock on the whole store, held while the value lives.
#[derive(Debug)]
pub(crate) struct Lease {
    file: File,
    path: PathBuf,
}

impl Lease {
    /// Takes the lock shared; waits a little for a repair to end.
    pub(crate) fn shared(root: &Path) -> Result<Self> {
        let path = root.join("locks/store");
        let file = files::open_lock(&path)?;
        let start = Instant::now();
        while !files::try_flock(&file, FlockOperation::NonBlockingLockShared, &path)? {
            if start.elapsed() > PATIENCE {
                return Err(Error::Busy { path });
            }
            std::thread::sleep(PAUSE);
        }
        Ok(Self { file, path })
    }

    /// Runs `work` while nobody else has the store open. [`Error::Busy`] when somebody has.
    pub(crate) fn exclusively<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if !files::try_flock(&self.file, FlockOperation::NonBlockingLockExclusive, &self.path)? {
            // A failed conversion gives the shared lock up.
            files::flock(&self.file, FlockOperation::LockShared, &self.path)?;
            return Err(Error::Busy {
                path: self.path.clone(),
            });
        }
        let done = work();
        files::flock(&self.file, FlockOperation::LockShared, &self.path)?;
        done
    }
}

/// A named lock for a short change (`locks/<name>`), held while the file lives.
pub(crate) fn short(root: &Path, name: &str) -> Result<File> {
    let path = root.join("locks").join(name);
    let file = files::open_lock(&path)?;
    files::flock(&file, FlockOperation::LockExclusive, &path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn exclusive_only_when_alone() {
        let dir = Scratch::new();
        std::fs::create_dir(dir.path().join("locks")).unwrap();
        let one = Lease::shared(dir.path()).unwrap();
        let two = Lease::shared(dir.path()).unwrap();
        assert!(matches!(one.exclusively(|| Ok(())), Err(Error::Busy { .. })));
        assert!(
            matches!(two.exclusively(|| Ok(())), Err(Error::Busy { .. })),
            "one is back to shared"
        );
        drop(two);
        one.exclusively(|| Ok(())).unwrap();
    }
}
