//! Which certificate authorities are trusted.
//!
//! The machine's bundle comes first, because companies put their own authority there; the built-in
//! Mozilla set is the fallback for machines and containers without any. Nothing here fails because
//! no bundle exists.

use std::io;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

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
    WELL_KNOWN
        .iter()
        .map(PathBuf::from)
        .filter(|path| path.is_file())
        .collect()
}

/// The authorities to trust. Bundles that the caller merely offers (`bundles`) may be missing or
/// empty; those that were asked for (`extra`) may not.
pub(crate) fn store(bundles: &[PathBuf], extra: &[PathBuf]) -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    for path in bundles {
        // An unreadable bundle is as good as none: the next one, or the built-in set, serves.
        if add_bundle(&mut roots, path).is_ok_and(|added| added > 0) {
            break;
        }
    }
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    for path in extra {
        match add_bundle(&mut roots, path) {
            Ok(0) => return Err(ConfigError::CaBundleEmpty { path: path.clone() }),
            Ok(_) => {}
            Err(source) => {
                return Err(ConfigError::CaBundle {
                    path: path.clone(),
                    source,
                });
            }
        }
    }
    Ok(roots)
}

/// Adds the certificates of a PEM file and says how many. Damaged items are skipped, as OpenSSL does.
fn add_bundle(roots: &mut RootCertStore, path: &Path) -> io::Result<usize> {
    let pem = std::fs::read(path)?;
    let certificates = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
    Ok(roots.add_parsable_certificates(certificates).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("kiln-roots-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        path
    }

    fn built_in() -> usize {
        webpki_roots::TLS_SERVER_ROOTS.len()
    }

    #[test]
    fn without_any_bundle_the_built_in_set_is_used() {
        let roots = store(&[PathBuf::from("/nonexistent/bundle.pem")], &[]).unwrap();
        assert_eq!(roots.len(), built_in());
    }

    #[test]
    fn an_empty_or_damaged_bundle_counts_as_none() {
        for text in [
            "# nothing here\n",
            "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
        ] {
            let empty = file("empty", text);
            assert_eq!(
                store(std::slice::from_ref(&empty), &[]).unwrap().len(),
                built_in()
            );
            assert!(matches!(
                store(&[], std::slice::from_ref(&empty)),
                Err(ConfigError::CaBundleEmpty { path }) if path == empty
            ));
            std::fs::remove_file(empty).unwrap();
        }
    }

    #[test]
    fn a_bundle_that_was_asked_for_must_exist() {
        let missing = PathBuf::from("/nonexistent/company.pem");
        assert!(matches!(
            store(&[], &[missing]),
            Err(ConfigError::CaBundle { .. })
        ));
    }

    #[test]
    fn the_machines_bundle_is_read() {
        let paths = system();
        let Some(first) = paths.first() else {
            println!("SKIPPED: this machine has no CA bundle");
            return;
        };
        let pem = std::fs::read_to_string(first).unwrap();
        let roots = store(&paths, &[]).unwrap();
        assert!(roots.len() > pem.matches("BEGIN CERTIFICATE").count() / 2);
        let both = store(&[], &paths[..1]).unwrap();
        assert!(
            both.len() > built_in(),
            "an asked-for bundle is trusted beside the built-in set"
        );
    }
}
