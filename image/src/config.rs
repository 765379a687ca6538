//! `ImageConfig`: the configuration of an image, Docker's superset of the OCI form.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::{Digest, Platform, json, limits};

/// The configuration of an image. Its digest is the image's ID.
///
/// Fields that are not known here are kept in `extra` and written again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Processor architecture.
    #[serde(default, deserialize_with = "or_default")]
    pub architecture: String,
    /// Variant of the processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Operating system.
    #[serde(default, deserialize_with = "or_default")]
    pub os: String,
    /// Version of the operating system, on Windows only.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features of the operating system, on Windows only.
    #[serde(
        rename = "os.features",
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// How containers of the image run.
    #[serde(default, deserialize_with = "or_default")]
    pub config: Config,
    /// Its layers.
    #[serde(default, deserialize_with = "or_default")]
    pub rootfs: RootFs,
    /// How it came to be, oldest first.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub history: Vec<History>,
    /// Fields not known here.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// How containers of an image run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Config {
    /// `user[:group]`.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub user: String,
    /// `port/protocol`.
    #[serde(
        default,
        deserialize_with = "set",
        serialize_with = "as_object",
        skip_serializing_if = "BTreeSet::is_empty"
    )]
    pub exposed_ports: BTreeSet<String>,
    /// `NAME=value`, in order.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub env: Vec<String>,
    /// The command in front of `cmd`.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub entrypoint: Vec<String>,
    /// The default command or arguments.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub cmd: Vec<String>,
    /// The health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// On Windows: the command is one string that is escaped already.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub args_escaped: bool,
    /// Paths that get volumes.
    #[serde(
        default,
        deserialize_with = "set",
        serialize_with = "as_object",
        skip_serializing_if = "BTreeSet::is_empty"
    )]
    pub volumes: BTreeSet<String>,
    /// The working directory.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub working_dir: String,
    /// Instructions that run in builds from this image.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub on_build: Vec<String>,
    /// Labels.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub labels: BTreeMap<String, String>,
    /// The signal that stops a container.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub stop_signal: String,
    /// Seconds until a container that was told to stop is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// The shell of shell-form instructions.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub shell: Vec<String>,
    /// Fields not known here.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// How a container's health is checked. Durations are nanoseconds; 0 means inherited or default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// Empty: inherited. `["NONE"]`: off. `["CMD", args…]` or `["CMD-SHELL", command]`.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub test: Vec<String>,
    /// Time between two checks.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// How long one check may take.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// How long failures do not count after the start.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between two checks while starting.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// How many failures in a row make a container unhealthy.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub retries: i64,
    /// Fields not known here.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// The layers of an image, by the digests of their uncompressed tars.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default = "layers", deserialize_with = "or_default")]
    pub kind: String,
    /// Bottom first.
    #[serde(default, deserialize_with = "or_default")]
    pub diff_ids: Vec<Digest>,
    /// Fields not known here.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self {
            kind: layers(),
            diff_ids: Vec::new(),
            extra: BTreeMap::new(),
        }
    }
}

fn layers() -> String {
    "layers".to_owned()
}

/// One step that an image was made by.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command or instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// A remark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether the step made no layer.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub empty_layer: bool,
    /// Fields not known here.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// Why some bytes are no image configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Too long.
    #[error("image configuration has {size} bytes, more than the {limit} allowed")]
    TooLarge {
        /// Its length.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// Not JSON, or not of this form.
    #[error("image configuration is malformed")]
    Json(#[source] serde_json::Error),
    /// A list is too long.
    #[error("image configuration has {count} {what}, more than the {limit} allowed")]
    TooMany {
        /// `layers` or `history entries`.
        what: &'static str,
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// The root file system is not made of layers.
    #[error("root file system of type {kind:?} is not supported, only \"layers\" is")]
    RootFsType {
        /// What it is.
        kind: String,
    },
}

impl ImageConfig {
    /// Reads a configuration.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let limit = limits::CONFIG_SIZE;
        if bytes.len() > limit {
            return Err(ConfigError::TooLarge {
                size: bytes.len(),
                limit,
            });
        }
        let mut config: Self = json::from_slice(bytes).map_err(ConfigError::Json)?;
        let counts = [
            ("layers", config.rootfs.diff_ids.len(), limits::LAYERS),
            ("history entries", config.history.len(), limits::HISTORY),
        ];
        for (what, count, limit) in counts {
            if count > limit {
                return Err(ConfigError::TooMany { what, count, limit });
            }
        }
        if config.rootfs.kind.is_empty() {
            config.rootfs.kind = layers();
        }
        if config.rootfs.kind != "layers" {
            let kind = config.rootfs.kind.chars().take(80).collect();
            return Err(ConfigError::RootFsType { kind });
        }
        Ok(config)
    }

    /// The one serialized form of this configuration: compact JSON, known fields in fixed order, maps sorted, empty
    /// values left out.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Only a map with keys that are no strings could fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The image's ID: the digest of [`Self::to_bytes`].
    pub fn id(&self) -> Digest {
        Digest::sha256_of(&self.to_bytes())
    }

    /// For which machine the image is.
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            variant: self.variant.clone(),
        }
    }

    /// Makes the image one for `platform`.
    pub fn set_platform(&mut self, platform: &Platform) {
        self.architecture.clone_from(&platform.architecture);
        self.os.clone_from(&platform.os);
        self.os_version.clone_from(&platform.os_version);
        self.os_features.clone_from(&platform.os_features);
        self.variant.clone_from(&platform.variant);
    }
}

/// `null` is what Go writes for an empty list or map.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Sets are objects with empty objects as values.
fn set<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<String>, D::Error> {
    let map: Option<serde_json::Map<String, Value>> = Option::deserialize(deserializer)?;
    Ok(map.unwrap_or_default().into_iter().map(|(key, _)| key).collect())
}

fn as_object<S: Serializer>(set: &BTreeSet<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(set.iter().map(|key| (key, serde_json::Map::new())))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_is_lost_on_the_way() {
        let value = json!({
            "created": "2024-01-02T03:04:05.123456789Z", "architecture": "arm", "variant": "v7", "os": "linux",
            "os.version": "1", "moby.buildkit.cache.v0": {"b": [1, null]}, "docker_version": "1.2",
            "config": {
                "User": "1:2", "ExposedPorts": {"80/tcp": {}}, "Env": ["B=1", "A=2"], "Entrypoint": ["/e"],
                "Cmd": ["c"], "Volumes": {"/v": {}}, "WorkingDir": "/w", "Labels": {"z": "", "a": "b"},
                "StopSignal": "SIGINT", "StopTimeout": 3, "OnBuild": ["RUN x"], "Shell": ["/bin/bash", "-c"],
                "ArgsEscaped": true, "Hostname": "h",
                "Healthcheck": {"Test": ["CMD", "x"], "Interval": 1, "Retries": 2, "Future": 1.5}
            },
            "rootfs": {"type": "layers", "diff_ids": [Digest::sha256_of(b"a").to_string()], "x": 1},
            "history": [{"created_by": "RUN x", "y": 1}, {"empty_layer": true, "comment": "c", "author": "a"}]
        });
        let config = ImageConfig::parse(value.to_string().as_bytes()).unwrap();
        let bytes = config.to_bytes();
        assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), value);
        assert_eq!(ImageConfig::parse(&bytes).unwrap(), config);
        assert_eq!(config.id(), Digest::sha256_of(&bytes));
        assert_eq!(config.config.env, ["B=1", "A=2"], "the order counts");
        assert_eq!(config.platform().to_string(), "linux/arm/v7");
    }

    #[test]
    fn unknown_numbers_stay_the_same() {
        let config =
            ImageConfig::parse(br#"{"x":222222222222222222222222,"y":0.1234567890123456789}"#).unwrap();
        let again = ImageConfig::parse(&config.to_bytes()).unwrap();
        assert_eq!(again, config);
        assert_eq!(again.to_bytes(), config.to_bytes());
    }

    #[test]
    fn null_is_as_good_as_nothing() {
        let nulls = r#"{"architecture":"amd64","os":"linux","config":{"Cmd":null,"Env":null,"Volumes":null,"Labels":null,
            "ExposedPorts":null,"Healthcheck":null,"User":null},"rootfs":{"type":"layers","diff_ids":null},"history":null}"#;
        let config = ImageConfig::parse(nulls.as_bytes()).unwrap();
        assert_eq!(config.config, Config::default());
        let expected =
            r#"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        assert_eq!(String::from_utf8(config.to_bytes()).unwrap(), expected);
        assert_eq!(ImageConfig::parse(b"{}").unwrap().rootfs, RootFs::default());
    }

    #[test]
    fn other_documents_are_refused() {
        let many = format!("{{\"history\":[{}{{}}]}}", "{},".repeat(limits::HISTORY));
        let cases = [
            "",
            "[]",
            r#"{"rootfs":{"type":"disk"}}"#,
            r#"{"rootfs":{"diff_ids":["sha256:1"]}}"#,
            &many,
        ];
        for text in cases {
            assert!(ImageConfig::parse(text.as_bytes()).is_err(), "{text:.60}");
        }
        let big = vec![b' '; limits::CONFIG_SIZE + 1];
        assert!(matches!(
            ImageConfig::parse(&big),
            Err(ConfigError::TooLarge { .. })
        ));
    }
}
