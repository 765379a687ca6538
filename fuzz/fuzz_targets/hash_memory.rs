//! File-hash memories: bare bytes, and bytes followed by a right checksum.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = kiln_cache::hashes::parse(bytes.to_vec());
    let mut sealed = bytes.to_vec();
    sealed.extend_from_slice(blake3::hash(bytes).as_bytes());
    let _ = kiln_cache::hashes::parse(sealed);
});
