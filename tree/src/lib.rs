//! Directory trees as data: what a layer, a build context or a merged root file system holds, and
//! safe operations on real directories.
//!
//! A [`Listing`] is a sorted list of [`Entry`]s: every path of a tree with its type, mode, owner, extended
//! attributes and, for files, the [`ContentHash`] of the bytes. It is made once when a layer is made
//! ([`walk::layer`]) or from a build context ([`walk::plain`]), kept on disk beside the layer, and from then on
//! answers questions about the tree without touching it: its content hash (the identity in cache keys),
//! what a path is, what two layers look like when merged ([`Listing::merge`]).
//!
//! A [`Root`] is an open directory in which every path is resolved as if it were `/`: neither symbolic links nor
//! `..` lead out of it, whatever the tree holds. All writes into a root file system go through it, and so does the
//! copy engine [`copy`], which brings entries of one tree into another. [`glob`] and [`ignore`] say which paths are
//! meant.

pub mod accounts;
pub mod copy;
mod entry;
mod error;
pub mod glob;
mod hash;
pub mod ignore;
pub mod listing;
mod path;
mod refused;
pub mod root;
#[cfg(test)]
mod testing;
pub mod walk;

pub use entry::{Entry, EntryKind, Timestamp, Xattrs};
pub use error::{Error, Result};
pub use hash::{ContentHash, ContentHasher, ParseHashError, hash_of_hex};
pub use listing::{FormatError, Listing, ResolveError};
pub use path::{PathError, TreePath};
pub use refused::Refused;
pub use root::Root;
