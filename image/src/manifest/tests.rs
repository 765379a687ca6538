//! Tests of manifests and indexes.

use proptest::prelude::*;

use super::*;

fn descriptor(media_type: &str, platform: Option<&str>) -> Descriptor {
    Descriptor {
        platform: platform.map(|text| text.parse().unwrap()),
        ..Descriptor::of(media_type, platform.unwrap_or("x").as_bytes())
    }
}

fn sample() -> Manifest {
    let config = descriptor(media_type::OCI_CONFIG, None);
    Manifest::new(config, vec![descriptor(media_type::OCI_LAYER_GZIP, None)])
}

#[test]
fn manifests_round_trip_with_unknown_fields() {
    let mut manifest = sample();
    manifest
        .extra
        .insert("x".into(), serde_json::json!({"b": [1, null], "a": "é"}));
    manifest.layers[0]
        .extra
        .insert("y".into(), serde_json::json!(0.5));
    manifest.annotations.insert("k".into(), "v".into());
    let bytes = manifest.to_bytes();
    let read = parse_manifest(&bytes, Some(media_type::OCI_MANIFEST)).unwrap();
    assert_eq!(read, ManifestOrIndex::Manifest(manifest));
}

#[test]
fn documents_that_could_be_mistaken_are_refused() {
    use ManifestError as E;
    type Check = fn(&E) -> bool;
    let manifest = String::from_utf8(sample().to_bytes()).unwrap();
    let both = manifest.replace("\"layers\"", "\"manifests\":[],\"layers\"");
    let index = String::from_utf8(Index::new(Vec::new()).to_bytes()).unwrap();
    let cases: [(&str, Option<&str>, Check); 9] = [
        ("{", None, |e| matches!(e, E::Json(_))),
        ("{}", None, |e| matches!(e, E::Json(_))),
        (r#"{"schemaVersion":1,"fsLayers":[]}"#, None, |e| {
            matches!(e, E::Schema1)
        }),
        ("{}", Some(media_type::DOCKER_SCHEMA1_SIGNED), |e| {
            matches!(e, E::Schema1)
        }),
        (r#"{"schemaVersion":3}"#, None, |e| {
            matches!(e, E::SchemaVersion { version: 3 })
        }),
        (&both, None, |e| matches!(e, E::Ambiguous)),
        (&manifest, Some(media_type::OCI_INDEX), |e| {
            matches!(e, E::Mismatch { .. })
        }),
        (&index, Some(media_type::DOCKER_INDEX), |e| {
            matches!(e, E::Mismatch { .. })
        }),
        (&index, Some("text/html"), |e| matches!(e, E::MediaType { .. })),
    ];
    for (text, media_type, check) in cases {
        let error = parse_manifest(text.as_bytes(), media_type).unwrap_err();
        assert!(check(&error), "{text}: {error:?}");
    }
}

#[test]
fn limits_hold() {
    let big = vec![b' '; limits::MANIFEST_SIZE + 1];
    assert!(matches!(
        parse_manifest(&big, None),
        Err(ManifestError::TooLarge { .. })
    ));
    let mut manifest = sample();
    manifest.layers = vec![manifest.layers[0].clone(); limits::LAYERS + 1];
    let error = parse_manifest(&manifest.to_bytes(), None).unwrap_err();
    assert!(matches!(error, ManifestError::TooMany { what: "layers", .. }));
}

#[test]
fn the_best_platform_is_selected() {
    let image = |platform| descriptor(media_type::OCI_MANIFEST, platform);
    let mut attestation = image(Some("unknown/unknown"));
    attestation
        .annotations
        .insert("vnd.docker.reference.type".into(), "attestation-manifest".into());
    let index = Index::new(vec![
        attestation,
        image(Some("linux/386")),
        image(Some("linux/arm/v6")),
        image(Some("linux/amd64")),
        image(Some("linux/arm64/v8")),
    ]);
    let cases = [
        ("linux/amd64", Some("linux/amd64")),
        ("linux/amd64/v3", Some("linux/amd64")),
        ("linux/arm64", Some("linux/arm64")),
        ("linux/arm/v7", Some("linux/arm/v6")),
        ("linux/arm/v5", None),
        ("linux/s390x", None),
        ("unknown/unknown", None),
    ];
    for (wanted, expected) in cases {
        let found = index.select(&wanted.parse().unwrap());
        let platform = found
            .as_ref()
            .ok()
            .map(|image| image.platform.clone().unwrap().to_string());
        assert_eq!(platform.as_deref(), expected, "{wanted}");
        if let Err(error) = found {
            assert_eq!(error.available.len(), 4);
            assert!(error.to_string().contains("linux/arm/v6, linux/amd64"), "{error}");
        }
    }
    let nested = Index::new(vec![descriptor(media_type::OCI_INDEX, None)]);
    assert!(nested.select(&"linux/amd64".parse().unwrap()).is_ok());
}

proptest! {
    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_manifest(&bytes, None);
        let _ = crate::ImageConfig::parse(&bytes);
    }
}
