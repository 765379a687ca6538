//! Lines out of a process's output, which comes in pieces of any length.

use kiln_solver::event::Stream;

/// An unended line that grows beyond this is shown as it is: a process may never write a newline.
const LONGEST: usize = 64 << 10;

/// The place of a stream's buffer: lines of the two streams must not flow into each other.
pub(super) fn stream_index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

/// Collects bytes until a line is complete. A carriage return starts the line over, as on a terminal.
#[derive(Debug, Default)]
pub(super) struct LineBuffer {
    partial: Vec<u8>,
    /// A carriage return came last: the next byte replaces the line, unless it ends it.
    returned: bool,
}

impl LineBuffer {
    /// Takes more output and gives the lines that it completes.
    pub(super) fn push(&mut self, data: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for &byte in data {
            match byte {
                b'\n' => lines.push(self.end()),
                b'\r' => self.returned = true,
                byte => {
                    if std::mem::take(&mut self.returned) {
                        self.partial.clear();
                    }
                    self.partial.push(byte);
                    if self.partial.len() >= LONGEST {
                        lines.push(self.end());
                    }
                }
            }
        }
        lines
    }

    /// The line so far, when there is one.
    pub(super) fn partial(&self) -> Option<String> {
        (!self.partial.is_empty()).then(|| visible(&self.partial))
    }

    /// Ends the output: what no newline ended.
    pub(super) fn rest(&mut self) -> Option<String> {
        let rest = self.partial();
        self.partial.clear();
        self.returned = false;
        rest
    }

    fn end(&mut self) -> String {
        let line = visible(&self.partial);
        self.partial.clear();
        self.returned = false;
        line
    }
}

/// Bytes as text that stays on its line and leaves the terminal as it is: no escape sequences, no control
/// characters.
pub(crate) fn visible(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::with_capacity(text.len());
    for character in console::strip_ansi_codes(&text).chars() {
        match character {
            '\t' => shown.push_str("    "),
            '\n' => shown.push(' '),
            control if control.is_control() => {}
            other => shown.push(other),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, LineBuffer, visible};

    #[test]
    fn pieces_become_lines() {
        let table: &[(&[&str], &[&str], Option<&str>)] = &[
            (&["one\ntw", "o\n"], &["one", "two"], None),
            (&["\n\n"], &["", ""], None),
            (&["a\r\nb"], &["a"], Some("b")),
            (&["10%\r20%", "\r30%\r"], &[], Some("30%")),
            (&["10%\r", "\n"], &["10%"], None),
        ];
        for (pieces, lines, rest) in table {
            let mut buffer = LineBuffer::default();
            let found: Vec<String> = pieces
                .iter()
                .flat_map(|piece| buffer.push(piece.as_bytes()))
                .collect();
            assert_eq!(found, *lines, "{pieces:?}");
            assert_eq!(buffer.partial().as_deref(), *rest, "{pieces:?}");
            assert_eq!(buffer.rest().as_deref(), *rest, "{pieces:?}");
            assert_eq!(buffer.rest(), None);
        }
    }

    #[test]
    fn a_character_may_be_cut_in_two() {
        let mut buffer = LineBuffer::default();
        assert!(buffer.push(b"\xc3").is_empty());
        assert_eq!(buffer.push(b"\xa9\n"), ["é"]);
    }

    #[test]
    fn a_line_without_end_does_not_fill_the_memory() {
        let mut buffer = LineBuffer::default();
        let lines = buffer.push(&vec![b'x'; 3 * LONGEST + 1]);
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [LONGEST; 3]);
        assert_eq!(buffer.rest().as_deref(), Some("x"));
    }

    #[test]
    fn nothing_reaches_the_terminal_but_text() {
        assert_eq!(
            visible(b"\x1b[31mred\x1b[0m\x1b[2K\x07\ta\x08\xff\x1b]0;title\x07b"),
            "red    a\u{fffd}b"
        );
    }
}
