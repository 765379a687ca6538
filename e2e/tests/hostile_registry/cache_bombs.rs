//! Caches of builds that stand for more than they are: a warning and a miss, in little memory.

use crate::case::{Case, Command, World, honest};
use crate::documents::swollen;
use crate::runner::Ran;
use kiln_e2e::crafted::{CONFIG, Crafted, INDEX, MANIFEST, descriptor, gzip_with, zstd_bomb};
use kiln_e2e::hostile_registry::{Answer, Request, Site, digest};
use kiln_e2e::{Result, ensure};
use serde_json::{Value, json};
use std::io::Write as _;

/// The media types of a cache.
const CACHE: &str = "application/vnd.kiln.cache.v1+json";
const LISTING: &str = "application/vnd.kiln.listing.v1+zstd";
/// As many bytes as a document may have, nearly.
const LARGE: usize = 15 << 20;

/// Peak of the resident set, in MiB: a document at its limit, what is made of it, and the listings of a build.
const MEMORY: u64 = 100;

pub(crate) fn cases() -> Vec<Case> {
    let bounded = |case| Case {
        memory: MEMORY,
        ..case
    };
    let tables = [documents(), indexes(), listings()];
    tables.into_iter().flatten().map(bounded).collect()
}

/// The honest cache is replaced by what the site has as `evil`.
fn evil(name: &'static str, site: fn(&World) -> Site) -> Case {
    Case::new(name, |_, request, site| {
        (request.manifest() == Some("1")).then(|| {
            let (media_type, bytes) = site.manifests["evil"].clone();
            Answer::of(bytes).with("Content-Type", media_type)
        })
    })
    .runs(Command::CacheFrom)
    .with_site(site)
    .works()
    .check(asked_for_the_document)
}

fn asked_for_the_document(ran: &Ran<'_>) -> Result<()> {
    let asked = ran
        .registry
        .seen()
        .iter()
        .filter(|request| request.blob().is_some())
        .count();
    ensure!(asked > 0, "no document was asked for");
    Ok(())
}

/// A manifest of a cache with this document; its digest.
fn put(site: &mut Site, tag: Option<&str>, document: &[u8], layers: &Value) -> String {
    let config = descriptor(CACHE, document);
    site.put_blob(document);
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
    site.put_manifest(tag, MANIFEST, manifest.to_string())
}

fn site_of(document: impl AsRef<[u8]>) -> Site {
    let mut site = Site::default();
    put(&mut site, Some("evil"), document.as_ref(), &json!([]));
    site
}

/// A name of a layer, or a key.
fn hex(number: usize) -> String {
    format!("{number:064x}")
}

fn record(number: usize, output: &str) -> String {
    format!(
        r#"{{"key":"{}","kind":"definition","output":[{output}]}}"#,
        hex(number)
    )
}

fn document(layers: &[String], records: &[String]) -> String {
    let (layers, records) = (layers.join(","), records.join(","));
    format!(r#"{{"version":1,"layers":[{layers}],"records":[{records}]}}"#)
}

fn layer(number: usize) -> String {
    format!(r#"{{"id":"b3-{}"}}"#, hex(number))
}

fn documents() -> Vec<Case> {
    vec![
        evil("a cache of a hundred and eighty thousand layers", |_| {
            let layers: Vec<String> = (0..LARGE / 80).map(layer).collect();
            site_of(document(&layers, &[]))
        }),
        evil("a cache of a hundred thousand records", |_| {
            let records: Vec<String> = (0..LARGE / 130).map(|number| record(number, "")).collect();
            site_of(document(&[], &records))
        }),
        evil("a cache of a record of seven million layers", |_| {
            let output = "0,".repeat(LARGE / 2) + "0";
            site_of(document(&[layer(0)], &[record(0, &output)]))
        }),
        evil("a cache of records of seven million layers", |_| {
            let output = "0,".repeat(999) + "0";
            let records: Vec<String> = (0..LARGE / 2130).map(|number| record(number, &output)).collect();
            site_of(document(&[layer(0)], &records))
        }),
        evil("a cache of a step of fifteen million letters", |_| {
            let step = "x".repeat(LARGE);
            let record = record(0, "").replace("\"output\"", &format!("\"step\":\"{step}\",\"output\""));
            site_of(document(&[], &[record]))
        }),
        evil("a cache of lists in lists", |_| {
            let (open, close) = ("[".repeat(LARGE / 2), "]".repeat(LARGE / 2));
            site_of(format!(
                "{{\"x\":{open}{close},\"version\":1,\"layers\":[],\"records\":[]}}"
            ))
        }),
        evil("a cache of records in records", |_| {
            let open = "{\"version\":1,\"layers\":[],\"records\":[".repeat(LARGE / 80);
            site_of(open)
        }),
        evil("a cache with two million values that nobody knows", |_| {
            site_of(swollen(
                &json!({"version": 1, "layers": [], "records": []}),
                LARGE,
            ))
        }),
        evil("a cache with words where numbers belong", |_| {
            site_of(document(&[layer(0)], &[record(0, "\"0\"")]))
        }),
        evil("a cache with numbers below zero", |_| {
            site_of(document(&[layer(0)], &[record(0, "-1")]))
        }),
        evil("a cache whose records name layers that are not listed", |_| {
            site_of(document(&[layer(0)], &[record(0, "4294967295")]))
        }),
        evil("a cache that is a list", |_| site_of("[]")),
        evil("a cache whose version is a word", |_| {
            site_of("{\"version\":\"1\",\"layers\":[],\"records\":[]}")
        }),
        evil("a cache whose layers contradict themselves", |_| {
            let blob = digest(b"blob");
            let layer = format!(
                r#"{{"id":"sha256-{}","diff_id":"{}","blob":"{blob}"}}"#,
                hex(0),
                digest(b"tar")
            );
            let mut site = Site::default();
            let document = document(&[layer], &[]);
            put(
                &mut site,
                Some("evil"),
                document.as_bytes(),
                &json!([descriptor(LISTING, b"blob")]),
            );
            site
        }),
        evil("a cache of twenty million bytes", |_| {
            site_of(" ".repeat(20_000_000))
        })
        .check(|ran| {
            let asked = ran
                .registry
                .seen()
                .iter()
                .filter(|request| request.blob().is_some())
                .count();
            ensure!(asked == 0, "the document was asked for");
            Ok(())
        }),
    ]
}

/// A site whose `evil` is an index of these manifests.
fn index(mut site: Site, digests: &[String]) -> Site {
    let entries: Vec<Value> = digests
        .iter()
        .map(|digest| {
            let size = site.manifests[digest].1.len();
            json!({"mediaType": MANIFEST, "digest": digest, "size": size})
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    site.put_manifest(Some("evil"), INDEX, index.to_string());
    site
}

fn indexes() -> Vec<Case> {
    vec![
        evil("an index of many large caches", |_| {
            let mut site = Site::default();
            let digests: Vec<String> = (0..8)
                .map(|at| {
                    let numbers = at * 20_000..at * 20_000 + 15_000;
                    let records: Vec<String> = numbers.map(|number| record(number, "")).collect();
                    put(&mut site, None, document(&[], &records).as_bytes(), &json!([]))
                })
                .collect();
            index(site, &digests)
        }),
        evil("an index of images whose caches are not theirs", |_| {
            let mut site = Site::default();
            let digests: Vec<String> = (0..2)
                .map(|at| {
                    let mut image = Crafted::plain();
                    image.config["kiln.cache.v1"] =
                        serde_json::from_str(&document(&[layer(at), layer(7)], &[])).unwrap_or_default();
                    let bytes = image.put(&mut site, "image");
                    digest(&bytes)
                })
                .collect();
            index(site, &digests)
        }),
        evil("an image whose cache has a hundred thousand values", |_| {
            let mut image = Crafted::plain();
            let cache = document(&[layer(0)], &[record(0, "")]);
            image.config["kiln.cache.v1"] = serde_json::from_str(&cache).unwrap_or_default();
            let config = swollen(&image.config, 340_000);
            image.manifest["config"] = descriptor(CONFIG, &config);
            let mut site = Site::default();
            site.put_blob(config);
            image.put(&mut site, "evil");
            site
        }),
    ]
}

fn number(mut number: u64, out: &mut Vec<u8>) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A directory as a listing has it: up to its attributes, of which these are put in.
fn directory(name: &str, attributes: &[&str], out: &mut Vec<u8>) {
    number(name.len() as u64, out);
    out.extend(name.as_bytes());
    // Kind, mode, user, group.
    out.extend([1, 0, 0, 0]);
    number(attributes.len() as u64, out);
    for name in attributes {
        number(name.len() as u64, out);
        out.extend(name.as_bytes());
        out.push(0);
    }
}

/// A listing of these directories, with its checksum, and the id of the layer that it is of.
fn listing(directories: &[String], attributes: &[&str]) -> (Vec<u8>, String) {
    let (mut payload, mut canonical) = (Vec::new(), b"kiln tree content 1\n".to_vec());
    number(directories.len() as u64, &mut payload);
    for name in directories {
        directory(name, attributes, &mut payload);
        // The time.
        payload.extend([0, 0]);
        directory(name, attributes, &mut canonical);
    }
    let mut bytes = b"kilnlist\x01\0\0\0".to_vec();
    bytes.extend((payload.len() as u64).to_le_bytes());
    bytes.extend(blake3::hash(&payload).as_bytes());
    bytes.extend(payload);
    (bytes, format!("b3-{}", blake3::hash(&canonical).to_hex()))
}

fn names(count: usize, start: &str) -> Vec<String> {
    (0..count).map(|at| format!("{start}{at:06}")).collect()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    // Memory takes everything.
    zstd::encode_all(bytes, 1).unwrap_or_default()
}

/// The honest cache, with these listings for its layers: of what it has, or of the layers that they are of.
fn relist(site: &mut Site, listings: Vec<(Vec<u8>, Option<String>)>) -> Result<()> {
    let (_, manifest) = site.manifests.get("1").ok_or("no cache was written")?;
    let mut manifest: Value = serde_json::from_slice(manifest)?;
    let document = manifest["config"]["digest"].as_str().unwrap_or_default();
    let mut document: Value = serde_json::from_slice(site.blobs.get(document).ok_or("it has no document")?)?;
    let honest = document["layers"][0].clone();
    let (mut layers, mut output, mut entries) = (Vec::new(), Vec::new(), Vec::new());
    for (bytes, id) in listings {
        let mut layer = honest.clone();
        let listing = descriptor(LISTING, &bytes);
        layer["listing"] = listing["digest"].clone();
        if let Some(id) = id {
            layer["id"] = id.into();
        }
        entries.push(listing);
        site.put_blob(bytes);
        output.push(layers.len());
        layers.push(layer);
    }
    document["layers"] = layers.into();
    for record in document["records"].as_array_mut().ok_or("it has no records")? {
        record["output"] = output.clone().into();
    }
    let document = document.to_string();
    manifest["config"] = descriptor(CACHE, document.as_bytes());
    let blobs = manifest["layers"].as_array_mut().ok_or("it has no layers")?;
    blobs.append(&mut entries);
    site.put_blob(document);
    site.put_manifest(Some("1"), MANIFEST, manifest.to_string());
    Ok(())
}

/// A cache whose layers have other listings: each is asked for, and something else is done.
fn lists(name: &'static str, rewrite: fn(&mut Site) -> Result<()>) -> Case {
    let case = Case {
        rewrite: Some(rewrite),
        ..Case::new(name, honest)
    };
    case.runs(Command::CacheCopied).works().check(|ran| {
        let all = ran.registry.with_site(|site| site.blobs.clone());
        let is_listing = |request: &Request| {
            let blob = request.blob().and_then(|digest| all.get(digest));
            blob.is_some_and(|blob| blob.starts_with(b"\x1f\x8b") || blob.starts_with(b"\x28\xb5\x2f\xfd"))
        };
        ensure!(
            ran.registry.seen().iter().any(is_listing),
            "no listing was asked for\n{}",
            ran.output
        );
        ensure!(ran.output.contains("WARN"), "nothing is told\n{}", ran.output);
        Ok(())
    })
}

fn listings() -> Vec<Case> {
    vec![
        lists("a listing of a gigabyte, with zstd", |site| {
            let (bytes, _) = listing(&names(1, ""), &[]);
            relist(site, vec![(zstd_bomb(23, &bytes, 1 << 13), None)])
        }),
        lists(
            "a listing of a gigabyte, with the largest window of zstd",
            |site| {
                let (bytes, _) = listing(&names(1, ""), &[]);
                relist(site, vec![(zstd_bomb(27, &bytes, 1 << 13), None)])
            },
        ),
        lists("a listing of 256 MiB, with gzip", |site| {
            let zeros = vec![0; 1 << 20];
            let bytes = gzip_with(|out| (0..1 << 8).try_for_each(|_| out.write_all(&zeros)));
            relist(site, vec![(bytes, None)])
        }),
        lists("a listing of nine million bytes, packed", |site| {
            relist(site, vec![([&zstd(b"x")[..], &vec![0; 9 << 20]].concat(), None)])
        })
        .check(|ran| {
            ensure!(ran.output.contains("more than the"), "{}", ran.output);
            Ok(())
        }),
        lists("a listing of four hundred thousand entries", |site| {
            let (bytes, id) = listing(&names(400_000, ""), &[]);
            relist(site, vec![(zstd(&bytes), Some(id))])
        }),
        lists("a listing of entries with attributes", |site| {
            let (bytes, id) = listing(&names(200_000, ""), &["user.a", "user.b", "user.c"]);
            relist(site, vec![(zstd(&bytes), Some(id))])
        }),
        lists("many listings that each are in order", |site| {
            let one = |at: usize| {
                let (bytes, id) = listing(&names(50_000, &format!("{at}-")), &[]);
                (zstd(&bytes), Some(id))
            };
            relist(site, (0..10).map(one).collect())
        }),
        lists("a listing that is of another layer", |site| {
            let (bytes, _) = listing(&names(10, ""), &[]);
            relist(site, vec![(zstd(&bytes), None)])
        }),
        lists("a listing that is none", |site| {
            relist(site, vec![(zstd(b"not a listing"), None)])
        }),
        lists("a listing that is cut", |site| {
            let (bytes, _) = listing(&names(10, ""), &[]);
            relist(site, vec![(zstd(&bytes[..bytes.len() - 5]), None)])
        }),
    ]
}
