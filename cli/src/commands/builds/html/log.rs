//! The logs of steps, as far as a page can hold them.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, Read};

use kiln_cache::Store;
use kiln_solver::{StepOutcome, StepReport};

use super::super::{Found, short};
use super::escape;
use crate::report::Failure;

/// As much of the beginning and as much of the end of one log is shown; the page says where the rest is.
const PART: usize = 256 << 10;
/// More in all makes no page that a browser can show. A failed step's log is shown in any case.
const TOTAL: usize = 16 << 20;

/// Writes the logs of a build.
pub(super) struct Logs<'a> {
    store: &'a Store,
    found: &'a Found,
    left: usize,
}

/// The two ends of a log.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ends {
    start: Vec<u8>,
    /// Bytes that are left out.
    between: u64,
    end: Vec<u8>,
}

impl Ends {
    /// Of what `reader` gives, `part` bytes of each end.
    fn of(mut reader: impl Read, part: usize) -> io::Result<Self> {
        let mut start = Vec::new();
        reader.by_ref().take(part as u64).read_to_end(&mut start)?;
        let mut end: VecDeque<u8> = VecDeque::new();
        let mut between = 0;
        let mut chunk = vec![0; 64 << 10];
        loop {
            let count = match reader.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            end.extend(chunk.get(..count).unwrap_or_default());
            let over = end.len().saturating_sub(part);
            end.drain(..over);
            between += over as u64;
        }
        Ok(Self {
            start,
            between,
            end: end.into(),
        })
    }

    /// Only whole lines around what is left out.
    fn trim(&mut self) {
        if self.between == 0 {
            self.start.append(&mut self.end);
            return;
        }
        if let Some(at) = self.start.iter().rposition(|byte| *byte == b'\n') {
            self.between += (self.start.len() - at - 1) as u64;
            self.start.truncate(at + 1);
        }
        if let Some(at) = self.end.iter().position(|byte| *byte == b'\n') {
            self.between += at as u64 + 1;
            self.end.drain(..=at);
        }
    }
}

impl<'a> Logs<'a> {
    pub(super) fn new(store: &'a Store, found: &'a Found) -> Self {
        Self {
            store,
            found,
            left: TOTAL,
        }
    }

    /// Writes the logs of the step at `at`: its own, and that of a run to verify it, as far as there are any.
    pub(super) fn write(&mut self, page: &mut String, at: usize, step: &StepReport) -> Result<(), Failure> {
        let again = step.verified.as_ref().and_then(|verified| verified.log.as_ref());
        for name in step.log.iter().chain(again) {
            self.write_one(page, at, step, name)?;
        }
        Ok(())
    }

    fn write_one(
        &mut self,
        page: &mut String,
        at: usize,
        step: &StepReport,
        name: &str,
    ) -> Result<(), Failure> {
        let log = self.store.builds().log(&self.found.id);
        let Some(reader) = log.read(name)? else {
            page.push_str("<p class=\"cut\">The log is no longer kept.</p>\n");
            return Ok(());
        };
        let part = if step.outcome == StepOutcome::Failed {
            PART
        } else {
            PART.min(self.left / 2)
        };
        let mut ends =
            Ends::of(reader, part).map_err(|error| Failure::io("read", log.path().join(name), error))?;
        ends.trim();
        self.left = self.left.saturating_sub(ends.start.len() + ends.end.len());
        if ends.start.is_empty() && ends.between == 0 {
            return Ok(());
        }
        page.push_str("<div class=\"log\"><div><pre>");
        page.push_str(&text(&ends.start));
        if ends.between > 0 {
            let _ = write!(
                page,
                "</pre><p class=\"cut\">{} bytes are not shown here: kiln builds logs {} --step {}</p><pre>",
                ends.between,
                short(&self.found.id),
                at + 1
            );
            page.push_str(&text(&ends.end));
        }
        page.push_str("</pre></div></div>\n");
        Ok(())
    }
}

/// A log as text of the page.
fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    escape(&shown(&console::strip_ansi_codes(&text)))
}

/// Lines as a terminal would leave them: what a carriage return takes back is left out.
fn shown(text: &str) -> String {
    let lines = text.split('\n').map(|line| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        line.rsplit('\r').next().unwrap_or(line)
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::{Ends, shown};

    #[test]
    fn carriage_returns_take_back() {
        assert_eq!(shown("a\r\n10%\r20%\nend"), "a\n20%\nend");
    }

    #[test]
    fn a_long_log_has_two_ends() {
        let of = |text: &str, part| {
            let mut ends = Ends::of(text.as_bytes(), part).unwrap();
            ends.trim();
            let text = |bytes| String::from_utf8(bytes).unwrap();
            (text(ends.start), ends.between, text(ends.end))
        };
        assert_eq!(of("one\ntwo\n", 8), ("one\ntwo\n".into(), 0, String::new()));
        assert_eq!(of("one\ntwo\n", 4), ("one\ntwo\n".into(), 0, String::new()));
        assert_eq!(
            of("one\ntwo\nthree\nfour\n", 7),
            ("one\n".into(), 10, "four\n".into())
        );
        assert_eq!(of("0123456789", 2), ("01".into(), 6, "89".into()));
        assert_eq!(of("0123456789", 0), (String::new(), 10, String::new()));
    }
}
