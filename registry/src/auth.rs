//! Who we are to a registry: challenges answered with tokens and passwords.
//!
//! Tokens are kept per (origin, [`Scope`]) until shortly before they expire; the challenge of an origin
//! is kept too, so that the next repository's token is fetched without asking for a challenge first.
//! Threads that need the same token wait for one fetch from the [`TokenService`].

mod scope;
mod token;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use ureq::http::header;

use self::token::{Token, TokenService};
use crate::challenge::{Challenge, parse_challenges};
use crate::config::ClientConfig;
use crate::docker_config::{Credentials, Secret};
use crate::endpoint::Endpoint;
use crate::error::{AuthState, ErrorKind};
use crate::failed::Failed;
use crate::transport::{Response, Transport};
use crate::url::Url;

pub(crate) use self::scope::Scope;

/// An `Authorization` header and whom it makes us.
#[derive(Debug, Clone, Default)]
pub(crate) struct Authorization {
    pub(crate) header: Option<Arc<str>>,
    pub(crate) state: AuthState,
}

type Slot = Arc<Mutex<Option<Token>>>;

/// Credentials of one host, looked up once.
#[derive(Debug, Clone)]
struct Known {
    credentials: Option<Credentials>,
    state: AuthState,
}

/// Answers challenges. Shared by all threads of a client.
#[derive(Debug)]
pub(crate) struct Authenticator {
    config: ClientConfig,
    challenges: Mutex<HashMap<String, Challenge>>,
    tokens: Mutex<HashMap<(String, Scope), Slot>>,
    credentials: Mutex<HashMap<String, Known>>,
}

impl Authenticator {
    pub(crate) fn new(config: &ClientConfig) -> Self {
        Self {
            config: config.clone(),
            challenges: Mutex::default(),
            tokens: Mutex::default(),
            credentials: Mutex::default(),
        }
    }

    /// What to send before the server has complained. Nothing for a host that never did.
    pub(crate) fn first(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        scope: &Scope,
    ) -> Result<Authorization, Failed> {
        let challenge = lock(&self.challenges).get(&origin(&endpoint.base)).cloned();
        match challenge {
            Some(challenge) => self.answer(transport, endpoint, scope, &challenge, None),
            None => Ok(Authorization::default()),
        }
    }

    /// What to send after a 401. `refused` is what was sent; an error if nothing better is known.
    pub(crate) fn after_refusal(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        scope: &Scope,
        response: Response,
        refused: &Authorization,
    ) -> Result<Authorization, Failed> {
        let challenges: Vec<Challenge> = response
            .headers
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse_challenges)
            .collect();
        // A token says less than a password, so it goes first when both would do.
        let challenge = ["bearer", "basic"]
            .iter()
            .find_map(|scheme| challenges.iter().find(|challenge| challenge.scheme == *scheme));
        let Some(challenge) = challenge.cloned() else {
            return Err(Failed::status(response, &self.known(&endpoint.credentials).state));
        };
        if challenge.scheme == "basic" {
            let known = self.known(&endpoint.credentials);
            if known.credentials.is_none() || refused.header.is_some() {
                return Err(Failed::status(response, &known.state));
            }
        }
        // The connection goes back before the token is asked for: it may be the same host.
        drop(response);
        lock(&self.challenges).insert(origin(&endpoint.base), challenge.clone());
        self.answer(transport, endpoint, scope, &challenge, refused.header.as_deref())
    }

    fn answer(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        scope: &Scope,
        challenge: &Challenge,
        refused: Option<&str>,
    ) -> Result<Authorization, Failed> {
        let known = self.known(&endpoint.credentials);
        if let Some(Credentials {
            secret: Secret::RegistryToken(token),
            ..
        }) = &known.credentials
        {
            return Ok(Authorization {
                header: Some(format!("Bearer {token}").into()),
                state: known.state,
            });
        }
        if challenge.scheme == "basic" {
            let header = known.credentials.as_ref().and_then(basic).map(Arc::from);
            return Ok(Authorization {
                header,
                state: known.state,
            });
        }
        let slot = Arc::clone(
            lock(&self.tokens)
                .entry((origin(&endpoint.base), scope.clone()))
                .or_default(),
        );
        let mut token = lock(&slot);
        if let Some(token) = token.as_ref() {
            let fresh = self.config.clock.now() < token.expires;
            if fresh && token.authorization.header.as_deref() != refused {
                return Ok(token.authorization.clone());
            }
        }
        *token = None;
        let fetched = self.fetch(transport, endpoint, scope, challenge, &known)?;
        Ok(token.insert(fetched).authorization.clone())
    }

    fn fetch(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        scope: &Scope,
        challenge: &Challenge,
        known: &Known,
    ) -> Result<Token, Failed> {
        let service = TokenService::new(&self.config, endpoint, scope, challenge)?;
        let Some(credentials) = &known.credentials else {
            return service.ask(transport, None, &known.state);
        };
        match service.ask(transport, Some(credentials), &known.state) {
            // A public image must not become unreachable because an old password lies around.
            Err(failed)
                if scope.is_pull_only()
                    && matches!(failed.failure.kind, ErrorKind::Unauthorized | ErrorKind::Denied) =>
            {
                let name = user_name(credentials).to_owned();
                service
                    .ask(transport, None, &AuthState::Refused { name })
                    .map_err(|_| failed)
            }
            result => result,
        }
    }

    fn known(&self, host: &str) -> Known {
        let mut cache = lock(&self.credentials);
        if let Some(known) = cache.get(host) {
            return known.clone();
        }
        let known = match self
            .config
            .docker_config
            .as_ref()
            .map(|config| config.credentials(host))
        {
            None | Some(Ok(None)) => Known {
                credentials: None,
                state: AuthState::Anonymous,
            },
            Some(Ok(Some(credentials))) => {
                let name = user_name(&credentials).to_owned();
                let state = match &credentials.helper {
                    Some(helper) => AuthState::Helper {
                        helper: helper.clone(),
                        name,
                    },
                    None => AuthState::User { name },
                };
                Known {
                    credentials: Some(credentials),
                    state,
                }
            }
            Some(Err(error)) => Known {
                credentials: None,
                state: AuthState::HelperFailed {
                    helper: error.helper,
                    reason: error.reason,
                },
            },
        };
        cache.insert(host.to_owned(), known.clone());
        known
    }
}

fn basic(credentials: &Credentials) -> Option<String> {
    match &credentials.secret {
        Secret::Password { username, password } => Some(format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"))
        )),
        Secret::IdentityToken(_) | Secret::RegistryToken(_) => None,
    }
}

fn user_name(credentials: &Credentials) -> &str {
    match &credentials.secret {
        Secret::Password { username, .. } => username,
        Secret::IdentityToken(_) | Secret::RegistryToken(_) => "<token>",
    }
}

fn origin(url: &Url) -> String {
    format!("{}://{}", url.scheme(), url.authority)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Every value behind these locks is consistent at every point.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
