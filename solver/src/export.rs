//! Turning solved root file systems and configurations into images of the store.

use kiln_cache::{Found, ImageLayer, ImageRecord, IndexRecord, IndexedImage};
use kiln_image::{Digest, ImageConfig, Platform, Reference};

use crate::engine::Engine;
use crate::error::StepFailure;
use crate::solve::Solution;

/// A named image of the store.
#[derive(Debug, Clone)]
pub struct Exported {
    /// The image's id: the digest of its configuration.
    pub id: Digest,
    /// The configuration, complete.
    pub config: ImageConfig,
}

/// A multi-platform image of the store.
#[derive(Debug, Clone)]
pub struct ExportedIndex {
    /// The index's id.
    pub id: Digest,
    /// Its images, in the order in which they were given.
    pub images: Vec<Exported>,
}

impl Engine {
    /// Completes `config` with the digests of the solution's layers and the times at which they were made,
    /// stores it, and gives the image its names. Entries of the history that came from the base image have
    /// their times already.
    ///
    /// The same layers and configuration give the same id, however often they are built: times are those of the
    /// layers, not of this build.
    pub fn export(
        &self,
        solution: &Solution,
        config: ImageConfig,
        names: &[Reference],
    ) -> Result<Exported, StepFailure> {
        let (record, config) = self.image(solution, config)?;
        self.store.images().put(&record, &canonical(names))?;
        let id = record.id;
        self.note_exported(Found::Image(Box::new(record)));
        Ok(Exported { id, config })
    }

    /// Like [`Engine::export`], for one image a platform; the names stand for all of them together.
    pub fn export_index(
        &self,
        images: Vec<(Platform, &Solution, ImageConfig)>,
        names: &[Reference],
    ) -> Result<ExportedIndex, StepFailure> {
        let mut exported = Vec::with_capacity(images.len());
        let mut entries = Vec::with_capacity(images.len());
        for (platform, solution, config) in images {
            let (record, config) = self.image(solution, config)?;
            self.store.images().put(&record, &[])?;
            entries.push(IndexedImage {
                image: record.id,
                platform: platform.normalized(),
            });
            exported.push(Exported {
                id: record.id,
                config,
            });
            self.note_exported(Found::Image(Box::new(record)));
        }
        let index = IndexRecord::new(entries);
        self.store.images().put_index(&index, &canonical(names))?;
        let id = index.id;
        self.note_exported(Found::Index(index));
        Ok(ExportedIndex { id, images: exported })
    }

    /// The image of a solution, with its configuration stored.
    fn image(
        &self,
        solution: &Solution,
        mut config: ImageConfig,
    ) -> Result<(ImageRecord, ImageConfig), StepFailure> {
        let mut layers = Vec::with_capacity(solution.snapshot.layers.len());
        let mut times = Vec::with_capacity(solution.snapshot.layers.len());
        for id in &solution.snapshot.layers {
            let layer = self.store.layers().require(id)?;
            let diff_id = solution.diff_ids.get(&layer)?;
            times.push(layer.created_ms());
            let blob = solution.blobs.get(id).cloned();
            layers.push(ImageLayer {
                layer: id.clone(),
                diff_id,
                blob,
            });
        }
        config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
        complete_times(&mut config, &times);
        let bytes = config.to_bytes();
        let id = self.store.blobs().put_bytes(&bytes)?;
        let record = ImageRecord {
            id,
            config: id,
            size: self.images.size(&layers)?,
            platform: config.platform(),
            created: config.created.clone(),
            layers,
            manifests: Vec::new(),
            repo_digests: Vec::new(),
            names: Vec::new(),
        };
        Ok((record, config))
    }
}

fn canonical(names: &[Reference]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// Gives each history entry without a time that of its layer, or of the layer before it; the image was created
/// when its last step was.
fn complete_times(config: &mut ImageConfig, layer_times: &[u64]) {
    let mut layers = layer_times.iter();
    let mut last = None;
    for entry in &mut config.history {
        if !entry.empty_layer
            && let Some(milliseconds) = layers.next()
        {
            last = entry.created.clone().or_else(|| rfc3339(*milliseconds)).or(last);
        }
        match &entry.created {
            Some(created) => last = Some(created.clone()),
            None => entry.created.clone_from(&last),
        }
    }
    config.created = last.or_else(|| config.created.take());
}

fn rfc3339(milliseconds: u64) -> Option<String> {
    let milliseconds = i64::try_from(milliseconds).ok()?;
    jiff::Timestamp::from_millisecond(milliseconds)
        .ok()
        .map(|time| time.to_string())
}

#[cfg(test)]
mod tests {
    use kiln_image::{History, ImageConfig};

    use super::complete_times;

    #[test]
    fn history_takes_the_times_of_layers() {
        let entry = |created: Option<&str>, empty_layer| History {
            created: created.map(str::to_owned),
            empty_layer,
            ..History::default()
        };
        let mut config = ImageConfig {
            history: vec![
                entry(Some("2020-01-01T00:00:00Z"), false),
                entry(None, true),
                entry(None, false),
                entry(None, true),
            ],
            ..ImageConfig::default()
        };
        complete_times(&mut config, &[1_000, 86_400_000]);
        let times: Vec<_> = config
            .history
            .iter()
            .map(|entry| entry.created.clone().unwrap_or_default())
            .collect();
        let (base, own) = ("2020-01-01T00:00:00Z", "1970-01-02T00:00:00Z");
        assert_eq!(times, [base, base, own, own]);
        assert_eq!(config.created.as_deref(), Some(own));
    }
}
