//! Sizes, times and ids in Docker's notation.

use kiln_image::Digest;

/// A size with three significant digits, in powers of 1000: `1.23MB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    // What would be rounded to 1000 is one of the next unit.
    while value >= if unit == 0 { 1000.0 } else { 999.5 } && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    let mut text = format!("{value:.digits$}");
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    format!("{text}{}", UNITS.get(unit).copied().unwrap_or("EB"))
}

/// How long ago something was, as Docker says it: `2 hours ago`. The input is RFC 3339.
pub(crate) fn ago(time: Option<&str>, now: jiff::Timestamp) -> String {
    let Some(time) = time.and_then(|time| time.parse::<jiff::Timestamp>().ok()) else {
        return "N/A".to_owned();
    };
    let seconds = now.as_second().saturating_sub(time.as_second()).max(0);
    format!("{} ago", span(seconds))
}

/// A length of time as Docker says it: `About a minute`, `3 weeks`.
pub(crate) fn span(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..MINUTE => format!("{seconds} seconds"),
        _ if seconds < 2 * MINUTE => "About a minute".to_owned(),
        _ if seconds < HOUR => format!("{} minutes", seconds / MINUTE),
        _ if seconds < HOUR * 3 / 2 => "About an hour".to_owned(),
        _ if seconds < 2 * DAY => format!("{} hours", (seconds + HOUR / 2) / HOUR),
        _ if seconds < 14 * DAY => format!("{} days", seconds / DAY),
        _ if seconds < 60 * DAY => format!("{} weeks", seconds / DAY / 7),
        _ if seconds < 730 * DAY => format!("{} months", seconds / DAY / 30),
        _ => format!("{} years", seconds / DAY / 365),
    }
}

/// An image's id: twelve digits, or all with the algorithm.
pub(crate) fn id(id: &Digest, whole: bool) -> String {
    if whole {
        id.to_string()
    } else {
        id.hex().chars().take(12).collect()
    }
}

/// `text` cut to `width` characters, ending in an ellipsis where something was cut.
pub(crate) fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::{ago, ellipsis, size, span};

    #[test]
    fn sizes_have_three_digits() {
        let table = [
            (0, "0B"),
            (999, "999B"),
            (1_000, "1kB"),
            (5_950, "5.95kB"),
            (999_499, "999kB"),
            (999_999, "1MB"),
            (1_234_567, "1.23MB"),
            (77_800_000, "77.8MB"),
            (142_000_000, "142MB"),
            (2_000_000_000, "2GB"),
            (u64::MAX, "18.4EB"),
        ];
        for (bytes, text) in table {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn spans_are_worded_as_docker_does() {
        let table = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (100, "About a minute"),
            (600, "10 minutes"),
            (3_700, "About an hour"),
            (7_200, "2 hours"),
            (90_000, "25 hours"),
            (1_209_600, "2 weeks"),
            (63_072_000, "2 years"),
        ];
        for (seconds, text) in table {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn times_are_told_from_now() {
        let now: jiff::Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        assert_eq!(ago(Some("2026-01-01T21:00:00Z"), now), "3 hours ago");
        assert_eq!(ago(Some("2026-01-03T00:00:00Z"), now), "Less than a second ago");
        assert_eq!(ago(Some("yesterday"), now), "N/A");
        assert_eq!(ago(None, now), "N/A");
    }

    #[test]
    fn long_texts_end_in_an_ellipsis() {
        assert_eq!(ellipsis("abcdef", 4), "abc…");
        assert_eq!(ellipsis("abcd", 4), "abcd");
    }
}
