//! Reads the plain progress output: BuildKit's lines `#N …`.

use crate::{Result, ensure};
use std::collections::BTreeMap;

/// How a vertex ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// `#N CACHED`
    Cached,
    /// `#N DONE 0.1s`
    Done,
    /// `#N ERROR: …`
    Failed,
    /// `#N CANCELED`
    Cancelled,
}

/// One vertex as the output shows it.
#[derive(Debug, Clone, Default)]
pub struct Vertex {
    /// What stands after the number the first time, such as `[build 2/3] RUN true`.
    pub name: String,
    /// Its end, when the output tells one.
    pub end: Option<End>,
    /// The lines that its process wrote, without their times.
    pub output: Vec<String>,
}

impl Vertex {
    /// The instruction with its arguments, for steps `[stage n/m] …` only.
    pub fn step(&self) -> Option<&str> {
        let (bracket, rest) = self.name.strip_prefix('[')?.split_once("] ")?;
        // The name of a context may hold a platform.
        if bracket.starts_with("context ") {
            return None;
        }
        bracket.rsplit(' ').next()?.contains('/').then_some(rest)
    }
}

/// The vertices in the order of their numbers.
pub fn vertices(stderr: &str) -> Vec<Vertex> {
    let mut found: BTreeMap<u32, Vertex> = BTreeMap::new();
    for line in stderr.lines() {
        let Some((number, rest)) = line.strip_prefix('#').and_then(|line| line.split_once(' ')) else {
            continue;
        };
        let Ok(number) = number.parse() else { continue };
        let vertex = found.entry(number).or_default();
        let first_word = rest.split(' ').next().unwrap_or_default();
        match first_word {
            "CACHED" => vertex.end = Some(End::Cached),
            "DONE" => vertex.end = Some(End::Done),
            "CANCELED" => vertex.end = Some(End::Cancelled),
            "ERROR:" => vertex.end = Some(End::Failed),
            "..." => {}
            _ if vertex.name.is_empty() => rest.clone_into(&mut vertex.name),
            time if time.parse::<f64>().is_ok() => {
                vertex.output.push(
                    rest[time.len()..]
                        .strip_prefix(' ')
                        .unwrap_or_default()
                        .to_owned(),
                );
            }
            _ => {}
        }
    }
    found.into_values().collect()
}

/// The steps other than FROM that did not come from the cache: `RUN true`, …
pub fn not_cached(stderr: &str) -> Vec<String> {
    steps(stderr, |end| end != Some(End::Cached))
}

/// The steps other than FROM that came from the cache.
pub fn cached(stderr: &str) -> Vec<String> {
    steps(stderr, |end| end == Some(End::Cached))
}

/// Fails unless every step came from the cache.
pub fn check_all_cached(stderr: &str) -> Result<()> {
    let missed = not_cached(stderr);
    ensure!(
        missed.is_empty(),
        "the second build did again: {missed:?}\n{stderr}"
    );
    Ok(())
}

fn steps(stderr: &str, wanted: impl Fn(Option<End>) -> bool) -> Vec<String> {
    let vertices = vertices(stderr);
    let ended = vertices.iter().filter(|vertex| wanted(vertex.end));
    ended
        .filter_map(Vertex::step)
        .filter(|step| !step.starts_with("FROM "))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
#1 [internal] load build definition from Dockerfile
#1 DONE 0.0s

#4 [build 1/3] FROM busybox
#4 DONE 0.1s
#5 [build 2/3] RUN echo hello
#5 0.052 hello
#5 ...
#6 [build 3/3] COPY . .
#6 CACHED
#5 [build 2/3] RUN echo hello
#5 0.100   there
#5 ERROR: process did not complete successfully: exit code: 1
";

    #[test]
    fn reads_names_ends_and_output() {
        let vertices = vertices(TEXT);
        assert_eq!(vertices.len(), 4);
        assert_eq!(vertices[2].step(), Some("RUN echo hello"));
        assert_eq!(vertices[2].output, ["hello", "  there"]);
        assert_eq!(vertices[2].end, Some(End::Failed));
        assert_eq!(vertices[0].step(), None);
        assert_eq!(not_cached(TEXT), ["RUN echo hello"]);
        assert_eq!(cached(TEXT), ["COPY . ."]);
    }
}
