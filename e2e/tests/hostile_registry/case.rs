//! What a row of the tables is.

use crate::runner::Ran;
use kiln_e2e::Result;
use kiln_e2e::crafted::Crafted;
use kiln_e2e::hostile_registry::{Answer, Request, Site, Uploads};
use std::path::PathBuf;

/// Where everything is.
#[derive(Debug, Clone)]
pub(crate) struct World {
    /// The hostile registry.
    pub(crate) host: String,
    /// Another server, which does as the registry does and keeps what it is asked.
    pub(crate) other: String,
    /// A folder that nothing may touch; links and names aim at it.
    pub(crate) out: PathBuf,
}

impl World {
    /// The path of something in the folder that nothing may touch.
    pub(crate) fn aim(&self, name: &str) -> String {
        self.out.join(name).display().to_string()
    }

    /// The same, relative to anything that is not too deep.
    pub(crate) fn climb(&self, name: &str) -> String {
        format!("{}{}", "../".repeat(30), self.aim(name).trim_start_matches('/'))
    }
}

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// `kiln pull HOST/app:1`.
    Pull,
    /// `kiln build` of this Dockerfile, where `@HOST@` is the registry.
    Build(&'static str),
    /// A build with `--cache-from`, of a cache that was written while the registry was honest.
    CacheFrom,
    /// The same, where another step copies from what is cached: what is in it must be known.
    CacheCopied,
    /// A build with `--cache-to`.
    CacheTo,
    /// `kiln push HOST/pushed:1`, of an image that comes from elsewhere.
    Push,
    /// The same, of an image that was pulled from the same registry.
    PushAgain,
    /// `kiln login`.
    Login,
}

/// A row.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) command: Command,
    /// What an honest registry would have.
    pub(crate) site: fn(&World) -> Site,
    /// What this one says instead; nothing for the honest answer.
    pub(crate) answer: fn(&World, &Request, &mut Site) -> Option<Answer>,
    /// What becomes of the content once all that is honest has happened, and before the command: what takes time to
    /// make is not made while somebody waits for it.
    pub(crate) rewrite: Option<fn(&mut Site) -> Result<()>>,
    /// Whether the registry falls silent, or nearly so: only then a client's patience is short.
    pub(crate) silent: bool,
    /// Whether the command succeeds.
    pub(crate) succeeds: bool,
    /// What else must hold.
    pub(crate) check: fn(&Ran<'_>) -> Result<()>,
    /// Whether a password for the registry is known.
    pub(crate) password: bool,
    /// Whether part of a blob may stay, to go on with.
    pub(crate) resumable: bool,
    /// What becomes of the bodies of uploads.
    pub(crate) uploads: Uploads,
    /// Whether connections are taken.
    pub(crate) accepts: bool,
    /// Peak of the resident set, in MiB.
    pub(crate) memory: u64,
    /// The size of the store's disk, if it is a small one. Only root can make such.
    pub(crate) disk: Option<&'static str>,
}

/// The peak of an ordinary pull is below half of this; the rest is for the pieces that wait between the threads of an
/// unpacking (4 MiB), a decoder (8 MiB for the usual windows), documents at their limits (8 MiB and what is made of
/// them), and for a binary that is not optimized.
pub(crate) const MEMORY: u64 = 150;

pub(crate) fn honest(_: &World, _: &Request, _: &mut Site) -> Option<Answer> {
    None
}

pub(crate) fn plain(_: &World) -> Site {
    Crafted::plain().site()
}

pub(crate) fn empty(_: &World) -> Site {
    Site::default()
}

#[expect(clippy::unnecessary_wraps, reason = "the checks of a table have one type")]
pub(crate) fn unchecked(_: &Ran<'_>) -> Result<()> {
    Ok(())
}

impl Case {
    /// A pull of the plain image that fails, for a registry that says this.
    pub(crate) const fn new(
        name: &'static str,
        answer: fn(&World, &Request, &mut Site) -> Option<Answer>,
    ) -> Self {
        Self {
            name,
            command: Command::Pull,
            site: plain,
            answer,
            rewrite: None,
            silent: false,
            succeeds: false,
            check: unchecked,
            password: false,
            resumable: false,
            uploads: Uploads::Read,
            accepts: true,
            memory: MEMORY,
            disk: None,
        }
    }

    /// A pull of this site, which fails.
    pub(crate) const fn of(name: &'static str, site: fn(&World) -> Site) -> Self {
        let mut case = Self::new(name, honest);
        case.site = site;
        case
    }

    /// Another content of the registry.
    pub(crate) const fn with_site(mut self, site: fn(&World) -> Site) -> Self {
        self.site = site;
        self
    }

    /// Another command; pushes and exports find an empty registry.
    pub(crate) const fn runs(mut self, command: Command) -> Self {
        if matches!(
            command,
            Command::Push | Command::CacheTo | Command::CacheFrom | Command::CacheCopied
        ) {
            self.site = empty;
        }
        self.command = command;
        self
    }

    /// The command succeeds.
    pub(crate) const fn works(mut self) -> Self {
        self.succeeds = true;
        self
    }

    /// The registry falls silent.
    pub(crate) const fn silent(mut self) -> Self {
        self.silent = true;
        self
    }

    pub(crate) const fn check(mut self, check: fn(&Ran<'_>) -> Result<()>) -> Self {
        self.check = check;
        self
    }

    pub(crate) const fn with_password(mut self) -> Self {
        self.password = true;
        self
    }

    pub(crate) const fn resumable(mut self) -> Self {
        self.resumable = true;
        self
    }
}
