//! The images that the reachable stages name: each is resolved once, all of them in parallel.

use std::collections::{BTreeMap, BTreeSet};

use kiln_image::{Platform, Reference};
use kiln_parser::{Diagnostic, Span};
use kiln_solver::at_once;

use crate::contexts::{ContextImage, ImageLocation};
use crate::resolve::{ImageResolver, ResolveError, ResolveErrorKind, ResolvedImage};
use crate::step::source_span;

/// Platforms that a hint lists.
const LISTED: usize = 20;

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

    /// The key of the image that the context `name` gives: no image name begins like this.
    fn of_context(name: &str, platform: &Platform) -> Self {
        Self {
            reference: format!("context:{name}"),
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
    /// The named context that gives the image.
    pub(crate) context: Option<ContextImage>,
}

impl ImageRequest {
    /// The request's key.
    pub(crate) fn key(&self) -> ImageKey {
        match &self.context {
            Some(ContextImage {
                name,
                location: ImageLocation::Layout(_),
            }) => ImageKey::of_context(name, &self.platform),
            _ => ImageKey::new(&self.reference, &self.platform),
        }
    }
}

/// Images asked for and images found.
#[derive(Debug, Default)]
pub(crate) struct Images {
    waiting: BTreeMap<ImageKey, ImageRequest>,
    found: BTreeMap<ImageKey, Found>,
    /// Those that could not be had. They are not asked for again.
    missing: BTreeSet<ImageKey>,
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
        if !self.found.contains_key(&key) && !self.missing.contains(&key) {
            self.waiting.entry(key).or_insert(request);
        }
    }

    /// The image of a key, once it is resolved.
    pub(crate) fn get(&self, key: &ImageKey) -> Option<&ResolvedImage> {
        self.found.get(key).map(|found| &found.image)
    }

    /// The named context that gave the image of a key.
    pub(crate) fn context(&self, key: &ImageKey) -> Option<&ContextImage> {
        self.found.get(key)?.request.context.as_ref()
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
            // Who names a context chooses its platform, too.
            (!same && request.context.is_none()).then_some((request, &image.platform))
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
                    Err(error) => {
                        self.missing.insert(key.clone());
                        errors.push(diagnostic(request, &error, stages));
                    }
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
        let span = Some(source_span(request.span));
        match &request.context {
            Some(context) => resolver.resolve_context(context, &request.platform, span),
            None => resolver.resolve(&request.reference, &request.platform, span),
        }
    };
    at_once(batch, |(_, request)| resolve(request))
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
            let available: Vec<String> = available.iter().take(LISTED).map(ToString::to_string).collect();
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
        ResolveErrorKind::Unreachable => Diagnostic::error(
            request.span,
            format!("failed to resolve image {reference}: {cause}"),
        )
        .hint(format!(
            "check the network and the proxy settings, or set a mirror for {}; images of the store need no registry",
            reference.registry
        )),
        ResolveErrorKind::Other => Diagnostic::error(
            request.span,
            format!("failed to resolve image {reference}: {cause}"),
        ),
    }
}

/// An error and what lies behind it, in one line. A cause that only says again what is said already, with a
/// system error's number or an HTTP library's prefix, is left out.
fn chain(error: &ResolveError) -> String {
    let mut text = error.source.to_string();
    let mut cause = error.source.source();
    while let Some(error) = cause {
        let message = error.to_string();
        let reason = message.strip_prefix("io: ").unwrap_or(&message);
        let reason = reason.split(" (os error ").next().unwrap_or(reason);
        if !text.to_lowercase().contains(&reason.to_lowercase()) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};
    use std::time::Duration;

    use super::{ImageRequest, Images, diagnostic};
    use crate::testing::{FakeResolver, lower_with, messages, options};
    use crate::{ImageResolver, ResolveError, ResolveErrorKind, ResolvedImage};
    use kiln_image::{Platform, Reference};
    use kiln_parser::Span;
    use kiln_solver::graph::SourceSpan;

    fn request(name: &str) -> ImageRequest {
        ImageRequest {
            reference: Reference::parse(name).unwrap(),
            platform: "linux/arm64".parse().unwrap(),
            written: name.to_owned(),
            span: Span::new(5, 8),
            context: None,
        }
    }

    /// Answers only when all are waiting for an answer.
    struct Rendezvous {
        wanted: usize,
        waiting: Mutex<usize>,
        arrived: Condvar,
    }

    impl ImageResolver for Rendezvous {
        fn resolve(
            &self,
            _reference: &Reference,
            _platform: &Platform,
            _span: Option<SourceSpan>,
        ) -> Result<ResolvedImage, ResolveError> {
            let mut waiting = self.waiting.lock().unwrap();
            *waiting += 1;
            self.arrived.notify_all();
            let patience = Duration::from_secs(20);
            let (waiting, _) = self
                .arrived
                .wait_timeout_while(waiting, patience, |waiting| *waiting < self.wanted)
                .unwrap();
            let kind = if *waiting == self.wanted {
                ResolveErrorKind::NotFound
            } else {
                ResolveErrorKind::Other
            };
            Err(ResolveError::new(kind, "no images here"))
        }
    }

    #[test]
    fn images_are_resolved_at_the_same_time() {
        let resolver = Rendezvous {
            wanted: 3,
            waiting: Mutex::new(0),
            arrived: Condvar::new(),
        };
        let mut images = Images::default();
        for name in ["a", "b", "c"] {
            images.request(request(name));
        }
        let errors = images.resolve(&resolver, &[]).unwrap_err();
        assert_eq!(errors.len(), 3);
        assert!(
            errors.iter().all(|error| error.message.contains("not found")),
            "{errors:?}"
        );
    }

    #[test]
    fn an_image_is_asked_for_once_and_only_when_needed() {
        let text = "FROM missing AS unused\nFROM busybox AS a\nFROM busybox:latest AS b\n\
                    FROM docker.io/library/busybox\nCOPY --from=a / /\nCOPY --from=b / /\nCOPY --from=busybox / /\n";
        let resolver = FakeResolver::new([]);
        lower_with(text, &options(), &resolver).unwrap();
        assert_eq!(resolver.asked(), ["docker.io/library/busybox:latest"]);
    }

    #[test]
    fn errors_of_the_file_come_before_any_image_is_asked_for() {
        let resolver = FakeResolver::new([]);
        let text = "FROM missing\nCOPY --from=9 / /\n";
        assert_eq!(messages(text), ["there is no stage 9"]);
        lower_with(text, &options(), &resolver).unwrap_err();
        assert!(resolver.asked().is_empty());
    }

    #[test]
    fn each_sort_of_failure_has_its_message() {
        let platforms: Vec<Platform> = vec!["linux/amd64".parse().unwrap(), "linux/386".parse().unwrap()];
        for (kind, message, hint) in [
            (
                ResolveErrorKind::NotFound,
                "image docker.io/library/bsue:latest not found for linux/arm64: it broke",
                Some("did you mean the stage base?"),
            ),
            (
                ResolveErrorKind::NoPlatform { available: platforms },
                "image docker.io/library/bsue:latest does not exist for linux/arm64: it broke",
                Some("it exists for linux/amd64, linux/386"),
            ),
            (
                ResolveErrorKind::Unauthorized,
                "access to image docker.io/library/bsue:latest denied: it broke",
                Some("log in to the registry, or check that the name is right"),
            ),
            (
                ResolveErrorKind::Unreachable,
                "failed to resolve image docker.io/library/bsue:latest: it broke",
                Some(
                    "check the network and the proxy settings, or set a mirror for docker.io; images of the store need no registry",
                ),
            ),
        ] {
            let diagnostic = diagnostic(&request("bsue"), &ResolveError::new(kind, "it broke"), &["base"]);
            assert_eq!(diagnostic.message, message);
            assert_eq!(diagnostic.hint.as_deref(), hint);
            assert_eq!(diagnostic.span, Span::new(5, 8));
        }
    }
}
