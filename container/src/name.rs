//! Names and ids of containers.

use std::fmt::Write as _;

use crate::Error;

const ADJECTIVES: [&str; 32] = [
    "amber", "bold", "brave", "bright", "calm", "clever", "cosy", "crisp", "eager", "fair", "fancy", "fine",
    "fond", "gentle", "glad", "happy", "keen", "kind", "lively", "lucid", "merry", "mild", "neat", "noble",
    "quick", "quiet", "sharp", "solid", "swift", "tidy", "warm", "wise",
];

const NOUNS: [&str; 32] = [
    "anvil", "basalt", "bellows", "brick", "clay", "cobalt", "copper", "cup", "ember", "flame", "flint",
    "forge", "glaze", "granite", "hearth", "iron", "jar", "jug", "marble", "mortar", "oven", "pot", "potter",
    "quartz", "sand", "slate", "smith", "spark", "stone", "tile", "urn", "vase",
];

/// How long an id is.
pub(crate) const ID_LENGTH: usize = 64;

/// A container's id: 64 hexadecimal digits, as Docker's.
pub(crate) fn random_id() -> String {
    let mut bytes = [0; 32];
    fill_random(&mut bytes);
    bytes.iter().fold(String::with_capacity(64), |mut id, byte| {
        // Writing to a string cannot fail.
        let _ = write!(id, "{byte:02x}");
        id
    })
}

/// A name for a container that was not given one.
pub(crate) fn random_name() -> String {
    let mut bytes = [0; 4];
    fill_random(&mut bytes);
    let [adjective, noun, high, low] = bytes;
    let pick =
        |words: &[&'static str; 32], byte: u8| words.get(usize::from(byte) % 32).copied().unwrap_or("kiln");
    let number = u16::from_be_bytes([high, low]) % 1000;
    format!("{}_{}_{number}", pick(&ADJECTIVES, adjective), pick(&NOUNS, noun))
}

/// Docker's rule for names.
pub(crate) fn check(name: &str) -> Result<(), Error> {
    let first = name.starts_with(|character: char| character.is_ascii_alphanumeric());
    let rest = name
        .chars()
        .all(|character| character.is_ascii_alphanumeric() || "_.-".contains(character));
    if first && rest && name.len() > 1 {
        Ok(())
    } else {
        Err(Error::InvalidName(name.to_owned()))
    }
}

/// Fills `bytes` from the kernel. On kernels before 3.17, without getrandom(2), the clock and the process id
/// serve: names must differ, not be secret.
fn fill_random(bytes: &mut [u8]) {
    if matches!(rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty()), Ok(length) if length == bytes.len())
    {
        return;
    }
    let mut seed = jiff::Timestamp::now().as_nanosecond() as u64 ^ (u64::from(std::process::id()) << 32);
    for byte in bytes {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        *byte = (seed >> 56) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::{check, random_id, random_name};

    #[test]
    fn generated_names_keep_the_rule() {
        for _ in 0..100 {
            assert!(check(&random_name()).is_ok());
        }
        assert_eq!(random_id().len(), 64);
        assert_ne!(random_id(), random_id());
    }

    #[test]
    fn odd_names_are_refused() {
        for name in ["", "a", "-a", "a b", "a/b", "ä1"] {
            assert!(check(name).is_err(), "{name}");
        }
    }
}
