//! A build for several platforms: the file is lowered once for each, at the same time, and the graphs become one.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use kiln_image::{Digest, ImageConfig, Platform, Reference};
use kiln_parser::{Diagnostic, Dockerfile, Span};
use kiln_remote::git::GitAddress;
use kiln_solver::graph::{GitSource, Graph, HttpSource, SourceSpan, VertexId};
use kiln_solver::{Joiner, at_once};

use crate::contexts::ContextImage;
use crate::images::ImageKey;
use crate::lower::{Checks, Lowered, UnusedBuildArg, lower_with};
use crate::options::LowerOptions;
use crate::resolve::{
    ImageResolver, RemoteFailure, RemoteResolver, ResolveError, ResolveErrorKind, ResolvedImage, Resolver,
};

/// What a Dockerfile lowers to for all platforms of a build.
#[derive(Debug, Clone)]
pub(crate) struct LoweredAll {
    /// The vertices of all targets. What the platforms have in common is there once.
    pub(crate) graph: Graph,
    /// The images, in the order of the platforms.
    pub(crate) images: Vec<LoweredImage>,
    /// The names of the local contexts that the graph reads.
    pub(crate) contexts: BTreeSet<String>,
    /// The result is an index, even of one image.
    pub(crate) is_index: bool,
    /// Build arguments that no ARG declares.
    pub(crate) unused_build_args: Vec<UnusedBuildArg>,
    /// Findings that do not stop the build. The same finding for several platforms is told once.
    pub(crate) warnings: Vec<Diagnostic>,
}

/// What is built for one platform.
#[derive(Debug, Clone)]
pub(crate) struct LoweredImage {
    /// The platform.
    pub(crate) platform: Platform,
    /// The vertex whose snapshot is the image's root file system.
    pub(crate) target: VertexId,
    /// The image's configuration, as [`Lowered::config`].
    pub(crate) config: ImageConfig,
}

/// Whether the result of a build for `platforms` is an index: for more than one, and when the build argument
/// `BUILDKIT_MULTI_PLATFORM` says so.
pub(crate) fn is_index(options: &LowerOptions, platforms: &[Platform]) -> Result<bool, Diagnostic> {
    let several = platforms.len() > 1;
    let forced = match options.build_arg("BUILDKIT_MULTI_PLATFORM") {
        None | Some("") => return Ok(several),
        Some("1" | "t" | "T" | "TRUE" | "true" | "True") => true,
        Some("0" | "f" | "F" | "FALSE" | "false" | "False") => false,
        Some(other) => {
            let message = format!("invalid boolean value for BUILDKIT_MULTI_PLATFORM: {other:?}");
            return Err(Diagnostic::error(Span::default(), message).hint("it is true or false"));
        }
    };
    if several && !forced {
        let message = "BUILDKIT_MULTI_PLATFORM=false forbids a result for several platforms";
        let error = Diagnostic::error(Span::default(), message);
        return Err(error.hint("leave it out, or build for one platform"));
    }
    Ok(forced)
}

/// Lowers for each of `platforms`; with none, once for the target platform of `options`.
pub(crate) fn lower_all(
    dockerfile: &Dockerfile,
    options: &LowerOptions,
    platforms: &[Platform],
    checks: Checks<'_>,
    resolver: &dyn Resolver,
) -> Result<LoweredAll, Vec<Diagnostic>> {
    let is_index = is_index(options, platforms).map_err(|error| vec![error])?;
    let variants = variants(options, platforms).map_err(|error| vec![error])?;
    if let [only] = variants.as_slice() {
        let lowered = lower_with(dockerfile, only, checks, resolver)?;
        return Ok(single(lowered, only.target_platform.clone(), is_index));
    }
    let shared = Shared::new(resolver);
    // As in Docker the first platform speaks for all.
    let checks = std::iter::once(checks).chain(std::iter::repeat(Checks::None));
    let results = at_once(variants.iter().zip(checks), |(options, checks)| {
        lower_with(dockerfile, options, checks, &shared)
    });
    // What is wrong for the first platform is nearly always wrong for the others, too.
    let lowered = results.into_iter().collect::<Result<Vec<Lowered>, _>>()?;
    join(lowered, platforms)
}

/// The options for each of `platforms`; with none, those for the target platform of `options`.
pub(crate) fn variants(
    options: &LowerOptions,
    platforms: &[Platform],
) -> Result<Vec<LowerOptions>, Diagnostic> {
    let is_index = is_index(options, platforms)?;
    let for_platform = |platform: &Platform| LowerOptions {
        target_platform: platform.clone(),
        platform_requested: true,
        multi_platform: is_index,
        ..options.clone()
    };
    Ok(if platforms.is_empty() {
        vec![LowerOptions {
            multi_platform: is_index,
            ..options.clone()
        }]
    } else {
        platforms.iter().map(for_platform).collect()
    })
}

fn single(lowered: Lowered, platform: Platform, is_index: bool) -> LoweredAll {
    LoweredAll {
        contexts: lowered.contexts,
        graph: lowered.graph,
        images: vec![LoweredImage {
            platform,
            target: lowered.target,
            config: lowered.config,
        }],
        is_index,
        unused_build_args: lowered.unused_build_args,
        warnings: lowered.warnings,
    }
}

fn join(lowered: Vec<Lowered>, platforms: &[Platform]) -> Result<LoweredAll, Vec<Diagnostic>> {
    let mut joiner = Joiner::default();
    let mut images = Vec::with_capacity(lowered.len());
    let mut warnings: Vec<Diagnostic> = Vec::new();
    let mut unused_build_args = None;
    let mut contexts = BTreeSet::new();
    for (lowered, platform) in lowered.into_iter().zip(platforms) {
        let Some(target) = joiner.add(&lowered.graph, lowered.target) else {
            let message = format!("internal error: the graph for {platform} has no target");
            return Err(vec![Diagnostic::error(Span::default(), message)]);
        };
        contexts.extend(lowered.contexts);
        images.push(LoweredImage {
            platform: platform.clone(),
            target,
            config: lowered.config,
        });
        // Of the others there is only what each of them alone knows: that its base image is of another platform.
        warnings.extend(lowered.warnings);
        unused_build_args.get_or_insert(lowered.unused_build_args);
    }
    Ok(LoweredAll {
        graph: joiner.finish(),
        images,
        contexts,
        is_index: true,
        unused_build_args: unused_build_args.unwrap_or_default(),
        warnings,
    })
}

type Answer = Result<ResolvedImage, (ResolveErrorKind, Arc<ResolveError>)>;

/// Asks for each image and each source once, however many lowerings want it.
struct Shared<'a> {
    inner: &'a dyn Resolver,
    images: Answers<ImageKey, Answer>,
    files: Answers<(String, Option<Digest>), Result<HttpSource, RemoteFailure>>,
    repositories: Answers<GitAddress, Result<GitSource, RemoteFailure>>,
}

impl<'a> Shared<'a> {
    fn new(inner: &'a dyn Resolver) -> Self {
        Self {
            inner,
            images: Answers::new(),
            files: Answers::new(),
            repositories: Answers::new(),
        }
    }
}

/// What was asked, and the answer once it is there. Few questions: they are compared one by one.
struct Answers<Q, A>(Mutex<Vec<(Q, Arc<OnceLock<A>>)>>);

impl<Q: PartialEq, A: Clone> Answers<Q, A> {
    fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// The answer; whoever asks second waits for what the first gets.
    fn get(&self, question: Q, ask: impl FnOnce() -> A) -> A {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = if let Some((_, answer)) = known.iter().find(|(known, _)| *known == question) {
            Arc::clone(answer)
        } else {
            let answer = Arc::new(OnceLock::new());
            known.push((question, Arc::clone(&answer)));
            answer
        };
        drop(known);
        answer.get_or_init(ask).clone()
    }
}

/// A failure that several lowerings get to hear of.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct SharedError(Arc<ResolveError>);

impl ImageResolver for Shared<'_> {
    fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        span: Option<SourceSpan>,
    ) -> Result<ResolvedImage, ResolveError> {
        let answer = self.images.get(ImageKey::new(reference, platform), || {
            self.inner
                .resolve(reference, platform, span)
                .map_err(|error| (error.kind.clone(), Arc::new(error)))
        });
        answer.map_err(|(kind, error)| ResolveError::new(kind, SharedError(error)))
    }

    fn resolve_context(
        &self,
        image: &ContextImage,
        platform: &Platform,
        span: Option<SourceSpan>,
    ) -> Result<ResolvedImage, ResolveError> {
        // Contexts are few and local ones cheap: each lowering asks for itself.
        self.inner.resolve_context(image, platform, span)
    }
}

impl RemoteResolver for Shared<'_> {
    fn http(
        &self,
        url: &str,
        checksum: Option<Digest>,
        name: &str,
        span: Option<SourceSpan>,
    ) -> Result<HttpSource, RemoteFailure> {
        self.files.get((url.to_owned(), checksum), || {
            self.inner.http(url, checksum, name, span)
        })
    }

    fn git(
        &self,
        address: &GitAddress,
        name: &str,
        span: Option<SourceSpan>,
    ) -> Result<GitSource, RemoteFailure> {
        self.repositories
            .get(address.clone(), || self.inner.git(address, name, span))
    }
}

#[cfg(test)]
mod tests;
