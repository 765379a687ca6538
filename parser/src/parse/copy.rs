//! COPY and ADD.

use kiln_tree::copy::ModeChange;

use super::{Context, Parts, shorten};
use crate::ast::{Add, Copy, Heredoc, Source, Word};
use crate::diagnostic::Diagnostic;
use crate::expand;
use crate::grammar::{self, SourceToken};
use crate::ignore::IgnoreFile;
use crate::instruction::Keyword;
use crate::span::Spanned;

impl Context<'_> {
    pub(super) fn copy(&mut self, parts: &mut Parts) -> Option<Copy> {
        let errors = self.diagnostics.len();
        let from = parts.flags.text("from");
        if let Some(from) = &from
            && expand::has_variables(&from.text, self.escape)
        {
            self.error_hint(
                from.span,
                "variable expansion is not supported for --from, define alias stage instead",
                format!(
                    "write FROM {} AS <name> before this stage, and --from=<name> here",
                    shorten(&from.text)
                ),
            );
        }
        let chown = self.expanded(parts, "chown");
        let chmod = self.chmod(parts);
        let exclude = self.exclude(parts);
        let link = parts.flags.boolean("link");
        let parents = parts.flags.boolean("parents");
        let (sources, destination, json) = self.sources(parts)?;
        let from = from.map(|word| Spanned::new(word.text, word.span));
        let copy = Copy {
            from,
            chown,
            chmod,
            link,
            parents,
            exclude,
            sources,
            destination,
            json,
        };
        (self.diagnostics.len() == errors).then_some(copy)
    }

    pub(super) fn add(&mut self, parts: &mut Parts) -> Option<Add> {
        let errors = self.diagnostics.len();
        let chown = self.expanded(parts, "chown");
        let chmod = self.chmod(parts);
        let exclude = self.exclude(parts);
        let checksum = self.expanded(parts, "checksum");
        let link = parts.flags.boolean("link");
        let keep_git_dir = parts.flags.boolean("keep-git-dir");
        let unpack = parts.flags.boolean("unpack");
        let (sources, destination, json) = self.sources(parts)?;
        if let (Some(checksum), true) = (&checksum, sources.len() > 1) {
            self.error(checksum.span, "checksum can't be specified for multiple sources");
        }
        if let (Some(checksum), [Source::Path(source)]) = (&checksum, sources.as_slice())
            && self.constant(source).is_some_and(|source| !is_remote(&source))
        {
            self.error(
                checksum.span,
                "checksum can't be specified for non-HTTP(S) and non-git sources",
            );
        }
        let add = Add {
            chown,
            chmod,
            link,
            keep_git_dir,
            checksum,
            unpack,
            exclude,
            sources,
            destination,
            json,
        };
        (self.diagnostics.len() == errors).then_some(add)
    }

    fn expanded(&mut self, parts: &mut Parts, name: &str) -> Option<Word> {
        let word = parts.flags.text(name)?;
        self.check(&word);
        Some(word)
    }

    fn chmod(&mut self, parts: &mut Parts) -> Option<Word> {
        let word = self.expanded(parts, "chmod")?;
        if let Some(mode) = self.constant(&word)
            && let Err(error) = mode.parse::<ModeChange>()
        {
            self.error(word.span, error.to_string());
        }
        Some(word)
    }

    fn exclude(&mut self, parts: &mut Parts) -> Vec<Spanned<String>> {
        let patterns = parts.flags.list("exclude");
        for pattern in &patterns {
            if let Err(error) = IgnoreFile::from_patterns([pattern.as_str()], "--exclude") {
                self.error(pattern.span, error.reason.to_string());
            }
        }
        patterns
            .into_iter()
            .map(|word| Spanned::new(word.text, word.span))
            .collect()
    }

    /// Sources, destination, and whether they are in JSON form.
    fn sources(&mut self, parts: &mut Parts) -> Option<(Vec<Source>, Word, bool)> {
        let keyword = parts.keyword.value;
        let mut heredocs = std::mem::take(&mut parts.heredocs).into_iter();
        let (mut sources, json) = match self.json_words(&parts.arguments) {
            Ok(Some(words)) => (words.into_iter().map(Source::Path).collect(), true),
            Ok(None) => (plain(&parts.arguments, &mut heredocs), false),
            Err(()) => return None,
        };
        let last = sources.pop();
        // Most often one of four places is taken, and a file may have very many of these.
        sources.shrink_to_fit();
        if sources.is_empty() {
            let message = format!("{keyword} requires at least two arguments, but only one was provided");
            let error = Diagnostic::error(
                parts.arguments.span,
                format!("{message}: the destination is missing"),
            );
            self.diagnostics
                .push(error.hint(format!("usage: {}", keyword.info().usage)));
            return None;
        }
        let destination = match last? {
            Source::Path(word) => word,
            Source::Heredoc(heredoc) => {
                self.error(
                    heredoc.span,
                    format!("{keyword} cannot accept a heredoc as a destination"),
                );
                return None;
            }
        };
        self.check(&destination);
        for source in &sources {
            match source {
                Source::Path(word) => {
                    self.check(word);
                    self.remote(keyword, word);
                }
                Source::Heredoc(heredoc) if heredoc.expand => self.check_body(heredoc),
                Source::Heredoc(_) => {}
            }
        }
        Some((sources, destination, json))
    }

    fn remote(&mut self, keyword: Keyword, word: &Word) {
        if keyword == Keyword::Copy && is_remote(&word.text) {
            self.error_hint(
                word.span,
                "source can't be a URL or git ref for COPY",
                "use ADD for remote sources",
            );
        }
    }

    fn check_body(&mut self, heredoc: &Heredoc) {
        if let Err(error) = expand::check_heredoc(&heredoc.body.value) {
            let body = Word::new("", heredoc.body.span);
            let hint = "quote the delimiter of the heredoc to keep its body as it is";
            self.error_hint(body.locate(error.range.clone()), error.kind.to_string(), hint);
        }
    }
}

fn plain(text: &Word, heredocs: &mut impl Iterator<Item = Heredoc>) -> Vec<Source> {
    let source = |token| match token {
        SourceToken::Word(range) => Some(Source::Path(text.slice(range))),
        SourceToken::Heredoc(_) => heredocs.next().map(Source::Heredoc),
    };
    grammar::sources(&text.text)
        .into_iter()
        .filter_map(source)
        .collect()
}

/// Whether a source is an address rather than a path.
fn is_remote(source: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@"]
        .iter()
        .any(|scheme| source.starts_with(scheme))
}
