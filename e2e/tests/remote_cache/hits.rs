//! What a machine with an empty store takes of a cache, and when.

use super::{ALL, INSTALL, STAGES, Site, build, id, machine_with, text, token};
use kiln_e2e::trial::{Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use serde_json::Value;

pub(super) fn empty_machine() -> TestResult {
    let site = Site::new()?;
    for (mode, compression) in [("min", "zstd"), ("max", "gzip"), ("max", "uncompressed")] {
        let name = format!("cache:{mode}-{compression}");
        let first = site.machine("first")?;
        let to = site.to(
            &name,
            &format!(",mode={mode},image-manifest=true,compression={compression}"),
        );
        build(&first, &["--cache-to", &to], ALL)?;
        let second = site.machine("second")?;
        build(&second, &["--cache-from", &site.from(&name)], &[])?;
        ensure!(
            token(&first)? == token(&second)?,
            "{name}: the token is another one"
        );
        ensure!(
            id(&first)? == id(&second)?,
            "{name}: the image's id is another one"
        );
        let trees = [first.image()?, second.image()?].map(|image| image.tree.lines(true));
        ensure!(trees[0] == trees[1], "{name}: the trees differ");
        second.kiln.run(["cache", "verify"])?.success()?;
        // What came is the machine's own from now on, and short forms do as well.
        build(&second, &[], &[])?;
        let third = site.machine("third")?;
        build(&third, &["--cache-from", &site.name(&name)], &[])?;
        // The base's blobs are not in the cache.
        let base = site.registry.manifest(&site.base)?;
        let blob = text(&base["layers"][0]["digest"]);
        ensure!(
            !site.blobs(&name, "layer")?.contains(&blob),
            "{name}: the base was exported"
        );
    }
    Ok(Outcome::Passed)
}

pub(super) fn min_and_max() -> TestResult {
    let site = Site::new()?;
    let first = site.machine_with_stages("first")?;
    let to = [
        site.to("cache:min", ",mode=min"),
        site.to("cache:max", ",mode=max"),
    ];
    first.build(&["--cache-to", &to[0], "--cache-to", &to[1]])?;
    for name in ["cache:min", "cache:max"] {
        let second = site.machine_with_stages("second")?;
        build(&second, &["--cache-from", &site.from(name)], &[])?;
        ensure!(
            id(&first)? == id(&second)?,
            "{name}: the image's id is another one"
        );
    }
    let build_stage = |name: &str, ran: &[&str]| {
        let third = site.machine_with_stages("third")?;
        build(
            &third,
            &["--cache-from", &site.from(name), "--target", "build"],
            ran,
        )
    };
    build_stage("cache:min", &["WORKDIR /app", "COPY requirements.txt .", INSTALL])?;
    build_stage("cache:max", &[])?;
    Ok(Outcome::Passed)
}

pub(super) fn lazy() -> TestResult {
    let site = Site::new()?;
    let first = site.machine_with_stages("first")?;
    first.build(&["--cache-to", &site.to("cache:lazy", ",mode=max")])?;
    let layers = site.blobs("cache:lazy", "layer")?;
    ensure!(layers.len() == 6, "the cache has {} layers", layers.len());
    let fetched = |site: &Site, what: &str| -> Result<usize> {
        let blobs = site.blobs("cache:lazy", what)?;
        let requests = site.registry.take_requests()?;
        let is_fetch = |digest: &&String| {
            requests
                .iter()
                .any(|request| request.starts_with("GET ") && request.ends_with(digest.as_str()))
        };
        Ok(blobs.iter().filter(is_fetch).count())
    };
    // A changed file: of the first stage nothing is needed, of the second one the layer below.
    site.registry.take_requests()?;
    let second = site.machine_with_stages("second")?;
    second.write("app.py", "two\n")?;
    let ran = ["COPY app.py /app.py", "RUN wc /installed /app.py > /count"];
    build(&second, &["--cache-from", &site.from("cache:lazy")], &ran)?;
    let count = fetched(&site, "layer")?;
    ensure!(count == 1, "{count} layers were fetched for a changed file");
    // A copy that no build has done before: the keys need what is copied, but only from a listing.
    let stages = STAGES
        .replace("BASE", &site.base)
        .replace("/app/installed", "/app/inst*");
    let dockerfile = format!("FROM {} AS build\n{stages}", site.base);
    let third = machine_with("third", &dockerfile)?;
    site.registry.take_requests()?;
    build(&third, &["--cache-from", &site.from("cache:lazy")], &[])?;
    let requests = site.registry.take_requests()?;
    let listings = site.blobs("cache:lazy", "listing")?;
    ensure!(
        listings
            .iter()
            .any(|digest| requests.iter().any(|request| request.ends_with(digest.as_str()))),
        "no listing was read: {requests:#?}"
    );
    let first_stage = first_stage_blobs(&site, "cache:lazy")?;
    ensure!(first_stage.len() == 3, "{first_stage:?}");
    for digest in first_stage {
        let fetch = requests
            .iter()
            .any(|request| request.starts_with("GET ") && request.ends_with(&digest));
        ensure!(!fetch, "a layer of the first stage was fetched: {requests:#?}");
    }
    Ok(Outcome::Passed)
}

/// The blobs of the layers that only the first stage has.
pub(super) fn first_stage_blobs(site: &Site, name: &str) -> Result<Vec<String>> {
    let document = site.document(name)?;
    let records = document["records"].as_array().cloned().unwrap_or_default();
    let install = records
        .iter()
        .find(|record| text(&record["step"]).contains("sort requirements"));
    let install = install.ok_or("no record of the step")?;
    let positions = install["output"].as_array().cloned().unwrap_or_default();
    let blob = |position: &Value| {
        let at = usize::try_from(position.as_u64()?).ok()?;
        document["layers"][at]["blob"].as_str().map(str::to_owned)
    };
    Ok(positions.iter().filter_map(blob).collect())
}

pub(super) fn no_request() -> TestResult {
    let site = Site::new()?;
    let project = site.machine("alone")?;
    project.build(&["--cache-to", &site.to("cache:1", ",mode=max")])?;
    site.registry.take_requests()?;
    build(&project, &["--cache-from", &site.from("cache:1")], &[])?;
    let requests = site.registry.take_requests()?;
    ensure!(requests.is_empty(), "requests of a cached build: {requests:#?}");
    Ok(Outcome::Passed)
}
