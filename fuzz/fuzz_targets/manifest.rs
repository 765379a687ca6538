//! Manifests, indexes and image configurations from arbitrary bytes.
#![no_main]

use kiln_image::{ImageConfig, ManifestOrIndex, Platform, parse_manifest};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(ManifestOrIndex::Index(index)) = parse_manifest(data, None) {
        let _ = index.select(&Platform::host());
    }
    if let Ok(config) = ImageConfig::parse(data) {
        let again = ImageConfig::parse(&config.to_bytes()).expect("what was written is read");
        assert_eq!(again, config);
    }
});
