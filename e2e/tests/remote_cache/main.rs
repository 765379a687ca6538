//! Caches that travel: what a machine with an empty store takes from a registry, a folder or an image, and what comes
//! of it when these are broken.

mod broken;
mod exports;
mod hits;
mod recipe;

use kiln_e2e::builder::Ended;
use kiln_e2e::progress;
use kiln_e2e::project::Project;
use kiln_e2e::server::Registry;
use kiln_e2e::trial::{self, Named, Outcome};
use kiln_e2e::{Result, ensure};
use serde_json::Value;
use std::process::ExitCode;

fn main() -> ExitCode {
    let tests: &[Named] = &[
        ("an empty machine is fully cached", hits::empty_machine),
        ("min has the result's steps, max has all", hits::min_and_max),
        ("layers come when their files are needed", hits::lazy),
        ("a cached build makes no request", hits::no_request),
        ("folders", exports::folders),
        ("inline", exports::inline),
        (
            "an export that brings nothing new changes nothing",
            exports::settled,
        ),
        ("two machines lose nothing of each other", exports::two_writers),
        ("two platforms in one cache", exports::two_platforms),
        ("a missing layer is a miss", broken::missing_layer),
        ("a changed layer is a miss", broken::changed_layer),
        ("a layer that is another one is a miss", broken::swapped_layer),
        ("a broken document is a warning", broken::broken_document),
        ("a cache of BuildKit is left alone", broken::buildkit_cache),
        ("an unreachable registry is a warning", broken::unreachable),
        ("an image is not overwritten", exports::image_stays),
        ("a failed export fails the build, or not", exports::failed_export),
        ("nothing of secrets", exports::secrets),
        ("the recipe of docs/ci.md", recipe::ci_recipe),
        ("the recipe without root", recipe::ci_recipe_without_root),
    ];
    let with_registry = |&(name, test): &Named| {
        trial::test(format!("remote-cache/{name}"), move || {
            match Registry::obstacle() {
                Some(obstacle) => Ok(Outcome::Skipped(obstacle)),
                None => test(),
            }
        })
    };
    trial::run(tests.iter().map(with_registry).collect())
}

/// The shape of the tutorials' Python app; the token shows whether a step ran again.
const APP: &str = "WORKDIR /app\nCOPY requirements.txt .\n\
    RUN sort requirements.txt > installed && head -c 8 /dev/urandom | od -x > token\nCOPY . .\nCMD [\"cat\", \"app.py\"]\n";

/// Two stages; of the first one only a file gets into the result.
const STAGES: &str = "WORKDIR /app\nCOPY requirements.txt .\n\
    RUN sort requirements.txt > installed && head -c 8 /dev/urandom | od -x > token\n\
    FROM BASE\nCOPY --from=build /app/installed /installed\nCOPY app.py /app.py\nRUN wc /installed /app.py > /count\n";

/// A registry with a base image.
struct Site {
    registry: Registry,
    base: String,
}

impl Site {
    fn new() -> Result<Self> {
        let registry = Registry::start()?;
        let base = registry.push_base("busybox:latest", "busybox:latest", &[])?;
        Ok(Self { registry, base })
    }

    /// A machine with an empty store, and the app in its context.
    fn machine(&self, name: &str) -> Result<Project> {
        machine_with(name, &format!("FROM {}\n{APP}", self.base))
    }

    /// The same with the app of two stages.
    fn machine_with_stages(&self, name: &str) -> Result<Project> {
        let stages = STAGES.replace("BASE", &self.base);
        machine_with(name, &format!("FROM {} AS build\n{stages}", self.base))
    }

    /// A name of this registry.
    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.host)
    }

    fn to(&self, name: &str, more: &str) -> String {
        format!("type=registry,ref={}{more}", self.name(name))
    }

    fn from(&self, name: &str) -> String {
        format!("type=registry,ref={}", self.name(name))
    }

    /// The digests of the blobs of a cache, the layers' or the listings'.
    fn blobs(&self, name: &str, what: &str) -> Result<Vec<String>> {
        let manifest = self.registry.manifest(&self.name(name))?;
        let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
        let of_kind = layers
            .iter()
            .filter(|blob| text(&blob["mediaType"]).contains(what));
        Ok(of_kind.map(|blob| text(&blob["digest"])).collect())
    }

    /// The document of a cache.
    fn document(&self, name: &str) -> Result<Value> {
        let manifest = self.registry.manifest(&self.name(name))?;
        let path = self.registry.blob_path(&text(&manifest["config"]["digest"]));
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    }
}

/// A machine with an empty store, and this Dockerfile with the app's files in its context.
fn machine_with(name: &str, dockerfile: &str) -> Result<Project> {
    let files = [
        ("Dockerfile", dockerfile),
        ("requirements.txt", "b\na\n"),
        ("app.py", "one\n"),
    ];
    Project::with_bases(name, &[], &files)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn token(project: &Project) -> Result<String> {
    project.shell("cat /app/token")
}

fn id(project: &Project) -> Result<String> {
    let shown = project
        .kiln
        .run(["inspect", &project.request.tag])?
        .success()?
        .stdout;
    let shown: Value = serde_json::from_str(&shown)?;
    let id = text(&shown[0]["Id"]);
    ensure!(id.starts_with("sha256:"), "no id in {shown}");
    Ok(id)
}

/// Builds and demands that the steps which ran are exactly these.
fn build(project: &Project, arguments: &[&str], ran: &[&str]) -> Result<Ended> {
    let ended = project.try_build(arguments)?.success()?;
    let found = progress::not_cached(&ended.stderr);
    ensure!(
        found == ran,
        "not cached: {found:?}, expected {ran:?}\n{}",
        ended.stderr
    );
    Ok(ended)
}

const INSTALL: &str = "RUN sort requirements.txt > installed && head -c 8 /dev/urandom | od -x > token";

const ALL: &[&str] = &["WORKDIR /app", "COPY requirements.txt .", INSTALL, "COPY . ."];
