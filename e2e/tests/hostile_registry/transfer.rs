//! Wrong bytes, wrong sizes, cut and silent connections, statuses that ask for patience.

use crate::case::{Case, Command, World};
use kiln_e2e::crafted::{Crafted, Tar};
use kiln_e2e::ensure;
use kiln_e2e::hostile_registry::{Answer, Body, Request, Site};
use std::time::Duration;

/// The honest answer with something done to it.
macro_rules! blob {
    ($change:expr) => {
        |_, request, site| only(request.is_layer(site), request, site, $change)
    };
}

macro_rules! manifest {
    ($change:expr) => {
        |_, request, site| only(request.manifest().is_some(), request, site, $change)
    };
}

macro_rules! config {
    ($change:expr) => {
        |_, request, site| {
            let wanted = request.blob().is_some() && !request.is_layer(site);
            only(wanted, request, site, $change)
        }
    };
}

pub(crate) trait Kinds {
    fn is_layer(&self, site: &Site) -> bool;
}

impl Kinds for Request {
    fn is_layer(&self, site: &Site) -> bool {
        let blob = self.blob().and_then(|digest| site.blobs.get(digest));
        self.method == "GET" && blob.is_some_and(|blob| blob.first() != Some(&b'{'))
    }
}

pub(crate) fn only(
    wanted: bool,
    request: &Request,
    site: &mut Site,
    change: fn(Answer, &Request) -> Answer,
) -> Option<Answer> {
    wanted.then(|| change(site.answer(request), request))
}

/// The same length, another content.
pub(crate) fn spoiled(answer: Answer) -> Answer {
    let mut bytes = answer.bytes();
    if let Some(byte) = bytes.last_mut() {
        *byte ^= 1;
    }
    answer.body(Body::Whole(bytes))
}

fn longer(answer: Answer) -> Answer {
    let bytes = [answer.bytes(), b"more".to_vec()].concat();
    answer.body(Body::Whole(bytes))
}

fn shorter(answer: Answer) -> Answer {
    let mut bytes = answer.bytes();
    bytes.pop();
    answer.body(Body::Whole(bytes))
}

/// Fails once with `answer`, then is honest.
fn once(request: &Request, answer: Answer) -> Option<Answer> {
    (request.blob().is_some() && request.nth == 0).then_some(answer)
}

pub(crate) fn always(request: &Request, answer: Answer) -> Option<Answer> {
    request.blob().is_some().then_some(answer)
}

/// A layer of some size, which does not compress away.
pub(crate) fn large(_: &World) -> Site {
    let mut state = 1_u64;
    let noise: Vec<u8> = (0..200_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    Crafted::of_tar(&Tar::new().file("f", &noise).end()).site()
}

pub(crate) fn cases() -> Vec<Case> {
    [bytes(), connections(), statuses()].concat()
}

fn bytes() -> Vec<Case> {
    vec![
        Case::new(
            "a manifest of another digest",
            manifest!(|answer, _| spoiled(answer)),
        ),
        Case::new(
            "a configuration of another digest",
            config!(|answer, _| spoiled(answer)),
        ),
        Case::new("a layer of another digest", blob!(|answer, _| spoiled(answer))),
        Case::new(
            "a layer of another digest, in a build",
            blob!(|answer, _| spoiled(answer)),
        )
        .runs(Command::Build("FROM @HOST@/app:1\nCOPY f /g\n")),
        Case::new("a longer configuration", config!(|answer, _| longer(answer))),
        Case::new("a longer layer", blob!(|answer, _| longer(answer))),
        Case::new("a shorter configuration", config!(|answer, _| shorter(answer))),
        Case::new("a shorter layer", blob!(|answer, _| shorter(answer))),
        Case::new(
            "a layer without an end",
            blob!(|answer, _| {
                let bytes = answer.bytes();
                answer.body(Body::Endless(bytes, b"more".to_vec()))
            }),
        ),
        Case::new(
            "a configuration without an end",
            config!(|answer, _| {
                let bytes = answer.bytes();
                answer.body(Body::Endless(bytes, b" ".to_vec()))
            }),
        ),
        Case::new(
            "a layer in chunks that do not end",
            blob!(|answer, _| {
                let bytes = answer.bytes();
                answer.body(Body::Unended(bytes))
            }),
        )
        .works(),
        Case::new(
            "a layer whose length is a lie",
            blob!(|answer, _| {
                let bytes = answer.bytes();
                let length = bytes.len() - 5;
                answer.body(Body::Raw(
                    [
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes(),
                        bytes,
                    ]
                    .concat(),
                    Vec::new(),
                ))
            }),
        ),
        Case::new(
            "two lengths",
            blob!(|answer, _| {
                let start = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 70\r\n\r\n".to_vec();
                let bytes = [start, answer.bytes()].concat();
                answer.body(Body::Raw(bytes, Vec::new()))
            }),
        ),
        Case::new(
            "a length that is no number",
            blob!(|answer, _| {
                let start = b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n".to_vec();
                let bytes = [start, answer.bytes()].concat();
                answer.body(Body::Raw(bytes, Vec::new()))
            }),
        ),
        Case::new("a layer that is said to have an exabyte", |_, _, _| None).with_site(|_| {
            let mut image = Crafted::plain();
            image.manifest["layers"][0]["size"] = (1_u64 << 60).into();
            image.site()
        }),
        Case::new("a layer of an exabyte that comes", |_, request, site| {
            only(request.is_layer(site), request, site, |answer, _| {
                let bytes = answer.bytes();
                answer.body(Body::Endless(bytes, vec![0; 1 << 16]))
            })
        })
        .with_site(|_| {
            let mut image = Crafted::plain();
            image.manifest["layers"][0]["size"] = (1_u64 << 60).into();
            image.site()
        }),
        Case::new(
            "a configuration that is said to have a gigabyte, and comes",
            |_, request, site| {
                let wanted = request.blob().is_some() && !request.is_layer(site);
                only(wanted, request, site, |answer, _| {
                    answer.body(Body::Endless(b"{".to_vec(), vec![b' '; 1 << 16]))
                })
            },
        )
        .with_site(|_| {
            let mut image = Crafted::plain();
            let config = image.config.to_string();
            image.manifest["config"] =
                kiln_e2e::crafted::descriptor(kiln_e2e::crafted::CONFIG, config.as_bytes());
            image.manifest["config"]["size"] = (1_u64 << 30).into();
            image.site()
        }),
    ]
}

fn connections() -> Vec<Case> {
    vec![
        Case::new("a layer that is cut once", |_, request, site| {
            let first = request.is_layer(site) && request.nth == 0;
            only(first, request, site, |answer, _| answer.cut_at(100_000))
        })
        .with_site(large)
        .works()
        .check(|ran| {
            let ranges: Vec<Option<usize>> = ran
                .registry
                .seen()
                .iter()
                .filter(|request| request.blob().is_some() && request.range().is_some())
                .map(Request::range)
                .collect();
            ensure!(ranges == [Some(100_000)], "the rest was asked for by {ranges:?}");
            Ok(())
        }),
        Case::new(
            "a layer that is cut after every fifty bytes",
            blob!(|answer, _| answer.cut_at(50)),
        )
        .works(),
        Case::new(
            "a layer that is always cut",
            blob!(|answer, request| { answer.cut_at(if request.range().is_some() { 0 } else { 50 }) }),
        )
        .resumable(),
        Case::new(
            "a layer that is cut before its first byte",
            blob!(|answer, _| answer.cut_at(0)),
        ),
        Case::new("a range that begins elsewhere", |_, request, site| {
            only(request.is_layer(site), request, site, |answer, request| {
                if request.nth == 0 {
                    answer.cut_at(1000)
                } else {
                    answer.with("Content-Range", "bytes 5000-199999/200000")
                }
            })
        })
        .with_site(large)
        .resumable(),
        Case::new("a range of another content", |_, request, site| {
            only(
                request.is_layer(site),
                request,
                site,
                |answer, request| match request.range() {
                    None => answer.cut_at(1000),
                    Some(_) => spoiled(answer),
                },
            )
        })
        .with_site(large),
        Case::new("a range that cannot be had", |_, request, site| {
            only(
                request.is_layer(site),
                request,
                site,
                |answer, request| match request.range() {
                    None if request.nth == 0 => answer.cut_at(1000),
                    None => answer,
                    Some(_) => Answer::status(416),
                },
            )
        })
        .with_site(large)
        .works(),
        Case::new("a manifest that is cut", manifest!(|answer, _| answer.cut_at(40))),
        Case::new("a connection that is closed at once", |_, _, _| {
            Some(Answer::of("").body(Body::Closed))
        }),
        Case::new("no answer at all", |_, _, _| {
            Some(Answer::of("").body(Body::Silence))
        })
        .silent(),
        Case {
            accepts: false,
            silent: true,
            ..Case::new("no connection is taken", |_, _, _| None)
        },
        Case::new(
            "a layer that stalls",
            blob!(|answer, request| {
                let bytes = answer.bytes();
                let count = if request.range().is_some() { 0 } else { 50 };
                answer.body(Body::Stalled(bytes[..count].to_vec(), bytes.len()))
            }),
        )
        .silent()
        .resumable(),
        Case::new("a layer that stalls once", |_, request, site| {
            let first = request.is_layer(site) && request.nth == 0;
            only(first, request, site, |answer, _| {
                let bytes = answer.bytes();
                answer.body(Body::Stalled(bytes[..50].to_vec(), bytes.len()))
            })
        })
        .silent()
        .works(),
        Case::new(
            "a manifest that stalls",
            manifest!(|answer, _| {
                let bytes = answer.bytes();
                answer.body(Body::Stalled(bytes[..50].to_vec(), bytes.len()))
            }),
        )
        .silent(),
        Case::new(
            "a layer that drips",
            blob!(|answer, _| {
                let bytes = answer.bytes();
                answer.body(Body::Dripping(bytes, Duration::from_millis(100)))
            }),
        )
        .silent()
        .resumable(),
        Case::new(
            "a manifest that drips",
            manifest!(|answer, _| {
                let bytes = answer.bytes();
                answer.body(Body::Dripping(bytes, Duration::from_millis(100)))
            }),
        )
        .silent(),
        Case::new("a header without an end", |_, _, _| {
            Some(Answer::of("").body(Body::Raw(b"HTTP/1.1 200 OK\r\nX: ".to_vec(), b"x".to_vec())))
        }),
        Case::new("headers without an end", |_, _, _| {
            let line = b"X-One-More: and another one\r\n".to_vec();
            Some(Answer::of("").body(Body::Raw(b"HTTP/1.1 200 OK\r\n".to_vec(), line)))
        }),
        Case::new("a status line without an end", |_, _, _| {
            Some(Answer::of("").body(Body::Raw(b"HTTP/1.1 200 ".to_vec(), b"O".to_vec())))
        }),
        Case::new("interim answers without an end", |_, _, _| {
            Some(Answer::of("").body(Body::Raw(Vec::new(), b"HTTP/1.1 100 Continue\r\n\r\n".to_vec())))
        }),
        Case::new("something else than HTTP", |_, _, _| {
            Some(Answer::of("").body(Body::Raw(b"220 mail.example ESMTP\r\n".to_vec(), Vec::new())))
        }),
    ]
}

fn statuses() -> Vec<Case> {
    vec![
        Case::new("429 with Retry-After in seconds", |_, request, _| {
            once(request, Answer::status(429).with("Retry-After", "1"))
        })
        .works(),
        Case::new("429 with Retry-After as a date", |_, request, _| {
            once(
                request,
                Answer::status(429).with("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT"),
            )
        })
        .works(),
        Case::new("429 with a Retry-After of years", |_, request, _| {
            always(request, Answer::status(429).with("Retry-After", "99999999999999"))
        }),
        Case::new(
            "429 with a Retry-After that is too large for a number",
            |_, request, _| always(request, Answer::status(429).with("Retry-After", "9".repeat(50))),
        ),
        Case::new("429 with a date of the far future", |_, request, _| {
            always(
                request,
                Answer::status(429).with("Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT"),
            )
        }),
        Case::new("429 always", |_, request, _| {
            always(request, Answer::complaint(429, "TOOMANYREQUESTS", "slow down"))
        }),
        Case::new("503 once", |_, request, _| once(request, Answer::status(503))).works(),
        Case::new("503 always", |_, request, _| always(request, Answer::status(503))),
        Case::new("500 once", |_, request, _| once(request, Answer::status(500))).works(),
        Case::new("500 always, with a page without an end", |_, request, _| {
            always(
                request,
                Answer::status(500).body(Body::Endless(b"<html>".to_vec(), b"<p>".to_vec())),
            )
        }),
        Case::new("an error that wants to write to the terminal", |_, request, _| {
            let message = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\nERROR: all is well\u{9b}31m\u{202e}";
            always(request, Answer::complaint(403, "DENIED\u{1b}[31m", message))
        }),
        Case::new("204 for a layer", blob!(|_, _| Answer::status(204))),
        Case::new("304 for a layer", blob!(|_, _| Answer::status(304))),
        Case::new("no manifest, no words", manifest!(|_, _| Answer::status(404))),
    ]
}
