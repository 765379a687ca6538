//! Shell patterns of the trim and replace operators: `*`, `?` and backslash escapes, no bracket sets.
//!
//! Between stars a pattern is a run of characters. The shortest match takes each run at its first place, the
//! longest takes the last run at its last place; nothing is ever tried twice.

use super::ExpandErrorKind;

/// The longest pattern. In memory it is several times as large as its text.
const MAX_PATTERN: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Glyph {
    Character(char),
    Any,
}

#[derive(Debug)]
pub(super) struct Pattern {
    /// What stands between the stars; one more than there are stars.
    runs: Vec<Vec<Glyph>>,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, ExpandErrorKind> {
        if text.len() > MAX_PATTERN {
            return Err(ExpandErrorKind::TooExpensive);
        }
        let mut runs = vec![Vec::new()];
        let mut run = Vec::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            match character {
                '*' => {
                    if let Some(last) = runs.last_mut() {
                        *last = std::mem::take(&mut run);
                    }
                    runs.push(Vec::new());
                }
                '?' => run.push(Glyph::Any),
                '\\' => match characters.next() {
                    Some(escaped @ ('*' | '?' | '\\' | '/' | '}')) => run.push(Glyph::Character(escaped)),
                    Some(other) => return Err(ExpandErrorKind::InvalidEscape(other)),
                    None => run.push(Glyph::Character('\\')),
                },
                _ => run.push(Glyph::Character(character)),
            }
        }
        if let Some(last) = runs.last_mut() {
            *last = run;
        }
        // Neighbouring stars are one.
        let count = runs.len();
        let mut index = 0;
        runs.retain(|run| {
            index += 1;
            index == 1 || index == count || !run.is_empty()
        });
        Ok(Self { runs })
    }

    /// The value without a prefix (or suffix) that matches.
    pub(super) fn trim(
        mut self,
        value: &str,
        suffix: bool,
        longest: bool,
        budget: &mut u64,
    ) -> Result<String, ExpandErrorKind> {
        let mut characters: Vec<char> = value.chars().collect();
        if suffix {
            characters.reverse();
            self.runs.reverse();
            self.runs.iter_mut().for_each(|run| run.reverse());
        }
        let end = self.prefix(&characters, longest, budget)?.unwrap_or(0);
        let mut rest = characters.split_off(end);
        if suffix {
            rest.reverse();
        }
        Ok(rest.into_iter().collect())
    }

    /// The value with the first match (or all of them) replaced.
    pub(super) fn replace(
        &self,
        value: &str,
        replacement: &str,
        all: bool,
        budget: &mut u64,
    ) -> Result<String, ExpandErrorKind> {
        let characters: Vec<char> = value.chars().collect();
        let mut result = String::new();
        let mut at = 0;
        // An empty match right after another match does not count.
        let mut matched_until = None;
        while at <= characters.len() {
            let Some(start) = find(&self.runs[0], &characters, at, budget)? else {
                break;
            };
            let Some(length) = self.prefix(&characters[start..], true, budget)? else {
                break;
            };
            result.extend(&characters[at..start]);
            let abuts = length == 0 && matched_until == Some(start);
            if !abuts {
                result.push_str(replacement);
                if result.len() > super::MAX_LENGTH {
                    return Err(ExpandErrorKind::TooLong);
                }
            }
            at = start + length;
            matched_until = Some(at);
            if length == 0 {
                if let Some(character) = characters.get(at) {
                    result.push(*character);
                }
                at += 1;
            }
            if !all {
                break;
            }
        }
        result.extend(characters.get(at..).unwrap_or_default());
        Ok(result)
    }

    /// The end of the shortest or longest match that starts at the first character.
    fn prefix(
        &self,
        value: &[char],
        longest: bool,
        budget: &mut u64,
    ) -> Result<Option<usize>, ExpandErrorKind> {
        let Some((first, rest)) = self.runs.split_first() else {
            return Ok(None);
        };
        if !matches_at(first, value, 0, budget)? {
            return Ok(None);
        }
        let mut at = first.len();
        let Some((last, middle)) = rest.split_last() else {
            return Ok(Some(at));
        };
        for run in middle {
            let Some(found) = find(run, value, at, budget)? else {
                return Ok(None);
            };
            at = found + run.len();
        }
        let found = if longest {
            find_last(last, value, at, budget)?
        } else {
            find(last, value, at, budget)?
        };
        Ok(found.map(|found| found + last.len()))
    }
}

fn matches_at(run: &[Glyph], value: &[char], at: usize, budget: &mut u64) -> Result<bool, ExpandErrorKind> {
    let Some(part) = value.get(at..at + run.len()) else {
        return Ok(false);
    };
    let equal = run.iter().zip(part).take_while(|(glyph, character)| match glyph {
        Glyph::Any => true,
        Glyph::Character(wanted) => wanted == *character,
    });
    let compared = equal.count();
    *budget = budget
        .checked_sub(compared as u64 + 1)
        .ok_or(ExpandErrorKind::TooExpensive)?;
    Ok(compared == run.len())
}

fn find(
    run: &[Glyph],
    value: &[char],
    from: usize,
    budget: &mut u64,
) -> Result<Option<usize>, ExpandErrorKind> {
    for at in from..=value.len().saturating_sub(run.len()) {
        if matches_at(run, value, at, budget)? {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

fn find_last(
    run: &[Glyph],
    value: &[char],
    from: usize,
    budget: &mut u64,
) -> Result<Option<usize>, ExpandErrorKind> {
    for at in (from..=value.len().saturating_sub(run.len())).rev() {
        if matches_at(run, value, at, budget)? {
            return Ok(Some(at));
        }
    }
    Ok(None)
}
