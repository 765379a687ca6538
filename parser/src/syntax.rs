//! Which frontend a file asks for (`# syntax=`), and which of those are built in.

/// Repositories whose images read the Dockerfile language itself.
const OFFICIAL: [&str; 2] = ["docker/dockerfile", "docker/dockerfile-upstream"];

/// Names of the registry that holds them.
const REGISTRIES: [&str; 3] = ["docker.io/", "index.docker.io/", "registry-1.docker.io/"];

/// The image of a `syntax=` value: what stands before its first blank. The rest is the frontend's command line.
pub fn image(value: &str) -> &str {
    value.trim().split(' ').next().unwrap_or_default()
}

/// Whether the value of `syntax=` (or of `BUILDKIT_SYNTAX`) names the language that is built in: an official
/// Dockerfile frontend of any version, or `dockerfile.v0`.
pub fn is_built_in(value: &str) -> bool {
    let image = image(value);
    if image == "dockerfile.v0" {
        return true;
    }
    let name = image.split('@').next().unwrap_or_default();
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    let name = REGISTRIES
        .iter()
        .find_map(|registry| name.strip_prefix(registry))
        .unwrap_or(name);
    OFFICIAL.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::{image, is_built_in};

    #[test]
    fn official_frontends_are_built_in() {
        for name in [
            "docker/dockerfile",
            "docker/dockerfile:1",
            "docker/dockerfile:1.7-labs --flag x",
            "docker.io/docker/dockerfile:1.4",
            "docker/dockerfile@sha256:0123",
            "docker/dockerfile:1@sha256:0123",
            "docker/dockerfile-upstream:master-labs",
            "docker.io/docker/dockerfile-upstream",
            "dockerfile.v0",
        ] {
            assert!(is_built_in(name), "{name}");
        }
        for name in [
            "docker/dockerfile-other:1",
            "docker/dockerfile/x",
            "ghcr.io/docker/dockerfile:1",
            "localhost:5000/docker/dockerfile",
            "dockerfile",
            "r2d4/mocker",
            "",
        ] {
            assert!(!is_built_in(name), "{name}");
        }
        assert_eq!(image(" a/b:1 x=y z "), "a/b:1");
    }
}
