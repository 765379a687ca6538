//! Here-documents: which an instruction announces, and the bodies that follow it.

use super::{Context, shorten};
use crate::ast::{Heredoc, Instruction, Source, Word};
use crate::diagnostic::Diagnostic;
use crate::grammar::{self, HeredocToken, SourceToken};
use crate::instruction::Keyword;
use crate::line::Body;
use crate::span::{Span, Spanned};

/// How many unterminated here-documents are recovered from; each costs one look at the rest of the file.
const RECOVERIES: usize = 8;

impl Context<'_> {
    pub(super) fn tokens(keyword: Keyword, arguments: &Word) -> Vec<HeredocToken> {
        if !keyword.info().heredoc
            || !arguments.text.contains("<<")
            || grammar::json_array(&arguments.text).is_some()
        {
            return Vec::new();
        }
        if keyword == Keyword::Run {
            return grammar::shell_heredocs(&arguments.text);
        }
        let token = |source| match source {
            SourceToken::Heredoc(token) => Some(token),
            SourceToken::Word(_) => None,
        };
        grammar::sources(&arguments.text)
            .into_iter()
            .filter_map(token)
            .collect()
    }

    /// The here-documents, and the end of the last terminator. None if one is not terminated.
    pub(super) fn bodies(
        &mut self,
        tokens: &[HeredocToken],
        arguments: &Word,
    ) -> Option<(Vec<Heredoc>, Option<usize>)> {
        let mut heredocs = Vec::with_capacity(tokens.len());
        let mut last = None;
        for token in tokens {
            let span = arguments.locate(token.whole.clone());
            let body = match self.reader.body(&token.name, token.chomp) {
                Body::Closed(body, end) => {
                    if let Some(at) = self.source.invalid_in(body) {
                        self.error(Span::new(at, at + 1), "not valid UTF-8");
                    }
                    last = Some(end);
                    body
                }
                Body::Open { near } => {
                    self.unterminated(token, span, near);
                    return None;
                }
            };
            let text = &self.source.text[body.start..body.end];
            heredocs.push(Heredoc {
                name: token.name.clone(),
                span,
                fd: token.fd,
                chomp: token.chomp,
                expand: token.expand,
                body: Spanned::new(text.to_owned(), body),
            });
        }
        Some((heredocs, last))
    }

    fn unterminated(&mut self, token: &HeredocToken, span: Span, near: Option<Span>) {
        let mut error = Diagnostic::error(
            span,
            format!("unterminated heredoc: no line says {}", shorten(&token.name)),
        );
        error = match near {
            Some(near) => error
                .related(near, "this line differs only in blanks")
                .hint(if token.chomp {
                    "remove the blanks around the terminator; <<- removes only leading tabs"
                } else {
                    "remove the blanks around the terminator, or use <<- if they are leading tabs"
                }),
            None => error
                .hint("end the heredoc with its delimiter on a line of its own; quote << if none is meant"),
        };
        self.diagnostics.push(error);
        self.recoveries += 1;
        match near {
            // What follows the near miss is most likely meant as instructions.
            Some(near) if self.recoveries <= RECOVERIES => self.reader.skip_past_line(near.end),
            _ => self.reader.skip_rest(),
        }
    }
}

/// The here-documents of an instruction in order.
pub(super) fn heredocs(instruction: &Instruction) -> Vec<&Heredoc> {
    let of_sources = |sources| {
        <[Source]>::iter(sources)
            .filter_map(|source| match source {
                Source::Heredoc(heredoc) => Some(heredoc),
                Source::Path(_) => None,
            })
            .collect()
    };
    match instruction {
        Instruction::Run(run) => run.heredocs.iter().collect(),
        Instruction::Copy(copy) => of_sources(&copy.sources),
        Instruction::Add(add) => of_sources(&add.sources),
        Instruction::Onbuild(onbuild) => heredocs(&onbuild.statement.instruction),
        _ => Vec::new(),
    }
}
