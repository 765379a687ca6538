//! Which platforms' programs run on this machine, and what is needed for that.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use kiln_executor::Emulator;
use kiln_executor::emulation::{self, Support};
use kiln_image::Platform;

/// Why programs of a platform do not run here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this machine cannot run programs of {platform}: {reason}")]
pub struct CannotRun {
    /// The platform.
    pub platform: Platform,
    /// Why not.
    pub reason: String,
    /// What would change that.
    pub remedy: String,
}

/// Remembers the answers of [`emulator`]: each is asked of the machine once.
#[derive(Debug, Default)]
pub(crate) struct Emulators {
    known: Mutex<BTreeMap<String, Result<Option<Emulator>, CannotRun>>>,
}

impl Emulators {
    pub(crate) fn get(&self, platform: &Platform) -> Result<Option<Emulator>, CannotRun> {
        if *platform == Platform::host() {
            return Ok(None);
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .entry(platform.to_string())
            .or_insert_with(|| emulator(platform))
            .clone()
    }
}

/// What a sandbox for programs of `platform` needs: nothing where they run by themselves or where the host has
/// registered an interpreter.
pub fn emulator(platform: &Platform) -> Result<Option<Emulator>, CannotRun> {
    let platform = platform.normalized();
    let cannot = |reason: String, remedy: String| CannotRun {
        platform: platform.clone(),
        reason,
        remedy,
    };
    let host = Platform::host();
    // Images of some tools do not say what they are for.
    if platform.os.is_empty() || platform.architecture.is_empty() {
        return Ok(None);
    }
    if platform.os != host.os {
        return Err(cannot(
            format!("they need the operating system {}", platform.os),
            "leave RUN to stages of this machine's operating system".to_owned(),
        ));
    }
    if platform.architecture == host.architecture {
        let missing = missing_features(platform.variant.as_deref());
        if missing.is_empty() {
            return Ok(None);
        }
        return Err(cannot(
            format!("its processor lacks {}", missing.join(", ")),
            "build for an earlier variant, or on a newer machine".to_owned(),
        ));
    }
    if platform.satisfies(&host) && runs_32_bit() {
        return Ok(None);
    }
    match emulation::support(&platform.architecture) {
        Support::Registered(_) => Ok(None),
        Support::Private(emulator) => Ok(Some(emulator)),
        Support::None { reason, remedy } => Err(cannot(reason, remedy)),
    }
}

/// Whether the kernel runs the 32-bit programs of the processor.
fn runs_32_bit() -> bool {
    // The parameter exists where the kernel was built to run them.
    cfg!(not(target_arch = "x86_64")) || std::path::Path::new("/proc/sys/abi/vsyscall32").exists()
}

/// What the processor lacks for this variant of its architecture.
#[cfg(target_arch = "x86_64")]
fn missing_features(variant: Option<&str>) -> Vec<&'static str> {
    macro_rules! features {
        ($($name:tt),+) => { [$(($name, std::arch::is_x86_feature_detected!($name))),+] };
    }
    let levels: [&[(&str, bool)]; 3] = [
        &features!("cmpxchg16b", "popcnt", "sse3", "ssse3", "sse4.1", "sse4.2"),
        &features!("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe"),
        &features!("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
    ];
    let level = match variant {
        Some("v2") => 1,
        Some("v3") => 2,
        Some("v4") => 3,
        _ => 0,
    };
    let wanted = levels.iter().take(level).flat_map(|level| level.iter());
    wanted
        .filter(|(_, there)| !there)
        .map(|(name, _)| *name)
        .collect()
}

/// What the processor lacks for this variant of its architecture: not known here.
#[cfg(not(target_arch = "x86_64"))]
fn missing_features(_variant: Option<&str>) -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_programs_need_nothing() {
        assert_eq!(emulator(&Platform::host()), Ok(None));
        assert_eq!(Emulators::default().get(&Platform::host()), Ok(None));
    }

    #[test]
    fn other_systems_have_no_emulator() {
        let error = emulator(&"windows/amd64".parse().unwrap()).unwrap_err();
        assert!(
            error.to_string().contains("cannot run programs of windows/amd64"),
            "{error}"
        );
        let error = emulator(&"linux/pdp11".parse().unwrap()).unwrap_err();
        assert!(
            error.reason.contains("pdp11") && !error.remedy.is_empty(),
            "{error:?}"
        );
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn later_variants_need_their_features() {
        assert_eq!(missing_features(None), Vec::<&str>::new());
        let v3 = missing_features(Some("v3"));
        assert!(v3.len() >= missing_features(Some("v2")).len());
        assert_eq!(
            emulator(&"linux/amd64/v3".parse().unwrap()).is_ok(),
            v3.is_empty()
        );
    }
}
