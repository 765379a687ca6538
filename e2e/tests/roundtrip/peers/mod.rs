//! The other tools.

mod docker;
mod podman;
mod skopeo;

use crate::fixture::Fixture;
use kiln_e2e::oci;
use kiln_e2e::{Result, ensure};
use serde_json::Value;
use std::path::Path;

pub(crate) use docker::dockerd;
pub(crate) use podman::podman;
pub(crate) use skopeo::{index, skopeo, umoci};

/// How the image is pushed, and which archives skopeo and podman write of it: Docker's form with zstd is none of them.
const COMPRESSIONS: [(&[&str], &[&str]); 2] = [
    (&[], &["oci-archive", "docker-archive"]),
    (&["--compression", "zstd"], &["oci-archive"]),
];

/// `inspect` of Docker and podman tells of the image what is so.
fn inspection_fits(inspected: &Value, fixture: &Fixture) -> Result<()> {
    ensure!(
        inspected["RootFS"]["Layers"] == fixture.built.config["rootfs"]["diff_ids"],
        "the layers are {}",
        inspected["RootFS"]["Layers"]
    );
    for field in [
        "Env",
        "Cmd",
        "Entrypoint",
        "User",
        "WorkingDir",
        "Labels",
        "StopSignal",
        "ExposedPorts",
        "Volumes",
    ] {
        let (found, wanted) = (
            &inspected["Config"][field],
            &fixture.built.config["config"][field],
        );
        ensure!(found == wanted, "{field} is {found} instead of {wanted}");
    }
    Ok(())
}

/// The files of a container that never ran are those of the image. Engines add places for their mounts, and export no
/// `user.` attributes.
fn exported_fits(tar: &Path, fixture: &Fixture) -> Result<()> {
    let added = |path: &[u8]| {
        let path = String::from_utf8_lossy(path);
        let top = path.split('/').next().unwrap_or_default();
        matches!(top, ".dockerenv" | "dev" | "proc" | "sys" | "run" | "etc" | "v")
    };
    let [exported, built] = [oci::read_root_tar(tar)?, fixture.built.tree.clone()].map(|mut tree| {
        tree.nodes.retain(|path, _| !added(path));
        for node in tree.nodes.values_mut() {
            node.xattrs.retain(|name, _| name == b"security.capability");
        }
        tree
    });
    ensure!(
        exported.nodes.len() > 300,
        "only {} files were exported",
        exported.nodes.len()
    );
    let changes = exported.changes_since(&built, false);
    ensure!(changes.is_empty(), "the exported files differ: {changes:#?}");
    Ok(())
}
