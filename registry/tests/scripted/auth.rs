//! Challenges, tokens, passwords, and whom they are shown to.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kiln_registry::{ACCEPT_MANIFESTS, AuthState, Client, ClientConfig, DockerConfig, ErrorKind};

use crate::support::{Reply, Seen, Server, TestClock, blob, config, descriptor, manifest_reply};

const MANIFEST: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;

fn docker_config(json: &str) -> DockerConfig {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = format!(
        "kiln-auth-{}-{}.json",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::SeqCst)
    );
    let path: PathBuf = std::env::temp_dir().join(name);
    std::fs::write(&path, json).unwrap();
    let config = DockerConfig::load(&path).unwrap().unwrap();
    std::fs::remove_file(path).unwrap();
    config
}

fn login(host: &str, user: &str, password: &str) -> DockerConfig {
    docker_config(&format!(
        r#"{{"auths":{{"{host}":{{"username":"{user}","password":"{password}"}}}}}}"#
    ))
}

fn client_with(docker_config: Option<DockerConfig>) -> (Client, Arc<TestClock>) {
    let clock = TestClock::new();
    let config = ClientConfig {
        docker_config,
        ..config(&clock)
    };
    (Client::new(config).unwrap(), clock)
}

fn challenge(seen: &Seen) -> Reply {
    let host = seen.header("host").unwrap();
    let header =
        format!(r#"Bearer realm="http://{host}/token",service="test registry",scope="repository:app:pull""#);
    Reply::json(
        401,
        r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
    )
    .with("WWW-Authenticate", "Negotiate")
    .with("WWW-Authenticate", &header)
}

/// Gives out tokens and manifests; wants the token that it gave last.
fn token_server(token: fn(&Seen) -> Reply, accepted: &'static str) -> Server {
    Server::start(move |seen| match seen.path.as_str() {
        "/token" => token(seen),
        _ if seen.header("authorization") == Some(accepted) => manifest_reply(MANIFEST),
        _ => challenge(seen),
    })
}

#[test]
fn an_anonymous_token_is_fetched_once_and_used_again() {
    let server = token_server(
        |_| Reply::json(200, r#"{"token":"t1","expires_in":300}"#),
        "Bearer t1",
    );
    let (client, clock) = client_with(None);
    let reference = server.reference("app:1");
    client.resolve(&reference, ACCEPT_MANIFESTS).unwrap();
    client.manifest(&reference).unwrap();
    assert_eq!(
        server.lines(),
        [
            "HEAD /v2/app/manifests/1",
            "GET /token",
            "HEAD /v2/app/manifests/1",
            "GET /v2/app/manifests/1"
        ]
    );
    let token = &server.seen()[1];
    assert_eq!(
        token.query,
        "service=test%20registry&scope=repository%3Aapp%3Apull"
    );
    assert_eq!(token.header("authorization"), None);

    // It runs out before its time is up, with a margin.
    clock.pass(Duration::from_secs(295));
    client.manifest(&reference).unwrap();
    assert_eq!(server.lines()[4..], ["GET /token", "GET /v2/app/manifests/1"]);
}

#[test]
fn another_repository_needs_no_second_challenge() {
    let server = token_server(|_| Reply::json(200, r#"{"access_token":"t1"}"#), "Bearer t1");
    let (client, _) = client_with(None);
    client.manifest(&server.reference("app")).unwrap();
    client.manifest(&server.reference("other")).unwrap();
    assert_eq!(
        server.lines()[3..],
        ["GET /token", "GET /v2/other/manifests/latest"]
    );
    assert!(server.seen()[3].query.contains("repository%3Aother%3Apull"));
}

#[test]
fn a_revoked_token_is_replaced_once() {
    let server = Server::start(|seen| match seen.path.as_str() {
        "/token" => Reply::json(200, &format!(r#"{{"token":"t{}","expires_in":300}}"#, seen.nth)),
        _ => match (seen.header("authorization"), seen.nth) {
            // The first token works once.
            (Some("Bearer t0"), 1) | (Some("Bearer t1"), _) => manifest_reply(MANIFEST),
            _ => challenge(seen),
        },
    });
    let (client, _) = client_with(None);
    client.manifest(&server.reference("app")).unwrap();
    client.manifest(&server.reference("app")).unwrap();
    assert_eq!(
        server.lines().iter().filter(|line| *line == "GET /token").count(),
        2
    );
}

#[test]
fn a_401_loop_ends() {
    let server = token_server(
        |_| Reply::json(200, r#"{"token":"t1","expires_in":300}"#),
        "never",
    );
    let (client, _) = client_with(None);
    let error = client.manifest(&server.reference("app")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert_eq!(error.failure().auth, AuthState::Anonymous);
    assert_eq!(error.failure().code.as_deref(), Some("UNAUTHORIZED"));
    assert!(error.to_string().contains("anonymous"), "{error}");
    assert!(error.hint().unwrap().contains("log in"));
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn a_password_goes_to_the_token_service_only() {
    let server = token_server(
        |seen| match seen.header("authorization") {
            // "user:pass word"
            Some("Basic dXNlcjpwYXNzIHdvcmQ=") => Reply::json(200, r#"{"token":"t1"}"#),
            _ => Reply::new(401),
        },
        "Bearer t1",
    );
    let (client, _) = client_with(Some(login(&server.host(), "user", "pass word")));
    client.manifest(&server.reference("app")).unwrap();
    let seen = server.seen();
    assert!(seen[1].query.contains("account=user"), "{}", seen[1].query);
    for request in seen.iter().filter(|request| request.path != "/token") {
        assert!(
            !request
                .header("authorization")
                .unwrap_or_default()
                .starts_with("Basic"),
            "{request:?}"
        );
    }
}

#[test]
fn refused_passwords_fall_back_to_anonymous_for_pulls() {
    let server = token_server(
        |seen| match seen.header("authorization") {
            Some(_) => Reply::json(401, r#"{"details":"incorrect username or password"}"#),
            None => Reply::json(200, r#"{"token":"t1"}"#),
        },
        "Bearer t1",
    );
    let (client, _) = client_with(Some(login(&server.host(), "user", "old")));
    client.manifest(&server.reference("app")).unwrap();
    // A push needs somebody: there the refusal is the error.
    let error = client
        .put_manifest(&server.reference("app"), "a/b", b"{}")
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert_eq!(error.failure().auth, AuthState::User { name: "user".into() });
    let text = error.to_string();
    assert!(
        text.contains("incorrect username or password") && text.contains("user"),
        "{text}"
    );
    assert!(!text.contains("old"), "{text}");
}

#[test]
fn refused_passwords_are_named_when_anonymous_does_not_do_either() {
    let server = token_server(
        |seen| match seen.header("authorization") {
            Some(_) => Reply::new(401),
            None => Reply::json(200, r#"{"token":"t1"}"#),
        },
        "never",
    );
    let (client, _) = client_with(Some(login(&server.host(), "user", "old")));
    let error = client.manifest(&server.reference("app")).unwrap_err();
    assert_eq!(error.failure().auth, AuthState::Refused { name: "user".into() });
}

#[test]
fn identity_tokens_are_exchanged_by_post() {
    let server = token_server(
        |seen| {
            let form = String::from_utf8(seen.body.clone()).unwrap();
            let good = seen.method == "POST"
                && form.contains("grant_type=refresh_token")
                && form.contains("refresh_token=re%2Ffresh")
                && form.contains("service=test%20registry")
                && form.contains("scope=repository%3Aapp%3Apull");
            if good {
                Reply::json(200, r#"{"access_token":"t1"}"#)
            } else {
                Reply::new(400)
            }
        },
        "Bearer t1",
    );
    let json = format!(
        r#"{{"auths":{{"{}":{{"identitytoken":"re/fresh"}}}}}}"#,
        server.host()
    );
    let (client, _) = client_with(Some(docker_config(&json)));
    client.manifest(&server.reference("app")).unwrap();
}

#[test]
fn registry_tokens_are_sent_as_they_are() {
    let server = token_server(|_| Reply::new(500), "Bearer fixed");
    let json = format!(
        r#"{{"auths":{{"{}":{{"registrytoken":"fixed"}}}}}}"#,
        server.host()
    );
    let (client, _) = client_with(Some(docker_config(&json)));
    client.manifest(&server.reference("app")).unwrap();
}

#[test]
fn basic_authentication() {
    let start = || {
        Server::start(|seen| match seen.header("authorization") {
            // "user:secret"
            Some("Basic dXNlcjpzZWNyZXQ=") => manifest_reply(MANIFEST),
            _ => Reply::new(401).with("WWW-Authenticate", r#"Basic realm="test""#),
        })
    };
    let server = start();
    let (client, _) = client_with(Some(login(&server.host(), "user", "secret")));
    client.manifest(&server.reference("app")).unwrap();
    client.manifest(&server.reference("app")).unwrap();
    // No password before the first challenge, no challenge after it.
    assert_eq!(server.seen().len(), 3);
    assert_eq!(server.seen()[0].header("authorization"), None);

    for (config, requests) in [(None, 1), (Some(login("other.example", "user", "secret")), 1)] {
        let server = start();
        let error = client_with(config)
            .0
            .manifest(&server.reference("app"))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
        assert_eq!(server.seen().len(), requests);
    }
    let server = start();
    let (client, _) = client_with(Some(login(&server.host(), "user", "wrong")));
    let error = client.manifest(&server.reference("app")).unwrap_err();
    assert_eq!(error.failure().auth, AuthState::User { name: "user".into() });
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn a_401_without_a_challenge_is_an_answer() {
    let server = Server::start(|_| Reply::new(401));
    let error = client_with(None)
        .0
        .manifest(&server.reference("app"))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn a_broken_helper_is_named_and_public_images_still_come() {
    let json = |host: &str| format!(r#"{{"credHelpers":{{"{host}":"is-not-installed"}}}}"#);
    let server = token_server(|_| Reply::json(200, r#"{"token":"t1"}"#), "Bearer t1");
    client_with(Some(docker_config(&json(&server.host()))))
        .0
        .manifest(&server.reference("app"))
        .unwrap();

    let server = token_server(|_| Reply::json(200, r#"{"token":"t1"}"#), "never");
    let (client, _) = client_with(Some(docker_config(&json(&server.host()))));
    let error = client.manifest(&server.reference("app")).unwrap_err();
    assert!(
        matches!(&error.failure().auth, AuthState::HelperFailed { helper, .. } if helper == "is-not-installed")
    );
    assert!(
        error
            .hint()
            .unwrap()
            .contains("docker-credential-is-not-installed")
    );
}

#[test]
fn token_services_that_talk_nonsense() {
    type Case = (&'static str, fn(&Seen) -> Reply, ErrorKind);
    let cases: &[Case] = &[
        ("no token", |_| Reply::json(200, "{}"), ErrorKind::Protocol),
        ("no JSON", |_| Reply::ok("<html>"), ErrorKind::Protocol),
        (
            "a token that breaks the header",
            |_| Reply::json(200, r#"{"token":"a\r\nX: y"}"#),
            ErrorKind::Protocol,
        ),
        ("an endless answer", |_| Reply::endless(), ErrorKind::Protocol),
        ("server error", |_| Reply::new(500), ErrorKind::Server),
        (
            "denied",
            |_| Reply::json(403, r#"{"details":"blocked"}"#),
            ErrorKind::Denied,
        ),
    ];
    for (name, token, kind) in cases {
        let server = token_server(*token, "never");
        let error = client_with(None)
            .0
            .manifest(&server.reference("app"))
            .unwrap_err();
        assert_eq!(error.kind(), *kind, "{name}: {error}");
        assert!(error.to_string().contains("/token"), "{name}: {error}");
    }
}

#[test]
fn a_busy_token_service_is_asked_again() {
    let server = token_server(
        |seen| {
            if seen.nth == 0 {
                Reply::new(503)
            } else {
                Reply::json(200, r#"{"token":"t1"}"#)
            }
        },
        "Bearer t1",
    );
    client_with(None).0.manifest(&server.reference("app")).unwrap();
}

#[test]
fn threads_share_one_token_fetch() {
    let server = Server::start(|seen| match seen.path.as_str() {
        "/token" => {
            std::thread::sleep(Duration::from_millis(50));
            Reply::json(200, r#"{"token":"t1","expires_in":300}"#)
        }
        _ if seen.header("authorization") == Some("Bearer t1") => manifest_reply(MANIFEST),
        _ => challenge(seen),
    });
    let (client, _) = client_with(None);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| client.manifest(&server.reference("app")).unwrap());
        }
    });
    assert_eq!(
        server.lines().iter().filter(|line| *line == "GET /token").count(),
        1
    );
}

#[test]
fn credentials_do_not_follow_a_redirect_to_another_host() {
    static STORAGE: OnceLock<String> = OnceLock::new();
    let bytes = blob(5000);
    let served = bytes.clone();
    let storage = Server::start(move |_| Reply::ok(served.clone()));
    STORAGE
        .set(format!("http://{}/bucket/blob?signature=s3cret", storage.host()))
        .unwrap();
    let server = Server::start(|seen| match (seen.path.as_str(), seen.header("authorization")) {
        ("/token", _) => Reply::json(200, r#"{"token":"t1"}"#),
        (_, None) => challenge(seen),
        ("/moved", Some("Bearer t1")) => Reply::new(307).with("Location", STORAGE.get().unwrap()),
        _ => Reply::new(302).with("Location", "/moved"),
    });
    let (client, _) = client_with(None);
    let mut sink = Vec::new();
    client
        .fetch_blob(&server.reference("app"), &descriptor(&bytes), &mut sink, &|_| {})
        .unwrap();
    assert!(sink == bytes);
    // Within the host it goes along, beyond it does not.
    assert!(
        server
            .seen()
            .iter()
            .any(|seen| seen.path == "/moved" && seen.header("authorization").is_some())
    );
    assert_eq!(storage.seen().len(), 1);
    assert_eq!(storage.seen()[0].header("authorization"), None);
    assert_eq!(storage.seen()[0].query, "signature=s3cret");
}

#[test]
fn signatures_stay_out_of_errors() {
    let storage = Server::start(|_| Reply::new(403));
    let target = format!("http://{}/bucket/blob?signature=s3cret", storage.host());
    let server = Server::start(move |_| Reply::new(307).with("Location", &target));
    let (client, _) = client_with(None);
    let error = client
        .fetch_blob(
            &server.reference("app"),
            &descriptor(b"abc"),
            &mut Vec::new(),
            &|_| {},
        )
        .unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains(&storage.host()), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
}
