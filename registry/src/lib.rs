//! Client for container registries: the OCI distribution protocol, blocking, for use from many threads.
//!
//! A [`Client`] is made from a [`ClientConfig`] and shared. A pull is
//! [`Client::resolve`] (tag → digest), [`Client::manifest`] (verified bytes) and then, in parallel,
//! [`Client::fetch_blob`] for the config and each layer into a [`BlobSink`]. A push is
//! [`Client::blob_exists`], [`Client::mount_blob`], [`Client::put_blob`] from a [`BlobSource`] and
//! [`Client::put_manifest`].
//!
//! Every request goes the same way: the reference gives a list of endpoints (mirrors, then the
//! registry), the authenticator adds a token or password, the transport sends and follows redirects,
//! the retry policy decides about another attempt, and what remains is an [`Error`] that lists every
//! endpoint with its cause.
//!
//! ```text
//! impl Client {                                                   // Send + Sync
//!     pub fn new(config: ClientConfig) -> Result<Self, ConfigError>;
//!     pub fn resolve(&self, reference: &Reference, accept: &[&str]) -> Result<Resolved>;
//!     pub fn manifest(&self, reference: &Reference) -> Result<FetchedManifest>;
//!     pub fn manifest_by_digest(&self, reference: &Reference, digest: &Digest) -> Result<FetchedManifest>;
//!     pub fn fetch_blob(&self, reference: &Reference, blob: &Descriptor, sink: &mut dyn BlobSink,
//!                       progress: &dyn Fn(u64)) -> Result<()>;    // progress: bytes so far, absolute
//!     pub fn blob_exists(&self, reference: &Reference, blob: &Descriptor) -> Result<bool>;
//!     pub fn mount_blob(&self, reference: &Reference, digest: &Digest, from: &Reference) -> Result<bool>;
//!     pub fn put_blob(&self, reference: &Reference, blob: &Descriptor, source: &dyn BlobSource,
//!                     progress: &dyn Fn(u64)) -> Result<()>;
//!     pub fn put_manifest(&self, reference: &Reference, media_type: &str, bytes: &[u8]) -> Result<Digest>;
//!     pub fn tags(&self, reference: &Reference) -> Result<Vec<String>>;
//! }
//! ```
