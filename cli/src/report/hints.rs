//! What to do about failures that are known by their causes, wherever they come up.

use std::error::Error;

use kiln_solver::StepFailure;

/// What a full disk asks for.
pub(super) const DISK_FULL: &str =
    "the disk is full: free some space on the file system of the store (see `kiln info`)";

/// What to do about an image that is not in the store.
pub(super) fn missing_image(error: &(dyn Error + 'static)) -> Option<String> {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    let name = causes.find_map(|cause| {
        // What is transparent is not among its own causes.
        let store = match cause.downcast_ref::<kiln_solver::SaveError>() {
            Some(kiln_solver::SaveError::Store(error)) => Some(error),
            _ => cause.downcast_ref::<kiln_cache::Error>(),
        };
        match store {
            Some(kiln_cache::Error::ImageNotFound(name)) => Some(name),
            _ => None,
        }
    })?;
    let is_id = name
        .trim_start_matches("sha256:")
        .bytes()
        .all(|byte| byte.is_ascii_hexdigit());
    if is_id || name.parse::<kiln_image::Reference>().is_err() {
        return Some("kiln images shows what there is".to_owned());
    }
    Some(format!(
        "kiln images shows what there is; kiln pull {name} brings it from its registry"
    ))
}

/// How the system words it.
pub(super) const NO_SPACE: &str = "No space left on device";

/// What the executor knows to do about a failure of its own.
pub(super) fn sandbox_hint(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        let direct = error.downcast_ref::<kiln_executor::Error>();
        // This one passes the executor's error on as itself.
        let of_container = match error.downcast_ref() {
            Some(kiln_container::Error::Sandbox(source)) => Some(source),
            _ => None,
        };
        if let Some(found) = direct.or(of_container) {
            return found.hint();
        }
        next = error.source();
    }
    None
}

/// A process only tells in words that it could not write, and not every one does.
pub(super) fn ended_on_full_disk(cause: &StepFailure) -> bool {
    let StepFailure::Process {
        last_output,
        disk_full,
        ..
    } = cause
    else {
        return false;
    };
    *disk_full || last_output.iter().any(|line| line.contains(NO_SPACE))
}

pub(super) fn is_disk_full(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let full = error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::StorageFull);
        // Some errors are for several steps, and have become text.
        if full || error.to_string().contains(NO_SPACE) {
            return true;
        }
        next = error.source();
    }
    false
}
