//! `kiln push`.

use std::process::ExitCode;

use kiln_cache::Store;
use kiln_image::Reference;
use kiln_solver::task::Reporter;
use kiln_solver::{Cancel, Engine, PushError, PushRequest, Pushed};

use super::compression::compression;
use crate::arguments::{Progress, Push};
use crate::machine::{Machine, Upkeep};
use crate::progress::View;
use crate::report::Failure;
use crate::signal::Interrupts;

/// Runs `kiln push`.
pub(crate) fn run(machine: &Machine, arguments: &Push) -> Result<ExitCode, Failure> {
    let level = (arguments.compression.as_deref(), arguments.compression_level);
    let names = ("--compression ", "--compression-level ");
    let compression = compression(level, arguments.force_compression, names)?;
    let platforms = super::platforms(&arguments.platforms)?;
    let engine = machine.engine()?;
    let _upkeep = Upkeep::begin(engine.store(), machine.config.cache.limits());
    for text in &arguments.images {
        let reference = name(text)?;
        if !arguments.quiet {
            if reference.tag.is_none() && !arguments.all_tags {
                super::print("Using default tag: latest\n")?;
            }
            super::print(&format!("The push refers to repository [{}]\n", reference.name()))?;
        }
        for reference in tags(engine.store(), &reference, arguments.all_tags)? {
            let request = PushRequest {
                image: reference.to_string(),
                names: vec![reference.clone()],
                platforms: platforms.clone(),
                compression,
                by_digest: false,
                lazy: None,
            };
            push(&engine, &request, arguments.quiet)?;
            if arguments.quiet {
                super::print(&format!("{reference}\n"))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn push(engine: &Engine, request: &PushRequest, quiet: bool) -> Result<(), Failure> {
    let cancel = Cancel::new();
    let view = View::new(Progress::auto_or_quiet(quiet), "Pushing");
    let interrupts = Interrupts::cancel(&cancel, &view)?;
    let result = engine.push(request, &Reporter::new(view.sink()), &cancel);
    view.finish();
    drop(interrupts);
    for pushed in result.map_err(failure)? {
        if !quiet {
            super::print(&line(&pushed))?;
        }
    }
    Ok(())
}

/// Docker's line of a pushed name.
fn line(pushed: &Pushed) -> String {
    let name = &pushed.name;
    let tag = name.tag.clone().unwrap_or_else(|| name.tag_or_digest());
    format!(
        "{tag}: digest: {} size: {}\n",
        pushed.root.digest, pushed.root.size
    )
}

/// What a user is told of a push that failed.
pub(super) fn failure(error: PushError) -> Failure {
    match error {
        PushError::Canceled => Failure::canceled(),
        PushError::NoPlatform {
            image,
            wanted,
            available,
        } => super::no_platform(&image, &wanted, &available),
        error => match error.hint() {
            Some(hint) => Failure::error(&error).hint(hint),
            None => Failure::error(&error),
        },
    }
}

/// A name without `latest` made up.
fn name(text: &str) -> Result<Reference, Failure> {
    let reference = Reference::parse_untagged(text)
        .map_err(|error| Failure::usage(format!("invalid name {text:?}: {error}")))?;
    if reference.digest.is_some() {
        return Err(Failure::usage(format!(
            "{text}: an image is pushed by a tag, not by its digest"
        )));
    }
    Ok(reference)
}

/// The names to push.
fn tags(store: &Store, reference: &Reference, all: bool) -> Result<Vec<Reference>, Failure> {
    let known = store.images().names()?;
    if all {
        if reference.tag.is_some() {
            return Err(Failure::usage("tag can't be used with --all-tags/-a"));
        }
        let own: Vec<Reference> = known
            .keys()
            .filter_map(|name| name.parse::<Reference>().ok())
            .filter(|name| name.name() == reference.name())
            .collect();
        if own.is_empty() {
            let repository = reference.name();
            return Err(Failure::message(format!(
                "An image does not exist locally with the tag: {repository}"
            )));
        }
        return Ok(own);
    }
    let mut reference = reference.clone();
    reference.tag.get_or_insert_with(|| "latest".to_owned());
    if !known.contains_key(&reference.to_string()) {
        return Err(Failure::message(format!(
            "An image does not exist locally with the tag: {}",
            reference.familiar_name()
        ))
        .hint(format!(
            "kiln images shows what there is; kiln tag IMAGE {} gives an image the name",
            reference.familiar()
        )));
    }
    Ok(vec![reference])
}
