//! The client against servers that misbehave on purpose. Everything happens on loopback.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failure in a helper is a failed test"
)]

#[path = "scripted/auth.rs"]
mod auth;
#[path = "scripted/blob.rs"]
mod blob;
#[path = "scripted/interrupted.rs"]
mod interrupted;
#[path = "scripted/manifest.rs"]
mod manifest;
#[path = "scripted/mirror.rs"]
mod mirror;
#[path = "scripted/push.rs"]
mod push;
#[path = "scripted/stream.rs"]
mod stream;
mod support;
#[path = "scripted/tls.rs"]
mod tls;
