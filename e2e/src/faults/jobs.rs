//! The commands that are run on the store, chosen at random.

use super::programs::Work;
use super::site::Site;
use crate::Result;
use crate::machine;
use crate::random::Random;
use std::ffi::OsString;
use std::process::Command;

/// What kind of command it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A build.
    Build,
    /// A build that ignores the cache.
    BuildAnew,
    /// `build --push`.
    BuildPush,
    /// `build --cache-to`, to the registry.
    CacheToRegistry,
    /// `build --cache-to`, to a folder.
    CacheToFolder,
    /// `build --cache-from`, of both.
    CacheFrom,
    /// `push`.
    Push,
    /// `pull`.
    Pull,
    /// `save`.
    Save,
    /// `cache prune`, with and without `--all`.
    CachePrune,
    /// `system prune --all`.
    SystemPrune,
    /// `cache du`.
    Du,
}

/// The kinds, and how often each is chosen.
const KINDS: &[(Kind, u64, &str)] = &[
    (Kind::Build, 5, "build"),
    (Kind::BuildAnew, 5, "build --no-cache"),
    (Kind::BuildPush, 4, "build --push"),
    (Kind::CacheToRegistry, 3, "build --cache-to registry"),
    (Kind::CacheToFolder, 3, "build --cache-to folder"),
    (Kind::CacheFrom, 3, "build --cache-from"),
    (Kind::Push, 4, "push"),
    (Kind::Pull, 3, "pull"),
    (Kind::Save, 3, "save"),
    (Kind::CachePrune, 3, "cache prune"),
    (Kind::SystemPrune, 2, "system prune"),
    (Kind::Du, 1, "cache du"),
];

impl Kind {
    /// All kinds.
    pub fn all() -> impl Iterator<Item = Self> {
        KINDS.iter().map(|(kind, ..)| *kind)
    }

    /// What a user calls it.
    pub fn name(self) -> &'static str {
        KINDS
            .iter()
            .find(|(kind, ..)| *kind == self)
            .map_or("", |(_, _, name)| name)
    }

    /// One at random.
    pub fn choose(random: &mut Random) -> Self {
        let sum = KINDS.iter().map(|(_, weight, _)| weight).sum();
        let mut rest = random.below(sum);
        for (kind, weight, _) in KINDS {
            if rest < *weight {
                return *kind;
            }
            rest -= weight;
        }
        Kind::Build
    }

    /// What this may fail with though nothing is wrong: another process may have deleted the image, or nobody has
    /// pushed it yet.
    fn excuses(self) -> &'static [&'static str] {
        match self {
            Self::Push | Self::Save => &["no such image", "does not exist locally"],
            Self::Pull => &["not found", "manifest unknown"],
            _ => &[],
        }
    }

    /// Whether a failure with this text is in order.
    pub fn excuses_failure(self, stderr: &str) -> bool {
        let stderr = stderr.to_lowercase();
        self.excuses().iter().any(|excuse| stderr.contains(excuse))
    }
}

/// The command line for a kind, on a program at random. `worker` is whose context it may change.
pub fn command(site: &Site, kind: Kind, worker: usize, random: &mut Random) -> Result<(Command, String)> {
    let works: Vec<Work> = Work::all().collect();
    let work = works[random.index(works.len())];
    let image = site.image(work);
    let command = match kind {
        Kind::Push => site.kiln.command(["push", &image]),
        Kind::Pull => site.kiln.command(["pull", &image]),
        Kind::Save => {
            let format = if random.percent(50) { "oci" } else { "docker" };
            site.kiln.command::<OsString>([
                "save".into(),
                "--format".into(),
                format.into(),
                "-o".into(),
                site.archive(work).into(),
                image.into(),
            ])
        }
        Kind::CachePrune if random.percent(50) => site.kiln.command(["cache", "prune", "--force"]),
        Kind::CachePrune => site.kiln.command(["cache", "prune", "--all", "--force"]),
        Kind::SystemPrune => site.kiln.command(["system", "prune", "--all", "--force"]),
        Kind::Du => site.kiln.command(["cache", "du"]),
        _ => {
            let arguments = build_arguments(site, kind, work, random);
            site.build(&site.kiln, &format!("worker{worker}"), work, &arguments)?
        }
    };
    Ok((command, format!("{} of {}", kind.name(), work.tag())))
}

fn build_arguments(site: &Site, kind: Kind, work: Work, random: &mut Random) -> Vec<String> {
    let folder = site.cache_folder(work);
    let mut arguments = match kind {
        Kind::BuildAnew => vec!["--no-cache".to_owned()],
        Kind::BuildPush => vec!["--push".to_owned()],
        Kind::CacheToRegistry => vec![format!("--cache-to={},mode=max", site.registry_cache(work))],
        Kind::CacheToFolder => vec![format!(
            "--cache-to=type=local,dest={},mode=max",
            folder.display()
        )],
        Kind::CacheFrom => vec![
            format!("--cache-from={}", site.registry_cache(work)),
            format!("--cache-from=type=local,src={}", folder.display()),
        ],
        _ => Vec::new(),
    };
    if kind != Kind::BuildAnew && random.percent(30) {
        arguments.push("--no-cache".to_owned());
    }
    if machine::is_root() && random.percent(25) {
        // Steps with limits have control groups.
        arguments.push("--memory=200m".to_owned());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_is_chosen_and_named() {
        let mut random = Random::new(1);
        let chosen: BTreeSet<Kind> = (0..1000).map(|_| Kind::choose(&mut random)).collect();
        assert_eq!(chosen, Kind::all().collect());
        assert!(Kind::all().all(|kind| !kind.name().is_empty()));
    }

    #[test]
    fn only_some_failures_are_excused() {
        assert!(Kind::Push.excuses_failure("ERROR: No such image: x"));
        assert!(!Kind::Build.excuses_failure("ERROR: no such image: x"));
        assert!(!Kind::Pull.excuses_failure("ERROR: damaged"));
    }
}
