//! Sources of COPY and ADD that the ignore file leaves out of the context.

use kiln_parser::ast::Source;
use kiln_parser::ignore::IgnoreFile;

use super::{Linter, View};

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
            if is_remote(&path) {
                continue;
            }
            let path = clean(&path);
            if is_excluded(ignore, &path) {
                let message = format!("Attempting to {verb} file {path:?} that is excluded by .dockerignore");
                self.report(view, "CopyIgnoredFile", word.span, message);
            }
        }
    }
}

/// Whether a source of ADD is fetched: then no ignore file has a say.
fn is_remote(source: &str) -> bool {
    source.contains("://") || source.starts_with("git@")
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

/// The shortest name of the same path.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn paths_are_cleaned() {
        for (path, expected) in [
            ("", "."),
            (".", "."),
            ("./", "."),
            ("/", "/"),
            ("a//b/./c/..", "a/b"),
            ("../a", "../a"),
            ("a/../../b", "../b"),
            ("/../a/", "/a"),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
    }
}
