//! Image names and platforms from arbitrary text.
#![no_main]

use kiln_image::{Platform, Reference};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(reference) = Reference::parse(text) {
        for form in [reference.to_string(), reference.familiar()] {
            assert_eq!(Reference::parse(&form).as_ref(), Ok(&reference));
        }
    }
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.normalized(), platform);
    }
});
