//! Layers from arbitrary bytes, unpacked into a directory of their own.
#![no_main]

use kiln_image::layer::{self, UnpackOptions};
use kiln_tree::Root;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let path = std::env::temp_dir().join(format!("kiln-fuzz-layer-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir(&path).expect("make a directory");
    let root = Root::open(&path).expect("open it");
    if let Ok(unpacked) = layer::unpack(data, &root, &UnpackOptions::default()) {
        // What was taken must be told exactly: packing reads every file and compares. Only device nodes may be missing.
        if unpacked.refused == layer::Refused::default() {
            layer::diff_id(&unpacked.listing, &root).expect("what was unpacked can be packed");
        }
    }
    let _ = std::fs::remove_dir_all(&path);
});
