//! Cache records, images, names, and variants of layers: bare bytes, and bytes in an envelope whose checksum is right.
#![no_main]

use kiln_cache::{images, records, seal_for_tests, variants};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok((record, stamp)) = records::parse(bytes) {
        let again = records::encode(&record, &stamp).unwrap();
        assert_eq!(records::parse(&again).unwrap(), (record, stamp));
    }
    let sealed = |kind: &str| seal_for_tests(kind, 1, bytes);
    if let Ok((record, stamp)) = records::parse(&sealed("record")) {
        let again = records::encode(&record, &stamp).unwrap();
        assert_eq!(records::parse(&again).unwrap(), (record, stamp));
    }
    for bytes in [bytes, &sealed("variant")] {
        if let Ok(variant) = variants::parse(bytes) {
            let again = variants::encode(&variant).unwrap();
            assert_eq!(variants::parse(&again).unwrap(), variant);
        }
    }
    let _ = images::parse(bytes);
    let _ = images::parse_index(&sealed("image-index"));
    let _ = images::parse(&sealed("image"));
    let _ = images::parse_name(&sealed("name"), "x");
});
