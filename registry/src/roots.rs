//! Which certificate authorities are trusted.
//!
//! The machine's bundle comes first, because companies put their own authority there; the built-in
//! Mozilla set is the fallback for machines and containers without any. Nothing here fails because
//! no bundle exists.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

use crate::error::ConfigError;

/// Where Linux distributions keep their bundle.
const WELL_KNOWN: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt", // Debian, Ubuntu, Alpine, Arch, Gentoo
    "/etc/pki/tls/certs/ca-bundle.crt",   // Fedora, RHEL
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // RHEL 7 and later
    "/etc/ssl/ca-bundle.pem",             // openSUSE
    "/etc/pki/tls/cacert.pem",            // OpenELEC
    "/etc/ssl/cert.pem",                  // Alpine, Void
];

/// The well-known bundle files that exist on this machine, best first. May be empty.
pub fn system() -> Vec<PathBuf> {
    WELL_KNOWN.iter().map(PathBuf::from).filter(|path| path.is_file()).collect()
}

/// The TLS settings for one kind of connection. Bundles that the caller merely offers (`bundles`)
/// may be missing or empty; those that were asked for (`extra`) may not.
pub(crate) fn tls_config(bundles: &[PathBuf], extra: &[PathBuf], verify: bool) -> Result<TlsConfig, ConfigError> {
    let builder = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    if !verify {
        return Ok(builder.disable_verification(true).build());
    }
    let found = bundles.iter().find_map(|path| read_bundle(path).ok().filter(|found| !found.is_empty()));
    let mut asked_for = Vec::new();
    for path in extra {
        let certificates =
            read_bundle(path).map_err(|source| ConfigError::CaBundle { path: path.clone(), source })?;
        if certificates.is_empty() {
            return Err(ConfigError::CaBundleEmpty { path: path.clone() });
        }
        asked_for.extend(certificates);
    }
    let roots = match found {
        Some(mut certificates) => {
            certificates.append(&mut asked_for);
            RootCerts::new_with_certs(&certificates)
        }
        None if asked_for.is_empty() => RootCerts::WebPki,
        None => RootCerts::new_with_certs(&asked_for),
    };
    Ok(builder.root_certs(roots).build())
}

/// The certificates of a PEM file. Damaged items are skipped, as OpenSSL does.
fn read_bundle(path: &Path) -> std::io::Result<Vec<Certificate<'static>>> {
    let pem = std::fs::read(path)?;
    Ok(parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("kiln-roots-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn without_any_bundle_the_built_in_set_is_used() {
        let config = tls_config(&[PathBuf::from("/nonexistent/bundle.pem")], &[], true).unwrap();
        assert!(matches!(config.root_certs(), RootCerts::WebPki));
    }

    #[test]
    fn an_empty_bundle_counts_as_none() {
        let empty = file("empty", "# nothing here\n");
        let config = tls_config(std::slice::from_ref(&empty), &[], true).unwrap();
        assert!(matches!(config.root_certs(), RootCerts::WebPki));
        assert!(matches!(
            tls_config(&[], std::slice::from_ref(&empty), true),
            Err(ConfigError::CaBundleEmpty { path }) if path == empty
        ));
        std::fs::remove_file(empty).unwrap();
    }

    #[test]
    fn a_bundle_that_was_asked_for_must_exist() {
        let missing = PathBuf::from("/nonexistent/company.pem");
        assert!(matches!(
            tls_config(&[], &[missing], true),
            Err(ConfigError::CaBundle { .. })
        ));
    }

    #[test]
    fn the_machines_bundle_is_read() {
        let paths = system();
        if paths.is_empty() {
            println!("SKIPPED: this machine has no CA bundle");
            return;
        }
        let config = tls_config(&paths, &[], true).unwrap();
        assert!(matches!(config.root_certs(), RootCerts::Specific(certificates) if !certificates.is_empty()));
    }
}
