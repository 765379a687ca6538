//! What the request of a build decides about lowering.

use std::collections::{BTreeMap, BTreeSet};

use kiln_image::Platform;
use kiln_solver::graph::{ExtraHost, NetworkMode, Ulimit};

/// Everything that changes what a Dockerfile lowers to.
#[derive(Debug, Clone)]
pub struct LowerOptions {
    /// `--build-arg`, by name. `None` is an argument given without a value whose variable is not set either:
    /// it counts as not given.
    pub build_args: BTreeMap<String, Option<String>>,
    /// `--target`: a stage's name (any case) or its number. The last stage when absent.
    pub target: Option<String>,
    /// What the image is built for.
    pub target_platform: Platform,
    /// Whether the user asked for `target_platform`. If not, an image whose base only exists for another
    /// platform keeps that base's platform in its config.
    pub platform_requested: bool,
    /// The image is one of several, or of an index at least: step names say which platform they are for.
    pub multi_platform: bool,
    /// What the build runs on (`BUILDPLATFORM`).
    pub build_platform: Platform,
    /// Ignore the cache for all steps.
    pub no_cache: bool,
    /// Ignore the cache for the steps of these stages, by name (any case) or number.
    pub no_cache_filter: Vec<String>,
    /// `--label`: applied last, over the labels of the file.
    pub labels: BTreeMap<String, String>,
    /// `--network`: what a RUN without a `--network` of its own gets.
    pub network: NetworkMode,
    /// What steps are allowed that they are not by default.
    pub entitlements: BTreeSet<Entitlement>,
    /// Names in the `/etc/hosts` of every RUN.
    pub extra_hosts: Vec<ExtraHost>,
    /// Resource limits of every RUN.
    pub ulimits: Vec<Ulimit>,
}

/// Something that a Dockerfile may ask for only when the request allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entitlement {
    /// `RUN --network=host`.
    NetworkHost,
    /// `RUN --security=insecure`.
    SecurityInsecure,
}

impl Entitlement {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::NetworkHost, Self::SecurityInsecure];

    /// The name, as BuildKit has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NetworkHost => "network.host",
            Self::SecurityInsecure => "security.insecure",
        }
    }
}

impl LowerOptions {
    /// Options that build the last stage for `platform` on that same platform.
    pub fn new(platform: Platform) -> Self {
        Self {
            build_args: BTreeMap::new(),
            target: None,
            target_platform: platform.clone(),
            platform_requested: false,
            multi_platform: false,
            build_platform: platform,
            no_cache: false,
            no_cache_filter: Vec::new(),
            labels: BTreeMap::new(),
            network: NetworkMode::Default,
            entitlements: BTreeSet::new(),
            extra_hosts: Vec::new(),
            ulimits: Vec::new(),
        }
    }

    /// The value of a build argument that was given with one.
    pub(crate) fn build_arg(&self, name: &str) -> Option<&str> {
        self.build_args.get(name).and_then(Option::as_deref)
    }

    /// Whether the steps of the stage `number` called `name` ignore the cache.
    pub(crate) fn ignores_cache(&self, number: usize, name: Option<&str>) -> bool {
        self.no_cache
            || self.no_cache_filter.iter().any(|filter| {
                name.is_some_and(|name| filter.eq_ignore_ascii_case(name)) || filter.parse() == Ok(number)
            })
    }
}
