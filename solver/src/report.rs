//! What became of each step of a build: for the build's record, its history, and the question *why*.

use kiln_cache::{Key, KeyPart};
use serde::{Deserialize, Serialize};

use crate::graph::SourceSpan;
use crate::verify::Verification;
use crate::why::Why;

/// How a step came to its result, or why it has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepOutcome {
    /// Found by its definition key.
    Cached,
    /// Found by the content of its inputs, which had to be made anew.
    CachedByContent,
    /// It ran.
    Ran,
    /// Nothing needed it.
    Skipped,
    /// It failed.
    Failed,
    /// It was stopped because the build ended.
    Canceled,
}

impl StepOutcome {
    /// Whether its work was done in this build, well or not.
    pub fn worked(self) -> bool {
        matches!(self, Self::Ran | Self::Failed)
    }

    /// Whether earlier work was used.
    pub fn is_cached(self) -> bool {
        matches!(self, Self::Cached | Self::CachedByContent)
    }
}

/// What kind of work a step is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// Brings something in: an image, a local directory, a file, a repository.
    #[default]
    Source,
    /// Runs a process.
    Run,
    /// Changes files without a process.
    Files,
}

/// What a source turned out to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFacts {
    /// The image, address or remote.
    pub what: String,
    /// The digest or commit that it was resolved to.
    pub digest: String,
    /// It was downloaded in this build, since its server could not say that it is unchanged.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub downloaded: bool,
}

/// Why a record that there was did not help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// A layer of it is gone.
    LayerGone,
    /// It may not have reached the disk before a power loss.
    Unsynced,
    /// It was damaged.
    Damaged,
    /// A newer version of the program wrote it.
    Newer,
    /// It is older than the request allows.
    Expired {
        /// How old it was, in milliseconds.
        age_ms: u64,
        /// How old it may be.
        ttl_ms: u64,
    },
}

/// The readable parts of a step's keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MadeOf {
    /// Of its definition key.
    pub definition: Vec<KeyPart>,
    /// Of its content key.
    pub content: Vec<KeyPart>,
}

/// One step of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    /// The step as a person sees it.
    pub name: String,
    /// What kind of work it is.
    #[serde(default)]
    pub kind: StepKind,
    /// How it came to its result.
    pub outcome: StepOutcome,
    /// Its definition key, as far as the build came to make it.
    pub key: Option<Key>,
    /// Its content key, where the definition key did not help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_key: Option<Key>,
    /// When the solver turned to it, in milliseconds since the build began.
    pub began_ms: u64,
    /// Milliseconds that it took in this build.
    pub milliseconds: u64,
    /// The steps that it works on, as positions in the build's list: those of its root first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<usize>,
    /// As many of `inputs`, from the first, make the root that it works on.
    #[serde(default)]
    pub in_base: usize,
    /// What a source turned out to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceFacts>,
    /// What it took when it ran, in milliseconds, for a step whose result was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved_ms: Option<u64>,
    /// Bytes of the files in its layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The name of its log, when it had a process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// The request said to run it whatever the cache has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignored_cache: bool,
    /// Why a record that there was did not help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<Missed>,
    /// What came of running it once more to see whether the cached result is right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verification>,
    /// The line of the source text that it comes from; filled in by who knows the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Why it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
    /// Where it comes from.
    #[serde(skip)]
    pub span: Option<SourceSpan>,
    /// What its keys are made of, where this build made both.
    #[serde(skip)]
    pub made_of: Option<MadeOf>,
}

impl StepReport {
    /// Whether it is a step of its own that did its work in this build: one that *why* is asked of.
    pub fn is_miss(&self) -> bool {
        self.kind != StepKind::Source && self.outcome.worked()
    }
}
