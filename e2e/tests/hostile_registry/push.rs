//! Registries that take nothing, or say so and mean something else.

use crate::case::{Case, Command, World};
use kiln_e2e::ensure;
use kiln_e2e::hostile_registry::{Answer, Body, Request, Site, Uploads, digest};

/// An answer to the opening of an upload.
fn opened(request: &Request, location: impl Into<String>) -> Option<Answer> {
    (request.method == "POST").then(|| Answer::status(202).with("Location", location))
}

/// An answer to what an upload ends with.
fn ended(request: &Request, answer: Answer) -> Option<Answer> {
    (request.method == "PUT" && request.is_upload()).then_some(answer)
}

/// As if nothing of the image were there.
fn lacks(request: &Request) -> Option<Answer> {
    (request.method == "HEAD").then(|| Answer::status(404))
}

fn silent(_: &World, request: &Request, _: &mut Site) -> Option<Answer> {
    (request.method == "POST").then(|| Answer::of("").body(Body::Silence))
}

pub(crate) fn cases() -> Vec<Case> {
    let exports = [
        Case::new("a cache export to a silent registry", silent).silent(),
        Case::new("a cache export that is refused", |_, request, _| {
            ended(request, Answer::complaint(403, "DENIED", "no"))
        }),
        Case::new("a cache export of another digest", |_, request, _| {
            (request.method == "PUT" && request.manifest().is_some())
                .then(|| Answer::status(201).with("Docker-Content-Digest", digest(b"other")))
        }),
        Case::new(
            "a cache export onto a manifest without an end",
            |_, request, _| {
                (request.method == "GET" && request.manifest().is_some())
                    .then(|| Answer::of("").body(Body::Endless(b"{".to_vec(), b" ".to_vec())))
            },
        ),
        Case::new("a cache export that others always disturb", |_, request, site| {
            // After each write the name stands for something else.
            if request.method == "PUT" && request.manifest().is_some() {
                let answer = site.answer(request);
                let other = format!(r#"{{"schemaVersion":2,"x":{}}}"#, request.nth);
                site.put_manifest(Some("1"), kiln_e2e::crafted::MANIFEST, other);
                return Some(answer);
            }
            None
        }),
    ];
    let exports = exports.map(|case| case.runs(Command::CacheTo));
    [locations(), answers(), broken(), exports.into()].concat()
}

fn push(name: &'static str, answer: fn(&World, &Request, &mut Site) -> Option<Answer>) -> Case {
    Case::new(name, answer).runs(Command::Push)
}

fn locations() -> Vec<Case> {
    vec![
        push(
            "an upload to another host gets no credentials",
            |world, request, _| {
                if !request.headers.contains_key("authorization") {
                    return Some(Answer::status(401).with("WWW-Authenticate", "Basic realm=\"r\""));
                }
                opened(request, format!("http://{}{}9", world.other, request.path))
            },
        )
        .with_password()
        .check(|ran| {
            ensure!(ran.other.count("PUT ") > 0, "the other host was not asked");
            Ok(())
        }),
        push("an upload to a relative address", |_, request, site| {
            if request.method != "POST" {
                return None;
            }
            let answer = site.answer(request);
            let location = answer
                .headers
                .iter()
                .find(|(name, _)| name == "Location")?
                .1
                .clone();
            let number = location.rsplit_once('/')?.1.to_owned();
            Some(answer.with("Location", format!("{number}?state=a%2Fb")))
        })
        .works(),
        push("an upload to a file", |_, request, _| {
            opened(request, "file:///tmp/x")
        }),
        push("an upload to nowhere", |_, request, _| {
            (request.method == "POST").then(|| Answer::status(202))
        }),
        push(
            "an upload to an address of sixty thousand bytes",
            |_, request, _| opened(request, format!("{}{}", request.path, "x".repeat(60_000))),
        ),
        push("an upload to an address with a line break", |_, request, _| {
            opened(request, format!("{}1\tX: y", request.path))
        }),
        push("an upload that is sent on and on", |_, request, _| {
            if request.method == "POST" {
                return None;
            }
            request
                .is_upload()
                .then(|| Answer::redirect(format!("{}1", request.path)))
        }),
        push(
            "the opening of an upload that is sent on and on",
            |_, request, _| {
                (request.method == "POST").then(|| Answer::redirect(format!("{}x", request.path)))
            },
        ),
    ]
}

fn answers() -> Vec<Case> {
    vec![
        push("202 for ever", |_, request, _| {
            request
                .is_upload()
                .then(|| Answer::status(202).with("Location", request.path.clone()))
        }),
        push("413 for whole blobs and for chunks", |_, request, _| {
            matches!(request.method.as_str(), "PUT" | "PATCH").then(|| Answer::status(413))
        }),
        push("413 for whole blobs only", |_, request, _| {
            let whole = request.method == "PUT" && request.is_upload() && !request.body.is_empty();
            whole.then(|| Answer::status(413))
        })
        .works(),
        push("sessions that vanish", |_, request, _| {
            ended(
                request,
                Answer::complaint(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry"),
            )
        }),
        push("a session that vanishes once", |_, request, _| {
            let first = request.method == "PUT" && request.is_upload() && request.path.ends_with("/1");
            first.then(|| Answer::complaint(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry"))
        })
        .works(),
        push("a manifest that is stored as another one", |_, request, _| {
            (request.method == "PUT" && request.manifest().is_some())
                .then(|| Answer::status(201).with("Docker-Content-Digest", digest(b"other")))
        }),
        push("a manifest that is refused", |_, request, _| {
            (request.method == "PUT" && request.manifest().is_some())
                .then(|| Answer::complaint(400, "MANIFEST_INVALID", "\u{1b}[31mno"))
        }),
        push("a blob that is refused for its digest", |_, request, _| {
            ended(request, Answer::complaint(400, "DIGEST_INVALID", "no"))
        })
        .check(|ran| {
            let sent = ran.registry.count("PATCH ");
            ensure!(sent == 0, "wrong content was sent again, {sent} times");
            Ok(())
        }),
        push("chunks of at least an exabyte", |_, request, site| {
            if request.method == "PUT" && request.is_upload() && !request.body.is_empty() {
                return Some(Answer::status(413));
            }
            (request.method == "POST").then(|| {
                site.answer(request)
                    .with("OCI-Chunk-Min-Length", u64::MAX.to_string())
            })
        })
        .works(),
        push("a registry that says to have everything", |_, request, _| {
            (request.method == "HEAD" && request.blob().is_some()).then(|| Answer::status(200))
        })
        .works(),
        push("a registry that lacks what it took", |_, request, _| {
            lacks(request)
        })
        .works(),
        Case::new("a mount that is answered by an upload", |_, request, _| {
            lacks(request)
        })
        .runs(Command::PushAgain)
        .works()
        .check(|ran| {
            let requests = ran.registry.seen();
            let mounts = requests
                .iter()
                .filter(|request| request.query.contains("mount="))
                .count();
            ensure!(mounts > 0, "nothing was mounted");
            let canceled = requests
                .iter()
                .filter(|request| request.method == "DELETE")
                .count();
            ensure!(mounts == canceled, "{mounts} mounts, {canceled} uploads ended");
            Ok(())
        }),
        Case::new("a mount that is refused", |_, request, _| {
            if request.query.contains("mount=") {
                return Some(Answer::complaint(500, "UNKNOWN", "no mounts here"));
            }
            lacks(request)
        })
        .runs(Command::PushAgain)
        .works(),
        Case::new("a mount of another blob", |_, request, _| {
            if request.query.contains("mount=") {
                return Some(
                    Answer::status(201)
                        .with("Location", "/v2/x")
                        .with("Docker-Content-Digest", digest(b"other")),
                );
            }
            lacks(request)
        })
        .runs(Command::PushAgain)
        .works(),
        push("429 with a Retry-After of an hour", |_, request, _| {
            (request.method == "POST").then(|| Answer::status(429).with("Retry-After", "3600"))
        }),
        push("401 without an end for an upload", |_, request, _| {
            ended(
                request,
                Answer::status(401).with("WWW-Authenticate", "Basic realm=\"r\""),
            )
        })
        .with_password(),
    ]
}

fn broken() -> Vec<Case> {
    vec![
        Case {
            uploads: Uploads::Cut(1),
            ..push(
                "a connection that is closed in the middle of an upload",
                |_, _, _| None,
            )
            .works()
        },
        Case {
            uploads: Uploads::Cut(1000),
            ..push(
                "connections that are always closed in the middle of an upload",
                |_, _, _| None,
            )
        },
        push("a registry that is silent when an upload is opened", silent).silent(),
        push(
            "a connection that is closed when an upload is opened",
            |_, request, _| (request.method == "POST").then(|| Answer::of("").body(Body::Closed)),
        ),
        push("500 for the manifest", |_, request, _| {
            (request.method == "PUT" && request.manifest().is_some()).then(|| Answer::status(500))
        }),
        push("an answer without an end to an upload", |_, request, _| {
            ended(
                request,
                Answer::of("")
                    .but(400)
                    .body(Body::Endless(b"{".to_vec(), b" ".to_vec())),
            )
        }),
    ]
}
