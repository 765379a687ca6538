//! Trying credentials.

use ureq::http::Method;

use crate::auth::Scope;
use crate::client::{Client, Purpose};
use crate::error::Result;
use kiln_image::Reference;

impl Client {
    /// Asks a registry whether it takes the credentials that the client has for it. A registry that asks nobody for
    /// anything takes all.
    pub fn login(&self, host: &str) -> Result<()> {
        let nothing = Reference {
            registry: host.to_owned(),
            repository: String::new(),
            tag: None,
            digest: None,
        };
        self.on_endpoints("log in to", &nothing, Purpose::Push, |endpoint| {
            let mut url = endpoint.url("");
            "/v2/".clone_into(&mut url.path);
            let request = self.request(Method::GET, url);
            self.retrying(&request.url, || {
                self.call_ok(endpoint, &Scope::nothing(), &request).map(drop)
            })
        })
    }
}

/// The host that somebody means who types `server`: without a scheme and path, and Docker Hub by its one name.
pub fn server_host(server: &str) -> String {
    let server = server.trim();
    let host = server
        .strip_prefix("https://")
        .or_else(|| server.strip_prefix("http://"))
        .unwrap_or(server);
    let host = host.split('/').next().unwrap_or_default();
    if crate::docker_config::is_hub(host) {
        "docker.io".to_owned()
    } else {
        host.to_ascii_lowercase()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn servers_as_people_type_them() {
        for (server, host) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "docker.io"),
            ("registry-1.docker.io", "docker.io"),
            ("Reg.Example:5000", "reg.example:5000"),
            ("http://reg.example/v2/", "reg.example"),
            ("reg.example/team", "reg.example"),
            ("", ""),
        ] {
            assert_eq!(super::server_host(server), host, "{server}");
        }
    }
}
