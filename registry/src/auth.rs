//! Who we are to a registry: challenges answered with tokens and passwords.
//!
//! Tokens are kept per (origin, scope) until shortly before they expire; the challenge of an origin
//! is kept too, so that the next repository's token is fetched without asking for a challenge first.
//! Threads that need the same token wait for one fetch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde::Deserialize;
use ureq::http::{Method, header};

use crate::challenge::{Challenge, parse_challenges};
use crate::config::ClientConfig;
use crate::docker_config::{Credentials, Secret};
use crate::endpoint::Endpoint;
use crate::error::{AuthState, ErrorKind};
use crate::failed::Failed;
use crate::transport::{Payload, Request, Response, Transport};
use crate::url::{Url, escape};

/// What a token without `expires_in` lives (distribution token specification).
const DEFAULT_LIFE: Duration = Duration::from_mins(1);
/// A token is not used in its last seconds: the request must still arrive.
const EXPIRY_MARGIN: Duration = Duration::from_secs(10);
/// Tokens are a few KiB, with many scopes some dozen.
const TOKEN_LIMIT: u64 = 1024 * 1024;
/// Bytes of a token itself. Servers take headers of 8 to 64 KiB.
const TOKEN_LENGTH: usize = 48 * 1024;
/// Name under which we ask for OAuth2 tokens.
const CLIENT_ID: &str = "kiln";

/// What a request wants to do, in the words of the token service: one entry a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Scope(Vec<String>);

impl Scope {
    pub(crate) fn pull(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull")])
    }

    pub(crate) fn push(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull,push")])
    }

    /// Nothing but being known.
    pub(crate) fn nothing() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn and_pull(mut self, repository: &str) -> Self {
        self.0.push(format!("repository:{repository}:pull"));
        self
    }

    fn is_pull_only(&self) -> bool {
        // Who only wants to be known must not be answered as nobody.
        !self.0.is_empty() && self.0.iter().all(|entry| entry.ends_with(":pull"))
    }

    /// This scope and what the challenge asks for: a proxy may know the repository by another name.
    fn with_challenge(&self, challenge: Option<&str>) -> Vec<String> {
        let mut entries = self.0.clone();
        for entry in challenge
            .unwrap_or_default()
            .split(' ')
            .filter(|entry| !entry.is_empty())
        {
            let covered = entries
                .iter()
                .any(|own| match (own.rsplit_once(':'), entry.rsplit_once(':')) {
                    (Some((own_name, own_actions)), Some((name, actions))) => {
                        own_name == name
                            && actions
                                .split(',')
                                .all(|action| own_actions.split(',').any(|own| own == action))
                    }
                    _ => false,
                });
            if !covered {
                entries.push(entry.to_owned());
            }
        }
        entries
    }
}

/// An `Authorization` header and whom it makes us.
#[derive(Debug, Clone, Default)]
pub(crate) struct Authorization {
    pub(crate) header: Option<Arc<str>>,
    pub(crate) state: AuthState,
}

#[derive(Debug)]
struct Token {
    authorization: Authorization,
    expires: Instant,
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
        let service = TokenService::new(self, endpoint, scope, challenge)?;
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

/// A token service that a challenge names, and what to ask it for.
struct TokenService<'a> {
    authenticator: &'a Authenticator,
    realm: Url,
    service: Option<String>,
    scopes: Vec<String>,
    /// Credentials may go there: it is as safe as the registry itself.
    safe: bool,
}

impl<'a> TokenService<'a> {
    fn new(
        authenticator: &'a Authenticator,
        endpoint: &Endpoint,
        scope: &Scope,
        challenge: &Challenge,
    ) -> Result<Self, Failed> {
        let realm = challenge.parameter("realm").unwrap_or_default();
        if realm.is_empty() {
            return Err(Failed::protocol(
                &endpoint.base,
                "the challenge names no token service".to_owned(),
            ));
        }
        let realm = endpoint.base.join(realm).map_err(|error| {
            Failed::protocol(
                &endpoint.base,
                format!("the challenge names an unusable token service: {error}"),
            )
        })?;
        let safe = realm.https || realm.is_loopback() || !endpoint.base.https;
        Ok(Self {
            authenticator,
            realm,
            service: challenge.parameter("service").map(str::to_owned),
            scopes: scope.with_challenge(challenge.parameter("scope")),
            safe,
        })
    }

    fn ask(
        &self,
        transport: &Transport,
        credentials: Option<&Credentials>,
        state: &AuthState,
    ) -> Result<Token, Failed> {
        if credentials.is_some() && !self.safe {
            let cause = "the registry uses HTTPS but wants the password sent to a plain HTTP token service";
            return Err(Failed::protocol(&self.realm, cause.to_owned()));
        }
        let form;
        let mut authorization = None;
        let request = match credentials.map(|credentials| &credentials.secret) {
            Some(Secret::IdentityToken(refresh)) => {
                form = self.form(refresh);
                self.request(Method::POST, self.realm.clone(), Payload::Bytes(form.as_bytes()))
            }
            secret => {
                let mut url = self.realm.clone();
                if let Some(service) = &self.service {
                    url = url.with_query("service", service);
                }
                for scope in &self.scopes {
                    url = url.with_query("scope", scope);
                }
                if let Some(Secret::Password { username, .. }) = secret {
                    url = url
                        .with_query("account", username)
                        .with_query("client_id", CLIENT_ID);
                    authorization = credentials.and_then(basic);
                }
                self.request(Method::GET, url, Payload::None)
            }
        };
        let response = transport
            .send(request, authorization.as_deref())
            .map_err(|error| Failed::transport(error, state))?;
        self.read(response, state)
    }

    fn form(&self, refresh: &str) -> String {
        let mut pairs = vec![
            ("grant_type", "refresh_token".to_owned()),
            ("client_id", CLIENT_ID.to_owned()),
            ("scope", self.scopes.join(" ")),
            ("refresh_token", refresh.to_owned()),
        ];
        if let Some(service) = &self.service {
            pairs.push(("service", service.clone()));
        }
        let pairs: Vec<String> = pairs
            .iter()
            .map(|(name, value)| format!("{name}={}", escape(value)))
            .collect();
        pairs.join("&")
    }

    fn request<'b>(&self, method: Method, url: Url, payload: Payload<'b>) -> Request<'b> {
        let mut headers = vec![(header::ACCEPT, "application/json".to_owned())];
        if matches!(payload, Payload::Bytes(_)) {
            headers.push((
                header::CONTENT_TYPE,
                "application/x-www-form-urlencoded".to_owned(),
            ));
        }
        Request {
            method,
            url,
            headers,
            payload,
            patience: self.authenticator.config.retry.stall_timeout,
        }
    }

    fn read(&self, mut response: Response, state: &AuthState) -> Result<Token, Failed> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            token: Option<String>,
            #[serde(default)]
            access_token: Option<String>,
            #[serde(default)]
            expires_in: Option<u64>,
        }
        if !response.status.is_success() {
            // Services answer 400 for a refresh token that they do not accept (RFC 6749 section 5.2).
            let refused = response.status.as_u16() == 400 && !matches!(state, AuthState::Anonymous);
            let mut failed = Failed::status(response, state);
            if refused && failed.failure.code.as_deref() == Some("invalid_grant") {
                failed.failure.kind = ErrorKind::Unauthorized;
            }
            return Err(failed);
        }
        let bytes = response
            .read_limited(TOKEN_LIMIT)
            .map_err(|error| Failed::body(&self.realm, error, state))?;
        let answer: Option<Answer> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let (token, life) = match answer {
            Some(Answer {
                token,
                access_token,
                expires_in,
            }) => (
                access_token.or(token).filter(|token| is_header_safe(token)),
                expires_in.map_or(DEFAULT_LIFE, Duration::from_secs),
            ),
            None => (None, DEFAULT_LIFE),
        };
        let token = token.ok_or_else(|| {
            Failed::protocol(
                &self.realm,
                "the token service's answer holds no usable token".to_owned(),
            )
        })?;
        let header: Arc<str> = format!("Bearer {token}").into();
        // No token is kept for more than a day, whatever the service says.
        let life = life.min(Duration::from_hours(24));
        Ok(Token {
            authorization: Authorization {
                header: Some(header),
                state: state.clone(),
            },
            expires: self.authenticator.config.clock.now() + life.saturating_sub(EXPIRY_MARGIN.min(life / 2)),
        })
    }
}

fn is_header_safe(token: &str) -> bool {
    (1..=TOKEN_LENGTH).contains(&token.len()) && token.bytes().all(|byte| (0x21..0x7f).contains(&byte))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_take_in_the_challenge() {
        let cases: &[(Scope, Option<&str>, &[&str])] = &[
            (Scope::pull("a/b"), None, &["repository:a/b:pull"]),
            (
                Scope::pull("a/b"),
                Some("repository:a/b:pull"),
                &["repository:a/b:pull"],
            ),
            (
                Scope::push("a/b"),
                Some("repository:a/b:pull"),
                &["repository:a/b:pull,push"],
            ),
            (
                Scope::pull("b"),
                Some("repository:proxy/b:pull"),
                &["repository:b:pull", "repository:proxy/b:pull"],
            ),
            (
                Scope::push("a").and_pull("c"),
                Some("repository:c:pull repository:a:push,pull"),
                &["repository:a:pull,push", "repository:c:pull"],
            ),
        ];
        for (scope, challenge, want) in cases {
            assert_eq!(&scope.with_challenge(*challenge), want);
        }
    }

    #[test]
    fn tokens_that_would_break_the_header_are_refused() {
        assert!(is_header_safe("eyJhbGciOi.J9-_"));
        for token in ["", "a b", "a\r\nX: y", "ä"] {
            assert!(!is_header_safe(token), "{token:?}");
        }
    }
}
