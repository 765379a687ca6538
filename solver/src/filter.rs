//! Which part of a copied directory a copy takes.

use kiln_tree::glob::{self, GlobError};
use kiln_tree::ignore::{IgnoreErrorReason, IgnoreFile, PathPattern};

use crate::graph::CopySource;

/// What a copy takes of a directory. Paths are relative to it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Only this, and what is below it.
    below: Option<PathPattern>,
    /// Nothing of this.
    exclude: IgnoreFile,
}

/// A pattern that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FilterError {
    /// The pattern below a source's directory.
    #[error("\"{pattern}\": {source}")]
    Below {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        source: GlobError,
    },
    /// A pattern of what is left out.
    #[error("\"{pattern}\": {source}")]
    Exclude {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        source: IgnoreErrorReason,
    },
}

impl Filter {
    /// The filter of one source of a copy that leaves `exclude` out; `None` when everything is taken.
    pub(crate) fn new(source: &CopySource, exclude: &[String]) -> Result<Option<Self>, FilterError> {
        if source.below.is_none() && exclude.is_empty() {
            return Ok(None);
        }
        let below = source.below.as_ref().map(|pattern| {
            // The directory itself means all of it.
            let pattern = if pattern.is_empty() { "**" } else { pattern };
            PathPattern::new(pattern).map_err(|source| FilterError::Below {
                pattern: pattern.to_owned(),
                source,
            })
        });
        let exclude = IgnoreFile::from_patterns(exclude.iter().map(String::as_str), "exclude");
        let exclude = exclude.map_err(|error| FilterError::Exclude {
            pattern: error.text,
            source: error.reason,
        })?;
        Ok(Some(Self {
            below: below.transpose()?,
            exclude,
        }))
    }

    /// Whether what is at `path` is taken. (A directory that is not taken is made all the same for what is below it.)
    pub(crate) fn takes(&self, path: &[u8]) -> bool {
        self.below.as_ref().is_none_or(|below| below.selects(path)) && !self.excludes(path)
    }

    /// Whether `path` is left out: in a directory, or the name of a single file that is copied.
    pub(crate) fn excludes(&self, path: &[u8]) -> bool {
        self.exclude.matches(path).excluded
    }

    /// Whether something below `directory` could be taken.
    pub(crate) fn could_take_below(&self, directory: &[u8]) -> bool {
        let below = self.below.as_ref();
        below.is_none_or(|below| below.could_select_below(directory))
            && (!self.excludes(directory) || self.exclude.could_reinclude_below(directory))
    }
}

/// Whether a source has to be there: it has no wildcards.
pub(crate) fn is_literal(source: &CopySource) -> bool {
    let below = source.below.as_deref().unwrap_or_default();
    !glob::has_wildcards(&source.pattern) && !glob::has_wildcards(below)
}

#[cfg(test)]
mod tests {
    use super::Filter;
    use crate::graph::CopySource;

    #[test]
    fn takes_what_is_below_and_not_excluded() {
        // Below, excluded, path, taken, could take below.
        type Row = (
            Option<&'static str>,
            &'static [&'static str],
            &'static str,
            bool,
            bool,
        );
        let table: &[Row] = &[
            (Some("a/b"), &[], "a", false, true),
            (Some("a/b"), &[], "a/b", true, true),
            (Some("a/b"), &[], "a/b/c", true, true),
            (Some("a/b"), &[], "x", false, false),
            (Some(""), &[], "x/y", true, true),
            (Some("**/*.c"), &["**/t"], "s/t", false, false),
            (Some("**/*.c"), &["**/t"], "s/t/x.c", false, false),
            (Some("**/*.c"), &["**/t"], "s/x.c", true, true),
            (None, &["*.o", "!keep.o"], "x.o", false, false),
            (None, &["*.o", "!keep.o"], "keep.o", true, true),
            (None, &["d", "!d/x"], "d", false, true),
            (None, &["d", "!d/x"], "d/x", true, true),
            (None, &["d", "!d/x"], "d/y", false, false),
            (None, &["d"], "e", true, true),
        ];
        for (below, exclude, path, takes, could) in table {
            let source = CopySource {
                below: below.map(str::to_owned),
                ..CopySource::default()
            };
            let exclude: Vec<String> = exclude.iter().map(|&pattern| pattern.to_owned()).collect();
            let filter = Filter::new(&source, &exclude)
                .expect("patterns")
                .expect("a filter");
            assert_eq!(
                (
                    filter.takes(path.as_bytes()),
                    filter.could_take_below(path.as_bytes())
                ),
                (*takes, *could),
                "{below:?} without {exclude:?}: {path}"
            );
        }
        assert_eq!(Filter::new(&CopySource::default(), &[]), Ok(None));
    }

    #[test]
    fn malformed_patterns_are_named() {
        let source = CopySource {
            below: Some("a/[".to_owned()),
            ..CopySource::default()
        };
        let below = Filter::new(&source, &[]).map_err(|error| error.to_string());
        assert_eq!(
            below,
            Err("\"a/[\": unterminated character class in pattern".to_owned())
        );
        let excluded =
            Filter::new(&CopySource::default(), &["x\\".to_owned()]).map_err(|error| error.to_string());
        assert_eq!(excluded, Err("\"x\\\": trailing backslash in pattern".to_owned()));
    }
}
