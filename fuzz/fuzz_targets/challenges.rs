//! `WWW-Authenticate` headers from arbitrary text.
#![no_main]

use kiln_registry::{Challenge, parse_challenges};

/// A challenge as it should be written.
fn written(challenge: &Challenge) -> String {
    let parameters: Vec<String> = challenge
        .parameters
        .iter()
        .map(|(name, value)| format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")))
        .collect();
    format!("{} {}", challenge.scheme, parameters.join(", "))
}

libfuzzer_sys::fuzz_target!(|header: &str| {
    let challenges = parse_challenges(header);
    let size: usize = challenges.iter().map(|challenge| written(challenge).len()).sum();
    // Quotes, escapes and separators at most: nothing is invented.
    assert!(size <= 8 * header.len());
    let again: Vec<String> = challenges.iter().map(written).collect();
    assert_eq!(parse_challenges(&again.join(", ")), challenges);
});
