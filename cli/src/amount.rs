//! Sizes and times as people write them.

use std::time::Duration;

use kiln_cache::disk::Amount;

/// Names of sizes. Those of the disk are powers of 1000, as Kiln shows them; the ones with an `i` are powers of 1024.
const SIZES: [(&str, u64); 16] = [
    ("", 1),
    ("b", 1),
    ("k", 1_000),
    ("kb", 1_000),
    ("m", 1_000_000),
    ("mb", 1_000_000),
    ("g", 1_000_000_000),
    ("gb", 1_000_000_000),
    ("t", 1_000_000_000_000),
    ("tb", 1_000_000_000_000),
    ("ki", 1 << 10),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("gi", 1 << 30),
];

/// Names of lengths of time, in milliseconds.
const TIMES: [(&str, f64); 6] = [
    ("ms", 1.0),
    ("s", 1_000.0),
    ("m", 60_000.0),
    ("h", 3_600_000.0),
    ("d", 86_400_000.0),
    ("w", 604_800_000.0),
];

/// A size: `20GB`, `512MiB`, `1.5g`, or bytes.
pub(crate) fn size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = SIZES.iter().find(|(name, _)| *name == unit.trim())?.1;
    if let Ok(number) = number.parse::<u64>() {
        return number.checked_mul(unit);
    }
    #[expect(clippy::cast_precision_loss, reason = "a broken number is no exact one")]
    let bytes = number.parse::<f64>().ok()? * unit as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
    (bytes.is_finite() && (0.0..1e18).contains(&bytes)).then_some(bytes as u64)
}

/// A size, or a part of the disk: `10%`.
pub(crate) fn amount(text: &str) -> Option<Amount> {
    match text.trim().strip_suffix('%') {
        Some(percent) => {
            let percent: u8 = percent.trim().parse().ok()?;
            (percent <= 100).then_some(Amount::Percent(percent))
        }
        None => size(text).map(Amount::Bytes),
    }
}

/// A length of time: `24h`, `1h30m`, `7d`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut sum = 0.0;
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit = TIMES.iter().find(|(name, _)| *name == unit)?.1;
        sum += number.parse::<f64>().ok()? * unit;
        rest = after;
    }
    Duration::try_from_secs_f64(sum / 1_000.0).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kiln_cache::disk::Amount;

    use super::{amount, duration, size};

    #[test]
    fn sizes() {
        let table = [
            ("0", Some(0)),
            ("1234", Some(1234)),
            ("1b", Some(1)),
            ("20GB", Some(20_000_000_000)),
            ("20 gb", Some(20_000_000_000)),
            ("1.5g", Some(1_500_000_000)),
            ("512MiB", Some(512 << 20)),
            ("2TiB", Some(2 << 40)),
            ("", None),
            ("GB", None),
            ("-1", None),
            ("1XB", None),
            ("1.2.3k", None),
            ("99999999999999t", None),
        ];
        for (text, bytes) in table {
            assert_eq!(size(text), bytes, "{text:?}");
        }
        assert_eq!(amount("10%"), Some(Amount::Percent(10)));
        assert_eq!(amount("5GB"), Some(Amount::Bytes(5_000_000_000)));
        for wrong in ["101%", "%", "1.5%", "x"] {
            assert_eq!(amount(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn times() {
        let table = [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("90s", Some(90)),
            ("24h", Some(86_400)),
            ("1h30m", Some(5_400)),
            ("1.5h", Some(5_400)),
            ("7d", Some(604_800)),
            ("2w", Some(1_209_600)),
            ("", None),
            ("24", None),
            ("h", None),
            ("1x", None),
            ("1h30", None),
        ];
        for (text, seconds) in table {
            assert_eq!(duration(text), seconds.map(Duration::from_secs), "{text:?}");
        }
    }
}
