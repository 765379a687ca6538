//! PAX extension headers: records of `length key=value\n`.

use std::collections::BTreeMap;

use kiln_tree::Timestamp;

/// The prefix of extended attributes.
pub(super) const XATTR: &[u8] = b"SCHILY.xattr.";

/// What the records in front of an entry say.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) sparse: SparseRecords,
}

/// The three forms in which GNU tar tells of sparse files.
#[derive(Debug, Default)]
pub(super) struct SparseRecords {
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// Offset and length in turn (forms 0.0 and 0.1).
    pub(super) map: Option<Vec<u64>>,
    /// Form 1.0: the map is in front of the data.
    pub(super) map_in_data: bool,
}

/// Reads the records of one extension header; `None` when they are malformed.
pub(super) fn parse(mut bytes: &[u8], into: &mut Records) -> Option<()> {
    // Some writers pad with NUL bytes.
    while bytes.first().is_some_and(|&byte| byte != 0) {
        let space = bytes.iter().take(20).position(|&byte| byte == b' ')?;
        let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|&byte| byte == b'=')?;
        take(&record[..equals], &record[equals + 1..], into)?;
        bytes = &bytes[length..];
    }
    Some(())
}

fn take(key: &[u8], value: &[u8], into: &mut Records) -> Option<()> {
    // An empty value takes a record back. Extended attributes may really be empty.
    match key {
        b"path" => into.path = text(value)?,
        b"linkpath" => into.link = text(value)?,
        b"size" => into.size = decimal(value)?,
        b"uid" => into.uid = decimal(value)?,
        b"gid" => into.gid = decimal(value)?,
        b"mtime" => {
            into.mtime = if value.is_empty() {
                None
            } else {
                Some(time(value)?)
            }
        }
        b"GNU.sparse.name" => into.sparse.name = text(value)?,
        b"GNU.sparse.size" | b"GNU.sparse.realsize" => into.sparse.real_size = decimal(value)?,
        b"GNU.sparse.major" => into.sparse.map_in_data = value == b"1",
        b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
            into.sparse.map.get_or_insert_default().push(decimal(value)??);
        }
        b"GNU.sparse.map" => {
            let numbers = value.split(|&byte| byte == b',').map(|number| decimal(number)?);
            into.sparse.map = Some(numbers.collect::<Option<_>>()?);
        }
        _ => {
            if let Some(name) = key.strip_prefix(XATTR) {
                if name.is_empty() || name.contains(&0) {
                    return None;
                }
                into.xattrs.insert(name.to_vec(), value.to_vec());
            }
        }
    }
    Some(())
}

/// The outer `None` is an error, the inner one an empty value.
#[expect(clippy::option_option, reason = "two different absences")]
fn text(value: &[u8]) -> Option<Option<Vec<u8>>> {
    if value.contains(&0) {
        return None;
    }
    Some((!value.is_empty()).then(|| value.to_vec()))
}

#[expect(clippy::option_option, reason = "two different absences")]
fn decimal<N: std::str::FromStr>(value: &[u8]) -> Option<Option<N>> {
    if value.is_empty() {
        return Some(None);
    }
    if !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok().map(Some)
}

/// Seconds with an optional sign and fraction.
fn time(value: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = whole.starts_with('-');
    let mut secs: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let mut nanos = digits.fold(0_u32, |value, digit| value * 10 + u32::from(digit - b'0'));
    if negative && nanos > 0 {
        secs = secs.checked_sub(1)?;
        nanos = 1_000_000_000 - nanos;
    }
    Some(Timestamp { secs, nanos })
}

/// One record in its written form.
pub(super) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    // The length counts its own digits.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut record = Vec::with_capacity(length);
    record.extend_from_slice(length.to_string().as_bytes());
    record.push(b' ');
    record.extend_from_slice(key);
    record.push(b'=');
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip() {
        for length in [0, 1, 2, 3, 80, 85, 86, 87, 88, 90, 970, 985, 986, 987, 990, 5000] {
            let value = vec![b'\n'; length];
            let record = record(b"SCHILY.xattr.user.a", &value);
            let mut records = Records::default();
            assert!(parse(&record, &mut records).is_some(), "{length}");
            assert_eq!(records.xattrs.get(&b"user.a"[..]), Some(&value), "{length}");
            let stated: String = record
                .iter()
                .take_while(|&&b| b != b' ')
                .map(|&b| b as char)
                .collect();
            assert_eq!(stated, record.len().to_string());
        }
    }

    #[test]
    fn times() {
        let cases: [(&str, Option<(i64, u32)>); 8] = [
            ("12", Some((12, 0))),
            ("12.5", Some((12, 500_000_000))),
            ("12.0000000019", Some((12, 1))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-0.5", Some((-1, 500_000_000))),
            ("", None),
            ("a", None),
            ("1.a", None),
        ];
        for (text, expected) in cases {
            let time = time(text.as_bytes()).map(|time| (time.secs, time.nanos));
            assert_eq!(time, expected, "{text}");
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        let bad: [&[u8]; 8] = [
            b"x",
            b"5 a=b\n",
            b"7 a=b\n",
            b"99999999999999999999999 a=b\n",
            b"0 a=b\n",
            b"6 ab=\0",
            b"10 uid=-1\n",
            b"12 path=a\0b\n",
        ];
        for bytes in bad {
            assert!(parse(bytes, &mut Records::default()).is_none(), "{bytes:?}");
        }
    }
}
