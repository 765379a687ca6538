//! The entries that an image's history gets, in the very text that Docker writes.
//!
//! Tools compare this text, so it follows Go's formatting where Docker formats with Go's verbs (`%q`, `%v`).

use std::fmt::Write;
use std::time::Duration;

use kiln_image::History;

/// What Docker's builder writes in the comment of each entry.
const COMMENT: &str = "buildkit.dockerfile.v0";

/// What it writes for layers that no instruction made.
const EXPORTER_COMMENT: &str = "buildkit.exporter.image.v0";

/// The entry of an instruction that changes the configuration only.
pub(crate) fn metadata(created_by: impl Into<String>) -> History {
    History {
        empty_layer: true,
        ..layer(created_by)
    }
}

/// The entry of an instruction that makes a layer.
pub(crate) fn layer(created_by: impl Into<String>) -> History {
    History {
        created_by: Some(created_by.into()),
        comment: Some(COMMENT.to_owned()),
        ..History::default()
    }
}

/// The entry of a layer that no instruction made.
pub(crate) fn exported(created_by: impl Into<String>) -> History {
    History {
        comment: Some(EXPORTER_COMMENT.to_owned()),
        ..layer(created_by)
    }
}

/// Words in brackets, as Go prints a list with `%v`.
pub(crate) fn list(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}

/// Quoted words in brackets, as Go prints a list with `%q`.
pub(crate) fn quoted_list(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    list(&words)
}

/// A string in double quotes, as Go prints it with `%q`.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        if character == '"' {
            quoted.push_str("\\\"");
        } else {
            push_escaped(&mut quoted, character);
        }
    }
    quoted.push('"');
    quoted
}

/// A number as a character in single quotes, as Go prints an integer with `%q`.
pub(crate) fn quote_number(number: u32) -> String {
    let mut quoted = String::from("'");
    match char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER) {
        '\'' => quoted.push_str("\\'"),
        character => push_escaped(&mut quoted, character),
    }
    quoted.push('\'');
    quoted
}

fn push_escaped(out: &mut String, character: char) {
    let short = match character {
        '\\' => "\\\\",
        '\u{7}' => "\\a",
        '\u{8}' => "\\b",
        '\u{c}' => "\\f",
        '\n' => "\\n",
        '\r' => "\\r",
        '\t' => "\\t",
        '\u{b}' => "\\v",
        _ => "",
    };
    let code = u32::from(character);
    // Writing to a string cannot fail.
    let _ = if !short.is_empty() {
        out.write_str(short)
    } else if is_printable(character) {
        out.write_char(character)
    } else if code < 0x80 {
        write!(out, "\\x{code:02x}")
    } else if code < 0x1_0000 {
        write!(out, "\\u{code:04x}")
    } else {
        write!(out, "\\U{code:08x}")
    };
}

/// Go's `unicode.IsPrint`. The standard library keeps its own table of that private, but tells by what it
/// escapes; as the first character of a string it would escape combining marks as well.
fn is_printable(character: char) -> bool {
    if matches!(character, '\'' | '"') {
        return true;
    }
    let mut after_letter = String::from("a");
    after_letter.push(character);
    after_letter.escape_debug().count() == 2
}

/// A duration as Go prints it: `1m30s`, `1.5s`, `100ms`, `0s`.
pub(crate) fn duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(nanos, 1_000_000)),
        _ => {
            let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
            let seconds = decimal(rest, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// `nanos / unit` with as many decimals as it needs.
fn decimal(nanos: u128, unit: u128) -> String {
    let (whole, rest) = (nanos / unit, nanos % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let digits = unit.ilog10() as usize;
    let fraction = format!("{rest:0digits$}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{duration, quote, quote_number, quoted_list};

    #[test]
    fn strings_are_quoted_as_go_does() {
        // Expected values printed by Go's fmt with %q.
        for (text, expected) in [
            ("", "\"\""),
            ("echo \"q\" 'é' $X", "\"echo \\\"q\\\" 'é' $X\""),
            ("a\\b\t\n\r", "\"a\\\\b\\t\\n\\r\""),
            ("\u{1}\u{7}\u{7f}", "\"\\x01\\a\\x7f\""),
            ("<y>&", "\"<y>&\""),
            ("\u{a0}\u{200b}\u{feff}", "\"\\u00a0\\u200b\\ufeff\""),
            ("e\u{301}", "\"e\u{301}\""),
            ("\u{e0001}😀", "\"\\U000e0001😀\""),
        ] {
            assert_eq!(quote(text), expected, "{text:?}");
        }
        assert_eq!(quoted_list(&["x".into(), "<y>".into()]), "[\"x\" \"<y>\"]");
        assert_eq!(quoted_list(&[]), "[]");
    }

    #[test]
    fn numbers_are_quoted_as_characters() {
        for (number, expected) in [
            (0, "'\\x00'"),
            (3, "'\\x03'"),
            (10, "'\\n'"),
            (39, "'\\''"),
            (65, "'A'"),
        ] {
            assert_eq!(quote_number(number), expected);
        }
    }

    #[test]
    fn durations_print_as_in_go() {
        for (nanos, expected) in [
            (0, "0s"),
            (5_000_000_000, "5s"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (100_000_000, "100ms"),
            (1_200, "1.2µs"),
            (999, "999ns"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanos)), expected);
        }
    }
}
