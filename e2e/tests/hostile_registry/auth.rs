//! Challenges and token services.

use crate::case::{Case, Command, World};
use kiln_e2e::ensure;
use kiln_e2e::hostile_registry::{Answer, Body, Request};

fn challenge(text: impl Into<String>) -> Answer {
    Answer::complaint(401, "UNAUTHORIZED", "authentication required").with("WWW-Authenticate", text)
}

/// Asks for a token of `/token` on this host, whose answer is `token`.
fn token(world: &World, request: &Request, token: fn() -> Answer) -> Option<Answer> {
    if request.path == "/token" {
        return Some(token());
    }
    let known = request.headers.contains_key("authorization");
    (!known).then(|| {
        challenge(format!(
            "Bearer realm=\"http://{}/token\",service=\"s\"",
            world.host
        ))
    })
}

fn any_token() -> Answer {
    Answer::of(r#"{"token":"abc"}"#)
}

pub(crate) fn cases() -> Vec<Case> {
    [challenges(), tokens(), logins()].concat()
}

fn challenges() -> Vec<Case> {
    vec![
        Case::new("401 without an end", |world, request, _| {
            if request.path == "/token" {
                return Some(any_token());
            }
            Some(challenge(format!(
                "Bearer realm=\"http://{}/token\",service=\"s\"",
                world.host
            )))
        })
        .check(|ran| {
            let asked = ran.registry.seen().len();
            ensure!(asked <= 8, "{asked} requests");
            Ok(())
        }),
        Case::new("401 without an end for a password", |_, _, _| {
            Some(challenge("Basic realm=\"r\""))
        })
        .with_password(),
        Case::new("401 without a challenge", |_, _, _| Some(Answer::status(401))),
        Case::new("a challenge that is garbage", |_, _, _| {
            Some(challenge("=,\"\\,,Bearer =\"x realm"))
        }),
        Case::new("a challenge of an unknown kind", |_, _, _| {
            Some(challenge("Negotiate abcd=="))
        }),
        Case::new("a challenge without a realm", |_, _, _| {
            Some(challenge("Bearer service=\"s\""))
        }),
        Case::new("a realm that is a file", |_, _, _| {
            Some(challenge("Bearer realm=\"file:///etc/shadow\""))
        }),
        Case::new("a realm that is this very page", |_, request, _| {
            Some(challenge(format!("Bearer realm=\"{}\"", request.path)))
        }),
        Case::new("a challenge of sixty thousand bytes", |world, _, _| {
            let many = "a=\"x\",".repeat(8000);
            Some(challenge(format!(
                "Bearer {many}realm=\"http://{}/token\"",
                world.host
            )))
        }),
        Case::new(
            "a realm on another host gets no other host's password",
            |world, request, _| {
                // The password of a registry goes to the token service that the registry names: that is how Docker Hub
                // works. Without one for this registry nothing goes anywhere.
                let known = request.headers.contains_key("authorization");
                (!known).then(|| challenge(format!("Bearer realm=\"http://{}/token\"", world.other)))
            },
        )
        .check(|ran| {
            ensure!(
                ran.other.count("GET /token") == 1,
                "the token service was not asked once"
            );
            Ok(())
        }),
    ]
}

fn tokens() -> Vec<Case> {
    vec![
        Case::new("a token without an end", |world, request, _| {
            token(world, request, || {
                Answer::of("").body(Body::Endless(b"{\"token\":\"".to_vec(), b"a".to_vec()))
            })
        }),
        Case::new("a token with a line break", |world, request, _| {
            token(world, request, || Answer::of(r#"{"token":"abc\r\nX-Evil: 1"}"#))
        }),
        Case::new("a token service with an empty answer", |world, request, _| {
            token(world, request, || Answer::of(""))
        }),
        Case::new("a token service with deep brackets", |world, request, _| {
            token(world, request, || Answer::of("[".repeat(500_000)))
        }),
        Case::new("a token service with a million objects", |world, request, _| {
            token(world, request, || {
                Answer::of(format!(
                    "{{\"x\":[{}0],\"token\":\"abc\"}}",
                    "{\"\":0},".repeat(130_000)
                ))
            })
        })
        .works(),
        Case::new("a token that lives for ever", |world, request, _| {
            token(world, request, || {
                Answer::of(format!(r#"{{"token":"abc","expires_in":{}}}"#, u64::MAX))
            })
        })
        .works(),
        Case::new("a token that is dead already", |world, request, _| {
            token(world, request, || Answer::of(r#"{"token":"abc","expires_in":0}"#))
        })
        .works(),
        Case::new("a token of half a mebibyte", |world, request, _| {
            token(world, request, || {
                Answer::of(format!(r#"{{"token":"{}"}}"#, "a".repeat(500_000)))
            })
        }),
        Case::new(
            "a token service that redirects without an end",
            |world, request, _| token(world, request, || Answer::redirect("/token")),
        ),
        Case::new("a token service that is silent", |world, request, _| {
            token(world, request, || Answer::of("").body(Body::Silence))
        })
        .silent(),
        Case::new("a token service that asks for a token", |world, request, _| {
            token(world, request, || challenge("Bearer realm=\"/token\""))
        }),
        Case::new(
            "a token service that redirects a password elsewhere",
            |world, request, _| {
                if request.path == "/token" {
                    return Some(Answer::redirect(format!("http://{}/token", world.other)));
                }
                token(world, request, any_token)
            },
        )
        .with_password()
        .check(|ran| {
            ensure!(ran.other.count("GET /token") > 0, "the other host was not asked");
            Ok(())
        }),
    ]
}

fn logins() -> Vec<Case> {
    let login = |name, answer| {
        Case::new(name, answer).runs(Command::Login).check(|ran| {
            let kept = ran.kiln.root.with_file_name("home").join(".docker/config.json");
            let text = std::fs::read_to_string(kept).unwrap_or_default();
            ensure!(
                !text.contains("auth\""),
                "a password that was not accepted is kept: {text}"
            );
            Ok(())
        })
    };
    vec![
        login("login with a wrong password", |_, _, _| {
            Some(challenge("Basic realm=\"r\""))
        }),
        login("login and 401 without an end", |world, request, _| {
            if request.path == "/token" {
                return Some(any_token());
            }
            Some(challenge(format!("Bearer realm=\"http://{}/token\"", world.host)))
        }),
        login("login and a token without an end", |world, request, _| {
            token(world, request, || {
                Answer::of("").body(Body::Endless(b"{\"token\":\"".to_vec(), b"a".to_vec()))
            })
        }),
        login("login and a redirect to another host", |world, request, _| {
            Some(Answer::redirect(format!(
                "http://{}{}x",
                world.other, request.path
            )))
        }),
        login("login and a redirect without an end", |_, request, _| {
            Some(Answer::redirect(request.path.clone()))
        }),
        login("login and silence", |_, _, _| {
            Some(Answer::of("").body(Body::Silence))
        })
        .silent(),
        login("login and a server error", |_, _, _| Some(Answer::status(500))),
        login("login and no registry", |_, _, _| Some(Answer::status(404))),
    ]
}
