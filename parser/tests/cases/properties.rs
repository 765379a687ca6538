//! What must hold for any input.

use kiln_parser::ast::{CommandLine, Instruction, Statement};
use kiln_parser::{Parsed, Span, parse, parse_instruction, render};
use proptest::prelude::*;

/// Places of a tree and its diagnostics.
fn spans(parsed: &Parsed) -> Vec<Span> {
    let mut spans: Vec<Span> = parsed
        .diagnostics
        .iter()
        .map(|diagnostic| diagnostic.span)
        .collect();
    let related = parsed
        .diagnostics
        .iter()
        .flat_map(|diagnostic| &diagnostic.related);
    spans.extend(related.map(|related| related.span));
    for statement in &parsed.dockerfile.instructions {
        spans.extend([statement.span, statement.keyword.span, statement.text.span]);
        match &statement.instruction {
            Instruction::Run(run) => {
                let options = run.mounts.iter().flat_map(|mount| &mount.options);
                spans.extend(options.flat_map(|option| {
                    [Some(option.key.span), option.value.as_ref().map(|word| word.span)]
                        .into_iter()
                        .flatten()
                }));
                spans.extend(
                    run.heredocs
                        .iter()
                        .flat_map(|heredoc| [heredoc.span, heredoc.body.span]),
                );
            }
            Instruction::Env(env) => {
                spans.extend(env.pairs.iter().flat_map(|pair| [pair.key.span, pair.value.span]));
            }
            Instruction::Copy(copy) => spans.push(copy.destination.span),
            Instruction::Expose(expose) => spans.extend(expose.ports.iter().map(|port| port.span)),
            Instruction::Cmd(cmd) => {
                if let CommandLine::Exec(strings) = &cmd.command {
                    spans.extend(strings.iter().map(|string| string.span));
                }
            }
            _ => {}
        }
    }
    spans
}

fn check(source: &[u8]) {
    let parsed = parse(source);
    for span in spans(&parsed) {
        assert!(
            span.start <= span.end && span.end <= source.len(),
            "{span:?} of {}",
            source.len()
        );
    }
    for diagnostic in parsed.diagnostics.iter().take(20) {
        render(diagnostic, source, "Dockerfile");
    }
    assert_eq!(parse(source), parsed, "parsing is a function of the source");
}

/// A statement without its places: its text and its type.
fn shape(statement: &Statement) -> (String, String) {
    (statement.keyword.value.to_string(), statement.text.text.clone())
}

/// Text made of the pieces that mean something.
fn dockerfile() -> impl Strategy<Value = String> {
    let pieces = [
        "FROM a",
        "FROM --platform=$P a AS b",
        "RUN ",
        "COPY ",
        "ADD --chmod=u+x ",
        "ENV a=b",
        "LABEL \"x y\"=z",
        "ARG A=$B",
        "ONBUILD ",
        "HEALTHCHECK --interval=1s CMD x",
        "EXPOSE 80/tcp",
        "VOLUME [\"/a\"]",
        "SHELL [\"a\"]",
        "# escape=`",
        "#",
        "--mount=type=cache,target=/x,",
        "--link ",
        "<<EOF",
        "<<-'E'",
        "EOF",
        "E",
        "\n",
        "\n",
        "\n",
        "\r\n",
        " \\\n",
        "`\n",
        " ",
        "\t",
        "\"",
        "'",
        "\\",
        "`",
        "$",
        "${",
        "}",
        ":-",
        "/",
        "[",
        "]",
        ",",
        "=",
        "{",
        "é",
        "\u{FEFF}",
        "$((",
        "))",
        "<<",
        "<<<",
    ];
    proptest::collection::vec(proptest::sample::select(pieces.to_vec()), 0..40)
        .prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_parsed(bytes: Vec<u8>) {
        check(&bytes);
    }

    #[test]
    fn any_pieces_are_parsed(text in dockerfile()) {
        check(text.as_bytes());
    }

    #[test]
    fn logical_lines_parse_to_themselves(text in dockerfile()) {
        let parsed = parse(&text);
        let escape = parsed.dockerfile.escape();
        for statement in &parsed.dockerfile.instructions {
            let trigger = match &statement.instruction {
                Instruction::Onbuild(onbuild) => &onbuild.statement,
                _ => statement,
            };
            // Bodies are not part of the text.
            if trigger.text.text.contains("<<") || statement.text.text.ends_with(escape) {
                continue;
            }
            let again = parse_instruction(&statement.text.text, escape);
            prop_assert_eq!(again.statement.as_ref().map(shape), Some(shape(statement)), "{:?}", again.diagnostics);
        }
    }

    #[test]
    fn words_expand_or_fail(word in ".{0,40}", pieces in dockerfile()) {
        let lookup = |name: &str| name.len().is_multiple_of(2).then(|| "a*b/c".to_owned());
        for text in [&word, &pieces] {
            for escape in ['\\', '`'] {
                if let Err(error) = kiln_parser::expand::expand(text, &lookup, escape) {
                    prop_assert!(error.range.end <= text.len() && error.range.start <= error.range.end);
                }
                let _ = kiln_parser::expand::expand_words(text, &lookup, escape);
            }
            let _ = kiln_parser::expand::expand_heredoc(text, &lookup);
        }
    }
}

#[test]
fn large_inputs_end() {
    const MEGABYTES: usize = 10 << 20;
    let line = format!("FROM a\nRUN echo {}\n", "x".repeat(MEGABYTES));
    let parsed = parse(&line);
    assert_eq!(
        parsed.dockerfile.instructions[1].text.text.len(),
        MEGABYTES + "RUN echo ".len()
    );

    let many = format!("FROM a\n{}", "RUN true\n".repeat(100_000));
    assert_eq!(parse(&many).dockerfile.instructions.len(), 100_001);

    let continued = format!("FROM a\nRUN x{}\n", " \\\n y".repeat(100_000));
    assert_eq!(parse(&continued).dockerfile.instructions.len(), 2);

    let pairs = format!("FROM a\nENV{}\n", " a=b".repeat(100_000));
    match &parse(&pairs).dockerfile.instructions[1].instruction {
        Instruction::Env(env) => assert_eq!(env.pairs.len(), 100_000),
        other => panic!("{other:?}"),
    }

    let nested = format!("FROM a\nENV a={}{}\n", "${a:-".repeat(10_000), "}".repeat(10_000));
    assert!(parse(&nested).has_errors());

    let json = format!("FROM a\nRUN {}\n", "[".repeat(MEGABYTES));
    assert_eq!(
        parse(&json).dockerfile.instructions.len(),
        2,
        "no JSON, so a shell command"
    );

    let quotes = format!("FROM a\nRUN {} <<EOF\nEOF\n", "\"' ".repeat(100_000));
    assert!(parse(&quotes).dockerfile.instructions.len() >= 2);

    let open = format!("FROM a\n{}", "RUN <<A\n A\n".repeat(20_000));
    assert!(parse(&open).has_errors());

    let wrong = "COPYY --froom=x a b\n".repeat(20_000);
    assert_eq!(
        parse(&wrong)
            .diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.is_error())
            .count(),
        20_000
    );
}
