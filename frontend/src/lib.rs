//! What each Dockerfile instruction means: from the syntax tree to the build graph and the image config.
//!
//! [`lower`] takes a parsed [`kiln_parser::Dockerfile`] and [`LowerOptions`] and yields a [`Lowered`]: the
//! [`kiln_solver::graph::Graph`] of everything that the target stage needs, the vertex whose snapshot is the
//! image's root file system, and the image's configuration with its full history.
//!
//! The way of a Dockerfile through this crate:
//!
//! 1. `scope` evaluates the global ARGs (predefined ones included) under the given build arguments;
//! 2. `stage` makes the stage table: what each stage starts from and which stages and images its COPYs name,
//!    and finds out which stages the target needs. Only those are looked at further;
//! 3. the images of those stages are resolved, in parallel, by the caller's [`ImageResolver`]; ONBUILD
//!    triggers of base images (and of stages) may bring new dependencies, so this repeats until none come;
//! 4. each stage is lowered in file order: `instruction` has one file an instruction; it changes the stage's
//!    `state` and appends steps, and `step` gives the steps their names and puts them into the graph.
//!
//! Invariants:
//!
//! - nothing here reads a file, an environment variable or a network: images come from the resolver, all else
//!   from the arguments;
//! - the target's snapshot is the base image's layers plus exactly one layer for each history entry added here
//!   that is not marked empty, in order;
//! - a flag that this release does not carry out is an error at its place (`unsupported`), never ignored.

mod budget;
mod build;
mod cache;
mod change;
mod checks;
mod config;
mod contexts;
mod display;
mod environment;
mod expansion;
mod export;
mod fetch;
mod history;
mod images;
mod instruction;
mod lint;
mod local;
mod lower;
mod naming;
mod onbuild;
mod options;
mod outline;
mod path;
mod platforms;
mod record;
mod remote;
mod resolve;
mod resolver;
mod scope;
mod settle;
mod stage;
mod state;
mod step;
mod survey;
mod unpack;
mod unsupported;
mod why;

pub use build::{
    BuildError, BuildRequest, Built, BuiltImage, MainContext, build, check_build, outline_build,
};
pub use change::{ChangeError, changed_config};
pub use checks::{Findings, check};
pub use contexts::{
    ContextImage, ContextValue, ImageLocation, LayoutImage, NamedContextError, NamedContexts,
};
pub use fetch::{Fetch, FetchError, FetchedContext, RemoteContext, fetch_context, fetch_file};
pub use lower::{Lowered, UnusedBuildArg, lower};
pub use options::{Entitlement, LowerOptions};
pub use outline::{Outline, OutlineArgument, OutlineNeed, Target, outline, targets};
pub use record::{BuildOutcome, BuildRecord};
pub use resolve::{
    ImageResolver, RemoteFailure, RemoteResolver, ResolveError, ResolveErrorKind, ResolvedImage, Resolver,
};
pub use unpack::{ARCHIVE_START, UnpackError, UnpackedContext, is_archive, unpack_context};
pub use why::build_before;

#[cfg(test)]
mod cases;
#[cfg(test)]
mod check_cases;
#[cfg(test)]
mod testing;

/// Name of the main local context, as in `Source::Local`.
pub(crate) const MAIN_CONTEXT: &str = "context";
