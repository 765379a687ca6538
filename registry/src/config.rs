//! What a [`Client`](crate::Client) is told from outside: hosts, mirrors, roots, proxies, time.
//!
//! Nothing here is read from the environment: the command line decides, the client obeys.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::docker_config::DockerConfig;

/// Connections to one host at the same time. Docker Hub and most peers use three or four; more
/// gains nothing on one link and runs into rate limits.
pub const CONNECTIONS_PER_HOST: usize = 4;

/// A manifest or index may not be larger: the limit that the distribution registry itself has.
pub const MANIFEST_LIMIT: u64 = 4 * 1024 * 1024;

/// Everything a client can be told. `Default` gives a client for public registries.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Mirrors by registry host (`docker.io`), asked in order before the registry itself.
    pub mirrors: BTreeMap<String, Vec<Mirror>>,
    /// Hosts (with port where there is one) that are spoken to over HTTPS without verification
    /// and, when that fails to connect, over plain HTTP.
    pub insecure: BTreeSet<String>,
    /// PEM files with certificate authorities. The first one that holds a certificate is used;
    /// when none does, the built-in Mozilla set is. See [`crate::roots::system`].
    pub ca_bundles: Vec<PathBuf>,
    /// PEM files whose authorities are trusted in addition to the above.
    pub extra_ca_bundles: Vec<PathBuf>,
    /// Credentials; `None` means that every request is anonymous.
    pub docker_config: Option<DockerConfig>,
    /// Value of the `User-Agent` header.
    pub user_agent: String,
    /// Proxies. Loopback hosts are never reached through one.
    pub proxies: Proxies,
    /// Retries, back-off and timeouts.
    pub retry: RetryPolicy,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Connections to one host at the same time.
    pub connections_per_host: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            mirrors: BTreeMap::new(),
            insecure: BTreeSet::new(),
            ca_bundles: Vec::new(),
            extra_ca_bundles: Vec::new(),
            docker_config: None,
            user_agent: concat!("kiln/", env!("CARGO_PKG_VERSION")).to_owned(),
            proxies: Proxies::default(),
            retry: RetryPolicy::default(),
            clock: Arc::new(SystemClock),
            connections_per_host: CONNECTIONS_PER_HOST,
        }
    }
}

/// One mirror of a registry.
///
/// `url` is `http://127.0.0.1:5000`, `https://mirror.example/docker-hub` or a bare
/// `host[:port][/prefix]`, for which the scheme follows the same rules as for a registry host:
/// plain HTTP for loopback, HTTPS otherwise, both for insecure hosts. A path becomes a prefix of
/// the repository name: `https://mirror.example/hub` is asked for `hub/library/python`.
///
/// A mirror of `docker.io` is asked for `library/python` first and then, on 404, for `python`:
/// pull-through caches know the first name, a registry that was filled by hand the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Where the mirror is.
    pub url: String,
}

impl<S: Into<String>> From<S> for Mirror {
    fn from(url: S) -> Self {
        Self { url: url.into() }
    }
}

/// HTTP proxies, as the usual environment variables name them.
#[derive(Clone, Default)]
pub struct Proxies {
    /// Proxy for `http://` URLs.
    pub http: Option<String>,
    /// Proxy for `https://` URLs.
    pub https: Option<String>,
    /// Hosts that are reached directly (`NO_PROXY`: host names, `.suffix`, `*`).
    pub no_proxy: Vec<String>,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A proxy URL may carry a password.
        f.debug_struct("Proxies")
            .field("http", &self.http.is_some())
            .field("https", &self.https.is_some())
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

/// When to try again, how long to wait, how long to be patient.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// Attempts of one request (or of one stretch of a blob without progress).
    pub attempts: u32,
    /// Attempts when no connection came about at all.
    pub connect_attempts: u32,
    /// Wait before the second attempt; doubled for each further one.
    pub backoff: Duration,
    /// No wait that we choose ourselves is longer.
    pub backoff_limit: Duration,
    /// A server that asks for a longer wait (`Retry-After`) gets an error instead.
    pub retry_after_limit: Duration,
    /// A connection attempt, including name lookup and TLS, is given up after this.
    pub connect_timeout: Duration,
    /// A transfer on which no byte moved for this long is cut and resumed.
    pub stall_timeout: Duration,
    /// How long a registry may take to answer the request that completes an upload.
    pub commit_timeout: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            // 0.25 + 0.5 + 1 + 2 s: rides out a restart behind a load balancer, and a person
            // still sees the error within five seconds.
            attempts: 5,
            // A refused connection or an unknown name is seldom healed by waiting.
            connect_attempts: 2,
            backoff: Duration::from_millis(250),
            backoff_limit: Duration::from_secs(10),
            retry_after_limit: Duration::from_mins(1),
            connect_timeout: Duration::from_secs(15),
            // Longer than any garbage collection pause or Wi-Fi hand-over seen in practice.
            stall_timeout: Duration::from_secs(30),
            // Registries on object stores copy the whole blob before they answer.
            commit_timeout: Duration::from_mins(5),
        }
    }
}

impl RetryPolicy {
    /// Wait before attempt number `attempt + 1` (`attempt` counts from 1): exponential, with
    /// `jitter` in 0..=255 taking away up to half, so that many clients do not come back at once.
    pub fn wait(&self, attempt: u32, jitter: u8) -> Duration {
        let doublings = attempt.saturating_sub(1).min(16);
        let full = self
            .backoff
            .saturating_mul(1 << doublings)
            .min(self.backoff_limit);
        full.mul_f64(1.0 - f64::from(jitter) / 512.0)
    }
}

/// The caller wants no further work from this client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Source of time. A build's owner can supply one whose `sleep` ends early with [`Interrupted`]
/// when the build is cancelled; tests supply one that does not wait.
pub trait Clock: fmt::Debug + Send + Sync {
    /// A monotonic now.
    fn now(&self) -> Instant;
    /// Waits, or returns early because the work was cancelled.
    fn sleep(&self, duration: Duration) -> Result<(), Interrupted>;
    /// Asked between attempts and between chunks of a body.
    fn check(&self) -> Result<(), Interrupted> {
        Ok(())
    }
}

/// The machine's own time.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, duration: Duration) -> Result<(), Interrupted> {
        std::thread::sleep(duration);
        Ok(())
    }
}

/// Nobody waits on this clock: the work was cancelled.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Over;

#[cfg(test)]
impl Clock for Over {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, _: Duration) -> Result<(), Interrupted> {
        Err(Interrupted)
    }

    fn check(&self) -> Result<(), Interrupted> {
        Err(Interrupted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_doubles_up_to_the_limit() {
        let policy = RetryPolicy {
            backoff: Duration::from_millis(100),
            backoff_limit: Duration::from_millis(500),
            ..RetryPolicy::default()
        };
        let waits: Vec<u128> = (1..=5)
            .map(|attempt| policy.wait(attempt, 0).as_millis())
            .collect();
        assert_eq!(waits, [100, 200, 400, 500, 500]);
    }

    #[test]
    fn jitter_takes_away_at_most_half() {
        let policy = RetryPolicy::default();
        for jitter in [1, 100, 255] {
            let wait = policy.wait(3, jitter);
            assert!(wait < policy.wait(3, 0), "jitter {jitter} changed nothing");
            assert!(wait >= policy.wait(3, 0) / 2, "jitter {jitter} took too much");
        }
    }

    #[test]
    fn wait_does_not_overflow() {
        assert_eq!(RetryPolicy::default().wait(u32::MAX, 0), Duration::from_secs(10));
    }

    #[test]
    fn debug_hides_proxy_passwords() {
        let proxies = Proxies {
            https: Some("http://u:hunter2@proxy:3128".into()),
            ..Proxies::default()
        };
        assert!(!format!("{proxies:?}").contains("hunter2"));
    }
}
