//! The little of URLs that a registry client needs: origin, path, resolution of `Location`, escaping.

use std::fmt;

/// An absolute `http` or `https` URL. User information and fragment are dropped on parsing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) https: bool,
    /// Host in lower case, with brackets for IPv6, with port when it is not the scheme's own.
    pub(crate) authority: String,
    /// Starts with `/`.
    pub(crate) path: String,
    /// Without `?`.
    pub(crate) query: Option<String>,
}

/// Bytes of a path that are shown.
const SHOWN: usize = 400;

/// Why a text is no URL for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UrlError {
    #[error("only http:// and https:// are possible")]
    Scheme,
    #[error("the host is missing or malformed")]
    Host,
    #[error("it contains a space or control character")]
    Character,
}

impl Url {
    pub(crate) fn parse(text: &str) -> Result<Self, UrlError> {
        if text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) || !text.is_ascii() {
            return Err(UrlError::Character);
        }
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let https = if scheme.eq_ignore_ascii_case("https") {
            true
        } else if scheme.eq_ignore_ascii_case("http") {
            false
        } else {
            return Err(UrlError::Scheme);
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let (path, query) = split_query(tail);
        Ok(Self {
            https,
            authority: normalize_authority(authority, https)?,
            path: slash(path),
            query,
        })
    }

    /// The URL that a `Location` header names, relative to this one.
    pub(crate) fn join(&self, location: &str) -> Result<Self, UrlError> {
        let location = location.trim();
        if location.contains("://") && !location.starts_with('/') {
            return Self::parse(location);
        }
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{}://{rest}", self.scheme()));
        }
        if location.bytes().any(|byte| byte <= b' ' || byte == 0x7f) || !location.is_ascii() {
            return Err(UrlError::Character);
        }
        let (path, query) = split_query(location.split('#').next().unwrap_or_default());
        let path = if path.starts_with('/') {
            path.to_owned()
        } else if path.is_empty() {
            self.path.clone()
        } else {
            let parent = self.path.rfind('/').map_or("", |slash| &self.path[..slash]);
            format!("{parent}/{path}")
        };
        Ok(Self {
            path,
            query,
            ..self.clone()
        })
    }

    pub(crate) fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// Same scheme, host and port: where credentials may go along.
    pub(crate) fn same_origin(&self, other: &Self) -> bool {
        self.https == other.https && self.authority == other.authority
    }

    /// Appends to the query.
    pub(crate) fn with_query(mut self, name: &str, value: &str) -> Self {
        let pair = format!("{}={}", escape(name), escape(value));
        self.query = Some(match self.query {
            Some(query) if !query.is_empty() => format!("{query}&{pair}"),
            _ => pair,
        });
        self
    }

    /// Without the query, which may hold signatures, tokens and upload state, and not longer than can be read.
    pub(crate) fn public(&self) -> String {
        // A URL is ASCII.
        let (path, more) = match self.path.get(..SHOWN) {
            Some(start) if self.path.len() > SHOWN => (start, "…"),
            _ => (self.path.as_str(), ""),
        };
        format!("{}://{}{path}{more}", self.scheme(), self.authority)
    }

    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback(&self.authority)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme(), self.authority, self.path)?;
        self.query.as_ref().map_or(Ok(()), |query| write!(f, "?{query}"))
    }
}

fn split_query(tail: &str) -> (&str, Option<String>) {
    match tail.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (tail, None),
    }
}

fn slash(path: &str) -> String {
    if path.is_empty() {
        "/".to_owned()
    } else {
        path.to_owned()
    }
}

fn normalize_authority(authority: &str, https: bool) -> Result<String, UrlError> {
    let authority = authority.to_ascii_lowercase();
    let (host, port) = split_port(&authority);
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let valid = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        }
    };
    if !valid {
        return Err(UrlError::Host);
    }
    match port {
        None => Ok(host.to_owned()),
        Some(port) => match (port.parse::<u16>(), https) {
            (Err(_), _) => Err(UrlError::Host),
            (Ok(443), true) | (Ok(80), false) => Ok(host.to_owned()),
            (Ok(port), _) => Ok(format!("{host}:{port}")),
        },
    }
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    let host_end = authority.rfind(']').map_or(0, |end| end + 1);
    match authority[host_end..].rfind(':') {
        Some(colon) => (
            &authority[..host_end + colon],
            Some(&authority[host_end + colon + 1..]),
        ),
        None => (authority, None),
    }
}

/// The host of `host[:port]`.
pub(crate) fn host(authority: &str) -> &str {
    split_port(authority).0
}

/// Whether a `host[:port]` is this machine: `localhost`, `*.localhost`, 127.0.0.0/8 or `[::1]`.
pub(crate) fn is_loopback(authority: &str) -> bool {
    let host = split_port(authority).0;
    if host == "localhost" || host.ends_with(".localhost") {
        return true;
    }
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    bare.parse::<std::net::IpAddr>()
        .is_ok_and(|address| address.is_loopback())
}

/// Percent-encoding for query values and form fields (RFC 3986 unreserved characters stay).
pub(crate) fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parses_and_normalizes() {
        let cases = [
            ("https://Registry.Example:443/v2/", "https://registry.example/v2/"),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5000/"),
            ("http://[::1]:5000/a?b=c#d", "http://[::1]:5000/a?b=c"),
            ("https://user:secret@host/x", "https://host/x"),
            ("HTTP://h:80?q", "http://h/?q"),
        ];
        for (text, want) in cases {
            assert_eq!(Url::parse(text).unwrap().to_string(), want, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_http_url() {
        let cases = [
            ("ftp://h/", UrlError::Scheme),
            ("host/path", UrlError::Scheme),
            ("https:///path", UrlError::Host),
            ("https://h:99999/", UrlError::Host),
            ("https://h:/", UrlError::Host),
            ("https://[zz]/", UrlError::Host),
            ("https://h/a b", UrlError::Character),
            ("https://h/a\r\nX: y", UrlError::Character),
        ];
        for (text, want) in cases {
            assert_eq!(Url::parse(text), Err(want), "{text}");
        }
    }

    #[test]
    fn joins_locations() {
        let base = Url::parse("https://h:8443/v2/a/blobs/x?token=1").unwrap();
        let cases = [
            ("https://cdn.example/y?sig=2", "https://cdn.example/y?sig=2"),
            ("//cdn.example/y", "https://cdn.example/y"),
            ("/y?state=http://z", "https://h:8443/y?state=http://z"),
            ("y", "https://h:8443/v2/a/blobs/y"),
            ("?b=1", "https://h:8443/v2/a/blobs/x?b=1"),
        ];
        for (location, want) in cases {
            assert_eq!(base.join(location).unwrap().to_string(), want, "{location}");
        }
        assert_eq!(base.join("/a b"), Err(UrlError::Character));
        assert_eq!(base.join("file:///etc/passwd"), Err(UrlError::Scheme));
    }

    proptest! {
        #[test]
        fn foreign_locations_never_panic_and_stay_clean(location in "\\PC{0,80}|[a-z:/?#@\\[\\]0-9. ]{0,80}") {
            let base = Url::parse("https://h/v2/a?b").unwrap();
            if let Ok(url) = base.join(&location) {
                let text = url.to_string();
                prop_assert!(text.bytes().all(|byte| byte > b' ' && byte < 0x7f), "{}", text);
                prop_assert_eq!(Url::parse(&text), Ok(url));
            }
        }
    }

    #[test]
    fn loopback_is_by_address() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1",
            "127.8.9.1:80",
            "[::1]:5000",
            "a.localhost",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.example",
            "127.0.0.1.example",
            "10.0.0.1",
            "[::2]",
            "registry",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn query_is_escaped_and_hidden() {
        let url = Url::parse("https://auth/token")
            .unwrap()
            .with_query("service", "a b")
            .with_query("s", "x:y/z");
        assert_eq!(url.to_string(), "https://auth/token?service=a%20b&s=x%3Ay%2Fz");
        assert_eq!(url.public(), "https://auth/token");
        let long = Url::parse(&format!("https://h/{}", "x".repeat(5000))).unwrap();
        assert!(long.public().len() < 500, "{}", long.public());
    }
}
