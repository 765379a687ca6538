//! Manifests, indexes and configurations.

use crate::case::{Case, Command, World};
use kiln_e2e::crafted::{CONFIG, Crafted, INDEX, Layer, MANIFEST, Tar, descriptor};
use kiln_e2e::ensure;
use kiln_e2e::hostile_registry::{Answer, Body, Site, digest};
use serde_json::{Value, json};

/// The media type of Docker's first manifests.
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// A site whose tag stands for these bytes.
fn tagged(media_type: &str, bytes: impl Into<Vec<u8>>) -> Site {
    let mut site = Crafted::plain().site();
    site.put_manifest(Some("1"), media_type, bytes);
    site
}

/// An image with a changed manifest.
fn manifest(change: impl FnOnce(&mut Value)) -> Site {
    let mut image = Crafted::plain();
    change(&mut image.manifest);
    image.site()
}

/// An image with a changed configuration.
fn config(change: impl FnOnce(&mut Value)) -> Site {
    let mut image = Crafted::plain();
    change(&mut image.config);
    image.site()
}

/// An image whose configuration is these bytes.
fn config_bytes(bytes: Vec<u8>) -> Site {
    let mut site = Site::default();
    let mut image = Crafted::plain();
    image.manifest["config"] = descriptor(CONFIG, &bytes);
    image.put(&mut site, "1");
    site.put_blob(bytes);
    site
}

/// Indexes in indexes, the last of which has the plain image.
pub(crate) fn nested(depth: usize) -> Site {
    let mut site = Site::default();
    let mut bytes = Crafted::plain().put(&mut site, "image");
    let mut media_type = MANIFEST;
    for _ in 0..depth {
        let index =
            json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(media_type, &bytes)]});
        bytes = index.to_string().into_bytes();
        media_type = INDEX;
        site.put_manifest(None, INDEX, bytes.clone());
    }
    site.put_manifest(Some("1"), media_type, bytes);
    site
}

/// A document of about so many bytes, most of which are many small objects under an unknown name.
pub(crate) fn swollen(document: &Value, bytes: usize) -> Vec<u8> {
    let text = document.to_string();
    let objects = "{\"\":0},".repeat(bytes / 7);
    format!("{},\"x\":[{objects}0]}}", &text[..text.len() - 1]).into_bytes()
}

pub(crate) fn cases() -> Vec<Case> {
    [manifests(), indexes(), configs(), media_types()].concat()
}

fn manifests() -> Vec<Case> {
    vec![
        Case::new("a manifest without an end", |_, request, _| {
            request.manifest().map(|_| {
                Answer::of("")
                    .with("Content-Type", MANIFEST)
                    .body(Body::Endless(b"{".to_vec(), b" ".to_vec()))
            })
        }),
        Case::new("a manifest that is said to be huge", |_, request, _| {
            request.manifest().map(|_| {
                Answer::of("")
                    .with("Content-Type", MANIFEST)
                    .body(Body::Stalled(Vec::new(), 1 << 40))
            })
        }),
        Case::of("a manifest with deep brackets", |_| {
            tagged(MANIFEST, "[".repeat(1 << 20))
        }),
        Case::of("a manifest with deep objects under an unknown name", |_| {
            let deep = format!("{}0{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
            tagged(MANIFEST, format!("{{\"schemaVersion\":2,\"x\":{deep}}}"))
        }),
        Case::of("a manifest with half a million objects", |_| {
            let mut site = Site::default();
            let mut image = Crafted::plain();
            image.put(&mut site, "honest");
            let config = image.config.to_string();
            image.manifest["config"] = descriptor(CONFIG, config.as_bytes());
            site.put_manifest(Some("1"), MANIFEST, swollen(&image.manifest, 4_100_000));
            site
        }),
        Case::of("a manifest with a hundred thousand layers", |_| {
            manifest(|manifest| {
                let layer = manifest["layers"][0].clone();
                manifest["layers"] = vec![layer; 100_000].into();
            })
        }),
        Case::of("a manifest with twenty thousand layers", |_| {
            manifest(|manifest| {
                let layer = json!({"digest": manifest["layers"][0]["digest"], "size": 1});
                manifest["layers"] = vec![layer; 20_000].into();
            })
        }),
        Case::of("six hundred layers", many_layers).works(),
        Case::of("six hundred layers, and a step on them", many_layers)
            .runs(Command::Build("FROM @HOST@/app:1\nCOPY f /g\n")),
        Case::of("a manifest that is a manifest and an index", |_| {
            manifest(|manifest| manifest["manifests"] = json!([]))
        }),
        Case::of("a manifest of the first version", |_| {
            tagged(
                SCHEMA_1,
                r#"{"schemaVersion":1,"name":"app","tag":"1","fsLayers":[],"history":[]}"#,
            )
        }),
        Case::of("a manifest of the first version under another type", |_| {
            tagged(
                MANIFEST,
                r#"{"schemaVersion":1,"name":"app","tag":"1","fsLayers":[],"history":[]}"#,
            )
        }),
        Case::of("a manifest of version 99", |_| {
            tagged(MANIFEST, r#"{"schemaVersion":99}"#)
        }),
        Case::of("a page instead of a manifest", |_| {
            tagged("text/html", "<html>log in here</html>")
        }),
        Case::of("a manifest of negative sizes", |_| {
            manifest(|manifest| manifest["layers"][0]["size"] = (-1).into())
        }),
        Case::of("a manifest of sizes that are no numbers", |_| {
            manifest(|manifest| manifest["layers"][0]["size"] = 1e300.into())
        }),
        Case::of("a manifest whose digests are paths", |_| {
            // Where this would lead from the folder of blobs.
            let aim = "sha256:../../../out/evil";
            manifest(|manifest| manifest["layers"][0]["digest"] = aim.into())
        }),
        Case::of("a manifest of another kind of digest", |_| {
            manifest(|manifest| {
                manifest["layers"][0]["digest"] = "md5:d41d8cd98f00b204e9800998ecf8427e".into();
            })
        }),
        Case::new(
            "a manifest with an encoding that nobody asked for",
            |_, request, site| {
                request.manifest()?;
                let answer = site.answer(request);
                let bytes = kiln_e2e::crafted::gzip(&answer.bytes());
                Some(answer.body(Body::Whole(bytes)).with("Content-Encoding", "gzip"))
            },
        ),
        Case::new("a gzip bomb for a manifest", |_, request, _| {
            request.manifest()?;
            let bytes = kiln_e2e::crafted::gzip(&vec![b' '; 64 << 20]);
            Some(
                Answer::of(bytes)
                    .with("Content-Type", MANIFEST)
                    .with("Content-Encoding", "gzip"),
            )
        }),
    ]
}

/// More layers than an overlay takes.
fn many_layers(_: &World) -> Site {
    let layers: Vec<Layer> = (0..600)
        .map(|number| Layer::of(&Tar::new().file(&format!("f{number}"), b"x").end()))
        .collect();
    Crafted::new(&layers).site()
}

fn indexes() -> Vec<Case> {
    vec![
        Case::of("an index within an index", |_| nested(2)).works(),
        Case::of("a thousand indexes in each other", |_| nested(1000)).check(|ran| {
            let asked = ran.registry.seen().len();
            ensure!(asked < 20, "{asked} requests");
            Ok(())
        }),
        // Its digest cannot be its own, so the answer is of another one.
        Case::new("an index that names itself", |_, request, _| {
            request.manifest().map(|_| {
                let entry = json!({"mediaType": INDEX, "digest": digest(b"self"), "size": 10});
                let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
                Answer::of(index.to_string()).with("Content-Type", INDEX)
            })
        }),
        Case::of("an index of a hundred thousand images", |_| {
            let entry = descriptor(MANIFEST, b"x");
            let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": vec![entry; 100_000]});
            tagged(INDEX, index.to_string())
        }),
        Case::of("an index of twenty thousand images", |_| {
            let entry = json!({"digest": digest(b"x"), "size": 1});
            let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": vec![entry; 20_000]});
            tagged(INDEX, index.to_string())
        }),
        Case::of("an index without images", |_| {
            tagged(
                INDEX,
                json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).to_string(),
            )
        }),
        Case::of("an index of platforms that want to write to the terminal", |_| {
            let mut entry = descriptor(MANIFEST, b"x");
            entry["platform"] = json!({"os": "\u{1b}[2Jlinux\r\nERROR: fine", "architecture": "\u{9b}31m"});
            tagged(
                INDEX,
                json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).to_string(),
            )
        }),
        Case::of("an index of two thousand long platforms", |_| {
            let entries: Vec<Value> = (0..1900)
                .map(|number| {
                    let mut entry = descriptor(MANIFEST, b"x");
                    entry["platform"] =
                        json!({"os": format!("os{number}{}", "x".repeat(1500)), "architecture": "a"});
                    entry
                })
                .collect();
            tagged(
                INDEX,
                json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string(),
            )
        }),
        Case::of("an index whose image has another size", |_| {
            let mut site = Site::default();
            let bytes = Crafted::plain().put(&mut site, "image");
            let mut entry = descriptor(MANIFEST, &bytes);
            entry["size"] = 5.into();
            let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
            site.put_manifest(Some("1"), INDEX, index.to_string());
            site
        }),
        Case::of("an index whose image is not there", |_| {
            let entry = descriptor(MANIFEST, b"absent");
            let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
            tagged(INDEX, index.to_string())
        }),
    ]
}

fn configs() -> Vec<Case> {
    vec![
        Case::of("a configuration of fewer layers", |_| {
            config(|config| config["rootfs"]["diff_ids"] = json!([]))
        }),
        Case::of("a configuration of more layers", |_| {
            config(|config| {
                let id = config["rootfs"]["diff_ids"][0].clone();
                config["rootfs"]["diff_ids"] = vec![id; 3].into();
            })
        }),
        Case::of("a configuration of a hundred thousand layers", |_| {
            config(|config| {
                let id = config["rootfs"]["diff_ids"][0].clone();
                config["rootfs"]["diff_ids"] = vec![id; 100_000].into();
            })
        }),
        Case::of("a configuration of another layer", |_| {
            config(|config| config["rootfs"]["diff_ids"] = json!([digest(b"another")]))
        }),
        Case::of("a configuration of a root of another kind", |_| {
            config(|config| config["rootfs"]["type"] = "disk".into())
        }),
        Case::of("a configuration that is no document", |_| {
            config_bytes(b"{no".to_vec())
        }),
        Case::of("a configuration with deep brackets", |_| {
            config_bytes("[".repeat(1 << 20).into_bytes())
        }),
        Case::of("a configuration of a million objects", |_| {
            config_bytes(swollen(&Crafted::plain().config, 8_000_000))
        }),
        Case::of("a configuration of sixteen mebibytes", |_| {
            config(|config| config["author"] = "x".repeat(16 << 20).into())
        }),
        Case::of("a configuration of a million variables", |_| {
            config(|config| config["config"]["Env"] = vec![Value::from("A=b"); 1_000_000].into())
        })
        .runs(Command::Build("FROM @HOST@/app:1\nENV C=$A\n")),
        Case::of("a configuration whose history is long", |_| {
            config(|config| config["history"] = vec![json!({"empty_layer": true}); 100_000].into())
        }),
        Case::of("a configuration that wants to write to the terminal", |_| {
            config(|config| {
                let text = "\u{1b}[2J\u{1b}]0;owned\u{7}\rERROR: \u{9b}31m";
                config["author"] = text.into();
                config["created"] = text.into();
                config["config"]["Labels"] = json!({text: text});
                config["config"]["User"] = text.into();
                config["history"] =
                    json!([{"created": text, "created_by": text, "comment": text, "author": text}]);
            })
        })
        .works()
        .check(|ran| {
            let name = format!("{}/app:1", ran.world.host);
            for command in [
                &["images"][..],
                &["history", &name],
                &["inspect", &name],
                &["run", "--rm", &name],
            ] {
                let ended = ran.kiln.run(command.iter().copied())?;
                let told = ended.stdout + &ended.stderr;
                let control = told.chars().find(|c| c.is_control() && *c != '\n');
                ensure!(control.is_none(), "{command:?} writes {control:?}: {told:?}");
            }
            Ok(())
        }),
        Case::of("a configuration of wrong types", |_| {
            config(|config| config["config"]["Env"] = json!({"A": 1}))
        }),
    ]
}

fn media_types() -> Vec<Case> {
    vec![
        Case::of("a manifest that is called an index", |_| {
            let mut site = Site::default();
            let bytes = Crafted::plain().put(&mut site, "1");
            site.put_manifest(Some("1"), INDEX, bytes);
            site
        }),
        Case::of("a manifest of an unknown type", |_| {
            let mut site = Site::default();
            let bytes = Crafted::plain().put(&mut site, "1");
            site.put_manifest(Some("1"), "application/vnd.unknown+json", bytes);
            site
        }),
        Case::of("a layer of an unknown type", |_| {
            manifest(|manifest| manifest["layers"][0]["mediaType"] = "application/vnd.unknown".into())
        }),
        Case::of("an encrypted layer", |_| {
            manifest(|manifest| {
                manifest["layers"][0]["mediaType"] =
                    "application/vnd.oci.image.layer.v1.tar+gzip+encrypted".into();
            })
        }),
        Case::of("an artifact that is no image", |_| {
            manifest(|manifest| {
                manifest["config"] = descriptor("application/vnd.oci.empty.v1+json", b"{}");
                manifest["layers"][0]["mediaType"] = "application/spdx+json".into();
                manifest["artifactType"] = "application/vnd.example.sbom".into();
            })
        }),
        Case::of("a foreign layer whose addresses are elsewhere", |world| {
            let mut image = Crafted::plain();
            image.manifest["layers"][0]["mediaType"] =
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
            image.manifest["layers"][0]["urls"] =
                json!([format!("http://{}/layer", world.other), "file:///etc/passwd"]);
            image.blobs.clear();
            image.site()
        })
        .check(|ran| {
            ensure!(
                ran.other.seen().is_empty(),
                "an address of the manifest was asked"
            );
            Ok(())
        }),
        Case::of("a foreign layer that the registry has", |world| {
            let mut image = Crafted::plain();
            image.manifest["layers"][0]["mediaType"] =
                "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip".into();
            image.manifest["layers"][0]["urls"] = json!([format!("http://{}/layer", world.other)]);
            image.site()
        })
        .works()
        .check(|ran| {
            ensure!(
                ran.other.seen().is_empty(),
                "an address of the manifest was asked"
            );
            Ok(())
        }),
    ]
}
