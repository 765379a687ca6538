//! The build checks that need to know what the build knows: scopes, platforms, the base's config, the ignore file.
//!
//! They look on while stages are lowered and change nothing. What they find is what Docker's frontend finds, in
//! the same words. Work is linear: a word is only looked into when it holds a `$`, and the search for similar
//! names has a limit for the whole file.

mod from;
mod ignored;
mod secret;
mod words;

use std::collections::BTreeMap;

use kiln_parser::ast::{CommandLine, Instruction, Label, Word};
use kiln_parser::ignore::IgnoreFile;
use kiln_parser::{Diagnostic, Span, suggest, value};

use crate::expansion::Expander;
use crate::stage::{Line, Place, Plan};
use crate::state::StageState;

/// Names that may be looked at in search of similar ones, for all findings together.
const PATIENCE: usize = 1 << 18;

/// As many findings of one rule in one instruction are told.
const MOST: usize = 100;

/// Steers the builder and is never a variable of a step.
const NO_VARIABLES: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Looks on while a Dockerfile is lowered.
#[derive(Debug)]
pub(crate) struct Linter<'a> {
    expander: Expander<'a>,
    escape: char,
    ignore: Option<&'a IgnoreFile>,
    found: Vec<Diagnostic>,
    stages: BTreeMap<usize, Facts>,
    patience: usize,
}

/// What is remembered of a stage.
#[derive(Debug, Default)]
struct Facts {
    /// A WORKDIR stands in it, or in a stage below.
    has_workdir: bool,
    /// The variables of its base are not known, because the base could not be had.
    is_blind: bool,
    /// Where the last of those instructions stands of which only one counts.
    singles: BTreeMap<&'static str, Span>,
}

impl<'a> Linter<'a> {
    /// Nothing was seen yet. `ignore` is the context's ignore file.
    pub(crate) fn new(expander: Expander<'a>, escape: char, ignore: Option<&'a IgnoreFile>) -> Self {
        Self {
            expander,
            escape,
            ignore,
            found: Vec::new(),
            stages: BTreeMap::new(),
            patience: PATIENCE,
        }
    }

    /// What was found.
    pub(crate) fn finish(self) -> Vec<Diagnostic> {
        self.found
    }

    /// A stage begins: on stage `base` of the file, or on something else, of which nothing is known when `is_blind`.
    pub(crate) fn begin(&mut self, number: usize, base: Option<usize>, is_blind: bool) {
        let below = base.and_then(|base| self.stages.get(&base));
        let facts = Facts {
            has_workdir: below.is_some_and(|facts| facts.has_workdir),
            is_blind: is_blind || below.is_some_and(|facts| facts.is_blind),
            singles: BTreeMap::new(),
        };
        self.stages.insert(number, facts);
    }

    /// An instruction is about to change `state`.
    pub(crate) fn line(&mut self, plan: &Plan<'_>, line: &Line<'_>, state: &StageState) {
        let view = View { plan, line, state };
        self.undefined(view);
        match &line.statement.instruction {
            Instruction::Env(env) => {
                self.legacy(view, env.legacy);
                for pair in &env.pairs {
                    if let Some(key) = self.value(&pair.key, state) {
                        self.secret(view, "ENV", &key, pair.key.span);
                    }
                }
            }
            Instruction::Label(Label { legacy, .. }) => self.legacy(view, *legacy),
            Instruction::Arg(arg) => {
                for declaration in &arg.declarations {
                    self.secret(view, "ARG", declaration.name.as_str(), declaration.name.span);
                }
            }
            Instruction::Cmd(cmd) => {
                self.single(view, "CMD");
                self.json(view, &cmd.command);
            }
            Instruction::Entrypoint(entrypoint) => {
                self.single(view, "ENTRYPOINT");
                self.json(view, &entrypoint.command);
            }
            Instruction::Healthcheck(_) => self.single(view, "HEALTHCHECK"),
            Instruction::Expose(expose) => {
                for word in &expose.ports {
                    for port in self
                        .expander
                        .words(word, &state.environment)
                        .into_iter()
                        .flatten()
                    {
                        self.port(view, &port, word.span);
                    }
                }
            }
            Instruction::Workdir(workdir) => self.workdir(view, &workdir.path),
            Instruction::Copy(copy) if copy.from.is_none() => self.ignored(view, "Copy", &copy.sources),
            Instruction::Add(add) => self.ignored(view, "Add", &add.sources),
            _ => {}
        }
    }

    fn report(&mut self, view: View<'_>, rule: &'static str, place: Span, message: String) {
        self.found
            .push(Diagnostic::warning(rule, view.place(place), message));
    }

    /// The value of a word; none when it cannot be expanded, which is an error elsewhere.
    fn value(&self, word: &Word, state: &StageState) -> Option<String> {
        self.expander.word(word, &state.environment).ok()
    }

    fn undefined(&mut self, view: View<'_>) {
        let facts = self.stages.get(&view.plan.number);
        if facts.is_some_and(|facts| facts.is_blind) {
            return;
        }
        let mentions = words::mentions(&view.line.statement.instruction, self.escape);
        if mentions.is_empty() {
            return;
        }
        let mut left = MOST;
        for mention in mentions {
            let name = mention.name.as_str();
            let is_known = view.state.environment.get(name).is_some()
                || view.state.args.is_declared(name)
                || mention.is_declared
                || NO_VARIABLES.contains(&name);
            if is_known || left == 0 {
                continue;
            }
            left -= 1;
            let known = view.state.environment.names();
            let message = match suggest::nearest_exact(name, known, &mut self.patience) {
                Some(similar) => {
                    format!("Usage of undefined variable '${name}' (did you mean ${similar}?)")
                }
                None => format!("Usage of undefined variable '${name}'"),
            };
            self.report(view, "UndefinedVar", mention.span, message);
        }
    }

    fn legacy(&mut self, view: View<'_>, legacy: bool) {
        if legacy {
            let keyword = &view.line.statement.keyword_text;
            let message = format!(
                "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
            );
            self.report(
                view,
                "LegacyKeyValueFormat",
                view.line.statement.text.span,
                message,
            );
        }
    }

    fn secret(&mut self, view: View<'_>, keyword: &str, name: &str, place: Span) {
        if secret::is_secret(name) {
            let message =
                format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {name:?})");
            self.report(view, "SecretsUsedInArgOrEnv", place, message);
        }
    }

    /// Only the last one of a stage counts: the one before is what is reported.
    fn single(&mut self, view: View<'_>, kind: &'static str) {
        let facts = self.stages.entry(view.plan.number).or_default();
        let before = facts.singles.insert(kind, view.place(view.line.statement.span));
        if let Some(before) = before {
            let keyword = &view.line.statement.keyword_text;
            let message = format!(
                "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
            );
            let warning = Diagnostic::warning("MultipleInstructionsDisallowed", before, message);
            let here = view.place(view.line.statement.span);
            self.found.push(warning.related(here, "this one is used"));
        }
    }

    fn json(&mut self, view: View<'_>, command: &CommandLine) {
        if !view.state.config.config.shell.is_empty() {
            return;
        }
        let CommandLine::Shell(text) = command else { return };
        let keyword = &view.line.statement.keyword_text;
        let message = format!(
            "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
        );
        self.report(view, "JSONArgsRecommended", text.span, message);
        if text.text.starts_with('[')
            && let Some(last) = self.found.last_mut()
        {
            let hint = "this starts like a JSON array but is none, so the shell gets it as it is";
            last.hint = Some(hint.to_owned());
        }
    }

    fn port(&mut self, view: View<'_>, port: &str, place: Span) {
        // A wrong port is an error elsewhere.
        let Ok(ports) = value::parse_ports(port) else {
            return;
        };
        if ports.protocol_casing {
            let message = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
            self.report(view, "ExposeProtoCasing", place, message);
        }
        if ports.host_part {
            let message = format!(
                "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
            );
            self.report(view, "ExposeInvalidFormat", place, message);
        }
    }

    fn workdir(&mut self, view: View<'_>, path: &Word) {
        let facts = self.stages.entry(view.plan.number).or_default();
        if std::mem::replace(&mut facts.has_workdir, true) {
            return;
        }
        let Some(value) = self.value(path, view.state) else {
            return;
        };
        if !value.starts_with('/') {
            let message =
                format!("Relative workdir {value:?} can have unexpected results if the base image changes");
            self.report(view, "WorkdirRelativePath", path.span, message);
        }
    }
}

/// An instruction where it stands.
#[derive(Debug, Clone, Copy)]
struct View<'a> {
    plan: &'a Plan<'a>,
    line: &'a Line<'a>,
    state: &'a StageState,
}

impl View<'_> {
    /// Where a finding stands. Docker puts what it finds in triggers at the FROM that set them off.
    fn place(&self, span: Span) -> Span {
        match self.line.place {
            Place::Stage => span,
            Place::StageTrigger | Place::ImageTrigger(_) => self.plan.span,
        }
    }
}
