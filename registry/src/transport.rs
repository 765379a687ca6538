//! One HTTP exchange: agents, connection limit, redirects.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ClientConfig as TlsSettings;
use ureq::http::{HeaderMap, Method, Request as HttpRequest, StatusCode, header};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector as _};
use ureq::{Agent, AsSendBody, Proxy, SendBody};

use crate::cause::classify;
use crate::config::{ClientConfig, Interrupted, Proxies};
use crate::error::{ConfigError, ErrorKind};
use crate::limit::{HostLimit, Permit};
use crate::lookup::Lookup;
use crate::pace::{Pace, Paced};
use crate::socket::SocketConnector;
use crate::tls::{self, TlsConnector};
use crate::url::Url;
use crate::{roots, url};

/// No registry needs more hops than a CDN in front of object storage (two or three).
const MAX_REDIRECTS: usize = 10;
/// Connections kept open for the next request are forgotten after this, before most servers
/// (nginx: 75 s, object stores: 20–60 s) close them under us.
const IDLE_AGE: Duration = Duration::from_secs(15);

/// A request, without authorization.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: Vec<(header::HeaderName, String)>,
    pub(crate) payload: Payload<'a>,
    /// How long the server may be silent.
    pub(crate) patience: Duration,
}

/// What goes along with a request.
pub(crate) enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    Stream {
        reader: &'a mut dyn Read,
        size: u64,
    },
    /// As much as the reader gives: nobody knows yet.
    Chunked(&'a mut dyn Read),
}

/// A response whose body has not been read. Holds a connection of the host's limit.
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// The URL that answered, after redirects.
    pub(crate) url: Url,
    body: ureq::Body,
    pace: Pace,
    _permit: Permit,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("url", &self.url.public())
            .finish_non_exhaustive()
    }
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn content_length(&self) -> Option<u64> {
        self.header("content-length")
            .and_then(|text| text.trim().parse().ok())
    }

    pub(crate) fn reader(&mut self) -> impl Read + '_ {
        Paced {
            inner: self.body.as_reader(),
            pace: &mut self.pace,
        }
    }

    /// The body, if it is no longer than `limit`; `Ok(None)` if it is.
    pub(crate) fn read_limited(&mut self, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        self.reader().take(limit + 1).read_to_end(&mut bytes)?;
        Ok((bytes.len() as u64 <= limit).then_some(bytes))
    }
}

/// An exchange that gave no response.
#[derive(Debug)]
pub(crate) struct TransportError {
    pub(crate) kind: ErrorKind,
    pub(crate) cause: String,
    pub(crate) url: Box<Url>,
    pub(crate) source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Sends requests. Shared by all threads of a client.
pub(crate) struct Transport {
    agents: Mutex<HashMap<AgentKey, Agent>>,
    limit: Arc<HostLimit>,
    verifying: Arc<TlsSettings>,
    unverified: Arc<TlsSettings>,
    config: ClientConfig,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct AgentKey {
    insecure: bool,
    proxy: Option<String>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport")
    }
}

impl Transport {
    pub(crate) fn new(config: &ClientConfig) -> Result<Self, ConfigError> {
        for (scheme, proxy) in [("http", &config.proxies.http), ("https", &config.proxies.https)] {
            if proxy.as_ref().is_some_and(|proxy| Proxy::new(proxy).is_err()) {
                return Err(ConfigError::Proxy { scheme });
            }
        }
        let roots = roots::store(&config.ca_bundles, &config.extra_ca_bundles)?;
        let tls =
            |settings: Result<TlsSettings, rustls::Error>| settings.map(Arc::new).map_err(ConfigError::Tls);
        Ok(Self {
            agents: Mutex::default(),
            limit: HostLimit::new(config.connections_per_host),
            verifying: tls(tls::verifying(roots))?,
            unverified: tls(tls::unverified())?,
            config: config.clone(),
        })
    }

    /// Sends, following redirects of requests that carry nothing. `authorization` goes to the
    /// request's own origin only.
    pub(crate) fn send(
        &self,
        mut request: Request<'_>,
        authorization: Option<&str>,
    ) -> Result<Response, TransportError> {
        let origin = request.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let authorization = authorization.filter(|_| request.url.same_origin(&origin));
            let response = self.exchange(&mut request, authorization)?;
            let follow = matches!(response.status.as_u16(), 301 | 302 | 303 | 307 | 308)
                && (request.method == Method::GET || request.method == Method::HEAD);
            let Some(location) = response.header("location").filter(|_| follow) else {
                return Ok(response);
            };
            request.url = response.url.join(location).map_err(|error| TransportError {
                kind: ErrorKind::Protocol,
                cause: format!("redirect to an unusable address: {error}"),
                url: Box::new(response.url.clone()),
                source: None,
            })?;
        }
        Err(TransportError {
            kind: ErrorKind::Protocol,
            cause: format!("more than {MAX_REDIRECTS} redirects"),
            url: Box::new(origin),
            source: None,
        })
    }

    fn exchange(
        &self,
        request: &mut Request<'_>,
        authorization: Option<&str>,
    ) -> Result<Response, TransportError> {
        let url = request.url.clone();
        let Ok(permit) = self.limit.acquire(&url.authority, &*self.config.clock) else {
            return Err(transport_error(io::Error::other(Interrupted).into(), url));
        };
        let result = self.agent(&url).map(|agent| match &mut request.payload {
            Payload::None if request.method == Method::GET || request.method == Method::HEAD => {
                run(&agent, request, authorization, None, ())
            }
            Payload::None => run(&agent, request, authorization, Some(0), &[][..]),
            Payload::Bytes(bytes) => {
                let bytes = *bytes;
                run(&agent, request, authorization, Some(bytes.len() as u64), bytes)
            }
            Payload::Stream { .. } | Payload::Chunked(_) => run_stream(&agent, request, authorization),
        });
        match result.and_then(|response| response) {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                Ok(Response {
                    status: parts.status,
                    headers: parts.headers,
                    url,
                    body,
                    pace: Pace::new(self.config.retry.stall_timeout),
                    _permit: permit,
                })
            }
            Err(error) => Err(transport_error(error, url)),
        }
    }

    fn agent(&self, url: &Url) -> Result<Agent, ureq::Error> {
        let key = AgentKey {
            insecure: self.config.insecure.contains(&url.authority),
            proxy: proxy_for(&self.config.proxies, url),
        };
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let agent = self.build_agent(&key)?;
        agents.insert(key, agent.clone());
        Ok(agent)
    }

    fn build_agent(&self, key: &AgentKey) -> Result<Agent, ureq::Error> {
        let per_host = self.config.connections_per_host.max(1);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(key.proxy.as_deref().map(Proxy::new).transpose()?)
            .user_agent(self.config.user_agent.as_str())
            .accept_encoding(ureq::config::AutoHeaderValue::None)
            .max_idle_connections(per_host * 4)
            .max_idle_connections_per_host(per_host)
            .max_idle_age(IDLE_AGE)
            .timeout_resolve(Some(self.config.retry.connect_timeout))
            .timeout_connect(Some(self.config.retry.connect_timeout))
            .timeout_per_write(Some(self.config.retry.stall_timeout))
            .build();
        let settings = if key.insecure {
            &self.unverified
        } else {
            &self.verifying
        };
        let connector =
            ().chain(ConnectProxyConnector::default())
                .chain(SocketConnector(Arc::clone(&self.config.clock)))
                .chain(TlsConnector(Arc::clone(settings)));
        let lookup = Lookup(Arc::clone(&self.config.clock));
        Ok(Agent::with_parts(config, connector, lookup))
    }
}

/// The proxy for a URL. Loopback is never reached through one.
fn proxy_for(proxies: &Proxies, target: &Url) -> Option<String> {
    let proxy = if target.https {
        &proxies.https
    } else {
        &proxies.http
    };
    let host = url::host(&target.authority);
    let direct = url::is_loopback(&target.authority)
        || proxies.no_proxy.iter().map(|entry| entry.trim()).any(|entry| {
            let suffix = entry.trim_start_matches('*').trim_start_matches('.');
            entry == "*"
                || entry.eq_ignore_ascii_case(&target.authority)
                || (!suffix.is_empty()
                    && (host.eq_ignore_ascii_case(suffix)
                        || host
                            .to_ascii_lowercase()
                            .ends_with(&format!(".{}", suffix.to_ascii_lowercase()))))
        });
    proxy.clone().filter(|_| !direct)
}

fn run(
    agent: &Agent,
    request: &Request<'_>,
    authorization: Option<&str>,
    length: Option<u64>,
    body: impl AsSendBody,
) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
    let mut builder = HttpRequest::builder()
        .method(request.method.clone())
        .uri(request.url.to_string());
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    if let Some(value) = authorization {
        builder = builder.header(header::AUTHORIZATION, value);
    }
    if let Some(length) = length {
        builder = builder.header(header::CONTENT_LENGTH, length);
    }
    let http = agent
        .configure_request(builder.body(body)?)
        .timeout_per_read(Some(request.patience))
        // A byte now and then is no answer either.
        .timeout_recv_response(Some(request.patience))
        .build();
    agent.run(http)
}

fn run_stream(
    agent: &Agent,
    request: &mut Request<'_>,
    authorization: Option<&str>,
) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
    let (reader, size) = match std::mem::replace(&mut request.payload, Payload::None) {
        Payload::Stream { reader, size } => (reader, size),
        // Without a length, the HTTP client says that the body is chunked.
        Payload::Chunked(mut reader) => {
            return run(
                agent,
                request,
                authorization,
                None,
                SendBody::from_reader(&mut reader),
            );
        }
        Payload::None | Payload::Bytes(_) => return Err(ureq::Error::RedirectFailed),
    };
    let mut exact = Exact { reader, left: size };
    run(
        agent,
        request,
        authorization,
        Some(size),
        SendBody::from_reader(&mut exact),
    )
}

/// A reader that ends exactly where it was said to: the HTTP client would wait for ever for bytes
/// that a source does not have.
struct Exact<'a> {
    reader: &'a mut dyn Read,
    left: u64,
}

/// A source had fewer bytes than were announced.
#[derive(Debug, thiserror::Error)]
#[error("it is shorter than its descriptor says")]
pub(crate) struct TooShort;

impl Read for Exact<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        match self.reader.read(&mut buffer[..most])? {
            0 => Err(io::Error::other(TooShort)),
            count => {
                self.left -= count as u64;
                Ok(count)
            }
        }
    }
}

fn transport_error(error: ureq::Error, url: Url) -> TransportError {
    let (kind, cause) = classify(&error);
    TransportError {
        kind,
        cause,
        url: Box::new(url),
        source: Some(Box::new(error)),
    }
}
