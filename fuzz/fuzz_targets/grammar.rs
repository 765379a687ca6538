//! A Dockerfile in the shape of the language: instructions with flags, continuations, here-documents and expansions go
//! through the parser, the checks and the lowering, on images that all exist. The run's `-timeout` finds what takes time
//! out of proportion to its input.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use kiln_frontend::{
    ImageResolver, LowerOptions, RemoteFailure, RemoteResolver, ResolveError, ResolvedImage, lower,
};
use kiln_image::{Digest, ImageConfig, Platform, Reference};
use kiln_remote::git::GitAddress;
use kiln_solver::graph::{GitSource, HttpSource, ImageSource, SourceSpan};

/// How an instruction begins: its keyword and words that fit it.
const STARTS: &[&str] = &[
    "FROM scratch", "FROM busybox", "FROM a", "FROM --platform=$BUILDPLATFORM b", "ARG", "ENV", "LABEL", "RUN",
    "COPY", "ADD", "CMD", "ENTRYPOINT", "EXPOSE", "VOLUME", "USER", "WORKDIR", "STOPSIGNAL", "SHELL", "HEALTHCHECK",
    "HEALTHCHECK CMD", "HEALTHCHECK NONE", "MAINTAINER", "ONBUILD", "ONBUILD RUN", "ONBUILD COPY", "ONBUILD ONBUILD",
    "# escape=`", "# syntax=x", "# check=skip=all", "# a comment", "copy", "fRoM",
];

/// Words with a meaning of their own.
const WORDS: &[&str] = &[
    "--from=a", "--from=0", "--from=busybox", "--chown=1:2", "--chown=$A", "--chmod=755", "--chmod=u+x", "--link",
    "--parents", "--exclude=*.o", "--unpack=false", "--checksum=sha256:0", "--network=none", "--security=insecure",
    "--mount=type=cache,target=/c", "--mount=type=bind,from=a,target=/b", "--mount=type=secret,id=s,env=S",
    "--mount=type=tmpfs,target=/t,size=1m", "--interval=1s", "--retries=3", "--platform=linux/arm64", "AS", "a", "b",
    "A=1", "A=$A", "B=${A:-$B}", "C=${A#*}", "D=${A//a/$B}", "E=${A:?no}", "[\"x\", \"y\"]", "['x']", "[1]", "80",
    "1-65535/udp", "/", "/x/", ".", "..", "*", "**/f", "[a-", "<<E", "<<-'E'", "3<<\"F\"", "<<<x", "&&", "|", ">",
    "$A", "${A}", "${", "$", "'", "\"", "\\", "`", "SIGTERM", "NONE", "CMD", "#", "http://h/f", "https://h/r.git#m:d",
];

/// What stands between two words.
const GAPS: &[&str] = &[" ", " ", " ", "\t", " \\\n", " `\n", " \\\n# c\n", " \\\n\n", "", "\r"];

/// What ends a line; some end here-documents.
const ENDS: &[&str] = &["\n", "\n", "\n", "\r\n", "\nE\n", "\nbody $A\nE\n", "\n\tx\n\tE\n", "\nF\n", "\n#!/bin/sh\nE\n"];

/// A piece of an instruction.
#[derive(Debug, Arbitrary)]
enum Word<'a> {
    Known(u8),
    Nested(u8),
    Repeated(u8, u8),
    Text(&'a str),
}

/// An instruction.
#[derive(Debug, Arbitrary)]
struct Line<'a> {
    start: u8,
    words: Vec<(u8, Word<'a>)>,
    end: u8,
}

fn pick<'t>(table: &'t [&'t str], index: u8) -> &'t str {
    table[usize::from(index) % table.len()]
}

fn write(text: &mut String, word: &Word<'_>) {
    match word {
        Word::Known(index) => text.push_str(pick(WORDS, *index)),
        Word::Nested(depth) => {
            let depth = usize::from(*depth);
            text.push_str(&"${A:-".repeat(depth));
            text.push_str(&"}".repeat(depth));
        }
        Word::Repeated(index, times) => text.push_str(&pick(WORDS, *index).repeat(usize::from(*times))),
        Word::Text(other) => text.push_str(other),
    }
}

/// Every image exists, and has triggers if its name begins with `o`; so do all files and repositories.
struct All;

impl ImageResolver for All {
    fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        _span: Option<SourceSpan>,
    ) -> Result<ResolvedImage, ResolveError> {
        let mut config = ImageConfig::default();
        config.config.env = vec!["A=of the image".to_owned()];
        if reference.to_string().contains("/o") {
            config.config.on_build = vec!["COPY --from=a /x /y".to_owned(), "ENV $A=b".to_owned()];
        }
        let source = ImageSource {
            reference: reference.to_string(),
            digest: Digest::sha256_of(b""),
            layers: Vec::new(),
        };
        Ok(ResolvedImage { source, config, platform: platform.clone() })
    }
}

impl RemoteResolver for All {
    fn http(
        &self,
        url: &str,
        checksum: Option<Digest>,
        _name: &str,
        _span: Option<SourceSpan>,
    ) -> Result<HttpSource, RemoteFailure> {
        Ok(HttpSource {
            url: url.to_owned(),
            digest: checksum.unwrap_or_else(|| Digest::sha256_of(b"")),
            name: kiln_remote::http::file_name(url),
            modified: None,
            fresh: false,
        })
    }

    fn git(
        &self,
        address: &GitAddress,
        _name: &str,
        _span: Option<SourceSpan>,
    ) -> Result<GitSource, RemoteFailure> {
        Ok(GitSource {
            remote: address.remote.clone(),
            commit: "0123456789abcdef0123456789abcdef01234567".to_owned(),
            reference: None,
            tag: None,
            subdirectory: address.subdirectory.clone(),
            keep_git_dir: false,
            submodules: true,
            commit_time: false,
        })
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut input = Unstructured::new(bytes);
    let Ok(lines) = Vec::<Line<'_>>::arbitrary(&mut input) else { return };
    let mut text = String::new();
    for line in &lines {
        text.push_str(pick(STARTS, line.start));
        for (gap, word) in &line.words {
            text.push_str(pick(GAPS, *gap));
            write(&mut text, word);
        }
        text.push_str(pick(ENDS, line.end));
    }
    let parsed = kiln_parser::parse(text.as_bytes());
    for diagnostic in parsed.diagnostics.iter().take(10) {
        kiln_parser::render(diagnostic, text.as_bytes(), "Dockerfile");
    }
    if parsed.has_errors() {
        return;
    }
    let mut options = LowerOptions::new(Platform::host());
    options.build_args.insert("A".to_owned(), Some("given".to_owned()));
    match lower(&parsed.dockerfile, &options, &All) {
        // What is lowered without an error has a vertex for the target.
        Ok(lowered) => drop(lowered),
        Err(errors) => {
            assert!(!errors.is_empty(), "a failure without a reason");
            for error in errors.iter().take(10) {
                kiln_parser::render(error, text.as_bytes(), "Dockerfile");
            }
        }
    }
});
