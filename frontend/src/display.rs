//! What a step is called in progress output: the instruction as written, with its variables replaced.

use crate::environment::Environment;
use crate::expansion::Expander;
use crate::stage::{Line, Place};

/// The text of an instruction whose words the build expands (COPY, WORKDIR, …): quotes go, as Docker shows it.
pub(crate) fn expanded(line: &Line<'_>, environment: &Environment, expander: Expander<'_>) -> String {
    with_keyword(line, &expander.text(line.statement.text.as_str(), environment))
}

/// The text of a RUN. The build does not expand it, but a reader wants to see what the shell will: variables that
/// have a value are replaced, all else stays as it is written.
pub(crate) fn command(line: &Line<'_>, environment: &Environment) -> String {
    with_keyword(
        line,
        &replace_variables(line.statement.text.as_str(), environment),
    )
}

/// The first line of a script, for the step name of a RUN with a lone here-document.
pub(crate) fn summary(script: &str, environment: &Environment) -> String {
    let mut lines = script.trim().lines();
    let first = replace_variables(lines.next().unwrap_or_default(), environment);
    let more = if lines.next().is_some() { "..." } else { "" };
    format!("{first}{more}")
}

/// Bytes shown of an instruction. Some are programs of their own; that they can be told apart is enough.
const LONGEST: usize = 4096;

/// The keyword in capitals, and `ONBUILD` before a trigger; not more than a reader can use.
fn with_keyword(line: &Line<'_>, text: &str) -> String {
    let trigger = if line.place == Place::Stage {
        ""
    } else {
        "ONBUILD "
    };
    let end = text.floor_char_boundary(LONGEST);
    let more = if end < text.len() { "…" } else { "" };
    let text = &text[..end];
    let (keyword, rest) = text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()));
    format!("{trigger}{}{rest}{more}", keyword.to_uppercase())
}

/// Replaces `$name` and `${name}` outside of single quotes.
fn replace_variables(text: &str, environment: &Environment) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut single, mut double) = (false, false);
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        // What is cut off later need not be made.
        if out.len() > LONGEST {
            break;
        }
        let (mut taken, mut value) = (character.len_utf8(), None);
        match character {
            '\'' if !double => single = !single,
            '"' if !single => double = !double,
            '\\' if !single => taken += rest[1..].chars().next().map_or(0, char::len_utf8),
            '$' if !single => {
                if let Some((name, length)) = variable(rest)
                    && let Some(found) = environment.get(name)
                {
                    (taken, value) = (length, Some(found));
                }
            }
            _ => {}
        }
        let text = value.unwrap_or(&rest[..taken]);
        out.push_str(&text[..text.floor_char_boundary(LONGEST + 1)]);
        rest = &rest[taken..];
    }
    out
}

/// The name of the variable at the start of `text`, and how long its reference is.
fn variable(text: &str) -> Option<(&str, usize)> {
    let rest = text.strip_prefix('$')?;
    let (braced, rest) = match rest.strip_prefix('{') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let end = rest.find(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
    if name.is_empty() || name.starts_with(|character: char| character.is_ascii_digit()) {
        return None;
    }
    match braced {
        false => Some((name, 1 + name.len())),
        true if after.starts_with('}') => Some((name, 3 + name.len())),
        true => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, replace_variables, summary};
    use crate::environment::Environment;

    #[test]
    fn a_command_shows_the_values_of_its_variables() {
        let mut environment = Environment::default();
        environment.set("A", "1");
        environment.set("B", "b c");
        for (text, expected) in [
            ("RUN echo $A ${B}", "RUN echo 1 b c"),
            ("RUN echo '$A' \"it's $A\" \\$A", "RUN echo '$A' \"it's 1\" \\$A"),
            (
                "RUN echo $UNSET ${UNSET:-x} ${A:-x} $",
                "RUN echo $UNSET ${UNSET:-x} ${A:-x} $",
            ),
            ("RUN find . -exec rm {} \\;", "RUN find . -exec rm {} \\;"),
            ("RUN é $A\\", "RUN é 1\\"),
        ] {
            assert_eq!(replace_variables(text, &environment), expected);
        }
    }

    #[test]
    fn long_commands_are_cut_off() {
        let mut environment = Environment::default();
        environment.set("A", "é".repeat(10_000));
        let shown = replace_variables(&"$A".repeat(1000), &environment);
        assert!(
            shown.len() > LONGEST && shown.len() < 3 * LONGEST,
            "{}",
            shown.len()
        );
        let lowered = crate::testing::lowered(&format!("FROM busybox\nRUN {}\n", "x".repeat(10_000)));
        let name = crate::testing::names(&lowered).pop().unwrap();
        assert!(
            name.ends_with("xxx…") && name.len() < LONGEST + 20,
            "{}",
            name.len()
        );
    }

    #[test]
    fn a_script_is_named_by_its_first_line() {
        let mut environment = Environment::default();
        environment.set("A", "a");
        assert_eq!(summary("\n  echo $A\necho b\n", &environment), "echo a...");
        assert_eq!(summary("echo a\n", &environment), "echo a");
    }
}
