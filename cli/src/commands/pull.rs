//! `kiln pull`.

use std::process::ExitCode;

use kiln_cache::ImageRecord;
use kiln_image::{Platform, Reference};
use kiln_solver::image::{PullError, PullPolicy};
use kiln_solver::task::Reporter;
use kiln_solver::{Cancel, Engine};

use crate::arguments::{Progress, Pull};
use crate::machine::{Machine, Upkeep};
use crate::progress::View;
use crate::report::Failure;
use crate::signal::Interrupts;

/// Runs `kiln pull`.
pub(crate) fn run(machine: &Machine, arguments: &Pull) -> Result<ExitCode, Failure> {
    let requested = super::platforms(&arguments.platforms)?;
    let wanted: Vec<(Platform, bool)> = if requested.is_empty() {
        vec![(Platform::host(), false)]
    } else {
        requested.into_iter().map(|platform| (platform, true)).collect()
    };
    let engine = machine.engine()?;
    let progress = Progress::auto_or_quiet(arguments.quiet);
    let _upkeep = Upkeep::begin(engine.store(), machine.config.cache.limits());
    for image in &arguments.images {
        let reference: Reference = image
            .parse()
            .map_err(|error| Failure::usage(format!("invalid name {image:?}: {error}")))?;
        for (platform, requested) in &wanted {
            let here = || {
                let platform = requested.then_some(platform);
                engine.store().images().get_for(&reference.to_string(), platform)
            };
            let before = here()?;
            pull(
                &engine,
                &reference,
                (platform, *requested),
                PullPolicy::Always,
                progress,
            )?;
            if !arguments.quiet {
                super::print(&outcome(&reference, before.as_ref(), here()?.as_ref()))?;
            }
        }
        super::print(&format!("{reference}\n"))?;
    }
    engine.store().sync_if_needed()?;
    Ok(ExitCode::SUCCESS)
}

/// What Docker says of a pull: the digest, and whether anything is new.
fn outcome(reference: &Reference, before: Option<&ImageRecord>, after: Option<&ImageRecord>) -> String {
    // The last of an image's manifests is the one that its name stands for: the index, where there is one.
    let manifest = after.and_then(|image| image.manifests.last());
    let digest = manifest
        .map(|manifest| format!("Digest: {}\n", manifest.digest))
        .unwrap_or_default();
    let same = before.map(|image| &image.id) == after.map(|image| &image.id);
    let status = if same {
        "Image is up to date"
    } else {
        "Downloaded newer image"
    };
    format!("{digest}Status: {status} for {}\n", reference.familiar())
}

/// Fetches an image unless `policy` is content with the one in the store.
pub(super) fn pull(
    engine: &Engine,
    reference: &Reference,
    (platform, requested): (&Platform, bool),
    policy: PullPolicy,
    progress: Progress,
) -> Result<(), Failure> {
    let images = engine.images();
    let is_here = |resolved: &kiln_solver::image::Resolved| {
        resolved.record.is_none() && images.is_unpacked(&resolved.source).unwrap_or(false)
    };
    if policy == PullPolicy::Missing {
        let local = images.resolve(reference, platform, requested, PullPolicy::Never);
        if local.as_ref().is_ok_and(is_here) {
            return Ok(());
        }
    }
    let cancel = Cancel::new();
    let view = View::new(progress, "Pulling");
    let _interrupts = Interrupts::cancel(&cancel, &view)?;
    let reporter = Reporter::new(view.sink());
    let mut task = reporter.announce(format!("pull {reference}"), Vec::new(), None);
    task.start();
    let result = match images.resolve(reference, platform, requested, policy) {
        Ok(resolved) => match images.fetch_layers(&resolved.source, &task, &cancel) {
            Ok(()) => images.keep(&resolved, reference),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    match &result {
        Ok(()) => task.done(),
        Err(PullError::Canceled) => task.canceled(),
        Err(error) => task.failed(crate::report::chain(error)),
    }
    view.finish();
    Ok(result?)
}
