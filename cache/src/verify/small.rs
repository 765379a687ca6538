//! The files that are read and believed for what they are: memories, sidecars, histories.

use std::path::PathBuf;

use super::{Check, Damage, sealed_files};
use crate::{
    Result, files, hashes, mounts, remotes,
    sealed::{self, Flaw},
    variants,
};

impl Check<'_> {
    pub(super) fn small_files(&mut self) -> Result<()> {
        let folder = self.store.root().join("hashes");
        for name in files::names(&folder)? {
            let path = folder.join(name);
            let Some(bytes) = files::read_opt(&path)? else {
                continue;
            };
            if let Err(Flaw::Damaged(reason)) = hashes::parse(bytes) {
                self.report.damage.push(Damage::File { path, reason });
            }
        }
        self.report.damage.extend(sealed_files::check(self.store)?);
        self.cache_mounts()?;
        self.variants()?;
        let folder = self.store.root().join("remotes");
        for name in files::names(&folder)? {
            self.small_file(folder.join(name), |bytes| remotes::parse(bytes).map(drop))?;
        }
        self.logs()?;
        for id in self.store.builds().list()? {
            let path = self.store.builds().path(&id);
            let Some(bytes) = files::read_opt(&path)? else {
                continue;
            };
            if let Err(Flaw::Damaged(reason)) =
                sealed::open_bytes(crate::builds::KIND, crate::builds::VERSION, &bytes)
            {
                self.report.damage.push(Damage::File { path, reason });
            }
        }
        Ok(())
    }

    fn small_file(&mut self, path: PathBuf, check: impl FnOnce(&[u8]) -> Result<(), Flaw>) -> Result<()> {
        let Some(bytes) = files::read_opt(&path)? else {
            return Ok(());
        };
        if let Err(Flaw::Damaged(reason)) = check(&bytes) {
            self.report.damage.push(Damage::File { path, reason });
        }
        Ok(())
    }

    /// What is known of layers as blobs. That such a blob is not in the store is no damage: it was deleted.
    fn variants(&mut self) -> Result<()> {
        for diff_id in self.store.variants().list()? {
            let folder = self.store.variants().folder(&diff_id);
            for form in files::names(&folder)? {
                self.small_file(folder.join(&form), |bytes| {
                    let read = variants::parse(bytes)?;
                    if read.diff_id == diff_id && read.form == form {
                        return Ok(());
                    }
                    let reason = format!("is of layer {} as {}", read.diff_id, read.form);
                    Err(Flaw::Damaged(reason))
                })?;
            }
        }
        Ok(())
    }

    /// The logs of builds that are over. One that was torn off is whole up to there.
    fn logs(&mut self) -> Result<()> {
        for id in self.store.builds().list()? {
            if self.store.builds().is_running(&id)? {
                continue;
            }
            let log = self.store.builds().log(&id);
            for step in log.steps()? {
                let read = log.read(&step).map(|reader| {
                    reader.map_or(Ok(0), |mut reader| {
                        std::io::copy(&mut reader, &mut std::io::sink())
                    })
                })?;
                let path = log.path().join(&step);
                if let Err(source) = read
                    && path.exists()
                {
                    let reason = source.to_string();
                    self.report.damage.push(Damage::File { path, reason });
                }
            }
        }
        Ok(())
    }

    /// Only what describes them: the contents are whatever the steps wrote.
    fn cache_mounts(&mut self) -> Result<()> {
        let folder = self.store.cache_mounts().folder();
        for key in files::names(&folder)? {
            for number in mounts::numbers(&folder.join(&key))? {
                let path = folder.join(&key).join(number.to_string()).join(mounts::SIDECAR);
                let Some(bytes) = files::read_opt(&path)? else {
                    continue;
                };
                if let Err(Flaw::Damaged(reason)) = mounts::check(&key, &bytes) {
                    self.report.damage.push(Damage::File { path, reason });
                }
            }
        }
        Ok(())
    }
}
