//! Finds out what the target needs: which stages, and which images for them.
//!
//! A base image, once resolved, may bring ONBUILD triggers that name further stages and images; a stage of the
//! file may, too. So this goes round until nothing new turns up. Errors that need no image come before any
//! image is asked for.

use std::collections::BTreeSet;

use kiln_parser::Diagnostic;

use crate::images::Images;
use crate::options::LowerOptions;
use crate::resolve::ImageResolver;
use crate::stage::{Line, Origin, Table};
use crate::{onbuild, unsupported};

/// Completes the table for `targets` and resolves the images. Returns the stages that are needed, in order.
pub(crate) fn settle(
    table: &mut Table<'_>,
    targets: &[usize],
    images: &mut Images,
    options: &LowerOptions,
    resolver: &dyn ImageResolver,
) -> Result<BTreeSet<usize>, Vec<Diagnostic>> {
    loop {
        let reachable = bind_reachable(table, targets, options)?;
        request_images(table, &reachable, images);
        images.resolve(resolver, &table.names())?;
        if !add_triggers(table, &reachable, images)? {
            return Ok(reachable);
        }
    }
}

/// The same for a look at the whole file: goes on after errors, which are gathered in `errors`.
pub(crate) fn survey(
    table: &mut Table<'_>,
    targets: &[usize],
    images: &mut Images,
    options: &LowerOptions,
    resolver: &dyn ImageResolver,
    errors: &mut Vec<Diagnostic>,
) -> BTreeSet<usize> {
    loop {
        // Binding leaves what is bound alone, so a later round finds the same errors and perhaps more.
        let wrong = bind_reachable(table, targets, options).err().unwrap_or_default();
        let reachable = table.reachable(targets);
        request_images(table, &reachable, images);
        errors.extend(
            images
                .resolve(resolver, &table.names())
                .err()
                .into_iter()
                .flatten(),
        );
        match add_triggers(table, &reachable, images) {
            Ok(true) => {}
            Ok(false) => {
                errors.extend(wrong);
                return reachable;
            }
            Err(more) => {
                errors.extend(wrong.into_iter().chain(more));
                return reachable;
            }
        }
    }
}

/// Binds the `--from`s of everything that the target needs, which may make it need more.
fn bind_reachable(
    table: &mut Table<'_>,
    targets: &[usize],
    options: &LowerOptions,
) -> Result<BTreeSet<usize>, Vec<Diagnostic>> {
    let mut bound = BTreeSet::new();
    let mut errors = Vec::new();
    // Stages only need earlier ones, so the last that waits will not be asked for again.
    let mut waiting = table.reachable(targets);
    while let Some(number) = waiting.pop_last() {
        if !bound.insert(number) {
            continue;
        }
        let plan = &table.plans[number];
        errors.extend(plan.base.as_ref().err().map(|error| error.as_ref().clone()));
        for line in &plan.lines {
            let unsupported = unsupported::check(&line.statement.instruction);
            errors.extend(unsupported.into_iter().map(|error| line.relocate(error)));
        }
        if let Err(more) = table.bind(number, options) {
            errors.extend(more);
        }
        waiting.extend(table.plans[number].stages());
    }
    if errors.is_empty() {
        return Ok(bound);
    }
    errors.sort_by_key(|error| error.span.start);
    Err(errors)
}

fn request_images(table: &Table<'_>, reachable: &BTreeSet<usize>, images: &mut Images) {
    for plan in reachable.iter().filter_map(|number| table.plans.get(*number)) {
        let origins = plan.base.iter().chain(plan.lines.iter().flat_map(Line::origins));
        for origin in origins {
            if let Origin::Image(request) = origin {
                images.request(request.as_ref().clone());
            }
        }
    }
}

/// Puts the triggers of each stage's base before its own instructions, once. Whether there were any.
fn add_triggers(
    table: &mut Table<'_>,
    reachable: &BTreeSet<usize>,
    images: &Images,
) -> Result<bool, Vec<Diagnostic>> {
    let mut added = false;
    for &number in reachable {
        let plan = &table.plans[number];
        if plan.triggered {
            continue;
        }
        let triggers = match &plan.base {
            Ok(Origin::Stage(base)) => table.stage_triggers(*base),
            Ok(Origin::Image(request)) => match images.get(&request.key()) {
                Some(image) => onbuild::image_triggers(&image.config.config.on_build, plan.span)?,
                None => Vec::new(),
            },
            Ok(Origin::Scratch | Origin::Files(_)) | Err(_) => Vec::new(),
        };
        added |= !triggers.is_empty();
        let plan = &mut table.plans[number];
        plan.triggered = true;
        plan.lines.splice(0..0, triggers);
    }
    Ok(added)
}
