//! The configuration file, and the few things of the environment that Kiln looks at.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_cache::disk::{Amount, DiskLimits};
use kiln_registry::RetryPolicy;
use kiln_remote::git::{GitSettings, USER_ENVIRONMENT};
use serde::Deserialize;

/// `config.toml`. Everything is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Config {
    /// Folder of images, layers and cache.
    pub(crate) root: Option<PathBuf>,
    /// As `--ca-bundle`.
    pub(crate) ca_bundle: Option<String>,
    /// How large the store may become.
    #[serde(default)]
    pub(crate) cache: CacheConfig,
    /// How patient Kiln is with servers.
    #[serde(default)]
    pub(crate) network: NetworkConfig,
    /// Registries by host.
    #[serde(default)]
    pub(crate) registry: BTreeMap<String, RegistryConfig>,
}

/// How patient Kiln is with registries and with the servers of `ADD`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct NetworkConfig {
    /// A connection is given up after this; `15s`.
    pub(crate) connect_timeout: Option<TimeText>,
    /// A transfer is cut and resumed when (almost) nothing came for this long; `30s`.
    pub(crate) stall_timeout: Option<TimeText>,
    /// How often something is tried.
    pub(crate) attempts: Option<NonZeroU32>,
}

impl NetworkConfig {
    /// The policy of registry clients.
    pub(crate) fn retry_policy(&self) -> RetryPolicy {
        let usual = RetryPolicy::default();
        let time = |time: Option<TimeText>, usual| time.map_or(usual, |time| time.0);
        let attempts = self.attempts.map_or(usual.attempts, NonZeroU32::get);
        RetryPolicy {
            connect_timeout: time(self.connect_timeout, usual.connect_timeout),
            stall_timeout: time(self.stall_timeout, usual.stall_timeout),
            attempts,
            connect_attempts: usual.connect_attempts.min(attempts),
            ..usual
        }
    }
}

/// A length of time as text. Zero would mean that nothing may take any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct TimeText(pub(crate) Duration);

impl TryFrom<String> for TimeText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let time = crate::amount::duration(&text).filter(|time| !time.is_zero());
        time.map(Self)
            .ok_or_else(|| format!("{text:?} is no length of time: write 30s, 500ms or 2m"))
    }
}

/// How large the store may become.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct CacheConfig {
    /// The whole store; `20GB`, or `10%` of the disk.
    pub(crate) max_size: Option<SizeText>,
    /// What stays free on the disk; `5GB`, or `5%` of it.
    pub(crate) min_free: Option<SizeText>,
}

/// A size, or a part of the disk, as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct SizeText(pub(crate) Amount);

impl TryFrom<String> for SizeText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let amount = crate::amount::amount(&text);
        amount
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no size: write 20GB, 20GiB, bytes, or 10%"))
    }
}

/// With nothing configured so much stays free, as long as it can be had from what was not used for a day.
const MIN_FREE: Amount = Amount::PercentUpTo(2, 10_000_000_000);
const MIN_FREE_SPARES: Duration = Duration::from_hours(24);

impl CacheConfig {
    /// The limits that hold.
    pub(crate) fn limits(&self) -> DiskLimits {
        DiskLimits {
            max_size: self.max_size.map(|size| size.0),
            min_free: Some(self.min_free.map_or(MIN_FREE, |size| size.0)),
            min_free_spares: if self.min_free.is_some() {
                Duration::ZERO
            } else {
                MIN_FREE_SPARES
            },
        }
    }
}

/// One registry, by its host (`docker.io`, `registry.example:5000`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct RegistryConfig {
    /// Asked in order before the registry itself: `http://127.0.0.1:5000`, `mirror.example/hub`.
    #[serde(default)]
    pub(crate) mirrors: Vec<String>,
    /// Plain HTTP and unverified certificates are accepted.
    #[serde(default)]
    pub(crate) insecure: bool,
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigFileError {
    /// It cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// It is malformed.
    #[error("the configuration {} is malformed", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: Box<toml::de::Error>,
    },
}

impl Config {
    /// Reads `explicit`, or the first of the usual files that exists.
    pub(crate) fn load(explicit: Option<&Path>, environment: &Environment) -> Result<Self, ConfigFileError> {
        if let Some(path) = explicit {
            return Self::read(path);
        }
        for path in environment.config_files() {
            match Self::read(&path) {
                Err(ConfigFileError::Read { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound => {}
                result => return result,
            }
        }
        Ok(Self::default())
    }

    fn read(path: &Path) -> Result<Self, ConfigFileError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigFileError::Read {
            path: path.to_owned(),
            source,
        })?;
        toml::from_str(&text).map_err(|source| ConfigFileError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }

    /// Mirrors by registry host.
    pub(crate) fn mirrors(&self) -> BTreeMap<String, Vec<kiln_registry::Mirror>> {
        let mirrors = |registry: &RegistryConfig| registry.mirrors.iter().cloned().map(Into::into).collect();
        self.registry
            .iter()
            .map(|(host, registry)| (host.clone(), mirrors(registry)))
            .collect()
    }

    /// Hosts that need no verified TLS.
    pub(crate) fn insecure(&self) -> BTreeSet<String> {
        self.registry
            .iter()
            .filter(|(_, registry)| registry.insecure)
            .map(|(host, _)| host.clone())
            .collect()
    }
}

/// The environment as it was when the program began.
#[derive(Debug, Clone)]
pub(crate) struct Environment {
    variables: BTreeMap<String, String>,
    is_root: bool,
}

impl Environment {
    /// Reads it. Variables that are no text are left out: nothing that Kiln looks at can be such.
    pub(crate) fn read() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self {
            variables,
            is_root: rustix::process::geteuid().is_root(),
        }
    }

    /// The value of a variable that is set and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// The value of a variable, empty or not.
    pub(crate) fn get_raw(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// How git is run for build sources.
    pub(crate) fn git(&self) -> GitSettings {
        let set = |name: &&str| Some((name.into(), self.get_raw(name)?.into()));
        GitSettings {
            environment: USER_ENVIRONMENT.iter().filter_map(set).collect(),
            allow_files: false,
        }
    }

    fn home(&self) -> PathBuf {
        self.get("HOME").map_or_else(
            || PathBuf::from(if self.is_root { "/root" } else { "/" }),
            PathBuf::from,
        )
    }

    fn config_files(&self) -> Vec<PathBuf> {
        let own = self
            .get("XDG_CONFIG_HOME")
            .map_or_else(|| self.home().join(".config"), PathBuf::from);
        let mut files = vec![
            own.join("kiln/config.toml"),
            PathBuf::from("/etc/kiln/config.toml"),
        ];
        if self.is_root {
            files.reverse();
        }
        files
    }

    /// Where images, layers and cache are by default.
    pub(crate) fn default_root(&self) -> PathBuf {
        if self.is_root {
            return PathBuf::from("/var/lib/kiln");
        }
        let data = self
            .get("XDG_DATA_HOME")
            .map_or_else(|| self.home().join(".local/share"), PathBuf::from);
        data.join("kiln")
    }

    /// A folder of this user's that lies in memory, if there is one.
    pub(crate) fn runtime(&self) -> Option<PathBuf> {
        if self.is_root {
            // The variable's folder goes when root logs out.
            return Some(PathBuf::from("/run/kiln"));
        }
        self.get("XDG_RUNTIME_DIR")
            .map(|folder| Path::new(folder).join("kiln"))
    }

    /// Docker's configuration, which has the credentials of registries.
    pub(crate) fn docker_config(&self) -> PathBuf {
        self.get("DOCKER_CONFIG")
            .map_or_else(|| self.home().join(".docker"), PathBuf::from)
            .join("config.json")
    }

    /// A proxy variable, in lower case first.
    pub(crate) fn proxy(&self, name: &str) -> Option<String> {
        self.get(name)
            .or_else(|| self.get(&name.to_uppercase()))
            .map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{Amount, Config, ConfigFileError, Duration, Environment, MIN_FREE};
    use crate::report::Failure;

    fn environment(is_root: bool, variables: &[(&str, &str)]) -> Environment {
        let variables = variables
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Environment { variables, is_root }
    }

    /// A folder of this test's own.
    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("kiln-config-{}-{name}", std::process::id()));
        std::fs::create_dir_all(folder.join("kiln")).unwrap();
        folder
    }

    #[test]
    fn reads_the_documented_file() {
        let document = include_str!("../../docs/cli.md");
        let (_, rest) = document
            .split_once("```toml\n")
            .expect("the document shows a configuration");
        let (text, _) = rest.split_once("```").expect("the example ends");
        let config: Config = toml::from_str(text).expect("the example parses");
        assert_eq!(config.root.as_deref(), Some(Path::new("/srv/kiln")));
        assert_eq!(config.ca_bundle.as_deref(), Some("host"));
        let limits = config.cache.limits();
        assert_eq!(limits.max_size, Some(Amount::Bytes(50_000_000_000)));
        assert_eq!(limits.min_free, Some(Amount::Percent(10)));
        assert_eq!(limits.min_free_spares, Duration::ZERO);
        assert_eq!(Config::default().cache.limits().max_size, None);
        assert_eq!(Config::default().cache.limits().min_free, Some(MIN_FREE));
        assert_eq!(config.mirrors()["docker.io"][0].url, "http://127.0.0.1:5000");
        assert!(config.insecure().contains("registry.example:5000"));
        assert!(!config.insecure().contains("docker.io"));
        let policy = config.network.retry_policy();
        assert_eq!(policy.connect_timeout, Duration::from_secs(5));
        assert_eq!(policy.stall_timeout, Duration::from_secs(20));
        assert_eq!((policy.attempts, policy.connect_attempts), (3, 2));
        let usual = Config::default().network.retry_policy();
        assert_eq!(usual.stall_timeout, Duration::from_secs(30));
        assert_eq!(usual.attempts, 5);
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_place() {
        let folder = folder("unknown");
        let path = folder.join("config.toml");
        std::fs::write(&path, "root = \"/x\"\n\n[registry.\"docker.io\"]\nmirorrs = []\n").unwrap();
        let error = Config::load(Some(&path), &environment(true, &[])).unwrap_err();
        assert!(matches!(error, ConfigFileError::Parse { .. }));
        let text = format!("{:?}", Failure::from(error));
        assert!(
            text.contains("config.toml") && text.contains("line 4") && text.contains("mirorrs"),
            "{text}"
        );
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_wrong_size_is_an_error_with_its_place() {
        let text = "[cache]\nmax-size = \"plenty\"\n";
        let error = toml::from_str::<Config>(text).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("plenty"), "{error}");
    }

    #[test]
    fn a_wrong_time_is_an_error_with_its_place() {
        for wrong in ["\"soon\"", "\"0s\"", "\"\"", "30"] {
            let text = format!("[network]\nstall-timeout = {wrong}\n");
            let error = toml::from_str::<Config>(&text).unwrap_err().to_string();
            assert!(error.contains("line 2"), "{error}");
        }
        assert!(toml::from_str::<Config>("[network]\nattempts = 0\n").is_err());
    }

    #[test]
    fn the_usual_files_are_found_and_need_not_exist() {
        let folder = folder("usual");
        let own = folder.to_str().unwrap();
        let user = environment(false, &[("XDG_CONFIG_HOME", own)]);
        assert_eq!(user.config_files()[0], folder.join("kiln/config.toml"));
        std::fs::write(folder.join("kiln/config.toml"), "root = \"/mine\"").unwrap();
        assert_eq!(
            Config::load(None, &user).unwrap().root.as_deref(),
            Some(Path::new("/mine"))
        );
        let missing = folder.join("nosuch");
        assert!(matches!(
            Config::load(Some(&missing), &user),
            Err(ConfigFileError::Read { .. })
        ));
        std::fs::remove_dir_all(folder).unwrap();
        let root = environment(true, &[("HOME", "/root")]);
        let files = ["/etc/kiln/config.toml", "/root/.config/kiln/config.toml"].map(PathBuf::from);
        assert_eq!(root.config_files(), files);
    }

    #[test]
    fn the_environment_decides_about_folders() {
        let default_root =
            |is_root, variables: &[(&str, &str)]| environment(is_root, variables).default_root();
        let home = ("HOME", "/home/u");
        assert_eq!(
            default_root(true, &[("HOME", "/root")]),
            Path::new("/var/lib/kiln")
        );
        assert_eq!(
            default_root(true, &[("XDG_DATA_HOME", "/d")]),
            Path::new("/var/lib/kiln")
        );
        assert_eq!(
            default_root(false, &[home]),
            Path::new("/home/u/.local/share/kiln")
        );
        assert_eq!(
            default_root(false, &[home, ("XDG_DATA_HOME", "/d")]),
            Path::new("/d/kiln")
        );
        assert_eq!(
            default_root(false, &[home, ("XDG_DATA_HOME", "")]),
            Path::new("/home/u/.local/share/kiln")
        );
        let runtime = |is_root, variables: &[(&str, &str)]| environment(is_root, variables).runtime();
        let run = ("XDG_RUNTIME_DIR", "/run/user/7");
        assert_eq!(runtime(true, &[run]).as_deref(), Some(Path::new("/run/kiln")));
        assert_eq!(
            runtime(false, &[run]).as_deref(),
            Some(Path::new("/run/user/7/kiln"))
        );
        assert_eq!(runtime(false, &[home]), None);
        let docker = |variables: &[(&str, &str)]| environment(false, variables).docker_config();
        assert_eq!(docker(&[("HOME", "/h")]), Path::new("/h/.docker/config.json"));
        assert_eq!(
            docker(&[("HOME", "/h"), ("DOCKER_CONFIG", "/c")]),
            Path::new("/c/config.json")
        );
    }

    #[test]
    fn proxies_are_read_in_both_cases() {
        let both = environment(
            false,
            &[
                ("http_proxy", "a"),
                ("HTTP_PROXY", "b"),
                ("HTTPS_PROXY", "c"),
                ("no_proxy", ""),
            ],
        );
        assert_eq!(both.proxy("http_proxy").as_deref(), Some("a"));
        assert_eq!(both.proxy("https_proxy").as_deref(), Some("c"));
        assert_eq!(both.proxy("no_proxy"), None);
    }
}
