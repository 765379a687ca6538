//! What comes of a solve.

use std::collections::HashMap;
use std::sync::Arc;

use kiln_cache::{LayerId, Snapshot};
use kiln_image::Descriptor;

use crate::diff_ids::DiffIds;
use crate::error::SolveError;
use crate::lazy::LazyLayer;
use crate::remote_cache::SolvedCache;
use crate::report::StepReport;

/// What came of a solve, good or bad.
#[derive(Debug)]
pub struct Solved {
    /// What became of each step, in order; steps that the build did not come to are left out.
    pub steps: Vec<StepReport>,
    /// The target, or why there is none.
    pub result: Result<Solution, SolveError>,
}

/// What came of a solve of several targets, good or bad.
#[derive(Debug)]
pub struct SolvedAll {
    /// What became of each step, in order; steps that the build did not come to are left out.
    pub steps: Vec<StepReport>,
    /// The targets in the order in which they were given, or why there are none.
    pub result: Result<Vec<Solution>, SolveError>,
    /// What an export writes; empty unless the request asks for it.
    pub cache: SolvedCache,
}

/// A target of a successful solve.
#[derive(Debug)]
pub struct Solution {
    /// The target's root file system.
    pub snapshot: Snapshot,
    pub(crate) diff_ids: Arc<DiffIds>,
    /// The blobs that layers of the build's images came from.
    pub(crate) blobs: Arc<HashMap<LayerId, Descriptor>>,
    /// What is known of layers that are not in the store.
    pub(crate) lazy: Arc<HashMap<LayerId, LazyLayer>>,
}
