//! Which servers are asked for a repository, in which order, under which name.

use std::collections::BTreeMap;

use crate::config::ClientConfig;
use crate::error::ConfigError;
use crate::url::{Url, is_loopback};
use kiln_image::Reference;

/// The name that references use for Docker Hub, and the host that serves it.
const HUB: &str = "docker.io";
const HUB_HOST: &str = "registry-1.docker.io";
/// Docker's name space for official images.
const LIBRARY: &str = "library/";

/// One server and the repository's name on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Scheme, host and port; the path is `/`.
    pub(crate) base: Url,
    /// Repository, with the mirror's prefix.
    pub(crate) repository: String,
    /// Host under which credentials are looked up.
    pub(crate) credentials: String,
    /// Plain HTTP on a host that was asked over HTTPS before: only worth a try when that gave no
    /// connection.
    pub(crate) only_if_unreachable: bool,
}

impl Endpoint {
    /// `/v2/<repository>/<tail>`.
    pub(crate) fn url(&self, tail: &str) -> Url {
        Url {
            path: format!("/v2/{}/{tail}", self.repository),
            ..self.base.clone()
        }
    }
}

/// Scheme, authority and repository prefix of a mirror or registry.
#[derive(Debug, Clone)]
struct Place {
    /// `None`: as the rules for the host say.
    https: Option<bool>,
    authority: String,
    prefix: String,
}

/// The endpoints of every registry.
#[derive(Debug)]
pub(crate) struct Endpoints {
    mirrors: BTreeMap<String, Vec<Place>>,
    insecure: Vec<String>,
}

impl Endpoints {
    pub(crate) fn new(config: &ClientConfig) -> Result<Self, ConfigError> {
        let mut mirrors = BTreeMap::new();
        for (registry, list) in &config.mirrors {
            let mut places = Vec::new();
            for mirror in list {
                places.push(parse_mirror(&mirror.url).map_err(|reason| ConfigError::Mirror {
                    registry: registry.clone(),
                    mirror: mirror.url.clone(),
                    reason,
                })?);
            }
            mirrors.insert(registry.clone(), places);
        }
        Ok(Self {
            mirrors,
            insecure: config.insecure.iter().cloned().collect(),
        })
    }

    /// Mirrors in order, then the registry.
    pub(crate) fn for_pull(&self, reference: &Reference) -> Result<Vec<Endpoint>, String> {
        let mut endpoints = Vec::new();
        let repository = reference.repository.as_str();
        for place in self.mirrors.get(&reference.registry).into_iter().flatten() {
            let short = repository
                .strip_prefix(LIBRARY)
                .filter(|_| reference.registry == HUB);
            for name in std::iter::once(repository).chain(short) {
                self.add(&mut endpoints, place, name, &place.authority);
            }
        }
        endpoints.extend(self.for_push(reference)?);
        Ok(endpoints)
    }

    /// The registry itself.
    pub(crate) fn for_push(&self, reference: &Reference) -> Result<Vec<Endpoint>, String> {
        let registry = reference.registry.as_str();
        let host = if registry == HUB { HUB_HOST } else { registry };
        let place = parse_mirror(host)?;
        let mut endpoints = Vec::new();
        self.add(&mut endpoints, &place, &reference.repository, registry);
        Ok(endpoints)
    }

    fn add(&self, endpoints: &mut Vec<Endpoint>, place: &Place, repository: &str, credentials: &str) {
        let insecure = self
            .insecure
            .iter()
            .any(|host| host.eq_ignore_ascii_case(&place.authority));
        let schemes: &[bool] = match place.https {
            Some(false) => &[false],
            None if insecure => &[true, false],
            None if is_loopback(&place.authority) => &[false],
            Some(true) | None => &[true],
        };
        for (index, &https) in schemes.iter().enumerate() {
            endpoints.push(Endpoint {
                base: Url {
                    https,
                    authority: place.authority.clone(),
                    path: "/".to_owned(),
                    query: None,
                },
                repository: format!("{}{repository}", place.prefix),
                credentials: credentials.to_owned(),
                only_if_unreachable: index > 0,
            });
        }
    }
}

/// `scheme://host[:port][/prefix]`, the scheme being optional.
fn parse_mirror(text: &str) -> Result<Place, String> {
    let (https, full) = match text.split_once("://") {
        Some((scheme, _)) => (Some(scheme.eq_ignore_ascii_case("https")), text.to_owned()),
        // The scheme only decides which port goes without saying; 443 must survive for HTTP.
        None => (None, format!("https://{text}")),
    };
    let url = Url::parse(&full).map_err(|error| error.to_string())?;
    if url.query.is_some() {
        return Err("a query makes no sense here".to_owned());
    }
    let path = url.path.trim_matches('/');
    // Docker's own setting wants no `/v2`; people write it all the same.
    let path = path
        .strip_prefix("v2/")
        .unwrap_or(if path == "v2" { "" } else { path });
    let prefix = if path.is_empty() {
        String::new()
    } else {
        format!("{path}/")
    };
    Ok(Place {
        https,
        authority: url.authority,
        prefix,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mirror;

    fn config(mirrors: &[(&str, &[&str])], insecure: &[&str]) -> ClientConfig {
        ClientConfig {
            mirrors: mirrors
                .iter()
                .map(|(host, urls)| {
                    (
                        (*host).to_owned(),
                        urls.iter().map(|url| Mirror::from(*url)).collect(),
                    )
                })
                .collect(),
            insecure: insecure.iter().map(|host| (*host).to_owned()).collect(),
            ..ClientConfig::default()
        }
    }

    fn urls(config: &ClientConfig, reference: &str) -> Vec<String> {
        let reference: Reference = reference.parse().unwrap();
        let endpoints = Endpoints::new(config).unwrap().for_pull(&reference).unwrap();
        endpoints
            .iter()
            .map(|endpoint| endpoint.url("").to_string())
            .collect()
    }

    #[test]
    fn table() {
        let hub = "https://registry-1.docker.io/v2/library/python/";
        let cases: &[(ClientConfig, &str, &[&str])] = &[
            (config(&[], &[]), "python:3.11-slim", &[hub]),
            (
                config(&[("docker.io", &["http://127.0.0.1:5000"])], &[]),
                "python:3.11-slim",
                &[
                    "http://127.0.0.1:5000/v2/library/python/",
                    "http://127.0.0.1:5000/v2/python/",
                    hub,
                ],
            ),
            (
                config(&[("docker.io", &["https://m.example/hub/", "127.0.0.1:1"])], &[]),
                "org/app",
                &[
                    "https://m.example/v2/hub/org/app/",
                    "http://127.0.0.1:1/v2/org/app/",
                    "https://registry-1.docker.io/v2/org/app/",
                ],
            ),
            (
                config(&[("docker.io", &["http://127.0.0.1:5000"])], &[]),
                "quay.io/a/b",
                &["https://quay.io/v2/a/b/"],
            ),
            (
                config(&[("quay.io", &["https://m.example/v2/q"])], &[]),
                "quay.io/library/b",
                &[
                    "https://m.example/v2/q/library/b/",
                    "https://quay.io/v2/library/b/",
                ],
            ),
            (
                config(&[], &[]),
                "localhost:5000/a",
                &["http://localhost:5000/v2/a/"],
            ),
            (
                config(&[], &["reg.example:5000", "127.0.0.1:5000"]),
                "reg.example:5000/a",
                &["https://reg.example:5000/v2/a/", "http://reg.example:5000/v2/a/"],
            ),
            (
                config(&[], &["127.0.0.1:5000"]),
                "127.0.0.1:5000/a",
                &["https://127.0.0.1:5000/v2/a/", "http://127.0.0.1:5000/v2/a/"],
            ),
        ];
        for (config, reference, want) in cases {
            assert_eq!(&urls(config, reference), want, "{reference}");
        }
    }

    #[test]
    fn pushes_never_go_to_a_mirror() {
        let config = config(&[("docker.io", &["http://127.0.0.1:5000"])], &[]);
        let endpoints = Endpoints::new(&config)
            .unwrap()
            .for_push(&"python".parse().unwrap())
            .unwrap();
        assert_eq!(endpoints.len(), 1);
        assert_eq!(endpoints[0].base.authority, "registry-1.docker.io");
        assert_eq!(endpoints[0].credentials, "docker.io");
    }

    #[test]
    fn bad_mirrors_are_named() {
        for mirror in ["ftp://m", "", "https://m/?q=1", "a b"] {
            let error = Endpoints::new(&config(&[("docker.io", &[mirror])], &[])).unwrap_err();
            assert!(error.to_string().contains("docker.io"), "{mirror}: {error}");
        }
    }
}
