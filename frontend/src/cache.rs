//! What a build hands on of its cache: in the images' configurations, to registries and to folders.

use kiln_cache::Snapshot;
use kiln_cache::portable::INLINE_KEY;
use kiln_solver::remote_cache::SolvedCache;
use kiln_solver::task::Reporter;
use kiln_solver::{Cancel, Engine, Solution, SolveError};

use crate::build::{BuildError, BuildRequest};
use crate::platforms::LoweredImage;

/// Puts the cache of each image's layers into its configuration, if the request asks for that.
pub(crate) fn inline(
    engine: &Engine,
    request: &BuildRequest,
    used: &SolvedCache,
    solutions: &[Solution],
    images: &mut [LoweredImage],
) -> Result<(), BuildError> {
    for image in &mut *images {
        // A base's cache is of the base's layers.
        image.config.extra.remove(INLINE_KEY);
    }
    if !request.cache.inline {
        return Ok(());
    }
    for (image, solution) in images.iter_mut().zip(solutions) {
        let value = engine
            .inline_cache(used, solution)
            .map_err(|source| BuildError::CacheExport {
                target: "the image's configuration".to_owned(),
                source: Box::new(source),
            })?;
        image.config.extra.insert(INLINE_KEY.to_owned(), value);
    }
    Ok(())
}

/// Writes the caches that the request asks for, one after the other: they share what is compressed.
pub(crate) fn export(
    engine: &Engine,
    request: &BuildRequest,
    used: &SolvedCache,
    solutions: &[Solution],
    reporter: &Reporter,
    cancel: &Cancel,
) -> Result<(), BuildError> {
    let results: Vec<&Snapshot> = solutions.iter().map(|solution| &solution.snapshot).collect();
    for export in &request.cache.exports {
        let written = engine.export_cache(used, &results, export, reporter, cancel);
        written.map_err(|source| {
            if cancel.is_raised() {
                return SolveError::Canceled.into();
            }
            BuildError::CacheExport {
                target: export.target.to_string(),
                source: Box::new(source),
            }
        })?;
    }
    Ok(())
}
