//! Caches and registries that are not as they should be.

use super::hits::first_stage_blobs;
use super::{ALL, Site, build, text};
use kiln_e2e::progress;
use kiln_e2e::trial::{Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use serde_json::Value;
use std::path::PathBuf;

/// A cache of which `harm` damages something; the build must go on without, do it right, and say `told`.
fn broken(told: &str, ran: Option<&[&str]>, harm: impl Fn(&Site) -> Result<()>) -> TestResult {
    let site = Site::new()?;
    let first = site.machine("first")?;
    first.build(&["--cache-to", &site.to("cache:broken", ",mode=max")])?;
    harm(&site)?;
    let second = site.machine("second")?;
    let ended = second
        .try_build(&["--cache-from", &site.from("cache:broken")])?
        .success()?;
    ensure!(
        ended.stderr.contains(told),
        "it does not say {told:?}:\n{}",
        ended.stderr
    );
    let found = progress::not_cached(&ended.stderr);
    if let Some(ran) = ran {
        ensure!(
            found == ran,
            "not cached: {found:?}, expected {ran:?}\n{}",
            ended.stderr
        );
    }
    let files = second.shell("cat /app/installed /app/app.py")?;
    ensure!(files == "a\nb\none\n", "the image has {files:?}");
    second.kiln.run(["cache", "verify"])?.success()?;
    // What is broken can be replaced.
    second.build(&["--cache-to", &site.to("cache:broken", ",mode=max")])?;
    Ok(Outcome::Passed)
}

/// The blob of the layer that the install step made.
fn install_blob(site: &Site) -> Result<PathBuf> {
    let blobs = first_stage_blobs(site, "cache:broken")?;
    let last = blobs.last().ok_or("the step has no layer of its own")?;
    Ok(site.registry.blob_path(last))
}

pub(super) fn missing_layer() -> TestResult {
    broken("cannot be used", None, |site| {
        Ok(std::fs::remove_file(install_blob(site)?)?)
    })
}

pub(super) fn changed_layer() -> TestResult {
    broken("cannot be used", None, |site| {
        let path = install_blob(site)?;
        let mut bytes = std::fs::read(&path)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        Ok(std::fs::write(path, bytes)?)
    })
}

/// Puts another document in the place of a cache's, with a manifest that names it.
fn replace_document(site: &Site, change: impl Fn(&mut Value)) -> Result<()> {
    let mut document = site.document("cache:broken")?;
    change(&mut document);
    replace(site, &serde_json::to_vec(&document)?)
}

fn replace(site: &Site, document: &[u8]) -> Result<()> {
    let mut manifest = site.registry.manifest(&site.name("cache:broken"))?;
    let digest = site.registry.put_blob("cache", document)?;
    manifest["config"]["digest"] = Value::String(digest);
    manifest["config"]["size"] = Value::from(document.len());
    site.registry.put_manifest(
        "cache",
        "broken",
        "application/vnd.oci.image.manifest.v1+json",
        &manifest,
    )
}

/// The document says of a layer that it is another one: right blobs, wrong content.
pub(super) fn swapped_layer() -> TestResult {
    broken("cannot be used", None, |site| {
        let blobs = first_stage_blobs(site, "cache:broken")?;
        replace_document(site, |document| {
            let Some(layers) = document["layers"].as_array_mut() else {
                return;
            };
            let at = |digest: &String, layers: &[Value]| {
                layers.iter().position(|layer| text(&layer["blob"]) == *digest)
            };
            let (Some(one), Some(other)) = (at(&blobs[1], layers), at(&blobs[2], layers)) else {
                return;
            };
            for field in ["blob", "diff_id", "listing"] {
                let value = layers[one][field].clone();
                layers[one][field] = layers[other][field].clone();
                layers[other][field] = value;
            }
        })
    })
}

pub(super) fn broken_document() -> TestResult {
    for (what, change) in [
        (
            "truncated",
            (|bytes: &[u8]| bytes[..bytes.len() / 2].to_vec()) as fn(&[u8]) -> Vec<u8>,
        ),
        ("newer", |bytes| {
            String::from_utf8_lossy(bytes)
                .replace("\"version\":1", "\"version\":9")
                .into_bytes()
        }),
        ("empty", |_| b"{}".to_vec()),
    ] {
        broken("no cache is taken from", Some(ALL), |site| {
            let manifest = site.registry.manifest(&site.name("cache:broken"))?;
            let path = site.registry.blob_path(&text(&manifest["config"]["digest"]));
            replace(site, &change(&std::fs::read(path)?))
        })
        .map_err(|error| format!("{what}: {error}"))?;
    }
    // The registry's file itself is cut.
    broken("no cache is taken from", Some(ALL), |site| {
        let manifest = site.registry.manifest(&site.name("cache:broken"))?;
        let path = site.registry.blob_path(&text(&manifest["config"]["digest"]));
        let bytes = std::fs::read(&path)?;
        Ok(std::fs::write(path, &bytes[..bytes.len() / 2])?)
    })
}

pub(super) fn buildkit_cache() -> TestResult {
    let kind = "application/vnd.buildkit.cacheconfig.v0";
    broken("a cache of BuildKit", Some(ALL), |site| {
        let mut manifest = site.registry.manifest(&site.name("cache:broken"))?;
        manifest["config"]["mediaType"] = Value::from(kind);
        site.registry.put_manifest(
            "cache",
            "broken",
            "application/vnd.oci.image.manifest.v1+json",
            &manifest,
        )
    })
}

pub(super) fn unreachable() -> TestResult {
    let site = Site::new()?;
    let first = site.machine("first")?;
    let from = "type=registry,ref=127.0.0.1:1/no/cache:here";
    let ended = build(
        &first,
        &["--cache-from", from, "--cache-from", &site.from("none:yet")],
        ALL,
    )?;
    for told in [
        "no cache is taken from 127.0.0.1:1/no/cache:here",
        "there is no cache at",
    ] {
        ensure!(
            ended.stderr.contains(told),
            "it does not say {told:?}:\n{}",
            ended.stderr
        );
    }
    Ok(Outcome::Passed)
}
