//! The pest grammar of logical lines, behind functions that yield plain data.
//!
//! The grammar is linear in its input (see its comments), so that no call limit is set: pest's limit is one for
//! the whole process. JSON is its only recursion, and its depth is checked beforehand.

use std::ops::Range;

use pest::Parser;
use pest::iterators::{Pair, Pairs};

#[derive(pest_derive::Parser)]
#[grammar = "dockerfile.pest"]
struct Grammar;

/// How deeply JSON may be nested to be taken for JSON.
const JSON_DEPTH: usize = 64;

/// Keyword and flags of a line.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) keyword: Range<usize>,
    pub(crate) flags: Vec<RawFlag>,
    /// Where the arguments start; blanks are skipped.
    pub(crate) arguments: usize,
}

/// A flag as written.
#[derive(Debug)]
pub(crate) struct RawFlag {
    pub(crate) whole: Range<usize>,
    /// Without the dashes.
    pub(crate) name: Range<usize>,
    /// After the `=`, if there is one.
    pub(crate) value: Option<Range<usize>>,
}

/// A here-document's token.
#[derive(Debug)]
pub(crate) struct HeredocToken {
    pub(crate) whole: Range<usize>,
    pub(crate) fd: u32,
    pub(crate) chomp: bool,
    pub(crate) name: String,
    pub(crate) expand: bool,
}

/// A source of COPY or ADD.
#[derive(Debug)]
pub(crate) enum SourceToken {
    Word(Range<usize>),
    Heredoc(HeredocToken),
}

/// An element of a JSON array.
#[derive(Debug)]
pub(crate) enum JsonElement {
    Text(String, Range<usize>),
    /// Anything else, with the name of its kind.
    Other(&'static str, Range<usize>),
}

fn range(pair: &Pair<'_, Rule>) -> Range<usize> {
    let span = pair.as_span();
    span.start()..span.end()
}

fn parse(rule: Rule, text: &str) -> Option<Pairs<'_, Rule>> {
    // Where the grammar does not match, the caller knows better what to say than the grammar does.
    Some(Grammar::parse(rule, text).ok()?.next()?.into_inner())
}

pub(crate) fn head(line: &str, escape: char) -> Head {
    let rule = if escape == '`' {
        Rule::head_backtick
    } else {
        Rule::head_backslash
    };
    let mut head = Head {
        keyword: 0..0,
        flags: Vec::new(),
        arguments: 0,
    };
    for pair in parse(rule, line).into_iter().flatten() {
        head.arguments = range(&pair).end;
        match pair.as_rule() {
            Rule::keyword => head.keyword = range(&pair),
            Rule::flag_backslash | Rule::flag_backtick => {
                let whole = range(&pair);
                let mut inner = pair.into_inner();
                let name = inner.next().map_or(whole.clone(), |name| range(&name));
                head.flags.push(RawFlag {
                    whole,
                    name,
                    value: inner.next().map(|value| range(&value)),
                });
            }
            _ => {}
        }
    }
    head.arguments = line.len() - line[head.arguments..].trim_start().len();
    head
}

pub(crate) fn quoted_words(text: &str, escape: char) -> Vec<Range<usize>> {
    let rule = if escape == '`' {
        Rule::words_backtick
    } else {
        Rule::words_backslash
    };
    words(rule, text)
}

pub(crate) fn plain_words(text: &str) -> Vec<Range<usize>> {
    words(Rule::plain_words, text)
}

fn words(rule: Rule, text: &str) -> Vec<Range<usize>> {
    parse(rule, text)
        .into_iter()
        .flatten()
        .filter(|pair| pair.as_rule() != Rule::EOI)
        .map(|pair| range(&pair))
        .collect()
}

/// The sources and the destination of COPY or ADD.
pub(crate) fn sources(text: &str) -> Vec<SourceToken> {
    let token = |pair: Pair<'_, Rule>| match pair.as_rule() {
        Rule::plain_word => Some(SourceToken::Word(range(&pair))),
        Rule::file_heredoc => Some(SourceToken::Heredoc(heredoc(pair))),
        _ => None,
    };
    parse(Rule::sources, text)
        .into_iter()
        .flatten()
        .filter_map(token)
        .collect()
}

/// The here-documents of a shell command; none if its quotes do not match.
pub(crate) fn shell_heredocs(text: &str) -> Vec<HeredocToken> {
    let pairs = parse(Rule::shell_line, text).into_iter().flatten();
    pairs
        .filter(|pair| pair.as_rule() == Rule::shell_heredoc)
        .map(heredoc)
        .collect()
}

fn heredoc(pair: Pair<'_, Rule>) -> HeredocToken {
    let mut token = HeredocToken {
        whole: range(&pair),
        fd: 0,
        chomp: false,
        name: String::new(),
        expand: true,
    };
    for part in pair.into_inner() {
        match part.as_rule() {
            Rule::heredoc_fd => token.fd = part.as_str().parse().unwrap_or(0),
            Rule::heredoc_chomp => token.chomp = true,
            _ => (token.name, token.expand) = unquote(part.as_str()),
        }
    }
    token
}

/// A delimiter without its quotes, and whether it had none.
fn unquote(text: &str) -> (String, bool) {
    let mut name = String::with_capacity(text.len());
    let mut quote = None;
    let mut bare = true;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\'' | '"', None) => {
                quote = Some(character);
                bare = false;
            }
            (_, Some(open)) if open == character => quote = None,
            ('\\', None) => name.extend(characters.next()),
            ('\\', Some('"')) => match characters.next() {
                Some(escaped @ ('"' | '$' | '\\')) => name.push(escaped),
                Some(other) => name.extend(['\\', other]),
                None => {}
            },
            _ => name.push(character),
        }
    }
    (name, bare)
}

/// The elements of a JSON array that is the whole text.
pub(crate) fn json_array(text: &str) -> Option<Vec<JsonElement>> {
    if !text.starts_with('[') || json_depth(text) > JSON_DEPTH {
        return None;
    }
    let elements = parse(Rule::json_array, text)?.filter_map(|pair| {
        let kind = match pair.as_rule() {
            Rule::json_string => return Some(JsonElement::Text(json_text(pair.as_str()), range(&pair))),
            Rule::json_number => "a number",
            Rule::json_literal if pair.as_str() == "null" => "null",
            Rule::json_literal => "a boolean",
            Rule::json_list => "an array",
            Rule::json_object => "an object",
            _ => return None,
        };
        Some(JsonElement::Other(kind, range(&pair)))
    });
    Some(elements.collect())
}

fn json_depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => depth += 1,
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// The value of a JSON string with its quotes. Lone surrogates become replacement characters.
fn json_text(text: &str) -> String {
    let inner = text.get(1..text.len() - 1).unwrap_or_default();
    let mut value = String::with_capacity(inner.len());
    let mut units: Vec<u16> = Vec::new();
    let mut rest = inner;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        let mut decoded = character;
        if character == '\\' {
            let escape = rest.chars().next().unwrap_or('\\');
            rest = rest.get(escape.len_utf8()..).unwrap_or_default();
            decoded = match escape {
                'b' => '\u{08}',
                'f' => '\u{0C}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    let (hex, after) = rest.split_at_checked(4).unwrap_or((rest, ""));
                    units.push(u16::from_str_radix(hex, 16).unwrap_or(0xFFFD));
                    rest = after;
                    continue;
                }
                other => other,
            };
        }
        flush(&mut value, &mut units);
        value.push(decoded);
    }
    flush(&mut value, &mut units);
    value
}

fn flush(value: &mut String, units: &mut Vec<u16>) {
    value.extend(char::decode_utf16(units.drain(..)).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)));
}

/// One option between commas: its text and where it stands, quotes included.
pub(crate) fn options(text: &str) -> Option<Vec<(String, Range<usize>)>> {
    let option = |pair: Pair<'_, Rule>| {
        let inner = pair.into_inner().next()?;
        let text = match inner.as_rule() {
            Rule::option_quoted => inner.as_str()[1..inner.as_str().len() - 1].replace("\"\"", "\""),
            _ => inner.as_str().to_owned(),
        };
        Some((text, range(&inner)))
    };
    let pairs = parse(Rule::options, text)?;
    pairs
        .filter(|pair| pair.as_rule() == Rule::option)
        .map(option)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_end_where_arguments_start() {
        for (line, escape, flags, arguments) in [
            (
                "RUN --mount=type=bind,target=/x  ls -l",
                '\\',
                vec!["mount=type=bind,target=/x"],
                "ls -l",
            ),
            (
                "COPY --from='a b' --link c d",
                '\\',
                vec!["from='a b'", "link"],
                "c d",
            ),
            ("COPY --a=\"x y\"z c d", '\\', vec!["a=\"x y\"z"], "c d"),
            ("COPY --a=x\\ y c", '\\', vec!["a=x\\ y"], "c"),
            ("COPY --a=x` y c", '`', vec!["a=x` y"], "c"),
            ("RUN -- --not", '\\', vec![], "--not"),
            ("RUN --", '\\', vec![], ""),
            ("RUN", '\\', vec![], ""),
            ("RUN --=x", '\\', vec!["=x"], ""),
        ] {
            let head = head(line, escape);
            let found: Vec<&str> = head
                .flags
                .iter()
                .map(|flag| &line[flag.name.start..flag.whole.end])
                .collect();
            assert_eq!((found, &line[head.arguments..]), (flags, arguments), "{line}");
        }
    }

    #[test]
    fn heredoc_tokens() {
        for (text, expected) in [
            ("<<EOF", vec![("EOF", 0, false, true)]),
            (
                "cat <<-'E F' 3<<\"B\" > x",
                vec![("E F", 0, true, false), ("B", 3, false, false)],
            ),
            ("cat << EOF", vec![("EOF", 0, false, true)]),
            ("cat <<EOF; echo", vec![("EOF", 0, false, true)]),
            ("(cat <<EOF)", vec![("EOF", 0, false, true)]),
            ("cat <<<word", vec![]),
            ("echo \"<<EOF\" '<<EOF' \\<<EOF", vec![]),
            ("echo $((1 << 2)) <<X", vec![("X", 0, false, true)]),
            ("echo it's <<EOF", vec![]),
            ("echo <<", vec![]),
            ("<<E'O'F", vec![("EOF", 0, false, false)]),
            ("<<\\EOF", vec![("EOF", 0, false, true)]),
        ] {
            let tokens = shell_heredocs(text);
            let found: Vec<_> = tokens
                .iter()
                .map(|token| (token.name.as_str(), token.fd, token.chomp, token.expand))
                .collect();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn json_strings() {
        let texts = |text| {
            json_array(text).map(|elements| {
                elements
                    .into_iter()
                    .map(|element| match element {
                        JsonElement::Text(text, _) => text,
                        JsonElement::Other(kind, _) => kind.to_uppercase(),
                    })
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(
            texts(r#"[ "a" , "b\n\"\\\u00e9\ud83d\ude00\ud800x" ] "#).unwrap(),
            ["a", "b\n\"\\é😀\u{FFFD}x"]
        );
        assert_eq!(texts("[]").unwrap(), Vec::<String>::new());
        assert_eq!(texts(r#"[1, true, null, ["x"], {"a": [1]}]"#).unwrap().len(), 5);
        for text in [
            "['a']",
            r#"["a"] b"#,
            r#"["a",]"#,
            r#"["\x"]"#,
            "[",
            "\"a\"",
            "[01]",
            "[\"\u{1}\"]",
        ] {
            assert_eq!(texts(text), None, "{text}");
        }
        assert_eq!(
            texts(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))),
            None
        );
    }

    #[test]
    fn comma_separated_options() {
        let texts = |text| options(text).map(|all| all.into_iter().map(|(text, _)| text).collect::<Vec<_>>());
        assert_eq!(texts("a=b,c").unwrap(), ["a=b", "c"]);
        assert_eq!(texts("\"a=b,c\",\"d\"\"e\"").unwrap(), ["a=b,c", "d\"e"]);
        assert_eq!(texts("a\"b"), None);
    }
}
