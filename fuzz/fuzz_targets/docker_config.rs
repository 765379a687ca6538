//! Docker's `config.json`, read and written. What names a helper is only read: helpers are programs.
#![no_main]

use kiln_registry::{DockerConfig, Secret};

const HOSTS: [&str; 4] = [
    "docker.io",
    "registry.example",
    "registry.example:5000",
    "127.0.0.1:5000",
];

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let folder = std::env::temp_dir().join(format!("kiln-fuzz-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("make a directory");
    let path = folder.join("config.json");
    std::fs::write(&path, data).expect("write a file");
    let Ok(Some(config)) = DockerConfig::load(&path) else {
        return;
    };
    // What is not looked at may be broken; such a file is not written to, either.
    let Ok(known) = serde_json::from_slice::<serde_json::Value>(data) else {
        return;
    };
    if ["credsStore", "credHelpers"]
        .iter()
        .any(|key| known.get(key).is_some())
    {
        return;
    }
    let secret = Secret::Password {
        username: "user".to_owned(),
        password: "pass:word".to_owned(),
    };
    for host in HOSTS {
        let before = config.credentials(host).expect("no helper is asked");
        if DockerConfig::keep(&path, &[], host, &secret).is_err() {
            continue;
        }
        let kept = DockerConfig::load(&path)
            .expect("what was written is read")
            .expect("and there");
        let found = kept
            .credentials(host)
            .expect("no helper is asked")
            .expect("they are kept");
        assert_eq!(found.secret, secret, "{host}; before: {before:?}");
        for other in HOSTS.iter().filter(|other| **other != host) {
            let kept = kept.credentials(other).expect("no helper is asked");
            assert_eq!(
                kept,
                config.credentials(other).expect("no helper is asked"),
                "{other}"
            );
        }
        // What is not about credentials stays.
        let after: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).expect("read it")).expect("it is JSON");
        for (key, value) in known.as_object().into_iter().flatten() {
            assert!(
                key == "auths" || after.get(key) == Some(value),
                "{key} became {:?}",
                after.get(key)
            );
        }
        assert!(DockerConfig::forget(&path, &[], host).expect("it is forgotten"));
        let forgotten = DockerConfig::load(&path)
            .expect("what was written is read")
            .expect("and there");
        assert_eq!(
            forgotten.credentials(host).expect("no helper is asked"),
            None,
            "{host}"
        );
        std::fs::write(&path, data).expect("write a file");
    }
});
