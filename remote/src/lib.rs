//! Sources beyond the machine: a file by HTTP, and the files of a git repository.
//!
//! [`http::fetch`] downloads one file, or finds out that a remembered one is unchanged. [`git::Repositories`]
//! turns a [`git::GitAddress`] into a commit and a commit into a directory. Both say what they found by its
//! content (a digest, a commit's hash), so that their callers can make keys of it; neither knows the store, a
//! build or a Dockerfile.
//!
//! Everything from the network is foreign: bodies are bounded, names are checked, redirects stay with HTTP,
//! and git runs without hooks, prompts, or settings that it finds in a repository.

mod caller;
pub mod git;
pub mod http;
mod percent;

pub use caller::{Caller, Credentials, NoCredentials, SecretError};
