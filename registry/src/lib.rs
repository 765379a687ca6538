//! Client for container registries: the OCI distribution protocol, blocking, for use from many threads.
//!
//! A [`Client`] is made from a [`ClientConfig`] and shared. A pull is
//! [`Client::resolve`] (tag → digest), [`Client::manifest`] (verified bytes) and then, in parallel,
//! [`Client::fetch_blob`] for the config and each layer into a [`BlobSink`]. A push is
//! [`Client::blob_exists`], [`Client::mount_blob`], [`Client::put_blob`] from a [`BlobSource`] and
//! [`Client::put_manifest`]; a blob that is still being made can go out meanwhile, by [`Client::stream_blob`].
//!
//! Every request goes the same way: the reference gives a list of endpoints (mirrors, then the
//! registry), the authenticator adds a token or password, the transport sends and follows redirects,
//! the retry policy decides about another attempt, and what remains is an [`Error`] that lists every
//! endpoint with its cause.
//!
//! Schemes: HTTPS, except that loopback hosts are asked over plain HTTP, and hosts that are configured
//! as insecure over HTTPS without verification and then over plain HTTP.

mod auth;
mod blob;
mod cause;
mod challenge;
mod client;
mod config;
mod docker_config;
mod endpoint;
mod error;
mod failed;
pub mod http;
mod limit;
mod login;
mod lookup;
mod manifest;
mod pace;
mod push;
mod pushed;
mod response;
pub mod roots;
mod sink;
mod socket;
mod stream;
mod tags;
mod tls;
mod transport;
mod upload;
mod url;
mod wait;

pub use challenge::{Challenge, parse_challenges};
pub use client::Client;
pub use config::{
    CONNECTIONS_PER_HOST, ClientConfig, Clock, Interrupted, MANIFEST_LIMIT, Mirror, Proxies, RetryPolicy,
    SystemClock,
};
pub use docker_config::{
    Credentials, DockerConfig, DockerConfigError, HelperError, KeepError, Keeper, Secret,
};
pub use error::{AuthState, ConfigError, Error, ErrorKind, Failure, Result, Unreachable};
pub use login::server_host;
pub use manifest::{ACCEPT_MANIFESTS, FetchedManifest, Resolved};
pub use sink::{BlobSink, BlobSource};
pub use stream::Streamed;
