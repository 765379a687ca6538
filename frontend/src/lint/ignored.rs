//! Sources of COPY and ADD that the ignore file leaves out of the context.

use kiln_parser::ast::Source;
use kiln_parser::ignore::IgnoreFile;

use super::{Linter, View};
use crate::instruction::remote::is_fetched;
use crate::path;

impl Linter<'_> {
    /// `verb` is `Copy` or `Add`.
    pub(super) fn ignored(&mut self, view: View<'_>, verb: &str, sources: &[Source]) {
        // With exceptions, a folder may be left out and a file in it not: nothing can be said then.
        let Some(ignore) = self
            .ignore
            .filter(|ignore| !ignore.is_empty() && !ignore.has_exceptions())
        else {
            return;
        };
        for source in sources {
            let Source::Path(word) = source else { continue };
            let Some(path) = self.value(word, view.state) else {
                continue;
            };
            // No ignore file has a say.
            if is_fetched(&path) {
                continue;
            }
            let path = path::clean(&path);
            if is_excluded(ignore, &path) {
                let message = format!("Attempting to {verb} file {path:?} that is excluded by .dockerignore");
                self.report(view, "CopyIgnoredFile", word.span, message);
            }
        }
    }
}

fn is_excluded(ignore: &IgnoreFile, path: &str) -> bool {
    if matches!(path, "." | "/") {
        // The root itself is never excluded; a pattern for all that is in it leaves nothing.
        return ignore
            .patterns()
            .any(|pattern| matches!(pattern, "*" | "**" | "**/*"));
    }
    ignore.matches(path.trim_start_matches('/').as_bytes()).excluded
}
