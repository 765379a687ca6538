//! What a build asks of the solver beside its graph.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kiln_cache::BuildId;
use kiln_image::Reference;
use kiln_remote::Credentials;

use crate::compressed::LayerCompression;
use crate::context::LocalContext;
use crate::graph::NetworkMode;
use crate::lazy::Needs;
use crate::limits::Limits;
use crate::remote_cache::CacheLocation;
use crate::secret::Secrets;
use crate::ssh::SshAgents;
use crate::verify::Percent;

/// What a build asks of the solver beside its graph.
#[derive(Debug, Clone)]
pub struct SolveRequest {
    /// As many steps may run at a time.
    pub jobs: usize,
    /// Local directories by name.
    pub contexts: BTreeMap<String, LocalContext>,
    /// The build whose logs these are.
    pub build: BuildId,
    /// What [`NetworkMode::Default`] means: the host's network or none.
    pub network: NetworkMode,
    /// Secrets that steps may ask for.
    pub secrets: Arc<Secrets>,
    /// SSH agents that steps may ask for.
    pub ssh: Arc<SshAgents>,
    /// Limits of each step's process.
    pub limits: Limits,
    /// What proves to servers of remote sources who asks.
    pub credentials: Arc<dyn Credentials + Send>,
    /// New layers are compressed like this as soon as they exist, beside the steps that follow.
    pub compress: Option<LayerCompression>,
    /// Where a push of the targets, with layers compressed like that, will begin: once all steps have succeeded, large
    /// layers of theirs that are still being compressed are already on their way there.
    pub upload_to: Option<Reference>,
    /// Caches from elsewhere, the first goes first.
    pub cache_imports: Vec<CacheLocation>,
    /// Results of processes count only so long.
    pub cache_ttl: Option<Duration>,
    /// So many of each hundred cached steps are run once more, and the results compared.
    pub verify: Option<Percent>,
    /// Whether [`SolvedAll::cache`](super::SolvedAll::cache) is wanted.
    pub cache_exports: bool,
    /// What is needed of the targets: layers that are only elsewhere are fetched when it takes that.
    pub needs: Needs,
    /// Called once, before the first step runs; never when everything is cached.
    pub on_work: Hook,
}

/// Something to be called; nothing by default.
#[derive(Clone, Default)]
pub struct Hook(Option<Arc<dyn Fn() + Send + Sync>>);

impl Hook {
    /// Calls `call`.
    pub fn new(call: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(call)))
    }

    pub(super) fn call(&self) {
        if let Some(call) = &self.0 {
            call();
        }
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Hook").field(&self.0.is_some()).finish()
    }
}
