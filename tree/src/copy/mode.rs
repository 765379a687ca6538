//! Changes of permission bits, as `chmod` takes them.

use std::fmt;
use std::str::FromStr;

/// A change of permission bits: octal (`755`) or symbolic (`u=rwX,go=rX`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModeChange(Change);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    Octal(u32),
    Symbolic { text: String, actions: Vec<Action> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Action {
    /// The bits of those who are meant.
    who: u32,
    operator: Operator,
    permissions: Permissions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Permissions {
    /// These bits, and execution where it makes sense (`X`).
    Bits { bits: u32, conditional_execute: bool },
    /// What another class has now: its shift in the mode.
    CopyOf(u32),
}

/// Why a text is no [`ModeChange`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModeParseError {
    /// It starts with a digit but is no octal number up to 7777.
    #[error(
        "invalid mode {text:?}: octal modes go from 0 to 7777 (or use the symbolic form, such as u=rwX,go=rX)"
    )]
    Octal {
        /// The text.
        text: String,
    },
    /// It is neither octal nor symbolic.
    #[error("invalid mode {text:?}: use an octal mode such as 0644, or a symbolic one such as u=rwX,go=rX")]
    Symbolic {
        /// The text.
        text: String,
    },
}

impl FromStr for ModeChange {
    type Err = ModeParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            return match u32::from_str_radix(text, 8) {
                Ok(mode) if mode <= 0o7777 => Ok(Self(Change::Octal(mode))),
                _ => Err(ModeParseError::Octal {
                    text: text.to_owned(),
                }),
            };
        }
        let mut actions = Vec::new();
        for clause in text.split(',') {
            parse_clause(clause.as_bytes(), &mut actions).ok_or_else(|| ModeParseError::Symbolic {
                text: text.to_owned(),
            })?;
        }
        Ok(Self(Change::Symbolic {
            text: text.to_owned(),
            actions,
        }))
    }
}

/// One clause: who, then one or more times an operator with its permissions.
fn parse_clause(clause: &[u8], actions: &mut Vec<Action>) -> Option<()> {
    let operators = |&b: &u8| matches!(b, b'+' | b'-' | b'=');
    let (who, mut rest) = clause.split_at(clause.iter().position(operators)?);
    let who = match who {
        // As `a`: there is no umask in an image build.
        b"" => 0o6777,
        who => who.iter().try_fold(0, |bits, class| {
            Some(
                bits | match class {
                    b'u' => 0o4700,
                    b'g' => 0o2070,
                    b'o' => 0o0007,
                    b'a' => 0o6777,
                    _ => return None,
                },
            )
        })?,
    };
    while let [operator, tail @ ..] = rest {
        let operator = match operator {
            b'+' => Operator::Add,
            b'-' => Operator::Remove,
            _ => Operator::Set,
        };
        let (letters, next) = tail.split_at(tail.iter().position(operators).unwrap_or(tail.len()));
        // As on BSD, and with Docker: the sticky bit changes only where it is named, and is not the others' alone.
        let sticky = letters.contains(&b't') && who & !0o0007 != 0;
        actions.push(Action {
            who: if sticky { who | 0o1000 } else { who },
            operator,
            permissions: parse_permissions(letters)?,
        });
        rest = next;
    }
    Some(())
}

fn parse_permissions(letters: &[u8]) -> Option<Permissions> {
    match letters {
        b"u" => return Some(Permissions::CopyOf(6)),
        b"g" => return Some(Permissions::CopyOf(3)),
        b"o" => return Some(Permissions::CopyOf(0)),
        _ => {}
    }
    let (mut bits, mut conditional_execute) = (0, false);
    for letter in letters {
        match letter {
            b'r' => bits |= 0o444,
            b'w' => bits |= 0o222,
            b'x' => bits |= 0o111,
            b's' => bits |= 0o6000,
            b't' => bits |= 0o1000,
            b'X' => conditional_execute = true,
            _ => return None,
        }
    }
    Some(Permissions::Bits {
        bits,
        conditional_execute,
    })
}

impl ModeChange {
    /// The mode that something of mode `mode` gets.
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match &self.0 {
            Change::Octal(mode) => *mode,
            Change::Symbolic { actions, .. } => {
                // `X` looks at the mode before all changes, so that the order of clauses does not matter to it.
                let may_execute = is_dir || mode & 0o111 != 0;
                actions
                    .iter()
                    .fold(mode & 0o7777, |mode, action| action.apply(mode, may_execute))
            }
        }
    }

    /// The mode of a directory that is made on the way to what is copied: 0755, or this one where it is octal, without
    /// the bits for set-id and sticky, as with Docker.
    pub fn of_parents(change: Option<&Self>) -> u32 {
        change.and_then(Self::octal).map_or(0o755, |mode| mode & 0o777)
    }

    /// The mode itself when it is octal.
    pub fn octal(&self) -> Option<u32> {
        match self.0 {
            Change::Octal(mode) => Some(mode),
            Change::Symbolic { .. } => None,
        }
    }
}

impl Action {
    fn apply(self, mode: u32, may_execute: bool) -> u32 {
        let bits = match self.permissions {
            Permissions::Bits {
                bits,
                conditional_execute,
            } => {
                bits | if conditional_execute && may_execute {
                    0o111
                } else {
                    0
                }
            }
            Permissions::CopyOf(shift) => {
                let class = (mode >> shift) & 0o7;
                class | class << 3 | class << 6
            }
        } & self.who;
        match self.operator {
            Operator::Add => mode | bits,
            Operator::Remove => mode & !bits,
            // A copy of another class says nothing of set-id bits.
            Operator::Set if matches!(self.permissions, Permissions::CopyOf(_)) => {
                mode & !(self.who & 0o777) | bits
            }
            Operator::Set => mode & !self.who | bits,
        }
    }
}

impl fmt::Display for ModeChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Change::Octal(mode) => write!(f, "{mode:o}"),
            Change::Symbolic { text, .. } => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn table() {
        let cases = [
            ("755", 0o600, false, 0o755),
            ("0", 0o777, true, 0),
            ("7777", 0, false, 0o7777),
            ("0644", 0o777, true, 0o644),
            ("000755", 0, true, 0o755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("+x", 0o644, false, 0o755),
            ("a+x", 0o644, false, 0o755),
            ("-w", 0o666, false, 0o444),
            ("=r", 0o7777, false, 0o1444),
            ("u=rwX,o=u-w", 0o1777, true, 0o1775),
            ("a=rt", 0o6777, true, 0o1444),
            ("u+s", 0o755, false, 0o4755),
            ("g+s", 0o755, true, 0o2755),
            ("ug+s", 0o755, false, 0o6755),
            ("o+s", 0o755, false, 0o755),
            ("+s", 0o755, false, 0o6755),
            ("u-s", 0o6755, false, 0o2755),
            ("+t", 0o777, true, 0o1777),
            ("o+t", 0o777, true, 0o777),
            ("o-t", 0o1777, true, 0o1777),
            ("uo+t", 0o777, true, 0o1777),
            ("-t", 0o1777, true, 0o777),
            ("g=u", 0o740, false, 0o770),
            ("g=u", 0o6755, false, 0o6775),
            ("go=u", 0o700, false, 0o777),
            ("o=g", 0o750, false, 0o755),
            ("g+o", 0o704, false, 0o744),
            ("u-g", 0o770, false, 0o070),
            ("u=", 0o777, false, 0o077),
            ("go=", 0o4755, false, 0o4700),
            ("u=rw,g=r,o=", 0o777, false, 0o640),
            ("a=r,u+w", 0o777, false, 0o644),
            ("u+r-w", 0o200, false, 0o400),
            ("u=r+x,o-rwx", 0o007, false, 0o500),
            ("ugo+rwx", 0, false, 0o777),
            ("a-x,a+X", 0o755, false, 0o755),
            ("+X", 0o644, false, 0o644),
            ("u=rwxs,g=rxs,o=t", 0, false, 0o6750),
            ("go-rwx", 0o777, false, 0o700),
            ("u+s,g+s,+t", 0o755, false, 0o7755),
        ];
        for (text, mode, is_dir, expected) in cases {
            let change: ModeChange = text.parse().unwrap();
            assert_eq!(
                change.apply(mode, is_dir),
                expected,
                "{text} on {mode:o}, directory: {is_dir}"
            );
        }
    }

    #[test]
    fn octal_is_told_apart() {
        assert_eq!("644".parse::<ModeChange>().unwrap().octal(), Some(0o644));
        assert_eq!("u=rw".parse::<ModeChange>().unwrap().octal(), None);
        assert_eq!(
            "u=rwX,go=rX".parse::<ModeChange>().unwrap().to_string(),
            "u=rwX,go=rX"
        );
        assert_eq!("0755".parse::<ModeChange>().unwrap().to_string(), "755");
    }

    #[test]
    fn parents_take_permissions_of_octal_modes() {
        for (text, expected) in [("644", 0o644), ("7711", 0o711), ("u=rw,go=", 0o755)] {
            let change: ModeChange = text.parse().unwrap();
            assert_eq!(ModeChange::of_parents(Some(&change)), expected, "{text}");
        }
        assert_eq!(ModeChange::of_parents(None), 0o755);
    }

    #[test]
    fn refusals() {
        for text in ["8", "10000", "75x", "0o755", "99999999999", "1 "] {
            assert!(
                matches!(text.parse::<ModeChange>(), Err(ModeParseError::Octal { .. })),
                "{text}"
            );
        }
        for text in [
            "",
            "u",
            "rwx",
            "u=rwz",
            "q=r",
            "u=r,",
            ",u=r",
            "u=ug",
            "u=ru",
            "u=gr",
            "z+x",
            "u=rwx,,g=r",
            "u r",
            "-1",
            "+755",
            "ü=r",
        ] {
            assert!(
                matches!(text.parse::<ModeChange>(), Err(ModeParseError::Symbolic { .. })),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "[ugoarwxXst0-9=+,-]{0,12}", mode in 0u32..0o10000) {
            if let Ok(change) = text.parse::<ModeChange>() {
                prop_assert!(change.apply(mode, true) <= 0o7777);
                prop_assert_eq!(change.to_string().parse::<ModeChange>().unwrap(), change);
            }
        }
    }
}
