//! Journals of the index: bare bytes, and one frame whose checksum is right.
#![no_main]

use kiln_cache::index::journal;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    journal::parse(bytes);
    let mut framed = journal::header();
    framed.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    framed.extend_from_slice(&blake3::hash(bytes).as_bytes()[..8]);
    framed.extend_from_slice(bytes);
    for entry in journal::parse(&framed) {
        let mut again = journal::header();
        journal::encode(&entry, &mut again);
        assert_eq!(journal::parse(&again), [entry]);
    }
});
