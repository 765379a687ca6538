//! Plain HTTP for what is no registry: the transport of this client, without its protocol.
//!
//! Downloads from anywhere need what registries need: the machine's authorities, proxies, redirects that stay with
//! HTTP, patience and connections kept open. [`Client::http`] lends them; what a status means is up to the caller.

use std::fmt;
use std::io::Read as _;

use ureq::http::{Method, header};

use crate::client::{Client, Retries};
use crate::error::{AuthState, ErrorKind, Failure};
use crate::failed::{Failed, Retry};
use crate::response::content_range;
use crate::transport::{Payload, Request, Response};
use crate::url::Url;

pub use crate::response::parse_http_date as parse_date;

/// A request without a body.
#[derive(Debug, Clone)]
pub struct HttpRequest<'a> {
    /// `HEAD` instead of `GET`.
    pub head: bool,
    /// An `http` or `https` URL. User information in it is not sent.
    pub url: &'a str,
    /// Headers, by lower-case name.
    pub headers: Vec<(&'static str, String)>,
    /// Value of the `Authorization` header. It does not follow a redirect to another origin.
    pub authorization: Option<&'a str>,
}

/// The transport of a client.
#[derive(Debug, Clone, Copy)]
pub struct Http<'c> {
    client: &'c Client,
}

/// An answer whose body has not been read.
#[derive(Debug)]
pub struct HttpResponse {
    response: Response,
}

/// An exchange that failed, and whether another attempt may help.
#[derive(Debug)]
pub struct HttpFailure(Failed);

/// Attempts of one exchange: counts them and waits between them, as the client's policy says.
pub struct Attempts<'c> {
    retries: Retries<'c>,
}

impl fmt::Debug for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Attempts")
    }
}

impl Client {
    /// This client's transport, for other than registries.
    pub fn http(&self) -> Http<'_> {
        Http { client: self }
    }
}

impl<'c> Http<'c> {
    /// One exchange, redirects included. Every status is the caller's to judge.
    pub fn send(&self, request: &HttpRequest<'_>) -> Result<HttpResponse, HttpFailure> {
        let url = Url::parse(request.url)
            .map_err(|error| HttpFailure::unusable(request.url, format!("no usable URL: {error}")))?;
        let mut headers = Vec::with_capacity(request.headers.len());
        for (name, value) in &request.headers {
            headers.push((header::HeaderName::from_static(name), value.clone()));
        }
        let method = if request.head { Method::HEAD } else { Method::GET };
        let sent = self.client.transport.send(
            Request {
                method,
                url,
                headers,
                payload: Payload::None,
                patience: self.client.config.retry.stall_timeout,
            },
            request.authorization,
        );
        match sent {
            Ok(response) => Ok(HttpResponse { response }),
            Err(error) => Err(HttpFailure(Failed::transport(error, &AuthState::Anonymous))),
        }
    }

    /// A count of attempts.
    pub fn attempts(&self) -> Attempts<'c> {
        Attempts {
            retries: Retries::new(&self.client.config),
        }
    }
}

impl HttpResponse {
    /// The status.
    pub fn status(&self) -> u16 {
        self.response.status.as_u16()
    }

    /// A header that is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.header(name)
    }

    /// How many bytes the body is said to have.
    pub fn content_length(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// Where a partial body (status 206) begins.
    pub fn range_start(&self) -> Option<u64> {
        let (start, _) = self.response.header("content-range").and_then(content_range)?;
        Some(start)
    }

    /// Reads some of the body; 0 is its end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, HttpFailure> {
        loop {
            let read = self.response.reader().read(buffer);
            match read {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let failed = Failed::body(&self.response.url, error, &AuthState::Anonymous);
                    return Err(HttpFailure(failed));
                }
            }
        }
    }

    /// The body is shorter than it was said to be: worth another attempt.
    pub fn cut(&self) -> HttpFailure {
        let error = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        HttpFailure(Failed::body(&self.response.url, error, &AuthState::Anonymous))
    }

    /// The answer as a failure, with what its body says about it.
    pub fn into_failure(self) -> HttpFailure {
        HttpFailure(Failed::status(self.response, &AuthState::Anonymous))
    }

    /// The answer is not what was asked for, and another attempt will tell.
    pub fn into_repeatable(self, cause: &str) -> HttpFailure {
        let mut failed = Failed::protocol(&self.response.url, cause.to_owned());
        failed.retry = Retry::Again;
        HttpFailure(failed)
    }
}

impl HttpFailure {
    fn unusable(url: &str, cause: String) -> Self {
        Self(Failed {
            failure: Box::new(Failure {
                kind: ErrorKind::Protocol,
                host: String::new(),
                url: url.to_owned(),
                status: None,
                code: None,
                message: None,
                auth: AuthState::Anonymous,
                cause,
                source: None,
            }),
            retry: Retry::Never,
        })
    }

    /// What happened.
    pub fn failure(&self) -> &Failure {
        &self.0.failure
    }

    /// What happened, to keep.
    pub fn into_failure(self) -> Failure {
        *self.0.failure
    }
}

impl Attempts<'_> {
    /// There was progress: the next trouble is a new one.
    pub fn reset(&mut self) {
        self.retries.reset();
    }

    /// Waits until the next attempt, or gives the failure back when there is to be none.
    pub fn pause(&mut self, failure: HttpFailure) -> Result<(), HttpFailure> {
        self.retries.pause(failure.0).map_err(HttpFailure)
    }
}
