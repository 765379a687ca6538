//! What patterns of an ignore file leave out, and what their exceptions bring back.

use super::*;

fn ignore(text: &str) -> IgnoreFile {
    IgnoreFile::parse(text.as_bytes(), ".dockerignore").unwrap()
}

#[test]
fn single_patterns() {
    for (pattern, path, excluded) in [
        ("**", "file", true),
        ("**", "dir/file", true),
        ("**/", "file", true),
        ("**/**", "dir/file", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir/dir2/file", true),
        ("dir/**", "dir", false),
        ("**/dir", "dir", true),
        ("**/dir", "dir/file", true),
        ("**/dir2/*", "dir/dir2/file", true),
        ("**/dir2/**", "dir/dir2/dir2/file", true),
        ("**file", "file", true),
        ("**file", "dir/file", true),
        ("**file", "dir/xfile", true),
        ("**/file", "dir/xfile", false),
        ("**/file", "dir/file", true),
        ("**/file*", "dir/dir/file.txt", true),
        ("**/file*txt", "dir/dir/file.txt", true),
        ("**/file*.txt*", "dir/dir/file.txt", true),
        ("**/**/*.txt", "dir/dir/file.txt", true),
        ("**/**/*.txt2", "dir/dir/file.txt", false),
        ("**/*.txt", "file.txt", true),
        ("a**/*.txt", "a/file.txt", true),
        ("a**/*.txt", "a/dir/dir/file.txt", true),
        ("a/*.txt", "a/dir/file.txt", false),
        ("a/*.txt", "a/file.txt", true),
        ("a[b-d]e", "ae", false),
        ("a[b-d]e", "ace", true),
        ("a[^b-d]e", "aze", true),
        (".*", ".foo", true),
        (".*", "foo", false),
        ("abc.def", "abcdef", false),
        ("abc.def", "abc.def", true),
        ("abc?def", "abcZdef", true),
        ("abc?def", "abcdef", false),
        ("a\\*b", "a*b", true),
        ("a\\\\b", "a\\b", true),
        ("**/foo/bar", "foo/bar", true),
        ("**/foo/bar", "dir/foo/bar", true),
        ("abc/**", "abc/def", true),
        ("**/.foo", "bar/.foo", true),
        ("(foo)", "(foo)", true),
        ("a(b)c/def", "a(b)c/def", true),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
        (
            "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
            "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
            true,
        ),
        ("dist/*.whl", "dist/proxy.whl", true),
        // Anchored at the root; a directory takes its content along; a final slash says nothing.
        ("file", "dir/file", false),
        ("dir", "dir/sub/file", true),
        ("dir/", "dir", true),
        ("/dir", "dir", true),
        ("./dir", "dir", true),
        ("x/../dir", "dir", true),
        ("*", "dir/file", true),
        ("*/*", "dir", false),
        (".", "dir", false),
        ("/", "dir", false),
        ("../dir", "dir", false),
        // A comment only in the first column.
        ("#dir", "#dir", false),
        (" #dir", "#dir", true),
        ("  dir  ", "dir", true),
        ("dir\r", "dir", true),
    ] {
        assert_eq!(
            ignore(pattern).matches(path.as_bytes()).excluded,
            excluded,
            "{pattern} {path}"
        );
    }
}

#[test]
fn a_single_pattern_takes_what_is_below_along() {
    for (pattern, path, selects, could) in [
        ("a/b", "a", false, true),
        ("a/b", "a/b", true, true),
        ("a/b", "a/b/c/d", true, true),
        ("/a/./b", "a/bc", false, false),
        ("!a", "!a", true, true),
        ("**/*.c", "x/y", false, true),
        ("**/*.c", "x/y.c", true, true),
        ("a/**", "a", false, true),
        ("a/*/c", "a/b", false, true),
        ("a/*/c", "b", false, false),
    ] {
        let compiled = PathPattern::new(pattern).unwrap();
        assert_eq!(
            (
                compiled.selects(path.as_bytes()),
                compiled.could_select_below(path.as_bytes())
            ),
            (selects, could),
            "{pattern} {path}"
        );
    }
}

#[test]
fn last_match_wins() {
    for (patterns, path, excluded, line) in [
        ("*\n!docs", "docs/a", false, Some(2)),
        ("docs\n!docs/README.md", "docs/README.md", false, Some(2)),
        ("docs\n!docs/README.md", "docs/other", true, Some(1)),
        ("!docs\ndocs", "docs", true, Some(2)),
        (
            "*.md\n!README*.md\nREADME-secret.md",
            "README-secret.md",
            true,
            Some(3),
        ),
        (
            "*.md\nREADME-secret.md\n!README*.md",
            "README-secret.md",
            false,
            Some(3),
        ),
        ("**\n! **/*.rs", "a/b/c.rs", false, Some(2)),
        ("a/b\n!a", "a/b/c", false, Some(2)),
        ("\u{FEFF}a", "a", true, Some(1)),
        ("a", "", false, None),
        ("a", "b", false, None),
    ] {
        let file = ignore(patterns);
        let verdict = file.matches(path.as_bytes());
        assert_eq!(
            (verdict.excluded, verdict.pattern.map(|(line, _)| line)),
            (excluded, line),
            "{patterns} {path}"
        );
    }
    assert_eq!(ignore("x\n !  y ").matches(b"y").pattern, Some((2, "!  y")));
}

#[test]
fn pruning_knows_which_exceptions_could_match() {
    for (patterns, directory, could) in [
        ("node_modules", "node_modules", false),
        ("node_modules\n!docs", "node_modules", false),
        ("node_modules\n!node_modules/a/b", "node_modules", true),
        ("node_modules\n!node_modules/a/b", "node_modules/a", true),
        ("node_modules\n!node_modules/a/b", "node_modules/c", false),
        ("a\n!**/x", "a", true),
        ("a\n!a/**", "a", true),
        ("*\n!*/b/*.c", "a", true),
        ("*\n!*/b/*.c", "a/b", true),
        ("*\n!*/b/*.c", "a/c", false),
        ("!a/b\na", "a", false),
        ("*\n!?.c", "a", false),
    ] {
        assert_eq!(
            ignore(patterns).could_reinclude_below(directory.as_bytes()),
            could,
            "{patterns} {directory}"
        );
    }
}

#[test]
fn bad_lines_are_named() {
    for (text, message) in [
        (
            "a\n!",
            ".dockerignore:2: illegal exclusion pattern: nothing follows the !: \"!\"",
        ),
        (
            "[",
            ".dockerignore:1: unterminated character class in pattern: \"[\"",
        ),
        ("a\\", ".dockerignore:1: trailing backslash in pattern: \"a\\\\\""),
        (
            "[]a]",
            ".dockerignore:1: malformed character class in pattern: \"[]a]\"",
        ),
    ] {
        assert_eq!(
            IgnoreFile::parse(text.as_bytes(), ".dockerignore")
                .unwrap_err()
                .to_string(),
            message
        );
    }
}

proptest::proptest! {
    #[test]
    fn walking_and_asking_agree(patterns in "([!ab*?/]{1,6}\n){0,70}", path in "[ab](/?[ab]){0,6}") {
        if let Ok(file) = IgnoreFile::parse(patterns.as_bytes(), "x") {
            let mut state = file.root();
            let mut pruned = false;
            for (at, _) in path.match_indices('/') {
                let directory = &path.as_bytes()[..at];
                let excluded = file.verdict(&state, directory).excluded;
                pruned |= excluded && !file.could_reinclude(&state, directory);
                state = file.enter(&state, directory);
            }
            let verdict = file.verdict(&state, path.as_bytes());
            proptest::prop_assert_eq!(verdict, file.matches(path.as_bytes()));
            proptest::prop_assert!(!pruned || verdict.excluded);
        }
    }

    #[test]
    fn foreign_bytes_never_panic(bytes: Vec<u8>, path: Vec<u8>) {
        if let Ok(file) = IgnoreFile::parse(&bytes, "x") {
            file.matches(&path);
            file.could_reinclude_below(&path);
        }
    }
}
