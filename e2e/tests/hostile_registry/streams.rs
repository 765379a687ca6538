//! Compressed streams: bombs, cut ones, ones with something behind them.

use crate::case::{Case, World};
use kiln_e2e::crafted::{Crafted, LAYER_ZSTD, Layer, Tar, gzip, gzip_with, zstd_bomb};
use kiln_e2e::ensure;
use kiln_e2e::hostile_registry::{Site, digest};
use std::io::Write as _;

/// The header of a tar of one file of zeros.
fn header(size: u64) -> Vec<u8> {
    let text = format!("{size:011o}\0");
    Tar::new()
        .entry(&kiln_e2e::crafted::Entry {
            name: "zeros",
            size: Some(text.as_bytes()),
            ..Default::default()
        })
        .cut()
}

/// A tar of a file of so many MiB of zeros, without its end; with gzip.
fn gzip_bomb(mebibytes: u64) -> Vec<u8> {
    let zeros = vec![0; 1 << 20];
    gzip_with(|encoder| {
        encoder.write_all(&header(mebibytes << 20))?;
        (0..mebibytes).try_for_each(|_| encoder.write_all(&zeros))
    })
}

/// The plain image, with another blob for its layer.
fn blob(media_type: &'static str, blob: Vec<u8>) -> Site {
    let tar = Tar::new().file("f", b"content\n").end();
    Crafted::new(&[Layer {
        blob,
        media_type,
        diff_id: digest(&tar),
    }])
    .site()
}

/// An image of so many layers, each with a blob that wants the largest window: of some start and so many pieces of zeros.
fn windows(count: usize, pieces: usize, start: fn(&[u8]) -> Vec<u8>) -> Site {
    let layers: Vec<Layer> = (0..count)
        .map(|number| {
            let tar = Tar::new().file(&format!("f{number}"), b"content\n").end();
            Layer {
                blob: zstd_bomb(27, &start(&tar), pieces),
                media_type: LAYER_ZSTD,
                diff_id: digest(&tar),
            }
        })
        .collect();
    Crafted::new(&layers).site()
}

/// The tar of the plain image.
fn tar() -> Vec<u8> {
    Tar::new().file("f", b"content\n").end()
}

fn gzip_layer(blob_of: fn(&[u8]) -> Vec<u8>) -> Site {
    blob(kiln_e2e::crafted::LAYER_GZIP, blob_of(&tar()))
}

fn zstd_layer(blob_of: fn(&[u8]) -> Vec<u8>) -> Site {
    blob(LAYER_ZSTD, blob_of(&tar()))
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    kiln_e2e::crafted::zstd_bomb(17, bytes, 0)
}

fn bombs(_: &World) -> Site {
    blob(kiln_e2e::crafted::LAYER_GZIP, gzip_bomb(256))
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        // A large file of zeros is nothing forbidden: what must hold is that memory stays small and nothing stays
        // behind when the content is not what was promised.
        Case::of("a gzip bomb of 256 MiB", bombs),
        Case {
            disk: Some("64m"),
            ..Case::of("a gzip bomb that fills the disk", bombs)
        }
        .check(|ran| {
            ensure!(
                ran.output.to_lowercase().contains("no space left"),
                "the full disk is not told"
            );
            let used = rustix::fs::statvfs(&ran.kiln.root)?;
            let free = used.f_bfree * 100 / used.f_blocks;
            ensure!(free > 80, "only {free} % of the disk are free again");
            Ok(())
        }),
        Case::of("a gzip bomb of zeros behind the archive", |_| {
            gzip_layer(|tar| {
                let zeros = vec![0; 1 << 20];
                gzip_with(|encoder| {
                    encoder.write_all(tar)?;
                    (0..256).try_for_each(|_| encoder.write_all(&zeros))
                })
            })
        }),
        Case::of("a zstd bomb of 256 MiB", |_| {
            blob(LAYER_ZSTD, zstd_bomb(17, &header(256 << 20), 2048))
        }),
        Case::of("a zstd stream that wants two gibibytes of memory", |_| {
            blob(LAYER_ZSTD, zstd_bomb(31, &tar(), 0))
        }),
        Case {
            // The window is allowed: zstd's own tool takes it by default. So the decoder has it.
            memory: 150 + 140,
            ..Case::of("a zstd bomb with the largest window", |_| {
                blob(LAYER_ZSTD, zstd_bomb(27, &header(256 << 20), 2048))
            })
        },
        Case {
            // One at a time has such a window.
            memory: 150 + 140,
            ..Case::of("four zstd bombs with the largest window", |_| {
                // Each has a name of its own in front of its zeros.
                windows(4, 1280, |tar| [&tar[..1024], &header(160 << 20)[..]].concat())
            })
        },
        Case::of("six layers of the largest window that are in order", |_| {
            windows(6, 0, <[u8]>::to_vec)
        })
        .works()
        .check(|ran| ran.has("f5", "content\n")),
        Case::of("a layer that is said to have an exabyte of data", |_| {
            blob(kiln_e2e::crafted::LAYER_GZIP, gzip(&header(1 << 32)))
        }),
        Case::of("a truncated gzip stream", |_| {
            gzip_layer(|tar| {
                let all = gzip(tar);
                all[..all.len() - 9].to_vec()
            })
        }),
        Case::of("a gzip stream without its last byte", |_| {
            gzip_layer(|tar| {
                let all = gzip(tar);
                all[..all.len() - 1].to_vec()
            })
        }),
        Case::of("a gzip stream with a wrong checksum", |_| {
            gzip_layer(|tar| {
                let mut all = gzip(tar);
                let at = all.len() - 8;
                all[at] ^= 1;
                all
            })
        }),
        Case::of("a gzip stream of one byte", |_| gzip_layer(|_| vec![0x1f])),
        Case::of("a gzip stream of its magic number alone", |_| {
            gzip_layer(|_| vec![0x1f, 0x8b])
        }),
        Case::of("a truncated zstd stream", |_| {
            zstd_layer(|tar| {
                let all = zstd(tar);
                all[..all.len() - 4].to_vec()
            })
        }),
        Case::of("a gzip stream with garbage behind it", |_| {
            gzip_layer(|tar| [gzip(tar), b"garbage".to_vec()].concat())
        }),
        // gzip's own tool takes zeros behind a member for padding; the readers of images do not.
        Case::of("a gzip stream with zeros behind it", |_| {
            gzip_layer(|tar| [gzip(tar), vec![0; 512]].concat())
        }),
        Case::of("several gzip members", |_| {
            gzip_layer(|tar| tar.chunks(100).flat_map(gzip).collect())
        })
        .works()
        .check(|ran| ran.has("f", "content\n")),
        Case::of("gzip members of nothing", |_| {
            gzip_layer(|tar| [gzip(b"").repeat(50_000), gzip(tar)].concat())
        })
        .works()
        .check(|ran| ran.has("f", "content\n")),
        Case::of("a zstd stream with frames to skip", |_| {
            zstd_layer(|tar| {
                let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"skip"].concat();
                [skipped.repeat(10_000), zstd(tar)].concat()
            })
        })
        .works()
        .check(|ran| ran.has("f", "content\n")),
        Case::of("zstd where gzip was said", |_| gzip_layer(zstd))
            .works()
            .check(|ran| ran.has("f", "content\n")),
        Case::of("gzip in gzip", |_| gzip_layer(|tar| gzip(&gzip(tar)))),
        Case::of("an empty layer blob", |_| gzip_layer(|_| Vec::new())),
        Case::of("text instead of a layer", |_| {
            gzip_layer(|_| b"this is no tar\n".repeat(100))
        }),
        Case::of("the same blob twice, as two layers", |_| {
            let tar = tar();
            let twice = Layer::of(&tar);
            let mut image = Crafted::new(&[twice.clone(), twice]);
            image.config["rootfs"]["diff_ids"][1] = digest(b"another").into();
            image.site()
        })
        .check(|ran| {
            let asked = ran.registry.count("GET /v2/app/blobs/");
            ensure!(asked == 2, "the layer was asked for {asked} times less one");
            Ok(())
        }),
    ]
}
