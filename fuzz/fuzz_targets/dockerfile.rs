//! Any bytes are a Dockerfile: they parse to a tree and diagnostics, and both can be shown.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let parsed = kiln_parser::parse(bytes);
    for statement in &parsed.dockerfile.instructions {
        assert!(statement.span.start <= statement.span.end && statement.span.end <= bytes.len());
    }
    for diagnostic in parsed.diagnostics.iter().take(10) {
        kiln_parser::render(diagnostic, bytes, "Dockerfile");
    }
});
