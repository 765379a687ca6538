//! What a registry says in headers and error bodies.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use crate::error::ErrorKind;
use crate::transport::Response;

/// Error bodies are a few hundred bytes; a page of HTML from a proxy may be more and is no use.
const ERROR_BODY_LIMIT: u64 = 64 * 1024;
/// Characters of a foreign message that reach the user.
const MESSAGE_LIMIT: usize = 300;

/// Code and message of an error body.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
}

impl Complaint {
    /// Reads the body of an error response. A body that cannot be read says nothing.
    pub(crate) fn read(response: &mut Response) -> Self {
        match response.read_limited(ERROR_BODY_LIMIT) {
            Ok(Some(bytes)) => Self::parse(&bytes),
            Ok(None) | Err(_) => Self::default(),
        }
    }

    fn parse(bytes: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Body {
            #[serde(default)]
            errors: Vec<Item>,
            // Token services have forms of their own.
            #[serde(default)]
            error: Option<String>,
            #[serde(default)]
            error_description: Option<String>,
            #[serde(default)]
            details: Option<String>,
            #[serde(default)]
            message: Option<String>,
        }
        #[derive(Deserialize)]
        struct Item {
            #[serde(default)]
            code: Option<String>,
            #[serde(default)]
            message: Option<String>,
        }
        let Ok(body) = serde_json::from_slice::<Body>(bytes) else {
            return Self::default();
        };
        let (code, message) = match body.errors.into_iter().next() {
            Some(item) => (item.code, item.message),
            None => (
                body.error,
                body.error_description.or(body.details).or(body.message),
            ),
        };
        let clean = |text: Option<String>| text.and_then(|text| one_line(&text, MESSAGE_LIMIT));
        Self {
            code: clean(code),
            message: clean(message),
        }
    }
}

/// Foreign text on one line, without control characters, cut at `limit` characters; `None` if empty.
pub(crate) fn one_line(text: &str, limit: usize) -> Option<String> {
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c.is_control() || turns_text(c))
        .filter(|w| !w.is_empty())
        .collect();
    let line = words.join(" ");
    match line.char_indices().nth(limit) {
        _ if line.is_empty() => None,
        Some((end, _)) => Some(format!("{}…", &line[..end])),
        None => Some(line),
    }
}

/// Characters that change the direction of the text around them: what is shown would not be what was said.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The kind of error that a status means, and words for it.
pub(crate) fn status_kind(status: u16, code: Option<&str>) -> (ErrorKind, String) {
    let (kind, words) = match (status, code) {
        (_, Some("TOOMANYREQUESTS")) | (429, _) => (ErrorKind::RateLimited, "too many requests"),
        (401, _) => (ErrorKind::Unauthorized, "not authorized"),
        (403, _) => (ErrorKind::Denied, "access denied"),
        (404, _) => (ErrorKind::NotFound, "not found"),
        (500..=599, _) => (ErrorKind::Server, "server error"),
        _ => (ErrorKind::Protocol, "unexpected answer"),
    };
    (kind, format!("{words} (status {status})"))
}

/// Whether another attempt may help.
pub(crate) fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// The wait that a `Retry-After` header asks for: seconds, or an HTTP date.
pub(crate) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let then = parse_http_date(value)?;
    let now = now.duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(Duration::from_secs(then.saturating_sub(now)))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as seconds since 1970 (RFC 9110 section 5.6.7, preferred form).
pub fn parse_http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let mut words = text.split_once(", ")?.1.split(' ');
    let day: u64 = words.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let month_name = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month_name)? as u64 + 1;
    let year: u64 = words
        .next()?
        .parse()
        .ok()
        .filter(|year| (1970..=9999).contains(year))?;
    let mut time = words
        .next()?
        .split(':')
        .map(|part| part.parse::<u64>().ok().filter(|part| *part <= 60));
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    if words.next() != Some("GMT") {
        return None;
    }
    // Days since 1970 of a civil date, with the year starting in March.
    let (y, m) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let days = (365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1).checked_sub(719_468)?;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

/// The start and total of `Content-Range: bytes 100-199/200`. The total may be unknown (`*`).
pub(crate) fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let start = range.trim().split_once('-')?.0.parse().ok()?;
    let total = total.trim();
    Some((
        start,
        if total == "*" {
            None
        } else {
            Some(total.parse().ok()?)
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_bodies() {
        let cases: &[(&str, Option<&str>, Option<&str>)] = &[
            (
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#,
                Some("MANIFEST_UNKNOWN"),
                Some("manifest unknown"),
            ),
            (
                r#"{"details":"incorrect username or password"}"#,
                None,
                Some("incorrect username or password"),
            ),
            (
                r#"{"error":"invalid_grant","error_description":"no"}"#,
                Some("invalid_grant"),
                Some("no"),
            ),
            (r#"{"errors":[]}"#, None, None),
            ("<html>", None, None),
            ("", None, None),
            ("{\"message\":\"a\\n\\u001b[31mb\"}", None, Some("a [31mb")),
        ];
        for (body, code, message) in cases {
            let complaint = Complaint::parse(body.as_bytes());
            assert_eq!(
                (complaint.code.as_deref(), complaint.message.as_deref()),
                (*code, *message),
                "{body}"
            );
        }
    }

    #[test]
    fn foreign_text_is_cut() {
        assert_eq!(one_line(&"ä".repeat(400), 300).unwrap().chars().count(), 301);
        assert_eq!(one_line(" \n ", 5), None);
        assert_eq!(one_line("a\u{202e}b\u{2066}", 5).as_deref(), Some("a b"));
    }

    #[test]
    fn retry_after_forms() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let cases = [
            ("5", Some(5)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
            ("soon", None),
            ("-1", None),
            ("Sun, 99 Foo 1994 08:49:37 GMT", None),
        ];
        for (value, want) in cases {
            assert_eq!(retry_after(value, now), want.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn content_ranges() {
        let cases = [
            ("bytes 100-199/200", Some((100, Some(200)))),
            ("bytes 0-9/*", Some((0, None))),
            ("bytes */200", None),
            ("items 0-1/2", None),
        ];
        for (value, want) in cases {
            assert_eq!(content_range(value), want, "{value}");
        }
    }
}
