//! What COPY and ADD have in common: sources, destination, owner and mode become one file step.
//!
//! Paths come first, in order, then the files made from here-documents, as Docker does it.

use kiln_parser::Diagnostic;
use kiln_parser::ast::{Heredoc, Source, Word};
use kiln_parser::value::Chmod;
use kiln_solver::graph::{Copy, CopySource, FileAction, FileOp, MakeFile, Op};

use super::Context;
use crate::stage::Line;
use crate::state::StageState;
use crate::step::{Input, Step, source_span};
use crate::{display, expansion, path};

/// A COPY or ADD as written.
pub(super) struct Transfer<'a> {
    /// `COPY` or `ADD`.
    pub(super) keyword: &'static str,
    /// The sources.
    pub(super) sources: &'a [Source],
    /// The destination.
    pub(super) destination: &'a Word,
    /// `--chown`.
    pub(super) chown: Option<&'a Word>,
    /// `--chmod`.
    pub(super) chmod: Option<&'a Word>,
    /// Where paths are taken from.
    pub(super) input: Input,
    /// Whether tar archives are unpacked.
    pub(super) unpack: bool,
    /// Refuses sources of a kind that the instruction does not take.
    pub(super) refuse: fn(&str) -> Option<&'static str>,
}

/// A source path with its variables expanded.
struct SourcePath<'a> {
    word: &'a Word,
    path: String,
}

/// Where files go, and how.
struct Target {
    /// As written, with variables expanded.
    written: String,
    /// Absolute.
    path: String,
    owner: Option<String>,
    mode: Option<String>,
}

pub(super) fn lower(
    transfer: Transfer<'_>,
    line: &Line<'_>,
    stage: &mut StageState,
    context: Context<'_>,
) -> Result<(), Diagnostic> {
    let paths = source_paths(&transfer, stage, context)?;
    let heredocs = heredocs(transfer.sources);
    let target = target(&transfer, paths.len() + heredocs.len(), stage, context)?;
    let created_by = created_by(&transfer, &paths, &heredocs, &target);
    let mut actions = Vec::new();
    let mut inputs = Vec::new();
    if !paths.is_empty() {
        actions.push(FileAction::Copy(copy(&paths, transfer.unpack, &target, line)));
        inputs.push(transfer.input);
    }
    for heredoc in heredocs {
        actions.push(FileAction::MakeFile(MakeFile {
            destination: target.path.clone(),
            name: heredoc.name.clone(),
            data: expansion::heredoc(heredoc, &stage.environment, context.expander.budget())?.into_bytes(),
            mode: target.mode.clone(),
            owner: target.owner.clone(),
        }));
    }
    let text = display::expanded(line, &stage.environment, context.expander);
    let step = Step {
        op: Op::File(FileOp { actions }),
        inputs,
        text,
        span: line.span(),
    };
    stage.push_step(step, created_by);
    Ok(())
}

fn target(
    transfer: &Transfer<'_>,
    sources: usize,
    stage: &StageState,
    context: Context<'_>,
) -> Result<Target, Diagnostic> {
    let expand = |word: &Word| context.expander.word(word, &stage.environment);
    let written = expand(transfer.destination)?;
    check_destination(transfer, &written, sources)?;
    let path = path::destination(stage.workdir(), &written);
    path::check_length(&path, transfer.destination.span)?;
    Ok(Target {
        path,
        written,
        owner: optional(transfer.chown.map(expand).transpose()?),
        mode: optional(transfer.chmod.map(|word| mode(word, expand(word)?)).transpose()?),
    })
}

fn copy(paths: &[SourcePath<'_>], unpack: bool, target: &Target, line: &Line<'_>) -> Copy {
    let source = |source: &SourcePath<'_>| CopySource {
        pattern: path::source_pattern(&source.path),
        span: Some(source_span(line.locate(source.word.span))),
    };
    Copy {
        from: 1,
        sources: paths.iter().map(source).collect(),
        destination: target.path.clone(),
        owner: target.owner.clone(),
        mode: target.mode.clone(),
        unpack,
    }
}

/// Docker leaves every flag out but these two, and puts here-documents last.
fn created_by(
    transfer: &Transfer<'_>,
    paths: &[SourcePath<'_>],
    heredocs: &[&Heredoc],
    target: &Target,
) -> String {
    let mut words = vec![transfer.keyword.to_owned()];
    words.extend(target.owner.iter().map(|owner| format!("--chown={owner}")));
    words.extend(target.mode.iter().map(|mode| format!("--chmod={mode}")));
    words.extend(paths.iter().map(|source| source.path.clone()));
    words.extend(heredocs.iter().map(|heredoc| format!("<<{}", heredoc.name)));
    words.push(target.written.clone());
    words.push("# buildkit".to_owned());
    words.join(" ")
}

/// A flag that expands to nothing is as good as not written.
fn optional(value: Option<String>) -> Option<String> {
    value.filter(|value| !value.is_empty())
}

fn source_paths<'a>(
    transfer: &Transfer<'a>,
    stage: &StageState,
    context: Context<'_>,
) -> Result<Vec<SourcePath<'a>>, Diagnostic> {
    let mut paths = Vec::new();
    for source in transfer.sources {
        let Source::Path(word) = source else { continue };
        let path = context.expander.word(word, &stage.environment)?;
        if let Some(message) = (transfer.refuse)(&path) {
            return Err(Diagnostic::error(word.span, message));
        }
        paths.push(SourcePath { word, path });
    }
    Ok(paths)
}

fn heredocs(sources: &[Source]) -> Vec<&Heredoc> {
    sources
        .iter()
        .filter_map(|source| match source {
            Source::Heredoc(heredoc) => Some(heredoc),
            Source::Path(_) => None,
        })
        .collect()
}

/// Several sources need a directory. Docker's present builder lets later files overwrite earlier ones instead,
/// which its documentation rules out and nobody can want.
fn check_destination(transfer: &Transfer<'_>, destination: &str, sources: usize) -> Result<(), Diagnostic> {
    if sources < 2 || path::names_directory(destination) {
        return Ok(());
    }
    let keyword = transfer.keyword;
    Err(Diagnostic::error(
        transfer.destination.span,
        format!("{keyword} with more than one source needs a directory as its destination"),
    )
    .hint(format!("end the destination with a slash: {destination}/")))
}

/// Checks a `--chmod` value; it is given on as written.
fn mode(word: &Word, text: String) -> Result<String, Diagnostic> {
    if text.is_empty() {
        return Ok(text);
    }
    match Chmod::parse(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(Diagnostic::error(word.span, error.to_string())),
    }
}

/// Whether a source is the address of something to be downloaded.
pub(crate) fn is_url(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}

/// Whether a source is a git repository: by its scheme, or an address whose path ends with `.git`.
pub(crate) fn is_git(source: &str) -> bool {
    if source.starts_with("git://") || source.starts_with("ssh://") || source.starts_with("git@") {
        return true;
    }
    let path = source.split(['#', '?']).next().unwrap_or_default();
    is_url(source) && path.strip_suffix(".git").is_some()
}

#[cfg(test)]
mod tests {
    use super::{is_git, is_url};

    #[test]
    fn remote_sources_are_told_apart() {
        for git in [
            "git://h/r",
            "ssh://git@h/r",
            "git@github.com:a/b.git",
            "https://h/r.git",
            "https://h/r.git#main:sub",
        ] {
            assert!(is_git(git), "{git}");
        }
        for local in [
            "github.com/a/b",
            "a.git",
            "https://h/archive.tar.gz",
            "https://h/r.gitx",
        ] {
            assert!(!is_git(local), "{local}");
        }
        assert!(is_url("https://h/f") && !is_url("httpx://h/f"));
    }
}
