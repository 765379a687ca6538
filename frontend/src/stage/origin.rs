//! What the `from` of a COPY or a mount names: an earlier stage, a named context, or an image.

use kiln_image::Reference;
use kiln_parser::ast::Instruction;
use kiln_parser::{Diagnostic, Span, Spanned, suggest};

use super::{Origin, Table};
use crate::contexts;
use crate::images::ImageRequest;
use crate::options::LowerOptions;

impl Table<'_> {
    /// What the `from` of a COPY or a mount in stage `number` names: an earlier stage by name or number, or an
    /// image. The parser has refused variables in it.
    pub(crate) fn origin(
        &self,
        from: &Spanned<&str>,
        verb: &str,
        number: usize,
        options: &LowerOptions,
    ) -> Result<Origin, Diagnostic> {
        let (name, platform) = (from.value, &options.target_platform);
        if let Ok(index) = name.parse::<usize>() {
            return self.numbered(from.span, verb, index, number);
        }
        // Names of stages are kept in lower case.
        let lower = name.to_ascii_lowercase();
        if let Some(plan) = self
            .earlier(&lower, number)
            .and_then(|stage| self.plans.get(stage))
        {
            return Ok(plan.as_source());
        }
        if let Some(plan) = self.later(&lower, number).and_then(|stage| self.plans.get(stage)) {
            if plan.replaced {
                return Ok(plan.as_source());
            }
            return Err(self.not_before(from.span, verb, plan.number, number));
        }
        if name.eq_ignore_ascii_case("scratch") {
            return Ok(Origin::Scratch);
        }
        if let Some(origin) = contexts::origin(name, platform, from.span, options) {
            return Ok(origin);
        }
        let reference = Reference::parse(name).map_err(|error| {
            let diagnostic = Diagnostic::error(
                from.span,
                format!("{name:?} is neither a stage nor an image name: {error}"),
            );
            match suggest::hint(name, self.names()) {
                Some(hint) => diagnostic.hint(hint),
                None => diagnostic,
            }
        })?;
        let written = name.to_owned();
        Ok(Origin::Image(Box::new(ImageRequest {
            reference,
            platform: platform.clone(),
            written,
            span: from.span,
            context: None,
        })))
    }

    fn numbered(&self, span: Span, verb: &str, index: usize, number: usize) -> Result<Origin, Diagnostic> {
        if let Some(plan) = self
            .plans
            .get(index)
            .filter(|plan| index < number || plan.replaced)
        {
            return Ok(plan.as_source());
        }
        if index < self.plans.len() {
            return Err(self.not_before(span, verb, index, number));
        }
        let last = self.plans.len().saturating_sub(1);
        let error = Diagnostic::error(span, format!("there is no stage {index}"));
        Err(error.hint(format!("stages are counted from 0; the last one is {last}")))
    }

    /// Finds out what the `from`s of a stage's instructions name. Those done already stay as they are.
    pub(crate) fn bind(&mut self, number: usize, options: &LowerOptions) -> Result<(), Vec<Diagnostic>> {
        let mut origins = Vec::new();
        let mut errors = Vec::new();
        for (position, line) in self.plans[number].lines.iter().enumerate() {
            if line.from.is_some() || !line.mounts.is_empty() {
                continue;
            }
            let find = |from: Option<Spanned<&str>>, verb| {
                let mut origin = from
                    .map(|from| self.origin(&from, verb, number, options))
                    .transpose();
                if let Ok(Some(Origin::Image(request))) = &mut origin {
                    request.span = line.locate(request.span);
                }
                origin.map_err(|error| line.relocate(error))
            };
            let (from, mounts) = match &line.statement.instruction {
                Instruction::Copy(copy) => {
                    let from = copy
                        .from
                        .as_ref()
                        .map(|from| Spanned::new(from.value.as_str(), from.span));
                    (find(from, "copy"), Vec::new())
                }
                Instruction::Run(run) => {
                    let mounts = run.mounts.iter().map(|mount| find(mount.from(), "mount"));
                    (Ok(None), mounts.collect())
                }
                _ => continue,
            };
            let mut keep = |found: Result<Option<Origin>, Diagnostic>| {
                found.unwrap_or_else(|error| {
                    errors.push(error);
                    None
                })
            };
            let from = keep(from);
            let mounts: Vec<Option<Origin>> = mounts.into_iter().map(&mut keep).collect();
            origins.push((position, from, mounts));
        }
        for (position, from, mounts) in origins {
            let line = &mut self.plans[number].lines[position];
            (line.from, line.mounts) = (from, mounts);
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}
