//! Values of single flags.

use std::collections::BTreeMap;

use kiln_image::Reference;
use kiln_solver::graph::NetworkMode;

use crate::machine::Machine;
use crate::report::Failure;

/// A name for the image.
pub(super) fn name(text: &str) -> Result<Reference, Failure> {
    let reference: Reference = text
        .parse()
        .map_err(|error| Failure::usage(format!("invalid tag {text:?}: {error}")))?;
    if reference.digest.is_some() {
        return Err(Failure::usage(format!(
            "invalid tag {text:?}: a digest cannot be given to an image"
        )));
    }
    Ok(reference)
}

/// `NAME=VALUE`; `NAME` alone takes the value from the environment, and counts as not given when it has none.
/// Proxy settings of the environment are passed on as Docker's client does when it is configured so: not here.
pub(super) fn build_args(machine: &Machine, arguments: &[String]) -> BTreeMap<String, Option<String>> {
    arguments
        .iter()
        .map(|argument| match argument.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (
                argument.clone(),
                machine.environment.get_raw(argument).map(str::to_owned),
            ),
        })
        .collect()
}

/// `NAME=VALUE`; without a value it is empty.
pub(super) fn labels(labels: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    labels
        .iter()
        .map(|label| {
            let (name, value) = label.split_once('=').unwrap_or((label, ""));
            if name.is_empty() {
                return Err(Failure::usage(format!("--label {label}: the name is missing")));
            }
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// The network of RUN steps.
pub(super) fn network(text: &str) -> Result<NetworkMode, Failure> {
    match text {
        // Until networks of Kiln's own exist, the default is the host's.
        "default" | "host" => Ok(NetworkMode::Host),
        "none" => Ok(NetworkMode::None),
        other => Err(Failure::usage(format!(
            "--network {other}: expected default, host or none"
        ))),
    }
}
