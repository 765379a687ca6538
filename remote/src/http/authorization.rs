//! Who asks: secrets of the build, or what the URL itself holds.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::{HttpError, HttpErrorKind};
use crate::caller::Credentials;
use crate::percent;

/// Secret whose value is the `Authorization` header for a host.
const HEADER_SECRET: &str = "HTTP_AUTH_HEADER_";
/// Secret whose value is a bearer token for a host.
const TOKEN_SECRET: &str = "HTTP_AUTH_TOKEN_";

/// The `Authorization` header for a URL. A token wins over a header, and both over user information in the URL.
pub(super) fn header(url: &str, credentials: &dyn Credentials) -> Result<Option<String>, HttpError> {
    let (user_information, host) = authority(url);
    let host = host_name(host);
    for (prefix, scheme) in [(TOKEN_SECRET, "Bearer "), (HEADER_SECRET, "")] {
        let id = format!("{prefix}{host}");
        let secret = credentials
            .secret(&id)
            .map_err(|error| HttpError::secret(url, error))?;
        if let Some(secret) = secret {
            return value(url, &id, scheme, &secret).map(Some);
        }
    }
    Ok(user_information.and_then(basic))
}

fn value(url: &str, id: &str, scheme: &str, secret: &[u8]) -> Result<String, HttpError> {
    let text = std::str::from_utf8(secret).ok().map(str::trim_end);
    let text = text.filter(|text| text.bytes().all(|byte| (b' '..0x7f).contains(&byte)));
    let text = text.ok_or_else(|| {
        HttpError::new(
            url,
            HttpErrorKind::Secret,
            format!("secret {id} cannot be sent: it is not one line of printable text"),
        )
    })?;
    Ok(format!("{scheme}{text}"))
}

fn basic(user_information: &str) -> Option<String> {
    let (name, password) = user_information.split_once(':').unwrap_or((user_information, ""));
    let plain = format!("{}:{}", percent::decode(name)?, percent::decode(password)?);
    Some(format!("Basic {}", STANDARD.encode(plain)))
}

/// User information and `host[:port]` of a URL.
fn authority(url: &str) -> (Option<&str>, &str) {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    }
}

/// Without port and brackets.
fn host_name(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::header;
    use crate::caller::{Credentials, SecretError};

    #[derive(Debug)]
    struct Only(&'static str, &'static [u8]);

    impl Credentials for Only {
        fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, SecretError> {
            Ok((id == self.0).then(|| self.1.to_vec()))
        }
    }

    #[test]
    fn secrets_are_by_host_and_come_before_the_url() {
        for (url, id, secret, expected) in [
            ("https://h/x", "HTTP_AUTH_TOKEN_h", "t\n", Some("Bearer t")),
            (
                "https://h:8443/x",
                "HTTP_AUTH_HEADER_h",
                "Basic eA==",
                Some("Basic eA=="),
            ),
            ("https://u:p@h/x", "HTTP_AUTH_TOKEN_h", "t", Some("Bearer t")),
            ("https://u:p%40@h/x", "none", "", Some("Basic dTpwQA==")),
            ("https://[::1]:80/x", "HTTP_AUTH_TOKEN_::1", "t", Some("Bearer t")),
            ("https://other/x", "HTTP_AUTH_TOKEN_h", "t", None),
            ("https://h/u:p@x", "none", "", None),
        ] {
            let header = header(url, &Only(id, secret.as_bytes())).expect("a header");
            assert_eq!(header.as_deref(), expected, "{url}");
        }
        assert!(header("https://h/", &Only("HTTP_AUTH_TOKEN_h", b"a\r\nX: y")).is_err());
    }
}
