//! Names that mean deletions in layer tars.

/// In front of the name of a deleted path.
pub(super) const PREFIX: &[u8] = b".wh.";
/// In front of names that are an implementation's own business.
pub(super) const META_PREFIX: &[u8] = b".wh..wh.";
/// Marks a directory that hides everything lower layers have in it.
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";

/// What the last component of a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// Nothing special.
    Ordinary,
    /// Deletes this name.
    Whiteout(&'a [u8]),
    /// Makes the directory opaque.
    Opaque,
    /// Bookkeeping of aufs.
    Ignored,
    /// A whiteout of nothing.
    Invalid,
}

/// What `name`, one component, means.
pub(super) fn meaning(name: &[u8]) -> Meaning<'_> {
    if name == OPAQUE {
        return Meaning::Opaque;
    }
    if name.starts_with(META_PREFIX) {
        return Meaning::Ignored;
    }
    match name.strip_prefix(PREFIX) {
        None => Meaning::Ordinary,
        Some(b"" | b"." | b"..") => Meaning::Invalid,
        Some(name) => Meaning::Whiteout(name),
    }
}
