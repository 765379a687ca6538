//! Path patterns: Go's `filepath.Match` for sources of copies, and the `**` dialect of ignore files.
//!
//! Both compile to the same small automaton, which is run over a path once, whatever the pattern. Patterns and paths
//! are bytes: one that is no UTF-8 is a character of its own, which only itself matches.

/// A compiled path pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Character(Character),
    /// `?`: any character but `/`.
    Any,
    /// `*`: any number of characters but `/`.
    Star,
    /// `**` before something: nothing, or anything that ends with `/`.
    Directories,
    /// `**` at the end: anything.
    Everything,
    Class(Class),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Class {
    negated: bool,
    ranges: Vec<(Character, Character)>,
}

/// A Unicode character, or a byte that is no UTF-8: those come after all characters.
type Character = u32;

/// The first [`Character`] that stands for a byte.
const FIRST_BYTE: Character = 0x11_0000;

const SLASH: Character = b'/' as Character;

/// A malformed pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// `[` without `]`.
    #[error("unterminated character class in pattern")]
    UnterminatedClass,
    /// `[]` or a range without an end.
    #[error("malformed character class in pattern")]
    MalformedClass,
    /// A backslash at the end.
    #[error("trailing backslash in pattern")]
    TrailingEscape,
}

impl Glob {
    /// Compiles a pattern of Go's `filepath.Match`: `*`, `?`, `[a-z]`, `[^a-z]` and `\` escapes; none of the first
    /// two crosses a `/`.
    pub fn new(pattern: impl AsRef<[u8]>) -> Result<Self, GlobError> {
        Self::compile(pattern.as_ref(), false)
    }

    /// Compiles a pattern in which `**` stands for any number of directories.
    pub(crate) fn with_globstar(pattern: impl AsRef<[u8]>) -> Result<Self, GlobError> {
        Self::compile(pattern.as_ref(), true)
    }

    fn compile(pattern: &[u8], globstar: bool) -> Result<Self, GlobError> {
        let mut tokens = Vec::new();
        let mut characters = Characters(pattern);
        while let Some(character) = characters.next() {
            let token = match u8::try_from(character) {
                Ok(b'*') if globstar && characters.next_if(b'*') => {
                    characters.next_if(b'/');
                    if characters.0.is_empty() {
                        Token::Everything
                    } else if tokens.last() == Some(&Token::Directories) {
                        // Two of them are one; a thousand would be entered a thousand times at each character.
                        continue;
                    } else {
                        Token::Directories
                    }
                }
                Ok(b'*') if tokens.last() == Some(&Token::Star) => continue,
                Ok(b'*') => Token::Star,
                Ok(b'?') => Token::Any,
                Ok(b'\\') => Token::Character(characters.next().ok_or(GlobError::TrailingEscape)?),
                Ok(b'[') => Token::Class(Class::parse(&mut characters)?),
                _ => Token::Character(character),
            };
            tokens.push(token);
        }
        Ok(Self { tokens })
    }

    /// Whether the whole path matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.run(path)
            .is_some_and(|states| states.contains(self.tokens.len()))
    }

    /// Whether a path that starts with `prefix` and goes on could match.
    pub(crate) fn could_match_below(&self, prefix: &[u8]) -> bool {
        let Some(states) = self.run(prefix) else {
            return false;
        };
        (0..self.tokens.len()).any(|state| states.contains(state))
    }

    /// The states after `path`; none when no continuation could match.
    fn run(&self, path: &[u8]) -> Option<States> {
        let mut states = States::new(self.tokens.len() + 1);
        self.enter(&mut states, 0);
        for character in Characters(path) {
            let mut next = States::new(self.tokens.len() + 1);
            let mut alive = false;
            for state in states.iter() {
                let Some(token) = self.tokens.get(state) else {
                    continue;
                };
                let (stay, advance) = token.step(character);
                alive |= stay || advance;
                if stay {
                    // Staying inside `**/` must not skip it: only a `/` leads on.
                    next.insert(state);
                    if !matches!(token, Token::Directories) {
                        self.enter(&mut next, state + 1);
                    }
                }
                if advance {
                    self.enter(&mut next, state + 1);
                }
            }
            if !alive {
                return None;
            }
            states = next;
        }
        Some(states)
    }

    /// Enters a state and those that follow it without a character.
    fn enter(&self, states: &mut States, mut state: usize) {
        loop {
            states.insert(state);
            match self.tokens.get(state) {
                Some(Token::Star | Token::Directories | Token::Everything) => state += 1,
                _ => return,
            }
        }
    }
}

impl Token {
    /// Whether the character keeps the state, and whether it leads to the next one.
    fn step(&self, character: Character) -> (bool, bool) {
        match self {
            Self::Character(wanted) => (false, *wanted == character),
            Self::Any => (false, character != SLASH),
            Self::Star => (character != SLASH, false),
            Self::Directories => (true, character == SLASH),
            Self::Everything => (true, false),
            Self::Class(class) => (false, class.contains(character)),
        }
    }
}

impl Class {
    fn parse(characters: &mut Characters<'_>) -> Result<Self, GlobError> {
        let negated = characters.next_if(b'^');
        let mut ranges = Vec::new();
        loop {
            if !ranges.is_empty() && characters.next_if(b']') {
                return Ok(Self { negated, ranges });
            }
            let low = Self::member(characters)?;
            let high = if characters.next_if(b'-') {
                Self::member(characters)?
            } else {
                low
            };
            ranges.push((low, high));
        }
    }

    fn member(characters: &mut Characters<'_>) -> Result<Character, GlobError> {
        let character = characters.next().ok_or(GlobError::UnterminatedClass)?;
        match u8::try_from(character) {
            Ok(b'-' | b']') => Err(GlobError::MalformedClass),
            Ok(b'\\') => characters.next().ok_or(GlobError::UnterminatedClass),
            _ => Ok(character),
        }
    }

    fn contains(&self, character: Character) -> bool {
        self.ranges
            .iter()
            .any(|(low, high)| (*low..=*high).contains(&character))
            != self.negated
    }
}

/// The characters of a path or a pattern that are still to come.
struct Characters<'a>(&'a [u8]);

impl Characters<'_> {
    /// Takes the next character if it is `wanted`, an ASCII one.
    fn next_if(&mut self, wanted: u8) -> bool {
        let Some(rest) = self.0.strip_prefix(&[wanted]) else {
            return false;
        };
        self.0 = rest;
        true
    }
}

impl Iterator for Characters<'_> {
    type Item = Character;

    fn next(&mut self) -> Option<Character> {
        let first = *self.0.first()?;
        let head = self.0.get(..self.0.len().min(4)).unwrap_or_default();
        let found = if first.is_ascii() {
            None
        } else {
            head.utf8_chunks()
                .next()
                .and_then(|chunk| chunk.valid().chars().next())
        };
        let (character, width) = match found {
            Some(character) => (Character::from(character), character.len_utf8()),
            None if first.is_ascii() => (Character::from(first), 1),
            None => (FIRST_BYTE + Character::from(first), 1),
        };
        self.0 = self.0.get(width..).unwrap_or_default();
        Some(character)
    }
}

/// A set of states: one machine word for nearly all patterns.
#[derive(Debug, Clone)]
enum States {
    Few(u128),
    Many(Vec<bool>),
}

impl States {
    fn new(count: usize) -> Self {
        if count <= 128 {
            Self::Few(0)
        } else {
            Self::Many(vec![false; count])
        }
    }

    fn insert(&mut self, state: usize) {
        match self {
            Self::Few(bits) => *bits |= 1 << state,
            Self::Many(flags) => flags[state] = true,
        }
    }

    fn contains(&self, state: usize) -> bool {
        match self {
            Self::Few(bits) => bits >> state & 1 == 1,
            Self::Many(flags) => flags[state],
        }
    }

    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let (mut bits, flags) = match self {
            Self::Few(bits) => (*bits, [].as_slice()),
            Self::Many(flags) => (0, flags.as_slice()),
        };
        let few = std::iter::from_fn(move || {
            let state = bits.trailing_zeros() as usize;
            bits &= bits.wrapping_sub(1);
            (state < 128).then_some(state)
        });
        few.chain(
            flags
                .iter()
                .enumerate()
                .filter(|(_, set)| **set)
                .map(|(state, _)| state),
        )
    }
}

/// Whether a pattern has any of `*`, `?`, `[` that is not escaped.
pub fn has_wildcards(pattern: impl AsRef<[u8]>) -> bool {
    let mut bytes = pattern.as_ref().iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// Whether a pattern says something else than its own bytes: it has wildcards or escapes.
pub fn is_pattern(text: impl AsRef<[u8]>) -> bool {
    text.as_ref().iter().copied().any(is_special)
}

/// The pattern that matches exactly `path`.
pub fn escape(path: impl AsRef<[u8]>) -> Vec<u8> {
    let path = path.as_ref();
    let mut escaped = Vec::with_capacity(path.len());
    for &byte in path {
        if is_special(byte) {
            escaped.push(b'\\');
        }
        escaped.push(byte);
    }
    escaped
}

fn is_special(byte: u8) -> bool {
    matches!(byte, b'*' | b'?' | b'[' | b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_go() {
        // Pattern, path, result; the table of Go's own documentation of the function.
        for (pattern, path, expected) in [
            ("abc", "abc", Some(true)),
            ("*", "abc", Some(true)),
            ("*c", "abc", Some(true)),
            ("a*", "a", Some(true)),
            ("a*", "ab/c", Some(false)),
            ("a*/b", "abc/b", Some(true)),
            ("a*/b", "a/c/b", Some(false)),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", Some(true)),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", Some(false)),
            ("a*b?c*x", "abxbbxdbxebxczzx", Some(true)),
            ("a*b?c*x", "abxbbxdbxebxczzy", Some(false)),
            ("ab[c]", "abc", Some(true)),
            ("ab[b-d]", "abc", Some(true)),
            ("ab[e-g]", "abc", Some(false)),
            ("ab[^c]", "abc", Some(false)),
            ("ab[^e-g]", "abc", Some(true)),
            ("a\\*b", "a*b", Some(true)),
            ("a\\*b", "ab", Some(false)),
            ("a?b", "a☺b", Some(true)),
            ("a[^a]b", "a☺b", Some(true)),
            ("a???b", "a☺b", Some(false)),
            ("[a-ζ]*", "α", Some(true)),
            ("*[a-ζ]", "A", Some(false)),
            ("a?b", "a/b", Some(false)),
            ("a*b", "a/b", Some(false)),
            ("[\\]a]", "]", Some(true)),
            ("[\\-x]", "-", Some(true)),
            ("[x\\-]", "z", Some(false)),
            ("[]a]", "]", None),
            ("[-]", "-", None),
            ("[x-]", "x", None),
            ("[a-b-c]", "a", None),
            ("[", "a", None),
            ("[^", "a", None),
            ("[^bc", "a", None),
            ("a[", "a", None),
            ("a\\", "a", None),
            ("*x", "xxx", Some(true)),
            ("**", "a/b", Some(false)),
            ("", "", Some(true)),
            (".*", ".git", Some(true)),
            ("*", ".git", Some(true)),
        ] {
            let result = Glob::new(pattern).ok().map(|glob| glob.matches(path.as_bytes()));
            assert_eq!(result, expected, "{pattern} {path}");
        }
    }

    #[test]
    fn globstar() {
        for (pattern, path, expected) in [
            ("**/*.go", "a.go", true),
            ("**/*.go", "a/b/c.go", true),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "a/xb", false),
            ("a/**", "a/b/c", true),
            ("a/**", "b", false),
            ("**", "x/y", true),
        ] {
            assert_eq!(
                Glob::with_globstar(pattern).unwrap().matches(path.as_bytes()),
                expected,
                "{pattern} {path}"
            );
        }
    }

    #[test]
    fn hostile_patterns_end() {
        let pattern = "a*".repeat(2_000);
        let glob = Glob::new(&pattern).unwrap();
        assert!(!glob.matches("a".repeat(1_999).as_bytes()));
        let stars = Glob::with_globstar(format!("{}*", "**/".repeat(200_000))).unwrap();
        assert!(stars.matches(b"a/b/c"));
    }

    #[test]
    fn bytes_that_are_no_text_match_themselves() {
        for (pattern, path, expected) in [
            (&b"?"[..], &b"\xff"[..], true),
            (b"?", b"\xff\xfe", false),
            (b"\xff", b"\xff", true),
            (b"\xff", b"\xfe", false),
            (b"\xff", "\u{FFFD}".as_bytes(), false),
            (b"a\xc3*", b"a\xc3", true),
            (b"[\xf0-\xff]", b"\xf8", true),
            (b"\xc3", "ü".as_bytes(), false),
            ("☺?".as_bytes(), "☺☺".as_bytes(), true),
        ] {
            assert_eq!(
                Glob::new(pattern).unwrap().matches(path),
                expected,
                "{pattern:?} {path:?}"
            );
        }
        let odd = b"a*\xff[x]\\?";
        assert!(Glob::new(escape(odd)).unwrap().matches(odd) && is_pattern(odd));
    }

    #[test]
    fn escaped_wildcards_are_none() {
        assert!(has_wildcards("a*") && has_wildcards("[a]") && !has_wildcards(r"a\*\?"));
    }
}
