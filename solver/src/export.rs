//! Turning solved root file systems and configurations into images of the store.

use std::collections::HashMap;

use kiln_cache::{Found, ImageLayer, ImageRecord, IndexRecord, IndexedImage, LayerId};
use kiln_image::{Digest, ImageConfig, Platform, Reference};

use crate::engine::Engine;
use crate::error::StepFailure;
use crate::lazy::{LazyImage, LazyLayer};
use crate::solve::Solution;

/// An image that came of a build.
#[derive(Debug, Clone)]
pub struct Exported {
    /// The image's id: the digest of its configuration.
    pub id: Digest,
    /// The configuration, complete.
    pub config: ImageConfig,
    /// The image itself, if the store does not keep it.
    pub lazy: Option<LazyImage>,
}

/// A multi-platform image that came of a build.
#[derive(Debug, Clone)]
pub struct ExportedIndex {
    /// The index's id.
    pub id: Digest,
    /// Its images, in the order in which they were given.
    pub images: Vec<Exported>,
    /// The images together, if the store does not keep them.
    pub lazy: Option<LazyImage>,
}

/// An image before it is kept.
struct Complete {
    record: ImageRecord,
    config: ImageConfig,
    /// Its layers that are not in the store.
    lazy: HashMap<LayerId, LazyLayer>,
}

impl Engine {
    /// Completes `config` with the digests of the solution's layers and the times at which they were made,
    /// stores it, and gives the image its names. Entries of the history that came from the base image have
    /// their times already.
    ///
    /// The same layers and configuration give the same id, however often they are built: times are those of the
    /// layers, not of this build.
    ///
    /// An image with a layer that is not in the store is not kept there. What has its names in the store loses them:
    /// they stand for the new image, and would not.
    pub fn export(
        &self,
        solution: &Solution,
        config: ImageConfig,
        names: &[Reference],
    ) -> Result<Exported, StepFailure> {
        let Complete { record, config, lazy } = self.complete(solution, config)?;
        let id = record.id;
        let lazy = if lazy.is_empty() {
            self.store.images().put(&record, &canonical(names))?;
            self.note_exported(Found::Image(Box::new(record)));
            None
        } else {
            self.store.images().untag(&canonical(names))?;
            Some(LazyImage {
                images: vec![(record.platform.clone(), record)],
                is_index: false,
                layers: lazy,
            })
        };
        Ok(Exported { id, config, lazy })
    }

    /// Like [`Engine::export`], for one image a platform; the names stand for all of them together.
    pub fn export_index(
        &self,
        images: Vec<(Platform, &Solution, ImageConfig)>,
        names: &[Reference],
    ) -> Result<ExportedIndex, StepFailure> {
        let mut exported = Vec::with_capacity(images.len());
        let mut records = Vec::with_capacity(images.len());
        let mut layers = HashMap::new();
        for (platform, solution, config) in images {
            let Complete { record, config, lazy } = self.complete(solution, config)?;
            exported.push(Exported {
                id: record.id,
                config,
                lazy: None,
            });
            records.push((platform.normalized(), record));
            layers.extend(lazy);
        }
        let entry = |(platform, record): &(Platform, ImageRecord)| IndexedImage {
            image: record.id,
            platform: platform.clone(),
        };
        let index = IndexRecord::new(records.iter().map(entry).collect());
        let id = index.id;
        let lazy = if layers.is_empty() {
            for (_, record) in &records {
                self.store.images().put(record, &[])?;
            }
            self.store.images().put_index(&index, &canonical(names))?;
            for (_, record) in records {
                self.note_exported(Found::Image(Box::new(record)));
            }
            self.note_exported(Found::Index(index));
            None
        } else {
            self.store.images().untag(&canonical(names))?;
            Some(LazyImage {
                images: records,
                is_index: true,
                layers,
            })
        };
        Ok(ExportedIndex {
            id,
            images: exported,
            lazy,
        })
    }

    /// The image of a solution, with its configuration stored.
    fn complete(&self, solution: &Solution, mut config: ImageConfig) -> Result<Complete, StepFailure> {
        let mut layers = Vec::with_capacity(solution.snapshot.layers.len());
        let mut times = Vec::with_capacity(solution.snapshot.layers.len());
        let mut lazy = HashMap::new();
        let mut size = 0;
        for id in &solution.snapshot.layers {
            let (diff_id, blob) = if let Some(layer) = self.store.layers().get(id)? {
                times.push(Some(layer.created_ms()));
                size += layer.size();
                (solution.diff_ids.get(&layer)?, solution.blobs.get(id).cloned())
            } else {
                let known = solution.lazy.get(id);
                let layer = known.ok_or_else(|| kiln_cache::Error::LayerMissing(id.clone()))?;
                times.push(layer.created_ms);
                size += layer.size;
                lazy.insert(id.clone(), layer.clone());
                (layer.diff_id, Some(layer.blob.clone()))
            };
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
            size,
            platform: config.platform(),
            created: config.created.clone(),
            layers,
            manifests: Vec::new(),
            repo_digests: Vec::new(),
            names: Vec::new(),
        };
        Ok(Complete { record, config, lazy })
    }
}

fn canonical(names: &[Reference]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// Gives each history entry without a time that of its layer, or of the layer before it; the image was created
/// when its last step was.
fn complete_times(config: &mut ImageConfig, layer_times: &[Option<u64>]) {
    let mut layers = layer_times.iter();
    let mut last = None;
    for entry in &mut config.history {
        if !entry.empty_layer
            && let Some(milliseconds) = layers.next()
        {
            let own = || milliseconds.and_then(rfc3339);
            last = entry.created.clone().or_else(own).or(last);
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
        complete_times(&mut config, &[None, Some(86_400_000)]);
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
