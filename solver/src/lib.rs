//! Build graph, cache keys, scheduling, events.
//!
//! A frontend makes a [`graph::Graph`] of operations shaped like BuildKit's LLB. An [`Engine`] solves it:
//!
//! 1. `key` says what makes two steps the same; `solve` looks the keys up and finds what has to run;
//! 2. `schedule` decides when each vertex may run, `execute` runs one: a process (`process`, with its `mounts`) or
//!    file actions (`file`); images are downloaded ([`image`]);
//! 3. what a step changed becomes a layer of the store, and records make it findable under its keys;
//! 4. `export` completes the image's configuration and gives the image its name.
//!
//! Everything that happens is told as [`event::Event`]s. Nothing here knows a Dockerfile keyword, how a
//! sandbox is made, or how a registry speaks; nothing prints or reads the environment.

mod at_once;
mod cancel;
mod compressed;
mod context;
mod diff_ids;
mod direct;
mod engine;
mod error;
pub mod event;
mod execute;
mod export;
mod file;
mod files;
mod filter;
mod following;
pub mod graph;
pub mod image;
mod import;
mod join;
mod key;
mod lazy;
mod lend;
pub mod limits;
mod load;
mod mounts;
mod narrow;
mod output;
mod platform;
mod process;
mod pump;
mod push;
mod redact;
pub mod remote;
pub mod remote_cache;
pub mod report;
mod roots;
mod save;
mod schedule;
mod secret;
mod select;
mod solve;
pub mod ssh;
mod take;
pub mod task;
#[cfg(test)]
mod testing;
pub mod verify;
pub mod why;

pub use at_once::at_once;
pub use cancel::{Cancel, CancelGuard};
pub use compressed::{CompressError, LayerCompression};
pub use context::{ContextError, ContextPolicy, LocalContext, LocalKind};
pub use diff_ids::DiffIdError;
pub use engine::{Engine, EngineSettings};
pub use error::{SolveError, StepError, StepFailure, chain};
pub use export::Exported;
pub use export::ExportedIndex;
pub use files::{FilesError, WrittenFiles};
pub use import::{ImportError, ImportRequest};
pub use join::Joiner;
pub use lazy::{LazyImage, Needs};
pub use load::{LoadError, LoadRequest, LoadSource, Loaded};
pub use platform::{CannotRun, emulator};
pub use push::{PushError, PushRequest, Pushed};
pub use report::{StepOutcome, StepReport};
pub use save::{SaveError, SaveRequest};
pub use secret::{MAX_SECRET_BYTES, SecretError, SecretSource, Secrets};
pub use solve::{Hook, Solution, SolveRequest, Solved, SolvedAll};
