//! The syntax tree: what was written, typed, with the place of every part.
//!
//! Values that are subject to variable expansion are [`Word`]s: raw text with its quotes, escapes and
//! `$` still in it; [`crate::expand`] turns them into values. Values that Docker never expands are plain
//! strings or already typed. What each instruction holds is in `instructions`, what their arguments are made of in
//! `words`.

mod instructions;
mod words;

use std::ops::Range;

pub use self::instructions::*;
pub use self::words::{CommandLine, Heredoc, Word};
pub use crate::instruction::Keyword;
pub use crate::mount::{Mount, MountError, MountKey, MountOption, MountSpec, MountType, Sharing};
pub use crate::span::{Span, Spanned};

/// A whole Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dockerfile {
    /// The parser directives at the top.
    pub directives: Directives,
    /// All instructions in order. Those with errors are left out; their errors are in the diagnostics.
    pub instructions: Vec<Statement>,
    /// The stages in order; each covers a range of `instructions`, its FROM first.
    pub stages: Vec<Stage>,
}

impl Dockerfile {
    /// The escape character: a backslash unless the `escape` directive says otherwise.
    pub fn escape(&self) -> char {
        self.directives
            .escape
            .as_ref()
            .map_or('\\', |escape| escape.value)
    }

    /// The instructions before the first FROM (global ARGs).
    pub fn global(&self) -> &[Statement] {
        let end = self
            .stages
            .first()
            .map_or(self.instructions.len(), |stage| stage.range.start);
        &self.instructions[..end]
    }

    /// The instructions of a stage after its FROM.
    pub fn body(&self, stage: &Stage) -> &[Statement] {
        &self.instructions[stage.range.start + 1..stage.range.end]
    }

    /// The FROM of a stage together with its statement.
    pub fn from(&self, stage: &Stage) -> Option<(&Statement, &From)> {
        let statement = self.instructions.get(stage.range.start)?;
        match &statement.instruction {
            Instruction::From(from) => Some((statement, from)),
            _ => None,
        }
    }
}

/// One build stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Its name in lower case, when it has one.
    pub name: Option<String>,
    /// Its instructions in [`Dockerfile::instructions`], starting with its FROM.
    pub range: Range<usize>,
}

/// The parser directives (`# key=value` at the very top).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directives {
    /// Frontend image reference (and, after a blank, its extra command line). May also come from a comment of another
    /// language (`// syntax=`) or from JSON; see [`crate::syntax`].
    pub syntax: Option<Spanned<String>>,
    /// Escape character, a backslash or a backtick.
    pub escape: Option<Spanned<char>>,
    /// Options of the build checks.
    pub check: Option<Spanned<CheckOptions>>,
}

/// `check=` options, from the directive or from a comment directly above an instruction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckOptions {
    /// Rules not to report.
    pub skip: Vec<String>,
    /// `skip=all`.
    pub skip_all: bool,
    /// `error=true`: a warning fails the build.
    pub error: bool,
    /// Experimental rules to turn on.
    pub experimental: Vec<String>,
    /// `experimental=all`.
    pub experimental_all: bool,
}

/// One instruction and everything about how it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// From the keyword to the end of the last line, heredoc bodies and terminators included.
    pub span: Span,
    /// Which instruction, and where its keyword stands.
    pub keyword: Spanned<Keyword>,
    /// The keyword as written, for the casing check.
    pub keyword_text: String,
    /// The logical line: continuations and comments removed, outer blanks trimmed, keyword as written.
    /// This is what progress and history show. Heredoc bodies are not part of it.
    pub text: Word,
    /// The typed instruction.
    pub instruction: Instruction,
    /// A `# check=` comment directly above.
    pub check: Option<Spanned<CheckOptions>>,
    /// The comment lines above, without `#` and outer blanks; a bare `#` ends those before it.
    pub comments: Vec<Spanned<String>>,
}

/// The instructions. One variant each; the large ones are boxed, so that a file of many small ones stays small.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is documented at its struct")]
pub enum Instruction {
    From(Box<From>),
    Run(Run),
    Cmd(Cmd),
    Label(Label),
    Maintainer(Maintainer),
    Expose(Expose),
    Env(Env),
    Add(Box<Add>),
    Copy(Box<Copy>),
    Entrypoint(Entrypoint),
    Volume(Volume),
    User(User),
    Workdir(Workdir),
    Arg(Arg),
    Onbuild(Onbuild),
    Stopsignal(Stopsignal),
    Healthcheck(Healthcheck),
    Shell(Shell),
}
