//! Against the real thing: Debian's `docker-registry`, started here on a free port.
#![expect(clippy::unwrap_used, reason = "a failure in a helper is a failed test")]

use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kiln_image::{Descriptor, Digest, Reference};
use kiln_registry::{ACCEPT_MANIFESTS, Client, ClientConfig, ErrorKind, Mirror};

/// A running registry with its own empty storage; ended and removed on drop.
struct Registry {
    child: Child,
    host: String,
    directory: PathBuf,
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Nothing can be done about failures here, and the test's verdict stands already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// `None`, loudly, when the program is not installed.
fn start() -> Option<Registry> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let directory = std::env::temp_dir().join(format!("kiln-registry-test-{}-{port}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (config, log) = (directory.join("config.yml"), directory.join("log"));
    let text = format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\n\
         http:\n  addr: 127.0.0.1:{port}\n",
        directory.join("data").display()
    );
    std::fs::write(&config, text).unwrap();
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn();
    let child = match child {
        Ok(child) => child,
        Err(error) => {
            // Past the test harness, which hides what a passing test prints.
            let _ = writeln!(
                io::stderr(),
                "SKIPPED: needs docker-registry ({error}); apt-get install docker-registry"
            );
            std::fs::remove_dir_all(&directory).unwrap();
            return None;
        }
    };
    let registry = Registry {
        child,
        host: format!("127.0.0.1:{port}"),
        directory,
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(&registry.host).is_err() {
        let said = || std::fs::read_to_string(&log).unwrap();
        assert!(
            Instant::now() < deadline,
            "docker-registry does not listen: {}",
            said()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(registry)
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    let digest = Digest::sha256_of(bytes);
    let json = format!(
        r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{}}}"#,
        bytes.len()
    );
    serde_json::from_str(&json).unwrap()
}

#[test]
fn push_and_pull_a_whole_image() {
    let Some(registry) = start() else { return };
    let client = Client::new(ClientConfig::default()).unwrap();
    let reference: Reference = format!("{}/library/app:1", registry.host).parse().unwrap();

    // 3 MiB of bytes that do not repeat.
    let layer: Vec<u8> = (0..786_432_u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let config =
        br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#.to_vec();
    let layer_blob = descriptor("application/vnd.oci.image.layer.v1.tar", &layer);
    let config_blob = descriptor("application/vnd.oci.image.config.v1+json", &config);
    for (blob, bytes) in [(&layer_blob, &layer), (&config_blob, &config)] {
        assert!(!client.blob_exists(&reference, blob).unwrap());
        client.put_blob(&reference, blob, bytes, &|_| {}).unwrap();
        assert!(client.blob_exists(&reference, blob).unwrap());
        assert!(client.has_blob(&reference, blob).unwrap());
    }
    let absent = descriptor("application/vnd.oci.image.layer.v1.tar", b"absent");
    assert!(!client.has_blob(&reference, &absent).unwrap());
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{},"layers":[{}]}}"#,
        serde_json::to_string(&config_blob).unwrap(),
        serde_json::to_string(&layer_blob).unwrap()
    );
    let digest = client
        .put_manifest(&reference, media_type, manifest.as_bytes())
        .unwrap();
    assert_eq!(client.tags(&reference).unwrap(), ["1"]);

    // Pulled under its own name, and as an official image through a mirror.
    let mirrored = ClientConfig {
        mirrors: [(
            "docker.io".to_owned(),
            vec![Mirror::from(format!("http://{}", registry.host))],
        )]
        .into(),
        ..ClientConfig::default()
    };
    let mirrored = Client::new(mirrored).unwrap();
    let official: Reference = "app:1".parse().unwrap();
    for (client, reference) in [(&client, &reference), (&mirrored, &official)] {
        let resolved = client.resolve(reference, ACCEPT_MANIFESTS).unwrap();
        assert_eq!(
            (resolved.digest, resolved.media_type.as_str()),
            (digest, media_type)
        );
        assert_eq!(resolved.bytes, None, "HEAD was enough");
        assert!(client.has_blob(reference, &layer_blob).unwrap());
        let fetched = client.manifest_by_digest(reference, &digest).unwrap();
        assert_eq!(fetched.bytes, manifest.as_bytes());
        let mut sink = layer[..1_000_000].to_vec();
        client
            .fetch_blob(reference, &layer_blob, &mut sink, &|_| {})
            .unwrap();
        assert!(sink == layer, "the layer came back different");
    }

    // Mounted into another repository; from one that does not have it, not.
    let other: Reference = format!("{}/other:1", registry.host).parse().unwrap();
    assert!(client.mount_blob(&other, &layer_blob.digest, &reference).unwrap());
    assert!(client.blob_exists(&other, &layer_blob).unwrap());
    assert!(
        !client
            .mount_blob(&other, &Digest::sha256_of(b"absent"), &reference)
            .unwrap()
    );

    // What is not there is said in the registry's words.
    let absent: Reference = format!("{}/library/app:absent", registry.host).parse().unwrap();
    let error = client.resolve(&absent, ACCEPT_MANIFESTS).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.failure().code.as_deref(), Some("MANIFEST_UNKNOWN"));

    // A blob that is not what its descriptor says is refused by the registry.
    let wrong = descriptor("a/b", b"these bytes");
    let error = client
        .put_blob(&reference, &wrong, &b"other bytes".to_vec(), &|_| {})
        .unwrap_err();
    assert_eq!(error.failure().code.as_deref(), Some("DIGEST_INVALID"), "{error}");
}

#[test]
fn many_threads_pull_at_once() {
    let Some(registry) = start() else { return };
    let client = Client::new(ClientConfig::default()).unwrap();
    let reference: Reference = format!("{}/many:1", registry.host).parse().unwrap();
    let blobs: Vec<Vec<u8>> = (0..12_u8).map(|n| vec![n; 200_000]).collect();
    std::thread::scope(|scope| {
        for bytes in &blobs {
            scope.spawn(|| {
                client
                    .put_blob(&reference, &descriptor("a/b", bytes), bytes, &|_| {})
                    .unwrap();
            });
        }
    });
    std::thread::scope(|scope| {
        for bytes in &blobs {
            scope.spawn(|| {
                let mut sink = Vec::new();
                client
                    .fetch_blob(&reference, &descriptor("a/b", bytes), &mut sink, &|_| {})
                    .unwrap();
                assert!(sink == *bytes);
            });
        }
    });
}

#[test]
fn a_blob_of_unknown_digest_goes_as_it_comes() {
    let Some(registry) = start() else { return };
    let client = Client::new(ClientConfig::default()).unwrap();
    let reference: Reference = format!("{}/streamed:1", registry.host).parse().unwrap();
    // Nothing at all is a blob, too.
    for bytes in [vec![7; 3_000_000], Vec::new()] {
        let blob = descriptor("a/b", &bytes);
        let stream = || client.stream_blob(&reference, &mut &bytes[..], &|_| {}).unwrap();
        client.abandon_streamed(&stream());
        assert!(!client.blob_exists(&reference, &blob).unwrap());
        client.commit_streamed(&reference, stream(), &blob).unwrap();
        let mut sink = Vec::new();
        client.fetch_blob(&reference, &blob, &mut sink, &|_| {}).unwrap();
        assert!(sink == bytes);
    }
    let streamed = client
        .stream_blob(&reference, &mut &b"other bytes"[..], &|_| {})
        .unwrap();
    let wrong = descriptor("a/b", b"these bytes");
    let error = client.commit_streamed(&reference, streamed, &wrong).unwrap_err();
    assert_eq!(error.failure().code.as_deref(), Some("DIGEST_INVALID"), "{error}");
    assert!(!client.blob_exists(&reference, &wrong).unwrap());
}
