//! Build graph, cache keys, scheduling, events.

pub mod cancel;
pub mod event;
pub mod graph;
pub mod task;
