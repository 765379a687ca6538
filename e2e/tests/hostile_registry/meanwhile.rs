//! Layers that are unpacked while they come: bytes that are wrong, that come anew, or that need not come any more.

use crate::case::{Case, Command, World};
use crate::runner::Ran;
use crate::transfer::{Kinds as _, large, only, spoiled};
use kiln_e2e::crafted::{Crafted, Tar, gzip};
use kiln_e2e::hostile_registry::{Answer, Body, Request, Site};
use kiln_e2e::{Result, ensure};
use std::time::Duration;

/// The start of a tar whose file has more holes than a layer may have, and then many zeros.
fn beyond_limits() -> Vec<u8> {
    let records = [
        ("GNU.sparse.size", "1152921504606846976"),
        ("GNU.sparse.map", "0,1"),
        ("GNU.sparse.numblocks", "1"),
    ];
    [Tar::new().pax(&records).file("f", b"f").cut(), vec![0; 1 << 20]].concat()
}

/// The layer is said to be as large as one can be.
fn huge(_: &World) -> Site {
    let mut image = Crafted::plain();
    image.manifest["layers"][0]["size"] = (1_u64 << 40).into();
    image.site()
}

/// A good layer below the large one.
fn two(world: &World) -> Site {
    let above = large(world);
    let layer = above.blobs.values().find(|blob| blob.first() != Some(&b'{'));
    let above = layer.cloned().unwrap_or_default();
    let mut tar = Vec::new();
    // It was made a moment ago.
    let _ = std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&above[..]), &mut tar);
    crate::layers::two(&Tar::new().file("g", b"g").end(), &tar)
}

/// Neither a layer nor the large blob is in the store.
fn nothing_came(ran: &Ran<'_>) -> Result<()> {
    ensure!(entries(ran, "layers")? == 0, "a layer stays");
    let large = std::fs::read_dir(ran.kiln.root.join("blobs/sha256"))?
        .flatten()
        .filter(|blob| blob.metadata().is_ok_and(|metadata| metadata.len() > 10_000))
        .count();
    ensure!(large == 0, "the blob stays");
    Ok(())
}

fn entries(ran: &Ran<'_>, folder: &str) -> Result<usize> {
    let path = ran.kiln.root.join(folder);
    Ok(if path.exists() {
        std::fs::read_dir(path)?.count()
    } else {
        0
    })
}

/// Long before anything that slow could have come.
fn soon(ran: &Ran<'_>) -> Result<()> {
    let taken = ran.measured.elapsed;
    ensure!(taken < Duration::from_mins(1), "it took {taken:?}");
    nothing_came(ran)
}

/// The whole, whatever range was asked for.
fn from_the_start(request: &Request, site: &mut Site) -> Answer {
    let mut whole = request.clone();
    whole.headers.remove("range");
    site.answer(&whole)
}

pub(crate) fn cases() -> Vec<Case> {
    [wrong(), anew(), useless()].concat()
}

fn wrong() -> Vec<Case> {
    vec![
        Case::new("a large layer whose last byte is wrong", |_, request, site| {
            only(request.is_layer(site), request, site, |answer, _| spoiled(answer))
        })
        .with_site(large)
        .check(nothing_came),
        Case::new("a large layer whose first bytes are wrong", |_, request, site| {
            only(request.is_layer(site), request, site, |answer, _| {
                let mut bytes = answer.bytes();
                bytes[..20].fill(b'x');
                answer.body(Body::Whole(bytes))
            })
        })
        .with_site(large)
        .check(nothing_came),
        Case::new(
            "another good layer instead of the right one",
            |_, request, site| {
                only(request.is_layer(site), request, site, |answer, _| {
                    let length = answer.bytes().len();
                    let mut bytes = gzip(&Tar::new().file("f", b"evil").end());
                    // As many bytes, in a member of its own that is none.
                    bytes.resize(length, b'x');
                    answer.body(Body::Whole(bytes))
                })
            },
        )
        .with_site(large)
        .check(nothing_came),
        Case::new(
            "two layers, the upper one with a wrong last byte",
            |_, request, site| {
                let large = request.is_layer(site) && site.answer(request).bytes().len() > 10_000;
                only(large, request, site, |answer, _| spoiled(answer))
            },
        )
        .with_site(two)
        .check(|ran| {
            let layers = entries(ran, "layers")?;
            ensure!(layers <= 1, "{layers} layers stay");
            Ok(())
        }),
        Case::new(
            "a large layer whose last byte is wrong, in a build",
            |_, request, site| only(request.is_layer(site), request, site, |answer, _| spoiled(answer)),
        )
        .with_site(large)
        .runs(Command::Build("FROM @HOST@/app:1\nCOPY f /g\n"))
        .check(nothing_came),
    ]
}

fn anew() -> Vec<Case> {
    vec![
        Case::new("a layer that comes from its start again", |_, request, site| {
            if !request.is_layer(site) {
                return None;
            }
            let whole = from_the_start(request, site);
            Some(if request.nth == 0 {
                whole.cut_at(100_000)
            } else {
                whole
            })
        })
        .with_site(large)
        .works()
        .check(|ran| {
            let asked = ran.registry.seen();
            let ranges = asked.iter().filter(|request| request.range() == Some(100_000));
            ensure!(ranges.count() == 1, "the rest was not asked for");
            Ok(())
        }),
        // What came first is thrown away, after it was unpacked.
        Case::new(
            "a layer that begins wrong, whose rest cannot be had",
            |_, request, site| {
                only(request.is_layer(site), request, site, |answer, request| {
                    match (request.nth, request.range()) {
                        (0, _) => {
                            let length = answer.bytes().len();
                            let wrong = gzip(&Tar::new().file("wrong", &[b'x'; 5000]).cut());
                            answer.body(Body::Cut(wrong, length))
                        }
                        (_, Some(_)) => Answer::status(416),
                        _ => answer,
                    }
                })
            },
        )
        .with_site(large)
        .works()
        .check(|ran| {
            let files = ran.files()?;
            ensure!(
                files.keys().eq(["f"]) && entries(ran, "layers")? == 1,
                "there are {:?}",
                files.keys()
            );
            Ok(())
        }),
    ]
}

fn useless() -> Vec<Case> {
    vec![
        Case::new("an endless layer beyond the limits", |_, request, site| {
            only(request.is_layer(site), request, site, |answer, _| {
                answer.body(Body::Endless(beyond_limits(), vec![0; 1 << 16]))
            })
        })
        .with_site(huge)
        .check(soon),
        // The download learns of it with its next bytes. Where all came before that, it is over when a client's patience is.
        Case::new("a layer beyond the limits that stalls", |_, request, site| {
            only(request.is_layer(site), request, site, |answer, request| {
                let bytes = beyond_limits();
                let sent = if request.range().is_some() { 0 } else { bytes.len() };
                answer.body(Body::Stalled(bytes[..sent].to_vec(), 1 << 40))
            })
        })
        .with_site(huge)
        .silent()
        .check(soon),
    ]
}
