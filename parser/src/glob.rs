//! Path patterns: Go's `filepath.Match` for sources of COPY, and the `**` dialect of ignore files.
//!
//! Both compile to the same small automaton, which is run over a path once, whatever the pattern.

/// A compiled path pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Character(char),
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
    ranges: Vec<(char, char)>,
}

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
    pub fn new(pattern: &str) -> Result<Self, GlobError> {
        Self::compile(pattern, false)
    }

    /// Compiles a pattern in which `**` stands for any number of directories.
    pub fn with_globstar(pattern: &str) -> Result<Self, GlobError> {
        Self::compile(pattern, true)
    }

    fn compile(pattern: &str, globstar: bool) -> Result<Self, GlobError> {
        let mut tokens = Vec::new();
        let mut characters = pattern.chars().peekable();
        while let Some(character) = characters.next() {
            let token = match character {
                '*' if globstar && characters.next_if_eq(&'*').is_some() => {
                    characters.next_if_eq(&'/');
                    if characters.peek().is_none() {
                        Token::Everything
                    } else if tokens.last() == Some(&Token::Directories) {
                        // Two of them are one; a thousand would be entered a thousand times at each character.
                        continue;
                    } else {
                        Token::Directories
                    }
                }
                '*' if tokens.last() == Some(&Token::Star) => continue,
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' => Token::Character(characters.next().ok_or(GlobError::TrailingEscape)?),
                '[' => Token::Class(Class::parse(&mut characters)?),
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
        for character in characters(path) {
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
    fn step(&self, character: char) -> (bool, bool) {
        match self {
            Self::Character(wanted) => (false, *wanted == character),
            Self::Any => (false, character != '/'),
            Self::Star => (character != '/', false),
            Self::Directories => (true, character == '/'),
            Self::Everything => (true, false),
            Self::Class(class) => (false, class.contains(character)),
        }
    }
}

impl Class {
    fn parse(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Self, GlobError> {
        let negated = characters.next_if_eq(&'^').is_some();
        let mut ranges = Vec::new();
        loop {
            if !ranges.is_empty() && characters.next_if_eq(&']').is_some() {
                return Ok(Self { negated, ranges });
            }
            let low = Self::member(characters)?;
            let high = if characters.next_if_eq(&'-').is_some() {
                Self::member(characters)?
            } else {
                low
            };
            ranges.push((low, high));
        }
    }

    fn member(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char, GlobError> {
        match characters.next().ok_or(GlobError::UnterminatedClass)? {
            '-' | ']' => Err(GlobError::MalformedClass),
            '\\' => characters.next().ok_or(GlobError::UnterminatedClass),
            character => Ok(character),
        }
    }

    fn contains(&self, character: char) -> bool {
        self.ranges
            .iter()
            .any(|(low, high)| (*low..=*high).contains(&character))
            != self.negated
    }
}

/// The characters of a path; bytes that are no UTF-8 count as one replacement character each.
fn characters(path: &[u8]) -> impl Iterator<Item = char> {
    path.utf8_chunks().flat_map(|chunk| {
        chunk
            .valid()
            .chars()
            .chain(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER))
    })
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
pub fn has_wildcards(pattern: &str) -> bool {
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
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
        let stars = Glob::with_globstar(&format!("{}*", "**/".repeat(200_000))).unwrap();
        assert!(stars.matches(b"a/b/c"));
        assert!(Glob::new("?").unwrap().matches(b"\xff"));
    }

    #[test]
    fn escaped_wildcards_are_none() {
        assert!(has_wildcards("a*") && has_wildcards("[a]") && !has_wildcards(r"a\*\?"));
    }
}
