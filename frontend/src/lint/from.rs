//! What is odd about FROM lines: undeclared ARGs, platforms, and images that only a build argument makes valid.

use std::collections::BTreeSet;

use kiln_image::{Platform, Reference};
use kiln_parser::ast::{From, Instruction, Word};
use kiln_parser::{Diagnostic, Dockerfile, expand, suggest};

use super::Linter;
use crate::options::LowerOptions;
use crate::scope::GlobalScope;

impl Linter<'_> {
    /// Looks at all FROM lines, needed or not.
    pub(crate) fn stage_lines(
        &mut self,
        dockerfile: &Dockerfile,
        options: &LowerOptions,
        globals: &GlobalScope,
    ) {
        self.defaults(dockerfile, options);
        let mut names: BTreeSet<&str> = globals.values.names().collect();
        names.extend(global_args(dockerfile));
        for stage in &dockerfile.stages {
            let Some((_, from)) = dockerfile.from(stage) else {
                continue;
            };
            self.undeclared(&from.image, &names);
            if let Some(platform) = &from.platform {
                self.undeclared(platform, &names);
                self.platform(from, platform, globals);
            }
        }
    }

    fn undeclared(&mut self, word: &Word, names: &BTreeSet<&str>) {
        if !word.text.contains('$') {
            return;
        }
        for (name, range) in expand::mentions(&word.text, self.escape).unwrap_or_default() {
            if names.contains(name.as_str()) {
                continue;
            }
            let similar = suggest::nearest_exact(&name, names.iter().copied(), &mut self.patience);
            let similar = similar.map_or_else(String::new, |name| format!(" (did you mean {name}?)"));
            let message = format!("FROM argument '{name}' is not declared{similar}");
            let place = word.locate(range);
            self.found
                .push(Diagnostic::warning("UndefinedArgInFrom", place, message));
        }
    }

    fn platform(&mut self, from: &From, word: &Word, globals: &GlobalScope) {
        let Ok(mentions) = expand::variables(&word.text, self.escape) else {
            return;
        };
        let Ok(value) = self.expander.word(word, &globals.values) else {
            return;
        };
        if mentions == ["TARGETPLATFORM"] && globals.values.get("TARGETPLATFORM") == Some(&value) {
            let message = format!(
                "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
                word.text
            );
            self.found
                .push(Diagnostic::warning("RedundantTargetPlatform", word.span, message));
        }
        if !mentions.is_empty() {
            return;
        }
        let Ok(platform) = value.parse::<Platform>() else {
            return;
        };
        let name = from.name.as_ref().map_or("", |name| name.value.as_str());
        if !name.contains(&platform.os) && !name.contains(&platform.architecture) {
            let message = format!("FROM --platform flag should not use constant value {value:?}");
            let warning = Diagnostic::warning("FromPlatformFlagConstDisallowed", word.span, message);
            self.found.push(warning);
        }
    }

    /// Whether each base is an image name when no build argument is given.
    fn defaults(&mut self, dockerfile: &Dockerfile, options: &LowerOptions) {
        let uses_variables = |word: &Word| word.text.contains('$');
        let mut lines = dockerfile
            .stages
            .iter()
            .filter_map(|stage| dockerfile.from(stage));
        if !lines.any(|(_, from)| uses_variables(&from.image)) {
            return;
        }
        let options = LowerOptions {
            build_args: options
                .build_args
                .iter()
                .filter(|(name, _)| !is_global(dockerfile, name))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            ..options.clone()
        };
        let Ok(globals) = GlobalScope::evaluate(dockerfile, &options, self.expander) else {
            return;
        };
        for stage in &dockerfile.stages {
            let Some((_, from)) = dockerfile
                .from(stage)
                .filter(|(_, from)| uses_variables(&from.image))
            else {
                continue;
            };
            let Ok(name) = self.expander.word(&from.image, &globals.values) else {
                return;
            };
            if Reference::parse(&name).is_err() {
                let message = format!(
                    "Default value for ARG {} results in empty or invalid base image name",
                    from.image.text
                );
                let warning = Diagnostic::warning("InvalidDefaultArgInFrom", from.image.span, message);
                self.found.push(warning);
            }
        }
    }
}

/// The ARGs before the first FROM.
fn global_args(dockerfile: &Dockerfile) -> impl Iterator<Item = &str> {
    let arguments = dockerfile
        .global()
        .iter()
        .filter_map(|statement| match &statement.instruction {
            Instruction::Arg(arg) => Some(&arg.declarations),
            _ => None,
        });
    arguments.flatten().map(|declaration| declaration.name.as_str())
}

fn is_global(dockerfile: &Dockerfile, name: &str) -> bool {
    global_args(dockerfile).any(|declared| declared == name)
}
