//! What to do about failures that are known by their causes, wherever they come up.

use std::error::Error;

use kiln_solver::StepFailure;

/// What a full disk asks for.
pub(super) const DISK_FULL: &str =
    "the disk is full: free some space on the file system of the store (see `kiln info`)";

/// What a disk that fails behind the kernel's back asks for.
pub(super) const DISK_FAILED: &str = "the kernel's log (`dmesg`) says why: the disk fails, or what it lies on is full; what was not \
     written is not used again, so run the command once more when the disk is in order";

/// What a disk asks for that fails to the face.
const DISK_ERROR: &str =
    "the kernel's log (`dmesg`) says what is wrong with the disk; `kiln info` shows where the store is";

/// What a file system asks for that may have been made read-only by the kernel.
const DISK_READ_ONLY: &str =
    "if that file system should not be read-only, the kernel's log (`dmesg`) says why it became so";

/// What the disk asks for, if a failure is its fault.
pub(super) fn disk_hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
    // By its words: some causes are transparent, and some errors are for several steps and have become text.
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    if causes.any(|cause| cause.to_string().contains(NOT_WRITTEN)) {
        return Some(DISK_FAILED);
    }
    if is_disk_full(error) {
        return Some(DISK_FULL);
    }
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    let code = causes.find_map(|cause| cause.downcast_ref::<std::io::Error>()?.raw_os_error())?;
    match rustix::io::Errno::from_raw_os_error(code) {
        rustix::io::Errno::IO => Some(DISK_ERROR),
        rustix::io::Errno::ROFS => Some(DISK_READ_ONLY),
        _ => None,
    }
}

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

/// How the store words it.
const NOT_WRITTEN: &str = "did not take everything that was written to it";

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

fn is_disk_full(error: &(dyn Error + 'static)) -> bool {
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
