//! What a Dockerfile may come to once its variables are replaced.
//!
//! A file of a few lines can ask for any amount of text: each line may use what the line before made, several times
//! over. And each RUN has the whole environment of its place, so that a thousand variables and a thousand RUNs are a
//! million strings. Everything that is made of a file is counted, and too much of it is an error at the line where it
//! becomes too much.

use std::cell::Cell;

use kiln_parser::{Diagnostic, Span};

/// Bytes that the values, environments and history of one file may come to. A large real file comes to a few megabytes.
const LIMIT: usize = 64 << 20;

/// Counts down from what is allowed.
#[derive(Debug)]
pub(crate) struct Budget {
    left: Cell<usize>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            left: Cell::new(LIMIT),
        }
    }
}

impl Budget {
    /// Takes `bytes`; an error at `span` when there are not as many left.
    pub(crate) fn charge(&self, bytes: usize, span: Span) -> Result<(), Diagnostic> {
        let left = self.left.get().checked_sub(bytes);
        self.left.set(left.unwrap_or(0));
        if left.is_some() {
            return Ok(());
        }
        let message = format!(
            "the values of this file come to more than {} MiB at this line",
            LIMIT >> 20
        );
        Err(Diagnostic::error(span, message).hint(
            "put large data into files of the build context; look for variables that repeat each other",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, LIMIT};
    use kiln_parser::Span;

    #[test]
    fn what_is_left_gets_less() {
        let budget = Budget::default();
        let span = Span::new(3, 4);
        assert!(budget.charge(LIMIT - 1, span).is_ok() && budget.charge(1, span).is_ok());
        let error = budget.charge(1, span).unwrap_err();
        assert_eq!(error.span, span);
        assert!(error.message.contains("64 MiB"), "{}", error.message);
        assert!(budget.charge(0, span).is_ok());
    }
}
