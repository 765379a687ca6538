//! Listings of layers: bare bytes, and the part that the checksum covers.
#![no_main]

use kiln_tree::Listing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = Listing::from_bytes(bytes);
    if let Ok(listing) = Listing::from_payload(bytes) {
        let mut written = Vec::new();
        listing.write_to(&mut written).unwrap();
        assert_eq!(Listing::from_bytes(&written).unwrap(), listing);
        let _ = listing.content_hash();
        let _ = Listing::merge(&listing, &listing);
    }
});
