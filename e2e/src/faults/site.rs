//! A store with all that its users need around it: a registry, a server of files, folders for caches and archives.

use super::programs::{self, Work};
use crate::builder::{Ended, Kiln, run};
use crate::machine::TempFolder;
use crate::oci::{self, Image};
use crate::remote::Server;
use crate::server::Registry;
use crate::{Result, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What must come of a program.
#[derive(Debug, PartialEq, Eq)]
pub struct Content {
    /// The file tree with times.
    tree: BTreeMap<Vec<u8>, String>,
    /// The layers' digests, where they are always the same.
    diff_ids: Vec<String>,
    /// The config without times and layers.
    config: Value,
}

impl Content {
    /// What the image of a program holds, without the times of its build.
    pub fn of(work: Work, image: &Image) -> Self {
        let mut diff_ids = image.diff_ids.clone();
        let mut config = image.config.clone();
        config["created"] = Value::Null;
        for entry in config["history"].as_array_mut().into_iter().flatten() {
            entry["created"] = Value::Null;
        }
        config["rootfs"] = Value::Null;
        if !work.has_equal_layers() {
            diff_ids.clear();
        }
        Self {
            tree: image.tree.lines(true),
            diff_ids,
            config,
        }
    }

    /// Fails with the difference unless both are the same.
    pub fn expect(&self, found: &Self, what: &str) -> Result<()> {
        let missing = self
            .tree
            .iter()
            .filter(|(path, line)| found.tree.get(*path) != Some(line));
        let odd = found
            .tree
            .iter()
            .filter(|(path, line)| self.tree.get(*path) != Some(line));
        let lines: Vec<String> = missing
            .map(|(_, line)| format!("- {line}"))
            .chain(odd.map(|(_, line)| format!("+ {line}")))
            .take(20)
            .collect();
        ensure!(lines.is_empty(), "{what}: another tree:\n{}", lines.join("\n"));
        ensure!(
            self.config == found.config,
            "{what}: another config:\n- {}\n+ {}",
            self.config,
            found.config
        );
        ensure!(
            self.diff_ids == found.diff_ids,
            "{what}: equal trees in other layers:\n- {:?}\n+ {:?}",
            self.diff_ids,
            found.diff_ids
        );
        Ok(())
    }
}

/// The store under test and its surroundings. All goes away with the value.
#[derive(Debug)]
pub struct Site {
    /// Kiln with the store under test.
    pub kiln: Kiln,
    /// The registry that images and caches are pushed to.
    pub registry: Registry,
    /// Everything's folder.
    pub folder: TempFolder,
    base: String,
    url: String,
    /// What each program must come to.
    expected: BTreeMap<Work, Content>,
    /// The processes that the crew has started.
    started: Mutex<BTreeSet<u32>>,
}

impl Site {
    /// A registry with the base image, an empty store, and what each program comes to in a store that nothing
    /// happens to.
    pub fn new(name: &str) -> Result<Self> {
        let registry = Registry::start()?;
        let base = registry.push_base("busybox:latest", "busybox:latest", &[])?;
        let folder = TempFolder::new(name)?;
        for part in ["caches", "archives"] {
            std::fs::create_dir(folder.join(part))?;
        }
        let server = Server::start()?;
        let headers = [
            ("ETag", "\"one\""),
            ("Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT"),
        ];
        server.put("/three", programs::page(), &headers);
        let mut site = Self {
            kiln: Kiln::new(&folder)?,
            registry,
            base,
            url: server.url("/three"),
            expected: BTreeMap::new(),
            started: Mutex::default(),
            folder,
        };
        let fresh = Fresh::new()?;
        for work in Work::all() {
            let ended = run(&mut site.build(&fresh.kiln, "fresh", work, &[] as &[&str])?)?;
            ended.success()?;
            let image = site.export(&fresh.kiln, &site.image(work), &fresh.folder)?;
            site.expected.insert(work, Content::of(work, &image));
        }
        Ok(site)
    }

    /// Notes that a process was started.
    pub fn note_started(&self, pid: u32) {
        self.started
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(pid);
    }

    /// The processes that were started.
    pub fn started(&self) -> BTreeSet<u32> {
        self.started
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The image of a program, by its name in the registry.
    pub fn image(&self, work: Work) -> String {
        format!("{}/app:{}", self.registry.host, work.tag())
    }

    /// The cache of a program in the registry.
    pub fn registry_cache(&self, work: Work) -> String {
        format!("type=registry,ref={}/cache:{}", self.registry.host, work.name())
    }

    /// The folder of a program's cache.
    pub fn cache_folder(&self, work: Work) -> PathBuf {
        self.folder.join("caches").join(work.name())
    }

    /// The archive that an image is saved to.
    pub fn archive(&self, work: Work) -> PathBuf {
        self.folder.join("archives").join(format!("{}.tar", work.tag()))
    }

    /// The command line that builds a program with further arguments. Each builder has a context of its own, which is
    /// given the work's form first.
    pub fn build<A: AsRef<str>>(
        &self,
        kiln: &Kiln,
        builder: &str,
        work: Work,
        arguments: &[A],
    ) -> Result<std::process::Command> {
        let context = self.folder.join(format!("contexts/{builder}/{}", work.name()));
        programs::write_context(work, &context, &self.base, &self.url)?;
        let mut all: Vec<OsString> = ["build", "--progress", "plain", "-t", &self.image(work)]
            .map(OsString::from)
            .into();
        all.push(format!("--build-arg=VARIANT={}", work.variant).into());
        all.extend(arguments.iter().map(|argument| argument.as_ref().into()));
        all.push(context.into());
        Ok(kiln.command(all))
    }

    /// Exports an image of a store and reads it.
    pub fn export(&self, kiln: &Kiln, name: &str, scratch: &TempFolder) -> Result<Image> {
        let archive = scratch.join("export.tar");
        let save = [
            "save".into(),
            "--format=oci".into(),
            "-o".into(),
            archive.clone().into_os_string(),
            name.into(),
        ];
        kiln.run::<OsString>(save)?.success()?;
        let image = oci::read(&archive);
        std::fs::remove_file(archive)?;
        image
    }

    /// Fails unless an image is what the program must come to.
    pub fn expect(&self, work: Work, image: &Image, what: &str) -> Result<()> {
        let what = format!("{what}, {}", work.tag());
        let expected = self.expected.get(&work).ok_or("an unknown program")?;
        expected.expect(&Content::of(work, image), &what)?;
        ensure!(image.problems.is_empty(), "{what}: {:?}", image.problems);
        Ok(())
    }

    /// Runs Kiln on the store under test to its end.
    pub fn run(&self, arguments: &[&str]) -> Result<Ended> {
        self.kiln.run(arguments.iter().copied())
    }

    /// The tags of a repository of the registry; none when there is none.
    pub fn tags(&self, repository: &str) -> Result<BTreeSet<String>> {
        let tags = self.registry.data().join(format!(
            "docker/registry/v2/repositories/{repository}/_manifests/tags"
        ));
        names(&tags)
    }
}

/// The names in a folder; none when there is none.
pub fn names(folder: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        names.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// A store that nothing happened to.
#[derive(Debug)]
pub struct Fresh {
    /// Kiln with it.
    pub kiln: Kiln,
    /// Its folder, with room for other files.
    pub folder: TempFolder,
}

impl Fresh {
    /// An empty one.
    pub fn new() -> Result<Self> {
        let folder = TempFolder::new("fresh")?;
        Ok(Self {
            kiln: Kiln::new(&folder)?,
            folder,
        })
    }
}
