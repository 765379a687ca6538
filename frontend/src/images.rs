//! The images that the reachable stages name: each is resolved once, all of them in parallel.

use std::collections::BTreeMap;
use std::thread;

use kiln_image::{Platform, Reference};
use kiln_parser::{Diagnostic, Span};

use crate::resolve::{ImageResolver, ResolveError, ResolveErrorKind, ResolvedImage};
use crate::step::source_span;

/// How many images are resolved at once. Each costs a thread that waits for the network.
const PARALLEL: usize = 16;

/// Names an image for a platform.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ImageKey {
    reference: String,
    platform: String,
}

impl ImageKey {
    /// The key of `reference` for `platform`.
    pub(crate) fn new(reference: &Reference, platform: &Platform) -> Self {
        Self {
            reference: reference.to_string(),
            platform: platform.to_string(),
        }
    }
}

/// An image that a stage or a COPY asks for.
#[derive(Debug, Clone)]
pub(crate) struct ImageRequest {
    /// The image.
    pub(crate) reference: Reference,
    /// What it is wanted for.
    pub(crate) platform: Platform,
    /// The image's name as written.
    pub(crate) written: String,
    /// Where it is written.
    pub(crate) span: Span,
}

impl ImageRequest {
    /// The request's key.
    pub(crate) fn key(&self) -> ImageKey {
        ImageKey::new(&self.reference, &self.platform)
    }
}

/// Images asked for and images found.
#[derive(Debug, Default)]
pub(crate) struct Images {
    waiting: BTreeMap<ImageKey, ImageRequest>,
    found: BTreeMap<ImageKey, Found>,
}

#[derive(Debug)]
struct Found {
    request: ImageRequest,
    image: ResolvedImage,
}

impl Images {
    /// Asks for an image; a second request for the same one changes nothing.
    pub(crate) fn request(&mut self, request: ImageRequest) {
        let key = request.key();
        if !self.found.contains_key(&key) {
            self.waiting.entry(key).or_insert(request);
        }
    }

    /// The image of a key, once it is resolved.
    pub(crate) fn get(&self, key: &ImageKey) -> Option<&ResolvedImage> {
        self.found.get(key).map(|found| &found.image)
    }

    /// Whether the image has no layers: it is as good as scratch.
    pub(crate) fn is_empty_image(&self, key: &ImageKey) -> bool {
        self.get(key).is_some_and(|image| image.source.layers.is_empty())
    }

    /// The images whose platform is another than the one asked for.
    pub(crate) fn platform_mismatches(&self) -> impl Iterator<Item = (&ImageRequest, &Platform)> {
        self.found.values().filter_map(|Found { request, image }| {
            let same = request.platform.os == image.platform.os
                && request.platform.architecture == image.platform.architecture;
            (!same).then_some((request, &image.platform))
        })
    }

    /// Resolves all that were asked for. `stages` are the names of the stages, for suggestions.
    pub(crate) fn resolve(
        &mut self,
        resolver: &dyn ImageResolver,
        stages: &[&str],
    ) -> Result<(), Vec<Diagnostic>> {
        let waiting: Vec<(ImageKey, ImageRequest)> = std::mem::take(&mut self.waiting).into_iter().collect();
        let mut errors = Vec::new();
        for batch in waiting.chunks(PARALLEL) {
            for ((key, request), result) in batch.iter().zip(resolve_batch(batch, resolver)) {
                match result {
                    Ok(image) => {
                        self.found.insert(
                            key.clone(),
                            Found {
                                request: request.clone(),
                                image,
                            },
                        );
                    }
                    Err(error) => errors.push(diagnostic(request, &error, stages)),
                }
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        errors.sort_by_key(|error| error.span.start);
        Err(errors)
    }
}

fn resolve_batch(
    batch: &[(ImageKey, ImageRequest)],
    resolver: &dyn ImageResolver,
) -> Vec<Result<ResolvedImage, ResolveError>> {
    let resolve = |request: &ImageRequest| {
        resolver.resolve(
            &request.reference,
            &request.platform,
            Some(source_span(request.span)),
        )
    };
    if let [(_, only)] = batch {
        return vec![resolve(only)];
    }
    thread::scope(|scope| {
        let threads: Vec<_> = batch
            .iter()
            .map(|(_, request)| scope.spawn(move || resolve(request)))
            .collect();
        threads
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(result) => result,
                // A panic in the resolver is a bug of its own; it goes on in the caller's thread.
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}

/// What a user reads when an image could not be resolved.
fn diagnostic(request: &ImageRequest, error: &ResolveError, stages: &[&str]) -> Diagnostic {
    let (reference, platform) = (&request.reference, &request.platform);
    let cause = chain(error);
    let nearest = kiln_parser::suggest::nearest(&request.written, stages.iter().copied());
    match &error.kind {
        ResolveErrorKind::NotFound => {
            let message = format!("image {reference} not found for {platform}: {cause}");
            let hint = match nearest {
                Some(stage) => format!("did you mean the stage {stage}?"),
                None => {
                    "check the name and tag, or log in to the registry if the image is private".to_owned()
                }
            };
            Diagnostic::error(request.span, message).hint(hint)
        }
        ResolveErrorKind::NoPlatform { available } => {
            let message = format!("image {reference} does not exist for {platform}: {cause}");
            let available: Vec<String> = available.iter().map(ToString::to_string).collect();
            let diagnostic = Diagnostic::error(request.span, message);
            if available.is_empty() {
                return diagnostic;
            }
            diagnostic.hint(format!("it exists for {}", available.join(", ")))
        }
        ResolveErrorKind::Unauthorized => Diagnostic::error(
            request.span,
            format!("access to image {reference} denied: {cause}"),
        )
        .hint("log in to the registry, or check that the name is right"),
        ResolveErrorKind::Unreachable | ResolveErrorKind::Other => Diagnostic::error(
            request.span,
            format!("failed to resolve image {reference}: {cause}"),
        ),
    }
}

/// An error and what lies behind it, in one line.
fn chain(error: &ResolveError) -> String {
    let mut text = error.source.to_string();
    let mut cause = error.source.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}
