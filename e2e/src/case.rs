//! A folder of `testdata/build`: a build, and what must come out of it.
//!
//! - `context/`: the context with its `Dockerfile`.
//! - `extra/` (optional): what lies outside of the context, such as named contexts.
//! - `setup.sh` (optional): run inside a copy of the context, makes what git cannot hold (links, pipes, modes, owners).
//!   The copy of `extra` is `$EXTRA`.
//! - `case.toml`: see [`Settings`].
//! - `expected.tree`: everything that the result's file tree has other than its base's, a line a path.
//! - `expected-config.json`: the config that the build decides, see [`crate::oci::build_config`].
//!
//! The two expectations are rewritten by a run with `KILN_E2E_BLESS=1`.

use crate::base::base;
use crate::builder::{Builder, Ended, Request};
use crate::differences::{Differences, Facts};
use crate::machine::{self, TempFolder};
use crate::oci::{self, Image};
use crate::tree::Tree;
use crate::trial::Outcome;
use crate::{Result, bail, ensure, progress};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `case.toml` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The one thing that the case shows.
    pub about: String,
    /// The image that the result's tree is compared with, or `scratch`.
    #[serde(default = "busybox")]
    pub base: String,
    /// Images that the build needs besides its base.
    #[serde(default)]
    pub images: Vec<String>,
    /// What the machine must have: `root`, `network`.
    #[serde(default)]
    pub needs: Vec<Need>,
    /// Arguments of `build`, in Docker's syntax. `@CONTEXT@` stands for the context folder, `@EXTRA@` for the other.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// What is built instead of the context folder, such as `-`; as an argument.
    pub context: Option<String>,
    /// The file that standard input reads; as an argument.
    pub stdin: Option<String>,
    /// Whether the tree's lines tell modification times too.
    #[serde(default)]
    pub times: bool,
    /// Words that the progress output must hold.
    #[serde(default)]
    pub output: Vec<String>,
    /// Words that the progress output must not hold.
    #[serde(default)]
    pub no_output: Vec<String>,
    /// The build must fail, and how.
    pub error: Option<Failure>,
    /// Paths (`*` for any text) whose content is another one at each build, whoever builds, and why.
    #[serde(default)]
    pub volatile: BTreeMap<String, String>,
    /// Peers that do something else on purpose: the peer's name and why. They are not asked about this case.
    #[serde(default)]
    pub differs: BTreeMap<String, String>,
}

/// How a build must fail.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Exit code.
    #[serde(default = "one")]
    pub exit: i32,
    /// Words that standard error must hold, letter case aside.
    pub stderr: Vec<String>,
}

/// What a machine may lack.
#[derive(Debug, Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    /// Root.
    Root,
    /// The package indices of the world.
    Network,
}

fn busybox() -> String {
    "busybox:latest".to_owned()
}

fn one() -> i32 {
    1
}

/// A case as it lies in its folder.
#[derive(Debug)]
pub struct Case {
    /// The folder's name.
    pub name: String,
    folder: PathBuf,
    /// Its `case.toml`.
    pub settings: Settings,
}

/// What a successful build came to.
#[derive(Debug)]
pub struct Built {
    /// The image.
    pub image: Image,
    /// The tree without times of the base.
    pub base: Tree,
}

impl Case {
    /// All cases of `testdata/build`, by name.
    pub fn all() -> Result<Vec<Self>> {
        Self::all_in("build")
    }

    /// All cases of a folder of `testdata`, by name.
    pub fn all_in(folder: &str) -> Result<Vec<Self>> {
        let folder = machine::testdata().join(folder);
        let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut cases = Vec::new();
        for entry in entries {
            cases.push(Self::load(&entry?.path())?);
        }
        cases.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(cases)
    }

    fn load(folder: &Path) -> Result<Self> {
        let file = folder.join("case.toml");
        let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let settings = toml::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
        let name = folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Ok(Self {
            name,
            folder: folder.to_owned(),
            settings,
        })
    }

    /// Why the case cannot run on this machine, if it cannot.
    pub fn obstacle(&self) -> Option<String> {
        let missing = |need: &&Need| match need {
            Need::Root => !machine::is_root(),
            Need::Network => std::env::var_os("KILN_E2E_OFFLINE").is_some(),
        };
        self.settings.needs.iter().find(missing).map(|need| match need {
            Need::Root => "needs root".to_owned(),
            Need::Network => "needs the network, and KILN_E2E_OFFLINE is set".to_owned(),
        })
    }

    /// Copies the context into a folder, with the same modes and times whatever the checkout has, and sets it up.
    pub fn context(&self, folder: &TempFolder) -> Result<PathBuf> {
        let context = folder.join("context");
        copy_folder(&self.folder.join("context"), &context)?;
        let extra = folder.join("extra");
        match self.folder.join("extra") {
            source if source.exists() => copy_folder(&source, &extra)?,
            _ => std::fs::create_dir_all(&extra)?,
        }
        let setup = self.folder.join("setup.sh");
        if setup.exists() {
            let mut command = Command::new("bash");
            command
                .args(["-euc", "umask 022; . \"$1\"", "setup"])
                .arg(&setup)
                .env("EXTRA", &extra)
                .current_dir(&context);
            crate::builder::run(&mut command)?
                .success()
                .map_err(|error| format!("setup.sh: {error}"))?;
        }
        Ok(context)
    }

    /// Imports the images and builds once.
    pub fn build(&self, builder: &Builder, folder: &TempFolder) -> Result<(Request, Option<PathBuf>, Ended)> {
        let images = [&self.settings.base].into_iter().chain(&self.settings.images);
        for image in images.filter(|image| *image != "scratch") {
            builder.import(&base(image)?)?;
        }
        let context = self.context(folder)?;
        let (here, extra) = (
            context.display().to_string(),
            folder.join("extra").display().to_string(),
        );
        let fill = |text: &String| text.replace("@CONTEXT@", &here).replace("@EXTRA@", &extra);
        let arguments = self.settings.arguments.iter().map(fill).collect();
        let stdin = self.settings.stdin.as_ref().map(|path| PathBuf::from(fill(path)));
        let context = self
            .settings
            .context
            .as_ref()
            .map_or(context, |text| PathBuf::from(fill(text)));
        let tag = format!("kiln-e2e/{}:test", self.name.to_lowercase());
        let request = Request {
            context,
            file: None,
            tag,
            arguments,
        };
        let ended = builder.build(&request, stdin.as_deref())?;
        Ok((request, stdin, ended))
    }

    /// Exports and reads what was built.
    pub fn export(&self, builder: &Builder, request: &Request, folder: &TempFolder) -> Result<Built> {
        let archive = folder.join("image.tar");
        builder.save(&request.tag, &archive)?;
        let image = oci::read(&archive)?;
        std::fs::remove_file(&archive)?;
        let base = match self.settings.base.as_str() {
            "scratch" => Tree::default(),
            reference => oci::read_root_tar(&base(reference)?.tar)?,
        };
        Ok(Built { image, base })
    }

    /// Builds twice with a builder, and checks everything that the folder says.
    pub fn check(&self, builder_name: &str) -> Result<Outcome> {
        if let Some(obstacle) = self.obstacle() {
            return Ok(Outcome::Skipped(obstacle));
        }
        let difference = self.settings.differs.get(builder_name);
        // To see which of the reasons still hold, the skipped cases can be tried all the same.
        if let Some(reason) = difference
            && std::env::var_os("KILN_E2E_TRY_DIFFERS").is_none()
        {
            return Ok(Outcome::Skipped(format!(
                "{builder_name} differs on purpose: {reason}"
            )));
        }
        let folder = TempFolder::new(&self.name)?;
        let builder = Builder::named(builder_name, &folder)?;
        let (request, stdin, ended) = self.build(&builder, &folder)?;
        self.check_output(&ended)?;
        if let Some(failure) = &self.settings.error {
            check_failure(failure, ended, matches!(builder, Builder::Kiln(_)))?;
            return Ok(Outcome::Passed);
        }
        let ended = ended.success()?;
        let built = self.export(&builder, &request, &folder)?;
        self.check_expectations(builder.name(), &built)?;
        if let Builder::Kiln(_) = &builder {
            ensure!(
                built.image.problems.is_empty(),
                "{}",
                built.image.problems.join("\n")
            );
            ensure!(
                !progress::vertices(&ended.stderr).is_empty(),
                "no progress was shown:\n{}",
                ended.stderr
            );
            let again = builder.build(&request, stdin.as_deref())?.success()?;
            progress::check_all_cached(&again.stderr)?;
            let second = self.export(&builder, &request, &folder)?;
            ensure!(
                second.image.diff_ids == built.image.diff_ids,
                "the second build has other layers"
            );
        }
        Ok(Outcome::Passed)
    }

    fn check_output(&self, ended: &Ended) -> Result<()> {
        for words in &self.settings.output {
            ensure!(
                ended.stderr.contains(words),
                "standard error lacks {words:?}:\n{}",
                ended.stderr
            );
        }
        for words in &self.settings.no_output {
            ensure!(
                !ended.stderr.contains(words),
                "standard error holds {words:?}:\n{}",
                ended.stderr
            );
        }
        Ok(())
    }

    fn check_expectations(&self, builder: &str, built: &Built) -> Result<()> {
        let found = Facts::of(built, self.settings.times);
        let (tree_file, config_file) = (
            self.folder.join("expected.tree"),
            self.folder.join("expected-config.json"),
        );
        if std::env::var_os("KILN_E2E_BLESS").is_some() {
            let lines: Vec<&str> = found.tree.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
            std::fs::write(tree_file, lines.concat())?;
            std::fs::write(config_file, serde_json::to_string_pretty(&found.config)? + "\n")?;
            return Ok(());
        }
        let read = |file: &Path| {
            std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
        };
        let tree = read(&tree_file)?.lines().map(str::to_owned).collect();
        let expected = Facts {
            tree,
            config: serde_json::from_str(&read(&config_file)?)?,
        };
        let problems = Differences::load()?.unexplained(builder, &self.name, &expected, &found);
        ensure!(
            problems.is_empty(),
            "{}\nother than expected (- expected, + found):\n{}",
            self.settings.about,
            problems.join("\n")
        );
        Ok(())
    }
}

/// A failed build must say why in the words that the case names; peers use words of their own.
fn check_failure(failure: &Failure, ended: Ended, words_count: bool) -> Result<()> {
    if !words_count {
        ensure!(ended.code != Some(0), "the build succeeded");
        return Ok(());
    }
    let stderr = ended.failure(failure.exit)?;
    let lower = stderr.to_lowercase();
    let missing: Vec<&String> = failure
        .stderr
        .iter()
        .filter(|words| !lower.contains(&words.to_lowercase()))
        .collect();
    ensure!(missing.is_empty(), "standard error lacks {missing:?}:\n{stderr}");
    ensure!(
        !lower.contains("panicked at"),
        "a panic is no error message:\n{stderr}"
    );
    Ok(())
}

/// Copies a folder of the checkout. Git keeps one bit of a mode and no times: both are made the same everywhere.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let set = |path: &Path, mode: u32| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
    std::fs::create_dir_all(to)?;
    set(to, 0o755)?;
    let entries = std::fs::read_dir(from).map_err(|error| format!("{}: {error}", from.display()))?;
    for entry in entries {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_folder(&source, &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(&source)?, &target)?;
        } else if kind.is_file() {
            std::fs::write(&target, std::fs::read(&source)?)?;
            let executable = entry.metadata()?.permissions().mode() & 0o100 != 0;
            set(&target, if executable { 0o755 } else { 0o644 })?;
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000);
            std::fs::File::options()
                .write(true)
                .open(&target)?
                .set_modified(time)?;
        } else {
            bail!("{} is neither file, folder nor link", source.display());
        }
    }
    Ok(())
}
