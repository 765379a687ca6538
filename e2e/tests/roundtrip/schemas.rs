//! What Kiln writes, against the JSON schemas of the OCI image specification.

use crate::fixture::{Fixture, fixture};
use kiln_e2e::builder::run;
use kiln_e2e::machine;
use kiln_e2e::server::Registry;
use kiln_e2e::trial::{Outcome, TestResult};
use kiln_e2e::{Result, ensure};
use serde_json::Value;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Where Debian has the specification's schemas.
const SCHEMAS: &str = "/usr/share/gocode/src/github.com/opencontainers/image-spec/schema";

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A schema and a file.
type Document = (&'static str, PathBuf);

/// The validator complains about none of the documents; else what it tells.
fn validate(fixture: &Fixture, documents: &[Document]) -> Result<Option<String>> {
    let mut child = fixture
        .tool("/usr/bin/python3")
        .arg(machine::checkout().join("scripts/validate-oci.py"))
        .arg(SCHEMAS)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().ok_or("no standard input")?;
    for (kind, path) in documents {
        writeln!(input, "{kind} {}", path.display())?;
    }
    drop(input);
    let output = child.wait_with_output()?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(errors.is_empty(), "the validator failed: {errors}");
    match output.status.code() {
        Some(0) => Ok(None),
        Some(1) => Ok(Some(told)),
        code => Err(format!("the validator ended with {code:?}: {told}").into()),
    }
}

/// All documents of a layout.
fn of_layout(folder: &Path, documents: &mut Vec<Document>) -> Result<()> {
    documents.push(("image-layout", folder.join("oci-layout")));
    let mut waiting = vec![(INDEX.to_owned(), folder.join("index.json"))];
    while let Some((media_type, path)) = waiting.pop() {
        let kind = match media_type.as_str() {
            INDEX => "image-index",
            MANIFEST => "image-manifest",
            CONFIG => "config",
            // Layers, and the configurations of caches.
            _ => continue,
        };
        let value: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        documents.push((kind, path));
        let listed = value["manifests"].as_array().into_iter().flatten();
        let config = (kind == "image-manifest").then_some(&value["config"]);
        for descriptor in listed.chain(config) {
            let media_type = descriptor["mediaType"].as_str().unwrap_or_default().to_owned();
            let digest = descriptor["digest"].as_str().unwrap_or_default();
            waiting.push((media_type, folder.join("blobs").join(digest.replace(':', "/"))));
        }
    }
    Ok(())
}

/// Unpacks an archive and adds its documents.
fn of_archive(fixture: &Fixture, archive: &Path, documents: &mut Vec<Document>) -> Result<()> {
    let folder = archive.with_extension("unpacked");
    std::fs::create_dir(&folder)?;
    run(fixture
        .tool("tar")
        .args(["--no-same-owner", "-xf"])
        .arg(archive)
        .arg("-C")
        .arg(&folder))?
    .success()?;
    of_layout(&folder, documents)
}

pub(crate) fn hold() -> TestResult {
    let python = Path::new("/usr/bin/python3");
    let module = python.exists()
        && std::process::Command::new(python)
            .args(["-c", "import jsonschema"])
            .stderr(Stdio::null())
            .status()?
            .success();
    if !module || !Path::new(SCHEMAS).is_dir() {
        return Ok(Outcome::Skipped(
            "python3-jsonschema or golang-github-opencontainers-image-spec-dev is not installed".to_owned(),
        ));
    }
    let registry = Registry::start()?;
    let fixture = fixture("schemas")?;
    let project = &fixture.project;
    let mut documents = Vec::new();
    for format in ["docker", "oci"] {
        of_archive(&fixture, &fixture.save(format)?, &mut documents)?;
    }
    // Of the same build, for two platforms: outputs, and caches.
    let [zstd, cache, inline] = ["zstd.tar", "cache", "inline.tar"].map(|name| project.scratch(name));
    project.write("amd64", "one")?;
    project.write("arm64", "two")?;
    project.write(
        "Dockerfile",
        "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\nHEALTHCHECK CMD true\nSHELL [\"/x\"]\nONBUILD RUN y\n\
         EXPOSE 1 2/udp\nVOLUME /a /b\nLABEL a=b\nSTOPSIGNAL 9\nMAINTAINER me\n",
    )?;
    let cache_name = format!("{}/schemas/cache:1", registry.host);
    let manifests_of_cache = format!("type=registry,ref={cache_name},mode=max");
    project.build(&[
        "--platform=linux/amd64,linux/arm64",
        &format!("--output=type=oci,dest={},compression=zstd", zstd.display()),
        &format!("--cache-to=type=local,dest={},mode=max", cache.display()),
        &format!("--cache-to={manifests_of_cache}"),
    ])?;
    project.build(&[
        "--platform=linux/amd64",
        &format!("--output=type=oci,dest={}", inline.display()),
        "--cache-to=type=inline",
        "--build-arg=SOURCE_DATE_EPOCH=0",
    ])?;
    of_archive(&fixture, &zstd, &mut documents)?;
    of_archive(&fixture, &inline, &mut documents)?;
    of_layout(&cache, &mut documents)?;
    // What a registry was given.
    let name = format!("{}/schemas/app:1", registry.host);
    project.build(&["--platform=linux/amd64,linux/arm64", "-t", &name])?;
    project.kiln.run(["push", &name])?.success()?;
    for (at, name) in [name, cache_name].iter().enumerate() {
        let value = registry.manifest(name)?;
        let path = project.scratch(&format!("pushed{at}.json"));
        std::fs::write(&path, value.to_string())?;
        let is_index = value["mediaType"] == INDEX;
        documents.push((if is_index { "image-index" } else { "image-manifest" }, path));
    }
    for (kind, least) in [
        ("config", 5),
        ("image-index", 6),
        ("image-layout", 5),
        ("image-manifest", 7),
    ] {
        let found = documents.iter().filter(|(other, _)| *other == kind).count();
        ensure!(found >= least, "only {found} documents are of the kind {kind}");
    }
    if let Some(told) = validate(&fixture, &documents)? {
        return Err(told.into());
    }
    // The validator does find what is wrong.
    let wrong = project.scratch("wrong.json");
    for (kind, text, expected) in [
        (
            "image-manifest",
            r#"{"schemaVersion":2,"layers":[]}"#,
            "'config' is a required property",
        ),
        (
            "config",
            r#"{"os":"linux","architecture":"x","rootfs":{"type":"x","diff_ids":[]}}"#,
            "/rootfs/type",
        ),
        (
            "image-index",
            r#"{"schemaVersion":1,"manifests":[]}"#,
            "/schemaVersion",
        ),
        (
            "image-index",
            r#"{"schemaVersion":2,"manifests":[{"mediaType":"x/y","size":1,"digest":"z"}]}"#,
            "/digest",
        ),
    ] {
        std::fs::write(&wrong, text)?;
        let told = validate(&fixture, &[(kind, wrong.clone())])?.unwrap_or_default();
        ensure!(told.contains(expected), "the validator told {told:?} of {text}");
    }
    Ok(Outcome::Passed)
}
