//! From logical lines to the tree.

mod command;
mod copy;
mod flags;
mod health;
mod heredoc;
mod pairs;
mod run;
mod stage;
mod words;

use crate::ast::{Dockerfile, Heredoc, Instruction, Onbuild, Stage, Statement, Word};
use crate::diagnostic::Diagnostic;
use crate::directive;
use crate::expand;
use crate::grammar;
use crate::instruction::{ArgumentShape, INSTRUCTIONS, Keyword};
use crate::line::{LogicalLine, Reader, Source};
use crate::lint;
use crate::span::{Span, Spanned};
use crate::suggest;
use crate::{Parsed, ParsedInstruction};
use flags::Flags;
use heredoc::heredocs;

/// Parses a Dockerfile. Always yields a tree, and every error and warning: [`lint::select`] leaves those that the
/// file wants to hear.
pub fn parse(text: impl AsRef<[u8]>) -> Parsed {
    let bytes = text.as_ref();
    let source = Source::new(bytes);
    let mut reader = Reader::new(&source.text);
    let mut diagnostics = Vec::new();
    let directives = directive::read(&mut reader, &mut diagnostics);
    let escape = directives.escape.as_ref().map_or('\\', |escape| escape.value);
    let mut context = Context {
        escape,
        source: &source,
        reader,
        diagnostics,
        recoveries: 0,
    };
    let mut instructions = Vec::new();
    let mut lines = 0;
    // Whether the line holds a FROM, even a wrong one: what follows a wrong FROM is no error of its own.
    let mut based = false;
    while let Some(logical) = context.reader.logical_line(escape, Vec::new()) {
        lines += 1;
        let Some((keyword, statement)) = context.statement(logical) else {
            continue;
        };
        if keyword.value == Keyword::From {
            based = true;
        } else if !based && keyword.value != Keyword::Arg {
            based = true;
            let message = format!("{} stands before the first FROM", keyword.value);
            let error = Diagnostic::error(
                keyword.span,
                format!("no build stage in current context: {message}"),
            );
            context
                .diagnostics
                .push(error.hint("start with FROM; only ARG may come before it"));
        }
        instructions.extend(statement);
    }
    if lines == 0 {
        context.empty(bytes);
    } else if !based && !context.diagnostics.iter().any(Diagnostic::is_error) {
        let error = Diagnostic::error(
            Span::new(bytes.len(), bytes.len()),
            "the Dockerfile has no stages",
        );
        context
            .diagnostics
            .push(error.hint("add FROM <image> after the ARG instructions"));
    }
    let stages = stages(&instructions);
    let mut diagnostics = context.diagnostics;
    let dockerfile = Dockerfile {
        directives,
        instructions,
        stages,
    };
    lint::check(&dockerfile, &mut diagnostics);
    diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
    Parsed {
        dockerfile,
        diagnostics,
    }
}

/// Parses a single instruction with its here-documents, as an image's `OnBuild` stores it.
pub fn parse_instruction(text: &str, escape: char) -> ParsedInstruction {
    let source = Source::new(text.as_bytes());
    let reader = Reader::new(text);
    let mut context = Context {
        escape,
        source: &source,
        reader,
        diagnostics: Vec::new(),
        recoveries: 0,
    };
    let mut statement = None;
    if let Some(logical) = context.reader.logical_line(escape, Vec::new()) {
        statement = context.statement(logical).and_then(|(_, statement)| statement);
    } else {
        context.error(Span::new(0, text.len()), "the instruction is empty");
    }
    if statement.is_some()
        && let Some(further) = context.reader.logical_line(escape, Vec::new())
    {
        context.diagnostics.push(Diagnostic::error(
            further.line.span,
            "a second instruction follows the first",
        ));
    }
    ParsedInstruction {
        statement,
        diagnostics: context.diagnostics,
    }
}

/// Words of one instruction that are taken apart. Each takes many times its length in memory.
const MOST_WORDS: usize = 200_000;

/// The error for arguments with more words, or elements of a list, than anyone needs.
fn too_many_words(keyword: Keyword, arguments: &str) -> Option<String> {
    let shape = keyword.info().arguments;
    let too_many = if arguments.starts_with('[') {
        arguments.bytes().filter(|byte| *byte == b',').count() >= MOST_WORDS
    } else {
        let is_words = matches!(
            shape,
            ArgumentShape::Base
                | ArgumentShape::Pairs
                | ArgumentShape::Names
                | ArgumentShape::List
                | ArgumentShape::Words
        );
        // A command is taken apart only to find its here-documents.
        let has_heredocs = keyword.info().heredoc && arguments.contains("<<");
        (is_words || has_heredocs) && arguments.split_ascii_whitespace().nth(MOST_WORDS).is_some()
    };
    too_many.then(|| format!("{keyword} has more than {MOST_WORDS} words"))
}

fn stages(instructions: &[Statement]) -> Vec<Stage> {
    let mut stages: Vec<Stage> = Vec::new();
    for (index, statement) in instructions.iter().enumerate() {
        if let Instruction::From(from) = &statement.instruction {
            let name = from.name.as_ref().map(|name| name.value.clone());
            stages.push(Stage {
                name,
                range: index..instructions.len(),
            });
        }
    }
    let starts: Vec<usize> = stages.iter().map(|stage| stage.range.start).collect();
    for (stage, next) in stages.iter_mut().zip(starts.iter().skip(1)) {
        stage.range.end = *next;
    }
    stages
}

/// What all instructions need while they are parsed.
struct Context<'a> {
    escape: char,
    source: &'a Source<'a>,
    reader: Reader<'a>,
    diagnostics: Vec<Diagnostic>,
    recoveries: usize,
}

/// An instruction taken apart as far as all instructions are alike.
struct Parts {
    keyword: Spanned<Keyword>,
    flags: Flags,
    /// Everything after the flags, trimmed.
    arguments: Word,
    heredocs: Vec<Heredoc>,
}

impl Parts {
    /// The place to point at when something is missing.
    fn span(&self) -> Span {
        self.keyword.span.to(self.arguments.span)
    }
}

impl Context<'_> {
    fn empty(&mut self, bytes: &[u8]) {
        let blank = bytes.iter().all(u8::is_ascii_whitespace) || bytes == b"\xEF\xBB\xBF";
        let message = if blank {
            "the Dockerfile is empty"
        } else {
            "the Dockerfile has no instructions"
        };
        let error = Diagnostic::error(Span::new(0, 0), message);
        self.diagnostics
            .push(error.hint("a Dockerfile starts with FROM <image>"));
    }

    fn error(&mut self, span: Span, message: impl Into<String>) {
        self.diagnostics.push(Diagnostic::error(span, message));
    }

    fn error_hint(&mut self, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        self.diagnostics.push(Diagnostic::error(span, message).hint(hint));
    }

    /// Reports the syntax errors of a word that will be expanded.
    fn check(&mut self, word: &Word) {
        if let Err(error) = expand::check(&word.text, self.escape) {
            self.error(word.locate(error.range.clone()), error.kind.to_string());
        }
    }

    /// Parses a logical line; takes the bodies of its here-documents from the reader.
    fn statement(&mut self, logical: LogicalLine) -> Option<(Spanned<Keyword>, Option<Statement>)> {
        if let Some(blank) = logical.blank {
            let warning = lint::empty_continuation(blank, logical.line.span);
            self.diagnostics.push(warning);
        }
        let errors = self.diagnostics.len();
        if let Some(at) = self.source.invalid_in(logical.line.span) {
            self.error(Span::new(at, at + 1), "not valid UTF-8");
        }
        let statement = self.line(&logical.line, false);
        let (keyword, statement) = statement?;
        let sound = self.diagnostics.len() == errors;
        let statement = statement.filter(|_| sound).map(|statement| Statement {
            check: directive::check_comment(&logical.comments),
            comments: logical.comments,
            ..statement
        });
        Some((keyword, statement))
    }

    /// Parses a line that holds an instruction; the keyword is known even if the rest is wrong.
    fn line(&mut self, line: &Word, trigger: bool) -> Option<(Spanned<Keyword>, Option<Statement>)> {
        let head = grammar::head(&line.text, self.escape);
        let keyword_text = line.text[head.keyword.clone()].to_owned();
        let span = line.locate(head.keyword);
        let Some(keyword) = Keyword::parse(&keyword_text) else {
            let error = Diagnostic::error(span, format!("unknown instruction: {}", shorten(&keyword_text)));
            let names = INSTRUCTIONS.iter().map(|info| info.name);
            let hint = suggest::hint(&keyword_text, names);
            self.diagnostics.push(Diagnostic { hint, ..error });
            return None;
        };
        let keyword = Spanned::new(keyword, span);
        let arguments = line.slice(head.arguments..line.text.len());
        let info = keyword.value.info();
        if keyword.value == Keyword::Onbuild {
            let errors = self.diagnostics.len();
            let flags = Flags::parse(self, info, line, &head.flags);
            let broken_flags = self.diagnostics.len() > errors;
            let parts = Parts {
                keyword: keyword.clone(),
                flags,
                arguments,
                heredocs: Vec::new(),
            };
            let statement = if trigger {
                self.error(span, "chaining ONBUILD via `ONBUILD ONBUILD` is not allowed");
                None
            } else {
                self.onbuild(&parts).filter(|_| !broken_flags)
            };
            return Some((
                keyword.clone(),
                statement.map(|inner| finish(keyword, keyword_text, line, inner)),
            ));
        }
        if let Some(message) = too_many_words(keyword.value, &arguments.text) {
            self.error(span, message);
            return Some((keyword, None));
        }
        let tokens = Self::tokens(keyword.value, &arguments);
        let bodies = self.bodies(&tokens, &arguments);
        let errors = self.diagnostics.len();
        let flags = Flags::parse(self, info, line, &head.flags);
        let broken_flags = self.diagnostics.len() > errors;
        // Without all its bodies the instruction would mean something else.
        let Some((heredocs, end)) = bodies else {
            return Some((keyword, None));
        };
        let parts = Parts {
            keyword: keyword.clone(),
            flags,
            arguments,
            heredocs,
        };
        // An open quote in a flag swallows the arguments, so that they are not missing as well.
        if broken_flags && parts.arguments.text.is_empty() {
            return Some((keyword, None));
        }
        let instruction = self.instruction(parts).filter(|_| !broken_flags);
        let instruction = instruction.map(|instruction| Inner { instruction, end });
        Some((
            keyword.clone(),
            instruction.map(|inner| finish(keyword, keyword_text, line, inner)),
        ))
    }

    fn instruction(&mut self, mut parts: Parts) -> Option<Instruction> {
        let shape = parts.keyword.value.info().arguments;
        if parts.arguments.text.is_empty() {
            let keyword = parts.keyword.value;
            let message = match shape {
                ArgumentShape::Base => "FROM requires either one or three arguments".to_owned(),
                ArgumentShape::Text => format!("{keyword} requires exactly one argument"),
                ArgumentShape::List if keyword != Keyword::Volume => {
                    format!("{keyword} requires at least two arguments")
                }
                _ => format!("{keyword} requires at least one argument"),
            };
            self.error_hint(parts.span(), message, format!("usage: {}", keyword.info().usage));
            return None;
        }
        match parts.keyword.value {
            Keyword::From => self
                .from(&mut parts)
                .map(|from| Instruction::From(Box::new(from))),
            Keyword::Run => self.run(&mut parts).map(Instruction::Run),
            Keyword::Cmd => self.cmd(&parts).map(Instruction::Cmd),
            Keyword::Entrypoint => self.entrypoint(&parts).map(Instruction::Entrypoint),
            Keyword::Shell => self.shell(&parts).map(Instruction::Shell),
            Keyword::Healthcheck => self.healthcheck(&mut parts).map(Instruction::Healthcheck),
            Keyword::Label => self.label(&parts).map(Instruction::Label),
            Keyword::Env => self.env(&parts).map(Instruction::Env),
            Keyword::Arg => self.arg(&parts).map(Instruction::Arg),
            Keyword::Maintainer => Some(Instruction::Maintainer(Self::maintainer(&parts))),
            Keyword::Expose => self.expose(&parts).map(Instruction::Expose),
            Keyword::Volume => self.volume(&parts).map(Instruction::Volume),
            Keyword::User => Some(Instruction::User(self.user(&parts))),
            Keyword::Workdir => Some(Instruction::Workdir(self.workdir(&parts))),
            Keyword::Stopsignal => self.stopsignal(&parts).map(Instruction::Stopsignal),
            Keyword::Add => self.add(&mut parts).map(|add| Instruction::Add(Box::new(add))),
            Keyword::Copy => self
                .copy(&mut parts)
                .map(|copy| Instruction::Copy(Box::new(copy))),
            Keyword::Onbuild => None,
        }
    }

    fn onbuild(&mut self, parts: &Parts) -> Option<Inner> {
        if parts.arguments.text.is_empty() {
            let usage = Keyword::Onbuild.info().usage;
            self.error_hint(
                parts.span(),
                "ONBUILD requires at least one argument",
                format!("usage: {usage}"),
            );
            return None;
        }
        let (keyword, statement) = self.line(&parts.arguments, true)?;
        if keyword.value != Keyword::Onbuild && !keyword.value.info().onbuild {
            self.error(
                keyword.span,
                format!("{} is not allowed as an ONBUILD trigger", keyword.value),
            );
            return None;
        }
        let statement = statement?;
        let mut trigger = statement.text.text.clone();
        for heredoc in heredocs(&statement.instruction) {
            trigger.push('\n');
            trigger.push_str(&heredoc.body.value);
            trigger.push_str(&heredoc.name);
        }
        let end = Some(statement.span.end);
        Some(Inner {
            instruction: Instruction::Onbuild(Onbuild {
                trigger,
                statement: Box::new(statement),
            }),
            end,
        })
    }
}

/// An instruction, and the end of its last here-document.
struct Inner {
    instruction: Instruction,
    end: Option<usize>,
}

fn finish(keyword: Spanned<Keyword>, keyword_text: String, line: &Word, inner: Inner) -> Statement {
    let end = inner.end.unwrap_or(line.span.end).max(line.span.end);
    Statement {
        span: Span::new(line.span.start, end),
        keyword,
        keyword_text,
        text: line.clone(),
        instruction: inner.instruction,
        check: None,
        comments: Vec::new(),
    }
}

/// Foreign text for a message: not longer than a line.
fn shorten(text: &str) -> String {
    const LIMIT: usize = 60;
    match text.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
