//! Any bytes are an ignore file, and any bytes are a path: walking down to it and asking for it agree.
//!
//! The path stands behind the last NUL byte.
#![no_main]

use kiln_parser::ignore::IgnoreFile;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let at = input.iter().rposition(|&byte| byte == 0).unwrap_or(input.len());
    let (bytes, path) = (&input[..at], input.get(at + 1..).unwrap_or_default());
    // What a walk meets: no longer than the kernel allows, and without empty components.
    if path.len() > 4095
        || path
            .split(|&byte| byte == b'/')
            .any(|name| matches!(name, b"" | b"." | b".."))
    {
        return;
    }
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
    assert!(!pruned || verdict.excluded);
});
