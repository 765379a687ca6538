//! Archives that are made to hurt.

use crate::fixture::Fresh;
use kiln_e2e::builder::run;
use kiln_e2e::machine;
use kiln_e2e::oci::sha256;
use kiln_e2e::project::Project;
use kiln_e2e::trial::{Outcome, TestResult};
use kiln_e2e::{Result, bail, ensure};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant};

/// What stands in a tar.
enum Member<'a> {
    File(&'a [u8]),
    Symlink(&'a str),
    HardLink(&'a str),
    Fifo,
}

/// A tar, whatever the names in it are.
fn tar(members: &[(&str, Member<'_>)]) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, member) in members {
        let mut header = tar::Header::new_ustar();
        let (kind, bytes, link): (_, &[u8], &str) = match member {
            Member::File(bytes) => (tar::EntryType::Regular, bytes, ""),
            Member::Symlink(target) => (tar::EntryType::Symlink, b"", target),
            Member::HardLink(target) => (tar::EntryType::Link, b"", target),
            Member::Fifo => (tar::EntryType::Fifo, b"", ""),
        };
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(bytes.len() as u64);
        // The crate refuses to write such names.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, bytes)?;
    }
    Ok(builder.into_inner()?)
}

fn config(layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|layer| format!("sha256:{}", sha256(layer)))
        .collect();
    json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["x"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    .to_string()
    .into_bytes()
}

/// A Docker archive with an image of one layer whose DiffID is that of `stated`.
fn image(layer: &[u8], stated: &[u8]) -> Result<Vec<u8>> {
    let list = json!([{"Config": "c.json", "RepoTags": ["bad:1"], "Layers": ["l"]}]).to_string();
    tar(&[
        ("c.json", Member::File(&config(&[stated]))),
        ("l", Member::File(layer)),
        ("manifest.json", Member::File(list.as_bytes())),
    ])
}

/// An OCI layout whose only blob `blob` is called as if it were `name`.
fn layout(name: &[u8], blob: &[u8]) -> Result<Vec<u8>> {
    let entry = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": format!("sha256:{}", sha256(name)), "size": name.len()});
    let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
    tar(&[
        (&format!("blobs/sha256/{}", sha256(name)), Member::File(blob)),
        ("index.json", Member::File(index.as_bytes())),
        ("oci-layout", Member::File(br#"{"imageLayoutVersion":"1.0.0"}"#)),
    ])
}

/// What is left over below the store's folder for work in progress. A process that ends while another thread of it
/// still holds the store leaves its lock, which the next one sweeps.
fn leftovers(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for owner in std::fs::read_dir(root.join("tmp"))? {
        let owner = owner?.path();
        if owner.is_dir() {
            for entry in std::fs::read_dir(&owner)? {
                let entry = entry?;
                if entry.file_name() != "lock" {
                    found.push(entry.path().display().to_string());
                }
            }
        }
    }
    Ok(found)
}

/// The store has no image, no half a thing, and no damage.
fn untouched(fresh: &Fresh) -> Result<()> {
    ensure!(
        fresh.images()?.is_empty(),
        "there are images: {}",
        fresh.images()?
    );
    let left = leftovers(&fresh.kiln.root)?;
    ensure!(left.is_empty(), "left over: {left:?}");
    fresh.kiln.run(["cache", "verify"])?.success()?;
    Ok(())
}

pub(crate) fn refused() -> TestResult {
    let good = tar(&[("f", Member::File(b"text"))])?;
    let fresh = Fresh::new()?;
    let outside = fresh.folder.join("outside");
    std::fs::create_dir(&outside)?;
    let victim = outside.display().to_string();
    let escaping = tar(&[("../../../escaped", Member::File(b"x"))])?;
    let through = tar(&[("d", Member::Symlink(&victim)), ("d/escaped", Member::File(b"x"))])?;
    let linked = format!("{victim}/secret");
    std::fs::write(&linked, "secret")?;
    let hard = tar(&[("h", Member::HardLink(&linked))])?;
    let link_to_layer = {
        let list = json!([{"Config": "c.json", "RepoTags": ["bad:1"], "Layers": ["l"]}]).to_string();
        let members = |member| {
            tar(&[
                ("c.json", Member::File(&config(&[b"secret"]))),
                ("l", member),
                ("manifest.json", Member::File(list.as_bytes())),
            ])
        };
        [
            members(Member::Symlink(&linked))?,
            members(Member::HardLink(&linked))?,
            members(Member::Fifo)?,
        ]
    };
    let [symlink, hard_link, fifo] = link_to_layer;
    let whole = image(&good, &good)?;
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&whole)?;
        encoder.finish()?
    };
    let nothing: Value = json!([]);
    let cases: [(&str, Vec<u8>, &str); 12] = [
        (
            "another layer than the configuration says",
            image(&good, b"other")?,
            "where the configuration says",
        ),
        (
            "a layer that is no tar",
            image(&[7; 4096], &[7; 4096])?,
            "failed to unpack layer",
        ),
        (
            "a layer that is cut",
            image(&good[..600], &good[..600])?,
            "failed to unpack layer",
        ),
        (
            "a layer with a link to a file of the host",
            image(&hard, &hard)?,
            "failed to unpack layer",
        ),
        (
            "a symbolic link instead of a layer",
            symlink,
            "is a link that leads out of the archive",
        ),
        (
            "a hard link instead of a layer",
            hard_link,
            "is a link that leads out of the archive",
        ),
        (
            "a pipe instead of a layer",
            fifo,
            "the archive has no l, which manifest.json needs",
        ),
        (
            "a blob that is another",
            layout(b"{}", b"[]")?,
            "of the archive has the digest sha256:",
        ),
        (
            "an archive's file that climbs out",
            tar(&[("../escaped", Member::File(b"x"))])?,
            "leads out of the archive",
        ),
        (
            "an archive cut in the middle",
            whole[..700].to_vec(),
            "failed to read the archive",
        ),
        (
            "a compressed archive cut at its end",
            gzip[..gzip.len() - 6].to_vec(),
            "failed to read the archive",
        ),
        (
            "no image at all",
            tar(&[("manifest.json", Member::File(nothing.to_string().as_bytes()))])?,
            "the archive names no image",
        ),
    ];
    let file = fresh.folder.join("hostile.tar");
    for (about, bytes, expected) in cases {
        std::fs::write(&file, bytes)?;
        let told = fresh
            .load(&file, &[])?
            .failure(1)
            .map_err(|error| format!("{about}: {error}"))?;
        ensure!(
            told.contains(expected),
            "{about}: load told {told:?} and not {expected:?}"
        );
        untouched(&fresh).map_err(|error| format!("{about}: {error}"))?;
        let there: Vec<_> = std::fs::read_dir(&outside)?.collect();
        ensure!(
            there.len() == 1,
            "{about}: files were written to a folder of the host: {there:?}"
        );
    }
    // The very same archives are in order where nothing is wrong with them.
    std::fs::write(&file, whole)?;
    let told = fresh.load(&file, &[])?.success()?.stdout;
    ensure!(told == "Loaded image: bad:1\n", "the good archive told {told:?}");
    // As with Docker, `..` ends at the image's root, and links of a layer lead to what is in the image.
    for layer in [&escaping, &through] {
        std::fs::write(&file, image(layer, layer)?)?;
        fresh.load(&file, &[])?.success()?;
        let found = run(machine::command("find", fresh.folder.path())
            .arg(fresh.folder.path())
            .args(["-name", "escaped"]))?
        .success()?
        .stdout;
        ensure!(!found.is_empty(), "the file is not in the layer");
        let outside = found.lines().find(|path| !path.contains("/layers/sha256-"));
        ensure!(outside.is_none(), "a file was written to {outside:?}");
    }
    Ok(Outcome::Passed)
}

pub(crate) fn all_or_nothing() -> TestResult {
    let [one, two, three] = ["one", "two", "three"].map(|text| tar(&[("f", Member::File(text.as_bytes()))]));
    let (one, two, three) = (one?, two?, three?);
    let fresh = Fresh::new()?;
    let file = fresh.folder.join("archive.tar");
    let archive = |first: &[u8], second: Option<(&[u8], &[u8])>| -> Result<Vec<u8>> {
        let mut list = vec![json!({"Config": "1.json", "RepoTags": ["app:1"], "Layers": ["1"]})];
        let configs = [
            config(&[first]),
            config(&[second.map_or(&[], |(_, stated)| stated)]),
        ];
        let mut members = vec![("1", Member::File(first)), ("1.json", Member::File(&configs[0]))];
        if let Some((layer, _)) = second {
            list.push(json!({"Config": "2.json", "RepoTags": ["app:2"], "Layers": ["2"]}));
            members.extend([("2", Member::File(layer)), ("2.json", Member::File(&configs[1]))]);
        }
        let list = json!(list).to_string();
        members.push(("manifest.json", Member::File(list.as_bytes())));
        tar(&members)
    };
    std::fs::write(&file, archive(&one, None)?)?;
    fresh.load(&file, &[])?.success()?;
    let before = fresh.images()?;
    std::fs::write(&file, archive(&two, Some((&three, b"not its digest")))?)?;
    let told = fresh.load(&file, &[])?.failure(1)?;
    ensure!(
        told.contains("where the configuration says"),
        "load told {told:?}"
    );
    ensure!(
        fresh.images()? == before,
        "the images are {} now",
        fresh.images()?
    );
    std::fs::write(&file, archive(&two, Some((&three, &three)))?)?;
    let told = fresh.load(&file, &[])?.success()?.stdout;
    ensure!(
        told.contains("renaming the old one") && told.ends_with("Loaded image: app:1\nLoaded image: app:2\n"),
        "load told {told:?}"
    );
    Ok(Outcome::Passed)
}

/// A layer that the store has already is no excuse for other bytes, which could go out in its place.
pub(crate) fn pretending() -> TestResult {
    let project = Project::with_bases(
        "pretending",
        &[],
        &[("Dockerfile", "FROM scratch\nCOPY f /\n"), ("f", "text")],
    )?;
    project.build(&[])?;
    let built = project.image()?;
    let saved = project.scratch("saved.tar");
    run(project
        .kiln
        .command(["save", "-o"])
        .arg(&saved)
        .arg(&project.request.tag))?
    .success()?;
    let fresh = Fresh::new()?;
    fresh.load(&saved, &[])?.success()?;
    let config = json!({"author": "me", "architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": built.diff_ids}})
    .to_string();
    let list = json!([{"Config": "c.json", "RepoTags": ["other:1"], "Layers": ["l"]}]).to_string();
    let file = fresh.folder.join("hostile.tar");
    std::fs::write(
        &file,
        tar(&[
            ("c.json", Member::File(config.as_bytes())),
            ("l", Member::File(&tar(&[("g", Member::File(b"other"))])?)),
            ("manifest.json", Member::File(list.as_bytes())),
        ])?,
    )?;
    let told = fresh.load(&file, &[])?.failure(1)?;
    ensure!(
        told.contains("where the configuration says"),
        "load told {told:?}"
    );
    let image = fresh.image(&project.request.tag)?;
    ensure!(image.id == built.id, "the image became {}", image.id);
    Ok(Outcome::Passed)
}

/// A load that has got half of an archive, and has put something of it beside the store.
fn half_loaded(fresh: &Fresh, whole: &[u8]) -> Result<(Child, ChildStdin)> {
    let mut child = fresh
        .kiln
        .command(["load"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut input = child.stdin.take().ok_or("no standard input")?;
    input.write_all(&whole[..whole.len() / 2])?;
    let deadline = Instant::now() + Duration::from_mins(1);
    while !fresh.kiln.root.join("tmp").exists() || leftovers(&fresh.kiln.root)?.is_empty() {
        ensure!(Instant::now() < deadline, "nothing appears in tmp/");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok((child, input))
}

pub(crate) fn ended() -> TestResult {
    let layer = tar(&[("f", Member::File(&vec![7; 1 << 20]))])?;
    let fresh = Fresh::new()?;
    let (mut child, input) = half_loaded(&fresh, &image(&layer, &layer)?)?;
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    let deadline = Instant::now() + Duration::from_secs(20);
    // The archive's other half never comes, and its end neither.
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("it still waits after a signal");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    drop(input);
    ensure!(status.code() == Some(143), "it ended with {status}");
    untouched(&fresh)?;
    Ok(Outcome::Passed)
}

pub(crate) fn killed() -> TestResult {
    let layer = tar(&[("f", Member::File(&vec![7; 1 << 20]))])?;
    let whole = image(&layer, &layer)?;
    let fresh = Fresh::new()?;
    let (mut child, input) = half_loaded(&fresh, &whole)?;
    child.kill()?;
    child.wait()?;
    drop(input);
    let file = fresh.folder.join("whole.tar");
    std::fs::write(&file, &whole)?;
    fresh.load(&file, &[])?.success()?;
    let left = leftovers(&fresh.kiln.root)?;
    ensure!(left.is_empty(), "left over: {left:?}");
    fresh.kiln.run(["cache", "verify"])?.success()?;
    Ok(Outcome::Passed)
}
