//! Images, the indexes that list them, and the names that point to either.

use kiln_image::Digest;

use super::{Check, Damage};
use crate::{Result, files, images, sealed::Flaw};

impl Check<'_> {
    pub(super) fn images(&mut self) -> Result<()> {
        self.each("images", self.store.images().ids()?, |check, id| {
            check.report.images += 1;
            let images = check.store.images();
            let Some(bytes) = files::read_opt(&images.id_path(&id))? else {
                return Ok(());
            };
            let reason = match images::parse_named(&bytes, &id) {
                // One that was removed meanwhile may have lost its layers, too.
                Ok(record) => check
                    .image_parts(&record)
                    .filter(|_| images.id_path(&id).exists()),
                Err(Flaw::Newer(_)) => None,
                Err(Flaw::Damaged(reason)) => Some(reason),
            };
            check
                .report
                .damage
                .extend(reason.map(|reason| Damage::Image { id, reason }));
            Ok(())
        })?;
        self.indexes()?;
        let folder = self.store.root().join("images/names");
        for file in files::names(&folder)? {
            let path = folder.join(&file);
            let Some(bytes) = files::read_opt(&path)? else {
                continue;
            };
            match images::parse_name(&bytes, &file) {
                Ok((name, image)) if !self.is_known(&image) => {
                    self.report.damage.push(Damage::Name { name, image });
                }
                Ok(_) | Err(Flaw::Newer(_)) => {}
                Err(Flaw::Damaged(reason)) => self.report.damage.push(Damage::File { path, reason }),
            }
        }
        Ok(())
    }

    /// Whether a name may point to it: what is damaged goes, and its names with it.
    fn is_known(&self, image: &Digest) -> bool {
        let images = self.store.images();
        let has = |damage: &Damage| match damage {
            Damage::Image { id, .. } | Damage::Index { id, .. } => id == image,
            _ => false,
        };
        (images.id_path(image).exists() || images.index_path(image).exists())
            && !self.report.damage.iter().any(has)
    }

    fn indexes(&mut self) -> Result<()> {
        self.each("indexes", self.store.images().index_ids()?, |check, id| {
            let images = check.store.images();
            let Some(bytes) = files::read_opt(&images.index_path(&id))? else {
                return Ok(());
            };
            let reason = match images::parse_named_index(&bytes, &id) {
                Ok(index) => index
                    .images
                    .iter()
                    .find(|entry| !check.is_known(&entry.image))
                    .map(|entry| format!("image {} is missing or damaged", entry.image)),
                Err(Flaw::Newer(_)) => None,
                Err(Flaw::Damaged(reason)) => Some(reason),
            };
            check
                .report
                .damage
                .extend(reason.map(|reason| Damage::Index { id, reason }));
            Ok(())
        })
    }

    fn image_parts(&self, record: &images::ImageRecord) -> Option<String> {
        let layer = record
            .layers
            .iter()
            .find(|layer| !self.good.contains(&layer.layer) && self.missing(&layer.layer));
        if let Some(layer) = layer {
            return Some(format!("layer {} is missing", layer.layer));
        }
        let bad = |digest: &Digest| {
            self.report
                .damage
                .iter()
                .any(|damage| matches!(damage, Damage::Blob { digest: bad, .. } if bad == digest))
        };
        let config = &record.config;
        (bad(config) || !self.store.blobs().path(config).exists())
            .then(|| format!("config {config} is missing"))
    }
}
