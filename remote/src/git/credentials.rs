//! What proves to a server who asks: the build's secrets, and the user's own set-up of git.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::GitError;
use super::program::{Program, Run};

/// Settings for git, in order.
pub(super) type Config = Vec<(String, String)>;

/// Secrets that hold what git sends to a server, the best first: for a host, then for the main repository.
const SECRETS: &[(&str, Kind)] = &[("GIT_AUTH_HEADER", Kind::Header), ("GIT_AUTH_TOKEN", Kind::Token)];

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// The value of the `Authorization` header.
    Header,
    /// A password for the user `x-access-token`.
    Token,
}

/// The settings that a remote needs. `main` is the remote of the build, which `remote` may be a submodule of: the
/// secrets without a host's name are for it alone, and for all of GitHub when it is there.
pub(super) fn for_remote(
    program: Program<'_>,
    user: &OnceLock<Config>,
    remote: &str,
    main: &str,
) -> Result<Config, GitError> {
    let mut config = if let Some(config) = user.get() {
        config.clone()
    } else {
        let config = of_user(program, remote)?;
        user.get_or_init(|| config).clone()
    };
    config.extend(header(program, remote, main)?);
    Ok(config)
}

fn header(program: Program<'_>, remote: &str, main: &str) -> Result<Option<(String, String)>, GitError> {
    let Some(host) = http_host(remote) else {
        return Ok(None);
    };
    let scope = scope(main);
    let for_host = SECRETS
        .iter()
        .map(|(name, kind)| (format!("{name}.{host}"), *kind));
    let general = SECRETS
        .iter()
        .filter(|_| remote.starts_with(scope))
        .map(|(name, kind)| ((*name).to_owned(), *kind));
    for (id, kind) in for_host.chain(general) {
        if let Some(secret) = program.caller.credentials.secret(&id)? {
            let value = header_value(&id, kind, &secret)?;
            // Without user information: git compares what is left.
            let (scheme, rest) = remote.split_once("://").unwrap_or(("https", remote));
            let path = rest.find('/').map_or("", |slash| &rest[slash..]);
            let key = format!("http.{scheme}://{host}{path}.extraHeader");
            return Ok(Some((key, format!("Authorization: {value}"))));
        }
    }
    Ok(None)
}

fn header_value(id: &str, kind: Kind, secret: &[u8]) -> Result<String, GitError> {
    let text = std::str::from_utf8(secret).ok().map(str::trim_end);
    let text = text
        .filter(|text| text.bytes().all(|byte| (b' '..0x7f).contains(&byte)))
        .ok_or_else(|| crate::caller::SecretError {
            id: id.to_owned(),
            reason: "it cannot be sent: it is not one line of printable text".to_owned(),
        })?;
    Ok(match kind {
        Kind::Header => text.to_owned(),
        Kind::Token => format!("basic {}", STANDARD.encode(format!("x-access-token:{text}"))),
    })
}

/// What a token without a host's name is for: one repository, or GitHub, where submodules mostly are.
fn scope(main: &str) -> &str {
    ["https://github.com/", "https://www.github.com/"]
        .into_iter()
        .find(|prefix| main.starts_with(prefix))
        .unwrap_or(main)
}

/// `host[:port]` of a remote that is reached by HTTP.
fn http_host(remote: &str) -> Option<&str> {
    let rest = remote
        .strip_prefix("https://")
        .or_else(|| remote.strip_prefix("http://"))?;
    let authority = rest.split('/').next().unwrap_or_default();
    authority.rsplit('@').next()
}

/// The user's helpers for passwords and settings of HTTP (authorities, proxies). Nothing else of the user's
/// configuration counts.
fn of_user(program: Program<'_>, remote: &str) -> Result<Config, GitError> {
    let mut config = Config::new();
    let has_home = |(name, _): &(std::ffi::OsString, _)| name == "HOME" || name == "XDG_CONFIG_HOME";
    let scopes: &[&str] = if program.settings.environment.iter().any(has_home) {
        &["--system", "--global"]
    } else {
        &["--system"]
    };
    for scope in scopes {
        let arguments = [
            "config",
            scope,
            "--includes",
            "-z",
            "--get-regexp",
            "^(credential|http)\\.",
        ];
        let mut run = Run::new("config", remote, &arguments);
        run.user_config = true;
        let output = program.output(&run)?;
        // 1: nothing of these names, or no such file.
        let listed = match output.status.code() {
            Some(1) => continue,
            _ => output.good(&run)?,
        };
        for entry in String::from_utf8_lossy(&listed).split('\0') {
            if let Some((key, value)) = entry.split_once('\n') {
                config.push((key.to_owned(), value.to_owned()));
            }
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::{http_host, scope};

    #[test]
    fn tokens_are_for_the_repository_or_for_github() {
        assert_eq!(scope("https://github.com/a/b.git"), "https://github.com/");
        assert_eq!(scope("https://h/a/b.git"), "https://h/a/b.git");
        assert_eq!(
            scope("https://github.com.evil/a.git"),
            "https://github.com.evil/a.git"
        );
        assert_eq!(http_host("https://u:p@h:8443/r.git"), Some("h:8443"));
        assert_eq!(http_host("ssh://git@h/r"), None);
    }
}
