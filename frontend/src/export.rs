//! The end of a build: images of the store, and what is said of them.

use kiln_image::{Digest, Reference};
use kiln_solver::task::Task;
use kiln_solver::{Engine, LazyImage, Solution, StepFailure};

use crate::build::{BuildRequest, BuiltImage};
use crate::platforms::LoweredImage;

/// Says what was written, and what not.
pub(crate) fn tell(
    task: &Task,
    id: &Digest,
    images: &[BuiltImage],
    is_index: bool,
    lazy: Option<&LazyImage>,
    names: &[Reference],
) {
    let tell = |what: String| task.progress(what, 0, None, true);
    let kind = if is_index { "index" } else { "image" };
    if is_index {
        for image in images {
            tell(format!("writing image {} for {}", image.id, image.platform));
        }
    }
    tell(format!("writing {kind} {id}"));
    if let Some(lazy) = lazy {
        let (layers, are) = match lazy.missing() {
            1 => ("layer", "is"),
            _ => ("layers", "are"),
        };
        tell(format!(
            "not kept here: {} {layers} {are} only in a registry",
            lazy.missing()
        ));
        return;
    }
    for name in names {
        tell(format!("naming to {name}"));
    }
}

/// Stores the images, and the index where there is to be one.
pub(crate) fn store(
    engine: &Engine,
    solutions: &[Solution],
    images: Vec<LoweredImage>,
    is_index: bool,
    request: &BuildRequest,
) -> Result<(Digest, Vec<BuiltImage>, Option<LazyImage>), StepFailure> {
    let mut platforms = Vec::with_capacity(images.len());
    let mut exported = Vec::with_capacity(images.len());
    let (id, lazy) = if is_index {
        let entries = images.into_iter().zip(solutions).map(|(image, solution)| {
            platforms.push(image.platform.clone());
            (image.platform, solution, image.config)
        });
        let index = engine.export_index(entries.collect(), &request.names)?;
        exported.extend(index.images);
        (index.id, index.lazy)
    } else {
        let (Some(image), Some(solution)) = (images.into_iter().next(), solutions.first()) else {
            return Err(StepFailure::Graph("a build without a target"));
        };
        platforms.push(image.platform);
        let mut image = engine.export(solution, image.config, &request.names)?;
        let (id, lazy) = (image.id, image.lazy.take());
        exported.push(image);
        (id, lazy)
    };
    let built = platforms
        .into_iter()
        .zip(exported)
        .map(|(platform, image)| BuiltImage {
            platform,
            id: image.id,
            config: image.config,
        });
    Ok((id, built.collect(), lazy))
}
