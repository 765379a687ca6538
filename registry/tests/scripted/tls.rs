//! TLS for real: a server whose certificate is signed by the authority in `support/tls`. The key
//! there is made for these tests and protects nothing.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_registry::{Client, ClientConfig, ErrorKind, Mirror};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::{MANIFEST_TYPE, TestClock, config};

const MANIFEST: &str = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/support/tls")
        .join(name)
}

/// Answers every request with the manifest and closes.
fn serve() -> SocketAddr {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = vec![CertificateDer::from_pem_file(file("leaf.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file("leaf.key")).unwrap();
    let settings = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let settings = Arc::new(settings);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&settings)).unwrap();
            let mut tls = rustls::StreamOwned::new(connection, stream.unwrap());
            let mut buffer = [0; 4096];
            // A client that does not trust us hangs up here.
            let Ok(1..) = tls.read(&mut buffer) else { continue };
            let reply = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: {MANIFEST_TYPE}\r\nContent-Length: {}\r\n\r\n{MANIFEST}",
                MANIFEST.len()
            );
            tls.write_all(reply.as_bytes()).unwrap();
            tls.conn.send_close_notify();
            tls.flush().unwrap();
        }
    });
    address
}

/// A client that reaches `registry.example` over HTTPS on loopback.
fn client(address: SocketAddr, change: impl FnOnce(&mut ClientConfig)) -> Client {
    let mut config = config(&TestClock::new());
    let mirror = Mirror::from(format!("https://{address}"));
    config.mirrors = [("registry.invalid".to_owned(), vec![mirror])].into();
    change(&mut config);
    Client::new(config).unwrap()
}

#[test]
fn an_unknown_authority_is_not_trusted_and_the_hint_says_what_helps() {
    let client = client(serve(), |_| {});
    let error = client
        .manifest(&"registry.invalid/app".parse().unwrap())
        .unwrap_err();
    let failure = error.failures().next().unwrap();
    assert_eq!(failure.kind, ErrorKind::TlsUntrusted, "{error}");
    assert!(failure.cause.contains("not trusted"), "{error}");
}

#[test]
fn an_authority_that_was_given_is_trusted() {
    type Change = fn(&mut ClientConfig);
    let changes: [(&str, Change); 3] = [
        ("bundle", |config| {
            config.ca_bundles = vec![file("absent.pem"), file("ca.pem")];
        }),
        ("extra bundle", |config| {
            config.extra_ca_bundles = vec![file("ca.pem")];
        }),
        ("insecure", |config| {
            let host = config.mirrors["registry.invalid"][0].url.replace("https://", "");
            config.insecure = [host].into();
        }),
    ];
    for (name, change) in changes {
        let client = client(serve(), change);
        let manifest = client
            .manifest(&"registry.invalid/app".parse().unwrap())
            .expect(name);
        assert_eq!(manifest.bytes, MANIFEST.as_bytes(), "{name}");
    }
}

#[test]
fn certificates_for_another_name_are_not_trusted() {
    // The certificate names 127.0.0.1 and localhost, but not 127.0.0.2, where we also answer.
    let address = SocketAddr::new("127.0.0.1".parse().unwrap(), serve().port());
    let other = format!("127.0.0.2:{}", address.port());
    let listener = TcpListener::bind(&other).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (client, server) = (stream.unwrap(), std::net::TcpStream::connect(address).unwrap());
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            // Ends when either side hangs up.
            std::thread::spawn(move || drop(std::io::copy(&mut from, &mut to)));
            std::thread::spawn(move || {
                let (mut from, mut to) = (server, client);
                drop(std::io::copy(&mut from, &mut to));
            });
        }
    });
    let client = client(other.parse().unwrap(), |config| {
        config.ca_bundles = vec![file("ca.pem")];
    });
    let error = client
        .manifest(&"registry.invalid/app".parse().unwrap())
        .unwrap_err();
    assert_eq!(
        error.failures().next().unwrap().kind,
        ErrorKind::TlsUntrusted,
        "{error}"
    );
}
