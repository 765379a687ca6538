//! `FROM [--platform=P] image [AS name]`: begins a stage on scratch, on an earlier stage or on an image.
//!
//! Image and platform are expanded in the global scope alone. FROM adds nothing to the history.

use kiln_image::{Platform, Reference};
use kiln_parser::ast::{From, Word};
use kiln_parser::{Diagnostic, suggest};

use super::Context;
use crate::contexts;
use crate::images::ImageRequest;
use crate::stage::Origin;

/// The platform that a FROM asks for.
pub(crate) fn platform(from: &From, context: Context<'_>) -> Result<Option<Platform>, Diagnostic> {
    let Some(word) = &from.platform else {
        return Ok(None);
    };
    let text = context.expander.word(word, &context.globals.values)?;
    if text.is_empty() {
        return Err(blank(PLATFORM, word, context));
    }
    text.parse().map(Some).map_err(|error| {
        Diagnostic::error(word.span, format!("{text:?} is not a platform: {error}")).hint(
            if word.text.contains('$') {
                format!(
                    "a platform is os/architecture[/variant], for example linux/arm64; {}",
                    automatic()
                )
            } else {
                "a platform is os/architecture[/variant], for example linux/arm64".to_owned()
            },
        )
    })
}

/// What a FROM starts from. `earlier` finds the last stage before it by its exact name.
pub(crate) fn base(
    from: &From,
    platform: Option<&Platform>,
    context: Context<'_>,
    earlier: impl Fn(&str) -> Option<usize>,
) -> Result<Origin, Diagnostic> {
    let name = context.expander.word(&from.image, &context.globals.values)?;
    if name.is_empty() {
        return Err(blank("base image name", &from.image, context));
    }
    if let Some(stage) = earlier(&name) {
        return Ok(Origin::Stage(stage));
    }
    if name == "scratch" {
        return Ok(Origin::Scratch);
    }
    let span = from.image.span;
    let platform = platform.unwrap_or(&context.options.target_platform);
    if let Some(origin) = contexts::origin(&name, platform, span, context.options) {
        return Ok(origin);
    }
    let reference = Reference::parse(&name).map_err(|error| {
        let diagnostic = Diagnostic::error(span, format!("{name:?} is not an image name: {error}"));
        let lower = name.to_lowercase();
        match earlier(&lower) {
            Some(_) => diagnostic.hint(format!(
                "did you mean the stage {lower}? Stage names are lower case"
            )),
            None => diagnostic,
        }
    })?;
    Ok(Origin::Image(Box::new(ImageRequest {
        reference,
        platform: platform.clone(),
        written: name,
        span,
        context: None,
    })))
}

/// What a named context of the stage's own name puts in the stage's place.
pub(crate) fn replacement(from: &From, platform: Option<&Platform>, context: Context<'_>) -> Option<Origin> {
    let name = from.name.as_ref()?;
    let platform = platform.unwrap_or(&context.options.target_platform);
    contexts::origin(&name.value, platform, name.span, context.options)
}

/// The error for an expression that expands to nothing: it is nearly always an ARG in the wrong place.
fn blank(what: &str, word: &Word, context: Context<'_>) -> Diagnostic {
    let error = Diagnostic::error(word.span, format!("{what} {} expands to nothing", word.as_str()));
    let globals = &context.globals.values;
    let undeclared = context.expander.undefined(word, globals);
    let Some(first) = undeclared.first() else {
        return match what {
            PLATFORM => error.hint(automatic()),
            _ => error,
        };
    };
    if let Some(known) = suggest::nearest(first, globals.names()) {
        return error.hint(format!("{first} is not set; did you mean {known}?"));
    }
    let hint = format!(
        "{} has no value here: FROM only sees the ARGs before the first FROM",
        undeclared.join(", ")
    );
    error.hint(match what {
        PLATFORM => format!("{hint}; {}", automatic()),
        _ => hint,
    })
}

const PLATFORM: &str = "platform";

/// The arguments that platforms are usually made of.
fn automatic() -> String {
    let names = AUTOMATIC.map(|suffix| format!("TARGET{suffix}, BUILD{suffix}"));
    format!("always set: {}", names.join(", "))
}

/// What follows TARGET and BUILD in their names.
const AUTOMATIC: [&str; 5] = ["PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT"];

#[cfg(test)]
mod tests {
    use crate::testing::{FakeResolver, lower_with, lowered, messages, names, options};

    #[test]
    fn the_base_sees_global_arguments_alone() {
        let lowered = lowered("ARG NAME=busy\nARG BASE=${NAME}box\nFROM $BASE\nRUN x\n");
        assert!(names(&lowered)[0].starts_with("[1/2] FROM docker.io/library/busybox:latest@sha256:"));
        let text = "FROM busybox AS a\nENV B=busybox\nFROM $B\n";
        assert_eq!(messages(text), ["base image name $B expands to nothing"]);
    }

    #[test]
    fn a_stage_hides_an_image_of_the_same_name() {
        let text = "FROM busybox AS debian\nRUN a\nFROM debian\nRUN b\n";
        let resolver = FakeResolver::new([]);
        let lowered = lower_with(text, &options(), &resolver).unwrap();
        assert_eq!(names(&lowered).len(), 3);
        assert_eq!(resolver.asked(), ["docker.io/library/busybox:latest"]);
    }
}
