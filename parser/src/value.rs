//! Small typed values inside instructions: booleans, sizes, durations, ports, signals.

use std::time::Duration;

/// A boolean as Go reads it: `1 t T TRUE true True`, `0 f F FALSE false False`.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// A size in bytes with an optional unit of 1024 (`64m`, `1.5GiB`, `512`).
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|character: char| !character.is_ascii_digit() && character != '.')
        .unwrap_or(text.len());
    let unit = text[digits..].trim_start().to_ascii_lowercase();
    let unit = unit
        .strip_suffix("ib")
        .or(unit.strip_suffix('b'))
        .unwrap_or(&unit);
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    let number = &text[..digits];
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift);
    }
    let fraction = number.parse::<f64>().ok()?;
    #[expect(clippy::cast_precision_loss, reason = "the unit is a power of two")]
    let bytes = fraction * (1_u64 << shift) as f64;
    (bytes.is_finite() && (0.0..1.8e19).contains(&bytes)).then_some(bytes as u64)
}

/// Why a duration is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DurationError {
    /// Not of the form.
    #[error("invalid duration {0:?}")]
    Invalid(String),
    /// A number without a unit.
    #[error("missing unit in duration {0:?}")]
    MissingUnit(String),
    /// Below zero.
    #[error("duration {0:?} is negative")]
    Negative(String),
    /// Too large to count in nanoseconds.
    #[error("duration {0:?} is too long")]
    TooLong(String),
}

/// A Go duration: `1m30s`, `1.5h`, `300ms`, `0`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let end = rest
            .find(|character: char| !character.is_ascii_digit() && character != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(invalid());
        }
        let end = tail
            .find(|character: char| character.is_ascii_digit() || character == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let scale: u128 = match unit {
            "" => return Err(DurationError::MissingUnit(text.to_owned())),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(invalid()),
        };
        let too_long = || DurationError::TooLong(text.to_owned());
        let whole: u128 = if whole.is_empty() {
            0
        } else {
            whole.parse().map_err(|_| too_long())?
        };
        total = whole
            .checked_mul(scale)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(too_long)?;
        let mut digit_scale = scale;
        for digit in fraction.bytes() {
            digit_scale /= 10;
            total += u128::from(digit - b'0') * digit_scale;
        }
        rest = tail;
    }
    if negative && total > 0 {
        return Err(DurationError::Negative(text.to_owned()));
    }
    // Go counts nanoseconds in a signed 64-bit number.
    i64::try_from(total)
        .map(|nanoseconds| Duration::from_nanos(nanoseconds as u64))
        .map_err(|_| DurationError::TooLong(text.to_owned()))
}

/// A port specification of EXPOSE, expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    /// First port.
    pub first: u16,
    /// Last port; the first one unless a range is given.
    pub last: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// The protocol was not written in lower case (check `ExposeProtoCasing`).
    pub protocol_casing: bool,
    /// An address or a host port stands in front (check `ExposeInvalidFormat`); it is ignored.
    pub host_part: bool,
}

/// Why a port specification is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// No such protocol.
    #[error("invalid protocol {0:?}: EXPOSE knows tcp, udp and sctp")]
    Protocol(String),
    /// No port number.
    #[error("invalid port {0:?}: ports are numbers from 0 to 65535")]
    Port(String),
    /// A range that ends before it starts.
    #[error("invalid port range {0:?}: it ends before it starts; ports are numbers from 0 to 65535")]
    Range(String),
}

/// Parses `[[ip:]host:]port[-port][/protocol]`.
pub fn parse_ports(text: &str) -> Result<Ports, PortError> {
    let (ports, protocol) = text
        .split_once('/')
        .map_or((text, ""), |(ports, protocol)| (ports, protocol));
    let known = match protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => "tcp",
        "udp" => "udp",
        "sctp" => "sctp",
        _ => return Err(PortError::Protocol(protocol.to_owned())),
    };
    let (host, range) = ports
        .rsplit_once(':')
        .map_or((None, ports), |(host, range)| (Some(host), range));
    let number = |port: &str| {
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        digits
            .then(|| port.parse::<u16>().ok())
            .flatten()
            .ok_or_else(|| PortError::Port(port.to_owned()))
    };
    let (first, last) = match range.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(range)?, number(range)?),
    };
    if last < first {
        return Err(PortError::Range(range.to_owned()));
    }
    let protocol_casing = !protocol.is_empty() && protocol != known;
    Ok(Ports {
        first,
        last,
        protocol: known,
        protocol_casing,
        host_part: host.is_some(),
    })
}

/// The signals of Linux by name, without `SIG`.
static SIGNALS: &[(&str, u8)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("RTMIN", 34),
    ("RTMAX", 64),
];

/// A signal number from a name (`SIGTERM`, `term`, `RTMIN+3`) or a number.
pub fn parse_signal(text: &str) -> Option<u8> {
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = SIGNALS.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    let number = if let Some(offset) = name.strip_prefix("RTMIN+") {
        34_u8.checked_add(offset.parse().ok()?)?
    } else {
        64_u8.checked_sub(name.strip_prefix("RTMAX-")?.parse().ok()?)?
    };
    (34..=64).contains(&number).then_some(number)
}

/// The names of the signals, for suggestions.
pub fn signal_names() -> impl Iterator<Item = &'static str> {
    SIGNALS.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests;
