//! The syntax tree: what was written, typed, with the place of every part.
//!
//! Values that are subject to variable expansion are [`Word`]s: raw text with its quotes, escapes and
//! `$` still in it; [`crate::expand`] turns them into values. Values that Docker never expands are plain
//! strings or already typed.

use std::ops::Range;
use std::time::Duration;

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

/// Text that is still to be expanded, or that wants exact places inside it.
///
/// `text` has its continuations removed, so that it may be shorter than its span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The raw text: quotes, escapes and `$` are still in it.
    pub text: String,
    /// Where it stands in the source.
    pub span: Span,
    /// Where text and source part: from `text` offset `.0` on, the source offset is `.1`. Empty when the
    /// text stands in the source unbroken, from `span.start` on.
    pub(crate) breaks: Vec<(usize, usize)>,
}

impl Word {
    /// A word that stands unbroken at `span`, or one (such as a decoded JSON string) that only has its whole
    /// place.
    pub fn new(text: impl Into<String>, span: Span) -> Self {
        Self {
            text: text.into(),
            span,
            breaks: Vec::new(),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The place in the source of a byte range of `text`. Never leaves the word's own span.
    pub fn locate(&self, range: Range<usize>) -> Span {
        let start = self.offset(range.start);
        let end = if range.end > range.start {
            self.offset(range.end - 1) + 1
        } else {
            start
        };
        Span::new(start, end.clamp(start, self.span.end.max(start)))
    }

    /// A part of the word, with its own place.
    pub(crate) fn slice(&self, range: Range<usize>) -> Self {
        let first = self.breaks.partition_point(|(text, _)| *text <= range.start);
        let last = self
            .breaks
            .partition_point(|(text, _)| *text < range.end)
            .max(first);
        let breaks = self.breaks[first..last]
            .iter()
            .map(|(text, source)| (text - range.start, *source))
            .collect();
        Self {
            span: self.locate(range.clone()),
            text: self.text[range].to_owned(),
            breaks,
        }
    }

    /// The offset in the source of a byte of `text`.
    pub(crate) fn offset(&self, at: usize) -> usize {
        let index = self.breaks.partition_point(|(text, _)| *text <= at);
        let (text, source) = match index.checked_sub(1) {
            Some(index) => self.breaks[index],
            None => (0, self.span.start),
        };
        (source + (at - text)).min(self.span.end)
    }
}

/// What a shell-or-exec instruction runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// Shell form: the whole text goes to the shell. Never expanded by the build.
    Shell(Word),
    /// Exec form: a JSON array of strings.
    Exec(Vec<Spanned<String>>),
}

impl CommandLine {
    /// The strings of an exec form.
    pub fn exec(&self) -> Option<Vec<String>> {
        match self {
            Self::Exec(strings) => Some(strings.iter().map(|string| string.value.clone()).collect()),
            Self::Shell(_) => None,
        }
    }
}

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter word without quotes. Names the file of a COPY.
    pub name: String,
    /// The token (`<<-"EOF"`).
    pub span: Span,
    /// File descriptor written before `<<`; 0 when none is.
    pub fd: u32,
    /// `<<-`: leading tabs are removed.
    pub chomp: bool,
    /// Whether variables are expanded in the body: no part of the delimiter is quoted.
    pub expand: bool,
    /// The body as written, every byte, final newline included. See [`Heredoc::content`].
    pub body: Spanned<String>,
}

impl Heredoc {
    /// The body with leading tabs removed where `<<-` asks for it.
    pub fn content(&self) -> String {
        if !self.chomp {
            return self.body.value.clone();
        }
        self.body
            .value
            .split_inclusive('\n')
            .map(|line| line.trim_start_matches('\t'))
            .collect()
    }
}

/// `FROM [--platform=P] image [AS name]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// `--platform`, to be expanded.
    pub platform: Option<Word>,
    /// Image or stage, to be expanded.
    pub image: Word,
    /// Stage name in lower case.
    pub name: Option<Spanned<String>>,
    /// Stage name as written, for the casing check.
    pub name_text: Option<String>,
    /// The `AS` as written, for the casing check.
    pub as_keyword: Option<Spanned<String>>,
}

/// `RUN [flags] command`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// `--mount`s in order; see [`Mount::resolve`].
    pub mounts: Vec<Mount>,
    /// `--network`.
    pub network: Option<Spanned<NetworkMode>>,
    /// `--security`.
    pub security: Option<Spanned<SecurityMode>>,
    /// `--device`s in order.
    pub devices: Vec<Spanned<Device>>,
    /// The command as written. With heredocs, use [`Run::script`] instead.
    pub command: CommandLine,
    /// Heredocs in order of their tokens.
    pub heredocs: Vec<Heredoc>,
}

/// What a RUN gives to its shell, once its heredocs are taken into account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunScript {
    /// Exec form: these arguments, no shell.
    Exec(Vec<String>),
    /// This text is the shell's script argument.
    Shell(String),
    /// Only a heredoc that starts with `#!`: write `content` to an executable file called `name` and let the
    /// shell run its path.
    File {
        /// Delimiter of the heredoc.
        name: String,
        /// Text of the file.
        content: String,
    },
}

impl Run {
    /// The command with its heredocs: a lone heredoc is the script itself (or, with `#!`, a file to run);
    /// otherwise the line and its bodies are put together again for the shell to take apart.
    pub fn script(&self) -> RunScript {
        let text = match &self.command {
            CommandLine::Exec(strings) => {
                return RunScript::Exec(strings.iter().map(|string| string.value.clone()).collect());
            }
            CommandLine::Shell(text) => text,
        };
        if let [heredoc] = self.heredocs.as_slice()
            && heredoc.span.start == text.span.start
            && heredoc.span.end == text.span.end
        {
            let content = heredoc.content();
            return if content.starts_with("#!") {
                RunScript::File {
                    name: heredoc.name.clone(),
                    content,
                }
            } else {
                RunScript::Shell(content)
            };
        }
        let mut script = text.text.clone();
        for heredoc in &self.heredocs {
            script.push('\n');
            script.push_str(&heredoc.body.value);
            script.push_str(&heredoc.name);
        }
        RunScript::Shell(script)
    }
}

/// `RUN --network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkMode {
    /// The build's own network.
    Default,
    /// Loopback only.
    None,
    /// The host's network.
    Host,
}

/// `RUN --security`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityMode {
    /// The default sandbox.
    Sandbox,
    /// Full privileges.
    Insecure,
}

/// `RUN --device=[name=]X[,required]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// CDI device name.
    pub name: String,
    /// Whether the build fails without it.
    pub required: bool,
}

/// `CMD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cmd {
    /// The command.
    pub command: CommandLine,
}

/// `ENTRYPOINT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrypoint {
    /// The command; an empty exec form clears the entry point.
    pub command: CommandLine,
}

/// One `key=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// Key, to be expanded.
    pub key: Word,
    /// Value, to be expanded. In the legacy form the rest of the line.
    pub value: Word,
}

/// `LABEL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The pairs in order.
    pub pairs: Vec<KeyValue>,
    /// `LABEL key value` without `=`.
    pub legacy: bool,
}

/// `ENV`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Env {
    /// The pairs in order. All of them see the environment from before the instruction.
    pub pairs: Vec<KeyValue>,
    /// `ENV key value` without `=`.
    pub legacy: bool,
}

/// `MAINTAINER`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maintainer {
    /// The author. Never expanded.
    pub name: Spanned<String>,
}

/// `EXPOSE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expose {
    /// Port specifications. Each is expanded and then split into words; see [`crate::value::parse_ports`].
    pub ports: Vec<Word>,
}

/// A source of COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A path, pattern, or (ADD) address; to be expanded.
    Path(Word),
    /// A file made from a heredoc.
    Heredoc(Heredoc),
}

/// `COPY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// `--from`: stage name, number, named context or image. Never expanded.
    pub from: Option<Spanned<String>>,
    /// `--chown`, to be expanded.
    pub chown: Option<Word>,
    /// `--chmod`, to be expanded; see [`crate::value::Chmod`].
    pub chmod: Option<Word>,
    /// `--link`.
    pub link: Option<Spanned<bool>>,
    /// `--parents`.
    pub parents: Option<Spanned<bool>>,
    /// `--exclude` patterns. Never expanded.
    pub exclude: Vec<Spanned<String>>,
    /// Sources in order.
    pub sources: Vec<Source>,
    /// Destination, to be expanded.
    pub destination: Word,
    /// Written as a JSON array.
    pub json: bool,
}

/// `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// `--chown`, to be expanded.
    pub chown: Option<Word>,
    /// `--chmod`, to be expanded; see [`crate::value::Chmod`].
    pub chmod: Option<Word>,
    /// `--link`.
    pub link: Option<Spanned<bool>>,
    /// `--keep-git-dir`.
    pub keep_git_dir: Option<Spanned<bool>>,
    /// `--checksum`, to be expanded.
    pub checksum: Option<Word>,
    /// `--unpack`.
    pub unpack: Option<Spanned<bool>>,
    /// `--exclude` patterns. Never expanded.
    pub exclude: Vec<Spanned<String>>,
    /// Sources in order.
    pub sources: Vec<Source>,
    /// Destination, to be expanded.
    pub destination: Word,
    /// Written as a JSON array.
    pub json: bool,
}

/// `VOLUME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Paths, to be expanded.
    pub paths: Vec<Word>,
    /// Written as a JSON array.
    pub json: bool,
}

/// `USER`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// `user[:group]`, to be expanded.
    pub user: Word,
}

/// `WORKDIR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workdir {
    /// The path, to be expanded.
    pub path: Word,
}

/// `ARG`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arg {
    /// Declarations in order; each sees those before it.
    pub declarations: Vec<ArgDeclaration>,
}

/// One `name[=default]` of an ARG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgDeclaration {
    /// The name, to be expanded.
    pub name: Word,
    /// The default, to be expanded. `ARG x=` has an empty one, `ARG x` none.
    pub default: Option<Word>,
}

/// `ONBUILD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Onbuild {
    /// What the image config stores: the instruction's text, heredoc bodies included.
    pub trigger: String,
    /// The trigger, parsed.
    pub statement: Box<Statement>,
}

/// `STOPSIGNAL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopsignal {
    /// Name or number, to be expanded.
    pub signal: Word,
}

/// `HEALTHCHECK`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthcheck {
    /// `HEALTHCHECK NONE`.
    None,
    /// `HEALTHCHECK [flags] CMD …`.
    Probe(Box<Probe>),
}

/// A health probe. Absent (and zero) values are inherited when the container runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// `--interval`.
    pub interval: Option<Spanned<Duration>>,
    /// `--timeout`.
    pub timeout: Option<Spanned<Duration>>,
    /// `--start-period`.
    pub start_period: Option<Spanned<Duration>>,
    /// `--start-interval`.
    pub start_interval: Option<Spanned<Duration>>,
    /// `--retries`.
    pub retries: Option<Spanned<u32>>,
    /// What is run: `CMD` for an exec form, `CMD-SHELL` for a shell form.
    pub command: CommandLine,
}

/// `SHELL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shell {
    /// The shell and its arguments; never empty.
    pub command: Vec<Spanned<String>>,
}
