//! Takes secrets out of the output of steps, however the output is cut into reads.
//!
//! A step that prints a secret shows `****` instead, in every log, event and message. Looked for are the value
//! as it is, each line of a value of several lines, and the value as a JSON string, in base64 and in hexadecimal:
//! the forms in which programs print what they were given. Values and lines shorter than [`MIN_VALUE`] and
//! [`MIN_LINE`] bytes are left alone: they are in every output by chance, and hiding them would tell them.
//!
//! All patterns are searched at once by an automaton (Aho and Corasick's), one step a byte. Only bytes that may
//! be the beginning of a secret are held back until the next read.

use std::collections::{BTreeSet, VecDeque};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// What is shown instead.
const MASK: &[u8] = b"****";
/// Values of fewer bytes, without the line ends around them, are not looked for.
const MIN_VALUE: usize = 4;
/// Lines of fewer bytes, without the blanks around them, are not looked for.
const MIN_LINE: usize = 8;

/// The state that nothing has been seen in.
const ROOT: u32 = 0;

/// One state of the automaton: the longest suffix of what was read that a pattern begins with.
#[derive(Clone, Copy, Default)]
struct Node {
    /// The first of the states that are one byte longer; its siblings are chained. No state leads to the root.
    child: u32,
    sibling: u32,
    /// The state of the next shorter suffix.
    fail: u32,
    /// How many bytes it stands for.
    depth: u32,
    /// The longest pattern that ends here; 0 for none.
    found: u32,
    byte: u8,
}

/// What is looked for.
#[derive(Default)]
pub(crate) struct Patterns {
    nodes: Vec<Node>,
}

impl std::fmt::Debug for Patterns {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Patterns(****)")
    }
}

impl Patterns {
    /// The patterns of all `values`.
    pub(crate) fn of<V: AsRef<[u8]>>(values: impl IntoIterator<Item = V>) -> Self {
        let forms: BTreeSet<Vec<u8>> = values
            .into_iter()
            .flat_map(|value| forms(value.as_ref()))
            .collect();
        if forms.is_empty() {
            return Self::default();
        }
        let mut patterns = Self {
            nodes: vec![Node::default()],
        };
        for form in &forms {
            patterns.insert(form);
        }
        patterns.link();
        patterns
    }

    fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn node(&self, state: u32) -> Node {
        self.nodes.get(state as usize).copied().unwrap_or_default()
    }

    fn child(&self, state: u32, byte: u8) -> Option<u32> {
        let mut child = self.node(state).child;
        while child != ROOT {
            let node = self.node(child);
            if node.byte == byte {
                return Some(child);
            }
            child = node.sibling;
        }
        None
    }

    fn insert(&mut self, pattern: &[u8]) {
        let mut state = ROOT;
        for &byte in pattern {
            state = match self.child(state, byte) {
                Some(child) => child,
                None => self.add(state, byte),
            };
        }
        if let Some(node) = self.nodes.get_mut(state as usize) {
            node.found = pattern.len() as u32;
        }
    }

    fn add(&mut self, parent: u32, byte: u8) -> u32 {
        let new = self.nodes.len() as u32;
        let Node { child, depth, .. } = self.node(parent);
        self.nodes.push(Node {
            sibling: child,
            depth: depth + 1,
            byte,
            ..Node::default()
        });
        if let Some(parent) = self.nodes.get_mut(parent as usize) {
            parent.child = new;
        }
        new
    }

    /// Finds each state's next shorter suffix, the short states first.
    fn link(&mut self) {
        let mut queue: VecDeque<u32> = VecDeque::from([ROOT]);
        while let Some(state) = queue.pop_front() {
            let mut child = self.node(state).child;
            while child != ROOT {
                let Node {
                    byte, sibling, found, ..
                } = self.node(child);
                let fail = if state == ROOT {
                    ROOT
                } else {
                    self.step(self.node(state).fail, byte)
                };
                let shorter = self.node(fail).found;
                if let Some(node) = self.nodes.get_mut(child as usize) {
                    node.fail = fail;
                    node.found = found.max(shorter);
                }
                queue.push_back(child);
                child = sibling;
            }
        }
    }

    /// The state after one more byte.
    fn step(&self, mut state: u32, byte: u8) -> u32 {
        loop {
            match self.child(state, byte) {
                Some(child) => return child,
                None if state == ROOT => return ROOT,
                None => state = self.node(state).fail,
            }
        }
    }
}

/// The forms in which a value may be printed.
fn forms(value: &[u8]) -> Vec<Vec<u8>> {
    let bare = value.trim_ascii();
    if bare.len() < MIN_VALUE {
        return Vec::new();
    }
    let mut forms = vec![bare.to_vec(), hexadecimal(bare), hexadecimal(value)];
    for value in [bare, value] {
        forms.extend([STANDARD_NO_PAD.encode(value), URL_SAFE_NO_PAD.encode(value)].map(String::into_bytes));
    }
    forms.extend(std::str::from_utf8(bare).ok().map(json));
    let lines = bare.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    forms.extend(lines.filter(|line| line.len() >= MIN_LINE).map(<[u8]>::to_vec));
    forms
}

/// The text within the quotes of a JSON string, as most programs write it.
fn json(text: &str) -> Vec<u8> {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.into_bytes()
}

fn hexadecimal(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| DIGITS[usize::from(value & 15)];
    bytes
        .iter()
        .flat_map(|&byte| [digit(byte >> 4), digit(byte)])
        .collect()
}

/// Takes the patterns out of one stream.
#[derive(Debug)]
pub(crate) struct Redactor<'a> {
    patterns: &'a Patterns,
    state: u32,
    /// What may still turn out to be a part of a secret.
    held: Vec<u8>,
    /// What of `held` is secret: disjoint ranges in order.
    secret: VecDeque<(usize, usize)>,
    /// Whether the mask is the last that was shown: what is secret right behind it needs no other.
    masked: bool,
}

impl<'a> Redactor<'a> {
    pub(crate) fn new(patterns: &'a Patterns) -> Self {
        Self {
            patterns,
            state: ROOT,
            held: Vec::new(),
            secret: VecDeque::new(),
            masked: false,
        }
    }

    /// Takes what was read and gives what may be shown by now.
    pub(crate) fn take(&mut self, data: &[u8]) -> Vec<u8> {
        if self.patterns.is_empty() {
            return data.to_vec();
        }
        for &byte in data {
            self.held.push(byte);
            self.state = self.patterns.step(self.state, byte);
            let found = self.patterns.node(self.state).found as usize;
            if found > 0 {
                let end = self.held.len();
                self.hide(end.saturating_sub(found), end);
            }
        }
        let open = self.patterns.node(self.state).depth as usize;
        self.release(self.held.len().saturating_sub(open))
    }

    /// Gives what is left at the end of the stream.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        self.state = ROOT;
        self.release(self.held.len())
    }

    fn hide(&mut self, mut start: usize, end: usize) {
        while let Some(&(from, to)) = self.secret.back() {
            if to < start {
                break;
            }
            start = start.min(from);
            self.secret.pop_back();
        }
        self.secret.push_back((start, end));
    }

    /// Gives what is before `settled`, secrets masked. No later match reaches before that place.
    fn release(&mut self, settled: usize) -> Vec<u8> {
        let mut shown = Vec::with_capacity(settled);
        let mut at = 0;
        while let Some(&(from, to)) = self.secret.front() {
            if from >= settled {
                break;
            }
            self.show(&mut shown, at, from);
            if !self.masked {
                shown.extend_from_slice(MASK);
                self.masked = true;
            }
            at = to.min(settled);
            self.secret.pop_front();
            if to > settled {
                self.secret.push_front((settled, to));
                break;
            }
        }
        self.show(&mut shown, at, settled);
        self.held.drain(..settled);
        for (from, to) in &mut self.secret {
            *from -= settled;
            *to -= settled;
        }
        shown
    }

    fn show(&mut self, shown: &mut Vec<u8>, from: usize, to: usize) {
        if from < to {
            shown.extend_from_slice(self.held.get(from..to).unwrap_or_default());
            self.masked = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{MASK, Patterns, Redactor};

    /// What is shown of `output` when it is read in pieces of `size` bytes.
    fn shown(values: &[&str], output: &str, size: usize) -> String {
        let patterns = Patterns::of(values);
        let mut redactor = Redactor::new(&patterns);
        let mut shown = Vec::new();
        for piece in output.as_bytes().chunks(size) {
            shown.extend(redactor.take(piece));
        }
        shown.extend(redactor.finish());
        String::from_utf8(shown).expect("text")
    }

    #[test]
    fn secrets_are_masked_however_the_reads_cut_them() {
        let key = "-----BEGIN KEY-----\nMIIEvQIBADAN\nBgkqhkiG9w0B\n-----END KEY-----\n";
        let cases: &[(&[&str], &str, &str)] = &[
            (&["hunter2\n"], "pass hunter2, hunter\n", "pass ****, hunter\n"),
            (&["hunter2"], "hunhunter2hunter2", "hun****"),
            // One secret is the beginning, the end or the middle of another.
            (&["abcd", "abcdefgh"], "abcdefgh abcdefg", "**** ****efg"),
            (&["efgh", "abcdefgh"], "xabcdefgh efgh", "x**** ****"),
            (&["cdef", "abcdefgh"], "abcdef abcdefgh", "ab**** ****"),
            // Two that overlap hide all that they cover.
            (&["abcdef", "defghi"], "abcdefghi", "****"),
            (&["aaaa"], "aaaaaa aaa", "**** aaa"),
            // The lines of a key, indented, and as they are.
            (&[key], "  MIIEvQIBADAN\n  BgkqhkiG9w0B", "  ****\n  ****"),
            (&[key], key, "****\n"),
            (
                &["say \"hi\"\tnow"],
                "{\"k\": \"say \\\"hi\\\"\\tnow\"}",
                "{\"k\": \"****\"}",
            ),
            (
                &["hunter2\n"],
                "aHVudGVyMg== aHVudGVyMgo= 68756e74657232 68756e746572320a",
                "****== ****= **** ****",
            ),
            // Too short to be told from chance.
            (&["abc", "", "\n"], "abc\n", "abc\n"),
            (&[], "anything", "anything"),
        ];
        for (values, output, expected) in cases {
            for size in 1..=output.len() {
                assert_eq!(
                    shown(values, output, size),
                    *expected,
                    "{values:?} in reads of {size}"
                );
            }
        }
    }

    #[test]
    fn only_the_beginning_of_a_secret_is_held_back() {
        let patterns = Patterns::of(["password"]);
        let mut redactor = Redactor::new(&patterns);
        assert_eq!(redactor.take(b"prompt: pa"), b"prompt: ");
        assert_eq!(redactor.take(b"st"), b"past");
        assert_eq!(redactor.take(b"passwor"), b"");
        assert_eq!(redactor.finish(), b"passwor");
    }

    /// The masked output by looking at every place.
    fn slow(values: &[String], output: &str) -> String {
        let mut secret = vec![false; output.len()];
        for value in values {
            for start in 0..output.len() {
                if output[start..].starts_with(value.as_str()) {
                    secret[start..start + value.len()].fill(true);
                }
            }
        }
        let mut shown = String::new();
        for (at, byte) in output.bytes().enumerate() {
            if !secret[at] {
                shown.push(char::from(byte));
            } else if at == 0 || !secret[at - 1] {
                shown.push_str(std::str::from_utf8(MASK).expect("text"));
            }
        }
        shown
    }

    proptest! {
        #[test]
        fn equals_the_slow_way(
            values in prop::collection::vec("[ab]{4,9}", 1..4),
            output in "[ab]{0,60}",
            size in 1_usize..20,
        ) {
            let borrowed: Vec<&str> = values.iter().map(String::as_str).collect();
            prop_assert_eq!(shown(&borrowed, &output, size), slow(&values, &output));
        }
    }
}
