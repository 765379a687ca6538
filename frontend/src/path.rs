//! Lexical path arithmetic of WORKDIR, COPY and ADD. Nothing here looks at files.

use kiln_parser::{Diagnostic, Span};

/// An absolute path from `path` as seen from the absolute directory `base`: `.` and `..` resolved, `..` never
/// above the root, no slash at the end.
pub(crate) fn resolve(base: &str, path: &str) -> String {
    let base = if path.starts_with('/') { "" } else { base };
    let mut components: Vec<&str> = Vec::new();
    for component in base.split('/').chain(path.split('/')) {
        match component {
            "" | "." => {}
            ".." => {
                components.pop();
            }
            name => components.push(name),
        }
    }
    format!("/{}", components.join("/"))
}

/// A path without `.`, inner `..` and double slashes that stays relative if it is; `.` when nothing is left.
pub(crate) fn clean(path: &str) -> String {
    if path.starts_with('/') {
        return resolve("/", path);
    }
    let mut components: Vec<&str> = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." if components.last().is_some_and(|last| *last != "..") => {
                components.pop();
            }
            name => components.push(name),
        }
    }
    if components.is_empty() {
        ".".to_owned()
    } else {
        components.join("/")
    }
}

/// The absolute destination of a copy. A slash at its end says that it is a directory, and is kept; a path that
/// ends in `.` names a directory too, and so does an empty one (the working directory).
pub(crate) fn destination(workdir: &str, path: &str) -> String {
    let mut resolved = resolve(workdir, path);
    if names_directory(path) && !resolved.ends_with('/') {
        resolved.push('/');
    }
    resolved
}

/// The longest path that a system call takes, without the zero at its end.
const LONGEST: usize = 4095;

/// Refuses a path in the image that no process could name.
pub(crate) fn check_length(path: &str, span: Span) -> Result<(), Diagnostic> {
    if path.len() <= LONGEST {
        return Ok(());
    }
    let message = format!("the path has {} bytes; a path may have {LONGEST}", path.len());
    Err(Diagnostic::error(span, message))
}

/// Whether a destination as written can only be a directory.
pub(crate) fn names_directory(path: &str) -> bool {
    matches!(path, "" | "." | "..") || path.ends_with('/') || path.ends_with("/.") || path.ends_with("/..")
}

/// The pattern of a source below its root: no leading slash, no `..` above the root, no slash at the end.
/// The root itself is the empty pattern.
pub(crate) fn source_pattern(path: &str) -> String {
    resolve("/", path).trim_start_matches('/').to_owned()
}

/// A source of `COPY --parents`: the directory up to the first `/./`, whose path is not kept, and the rest.
pub(crate) fn pivot(path: &str) -> (String, String) {
    let (pivot, below) = path.split_once("/./").unwrap_or(("", path));
    (source_pattern(pivot), source_pattern(below))
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, check_length, clean, destination, names_directory, pivot, resolve, source_pattern};
    use kiln_parser::Span;

    #[test]
    fn paths_that_no_process_could_name_are_refused() {
        assert!(check_length(&"x".repeat(LONGEST), Span::default()).is_ok());
        let error = check_length(&"x".repeat(LONGEST + 1), Span::new(1, 2)).unwrap_err();
        assert!(error.message.contains("4096 bytes") && error.span == Span::new(1, 2));
    }

    #[test]
    fn a_source_is_cut_at_its_pivot() {
        for (path, expected) in [
            ("a/b/c", ("", "a/b/c")),
            ("/a/b/", ("", "a/b")),
            ("./a/b", ("", "a/b")),
            ("a/./b/c", ("a", "b/c")),
            ("/a/*/./b/**/c", ("a/*", "b/**/c")),
            ("a/./b/./c", ("a", "b/c")),
            ("a/./../../b", ("a", "b")),
            ("a/./", ("a", "")),
            (".", ("", "")),
        ] {
            let (directory, below) = pivot(path);
            assert_eq!((directory.as_str(), below.as_str()), expected, "{path}");
        }
    }

    #[test]
    fn paths_resolve_lexically_and_stay_below_the_root() {
        for (base, path, expected) in [
            ("/", "app", "/app"),
            ("/app", "src", "/app/src"),
            ("/app", "/src", "/src"),
            ("/app", "../x/./y//z/", "/x/y/z"),
            ("/app", "../../..", "/"),
            ("/app", "", "/app"),
            ("", "rel", "/rel"),
        ] {
            assert_eq!(resolve(base, path), expected, "{base} + {path}");
        }
    }

    #[test]
    fn clean_paths_stay_relative() {
        for (path, expected) in [
            ("/a//b/./c/..", "/a/b"),
            ("/..", "/"),
            ("a/", "a"),
            ("./a/../../b", "../b"),
            ("../..", "../.."),
            ("", "."),
            (".", "."),
            ("./", "."),
            ("/", "/"),
            ("/../a/", "/a"),
            ("../a", "../a"),
            ("a//b/./c/..", "a/b"),
            ("a/..", "."),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
    }

    #[test]
    fn a_destination_keeps_what_says_directory() {
        for (path, expected) in [
            (".", "/app/"),
            ("", "/app/"),
            ("./", "/app/"),
            ("x", "/app/x"),
            ("x/", "/app/x/"),
            ("x/.", "/app/x/"),
            ("/", "/"),
            ("..", "/"),
            ("/abs", "/abs"),
        ] {
            assert_eq!(destination("/app", path), expected, "{path}");
        }
        assert!(names_directory("a/.") && !names_directory("a."));
    }

    #[test]
    fn source_patterns_are_clamped_to_their_root() {
        for (path, expected) in [
            ("a", "a"),
            ("/a", "a"),
            ("../../a", "a"),
            ("dir/", "dir"),
            (".", ""),
            ("/", ""),
            ("a/*/b?", "a/*/b?"),
        ] {
            assert_eq!(source_pattern(path), expected, "{path}");
        }
    }
}
