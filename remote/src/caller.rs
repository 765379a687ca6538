//! What a transfer needs from the one who asked for it: secrets, an ear for progress, a way to stop.

use std::fmt;
use std::path::PathBuf;

/// A secret that exists and cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("secret {id}: {reason}")]
pub struct SecretError {
    /// Its id.
    pub id: String,
    /// Why not.
    pub reason: String,
}

/// Hands out what proves to a server who asks.
pub trait Credentials: fmt::Debug + Sync {
    /// The secret called `id`; `None` when the build has none of that name.
    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, SecretError>;

    /// The socket of an SSH agent for git over SSH; `None` leaves it to the environment.
    fn ssh_agent(&self) -> Option<PathBuf> {
        None
    }
}

/// No secrets at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCredentials;

impl Credentials for NoCredentials {
    fn secret(&self, _id: &str) -> Result<Option<Vec<u8>>, SecretError> {
        Ok(None)
    }
}

/// The one who asked for a transfer.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// Secrets.
    pub credentials: &'a dyn Credentials,
    /// Told of bytes received and, when the server has said so, of how many there will be.
    pub progress: &'a (dyn Fn(u64, Option<u64>) + Sync),
    /// Asked now and then; true ends the transfer.
    pub canceled: &'a (dyn Fn() -> bool + Sync),
}

impl fmt::Debug for Caller<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

impl Default for Caller<'_> {
    /// Nobody: no secrets, no progress, no end.
    fn default() -> Self {
        Self {
            credentials: &NoCredentials,
            progress: &|_, _| {},
            canceled: &|| false,
        }
    }
}
