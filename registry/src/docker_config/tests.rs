//! The forms of `config.json`, and helpers that answer well and badly.

use super::*;
use std::os::unix::fs::PermissionsExt as _;

fn config(json: &str) -> DockerConfig {
    serde_json::from_str(json).unwrap()
}

fn password(username: &str, password: &str) -> Secret {
    Secret::Password {
        username: username.into(),
        password: password.into(),
    }
}

#[test]
fn auths_table() {
    let json = r#"{"auths":{
        "https://index.docker.io/v1/":{"auth":"aHViOnNlY3JldDp4"},
        "reg.example:5000":{"username":"u","password":"p"},
        "https://v2.example/v2/":{"auth":"YTpi"},
        "tok.example":{"auth":"PHRva2VuPjpyZWZyZXNo"},
        "id.example":{"auth":"dTpw","identitytoken":"idt"},
        "bearer.example":{"registrytoken":"rt"},
        "empty.example":{},
        "broken.example":{"auth":"%%%"},
        "unpadded.example":{"auth":"YWI6Yw"}
    }, "HttpHeaders":{"X":"y"}}"#;
    let config = config(json);
    let cases: &[(&str, Option<Secret>)] = &[
        ("docker.io", Some(password("hub", "secret:x"))),
        ("registry-1.docker.io", Some(password("hub", "secret:x"))),
        ("reg.example:5000", Some(password("u", "p"))),
        ("reg.example", None),
        ("v2.example", Some(password("a", "b"))),
        ("tok.example", Some(Secret::IdentityToken("refresh".into()))),
        ("id.example", Some(Secret::IdentityToken("idt".into()))),
        ("bearer.example", Some(Secret::RegistryToken("rt".into()))),
        ("empty.example", None),
        ("broken.example", None),
        ("unpadded.example", Some(password("ab", "c"))),
        ("other.example", None),
    ];
    for (host, want) in cases {
        let got = config
            .credentials(host)
            .unwrap()
            .map(|credentials| credentials.secret);
        assert_eq!(&got, want, "{host}");
    }
}

fn helper(directory: &Path, name: &str, script: &str) {
    let path = directory.join(format!("docker-credential-{name}"));
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn helpers_are_asked_first_and_speak_the_protocol() {
    let directory = std::env::temp_dir().join(format!("kiln-helper-test-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    helper(
        &directory,
        "good",
        r#"read s; echo "{\"ServerURL\":\"$s\",\"Username\":\"$1:$s\",\"Secret\":\"s3\"}""#,
    );
    helper(
        &directory,
        "token",
        r#"echo '{"Username":"<token>","Secret":"refresh"}'"#,
    );
    helper(
        &directory,
        "none",
        "echo 'credentials not found in native keychain'; exit 1",
    );
    helper(&directory, "bad", "echo 'key ring is locked'; exit 1");
    helper(&directory, "garbage", "echo nonsense");
    let json = r#"{"credsStore":"none","credHelpers":{
        "good.example":"good","docker.io":"good","tok.example":"token","bad.example":"bad",
        "garbage.example":"garbage","missing.example":"is-missing-here","path.example":"../x"},
        "auths":{"inline.example":{"username":"in","password":"line"}}}"#;
    let config = config(json).with_helper_directories(vec![directory.clone()]);

    let good = config.credentials("good.example").unwrap().unwrap();
    assert_eq!(good.secret, password("get:good.example", "s3"));
    assert_eq!(good.helper.as_deref(), Some("good"));
    let hub = config.credentials("docker.io").unwrap().unwrap();
    assert_eq!(hub.secret, password("get:https://index.docker.io/v1/", "s3"));
    let token = config.credentials("tok.example").unwrap().unwrap();
    assert_eq!(token.secret, Secret::IdentityToken("refresh".into()));
    let inline = config.credentials("inline.example").unwrap().unwrap();
    assert_eq!(inline.secret, password("in", "line"));
    for (host, reason) in [
        ("bad.example", "key ring is locked"),
        ("garbage.example", "no JSON"),
        ("missing.example", "No such file"),
        ("path.example", "plain word"),
    ] {
        let error = config.credentials(host).unwrap_err();
        assert!(error.reason.contains(reason), "{host}: {error}");
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn secrets_stay_out_of_debug_output() {
    let config = config(r#"{"auths":{"h":{"username":"u","password":"hunter2"}}}"#);
    let credentials = config.credentials("h").unwrap();
    assert!(!format!("{config:?} {credentials:?}").contains("hunter2"));
}

#[test]
fn a_missing_file_is_no_error_and_a_broken_one_is() {
    let directory = std::env::temp_dir().join(format!("kiln-config-test-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    assert!(
        DockerConfig::load(&directory.join("absent.json"))
            .unwrap()
            .is_none()
    );
    let path = directory.join("broken.json");
    std::fs::write(&path, "{").unwrap();
    assert!(matches!(
        DockerConfig::load(&path),
        Err(DockerConfigError::Parse { .. })
    ));
    std::fs::remove_dir_all(&directory).unwrap();
}
