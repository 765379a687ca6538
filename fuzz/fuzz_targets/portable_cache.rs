//! A cache from a registry: the document beside a manifest that has some of its blobs, and the inline form.
#![no_main]

use kiln_cache::portable::{self, PortableCache};
use kiln_image::{Descriptor, Digest, Manifest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // The manifest comes first, up to a NUL; without one, a manifest of the blobs that the seeds name.
    let (manifest, document) = match bytes.iter().position(|byte| *byte == 0) {
        Some(at) => (serde_json::from_slice::<Manifest>(&bytes[..at]).ok(), &bytes[at + 1..]),
        None => (None, bytes),
    };
    let manifest = manifest.unwrap_or_else(|| {
        let blobs = [b"a" as &[u8], b"b"].map(|blob| Descriptor::of("application/x", blob));
        Manifest::new(Descriptor::of(portable::MEDIA_TYPE, document), blobs.to_vec())
    });
    if let Ok(mut cache) = PortableCache::parse(&manifest, document) {
        cache.bound(20_000);
        let encoded = cache.encode().unwrap();
        let manifest: Manifest = serde_json::from_slice(&encoded.manifest).unwrap();
        let again = PortableCache::parse(&manifest, &encoded.document).unwrap();
        assert_eq!(again, cache);
        let mut merged = cache.clone();
        merged.merge(&cache);
        assert_eq!(merged, cache);
    }
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(document) {
        let blobs = [Descriptor::of("application/x", b"a")];
        let _ = portable::parse_inline(&value, &blobs, &[Digest::sha256_of(b"a tar")]);
    }
});
