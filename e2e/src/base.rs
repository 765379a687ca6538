//! Base images: root file system tars made from distribution packages by `scripts/make-base-images.sh`.

use crate::{Result, bail, ensure, machine, oci};
use serde_json::{Value, json};
use std::fs::File;
use std::path::{Path, PathBuf};

/// A base image.
#[derive(Debug, Clone)]
pub struct Base {
    /// `name:tag` as Dockerfiles name it.
    pub reference: String,
    /// The tar of the root file system.
    pub tar: PathBuf,
    /// What `--change` gives it, in Dockerfile syntax.
    pub changes: Vec<String>,
}

/// Images that are busybox with another config: the reference and what `--change` gives it.
const CONFIGURED: &[(&str, &[&str])] = &[
    ("bare:1", &[]),
    (
        "configured:1",
        &[
            "ENV PATH=/bin",
            "ENV A=of-the-base",
            "CMD [\"base\", \"command\"]",
            "ENTRYPOINT [\"/bin/base\"]",
            "EXPOSE 80/tcp",
            "HEALTHCHECK --interval=5s --retries=7 CMD [\"base-check\"]",
            "LABEL of=base",
            "STOPSIGNAL SIGQUIT",
            "USER 1000:1001",
            "VOLUME /data",
            "WORKDIR /absent/folder",
        ],
    ),
    (
        "triggers:1",
        &[
            "ENV PATH=/bin",
            "ONBUILD RUN echo first >> /log",
            "ONBUILD COPY f /f",
            "ONBUILD ARG V=of-the-trigger",
            "ONBUILD RUN echo \"second $V\" >> /log",
            "ONBUILD LABEL by=trigger",
        ],
    ),
    (
        "failing-trigger:1",
        &["ENV PATH=/bin", "ONBUILD COPY no-such-file /x"],
    ),
];

/// The base image of a reference, made now when this machine does not have it.
pub fn base(reference: &str) -> Result<Base> {
    if let Some((_, changes)) = CONFIGURED.iter().find(|(name, _)| *name == reference) {
        return Ok(Base {
            reference: reference.to_owned(),
            tar: base("busybox:latest")?.tar,
            changes: changes.iter().map(|&change| change.to_owned()).collect(),
        });
    }
    let folder = std::env::var_os("KILN_E2E_BASES")
        .map_or_else(|| machine::temp_folder().join("kiln-e2e-bases"), PathBuf::from);
    let name = reference.replace(':', "-");
    let (tar, changes) = (
        folder.join(format!("{name}.tar")),
        folder.join(format!("{name}.changes")),
    );
    if !(tar.exists() && changes.exists()) {
        let script = machine::checkout().join("scripts/make-base-images.sh");
        let status = std::process::Command::new(&script)
            .args(["--tars-only", "--cache"])
            .arg(&folder)
            .arg(reference)
            .status()
            .map_err(|error| format!("{}: {error}", script.display()))?;
        ensure!(status.success(), "{} cannot make {reference}", script.display());
    }
    let changes = std::fs::read_to_string(&changes)?
        .lines()
        .map(str::to_owned)
        .collect();
    Ok(Base {
        reference: reference.to_owned(),
        tar,
        changes,
    })
}

impl Base {
    /// The container config that the changes make.
    fn config(&self) -> Result<Value> {
        let (mut env, mut cmd) = (Vec::new(), Value::Null);
        for change in &self.changes {
            match change.split_once(' ') {
                Some(("ENV", value)) => env.push(value),
                Some(("CMD", value)) => cmd = serde_json::from_str(value)?,
                _ => bail!("change {change:?} is not known here"),
            }
        }
        Ok(json!({"Env": env, "Cmd": cmd}))
    }

    /// Writes the image as an OCI archive, without Kiln: for registries and peers.
    pub fn write_oci_archive(&self, archive: &Path) -> Result<()> {
        let layer = std::fs::read(&self.tar)?;
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = json!({
            "created": "2026-01-01T00:00:00Z", "architecture": architecture, "os": "linux", "config": self.config()?,
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", oci::sha256(&layer))]},
            "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "import"}],
        });
        let config = config.to_string().into_bytes();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &layer)?;
        let layer = gzip.finish()?;
        let descriptor = |bytes: &[u8], media_type: &str| {
            json!({"mediaType": format!("application/vnd.oci.image.{media_type}"),
                "digest": format!("sha256:{}", oci::sha256(bytes)), "size": bytes.len()})
        };
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor(&config, "config.v1+json"), "layers": [descriptor(&layer, "layer.v1.tar+gzip")],
        });
        let manifest = manifest.to_string().into_bytes();
        let mut entry = descriptor(&manifest, "manifest.v1+json");
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": self.reference});
        let index = json!({"schemaVersion": 2, "manifests": [entry]})
            .to_string()
            .into_bytes();

        let mut tar = tar::Builder::new(File::create(archive)?);
        let blob = |bytes: &[u8]| format!("blobs/sha256/{}", oci::sha256(bytes));
        let layout = br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec();
        let files = [
            (blob(&layer), layer),
            (blob(&config), config),
            (blob(&manifest), manifest),
        ];
        for (name, bytes) in files
            .into_iter()
            .chain([("index.json".into(), index), ("oci-layout".into(), layout)])
        {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, bytes.as_slice())?;
        }
        Ok(tar.into_inner()?.sync_data()?)
    }
}
