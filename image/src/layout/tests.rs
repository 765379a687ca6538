//! Tests of layouts.

use super::*;
use crate::tarball::{Chunk, TarReader};
use crate::testing::TempDir;
use crate::{Manifest, media_type};

struct Sample {
    blobs: Vec<(Descriptor, Vec<u8>)>,
    image: SavedImage,
}

fn sample() -> Sample {
    let config = b"{\"os\":\"linux\"}".to_vec();
    let layer = vec![7; 300_000];
    let config_descriptor = Descriptor::of(media_type::OCI_CONFIG, &config);
    let layer_descriptor = Descriptor::of(media_type::OCI_LAYER, &layer);
    let manifest = Manifest::new(config_descriptor.clone(), vec![layer_descriptor.clone()]).to_bytes();
    let root = Descriptor::of(media_type::OCI_MANIFEST, &manifest);
    let names = ["app:1", "localhost:5000/b/c:2"]
        .map(|name| name.parse().unwrap())
        .to_vec();
    Sample {
        image: SavedImage {
            root: root.clone(),
            names,
            docker: Some((config_descriptor.clone(), vec![layer_descriptor.clone()])),
        },
        blobs: vec![
            (root, manifest),
            (config_descriptor, config),
            (layer_descriptor, layer),
        ],
    }
}

fn fill<W: Write>(writer: &mut Writer<W>, sample: &Sample) {
    for _ in 0..2 {
        for (descriptor, bytes) in &sample.blobs {
            writer.blob(descriptor, &bytes[..]).unwrap();
        }
    }
}

fn tar(form: Form) -> Vec<u8> {
    let sample = sample();
    let mut writer = Writer::tar(Vec::new()).unwrap();
    fill(&mut writer, &sample);
    writer.finish(&[sample.image], form).unwrap()
}

fn members(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut reader = TarReader::new(bytes);
    let mut members = BTreeMap::new();
    while let Some(entry) = reader.next().unwrap() {
        let mut content = Vec::new();
        reader
            .content::<crate::TarError>(&entry, |chunk| {
                if let Chunk::Data(data) = chunk {
                    content.extend_from_slice(data);
                }
                Ok(())
            })
            .unwrap();
        let name = String::from_utf8(entry.path).unwrap();
        assert!(members.insert(name, content).is_none(), "each name once");
    }
    members
}

#[test]
fn a_directory_reads_back() {
    let dir = TempDir::new();
    let sample = sample();
    let mut writer = Writer::directory(dir.path()).unwrap();
    fill(&mut writer, &sample);
    writer
        .finish(std::slice::from_ref(&sample.image), Form::Oci)
        .unwrap();
    assert!(!dir.path().join("manifest.json").exists());

    let reader = LayoutReader::open(dir.path()).unwrap();
    let names: Vec<&str> = reader
        .index()
        .manifests
        .iter()
        .map(|m| m.annotations[IMAGE_NAME].as_str())
        .collect();
    assert_eq!(names, ["docker.io/library/app:1", "localhost:5000/b/c:2"]);
    assert_eq!(reader.index().manifests[1].annotations[REF_NAME], "2");
    assert_eq!(reader.read_blob(&sample.blobs[0].0).unwrap(), sample.blobs[0].1);
    let absent = Descriptor::of("", b"absent");
    assert!(matches!(
        reader.read_blob(&absent),
        Err(LayoutError::Missing { .. })
    ));
    let path = dir.path().join(blob_name(&sample.blobs[1].0.digest));
    std::fs::write(path, "{\"os\":\"plan9\"}").unwrap();
    assert!(matches!(
        reader.read_blob(&sample.blobs[1].0),
        Err(LayoutError::Blob { .. })
    ));
}

#[test]
fn the_docker_form_names_blobs_and_tags() {
    let bytes = tar(Form::Docker);
    assert_eq!(bytes, tar(Form::Docker), "always the same");
    let members = members(&bytes);
    let sample = sample();
    let [manifest, config, layer] = [0, 1, 2].map(|at: usize| blob_name(&sample.blobs[at].0.digest));
    let mut expected = vec![
        "blobs/",
        "blobs/sha256/",
        &manifest,
        &config,
        &layer,
        "index.json",
        "manifest.json",
        "oci-layout",
        "repositories",
    ];
    expected.sort_unstable();
    assert_eq!(members.keys().collect::<Vec<_>>(), expected);
    assert_eq!(members[&layer], sample.blobs[2].1);
    let docker: serde_json::Value = serde_json::from_slice(&members["manifest.json"]).unwrap();
    let tags = ["app:1", "localhost:5000/b/c:2"];
    assert_eq!(
        docker,
        serde_json::json!([{"Config": config, "RepoTags": tags, "Layers": [layer]}])
    );
    let hex = sample.blobs[2].0.digest.hex();
    let repositories: serde_json::Value = serde_json::from_slice(&members["repositories"]).unwrap();
    assert_eq!(
        repositories,
        serde_json::json!({"app": {"1": hex}, "localhost:5000/b/c": {"2": hex}})
    );
    assert!(!self::members(&tar(Form::Oci)).contains_key("manifest.json"));
}

#[test]
fn wrong_and_missing_blobs_are_errors() {
    let sample = sample();
    let dir = TempDir::new();
    let (descriptor, bytes) = &sample.blobs[2];
    for wrong in [&bytes[1..], &vec![7; 300_001], &vec![8; 300_000]] {
        let mut writer = Writer::directory(dir.path()).unwrap();
        let error = writer.blob(descriptor, wrong).unwrap_err();
        assert!(matches!(error, LayoutError::Blob { .. }), "{error}");
        let left = std::fs::read_dir(dir.path().join("blobs/sha256"))
            .unwrap()
            .count();
        assert_eq!(left, 0, "no half blob stays");
    }
    let writer = Writer::directory(dir.path()).unwrap();
    let error = writer.finish(&[sample.image], Form::Oci).unwrap_err();
    assert!(matches!(error, LayoutError::Missing { .. }), "{error}");
}
