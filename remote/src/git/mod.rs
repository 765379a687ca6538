//! Git repositories: an address to a commit, a commit to a directory.
//!
//! The machine's own `git` does the work (`program`): it knows the protocols, the credentials and the
//! servers' quirks. It runs without the system's and the user's settings (but for those of credentials and
//! HTTP), without hooks and prompts, and only for the protocols of an address.
//!
//! What was fetched stays in a bare repository a remote, so that the next commit costs its difference only.

mod address;
mod checkout;
mod credentials;
mod error;
mod keep;
mod lookup;
mod mirror;
mod program;
mod repositories;
mod submodules;
mod tidy;

pub use address::public as public_remote;
pub use address::{AddressError, Dialect, GitAddress, Modified};
pub use error::GitError;
pub use repositories::{Checkout, GitSettings, Repositories, ResolvedCommit, USER_ENVIRONMENT};
