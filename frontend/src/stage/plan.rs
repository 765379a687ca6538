//! One stage before anything is resolved: its lines, and what they take files from.

use std::borrow::Cow;

use kiln_image::Platform;
use kiln_parser::ast::Statement;
use kiln_parser::{Diagnostic, Span};

use crate::images::ImageRequest;

/// What something is taken from: the base of a FROM, or the `--from` of a COPY.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// `scratch`: nothing.
    Scratch,
    /// An earlier stage, by number.
    Stage(usize),
    /// An image.
    Image(Box<ImageRequest>),
    /// The files of a named context.
    Files(Box<Files>),
}

/// What a named context gives that is no image.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// The context's name.
    pub(crate) name: String,
    /// What a stage on these files is built for.
    pub(crate) platform: Platform,
}

/// One stage, before anything is resolved.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// Position among the stages, from 0.
    pub(crate) number: usize,
    /// Its name in lower case.
    pub(crate) name: Option<&'a str>,
    /// The place of its FROM.
    pub(crate) span: Span,
    /// What it starts from. Its error counts only if the stage is needed.
    pub(crate) base: Result<Origin, Box<Diagnostic>>,
    /// Its instructions after FROM; ONBUILD triggers come to stand before them.
    pub(crate) lines: Vec<Line<'a>>,
    /// Whether the triggers of its base are among the lines.
    pub(crate) triggered: bool,
    /// Whether a named context stands for the whole stage: none of its instructions counts.
    pub(crate) replaced: bool,
}

impl Plan<'_> {
    /// The stage as something to copy from: what replaces it is read where it is, not made a root first.
    pub(super) fn as_source(&self) -> Origin {
        match &self.base {
            Ok(base) if self.replaced => base.clone(),
            _ => Origin::Stage(self.number),
        }
    }

    /// The stages that it takes from, as far as is known by now.
    pub(crate) fn stages(&self) -> impl Iterator<Item = usize> {
        let origins = self.base.iter().chain(self.lines.iter().flat_map(Line::origins));
        origins.filter_map(|origin| match origin {
            Origin::Stage(number) => Some(*number),
            Origin::Scratch | Origin::Image(_) | Origin::Files(_) => None,
        })
    }

    /// The stage that it is built from, when it is one of the file.
    pub(crate) fn base_stage(&self) -> Option<usize> {
        match self.base.as_ref() {
            Ok(Origin::Stage(number)) => Some(*number),
            _ => None,
        }
    }

    /// What the stage is called in step names.
    pub(crate) fn label(&self) -> String {
        self.name
            .map_or_else(|| format!("stage-{}", self.number), str::to_owned)
    }
}

/// An instruction of a stage.
#[derive(Debug, Clone)]
pub(crate) struct Line<'a> {
    /// The instruction.
    pub(crate) statement: Cow<'a, Statement>,
    /// Where it comes from.
    pub(crate) place: Place,
    /// What its `--from` names.
    pub(crate) from: Option<Origin>,
    /// What the `from`s of its mounts name, by the mount's position; empty until they are bound.
    pub(crate) mounts: Vec<Option<Origin>>,
}

/// Where an instruction comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The stage itself.
    Stage,
    /// An ONBUILD of a stage in the same file that this stage is built from.
    StageTrigger,
    /// An ONBUILD of the base image: its own spans mean nothing in this file, so the FROM stands for it.
    ImageTrigger(Span),
}

impl<'a> Line<'a> {
    /// An instruction whose origins are not known yet.
    pub(crate) fn new(statement: Cow<'a, Statement>, place: Place) -> Self {
        Self {
            statement,
            place,
            from: None,
            mounts: Vec::new(),
        }
    }

    /// Everything that the instruction takes files from.
    pub(crate) fn origins(&self) -> impl Iterator<Item = &Origin> {
        self.from.iter().chain(self.mounts.iter().flatten())
    }

    /// Where a place in the instruction is in this file.
    pub(crate) fn locate(&self, span: Span) -> Span {
        match self.place {
            Place::ImageTrigger(from) => from,
            Place::Stage | Place::StageTrigger => span,
        }
    }

    /// The instruction's own place.
    pub(crate) fn span(&self) -> Span {
        self.locate(self.statement.span)
    }

    /// A diagnostic about the instruction, put in its place in this file.
    pub(crate) fn relocate(&self, mut diagnostic: Diagnostic) -> Diagnostic {
        if let Place::ImageTrigger(from) = self.place {
            diagnostic.message = format!(
                "in the ONBUILD trigger {:?}: {}",
                self.statement.text.as_str(),
                diagnostic.message
            );
            diagnostic.span = from;
            diagnostic.related.clear();
        }
        diagnostic
    }
}
