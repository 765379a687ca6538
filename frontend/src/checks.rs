//! `--check` and what it has in common with a build: the language of the file, the options of the checks, and
//! everything that is found in one look at it.

use std::collections::HashSet;

use kiln_parser::ast::CheckOptions;
use kiln_parser::ignore::IgnoreFile;
use kiln_parser::{Diagnostic, Dockerfile, Parsed, Span, directive, lint, rules, syntax};

use crate::budget::Budget;
use crate::contexts::ContextValue;
use crate::expansion::Expander;
use crate::lint::Linter;
use crate::options::LowerOptions;
use crate::resolve::ImageResolver;
use crate::survey::{Scope, Unobserved, survey};

/// Build argument that names the frontend instead of the file.
const SYNTAX: &str = "BUILDKIT_SYNTAX";
/// Build argument that holds the options of the checks instead of the file.
const OPTIONS: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// Everything that a look at a Dockerfile found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// What makes a build fail, in the order of the file. Those without a place have an empty span; among them that
    /// the file takes warnings for errors.
    pub errors: Vec<Diagnostic>,
    /// What the build checks found, in the order of the file.
    pub warnings: Vec<Diagnostic>,
}

/// Looks at all stages of a Dockerfile (at what the target needs, when the options name one), and runs nothing.
/// All errors and all warnings come in one go. When parts of the file could not be understood, what may only be a
/// consequence of that is left out.
pub fn check(
    dockerfile: &[u8],
    options: &LowerOptions,
    ignore: Option<&IgnoreFile>,
    resolver: &dyn ImageResolver,
) -> Findings {
    check_all(dockerfile, std::slice::from_ref(options), ignore, resolver)
}

/// The same for several platforms. As in Docker the first one speaks for all; of the others there are errors, and base
/// images of another platform.
pub(crate) fn check_all(
    dockerfile: &[u8],
    variants: &[LowerOptions],
    ignore: Option<&IgnoreFile>,
    resolver: &dyn ImageResolver,
) -> Findings {
    let Some((options, others)) = variants.split_first() else {
        return Findings::default();
    };
    let parsed = kiln_parser::parse(dockerfile);
    let settings = match language(&parsed.dockerfile, options).and_then(|()| settings(options)) {
        Ok(settings) => settings,
        Err(error) => {
            return Findings {
                errors: vec![error],
                ..Findings::default()
            };
        }
    };
    let is_broken = parsed.has_errors();
    let Parsed {
        dockerfile,
        diagnostics,
    } = parsed;
    let (mut errors, mut warnings): (Vec<_>, Vec<_>) =
        diagnostics.into_iter().partition(Diagnostic::is_error);
    if !dockerfile.stages.is_empty() {
        let escape = dockerfile.escape();
        let budget = Budget::default();
        let mut linter = Linter::new(Expander::new(escape, &budget), escape, ignore);
        let mut found = survey(&dockerfile, options, resolver, Scope::File, &mut linter);
        for options in others {
            let more = survey(&dockerfile, options, resolver, Scope::File, &mut Unobserved);
            add_new(&mut found.errors, more.errors);
            add_new(&mut found.warnings, more.warnings);
        }
        let evaluated = linter.finish().into_iter().chain(found.warnings);
        if is_broken {
            warnings.extend(evaluated.filter(is_certain));
        } else {
            warnings.extend(evaluated);
            errors.extend(found.errors);
        }
    }
    complete(&dockerfile, settings.as_ref(), &mut warnings);
    lint::locate(&dockerfile, &mut errors);
    errors.sort_by_key(|error| error.span.start);
    errors.dedup();
    if is_strict(&dockerfile, settings.as_ref()) {
        errors.extend(lint::violation(&warnings));
    }
    Findings { errors, warnings }
}

/// Adds what is not there yet: most of what is found for one platform is found for all.
fn add_new(found: &mut Vec<Diagnostic>, more: Vec<Diagnostic>) {
    let key = |diagnostic: &Diagnostic| (diagnostic.span, diagnostic.message.clone());
    let known: HashSet<_> = found.iter().map(key).collect();
    found.extend(
        more.into_iter()
            .filter(|diagnostic| !known.contains(&key(diagnostic))),
    );
}

/// Whether a finding stands though other instructions could not be read.
fn is_certain(warning: &Diagnostic) -> bool {
    let rule = warning.rule.and_then(rules::find);
    rule.is_some_and(|rule| !rule.needs_context)
}

/// Leaves the warnings that are wanted, in the order of the file.
pub(crate) fn complete(
    dockerfile: &Dockerfile,
    settings: Option<&CheckOptions>,
    warnings: &mut Vec<Diagnostic>,
) {
    lint::select(dockerfile, settings, warnings);
    lint::locate(dockerfile, warnings);
    warnings.sort_by_key(|warning| (warning.extent().start, warning.span.start));
}

/// Whether a warning fails a build.
pub(crate) fn is_strict(dockerfile: &Dockerfile, settings: Option<&CheckOptions>) -> bool {
    let directive = dockerfile.directives.check.as_ref().map(|check| &check.value);
    settings.or(directive).is_some_and(|options| options.error)
}

/// The options of the checks that the request gives instead of those of the file.
pub(crate) fn settings(options: &LowerOptions) -> Result<Option<CheckOptions>, Diagnostic> {
    let Some(text) = options.build_arg(OPTIONS) else {
        return Ok(None);
    };
    directive::check_options(text).map(Some).map_err(|error| {
        let mut error = error.at(Span::default());
        error.message = format!("--build-arg {OPTIONS}: {}", error.message);
        error
    })
}

/// Refuses a file in another language than Dockerfile's own.
pub(crate) fn language(dockerfile: &Dockerfile, options: &LowerOptions) -> Result<(), Diagnostic> {
    let (value, span, place) = match (options.build_arg(SYNTAX), &dockerfile.directives.syntax) {
        (Some(value), _) => (value, Span::default(), format!("--build-arg {SYNTAX}: ")),
        (None, Some(directive)) => (directive.value.as_str(), directive.span, String::new()),
        (None, None) => return Ok(()),
    };
    let image = syntax::image(value);
    // As in Docker, a named context may stand for the frontend.
    let message = match options.contexts.find(image, &options.build_platform) {
        Some((_, ContextValue::Image(reference))) if syntax::is_built_in(&reference.familiar()) => {
            return Ok(());
        }
        Some((name, _)) => {
            format!("{place}the named context {name:?} in the place of the frontend image is not supported")
        }
        None if syntax::is_built_in(value) => return Ok(()),
        None => format!("{place}the frontend image {image:?} is not supported"),
    };
    Err(Diagnostic::error(span, message).hint(
        "the Dockerfile frontends docker/dockerfile and docker/dockerfile-upstream, of any version, are built in; \
         no other frontend can be run",
    ))
}
