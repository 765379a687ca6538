//! What COPY and ADD have in common: sources, destination, owner and mode become one file step.
//!
//! Paths come first, in order, then the files made from here-documents, as Docker does it.

use kiln_parser::ast::{Heredoc, Source, Word};
use kiln_parser::{Diagnostic, Spanned};
use kiln_solver::graph::{Copy, CopySource, FileAction, FileOp, MakeFile, Op};
use kiln_tree::copy::ModeChange;

use super::Context;
use super::remote::{self, RemoteFlags};
use crate::remote::RemoteRequest;
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
    /// `--link`.
    pub(super) link: bool,
    /// `--parents`.
    pub(super) parents: bool,
    /// `--exclude`.
    pub(super) exclude: &'a [Spanned<String>],
    /// What is done with sources from elsewhere; `None` refuses them.
    pub(super) remote: Option<RemoteSources>,
}

/// How sources from elsewhere are taken.
pub(super) struct RemoteSources {
    /// What they must be like.
    pub(super) flags: RemoteFlags,
    /// Whether tar archives among them are unpacked.
    pub(super) unpack: bool,
}

/// A source with its variables expanded.
struct SourcePath<'a> {
    word: &'a Word,
    path: String,
    /// What it asks for when it is no path.
    remote: Option<RemoteRequest>,
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
    transfer: &Transfer<'_>,
    line: &Line<'_>,
    stage: &mut StageState,
    context: Context<'_>,
) -> Result<(), Diagnostic> {
    let paths = source_paths(transfer, stage, context)?;
    let heredocs = heredocs(transfer.sources);
    let target = target(transfer, paths.len() + heredocs.len(), stage, context)?;
    let created_by = created_by(transfer, &paths, &heredocs, &target);
    let mut actions = Vec::new();
    let mut inputs = Vec::new();
    let mut local = None;
    // Neighbours from the same place are copied together.
    for group in paths.chunk_by(|one, other| one.remote.is_none() && other.remote.is_none()) {
        let remote = group
            .first()
            .and_then(|source| Some((source, source.remote.as_ref()?)));
        let (slot, unpack) = if let Some((source, request)) = remote {
            inputs.push(Input::Remote(request.clone(), line.locate(source.word.span)));
            let unpack = transfer.remote.as_ref().is_some_and(|remote| remote.unpack);
            (inputs.len(), unpack)
        } else {
            let slot = *local.get_or_insert_with(|| {
                inputs.push(transfer.input.clone());
                inputs.len()
            });
            (slot, transfer.unpack)
        };
        actions.push(FileAction::Copy(copy(
            transfer,
            group,
            (slot, unpack),
            &target,
            line,
        )));
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
        link: transfer.link,
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
        owner: optional(
            transfer
                .chown
                .map(|word| owner(transfer, word, expand(word)?))
                .transpose()?,
        ),
        mode: optional(transfer.chmod.map(|word| mode(word, expand(word)?)).transpose()?),
    })
}

/// The copy of `paths` from an input slot, unpacking archives or not.
fn copy(
    transfer: &Transfer<'_>,
    paths: &[SourcePath<'_>],
    (from, unpack): (usize, bool),
    target: &Target,
    line: &Line<'_>,
) -> Copy {
    let source = |source: &SourcePath<'_>| {
        let (pattern, below) = match &source.remote {
            Some(request) => (remote::pattern(request), None),
            None if transfer.parents => {
                let (pivot, below) = path::pivot(&source.path);
                (pivot, Some(below))
            }
            None => (path::source_pattern(&source.path), None),
        };
        CopySource {
            pattern,
            below,
            span: Some(source_span(line.locate(source.word.span))),
        }
    };
    Copy {
        from,
        sources: paths.iter().map(source).collect(),
        destination: target.path.clone(),
        owner: target.owner.clone(),
        mode: target.mode.clone(),
        unpack,
        exclude: transfer
            .exclude
            .iter()
            .map(|pattern| pattern.value.clone())
            .collect(),
    }
}

/// Docker leaves every flag out but these, and puts here-documents last.
fn created_by(
    transfer: &Transfer<'_>,
    paths: &[SourcePath<'_>],
    heredocs: &[&Heredoc],
    target: &Target,
) -> String {
    let mut words = vec![transfer.keyword.to_owned()];
    words.extend(transfer.parents.then(|| "--parents".to_owned()));
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
        let remote = match &transfer.remote {
            Some(remote) => remote.flags.request(word, &path)?,
            None => match remote::refuse_copy(&path) {
                Some(message) => return Err(Diagnostic::error(word.span, message)),
                None => None,
            },
        };
        paths.push(SourcePath { word, path, remote });
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
    // With --parents it is one anyway.
    if sources < 2 || transfer.parents || path::names_directory(destination) {
        return Ok(());
    }
    let keyword = transfer.keyword;
    Err(Diagnostic::error(
        transfer.destination.span,
        format!("{keyword} with more than one source needs a directory as its destination"),
    )
    .hint(format!("end the destination with a slash: {destination}/")))
}

/// Checks a `--chown` value; it is given on as written. A linked layer is made without the files that names are looked
/// up in.
fn owner(transfer: &Transfer<'_>, word: &Word, text: String) -> Result<String, Diagnostic> {
    let is_name = |name: &str| !matches!(name, "" | "root") && name.parse::<u32>().is_err();
    match text.split(':').find(|name| transfer.link && is_name(name)) {
        None => Ok(text),
        Some(name) => Err(Diagnostic::error(
            word.span,
            format!(
                "--chown={text} needs numbers together with --link: there is no image to look {name:?} up in"
            ),
        )
        .hint("write the numbers, as in --chown=1000:1000, or leave --link out")),
    }
}

/// Checks a `--chmod` value; it is given on as written.
fn mode(word: &Word, text: String) -> Result<String, Diagnostic> {
    if text.is_empty() {
        return Ok(text);
    }
    match text.parse::<ModeChange>() {
        Ok(_) => Ok(text),
        Err(error) => Err(Diagnostic::error(word.span, error.to_string())),
    }
}

/// Whether a boolean flag is there and not `=false`.
pub(super) fn is_on(flag: Option<&Spanned<bool>>) -> bool {
    flag.is_some_and(|flag| flag.value)
}
