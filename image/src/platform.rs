//! `Platform`: operating system, processor architecture and variant of an image.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// For which machine an image is: `linux/amd64`, `linux/arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// Processor architecture in Go's names: `amd64`, `arm64`, `arm`, `386`, `riscv64`, `s390x`, `ppc64le`.
    #[serde(default)]
    pub architecture: String,
    /// Operating system in Go's names: `linux`, `windows`.
    #[serde(default)]
    pub os: String,
    /// Version of the operating system, on Windows only.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features of the operating system that are needed, on Windows only.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// Variant of the processor: `v7` of `arm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Why a text is no [`Platform`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParsePlatformError {
    /// Nothing there.
    #[error("platform is empty")]
    Empty,
}

impl Platform {
    /// The platform that this program runs on.
    pub fn host() -> Self { todo!() }
    /// This platform in its canonical names: `x86_64` is `amd64`, `aarch64` is `arm64`.
    #[must_use]
    pub fn normalized(&self) -> Self { todo!() }
    /// Whether an image for `self` is one for `wanted`, without any fallback.
    pub fn matches(&self, _wanted: &Platform) -> bool { todo!() }
    /// Whether an image for `self` runs where `wanted` is asked for, fallbacks included.
    pub fn satisfies(&self, _wanted: &Platform) -> bool { todo!() }
}
impl FromStr for Platform {
    type Err = ParsePlatformError;
    fn from_str(_: &str) -> Result<Self, Self::Err> { todo!() }
}
impl fmt::Display for Platform {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result { todo!() }
}
