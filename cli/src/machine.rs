//! What commands work on: the process's namespaces, the store, the engine.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kiln_cache::disk::{DiskLimits, Keeper};
use kiln_cache::{Store, StoreOptions};
use kiln_executor::namespace::{self, EnterOptions, Entered};
use kiln_registry::{Client, ClientConfig, DockerConfig, Proxies};
use kiln_solver::{Engine, EngineSettings};

use crate::arguments::Global;
use crate::config::{Config, Environment};
use crate::report::Failure;
use crate::signal::{self, Hurry, InterruptedWaits};

/// Where distributions keep the bundle of certificate authorities.
const HOST_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// The resolver configuration of the host. Sandboxes are on the host's network, so it holds there as it is.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Everything that a command needs. Made while the process has one thread.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) environment: Environment,
    pub(crate) config: Config,
    pub(crate) entered: Entered,
    pub(crate) root: PathBuf,
    ca_bundle: Option<PathBuf>,
}

fn root(global: &Global, config: &Config, environment: &Environment) -> PathBuf {
    let root = global.root.clone().or_else(|| config.root.clone());
    root.unwrap_or_else(|| environment.default_root())
}

impl Machine {
    /// Reads environment and configuration and enters the namespaces.
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        let environment = Environment::read();
        let config = Config::load(global.config.as_deref(), &environment)?;
        let root = root(global, &config, &environment);
        let ca_bundle = ca_bundle(global.ca_bundle.as_deref().or(config.ca_bundle.as_deref()))?;
        let entered = namespace::enter(&EnterOptions::default()).map_err(kiln_executor::Error::from)?;
        Ok(Self {
            environment,
            config,
            entered,
            root,
            ca_bundle,
        })
    }

    /// Where the store would be.
    pub(crate) fn root_of(global: &Global) -> Result<PathBuf, Failure> {
        let environment = Environment::read();
        let config = Config::load(global.config.as_deref(), &environment)?;
        Ok(root(global, &config, &environment))
    }

    /// Opens the store.
    pub(crate) fn store(&self) -> Result<Arc<Store>, Failure> {
        let options = StoreOptions {
            userxattr: self.entered.user_namespace,
            boot: kiln_cache::boot::id()?,
            runtime: self.environment.runtime(),
        };
        Ok(Store::open(&self.root, options)?)
    }

    /// An engine on the store.
    pub(crate) fn engine(&self) -> Result<Engine, Failure> {
        let settings = EngineSettings {
            ca_bundle: self.ca_bundle.clone(),
            resolv_conf: resolv_conf(),
            git: self.environment.git(),
        };
        let backend = Arc::new(kiln_executor::Builtin::new()?);
        Ok(Engine::new(
            self.store()?,
            self.client_source(),
            backend,
            settings,
        ))
    }

    /// How the registry client is made, once something needs it.
    fn client_source(&self) -> kiln_solver::image::ClientSource {
        let docker_config_path = self.environment.docker_config();
        let config = self.client_config();
        Box::new(move || {
            Client::new(ClientConfig {
                docker_config: DockerConfig::load(&docker_config_path)
                    .map_err(kiln_registry::ConfigError::from)?,
                ca_bundles: kiln_registry::roots::system(),
                ..config.clone()
            })
        })
    }

    /// What registry clients have in common; without credentials.
    pub(crate) fn client_config(&self) -> ClientConfig {
        ClientConfig {
            mirrors: self.config.mirrors(),
            insecure: self.config.insecure(),
            extra_ca_bundles: self.ca_bundle.iter().cloned().collect(),
            proxies: Proxies {
                http: self.environment.proxy("http_proxy"),
                https: self.environment.proxy("https_proxy"),
                no_proxy: self
                    .environment
                    .proxy("no_proxy")
                    .map(|list| list.split(',').map(|host| host.trim().to_owned()).collect())
                    .unwrap_or_default(),
            },
            retry: self.config.network.retry_policy(),
            clock: Arc::new(InterruptedWaits),
            ..ClientConfig::default()
        }
    }
}

/// The host's resolver configuration; a machine without one has no names to resolve.
pub(crate) fn resolv_conf() -> Vec<u8> {
    std::fs::read(RESOLV_CONF).unwrap_or_default()
}

/// What `--ca-bundle` means: a file, or the host's own bundle.
fn ca_bundle(value: Option<&str>) -> Result<Option<PathBuf>, Failure> {
    let Some(value) = value else { return Ok(None) };
    if value == "host" {
        let found = HOST_BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file());
        return found.map(Some).ok_or_else(|| {
            Failure::message("--ca-bundle host: this machine has no certificate bundle")
                .hint("install ca-certificates, or name a file")
        });
    }
    let path = std::path::absolute(value).map_err(|source| Failure::io("resolve", value, source))?;
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => Ok(Some(path)),
        Ok(_) => Err(Failure::message(format!("--ca-bundle {value}: not a file"))),
        Err(source) => Err(Failure::io("read", value, source)),
    }
}

/// A command that works this long gives the store's upkeep its turn: most cached builds are over sooner.
const UPKEEP_DELAY: Duration = Duration::from_millis(100);

/// At the end of such a command the upkeep gets this long to finish what it is at, twice: before and after it is
/// told to stop.
const UPKEEP_PATIENCE: Duration = Duration::from_millis(40);

/// Where a killed process left something, it is taken away now, even if that takes a moment.
const SWEEP_PATIENCE: Duration = Duration::from_secs(1);

/// So often it is seen to it that the store is not too large.
const KEEPER_PACE: Duration = Duration::from_millis(500);

/// A command whose work is done waits no longer than that for room to be made. What is not done then, the next one goes
/// on with.
const KEEPER_PATIENCE: Duration = Duration::from_secs(1);

/// The store's background work (sweeping what killed processes left, merging the index's journals) beside a
/// command that takes its time anyway. What it does not get done, the next one does.
#[derive(Debug)]
pub(crate) struct Upkeep {
    /// Dropping it ends the upkeep.
    until: Option<Sender<()>>,
    patience: Arc<Patience>,
    thread: Option<JoinHandle<()>>,
}

/// How long the upkeep may go on.
#[derive(Debug, Default)]
struct Patience {
    /// The user wants no more of it.
    interrupted: Arc<AtomicBool>,
    /// When the command had done its work.
    ended: OnceLock<Instant>,
}

impl Patience {
    fn is_over(&self) -> bool {
        let is_late = |ended: &Instant| ended.elapsed() >= KEEPER_PATIENCE;
        signal::came() || self.interrupted.load(Ordering::Relaxed) || self.ended.get().is_some_and(is_late)
    }
}

impl Upkeep {
    /// Begins after [`UPKEEP_DELAY`], unless the command is over by then.
    pub(crate) fn begin(store: &Arc<Store>, limits: DiskLimits) -> Self {
        let (until, over) = mpsc::channel::<()>();
        let store = Arc::clone(store);
        let patience = Arc::new(Patience::default());
        let told = Arc::clone(&patience);
        let work = move || {
            let stop = || told.is_over();
            let leftovers = store.temp().has_leftovers();
            let mut keeper = Keeper::new(limits);
            let early = !leftovers && over.recv_timeout(UPKEEP_DELAY) != Err(RecvTimeoutError::Timeout);
            if early {
                if store.published_bytes() > 0 {
                    keeper.tend(&store, &stop);
                }
                return;
            }
            let maintenance = store.maintenance();
            // The sender sends nothing: this ends when it is dropped.
            while over.recv_timeout(KEEPER_PACE) == Err(RecvTimeoutError::Timeout) {
                keeper.tend(&store, &stop);
            }
            if store.published_bytes() > 0 {
                keeper.tend(&store, &stop);
            }
            if !maintenance.wait(if leftovers {
                SWEEP_PATIENCE
            } else {
                UPKEEP_PATIENCE
            }) {
                maintenance.stop();
                maintenance.wait(UPKEEP_PATIENCE);
            }
        };
        // Without a thread the work is left to the next command.
        let thread = std::thread::Builder::new()
            .name("upkeep".to_owned())
            .spawn(work)
            .ok();
        Self {
            until: Some(until),
            patience,
            thread,
        }
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        // Set once, here.
        let _ = self.patience.ended.set(Instant::now());
        let _hurry = Hurry::raise(&self.patience.interrupted);
        drop(self.until.take());
        if let Some(thread) = self.thread.take() {
            // The thread holds the store, whose own temporary folder goes with the last holder. A panic in it has
            // been reported by then.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::Ordering;
    use std::time::{Duration, Instant};

    use super::{HOST_BUNDLES, KEEPER_PATIENCE, Patience, ca_bundle};

    #[test]
    fn the_keepers_time_ends_a_moment_after_the_command_or_with_a_signal() {
        let patience = Patience::default();
        assert!(!patience.is_over());
        patience.ended.set(Instant::now()).unwrap();
        assert!(!patience.is_over());
        let late = Patience::default();
        let before = Instant::now().checked_sub(KEEPER_PATIENCE + Duration::from_millis(1));
        late.ended.set(before.unwrap()).unwrap();
        assert!(late.is_over());
        patience.interrupted.store(true, Ordering::Relaxed);
        assert!(patience.is_over());
    }

    #[test]
    fn a_bundle_is_a_file_or_the_hosts() {
        assert_eq!(ca_bundle(None).unwrap(), None);
        let this = ca_bundle(Some("Cargo.toml")).unwrap().unwrap();
        assert!(this.is_absolute() && this.ends_with("Cargo.toml"), "{this:?}");
        for wrong in ["/nosuch/bundle.pem", "/"] {
            let message = format!("{:?}", ca_bundle(Some(wrong)).unwrap_err());
            assert!(message.contains(wrong), "{message}");
        }
        let host = ca_bundle(Some("host"));
        match HOST_BUNDLES.iter().find(|path| Path::new(path).is_file()) {
            Some(path) => assert_eq!(host.unwrap().as_deref(), Some(Path::new(path))),
            None => assert!(format!("{host:?}").contains("ca-certificates")),
        }
    }
}
