//! Any bytes are an ignore file, and any bytes are a path: walking down to it and asking for it agree.
#![no_main]

use kiln_parser::ignore::IgnoreFile;

libfuzzer_sys::fuzz_target!(|input: (&[u8], &[u8])| {
    let (bytes, path) = input;
    let Ok(file) = IgnoreFile::parse(bytes, ".dockerignore") else {
        return;
    };
    let mut state = file.root();
    let mut pruned = false;
    for (at, byte) in path.iter().enumerate() {
        if *byte == b'/' {
            let directory = &path[..at];
            pruned |= file.verdict(&state, directory).excluded && !file.could_reinclude(&state, directory);
            state = file.enter(&state, directory);
        }
    }
    let verdict = file.verdict(&state, path);
    assert_eq!(verdict, file.matches(path));
    assert!(!pruned || verdict.excluded || path.ends_with(b"/"));
});
