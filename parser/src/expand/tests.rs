use super::*;

fn environment() -> BTreeMap<String, String> {
    [
        ("PWD", "/home"),
        ("SHELL", "bash"),
        ("KOREAN", "한국어"),
        ("NULL", ""),
        ("SPACED", "a  b"),
        ("P", "/usr/lib/x.tar.gz"),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

fn value(word: &str, escape: char) -> Result<String, ExpandErrorKind> {
    expand(word, &environment(), escape)
        .map(|expansion| expansion.value)
        .map_err(|error| error.kind)
}

/// Word and value; `None` is an error.
const TABLE: &[(&str, Option<&str>)] = &[
    ("", Some("")),
    ("hello", Some("hello")),
    ("he'll'o", Some("hello")),
    ("he'llo", None),
    (r"he\'llo", Some("he'llo")),
    (r"he\\'llo", None),
    (r"abc\tdef", Some("abctdef")),
    (r#""abc\tdef""#, Some(r"abc\tdef")),
    (r#""abc\\tdef""#, Some(r"abc\tdef")),
    (r"'abc\\tdef'", Some(r"abc\\tdef")),
    (r"hello\", Some("hello")),
    (r"hello\\", Some(r"hello\")),
    (r#""hello"#, None),
    (r#""hello\""#, None),
    (r#""hel'lo""#, Some("hel'lo")),
    (r"'hello\'", Some(r"hello\")),
    ("\"''\"", Some("''")),
    ("$.", Some("$.")),
    ("$", Some("$")),
    ("he$1x", Some("hex")),
    ("he$PWD.", Some("he/home.")),
    (r"he\$PWD", Some("he$PWD")),
    (r"he\\$PWD", Some(r"he\/home")),
    (r#""he\\$PWD""#, Some(r"he\/home")),
    (r"\${}", Some("${}")),
    ("${}", None),
    ("${:}", None),
    ("${{aaa}", None),
    ("${aaa}}", Some("}")),
    ("${", None),
    ("${PWD", None),
    ("${PWD:", None),
    ("${PWD:-", None),
    ("he${.}", None),
    ("${PWD:=x}", None),
    ("${PWD:#x}", None),
    ("${PWD:%x}", None),
    ("${XXX:YYY}", None),
    ("he${XXX:-$PWD}xx", Some("he/homexx")),
    ("he${XXX:-${YYY:-yyy}}xx", Some("heyyyxx")),
    ("he${PWD:+${PWD}:}xx", Some("he/home:xx")),
    (r"he${XXX:-\$PWD:}xx", Some("he$PWD:xx")),
    (r"he${XXX:-\${PWD}z}xx", Some("he${PWDz}xx")),
    ("'he${XX}'", Some("he${XX}")),
    ("\"he'$PWD'\"", Some("he'/home'")),
    ("안녕$KOREAN", Some("안녕한국어")),
    ("${aaa:-bbb {foo}", Some("bbb {foo")),
    ("$999aaa", Some("aaa")),
    ("${999:-bbb}aaa", Some("bbbaaa")),
    ("$@@@", Some("@@")),
    ("${-:-bbb}", Some("bbb")),
    ("$$x", Some("x")),
    // Unset words are not evaluated where they are not needed.
    ("${PWD:-${XXX:?}}", Some("/home")),
    ("${P#*/}", Some("usr/lib/x.tar.gz")),
    ("${P##*/}", Some("x.tar.gz")),
    ("${P%.*}", Some("/usr/lib/x.tar")),
    ("${P%%.*}", Some("/usr/lib/x")),
    ("${P#/usr}", Some("/lib/x.tar.gz")),
    ("${P#usr}", Some("/usr/lib/x.tar.gz")),
    ("${P%?gz}", Some("/usr/lib/x.tar")),
    ("${P##*}", Some("")),
    ("${P#*}", Some("/usr/lib/x.tar.gz")),
    (r"${P#\*}", Some("/usr/lib/x.tar.gz")),
    (r"${P#\x}", None),
    ("${P#[/]}", Some("/usr/lib/x.tar.gz")),
    ("${XXX#a}", Some("")),
    (r"${P/\//-}", Some("-usr/lib/x.tar.gz")),
    (r"${P//\//-}", Some("-usr-lib-x.tar.gz")),
    (r"${P//\//\/}", Some(r"\/usr\/lib\/x.tar.gz")),
    ("${P/lib*tar/L}", Some("/usr/L.gz")),
    ("${P//?/.}", Some(".................")),
    ("${P/nothing/x}", Some("/usr/lib/x.tar.gz")),
    ("${NULL/*/x}", Some("x")),
    ("${SHELL//*/x}", Some("x")),
    ("${SHELL///.}", Some(".b.a.s.h.")),
    ("${P//ww}", None),
    ("${P//}", None),
    ("${P///}", Some("/usr/lib/x.tar.gz")),
    (r"${P/r\}/x}", Some("/usr/lib/x.tar.gz")),
];

#[test]
fn table_of_words() {
    for (word, expected) in TABLE {
        assert_eq!(value(word, '\\').ok().as_deref(), *expected, "{word}");
    }
}

#[test]
fn conditions_for_set_empty_and_unset() {
    // Operator; value when set to `v`, when set but empty, when unset.
    let table = [
        ("-", Some("v"), Some(""), Some("w")),
        (":-", Some("v"), Some("w"), Some("w")),
        ("+", Some("w"), Some("w"), Some("")),
        (":+", Some("w"), Some(""), Some("")),
        ("?", Some("v"), Some(""), None),
        (":?", Some("v"), None, None),
    ];
    for (operator, set, empty, unset) in table {
        for (state, expected) in [(Some("v"), set), (Some(""), empty), (None, unset)] {
            let lookup = |name: &str| state.filter(|_| name == "x").map(str::to_owned);
            for (open, close) in [("", ""), ("\"", "\"")] {
                let word = format!("{open}${{x{operator}w}}{close}");
                let result = expand(&word, &lookup, '\\').ok().map(|expansion| expansion.value);
                assert_eq!(result.as_deref(), expected, "{word} with {state:?}");
                let quoted = expand(&format!("'{word}'"), &lookup, '\\').unwrap().value;
                assert_eq!(quoted, word, "single quotes keep everything");
            }
        }
    }
}

#[test]
fn required_variables_say_why() {
    for (word, message) in [
        ("${XXX?}", "XXX: is not allowed to be unset"),
        ("${NULL:?}", "NULL: is not allowed to be empty"),
        ("${XXX:?set $SHELL}", "XXX: set bash"),
    ] {
        assert_eq!(
            expand(word, &environment(), '\\').unwrap_err().to_string(),
            message
        );
    }
}

#[test]
fn backtick_as_escape() {
    for (word, expected) in [
        (r"C:\dir", r"C:\dir"),
        ("`$PWD", "$PWD"),
        ("\"a`\"b`$c``d`e\"", "a\"b$c`d`e"),
        (r"${P#\}", "/usr/lib/x.tar.gz"),
        ("${P#/`*}", "/usr/lib/x.tar.gz"),
    ] {
        assert_eq!(value(word, '`').unwrap(), expected, "{word}");
    }
}

#[test]
fn heredoc_bodies_keep_quotes_and_backslash_escapes() {
    let body = "a \"$SHELL\" '$SHELL' \\$SHELL `x` it's\n";
    let expanded = expand_heredoc(body, &environment()).unwrap().value;
    assert_eq!(expanded, "a \"bash\" 'bash' $SHELL `x` it's\n");
}

#[test]
fn names_are_reported() {
    let expansion = expand("$PWD ${XXX} ${YYY:-$ZZZ} ${SHELL:-$QQQ}", &environment(), '\\').unwrap();
    assert_eq!(expansion.used.into_iter().collect::<Vec<_>>(), ["PWD", "SHELL"]);
    assert_eq!(
        expansion.undefined.into_iter().collect::<Vec<_>>(),
        ["XXX", "ZZZ"]
    );
    assert_eq!(
        variables("${A:-$B}$A${C/$D/$E}", '\\').unwrap(),
        ["A", "B", "C", "D", "E"]
    );
    assert!(has_variables("a$b", '\\'));
    assert!(!has_variables(r"a\$b '$c' $", '\\'));
}

#[test]
fn splitting_respects_quotes() {
    for (word, expected) in [
        ("$SPACED", vec!["a", "b"]),
        ("\"$SPACED\"", vec!["a  b"]),
        ("x$SPACED'y z'", vec!["xa", "by z"]),
        (r"a\ b  c", vec!["a b", "c"]),
        ("$NULL", vec![]),
        ("${XXX:-80 443}", vec!["80", "443"]),
    ] {
        assert_eq!(
            expand_words(word, &environment(), '\\').unwrap().words,
            expected,
            "{word}"
        );
    }
}

#[test]
fn errors_point_into_the_word() {
    let error = expand("ab${x} ${y", &environment(), '\\').unwrap_err();
    assert_eq!(error.range, 7..10);
    let error = expand("ab'cd", &environment(), '\\').unwrap_err();
    assert_eq!(error.range, 2..5);
}

#[test]
fn hostile_words_end() {
    let deep = format!("{}{}", "${a:-".repeat(10_000), "}".repeat(10_000));
    assert_eq!(value(&deep, '\\'), Err(ExpandErrorKind::TooDeep));
    let fits = format!(
        "{}x{}",
        "${a:-".repeat(syntax::MAX_DEPTH),
        "}".repeat(syntax::MAX_DEPTH)
    );
    assert_eq!(value(&fits, '\\').unwrap(), "x");

    let big = |_: &str| Some("x".repeat(1 << 20));
    let error = expand(&"$a".repeat(100), &big, '\\').unwrap_err();
    assert_eq!(error.kind, ExpandErrorKind::TooLong);

    // Words have no total length, and what patterns throw away was made too: both are counted.
    let error = expand_words(&"$a ".repeat(300), &big, '\\').unwrap_err();
    assert_eq!(error.kind, ExpandErrorKind::TooLong);
    let error = expand(&"${a##*}".repeat(300), &big, '\\').unwrap_err();
    assert_eq!(error.kind, ExpandErrorKind::TooLong);
    let error = expand("${a#$a$a}", &big, '\\').unwrap_err();
    assert_eq!(error.kind, ExpandErrorKind::TooExpensive);

    let many = |name: &str| {
        Some(if name == "v" {
            "a".repeat(1 << 17)
        } else {
            format!("*{}b", "?".repeat(1 << 16))
        })
    };
    let error = expand("${v#$p}", &many, '\\').unwrap_err();
    assert_eq!(error.kind, ExpandErrorKind::TooExpensive);
}
