//! Changes of permission bits, as `chmod` takes them.

use std::str::FromStr;

/// A change of permission bits: octal (`755`) or symbolic (`u=rwX,go=rX`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModeChange {}

/// Why a text is no [`ModeChange`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModeParseError {
    /// It starts with a digit but is no octal number up to 7777.
    #[error("{text:?} is not an octal mode of at most four digits")]
    Octal {
        /// The text.
        text: String,
    },
    /// It is neither octal nor symbolic.
    #[error("{text:?} is not a mode: expected octal such as 755 or symbolic such as u=rwX,go=rX")]
    Symbolic {
        /// The text.
        text: String,
    },
}

impl FromStr for ModeChange {
    type Err = ModeParseError;

    fn from_str(_text: &str) -> Result<Self, Self::Err> {
        todo!()
    }
}

impl ModeChange {
    /// The mode that something of mode `mode` gets.
    pub fn apply(&self, _mode: u32, _is_dir: bool) -> u32 {
        todo!()
    }

    /// The mode itself when it is octal.
    pub fn octal(&self) -> Option<u32> {
        todo!()
    }
}
