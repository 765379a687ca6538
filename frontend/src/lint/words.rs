//! Which words of an instruction the build expands, and which variables they mention.

use std::collections::HashSet;

use kiln_parser::Span;
use kiln_parser::ast::{Instruction, Source, Word};
use kiln_parser::expand;

/// A variable that a word mentions.
#[derive(Debug)]
pub(super) struct Mention {
    /// Its name.
    pub(super) name: String,
    /// Where.
    pub(super) span: Span,
    /// Whether the same instruction has declared it before.
    pub(super) is_declared: bool,
}

/// All variables that an instruction mentions in words that are expanded, those of one word each once.
pub(super) fn mentions(instruction: &Instruction, escape: char) -> Vec<Mention> {
    let mut found = Vec::new();
    if let Instruction::Arg(arg) = instruction {
        let mut declared = HashSet::new();
        for declaration in &arg.declarations {
            if let Some(default) = &declaration.default {
                let before = found.len();
                in_word(default, escape, &mut found);
                for mention in &mut found[before..] {
                    mention.is_declared = declared.contains(mention.name.as_str());
                }
            }
            declared.insert(declaration.name.as_str());
        }
        return found;
    }
    each_word(instruction, &mut |word| in_word(word, escape, &mut found));
    for heredoc in heredocs(instruction).filter(|heredoc| heredoc.expand) {
        if !heredoc.body.value.contains('$') {
            continue;
        }
        // Errors of syntax are reported where the text is expanded.
        for (name, range) in expand::mentions_in_heredoc(&heredoc.body.value).unwrap_or_default() {
            let start = heredoc.body.span.start + range.start;
            found.push(Mention {
                name,
                span: Span::new(start, start + range.len()),
                is_declared: false,
            });
        }
    }
    found
}

fn heredocs(instruction: &Instruction) -> impl Iterator<Item = &kiln_parser::ast::Heredoc> {
    let sources: &[Source] = match instruction {
        Instruction::Copy(copy) => &copy.sources,
        Instruction::Add(add) => &add.sources,
        _ => &[],
    };
    sources.iter().filter_map(|source| match source {
        Source::Heredoc(heredoc) => Some(heredoc),
        Source::Path(_) => None,
    })
}

fn in_word(word: &Word, escape: char, found: &mut Vec<Mention>) {
    if !word.text.contains('$') {
        return;
    }
    for (name, range) in expand::mentions(&word.text, escape).unwrap_or_default() {
        let span = if word.text.len() == word.span.len() {
            word.locate(range)
        } else {
            word.span
        };
        found.push(Mention {
            name,
            span,
            is_declared: false,
        });
    }
}

/// The words that get values before the instruction is carried out. Those of EXPOSE do too, but Docker does not look
/// there; defaults of ARG are special.
fn each_word(instruction: &Instruction, visit: &mut impl FnMut(&Word)) {
    let paths = |sources: &[Source], visit: &mut dyn FnMut(&Word)| {
        for source in sources {
            if let Source::Path(word) = source {
                visit(word);
            }
        }
    };
    match instruction {
        Instruction::Env(kiln_parser::ast::Env { pairs, .. })
        | Instruction::Label(kiln_parser::ast::Label { pairs, .. }) => {
            for pair in pairs {
                visit(&pair.key);
                visit(&pair.value);
            }
        }
        Instruction::Copy(copy) => {
            copy.chown.iter().chain(&copy.chmod).for_each(&mut *visit);
            paths(&copy.sources, visit);
            visit(&copy.destination);
        }
        Instruction::Add(add) => {
            let flags = add.chown.iter().chain(&add.chmod).chain(&add.checksum);
            flags.for_each(&mut *visit);
            paths(&add.sources, visit);
            visit(&add.destination);
        }
        Instruction::Run(run) => {
            let options = run.mounts.iter().flat_map(|mount| &mount.options);
            options.filter_map(|option| option.value.as_ref()).for_each(visit);
        }
        Instruction::Volume(volume) => volume.paths.iter().for_each(visit),
        Instruction::User(user) => visit(&user.user),
        Instruction::Workdir(workdir) => visit(&workdir.path),
        Instruction::Stopsignal(stopsignal) => visit(&stopsignal.signal),
        _ => {}
    }
}
