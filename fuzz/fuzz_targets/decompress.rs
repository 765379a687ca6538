//! Compressed layers: any bytes give some plain bytes or an error.
#![no_main]

use std::io::{self, Read as _};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(plain) = kiln_image::layer::decompress(data) {
        let _ = io::copy(&mut plain.take(16 << 20), &mut io::sink());
    }
});
