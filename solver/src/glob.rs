//! Wildcards of copy sources: Go's `filepath.Match`, applied to one path component.
//!
//! `*` matches any sequence, `?` one character, `[a-z]` and `[^a-z]` one character of a class, `\` takes the
//! next character as it is. Dot files are matched like any other. Separators never reach this module.

/// A pattern that cannot be matched: a class or an escape is not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the pattern is malformed: a `[` class or a `\\` escape is not closed")]
pub(crate) struct BadPattern;

/// Whether `text` holds a wildcard or an escape.
pub(crate) fn is_pattern(text: &[u8]) -> bool {
    text.iter().any(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\'))
}

/// Whether `name` matches `pattern`, both one path component.
///
/// The time is O(pattern × name): on a mismatch only the last `*` is widened.
pub(crate) fn matches(pattern: &[u8], name: &[u8]) -> Result<bool, BadPattern> {
    check(pattern)?;
    let (mut at_pattern, mut at_name) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match pattern.get(at_pattern) {
            Some(b'*') => {
                retry = Some((at_pattern, at_name));
                at_pattern += 1;
                continue;
            }
            None if at_name == name.len() => return Ok(true),
            _ => {}
        }
        if let Some((next_pattern, next_name)) = step(pattern, at_pattern, name, at_name) {
            (at_pattern, at_name) = (next_pattern, next_name);
            continue;
        }
        match retry {
            Some((star, from)) if from < name.len() => {
                let from = from + character(&name[from..]).1;
                retry = Some((star, from));
                (at_pattern, at_name) = (star + 1, from);
            }
            _ => return Ok(false),
        }
    }
}

/// Matches one pattern element other than `*` against one character; gives the positions behind both.
fn step(pattern: &[u8], at_pattern: usize, name: &[u8], at_name: usize) -> Option<(usize, usize)> {
    let rest = name.get(at_name..).filter(|rest| !rest.is_empty())?;
    let (found, width) = character(rest);
    match *pattern.get(at_pattern)? {
        b'?' => Some((at_pattern + 1, at_name + width)),
        b'[' => {
            let (matched, end) = class(pattern, at_pattern + 1, found)?;
            matched.then_some((end, at_name + width))
        }
        b'\\' => {
            let (wanted, length) = character(&pattern[at_pattern + 1..]);
            (wanted == found).then_some((at_pattern + 1 + length, at_name + width))
        }
        _ => {
            let (wanted, length) = character(&pattern[at_pattern..]);
            (wanted == found).then_some((at_pattern + length, at_name + width))
        }
    }
}

/// Evaluates a class whose first byte is at `at`; gives whether `found` is in it, and the position behind `]`.
fn class(pattern: &[u8], mut at: usize, found: u32) -> Option<(bool, usize)> {
    let negated = pattern.get(at) == Some(&b'^');
    if negated {
        at += 1;
    }
    let mut matched = false;
    let mut first = true;
    loop {
        if pattern.get(at) == Some(&b']') && !first {
            return Some((matched != negated, at + 1));
        }
        first = false;
        let (low, next) = class_character(pattern, at)?;
        at = next;
        let mut high = low;
        if pattern.get(at) == Some(&b'-') {
            (high, at) = class_character(pattern, at + 1)?;
        }
        matched |= (low..=high).contains(&found);
    }
}

fn class_character(pattern: &[u8], mut at: usize) -> Option<(u32, usize)> {
    match pattern.get(at)? {
        b'-' | b']' => return None,
        b'\\' => at += 1,
        _ => {}
    }
    let rest = pattern.get(at..).filter(|rest| !rest.is_empty())?;
    let (character, width) = character(rest);
    Some((character, at + width))
}

/// The first character of `bytes` (which is not empty) and its width; a byte that is no UTF-8 stands for itself,
/// above the range of Unicode.
fn character(bytes: &[u8]) -> (u32, usize) {
    let head = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(),
    };
    match valid.chars().next() {
        Some(character) => (u32::from(character), character.len_utf8()),
        None => (0x11_0000 + bytes.first().copied().map_or(0, u32::from), 1),
    }
}

/// Refuses a malformed pattern even where a mismatch would hide it.
fn check(pattern: &[u8]) -> Result<(), BadPattern> {
    let mut at = 0;
    while let Some(byte) = pattern.get(at) {
        at = match byte {
            b'[' => class(pattern, at + 1, 0).ok_or(BadPattern)?.1,
            b'\\' if at + 1 >= pattern.len() => return Err(BadPattern),
            b'\\' => at + 1 + character(&pattern[at + 1..]).1,
            _ => at + 1,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{BadPattern, matches};

    /// Facts about Go's `filepath.Match`, from its documentation and tests.
    #[test]
    fn matches_as_go_does() {
        let table: &[(&str, &str, Result<bool, BadPattern>)] = &[
            ("abc", "abc", Ok(true)),
            ("*", "abc", Ok(true)),
            ("*c", "abc", Ok(true)),
            ("a*", "a", Ok(true)),
            ("a*", "ab", Ok(true)),
            ("*", ".hidden", Ok(true)),
            ("*", "", Ok(true)),
            ("a*b*c*d*e*", "axbxcxdxe", Ok(true)),
            ("a*b?c*x", "abxbbxdbxebxczzx", Ok(true)),
            ("a*b?c*x", "abxbbxdbxebxczzy", Ok(false)),
            ("ab[c]", "abc", Ok(true)),
            ("ab[b-d]", "abc", Ok(true)),
            ("ab[e-g]", "abc", Ok(false)),
            ("ab[^c]", "abc", Ok(false)),
            ("ab[^e-g]", "abc", Ok(true)),
            ("a\\*b", "a*b", Ok(true)),
            ("a\\*b", "ab", Ok(false)),
            ("a?b", "a☺b", Ok(true)),
            ("a[^a]b", "a☺b", Ok(true)),
            ("a???b", "a☺b", Ok(false)),
            ("[a-ζ]*", "α", Ok(true)),
            ("*[a-ζ]", "A", Ok(false)),
            ("[\\]a]", "]", Ok(true)),
            ("[\\-]", "-", Ok(true)),
            ("[x\\-]", "x", Ok(true)),
            ("[-x]", "x", Err(BadPattern)),
            ("[x-]", "x", Err(BadPattern)),
            ("[]a]", "]", Err(BadPattern)),
            ("[", "a", Err(BadPattern)),
            ("[^", "a", Err(BadPattern)),
            ("[^bc", "a", Err(BadPattern)),
            ("a[", "ab", Err(BadPattern)),
            ("a\\", "a", Err(BadPattern)),
            ("*x", "xxx", Ok(true)),
        ];
        for (pattern, name, expected) in table {
            assert_eq!(
                matches(pattern.as_bytes(), name.as_bytes()),
                *expected,
                "{pattern} on {name}"
            );
        }
    }

    #[test]
    fn many_stars_stay_fast() {
        let pattern = b"a*".repeat(200);
        let name = b"a".repeat(5_000);
        assert_eq!(matches(&[pattern.as_slice(), b"b"].concat(), &name), Ok(false));
    }
}
