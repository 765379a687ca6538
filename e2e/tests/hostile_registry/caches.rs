//! Caches of builds.

use crate::case::{Case, Command};
use crate::documents::{nested, swollen};
use kiln_e2e::crafted::{Crafted, MANIFEST};
use kiln_e2e::hostile_registry::{Answer, Body};

/// A cache that cannot be used never fails a build.
pub(crate) fn cases() -> Vec<Case> {
    let from = |name, answer| Case::new(name, answer).runs(Command::CacheFrom).works();
    vec![
        from("a cache whose manifest has no end", |_, request, _| {
            request
                .manifest()
                .map(|_| Answer::of("").body(Body::Endless(b"{".to_vec(), b" ".to_vec())))
        }),
        from("a cache of a thousand indexes", |_, request, _| {
            let name = request.manifest()?;
            let mut site = nested(1000);
            let name = if name == "cache" { "1" } else { name };
            let (media_type, bytes) = site.manifests.remove(name)?;
            Some(Answer::of(bytes).with("Content-Type", media_type))
        }),
        from(
            "a cache whose records are of another digest",
            |_, request, site| {
                request.blob()?;
                let answer = site.answer(request);
                let length = answer.bytes().len();
                Some(answer.body(Body::Whole(vec![b'x'; length])))
            },
        ),
        from("a cache whose blobs are gone", |_, request, _| {
            request
                .blob()
                .map(|_| Answer::complaint(404, "BLOB_UNKNOWN", "blob unknown"))
        }),
        from("a cache that is silent", |_, _, _| {
            Some(Answer::of("").body(Body::Silence))
        })
        .silent(),
        from("a cache that fails", |_, _, _| Some(Answer::status(500))),
        from("a cache that asks for credentials without an end", |_, _, _| {
            Some(Answer::status(401).with("WWW-Authenticate", "Basic realm=\"r\""))
        }),
        from(
            "a cache that is an image of half a million objects",
            |_, request, _| {
                request.manifest()?;
                let bytes = swollen(&Crafted::plain().manifest, 4_100_000);
                Some(Answer::of(bytes).with("Content-Type", MANIFEST))
            },
        ),
    ]
}
