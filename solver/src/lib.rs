//! Build graph, cache keys, scheduling, events.
