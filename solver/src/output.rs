//! The output of a step's process: all of it in a log file, its end in memory for the error message.

use std::collections::VecDeque;
use std::io::Write;
use std::path::PathBuf;

use kiln_cache::StepLog;

/// As many lines as BuildKit shows of a failed step, and a few more.
const TAIL_LINES: usize = 20;
/// A line is cut in the message (not in the log) at this many bytes.
const TAIL_LINE_BYTES: usize = 4096;

/// Takes output as it comes.
#[derive(Debug)]
pub(crate) struct OutputTail {
    log: Option<StepLog>,
    lines: VecDeque<Vec<u8>>,
    partial: Vec<u8>,
}

impl OutputTail {
    /// Output goes to `log`, if there is one.
    pub(crate) fn new(log: Option<StepLog>) -> Self {
        Self {
            log,
            lines: VecDeque::new(),
            partial: Vec::new(),
        }
    }

    /// Adds output. A log that cannot be written (full disk) is given up; the build goes on.
    pub(crate) fn add(&mut self, data: &[u8]) {
        if let Some(file) = &mut self.log
            && file.write_all(data).is_err()
        {
            self.log = None;
        }
        for byte in data {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.partial);
                self.push(line);
            } else if self.partial.len() < TAIL_LINE_BYTES {
                self.partial.push(*byte);
            }
        }
    }

    fn push(&mut self, line: Vec<u8>) {
        if self.lines.len() == TAIL_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// The last lines, and where the whole output is.
    pub(crate) fn finish(mut self) -> (Vec<String>, Option<PathBuf>) {
        if !self.partial.is_empty() {
            let line = std::mem::take(&mut self.partial);
            self.push(line);
        }
        let lines = self
            .lines
            .iter()
            .map(|line| String::from_utf8_lossy(line).trim_end().to_owned())
            .collect();
        (lines, self.log.map(|log| log.path().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::{OutputTail, TAIL_LINES};

    #[test]
    fn keeps_the_last_lines_and_the_partial_one() {
        let mut tail = OutputTail::new(None);
        for number in 0..100 {
            tail.add(format!("line {number}\n").as_bytes());
        }
        tail.add(b"no newline");
        let (lines, log) = tail.finish();
        assert_eq!(lines.len(), TAIL_LINES);
        assert_eq!(lines.first().map(String::as_str), Some("line 81"));
        assert_eq!(lines.last().map(String::as_str), Some("no newline"));
        assert!(log.is_none());
    }

    #[test]
    fn an_endless_line_stays_bounded() {
        let mut tail = OutputTail::new(None);
        tail.add(&vec![b'x'; 1 << 20]);
        assert!(tail.finish().0.iter().all(|line| line.len() <= 4096));
    }
}
