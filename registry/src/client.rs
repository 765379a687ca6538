//! The client: endpoints in turn, attempts with back-off, and the one authorized exchange below.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ureq::http::{Method, header};

use crate::auth::{Authenticator, Authorization, Scope};
use crate::config::ClientConfig;
use crate::endpoint::{Endpoint, Endpoints};
use crate::error::{AuthState, ConfigError, Error, ErrorKind, Failure, Result};
use crate::failed::{Failed, Retry};
use crate::transport::{Payload, Request, Response, Transport};
use crate::url::Url;
use kiln_image::Reference;

/// A client for any number of registries, shared by any number of threads.
///
/// Making one reads the CA bundles (about a millisecond), so make it when the first request is due.
pub struct Client {
    pub(crate) config: ClientConfig,
    pub(crate) transport: Transport,
    pub(crate) authenticator: Authenticator,
    endpoints: Endpoints,
    /// The endpoint that last had something of a repository, by registry and repository: blobs are
    /// asked for there first.
    preferred: Mutex<HashMap<(String, String), Endpoint>>,
    /// Insecure hosts that turned out to speak plain HTTP.
    plain: Mutex<HashSet<String>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// What an operation is after; decides which endpoints it may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A name must be looked up in the configured order.
    Name,
    /// Content named by digest is the same everywhere: where the last piece came from goes first.
    Content,
    /// Only the registry itself.
    Push,
}

/// A request that can be sent again.
#[derive(Clone)]
pub(crate) struct Plain<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: Vec<(header::HeaderName, String)>,
    pub(crate) body: Option<&'a [u8]>,
    pub(crate) patience: Duration,
}

impl<'a> From<Plain<'a>> for Request<'a> {
    fn from(plain: Plain<'a>) -> Self {
        let Plain {
            method,
            url,
            headers,
            body,
            patience,
        } = plain;
        Self {
            method,
            url,
            headers,
            payload: body.map_or(Payload::None, Payload::Bytes),
            patience,
        }
    }
}

impl Client {
    /// A client with this configuration.
    pub fn new(config: ClientConfig) -> std::result::Result<Self, ConfigError> {
        Ok(Self {
            transport: Transport::new(&config)?,
            authenticator: Authenticator::new(&config),
            endpoints: Endpoints::new(&config)?,
            preferred: Mutex::default(),
            plain: Mutex::default(),
            config,
        })
    }

    pub(crate) fn request<'a>(&self, method: Method, url: Url) -> Plain<'a> {
        Plain {
            method,
            url,
            headers: Vec::new(),
            body: None,
            patience: self.config.retry.stall_timeout,
        }
    }

    /// Runs `attempt` on each endpoint in turn until one succeeds.
    pub(crate) fn on_endpoints<T>(
        &self,
        operation: &'static str,
        reference: &Reference,
        purpose: Purpose,
        mut attempt: impl FnMut(&Endpoint) -> std::result::Result<T, Failed>,
    ) -> Result<T> {
        let mut failures: Vec<Failure> = Vec::new();
        let endpoints = match self.candidates(reference, purpose) {
            Ok(endpoints) => endpoints,
            Err(reason) => {
                let last = unusable_registry(&reference.registry, reason);
                return Err(Error::new(operation, reference, failures, last));
            }
        };
        for endpoint in &endpoints {
            let plain = lock(&self.plain).contains(&endpoint.base.authority);
            let unreachable = failures.last().is_some_and(|failure| {
                failure.host == endpoint.base.authority
                    && matches!(failure.kind, ErrorKind::Unreachable(_) | ErrorKind::TlsUntrusted)
            });
            let skip = if endpoint.only_if_unreachable {
                !plain && !unreachable
            } else {
                plain
            };
            if skip {
                continue;
            }
            let result = attempt(endpoint);
            let answered = result
                .as_ref()
                .map_or_else(|failed| failed.failure.status.is_some(), |_| true);
            if endpoint.only_if_unreachable && answered {
                lock(&self.plain).insert(endpoint.base.authority.clone());
            }
            match result {
                Ok(value) => {
                    if purpose != Purpose::Push {
                        lock(&self.preferred).insert(key(reference), endpoint.clone());
                    }
                    return Ok(value);
                }
                Err(failed) => {
                    let last = failed.is_final();
                    failures.push(*failed.failure);
                    if last {
                        break;
                    }
                }
            }
        }
        let last = failures.pop().unwrap_or_else(|| {
            unusable_registry(&reference.registry, "no endpoint is left to ask".to_owned())
        });
        Err(Error::new(operation, reference, failures, last))
    }

    fn candidates(
        &self,
        reference: &Reference,
        purpose: Purpose,
    ) -> std::result::Result<Vec<Endpoint>, String> {
        let mut endpoints = match purpose {
            Purpose::Push => return self.endpoints.for_push(reference),
            Purpose::Name | Purpose::Content => self.endpoints.for_pull(reference)?,
        };
        if purpose == Purpose::Content
            && let Some(preferred) = lock(&self.preferred).get(&key(reference))
            && let Some(index) = endpoints.iter().position(|endpoint| endpoint == preferred)
        {
            // A fallback to plain HTTP stays behind the HTTPS endpoint that it belongs to.
            if !preferred.only_if_unreachable {
                endpoints[..=index].rotate_right(1);
            }
        }
        Ok(endpoints)
    }

    /// Repeats `attempt` as the policy says.
    pub(crate) fn retrying<T>(
        &self,
        url: &Url,
        mut attempt: impl FnMut() -> std::result::Result<T, Failed>,
    ) -> std::result::Result<T, Failed> {
        let mut retries = Retries::new(&self.config);
        loop {
            retries.check(url)?;
            match attempt() {
                Ok(value) => return Ok(value),
                Err(failed) => retries.pause(failed)?,
            }
        }
    }

    /// One authorized exchange; a 401 is answered once. Any other status is the caller's to judge.
    pub(crate) fn call(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
        request: &Plain<'_>,
    ) -> std::result::Result<(Response, Authorization), Failed> {
        let authorization = self.authenticator.first(&self.transport, endpoint, scope)?;
        let send = |authorization: &Authorization| {
            // An upload's or a page's address may be on another host, which gets no credentials.
            let header = authorization
                .header
                .as_deref()
                .filter(|_| request.url.same_origin(&endpoint.base));
            self.transport
                .send(request.clone().into(), header)
                .map_err(|error| Failed::transport(error, &authorization.state))
        };
        let response = send(&authorization)?;
        // A refusal by another host (after a redirect) is none of our credentials' business.
        if response.status != 401 || !response.url.same_origin(&endpoint.base) {
            return Ok((response, authorization));
        }
        let authorization =
            self.authenticator
                .after_refusal(&self.transport, endpoint, scope, response, &authorization)?;
        let response = send(&authorization)?;
        Ok((response, authorization))
    }

    /// [`call`](Self::call), with every status but 2xx as an error.
    pub(crate) fn call_ok(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
        request: &Plain<'_>,
    ) -> std::result::Result<(Response, Authorization), Failed> {
        let (response, authorization) = self.call(endpoint, scope, request)?;
        if response.status.is_success() {
            return Ok((response, authorization));
        }
        Err(Failed::status(response, &authorization.state))
    }
}

/// Counts attempts and waits between them.
pub(crate) struct Retries<'a> {
    config: &'a ClientConfig,
    tried: u32,
}

impl<'a> Retries<'a> {
    pub(crate) fn new(config: &'a ClientConfig) -> Self {
        Self { config, tried: 0 }
    }

    /// There was progress: the next trouble is a new one.
    pub(crate) fn reset(&mut self) {
        self.tried = 0;
    }

    pub(crate) fn check(&self, url: &Url) -> std::result::Result<(), Failed> {
        self.config.clock.check().map_err(|_| Failed::interrupted(url))
    }

    /// Waits until the next attempt, or gives the failure back when there is to be none.
    pub(crate) fn pause(&mut self, mut failed: Failed) -> std::result::Result<(), Failed> {
        let policy = &self.config.retry;
        self.tried += 1;
        let attempts = match failed.retry {
            Retry::Never => return Err(failed),
            Retry::Connect => policy.connect_attempts,
            Retry::Again | Retry::After(_) => policy.attempts,
        };
        if self.tried >= attempts {
            if self.tried > 1 {
                failed.failure.cause = format!("{}, after {} attempts", failed.failure.cause, self.tried);
            }
            return Err(failed);
        }
        let wait = match failed.retry {
            Retry::After(wait) if wait > policy.retry_after_limit => {
                failed.failure.cause = format!("{}, come back in {}", failed.failure.cause, in_words(wait));
                return Err(failed);
            }
            // Not sooner than we would come by ourselves: "0" is a common value.
            Retry::After(wait) => wait.max(policy.wait(self.tried, jitter())),
            _ => policy.wait(self.tried, jitter()),
        };
        if self.config.clock.sleep(wait).is_err() {
            failed.failure.kind = ErrorKind::Interrupted;
            return Err(failed);
        }
        Ok(())
    }
}

/// A wait that is too long, as somebody would say it.
fn in_words(wait: Duration) -> String {
    const DAY: u64 = 24 * 60 * 60;
    match wait.as_secs() {
        seconds if seconds < 2 * DAY => format!("{seconds} s"),
        seconds if seconds < 365 * DAY => format!("{} days", seconds / DAY),
        _ => "more than a year".to_owned(),
    }
}

/// A random byte. The standard library's hash keys are the only randomness needed here.
fn jitter() -> u8 {
    RandomState::new().build_hasher().finish() as u8
}

fn key(reference: &Reference) -> (String, String) {
    (reference.registry.clone(), reference.repository.clone())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every value behind these locks is consistent at every point.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unusable_registry(registry: &str, reason: String) -> Failure {
    Failure {
        kind: ErrorKind::Protocol,
        host: registry.to_owned(),
        url: registry.to_owned(),
        status: None,
        code: None,
        message: None,
        auth: AuthState::Anonymous,
        cause: reason,
        source: None,
    }
}
