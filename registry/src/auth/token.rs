//! Tokens, and the services that give them out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::http::{Method, header};

use super::{Authorization, Scope, basic};
use crate::challenge::Challenge;
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

/// A token, and until when it is used.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) authorization: Authorization,
    pub(super) expires: Instant,
}

/// A token service that a challenge names, and what to ask it for.
pub(super) struct TokenService<'a> {
    config: &'a ClientConfig,
    realm: Url,
    service: Option<String>,
    scopes: Vec<String>,
    /// Credentials may go there: it is as safe as the registry itself.
    safe: bool,
}

impl<'a> TokenService<'a> {
    pub(super) fn new(
        config: &'a ClientConfig,
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
            config,
            realm,
            service: challenge.parameter("service").map(str::to_owned),
            scopes: scope.with_challenge(challenge.parameter("scope")),
            safe,
        })
    }

    pub(super) fn ask(
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
            patience: self.config.retry.stall_timeout,
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
            expires: self.config.clock.now() + life.saturating_sub(EXPIRY_MARGIN.min(life / 2)),
        })
    }
}

fn is_header_safe(token: &str) -> bool {
    (1..=TOKEN_LENGTH).contains(&token.len()) && token.bytes().all(|byte| (0x21..0x7f).contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::is_header_safe;

    #[test]
    fn tokens_that_would_break_the_header_are_refused() {
        assert!(is_header_safe("eyJhbGciOi.J9-_"));
        for token in ["", "a b", "a\r\nX: y", "ä"] {
            assert!(!is_header_safe(token), "{token:?}");
        }
    }
}
