//! An image with everything that a layer can hold, and what is done with it.

use kiln_e2e::builder::{Kiln, run};
use kiln_e2e::machine::{self, TempFolder};
use kiln_e2e::oci::{self, Image};
use kiln_e2e::project::Project;
use kiln_e2e::server::Registry;
use kiln_e2e::{Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

const DOCKERFILE: &str = r#"FROM busybox:latest
RUN mkdir -p /d/opaque /d/gone /odd && echo one > /d/f && echo in > /d/opaque/in && echo x > /d/gone/x && \
    ln -s f /d/soft && ln -s /nowhere/at/all /d/broken && mkfifo /d/pipe && \
    chown 12:34 /d/f && chmod 4751 /d/f && ln /d/f /d/hard && chmod 1777 /odd
RUN touch "/odd/with space" "/odd/$(printf 'new\nline')" "/odd/$(printf '\377\376')" /odd/-dash "/odd/=equal" /odd/日本 && \
    touch "/odd/$(printf 'n%.0s' $(seq 255))" && \
    mkdir -p "/odd/$(printf 'long-directory-%.0s/' $(seq 12))" && chown -h 1000:1001 /odd/-dash /d/soft
RUN rm -r /d/opaque /d/gone/x && mkdir /d/opaque && echo out > /d/opaque/out && rm /bin/false && ln /d/f /odd/harder
ADD attributes.tar /attributes/
@ROOT@
COPY big /big
ENV A=b SPACED="x y"
LABEL l="x y" empty=""
EXPOSE 80/tcp
VOLUME /v
USER 12:34
WORKDIR /d
STOPSIGNAL SIGQUIT
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["id"]
"#;

/// What only root can do: owners beyond all ranges of sub-ids.
const ROOT_ONLY: &str = "RUN touch /odd/owned && chown 4000000000:2097152 /odd/owned";

/// The image, built.
pub(crate) struct Fixture {
    pub(crate) project: Project,
    pub(crate) built: Image,
}

/// Builds the image.
pub(crate) fn fixture(name: &str) -> Result<Fixture> {
    let only_root = if machine::is_root() { ROOT_ONLY } else { "" };
    let dockerfile = DOCKERFILE.replace("@ROOT@", only_root);
    let big = "0123456789abcdef".repeat(50_000);
    let project = Project::new(name, &[("Dockerfile", &dockerfile), ("big", &big)])?;
    attributes(&project)?;
    project.build(&[])?;
    let built = project.image()?;
    let xattrs = |path: &str| built.tree.get(path).map(|node| node.xattrs.len());
    let expected = if machine::is_root() { Some(2) } else { Some(1) };
    ensure!(
        xattrs("/attributes/f") == expected,
        "the file has {:?} attributes",
        xattrs("/attributes/f")
    );
    let whiteouts = ["/bin/false", "/d/opaque/in", "/d/gone/x"];
    let left = whiteouts.iter().find(|path| built.tree.get(path).is_some());
    ensure!(left.is_none(), "{left:?} is still there");
    Ok(Fixture { project, built })
}

/// An archive with extended attributes; as root, with a capability too.
fn attributes(project: &Project) -> Result<()> {
    let folder = project.scratch("attributes");
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("f"), "text")?;
    let tool = |program: &str| machine::command(program, &project.scratch("."));
    let mut options = vec!["--pax-option=SCHILY.xattr.user.note:=text"];
    if machine::is_root() {
        // CAP_NET_BIND_SERVICE, permitted and effective. An option of tar cannot hold the zero bytes.
        run(tool("setfattr")
            .args([
                "-n",
                "security.capability",
                "-v",
                "0x0100000200040000000000000000000000000000",
            ])
            .arg(folder.join("f")))?
        .success()?;
        run(tool("setfattr")
            .args(["-n", "user.note", "-v", "text"])
            .arg(folder.join("f")))?
        .success()?;
        options = vec!["--xattrs", "--xattrs-include=*"];
    }
    run(tool("tar")
        .args(["--format=pax", "--numeric-owner", "--owner=0", "--group=0"])
        .args(options)
        .arg("-C")
        .arg(&folder)
        .arg("-cf")
        .arg(project.path("attributes.tar"))
        .arg("f"))?
    .success()?;
    Ok(())
}

impl Fixture {
    /// A command of another program.
    pub(crate) fn tool(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        machine::command(program, &self.project.scratch("."))
    }

    /// Pushes the image under a name in the registry; its digest there is given too.
    pub(crate) fn push(
        &self,
        registry: &Registry,
        name: &str,
        arguments: &[&str],
    ) -> Result<(String, String)> {
        let name = format!("{}/{name}", registry.host);
        let tag = &self.project.request.tag;
        self.project.kiln.run(["tag", tag, &name])?.success()?;
        self.project
            .kiln
            .run([&["push"], arguments, &[&name]].concat())?
            .success()?;
        let digest = registry.raw_digest(&name)?;
        Ok((name, digest))
    }

    /// Saves the image.
    pub(crate) fn save(&self, format: &str) -> Result<PathBuf> {
        let archive = self.project.scratch(&format!("by-kiln-{format}.tar"));
        let mut command = self.project.kiln.command(["save", "--format", format, "-o"]);
        run(command.arg(&archive).arg(&self.project.request.tag))?.success()?;
        Ok(archive)
    }

    /// An archive of another tool has the image.
    pub(crate) fn is_in(&self, archive: &Path) -> Result<()> {
        let image = oci::read(archive).map_err(|error| format!("{}: {error}", archive.display()))?;
        same(&image, &self.built).map_err(|error| format!("{}: {error}", archive.display()).into())
    }

    /// A fresh store gets the image from an archive or folder.
    pub(crate) fn comes_back_in(&self, archive: &Path) -> Result<Fresh> {
        let fresh = Fresh::new()?;
        let told = run(fresh.kiln.command(["load", "-i"]).arg(archive))?
            .success()?
            .stdout;
        let name = told
            .lines()
            .find_map(|line| {
                line.strip_prefix("Loaded image: ")
                    .or(line.strip_prefix("Loaded image ID: "))
            })
            .ok_or_else(|| format!("load of {} told {told:?}", archive.display()))?;
        let image = fresh.image(name)?;
        same(&image, &self.built).map_err(|error| format!("{}: {error}", archive.display()))?;
        Ok(fresh.named(name))
    }

    /// A fresh store gets the image from a registry.
    pub(crate) fn comes_back_from(&self, name: &str) -> Result<()> {
        let fresh = Fresh::new()?;
        fresh.kiln.run(["pull", name])?.success()?;
        same(&fresh.image(name)?, &self.built).map_err(|error| format!("{name}: {error}").into())
    }
}

/// Kiln with an empty store.
pub(crate) struct Fresh {
    pub(crate) kiln: Kiln,
    pub(crate) folder: TempFolder,
    /// What was loaded into it.
    pub(crate) name: String,
}

impl Fresh {
    pub(crate) fn new() -> Result<Self> {
        let folder = TempFolder::new("fresh")?;
        Ok(Self {
            kiln: Kiln::new(&folder)?,
            folder,
            name: String::new(),
        })
    }

    fn named(self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..self
        }
    }

    /// An image of the store.
    pub(crate) fn image(&self, name: &str) -> Result<Image> {
        let archive = self.folder.join("image.tar");
        run(self
            .kiln
            .command(["save", "--format", "oci", "-o"])
            .arg(&archive)
            .arg(name))?
        .success()?;
        oci::read(&archive)
    }

    /// Loads bytes from standard input.
    pub(crate) fn load(&self, archive: &Path, arguments: &[&str]) -> Result<kiln_e2e::builder::Ended> {
        let mut command = self.kiln.command([&["load"], arguments].concat());
        run(command.stdin(std::fs::File::open(archive)?))
    }

    /// The names and ids of all images.
    pub(crate) fn images(&self) -> Result<String> {
        Ok(self
            .kiln
            .run(["images", "--no-trunc", "--format", "json"])?
            .success()?
            .stdout)
    }
}

/// The same layers, files and configuration. Others may write the configuration's JSON in another way.
pub(crate) fn same(one: &Image, other: &Image) -> Result<()> {
    ensure!(
        one.diff_ids == other.diff_ids,
        "the DiffIDs differ: {:?} and {:?}",
        one.diff_ids,
        other.diff_ids
    );
    let changes = one.tree.changes_since(&other.tree, true);
    ensure!(changes.is_empty(), "the trees differ: {changes:#?}");
    let [left, right] = [one, other].map(|image| oci::build_config(&image.config));
    ensure!(left == right, "the configurations differ:\n{left}\n{right}");
    ensure!(
        one.config["history"].as_array().map(Vec::len) == other.config["history"].as_array().map(Vec::len),
        "the histories differ"
    );
    Ok(())
}

/// A folder as a tar.
pub(crate) fn tar_of(folder: &Path, tar: &Path) -> Result<()> {
    run(machine::command("tar", folder)
        .args([
            "--format=pax",
            "--numeric-owner",
            "--xattrs",
            "--xattrs-include=*",
            "-C",
        ])
        .arg(folder)
        .arg("-cf")
        .arg(tar)
        .arg("."))?
    .success()?;
    Ok(())
}
