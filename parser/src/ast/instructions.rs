//! What each instruction holds, in the order in which Docker's reference has them.

use std::time::Duration;

use super::{CommandLine, Heredoc, Mount, Statement, Word};
use crate::span::Spanned;

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
    /// `--chmod`, to be expanded; see [`kiln_tree::copy::ModeChange`].
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
    /// `--chmod`, to be expanded; see [`kiln_tree::copy::ModeChange`].
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
