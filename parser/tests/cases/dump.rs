//! A compact text form of the tree, every part with its place.
#![expect(clippy::needless_for_each, reason = "one line a field reads best in a dump")]

use std::fmt::Write as _;

use kiln_parser::ast::{CommandLine, Healthcheck, Heredoc, Instruction, KeyValue, Source, Statement, Word};
use kiln_parser::{LineIndex, Parsed, Span, Spanned, render};

pub(crate) struct Dump<'a> {
    source: &'a [u8],
    index: LineIndex,
    text: String,
}

pub(crate) fn dump(parsed: &Parsed, source: &[u8]) -> String {
    let mut dump = Dump {
        source,
        index: LineIndex::new(source),
        text: String::new(),
    };
    let directives = &parsed.dockerfile.directives;
    if let Some(syntax) = &directives.syntax {
        dump.line(0, "directive syntax", &syntax.value, syntax.span);
    }
    if let Some(escape) = &directives.escape {
        dump.line(0, "directive escape", &escape.value.to_string(), escape.span);
    }
    if let Some(check) = &directives.check {
        dump.line(0, "directive check", &format!("{:?}", check.value), check.span);
    }
    for statement in &parsed.dockerfile.instructions {
        dump.statement(statement, 0);
    }
    for stage in &parsed.dockerfile.stages {
        let _ = writeln!(dump.text, "stage {:?} {:?}", stage.name, stage.range);
    }
    for diagnostic in &parsed.diagnostics {
        dump.text.push('\n');
        dump.text.push_str(&render(diagnostic, source, "Dockerfile"));
    }
    dump.text
}

impl Dump<'_> {
    fn place(&self, span: Span) -> String {
        let start = self.index.position(self.source, span.start);
        let end = self.index.position(self.source, span.end);
        format!("{}:{}-{}:{}", start.line, start.column, end.line, end.column)
    }

    fn line(&mut self, depth: usize, name: &str, value: &str, span: Span) {
        let place = self.place(span);
        let _ = writeln!(self.text, "{}{name} {value:?} @{place}", "  ".repeat(depth));
    }

    fn word(&mut self, depth: usize, name: &str, word: &Word) {
        self.line(depth, name, &word.text, word.span);
    }

    fn words(&mut self, depth: usize, name: &str, words: &[Word]) {
        words.iter().for_each(|word| self.word(depth, name, word));
    }

    fn optional(&mut self, depth: usize, name: &str, word: Option<&Word>) {
        word.into_iter().for_each(|word| self.word(depth, name, word));
    }

    fn text(&mut self, depth: usize, name: &str, value: Option<&Spanned<String>>) {
        value
            .into_iter()
            .for_each(|value| self.line(depth, name, &value.value, value.span));
    }

    fn debug<T: std::fmt::Debug>(&mut self, depth: usize, name: &str, value: Option<&Spanned<T>>) {
        value
            .into_iter()
            .for_each(|value| self.line(depth, name, &format!("{:?}", value.value), value.span));
    }

    fn command(&mut self, depth: usize, command: &CommandLine) {
        match command {
            CommandLine::Shell(text) => self.word(depth, "shell", text),
            CommandLine::Exec(strings) => {
                let place = strings.len();
                let _ = writeln!(self.text, "{}exec {place} strings", "  ".repeat(depth));
                strings
                    .iter()
                    .for_each(|string| self.line(depth + 1, "string", &string.value, string.span));
            }
        }
    }

    fn heredoc(&mut self, depth: usize, heredoc: &Heredoc) {
        let name = format!(
            "heredoc fd={} chomp={} expand={}",
            heredoc.fd, heredoc.chomp, heredoc.expand
        );
        self.line(depth, &name, &heredoc.name, heredoc.span);
        self.line(depth + 1, "body", &heredoc.body.value, heredoc.body.span);
    }

    fn pairs(&mut self, depth: usize, pairs: &[KeyValue], legacy: bool) {
        if legacy {
            let _ = writeln!(self.text, "{}legacy", "  ".repeat(depth));
        }
        for pair in pairs {
            self.word(depth, "key", &pair.key);
            self.word(depth + 1, "value", &pair.value);
        }
    }

    fn sources(&mut self, depth: usize, sources: &[Source], destination: &Word, json: bool) {
        for source in sources {
            match source {
                Source::Path(word) => self.word(depth, if json { "json source" } else { "source" }, word),
                Source::Heredoc(heredoc) => self.heredoc(depth, heredoc),
            }
        }
        self.word(depth, "destination", destination);
    }

    fn statement(&mut self, statement: &Statement, depth: usize) {
        let name = statement.keyword.value.to_string();
        self.line(depth, &name, &statement.text.text, statement.span);
        let depth = depth + 1;
        self.debug(depth, "check", statement.check.as_ref());
        statement
            .comments
            .iter()
            .for_each(|comment| self.text(depth, "comment", Some(comment)));
        match &statement.instruction {
            Instruction::From(from) => {
                self.optional(depth, "platform", from.platform.as_ref());
                self.word(depth, "image", &from.image);
                self.text(depth, "name", from.name.as_ref());
            }
            Instruction::Run(run) => {
                for mount in &run.mounts {
                    let place = self.place(mount.span);
                    let _ = writeln!(self.text, "{}mount @{place}", "  ".repeat(depth));
                    for option in &mount.options {
                        let value = option.value.as_ref().map_or("", |value| &value.text);
                        let span = option.value.as_ref().map_or(option.key.span, |value| value.span);
                        self.line(depth + 1, option.key.value.name(), value, span);
                    }
                }
                self.debug(depth, "network", run.network.as_ref());
                self.debug(depth, "security", run.security.as_ref());
                run.devices
                    .iter()
                    .for_each(|device| self.debug(depth, "device", Some(device)));
                self.command(depth, &run.command);
                run.heredocs
                    .iter()
                    .for_each(|heredoc| self.heredoc(depth, heredoc));
                let _ = writeln!(self.text, "{}script {:?}", "  ".repeat(depth), run.script());
            }
            Instruction::Cmd(cmd) => self.command(depth, &cmd.command),
            Instruction::Entrypoint(entrypoint) => self.command(depth, &entrypoint.command),
            Instruction::Label(label) => self.pairs(depth, &label.pairs, label.legacy),
            Instruction::Env(env) => self.pairs(depth, &env.pairs, env.legacy),
            Instruction::Maintainer(maintainer) => self.text(depth, "name", Some(&maintainer.name)),
            Instruction::Expose(expose) => self.words(depth, "port", &expose.ports),
            Instruction::Volume(volume) => self.words(depth, "path", &volume.paths),
            Instruction::User(user) => self.word(depth, "user", &user.user),
            Instruction::Workdir(workdir) => self.word(depth, "path", &workdir.path),
            Instruction::Stopsignal(stopsignal) => self.word(depth, "signal", &stopsignal.signal),
            Instruction::Arg(arg) => {
                for declaration in &arg.declarations {
                    self.word(depth, "name", &declaration.name);
                    self.optional(depth + 1, "default", declaration.default.as_ref());
                }
            }
            Instruction::Add(add) => {
                self.optional(depth, "chown", add.chown.as_ref());
                self.optional(depth, "chmod", add.chmod.as_ref());
                self.optional(depth, "checksum", add.checksum.as_ref());
                self.debug(depth, "link", add.link.as_ref());
                self.debug(depth, "keep-git-dir", add.keep_git_dir.as_ref());
                self.debug(depth, "unpack", add.unpack.as_ref());
                add.exclude
                    .iter()
                    .for_each(|exclude| self.text(depth, "exclude", Some(exclude)));
                self.sources(depth, &add.sources, &add.destination, add.json);
            }
            Instruction::Copy(copy) => {
                self.text(depth, "from", copy.from.as_ref());
                self.optional(depth, "chown", copy.chown.as_ref());
                self.optional(depth, "chmod", copy.chmod.as_ref());
                self.debug(depth, "link", copy.link.as_ref());
                self.debug(depth, "parents", copy.parents.as_ref());
                copy.exclude
                    .iter()
                    .for_each(|exclude| self.text(depth, "exclude", Some(exclude)));
                self.sources(depth, &copy.sources, &copy.destination, copy.json);
            }
            Instruction::Onbuild(onbuild) => {
                let _ = writeln!(self.text, "{}trigger {:?}", "  ".repeat(depth), onbuild.trigger);
                self.statement(&onbuild.statement, depth);
            }
            Instruction::Healthcheck(Healthcheck::None) => self.text.push_str("  none\n"),
            Instruction::Healthcheck(Healthcheck::Probe(probe)) => {
                self.debug(depth, "interval", probe.interval.as_ref());
                self.debug(depth, "timeout", probe.timeout.as_ref());
                self.debug(depth, "start-period", probe.start_period.as_ref());
                self.debug(depth, "start-interval", probe.start_interval.as_ref());
                self.debug(depth, "retries", probe.retries.as_ref());
                self.command(depth, &probe.command);
            }
            Instruction::Shell(shell) => {
                shell
                    .command
                    .iter()
                    .for_each(|string| self.text(depth, "string", Some(string)));
            }
        }
    }
}
