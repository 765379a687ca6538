//! The output of a step's process: all of it in a log file, its end in memory for the error message.

use std::collections::VecDeque;
use std::io::Write;
use std::path::PathBuf;

use kiln_cache::StepLog;

use crate::event::Stream;

/// As many lines as BuildKit shows of a failed step, and a few more.
const TAIL_LINES: usize = 20;
/// A line is cut in the message (not in the log) at this many bytes.
const TAIL_LINE_BYTES: usize = 4096;

/// Takes output as it comes.
#[derive(Debug)]
pub(crate) struct OutputTail {
    log: Option<StepLog>,
    log_path: Option<PathBuf>,
    log_error: Option<std::io::Error>,
    lines: VecDeque<Vec<u8>>,
    /// The beginning of a line, for each stream: what one writes must not end up within a line of the other.
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// What is left of a step's output.
#[derive(Debug)]
pub(crate) struct OutputEnd {
    /// The last lines.
    pub(crate) lines: Vec<String>,
    /// Where all of it is, as far as it could be written.
    pub(crate) log: Option<PathBuf>,
    /// Why the log is not complete.
    pub(crate) log_error: Option<std::io::Error>,
}

impl OutputTail {
    /// Output goes to `log`, if there is one.
    pub(crate) fn new(log: Option<StepLog>) -> Self {
        let log_path = log.as_ref().map(|log| log.path().to_owned());
        Self {
            log,
            log_path,
            log_error: None,
            lines: VecDeque::new(),
            stdout: Vec::new(),
            stderr: Vec::new(),
        }
    }

    /// Adds output. A log that cannot be written (full disk) is given up; the build goes on.
    pub(crate) fn add(&mut self, stream: Stream, data: &[u8]) {
        if let Some(log) = &mut self.log
            && let Err(error) = log.write_all(data)
        {
            self.log_error = Some(error);
            self.log = None;
        }
        let mut lines = data.split(|byte| *byte == b'\n');
        // What comes after the last newline is the beginning of a line.
        let rest = lines.next_back().unwrap_or_default();
        for line in lines {
            self.extend_partial(stream, line);
            self.end_line(stream);
        }
        self.extend_partial(stream, rest);
    }

    fn partial(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn extend_partial(&mut self, stream: Stream, bytes: &[u8]) {
        let partial = self.partial(stream);
        let room = TAIL_LINE_BYTES.saturating_sub(partial.len());
        partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end_line(&mut self, stream: Stream) {
        let line = std::mem::take(self.partial(stream));
        if self.lines.len() == TAIL_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// The last lines, and where the whole output is.
    pub(crate) fn finish(mut self) -> OutputEnd {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !self.partial(stream).is_empty() {
                self.end_line(stream);
            }
        }
        if let Some(Err(error)) = self.log.as_mut().map(Write::flush) {
            self.log_error = Some(error);
        }
        let lines = self.lines.iter().map(|line| shown(line)).collect();
        OutputEnd {
            lines,
            log: self.log_path,
            log_error: self.log_error,
        }
    }
}

/// A line as a terminal would show it in the end: what a carriage return takes back is left out.
fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end();
    text.rsplit('\r').next().unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::{OutputTail, Stream, TAIL_LINES};

    #[test]
    fn keeps_the_last_lines_and_the_partial_one() {
        let mut tail = OutputTail::new(None);
        for number in 0..100 {
            tail.add(Stream::Stdout, format!("line {number}\n").as_bytes());
        }
        tail.add(Stream::Stdout, b"no newline");
        let end = tail.finish();
        assert_eq!(end.lines.len(), TAIL_LINES);
        assert_eq!(end.lines.first().map(String::as_str), Some("line 81"));
        assert_eq!(end.lines.last().map(String::as_str), Some("no newline"));
        assert!(end.log.is_none() && end.log_error.is_none());
    }

    #[test]
    fn an_endless_line_stays_bounded() {
        let mut tail = OutputTail::new(None);
        for _ in 0..100 {
            tail.add(Stream::Stdout, &vec![b'x'; 1 << 14]);
        }
        assert!(tail.finish().lines.iter().all(|line| line.len() <= 4096));
    }

    /// However the output is cut into reads, the lines are the same.
    #[test]
    fn lines_do_not_depend_on_the_reads() {
        let output = "first\n\nprogress 1%\rprogress 100%\r\nlast ü\nrest".as_bytes();
        for size in 1..output.len() {
            let mut tail = OutputTail::new(None);
            output
                .chunks(size)
                .for_each(|chunk| tail.add(Stream::Stdout, chunk));
            assert_eq!(
                tail.finish().lines,
                ["first", "", "progress 100%", "last ü", "rest"],
                "reads of {size}"
            );
        }
    }

    #[test]
    fn lines_of_two_streams_do_not_mix() {
        let mut tail = OutputTail::new(None);
        tail.add(Stream::Stdout, b"out 1\nout");
        tail.add(Stream::Stderr, b"err 1\nerr");
        tail.add(Stream::Stdout, b" 2\n");
        tail.add(Stream::Stderr, b" 2");
        assert_eq!(tail.finish().lines, ["out 1", "err 1", "out 2", "err 2"]);
    }

    #[test]
    fn the_log_holds_every_byte() {
        let folder = crate::testing::TempDir::new();
        let store = folder.store();
        let id = kiln_cache::BuildId::new();
        let log = store.builds().log(&id).step("0001").expect("a log");
        let mut tail = OutputTail::new(Some(log));
        tail.add(Stream::Stdout, b"a\xff\n");
        tail.add(Stream::Stdout, b"b");
        assert!(tail.finish().log.expect("a path").exists());
        let mut bytes = Vec::new();
        let reader = store.builds().log(&id).read("0001").expect("the log");
        reader.expect("a log").read_to_end(&mut bytes).expect("the log");
        assert_eq!(bytes, b"a\xff\nb");
    }
}
