//! Any text is a word: it expands, or fails inside itself.
#![no_main]

use kiln_parser::expand;

libfuzzer_sys::fuzz_target!(|word: &str| {
    let lookup = |name: &str| (name.len() % 2 == 0).then(|| "a*b/c".repeat(name.len()));
    for escape in ['\\', '`'] {
        if let Err(error) = expand::expand(word, &lookup, escape) {
            assert!(error.range.start <= error.range.end && error.range.end <= word.len());
        }
        let _ = expand::expand_words(word, &lookup, escape);
    }
    let _ = expand::expand_heredoc(word, &lookup);
});
