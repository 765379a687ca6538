//! Redirects, and `ADD` of addresses.

use crate::case::{Case, Command};
use crate::transfer::always;
use kiln_e2e::ensure;
use kiln_e2e::hostile_registry::{Answer, Body};
use std::time::Duration;

pub(crate) fn cases() -> Vec<Case> {
    [redirects(), files()].concat()
}

fn redirects() -> Vec<Case> {
    vec![
        Case::new("a redirect to itself", |_, request, _| {
            request
                .blob()
                .is_some()
                .then(|| Answer::redirect(request.path.clone()))
        }),
        Case::new("redirects without an end", |_, request, _| {
            request
                .blob()
                .is_some()
                .then(|| Answer::redirect(format!("{}1", request.path)))
        }),
        Case::new("a redirect to a file", |_, request, _| {
            always(request, Answer::redirect("file:///etc/passwd"))
        }),
        Case::new("a redirect to nowhere", |_, request, _| {
            always(request, Answer::redirect("http:///"))
        }),
        Case::new("a redirect without a place", |_, request, _| {
            always(request, Answer::status(307))
        }),
        Case::new("a redirect that would add a header", |_, request, _| {
            always(request, Answer::redirect("/x%0d%0aX: y\tz"))
        }),
        // As Docker: registries hand out blobs from other hosts, private ones too.
        Case::new(
            "a redirect to another host gets no credentials",
            |world, request, _| {
                if !request.headers.contains_key("authorization") {
                    return Some(Answer::status(401).with("WWW-Authenticate", "Basic realm=\"r\""));
                }
                request
                    .blob()
                    .is_some()
                    .then(|| Answer::redirect(format!("http://{}{}", world.other, request.path)))
            },
        )
        .with_password()
        .works()
        .check(|ran| {
            ensure!(
                ran.other.count("GET /v2/app/blobs/") == 2,
                "nobody asked the other host"
            );
            Ok(())
        }),
        Case::new("another host asks for credentials", |world, request, _| {
            if !request.headers.contains_key("authorization") {
                return Some(Answer::status(401).with("WWW-Authenticate", "Basic realm=\"r\""));
            }
            // Back from there, as if it were from here.
            request
                .blob()
                .is_some()
                .then(|| Answer::redirect(format!("http://user:{}@{}/private", "x", world.other)))
        })
        .with_password(),
    ]
}

/// `ADD` of addresses, which goes the same way.
fn files() -> Vec<Case> {
    const ADD: Command = Command::Build("FROM scratch\nADD http://@HOST@/v2/file /f\n");
    vec![
        Case::new("ADD of a file that stalls", |_, request, _| {
            (request.method == "GET").then(|| Answer::of("").body(Body::Stalled(b"abc".to_vec(), 10)))
        })
        .silent()
        .runs(ADD),
        Case::new("ADD of a file that drips", |_, request, _| {
            (request.method == "GET")
                .then(|| Answer::of("").body(Body::Dripping(vec![b'x'; 1000], Duration::from_millis(100))))
        })
        .silent()
        .runs(ADD),
        Case::new("ADD of a file that is cut", |_, request, _| {
            (request.method == "GET").then(|| Answer::of("").body(Body::Cut(b"abc".to_vec(), 10)))
        })
        .runs(ADD),
        Case::new("ADD of a file by a redirect to a file", |_, _, _| {
            Some(Answer::redirect("file:///etc/passwd"))
        })
        .runs(ADD),
        Case::new("ADD of a file that is said to be endless", |_, request, _| {
            (request.method == "GET").then(|| Answer::of("").body(Body::Stalled(Vec::new(), 1 << 60)))
        })
        .silent()
        .runs(ADD),
    ]
}
