//! `RUN --mount`: its options as written, with the tables of their names. [`Mount::resolve`] makes them the typed
//! mount ([`MountSpec`]) once their values are expanded.

mod resolve;

use crate::ast::Word;
use crate::span::{Span, Spanned};

pub use self::resolve::{MountError, MountSpec};

/// A `--mount` as written: options in order, values not yet expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The flag's value as a whole.
    pub span: Span,
    /// The options in order.
    pub options: Vec<MountOption>,
}

/// One option of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOption {
    /// Which option (aliases resolved), and where its key stands.
    pub key: Spanned<MountKey>,
    /// Its value, to be expanded (except `from`); none for a bare `required`, `ro`, `rw`.
    pub value: Option<Word>,
}

/// The five types of mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are Docker's own")]
pub enum MountType {
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

/// The keys of mount options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are Docker's own")]
pub enum MountKey {
    Type,
    Target,
    Source,
    From,
    ReadOnly,
    ReadWrite,
    Id,
    Sharing,
    Required,
    Size,
    Mode,
    Uid,
    Gid,
    Env,
}

/// How builds that run at the same time share a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Sharing {
    /// All use the directory at once.
    #[default]
    Shared,
    /// Each gets a directory of its own when the first is in use.
    Private,
    /// The second waits.
    Locked,
}

/// Keys with their names; the first of a key is the usual one.
static KEYS: &[(&str, MountKey)] = &[
    ("type", MountKey::Type),
    ("target", MountKey::Target),
    ("dst", MountKey::Target),
    ("destination", MountKey::Target),
    ("source", MountKey::Source),
    ("src", MountKey::Source),
    ("from", MountKey::From),
    ("readonly", MountKey::ReadOnly),
    ("ro", MountKey::ReadOnly),
    ("readwrite", MountKey::ReadWrite),
    ("rw", MountKey::ReadWrite),
    ("id", MountKey::Id),
    ("sharing", MountKey::Sharing),
    ("required", MountKey::Required),
    ("size", MountKey::Size),
    ("mode", MountKey::Mode),
    ("uid", MountKey::Uid),
    ("gid", MountKey::Gid),
    ("env", MountKey::Env),
];

impl MountKey {
    /// The key of a name or alias in any case.
    pub fn parse(name: &str) -> Option<Self> {
        KEYS.iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, key)| *key)
    }

    /// All names and aliases.
    pub fn names() -> impl Iterator<Item = &'static str> {
        KEYS.iter().map(|(name, _)| *name)
    }

    /// The usual name.
    pub fn name(self) -> &'static str {
        KEYS.iter()
            .find(|(_, key)| *key == self)
            .map_or("", |(name, _)| name)
    }

    /// Whether the key may stand alone.
    pub(crate) fn is_flag(self) -> bool {
        matches!(self, Self::ReadOnly | Self::ReadWrite | Self::Required)
    }
}

/// Types with their names and the keys that apply to them.
static TYPES: &[(&str, MountType, &[MountKey])] = {
    use MountKey::{
        Env, From, Gid, Id, Mode, ReadOnly, ReadWrite, Required, Sharing, Size, Source, Target, Type, Uid,
    };
    &[
        (
            "bind",
            MountType::Bind,
            &[Type, Target, Source, From, ReadOnly, ReadWrite],
        ),
        (
            "cache",
            MountType::Cache,
            &[
                Type, Target, Source, From, ReadOnly, ReadWrite, Id, Sharing, Mode, Uid, Gid,
            ],
        ),
        ("tmpfs", MountType::Tmpfs, &[Type, Target, Size, ReadWrite]),
        (
            "secret",
            MountType::Secret,
            &[Type, Target, Source, Id, Env, Required, Mode, Uid, Gid, ReadOnly],
        ),
        (
            "ssh",
            MountType::Ssh,
            &[Type, Target, Id, Required, Mode, Uid, Gid, ReadOnly],
        ),
    ]
};

impl MountType {
    /// The type of a name in any case.
    pub fn parse(name: &str) -> Option<Self> {
        TYPES
            .iter()
            .find(|(known, ..)| known.eq_ignore_ascii_case(name))
            .map(|(_, kind, _)| *kind)
    }

    /// The type's name.
    pub fn name(self) -> &'static str {
        TYPES[self as usize].0
    }

    /// The keys that apply to the type.
    pub fn keys(self) -> &'static [MountKey] {
        TYPES[self as usize].2
    }
}

static SHARING: &[(&str, Sharing)] = &[
    ("shared", Sharing::Shared),
    ("private", Sharing::Private),
    ("locked", Sharing::Locked),
];

impl Mount {
    /// The stage, named context or image that the mount takes its content from. Never expanded.
    pub fn from(&self) -> Option<Spanned<&str>> {
        let option = self
            .options
            .iter()
            .rev()
            .find(|option| option.key.value == MountKey::From)?;
        let value = option.value.as_ref().filter(|value| !value.text.is_empty())?;
        Some(Spanned::new(value.as_str(), value.span))
    }

    /// The words that are expanded.
    pub fn words(&self) -> impl Iterator<Item = &Word> {
        self.options
            .iter()
            .filter(|option| option.key.value != MountKey::From)
            .filter_map(|option| option.value.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_indexed_by_type() {
        for (name, kind, keys) in TYPES {
            assert_eq!((kind.name(), kind.keys()), (*name, *keys));
        }
        assert_eq!(MountKey::parse("DST"), Some(MountKey::Target));
        assert_eq!(MountKey::Target.name(), "target");
    }
}
