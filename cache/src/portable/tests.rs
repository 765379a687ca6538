use kiln_image::{Descriptor, Digest, Manifest, media_type};
use kiln_tree::ContentHash;
use proptest::prelude::*;

use super::merge::{MAX_AGE_DAYS, REFRESH_DAYS};
use super::*;

fn layer_id(name: &str) -> LayerId {
    LayerId::from_content(&ContentHash::of(name.as_bytes()))
}

fn base() -> LayerId {
    LayerId::from_diff_id(&Digest::sha256_of(b"base"))
}

fn key(name: &str) -> Key {
    Key::of("test", &[crate::KeyPart::new("name", name)])
}

fn layer(name: &str) -> PortableLayer {
    PortableLayer {
        diff_id: Digest::sha256_of(format!("tar of {name}").as_bytes()),
        blob: Descriptor::of(media_type::OCI_LAYER_ZSTD, name.as_bytes()),
        listing: Some(Descriptor::of(
            LISTING_MEDIA_TYPE,
            format!("listing of {name}").as_bytes(),
        )),
        created_ms: 1_700_000_000_000,
        size: 42,
    }
}

fn record(output: &[LayerId], seen: Day) -> PortableRecord {
    PortableRecord {
        kind: RecordKind::Definition,
        output: output.to_vec(),
        step: "RUN make".to_owned(),
        created_ms: 5,
        duration_ms: 7,
        seen,
    }
}

/// A cache of steps on top of each other, each with a layer of its own over the base's.
fn cache(names: &[&str], seen: Day) -> PortableCache {
    let mut cache = PortableCache::default();
    let mut output = vec![base()];
    for name in names {
        output.push(layer_id(name));
        cache.layers.insert(layer_id(name), layer(name));
        cache.records.insert(key(name), record(&output, seen));
    }
    cache
}

fn read(encoded: &Encoded) -> Result<PortableCache, PortableError> {
    let manifest: Manifest = serde_json::from_slice(&encoded.manifest).unwrap();
    PortableCache::parse(&manifest, &encoded.document)
}

#[test]
fn survives_writing_and_reading() {
    let cache = cache(&["a", "b", "c"], 20_000);
    let encoded = cache.encode().unwrap();
    assert_eq!(read(&encoded).unwrap(), cache);
    let manifest: Manifest = serde_json::from_slice(&encoded.manifest).unwrap();
    assert_eq!(manifest.config, Descriptor::of(MEDIA_TYPE, &encoded.document));
    assert_eq!(manifest.layers.len(), 6, "three layers, three listings, no base");
    assert!(kiln_image::parse_manifest(&encoded.manifest, Some(media_type::OCI_MANIFEST)).is_ok());
}

#[test]
fn the_document_stays_as_it_was_in_version_1() {
    let text = String::from_utf8(cache(&["a"], 3).encode().unwrap().document).unwrap();
    let (base, a) = (base(), layer_id("a"));
    let (mut ids, blob) = (vec![base.as_str(), a.as_str()], layer("a"));
    ids.sort_unstable();
    let listed = |id: &&str| {
        if *id == base.as_str() {
            return format!(r#"{{"id":"{id}"}}"#);
        }
        format!(
            r#"{{"id":"{id}","diff_id":"{}","blob":"{}","listing":"{}","created_ms":1700000000000,"size":42}}"#,
            blob.diff_id,
            blob.blob.digest,
            blob.listing.as_ref().unwrap().digest
        )
    };
    let layers: Vec<String> = ids.iter().map(listed).collect();
    let place = |id: &LayerId| ids.iter().position(|other| *other == id.as_str()).unwrap();
    let expected = format!(
        r#"{{"version":1,"layers":[{}],"records":[{{"key":"{}","kind":"definition","output":[{},{}],"step":"RUN make","created_ms":5,"duration_ms":7,"seen":3}}]}}"#,
        layers.join(","),
        key("a"),
        place(&base),
        place(&a)
    );
    assert_eq!(text, expected);
}

#[test]
fn refuses_what_is_not_of_this_form() {
    let encoded = cache(&["a"], 3).encode().unwrap();
    let manifest: Manifest = serde_json::from_slice(&encoded.manifest).unwrap();
    let text = String::from_utf8(encoded.document.clone()).unwrap();
    let changed = |from: &str, to: &str| text.replace(from, to);
    let cases = [
        (text[..text.len() / 2].to_owned(), "truncated"),
        (changed("\"version\":1", "\"version\":2"), "newer"),
        (
            changed("\"output\":[", "\"output\":[9,"),
            "a layer that is not listed",
        ),
        (changed("\"definition\"", "\"other\""), "an unknown kind"),
        (changed("\"id\":\"b3-", "\"id\":\"../"), "an id that is a path"),
        ("{}".to_owned(), "no version"),
        (String::new(), "nothing"),
    ];
    for (text, what) in cases {
        let result = PortableCache::parse(&manifest, text.as_bytes());
        assert!(result.is_err(), "{what}: {result:?}");
    }
}

#[test]
fn a_blob_that_the_manifest_lacks_is_no_layer() {
    let encoded = cache(&["a", "b"], 3).encode().unwrap();
    let mut manifest: Manifest = serde_json::from_slice(&encoded.manifest).unwrap();
    manifest
        .layers
        .retain(|blob| blob.digest != layer("b").blob.digest);
    let read = PortableCache::parse(&manifest, &encoded.document).unwrap();
    assert_eq!(read.layers.keys().collect::<Vec<_>>(), [&layer_id("a")]);
    assert_eq!(
        read.records.len(),
        2,
        "the lookup finds out that a layer is missing"
    );
}

#[test]
fn merging_loses_nothing_and_settles() {
    let (mut one, two) = (cache(&["a", "b"], 100), cache(&["a", "c"], 99));
    one.merge(&two);
    one.bound(100);
    assert!(one.covers(&two) && one.covers(&cache(&["a", "b"], 100)));
    let bytes = one.encode().unwrap();
    // The same export once more, some days later, changes nothing.
    let mut again = cache(&["a", "b"], 100 + REFRESH_DAYS - 2);
    again.merge(&one);
    again.bound(100 + REFRESH_DAYS - 2);
    assert_eq!(again.encode().unwrap().document, bytes.document);
    // Long after, what is still exported stays, and the rest goes.
    let today = 100 + MAX_AGE_DAYS;
    let mut late = cache(&["a", "b"], today);
    late.merge(&one);
    late.bound(today);
    assert_eq!(late.records.keys().count(), 2);
    assert!(!late.layers.contains_key(&layer_id("c")), "its record is gone");
}

#[test]
fn a_new_result_replaces_the_old_one() {
    let mut new = cache(&["a"], 10);
    let mut old = cache(&["a"], 9);
    old.records.get_mut(&key("a")).unwrap().output = vec![layer_id("old")];
    old.layers.insert(layer_id("old"), layer("old"));
    new.merge(&old);
    new.bound(10);
    assert_eq!(new.records[&key("a")].output, [base(), layer_id("a")]);
    assert!(!new.layers.contains_key(&layer_id("old")));
}

#[test]
fn bounds_hold() {
    let mut cache = PortableCache::default();
    for number in 0..MAX_LAYERS + 50 {
        let name = number.to_string();
        cache.layers.insert(layer_id(&name), layer(&name));
        let seen = 1000 + (number % 10) as Day;
        cache
            .records
            .insert(key(&name), record(&[base(), layer_id(&name)], seen));
    }
    cache.bound(1010);
    assert_eq!(
        (cache.layers.len(), cache.records.len()),
        (MAX_LAYERS, MAX_LAYERS)
    );
    let oldest = cache
        .records
        .values()
        .filter(|record| record.seen == 1000)
        .count();
    assert_eq!(oldest, (MAX_LAYERS + 50) / 10 - 50, "the oldest gave way");
    let encoded = cache.encode().unwrap();
    assert!(encoded.manifest.len() < MAX_MANIFEST && encoded.document.len() < MAX_DOCUMENT);
    assert_eq!(read(&encoded).unwrap(), cache);
}

#[test]
fn inline_takes_its_blobs_from_the_image() {
    let cache = cache(&["a", "b"], 7);
    let layers = [base(), layer_id("a")];
    let value = encode_inline(&layers, &cache.records, |_| (9, 3)).unwrap();
    let blobs = [
        Descriptor::of(media_type::OCI_LAYER_GZIP, b"base blob"),
        Descriptor::of(media_type::OCI_LAYER_GZIP, b"a blob"),
    ];
    let diff_ids = [Digest::sha256_of(b"base"), Digest::sha256_of(b"a tar")];
    let read = parse_inline(&value, &blobs, &diff_ids).unwrap();
    assert_eq!(
        read.records.keys().collect::<Vec<_>>(),
        [&key("a")],
        "b is no layer of the image"
    );
    let a = &read.layers[&layer_id("a")];
    assert_eq!(
        (a.diff_id, a.blob.digest, a.created_ms, a.size),
        (diff_ids[1], blobs[1].digest, 9, 3)
    );
    assert!(parse_inline(&value, &blobs[..1], &diff_ids).is_err());
    let swapped = [diff_ids[1], diff_ids[0]];
    assert!(
        parse_inline(&value, &blobs, &swapped).is_err(),
        "the base's id is its DiffID"
    );
}

proptest! {
    #[test]
    fn no_document_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let manifest = Manifest::new(Descriptor::of(MEDIA_TYPE, &bytes), Vec::new());
        let _ = PortableCache::parse(&manifest, &bytes);
    }
}

/// A document of so many layers and records, each with a result of so many layers.
fn document(layers: usize, records: usize, output: usize) -> Vec<u8> {
    let list = |parts: Vec<String>| parts.join(",");
    let layer = |at: usize| format!(r#"{{"id":"{}"}}"#, layer_id(&at.to_string()));
    let output = list(vec!["0".to_owned(); output]);
    let record = |at: usize| {
        let key = key(&at.to_string());
        format!(r#"{{"key":"{key}","kind":"content","output":[{output}]}}"#)
    };
    let layers = list((0..layers).map(layer).collect());
    let records = list((0..records).map(record).collect());
    format!(r#"{{"version":1,"layers":[{layers}],"records":[{records}]}}"#).into_bytes()
}

#[test]
fn lists_have_ends() {
    let parse = |document: &[u8]| {
        let manifest = Manifest::new(Descriptor::of(MEDIA_TYPE, document), Vec::new());
        PortableCache::parse(&manifest, document)
    };
    for (layers, records, output) in [
        (MAX_FOREIGN_LAYERS, 1, 1),
        (1, MAX_FOREIGN_RECORDS, 1),
        (1, 1, MAX_OUTPUT),
        (1, MAX_OUTPUTS / MAX_OUTPUT, MAX_OUTPUT),
    ] {
        let cache = parse(&document(layers, records, output)).unwrap();
        assert_eq!(cache.records.len(), records);
    }
    for (layers, records, output, reason) in [
        (MAX_FOREIGN_LAYERS + 1, 1, 1, "more than 8000 layers"),
        (1, MAX_FOREIGN_RECORDS + 1, 1, "more than 20000 records"),
        (1, 1, MAX_OUTPUT + 1, "more than 1000 layers of a record"),
        (
            1,
            MAX_OUTPUTS / MAX_OUTPUT + 1,
            MAX_OUTPUT,
            "501000 layers of records",
        ),
    ] {
        let error = parse(&document(layers, records, output)).unwrap_err();
        let text = match &error {
            PortableError::Json(inner) => inner.to_string(),
            other => other.to_string(),
        };
        assert!(text.contains(reason), "{text}");
    }
}

#[test]
fn many_documents_come_to_no_more_than_one() {
    let mut all = PortableCache::default();
    let mut refused = None;
    for at in 0..3 {
        let names: Vec<String> = (0..MAX_RECORDS).map(|name| format!("{at} {name}")).collect();
        let mut cache = PortableCache::default();
        for name in &names {
            cache.records.insert(key(name), record(&[base()], 1));
        }
        if let Err(error) = all.merge_foreign(&cache) {
            refused = Some((at, error.to_string()));
        }
    }
    let (at, error) = refused.unwrap();
    assert_eq!(at, 2);
    assert!(error.contains("records"), "{error}");
}
