//! What lowering asks of the world: images, files at addresses and repositories, looked up by the engine as tasks of
//! the build.

use kiln_image::{Digest, Platform, Reference};
use kiln_parser::Diagnostic;
use kiln_remote::Caller;
use kiln_remote::git::GitAddress;
use kiln_solver::graph::{GitSource, HttpSource, SourceSpan};
use kiln_solver::image::{LayoutSelector, PullError, Resolved};
use kiln_solver::remote::RemoteError;
use kiln_solver::task::Reporter;
use kiln_solver::{Cancel, Engine, chain};

use crate::build::BuildRequest;
use crate::contexts::{ContextImage, ImageLocation};
use crate::platforms::is_index;
use crate::resolve::{
    ImageResolver, RemoteFailure, RemoteResolver, ResolveError, ResolveErrorKind, ResolvedImage,
};

/// Resolves images through the engine, as a task of the build.
pub(crate) struct EngineResolver<'a> {
    engine: &'a Engine,
    request: &'a BuildRequest,
    reporter: &'a Reporter,
    cancel: &'a Cancel,
    /// The result is an index: names say which platform they are about.
    is_index: bool,
}

impl<'a> EngineResolver<'a> {
    /// Fails when the request's platforms cannot be told apart.
    pub(crate) fn new(
        engine: &'a Engine,
        request: &'a BuildRequest,
        reporter: &'a Reporter,
        cancel: &'a Cancel,
    ) -> Result<Self, Diagnostic> {
        Ok(Self {
            engine,
            request,
            reporter,
            cancel,
            is_index: is_index(&request.options, &request.platforms)?,
        })
    }

    /// Looks something up as a task of the build.
    fn look_up<T>(
        &self,
        name: &str,
        span: Option<SourceSpan>,
        look_up: impl FnOnce(Caller<'_>) -> Result<T, RemoteError>,
    ) -> Result<T, RemoteFailure> {
        let mut task = self.reporter.announce(name, Vec::new(), span);
        task.start();
        let result = look_up(Caller {
            credentials: &*self.request.credentials,
            progress: &|received, total| task.progress("downloading", received, total, false),
            canceled: &|| self.cancel.is_raised(),
        });
        match result {
            Ok(found) => {
                task.done();
                Ok(found)
            }
            Err(error) => {
                let message = chain(&error);
                if error.is_canceled() {
                    task.canceled();
                } else {
                    task.failed(&*message);
                }
                Err(RemoteFailure {
                    hint: error.hint(),
                    message,
                })
            }
        }
    }
}

impl RemoteResolver for EngineResolver<'_> {
    fn http(
        &self,
        url: &str,
        checksum: Option<Digest>,
        name: &str,
        span: Option<SourceSpan>,
    ) -> Result<HttpSource, RemoteFailure> {
        let look_up = |caller: Caller<'_>| self.engine.resolve_http(url, checksum, caller);
        if checksum.is_some() {
            // Nobody is asked, so there is nothing to tell.
            return look_up(Caller::default()).map_err(|error| RemoteFailure {
                hint: error.hint(),
                message: chain(&error),
            });
        }
        self.look_up(name, span, look_up)
    }

    fn git(
        &self,
        address: &GitAddress,
        name: &str,
        span: Option<SourceSpan>,
    ) -> Result<GitSource, RemoteFailure> {
        self.look_up(name, span, |caller| self.engine.resolve_git(address, caller))
    }
}

impl ImageResolver for EngineResolver<'_> {
    fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        span: Option<SourceSpan>,
    ) -> Result<ResolvedImage, ResolveError> {
        let for_platform = if self.is_index {
            format!("{} ", platform.full())
        } else {
            String::new()
        };
        let name = format!("[{for_platform}internal] load metadata for {reference}");
        self.registry_image(name, reference, platform, span)
    }

    fn resolve_context(
        &self,
        image: &ContextImage,
        platform: &Platform,
        span: Option<SourceSpan>,
    ) -> Result<ResolvedImage, ResolveError> {
        match &image.location {
            ImageLocation::Registry(reference) => {
                let familiar = reference.familiar();
                let name = format!("[context {}] load metadata for {familiar}", image.name);
                self.registry_image(name, reference, platform, span)
            }
            ImageLocation::Layout(layout) => {
                let name = format!("[context {}] load metadata from OCI layout", image.name);
                self.task(name, span, || {
                    let selector = LayoutSelector {
                        path: &layout.path,
                        tag: layout.tag.as_deref(),
                        digest: layout.digest.as_ref(),
                    };
                    self.engine
                        .images()
                        .resolve_layout(&image.name, selector, platform)
                })
            }
        }
    }
}

impl EngineResolver<'_> {
    fn registry_image(
        &self,
        task: String,
        reference: &Reference,
        platform: &Platform,
        span: Option<SourceSpan>,
    ) -> Result<ResolvedImage, ResolveError> {
        let requested = self.request.options.platform_requested
            || !self.request.platforms.is_empty()
            || *platform != self.request.options.build_platform;
        let images = self.engine.images();
        self.task(task, span, || {
            let resolved = images.resolve(reference, platform, requested, self.request.pull)?;
            images.expect(&resolved, reference);
            Ok(resolved)
        })
    }

    /// Resolves an image as a task of the build.
    fn task(
        &self,
        name: String,
        span: Option<SourceSpan>,
        resolve: impl FnOnce() -> Result<Resolved, PullError>,
    ) -> Result<ResolvedImage, ResolveError> {
        let mut task = self.reporter.announce(name, Vec::new(), span);
        task.start();
        match resolve() {
            Ok(resolved) => {
                task.done();
                Ok(ResolvedImage {
                    source: resolved.source,
                    config: resolved.config,
                    platform: resolved.platform,
                })
            }
            Err(error) => {
                task.failed(error.to_string());
                Err(ResolveError::new(kind(&error), error))
            }
        }
    }
}

fn kind(error: &PullError) -> ResolveErrorKind {
    use kiln_registry::ErrorKind;
    match error {
        PullError::NotLocal(_) => ResolveErrorKind::NotFound,
        PullError::NoPlatform { source, .. } => ResolveErrorKind::NoPlatform {
            available: source.available.clone(),
        },
        PullError::OtherPlatforms { available, .. } => ResolveErrorKind::NoPlatform {
            available: available.clone(),
        },
        PullError::Registry(error) => match error.kind() {
            ErrorKind::NotFound => ResolveErrorKind::NotFound,
            ErrorKind::Unauthorized | ErrorKind::Denied => ResolveErrorKind::Unauthorized,
            ErrorKind::Unreachable(_) | ErrorKind::TlsUntrusted => ResolveErrorKind::Unreachable,
            _ => ResolveErrorKind::Other,
        },
        _ => ResolveErrorKind::Other,
    }
}
