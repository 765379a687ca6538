//! `.dockerignore`: which paths of a context count.
//!
//! The last pattern that matches a path or one of its parent directories decides. Patterns are anchored at the
//! root of the context, and `!` takes a path back in, even below an excluded directory.

use crate::glob::{Glob, GlobError};

/// A parsed ignore file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IgnoreFile {
    name: String,
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    line: usize,
    text: String,
    negated: bool,
    path: PathPattern,
}

/// A pattern of an ignore file without `!`: it means the paths that match and all that is below them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    matcher: Matcher,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Matcher {
    Exact(Vec<u8>),
    /// `x/**`.
    Prefix(Vec<u8>),
    /// `**/x`: the suffix with its slash, if any.
    Suffix(Vec<u8>),
    Glob(Glob),
}

/// A bad line of an ignore file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}:{line}: {reason}: {text:?}")]
pub struct IgnoreError {
    /// Name of the file.
    pub name: String,
    /// Line number, from 1.
    pub line: usize,
    /// The line.
    pub text: String,
    /// What is wrong with it.
    pub reason: IgnoreErrorReason,
}

/// What is wrong with a line of an ignore file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreErrorReason {
    /// A lone `!`.
    #[error("illegal exclusion pattern: nothing follows the !")]
    EmptyException,
    /// A malformed pattern.
    #[error(transparent)]
    Pattern(#[from] GlobError),
}

/// What an ignore file says about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// Whether the path is left out of the context.
    pub excluded: bool,
    /// The deciding pattern: its line number and text. None when no pattern matches.
    pub pattern: Option<(usize, &'a str)>,
}

/// Which patterns match a directory or one of its parents; handed down while walking.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirectoryMatch {
    /// One bit per pattern.
    matched: Vec<u64>,
}

impl DirectoryMatch {
    fn contains(&self, index: usize) -> bool {
        self.matched
            .get(index / 64)
            .is_some_and(|bits| bits >> (index % 64) & 1 == 1)
    }
}

impl IgnoreFile {
    /// Parses an ignore file. `name` is for messages.
    pub fn parse(bytes: &[u8], name: &str) -> Result<Self, IgnoreError> {
        let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        let mut file = Self {
            name: name.to_owned(),
            patterns: Vec::new(),
        };
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            if line.starts_with(b"#") {
                continue;
            }
            let line = String::from_utf8_lossy(line);
            let text = line.trim();
            if text.is_empty() {
                continue;
            }
            let pattern = Pattern::parse(text, index + 1).map_err(|reason| IgnoreError {
                name: name.to_owned(),
                line: index + 1,
                text: text.to_owned(),
                reason,
            })?;
            file.patterns.push(pattern);
        }
        Ok(file)
    }

    /// Makes an ignore file of patterns, one each, as `COPY --exclude` gives them.
    pub fn from_patterns<'a>(
        patterns: impl IntoIterator<Item = &'a str>,
        name: &str,
    ) -> Result<Self, IgnoreError> {
        let mut file = Self {
            name: name.to_owned(),
            patterns: Vec::new(),
        };
        for (index, text) in patterns.into_iter().enumerate() {
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            let error = |reason| IgnoreError {
                name: name.to_owned(),
                line: index + 1,
                text: text.to_owned(),
                reason,
            };
            file.patterns
                .push(Pattern::parse(text, index + 1).map_err(error)?);
        }
        Ok(file)
    }

    /// The name given to [`IgnoreFile::parse`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether there are no patterns.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The patterns as written, in order.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(|pattern| pattern.text.as_str())
    }

    /// Whether any pattern takes paths back in.
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.negated)
    }

    /// What holds for a slash-separated path relative to the root of the context. The root is never excluded.
    pub fn matches(&self, path: &[u8]) -> Verdict<'_> {
        self.verdict(&self.parents(path), path)
    }

    /// The match of the root, to start a walk with.
    pub fn root(&self) -> DirectoryMatch {
        DirectoryMatch {
            matched: vec![0; self.patterns.len().div_ceil(64)],
        }
    }

    /// The match of a directory, from that of its parent. Needed only to go on below it.
    pub fn enter(&self, parent: &DirectoryMatch, directory: &[u8]) -> DirectoryMatch {
        let mut matched = parent.clone();
        matched.matched.resize(self.patterns.len().div_ceil(64), 0);
        for (index, pattern) in self.patterns.iter().enumerate() {
            if !parent.contains(index) && pattern.path.matches(directory) {
                matched.matched[index / 64] |= 1 << (index % 64);
            }
        }
        matched
    }

    /// What holds for a path, given the match of its parent directory.
    pub fn verdict(&self, parent: &DirectoryMatch, path: &[u8]) -> Verdict<'_> {
        match self.deciding(parent, path) {
            Some((_, pattern)) => Verdict {
                excluded: !pattern.negated,
                pattern: Some((pattern.line, &pattern.text)),
            },
            None => Verdict {
                excluded: false,
                pattern: None,
            },
        }
    }

    /// Whether an excluded directory may hold paths that are taken back in. If not, a walk can leave it out.
    pub fn could_reinclude_below(&self, directory: &[u8]) -> bool {
        self.could_reinclude(&self.parents(directory), directory)
    }

    /// The same, given the match of the directory's parent.
    pub fn could_reinclude(&self, parent: &DirectoryMatch, directory: &[u8]) -> bool {
        // Exceptions in front of the deciding pattern cannot win below the directory either.
        let first = match self.deciding(parent, directory) {
            Some((_, pattern)) if pattern.negated => return true,
            Some((index, _)) => index + 1,
            None => return true,
        };
        let mut prefix = directory.to_vec();
        prefix.push(b'/');
        self.patterns[first..]
            .iter()
            .any(|pattern| pattern.negated && pattern.path.could_match_below(&prefix))
    }

    fn deciding(&self, parent: &DirectoryMatch, path: &[u8]) -> Option<(usize, &Pattern)> {
        if path.is_empty() {
            return None;
        }
        let matches =
            |(index, pattern): &(usize, &Pattern)| parent.contains(*index) || pattern.path.matches(path);
        self.patterns.iter().enumerate().rev().find(matches)
    }

    fn parents(&self, path: &[u8]) -> DirectoryMatch {
        let mut state = self.root();
        for (at, byte) in path.iter().enumerate() {
            if *byte == b'/' {
                state = self.enter(&state, &path[..at]);
            }
        }
        state
    }
}

impl Pattern {
    fn parse(text: &str, line: usize) -> Result<Self, IgnoreErrorReason> {
        let exception = text.strip_prefix('!').map(str::trim);
        let pattern = exception.unwrap_or(text);
        if pattern.is_empty() {
            return Err(IgnoreErrorReason::EmptyException);
        }
        Ok(Self {
            line,
            text: text.to_owned(),
            negated: exception.is_some(),
            path: PathPattern::new(pattern)?,
        })
    }
}

impl PathPattern {
    /// Compiles a pattern. It is cleaned as a path is; a slash at its start says nothing.
    pub fn new(pattern: &str) -> Result<Self, GlobError> {
        let cleaned = clean(pattern);
        let cleaned = cleaned
            .strip_prefix('/')
            .filter(|rest| !rest.is_empty())
            .unwrap_or(&cleaned);
        let matcher = Matcher::compile(cleaned)?;
        Ok(Self { matcher })
    }

    /// Whether the pattern matches `path` or something above it.
    pub fn selects(&self, path: &[u8]) -> bool {
        let mut slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        self.matches(path) || slashes.any(|(at, _)| self.matches(&path[..at]))
    }

    /// Whether the pattern matches something below `directory`, or could.
    pub fn could_select_below(&self, directory: &[u8]) -> bool {
        let mut prefix = directory.to_vec();
        prefix.push(b'/');
        self.selects(directory) || self.could_match_below(&prefix)
    }

    /// Whether the pattern matches `path` itself.
    pub fn matches(&self, path: &[u8]) -> bool {
        match &self.matcher {
            Matcher::Exact(exact) => path == exact,
            Matcher::Prefix(prefix) => path.starts_with(prefix),
            Matcher::Suffix(suffix) => path.ends_with(suffix) || suffix.strip_prefix(b"/") == Some(path),
            Matcher::Glob(glob) => glob.matches(path),
        }
    }

    /// Whether a path that starts with `prefix`, a directory with its slash, could match.
    fn could_match_below(&self, prefix: &[u8]) -> bool {
        match &self.matcher {
            Matcher::Exact(exact) => exact.starts_with(prefix),
            Matcher::Prefix(pattern) => pattern.starts_with(prefix) || prefix.starts_with(pattern),
            Matcher::Suffix(_) => true,
            Matcher::Glob(glob) => glob.could_match_below(prefix),
        }
    }
}

impl Matcher {
    fn compile(pattern: &str) -> Result<Self, GlobError> {
        // The same check as Go's: classes and escapes must be well-formed.
        Glob::new(pattern)?;
        let special = |text: &str| text.contains(['*', '?', '[', ']', '\\']);
        if !special(pattern) {
            return Ok(Self::Exact(pattern.into()));
        }
        if let Some(prefix) = pattern.strip_suffix("**").filter(|prefix| !special(prefix)) {
            return Ok(Self::Prefix(prefix.into()));
        }
        // `**x` without a slash is a plain suffix too.
        if let Some(suffix) = pattern.strip_prefix("**").filter(|suffix| !special(suffix)) {
            return Ok(Self::Suffix(suffix.into()));
        }
        Glob::with_globstar(pattern).map(Self::Glob)
    }
}

/// Go's `filepath.Clean`: no empty, `.` or inner `..` components.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut components: Vec<&str> = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                if components.last().is_some_and(|last| *last != "..") {
                    components.pop();
                } else if !rooted {
                    components.push("..");
                }
            }
            _ => components.push(component),
        }
    }
    let joined = components.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests;
