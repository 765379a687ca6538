//! Keeping and forgetting credentials, in the file and with helpers.

use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;

use super::*;

/// Any JSON, with the names that mean something among others.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-zA-Z0-9:=/ .\"\\\\é]{0,12}".prop_map(Value::from),
    ];
    let name = prop_oneof![
        Just("auths".to_owned()),
        Just("auth".to_owned()),
        Just("r.example".to_owned()),
        Just("https://r.example/v1/".to_owned()),
        Just("HttpHeaders".to_owned()),
        "[a-z.:]{0,6}",
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(name.clone(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever the file holds: credentials are found again and everything else stays, or the file is left alone.
    #[test]
    fn what_others_wrote_stays(
        mut file in any_json(), auths in any_json(), username in "[a-z]{1,9}",
        // Docker's readers take NULs off a password's end, and so do we.
        text in "[^\0]{1,20}",
    ) {
        if let Some(file) = file.as_object_mut() {
            file.insert("auths".to_owned(), auths);
        }
        let folder = Folder::new("any");
        let path = folder.0.join("config.json");
        let before = serde_json::to_vec(&file).unwrap();
        std::fs::write(&path, &before).unwrap();
        let secret = password(&username, &text);
        let others = |bytes: &[u8]| -> Value {
            let mut value: Value = serde_json::from_slice(bytes).unwrap();
            if let Some(auths) = value.get_mut("auths").and_then(Value::as_object_mut) {
                auths.retain(|known, _| !same_host(known, "r.example"));
            }
            value
        };
        if DockerConfig::keep(&path, &[], "r.example", &secret).is_ok() {
            prop_assert_eq!(found(&path, "r.example"), Some(secret));
            let kept = std::fs::read(&path).unwrap();
            prop_assert_eq!(others(&kept), others(&before));
            prop_assert!(DockerConfig::forget(&path, &[], "r.example").unwrap());
            prop_assert_eq!(found(&path, "r.example"), None);
            let forgotten = std::fs::read(&path).unwrap();
            prop_assert_eq!(others(&forgotten), others(&before));
        } else {
            prop_assert_eq!(std::fs::read(&path).unwrap(), before);
        }
        // Nothing half written is left beside it.
        prop_assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1);
    }

    #[test]
    fn any_bytes_are_refused_and_left(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let folder = Folder::new("bytes");
        let path = folder.0.join("config.json");
        std::fs::write(&path, &bytes).unwrap();
        if DockerConfig::keep(&path, &[], "r.example", &password("u", "p")).is_err() {
            prop_assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
        let _ = DockerConfig::forget(&path, &[], "r.example");
    }
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kiln-keep-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn password(username: &str, password: &str) -> Secret {
    Secret::Password {
        username: username.into(),
        password: password.into(),
    }
}

fn found(path: &Path, host: &str) -> Option<Secret> {
    let config = DockerConfig::load(path).unwrap().unwrap();
    config
        .credentials(host)
        .unwrap()
        .map(|credentials| credentials.secret)
}

#[test]
fn the_file_keeps_what_it_had_and_gains_what_is_kept() {
    let folder = Folder::new("file");
    let path = folder.0.join("deep/config.json");
    let secret = password("u", "p:with:colons");
    let keeper = DockerConfig::keep(&path, &[], "r.example:5000", &secret).unwrap();
    assert_eq!(keeper, Keeper::File(path.clone()));
    assert_eq!(
        path.metadata().unwrap().permissions().mode() & 0o777,
        0o600,
        "only the owner"
    );
    assert_eq!(found(&path, "r.example:5000"), Some(secret));

    let json = r#"{"HttpHeaders":{"X":"y"},"auths":{"other":{"auth":"YTpi"},"https://r.example/v1/":{"auth":"YTpi","email":"e"},
        "docker.io":{"auth":"YTpi"}}}"#;
    std::fs::write(&path, json).unwrap();
    DockerConfig::keep(&path, &[], "r.example", &password("n", "q")).unwrap();
    DockerConfig::keep(&path, &[], "docker.io", &Secret::IdentityToken("t".into())).unwrap();
    let file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(file["HttpHeaders"]["X"], "y");
    assert_eq!(file["auths"]["other"]["auth"], "YTpi");
    assert_eq!(file["auths"].get("https://r.example/v1/"), None, "replaced");
    assert_eq!(file["auths"][HUB_KEY]["identitytoken"], "t");
    assert_eq!(found(&path, "r.example"), Some(password("n", "q")));

    assert!(DockerConfig::forget(&path, &[], "r.example").unwrap());
    assert!(!DockerConfig::forget(&path, &[], "r.example").unwrap());
    assert_eq!(found(&path, "r.example"), None);
    assert_eq!(found(&path, "other"), Some(password("a", "b")));
}

#[test]
fn a_broken_file_is_left_alone_and_a_link_stays_one() {
    let folder = Folder::new("broken");
    let path = folder.0.join("config.json");
    for broken in ["{", "[]", r#"{"auths":[]}"#] {
        std::fs::write(&path, broken).unwrap();
        assert!(
            DockerConfig::keep(&path, &[], "h", &password("u", "p")).is_err(),
            "{broken}"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), broken);
    }
    let real = folder.0.join("real.json");
    std::fs::rename(&path, &real).unwrap();
    std::fs::write(&real, "{}").unwrap();
    std::os::unix::fs::symlink(&real, &path).unwrap();
    DockerConfig::keep(&path, &[], "h", &password("u", "p")).unwrap();
    assert!(path.is_symlink());
    assert_eq!(found(&real, "h"), Some(password("u", "p")));
}

#[test]
fn helpers_are_told_and_the_file_holds_no_secret() {
    let folder = Folder::new("helper");
    let log = folder.0.join("log");
    let script = format!(
        "#!/bin/sh\nread input\necho \"$1 $input\" >> {log}\n\
         case $1 in get) echo '{{\"Username\":\"u\",\"Secret\":\"s\"}}';; esac\n\
         case $input in *refuse.example*) echo no room for hunter2; exit 1;; esac\n",
        log = log.display()
    );
    let helper = folder.0.join("docker-credential-test");
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.0.join("config.json");
    std::fs::write(&path, r#"{"credsStore":"test"}"#).unwrap();
    let directories = [folder.0.clone()];
    let secret = password("u", "hunter2");
    let keeper = DockerConfig::keep(&path, &directories, "h.example", &secret).unwrap();
    assert_eq!(keeper, Keeper::Helper("test".to_owned()));
    let file = std::fs::read_to_string(&path).unwrap();
    assert!(file.contains("h.example") && !file.contains("hunter2"), "{file}");
    assert!(DockerConfig::forget(&path, &directories, "h.example").unwrap());
    let told = std::fs::read_to_string(&log).unwrap();
    assert!(
        told.contains(r#"store {"Secret":"hunter2","ServerURL":"h.example","Username":"u"}"#),
        "{told}"
    );
    assert!(told.contains("\nerase h.example\n"), "{told}");
    let error = DockerConfig::keep(&path, &directories, "refuse.example", &secret).unwrap_err();
    let KeepError::Helper(error) = error else {
        panic!("{error}")
    };
    assert_eq!(error.reason, "no room for …");
}
