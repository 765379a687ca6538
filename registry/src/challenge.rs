//! Parser of `WWW-Authenticate` (RFC 9110 section 11.6.1): several challenges in one or more headers.
//!
//! The header is foreign: nothing here panics, and what cannot be read is skipped up to the next
//! challenge that can.

/// One challenge: a scheme with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// Scheme in lower case: `bearer`, `basic`.
    pub scheme: String,
    /// Parameters, names in lower case, in order.
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The first parameter of that (lower case) name.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// All challenges of one header value, in order.
pub fn parse_challenges(header: &str) -> Vec<Challenge> {
    let mut scanner = Scanner { text: header, at: 0 };
    let mut challenges: Vec<Challenge> = Vec::new();
    loop {
        scanner.skip_separators();
        let Some(word) = scanner.token() else {
            if scanner.skip_one() {
                continue;
            }
            return challenges;
        };
        let word = word.to_ascii_lowercase();
        let before_space = scanner.at;
        scanner.skip_blanks();
        if scanner.eat('=') && !scanner.is_token68_padding() {
            // `name = value`: belongs to the challenge before it.
            scanner.skip_blanks();
            let value = scanner.value();
            if let Some(challenge) = challenges.last_mut() {
                challenge.parameters.push((word, value));
            }
            continue;
        }
        scanner.at = before_space;
        challenges.push(Challenge {
            scheme: word,
            parameters: Vec::new(),
        });
        scanner.skip_token68();
    }
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_while(&mut self, accept: impl Fn(char) -> bool) {
        let rest = self.rest();
        self.at += rest.find(|c| !accept(c)).unwrap_or(rest.len());
    }

    fn skip_blanks(&mut self) {
        self.skip_while(|c| c == ' ' || c == '\t');
    }

    fn skip_separators(&mut self) {
        self.skip_while(|c| matches!(c, ' ' | '\t' | ','));
    }

    /// Steps over one unreadable character; false at the end.
    fn skip_one(&mut self) -> bool {
        match self.rest().chars().next() {
            Some(c) => {
                self.at += c.len_utf8();
                true
            }
            None => false,
        }
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.rest().starts_with(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn token(&mut self) -> Option<&'a str> {
        let start = self.at;
        self.skip_while(is_token);
        (self.at > start).then(|| &self.text[start..self.at])
    }

    /// After `word=`: whether this was the padding of a token68 (`abc==`) and no parameter.
    fn is_token68_padding(&self) -> bool {
        let rest = self
            .rest()
            .trim_start_matches('=')
            .trim_start_matches([' ', '\t']);
        self.rest().starts_with('=') || rest.is_empty() || rest.starts_with(',')
    }

    /// `Negotiate YWJj==`: opaque data right behind a scheme. It is of no use here.
    fn skip_token68(&mut self) {
        let before = self.at;
        self.skip_blanks();
        let start = self.at;
        self.skip_while(|c| c.is_ascii_alphanumeric() || "-._~+/".contains(c));
        let has_body = self.at > start;
        self.skip_while(|c| c == '=');
        let end = self.at;
        self.skip_blanks();
        let ends = self.rest().is_empty() || self.rest().starts_with(',');
        // Without a comma or the end behind it, it was the name of a parameter.
        self.at = if has_body && ends { end } else { before };
    }

    fn value(&mut self) -> String {
        if !self.eat('"') {
            // Lenient: everything up to the next comma or blank, as some servers leave out the quotes.
            let start = self.at;
            self.skip_while(|c| !matches!(c, ',' | ' ' | '\t'));
            return self.text[start..self.at].to_owned();
        }
        let mut value = String::new();
        let mut escaped = false;
        for c in self.rest().chars() {
            self.at += c.len_utf8();
            match c {
                _ if escaped => {
                    value.push(c);
                    escaped = false;
                }
                '\\' => escaped = true,
                '"' => break,
                c => value.push(c),
            }
        }
        value
    }
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn challenge(scheme: &str, parameters: &[(&str, &str)]) -> Challenge {
        Challenge {
            scheme: scheme.to_owned(),
            parameters: parameters
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn table() {
        let cases: &[(&str, Vec<Challenge>)] = &[
            ("", vec![]),
            ("Basic", vec![challenge("basic", &[])]),
            (
                "Basic realm=\"a, b\"",
                vec![challenge("basic", &[("realm", "a, b")])],
            ),
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/python:pull""#,
                vec![challenge(
                    "bearer",
                    &[
                        ("realm", "https://auth.docker.io/token"),
                        ("service", "registry.docker.io"),
                        ("scope", "repository:library/python:pull"),
                    ],
                )],
            ),
            (
                r#"Negotiate, Basic realm="x", Bearer realm="https://a/t" , service=plain"#,
                vec![
                    challenge("negotiate", &[]),
                    challenge("basic", &[("realm", "x")]),
                    challenge("bearer", &[("realm", "https://a/t"), ("service", "plain")]),
                ],
            ),
            (
                "Negotiate YWJj==, BEARER Realm = \"r\"",
                vec![
                    challenge("negotiate", &[]),
                    challenge("bearer", &[("realm", "r")]),
                ],
            ),
            (
                r#"Basic realm="a\"b\\c""#,
                vec![challenge("basic", &[("realm", "a\"b\\c")])],
            ),
            (
                r#"Basic realm="never closed"#,
                vec![challenge("basic", &[("realm", "never closed")])],
            ),
            (
                r#"Bearer realm="r",error="invalid_token""#,
                vec![challenge("bearer", &[("realm", "r"), ("error", "invalid_token")])],
            ),
            ("realm=\"orphan\"", vec![]),
            ("Bearer scope=\"\"", vec![challenge("bearer", &[("scope", "")])]),
        ];
        for (header, want) in cases {
            assert_eq!(&parse_challenges(header), want, "{header}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_ends(header in "\\PC*") {
            let _ = parse_challenges(&header);
        }

        #[test]
        fn never_panics_on_header_like_text(header in "[A-Za-z=\", \\\\\t:/.-]{0,200}") {
            let _ = parse_challenges(&header);
        }

        #[test]
        fn round_trips(
            challenges in prop::collection::vec(
                ("[a-z]{1,10}", prop::collection::vec(("[a-z_]{1,8}", "[ -~]{0,30}"), 1..4)), 1..4)
        ) {
            let text = challenges.iter().map(|(scheme, parameters)| {
                let parameters: Vec<String> = parameters.iter()
                    .map(|(k, v)| format!("{k}=\"{}\"", v.replace('\\', "\\\\").replace('"', "\\\"")))
                    .collect();
                format!("{scheme} {}", parameters.join(", "))
            }).collect::<Vec<_>>().join(", ");
            let want: Vec<Challenge> = challenges.into_iter()
                .map(|(scheme, parameters)| Challenge { scheme, parameters })
                .collect();
            prop_assert_eq!(parse_challenges(&text), want);
        }
    }
}
