//! Layer tars whose headers say what cannot be, and entries that are no files.

use crate::case::Case;
use crate::layers::{site, two};
use kiln_e2e::crafted::{Entry, Tar};
use kiln_e2e::ensure;

/// An entry of a kind that has no data.
fn special(kind: u8) -> Entry<'static> {
    Entry {
        name: "special",
        kind,
        device: (1, 3),
        ..Entry::default()
    }
}

pub(crate) fn cases() -> Vec<Case> {
    [headers(), specials()].concat()
}

fn headers() -> Vec<Case> {
    let sized = |name, site| Case::of(name, site);
    vec![
        sized("a negative size", |_| {
            let size = [0xff; 12];
            site(
                &Tar::new()
                    .entry(&Entry {
                        name: "f",
                        size: Some(&size),
                        ..Entry::default()
                    })
                    .end(),
            )
        }),
        sized("a size of eight exabytes", |_| {
            let size = [&[0x80, 0, 0, 0][..], &i64::MAX.to_be_bytes()].concat();
            site(
                &Tar::new()
                    .entry(&Entry {
                        name: "f",
                        size: Some(&size),
                        ..Entry::default()
                    })
                    .end(),
            )
        }),
        sized("a size that is no number", |_| {
            site(
                &Tar::new()
                    .entry(&Entry {
                        name: "f",
                        size: Some(b"many"),
                        ..Entry::default()
                    })
                    .end(),
            )
        }),
        sized("a size beyond the end", |_| {
            site(
                &Tar::new()
                    .entry(&Entry {
                        name: "f",
                        size: Some(b"00000100000\0"),
                        ..Entry::default()
                    })
                    .end(),
            )
        }),
        sized("a GNU long name of a gibibyte", |_| {
            let entry = Entry {
                name: "././@LongLink",
                kind: b'L',
                size: Some(b"10000000000\0"),
                ..Entry::default()
            };
            site(&Tar::new().entry(&entry).file("f", b"f").end())
        }),
        sized("a GNU long link of two mebibytes", |_| {
            let data = vec![b'a'; 2 << 20];
            let entry = Entry {
                name: "././@LongLink",
                kind: b'K',
                data: &data,
                ..Entry::default()
            };
            site(&Tar::new().entry(&entry).symlink("f", "f").end())
        }),
        sized("a hundred long names in a row", |_| {
            let entry = Entry {
                name: "././@LongLink",
                kind: b'L',
                data: b"n\0",
                ..Entry::default()
            };
            let tar = (0..100).fold(Tar::new(), |tar, _| tar.entry(&entry));
            site(&tar.file("f", b"f").end())
        }),
        sized("a PAX header of two mebibytes", |_| {
            let value = "v".repeat(2 << 20);
            site(&Tar::new().pax(&[("comment", &value)]).file("f", b"f").end())
        }),
        sized("a PAX record that is longer than its header", |_| {
            let entry = Entry {
                name: "PaxHeaders/x",
                kind: b'x',
                data: b"99999999999 path=x\n",
                ..Entry::default()
            };
            site(&Tar::new().entry(&entry).file("f", b"f").end())
        }),
        sized("a PAX size beyond the end", |_| {
            site(&Tar::new().pax(&[("size", "1099511627776")]).file("f", b"f").end())
        }),
        sized("a PAX size that is negative", |_| {
            site(&Tar::new().pax(&[("size", "-1")]).file("f", b"f").end())
        }),
        sized("a PAX path that climbs", |_| {
            site(
                &Tar::new()
                    .pax(&[("path", "../../../../evil")])
                    .file("f", b"f")
                    .end(),
            )
        })
        .works()
        .check(|ran| ran.has("evil", "f")),
        sized("a PAX path with a zero byte", |_| {
            site(&Tar::new().pax(&[("path", "a\0b")]).file("f", b"f").end())
        }),
        sized("a sparse file of an exabyte", |_| {
            let records = [
                ("GNU.sparse.size", "1152921504606846976"),
                ("GNU.sparse.map", "0,1"),
                ("GNU.sparse.numblocks", "1"),
            ];
            site(&Tar::new().pax(&records).file("f", b"f").end())
        }),
        sized("sparse regions that overlap", |_| {
            let records = [
                ("GNU.sparse.size", "10"),
                ("GNU.sparse.map", "5,3,0,3"),
                ("GNU.sparse.numblocks", "2"),
            ];
            site(&Tar::new().pax(&records).file("f", b"abcdef").end())
        }),
        sized("an owner beyond all numbers", |_| {
            let owner = [0x80, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff];
            site(
                &Tar::new()
                    .entry(&Entry {
                        name: "f",
                        owner: &owner,
                        ..Entry::default()
                    })
                    .end(),
            )
        }),
        sized("an owner that is nobody's number", |_| {
            site(&Tar::new().pax(&[("uid", "4294967295")]).file("f", b"f").end())
        }),
        sized("a time before all times", |_| {
            site(
                &Tar::new()
                    .pax(&[("mtime", "-9223372036854775808")])
                    .file("f", b"f")
                    .end(),
            )
        })
        .works(),
        sized("a header with a wrong sum", |_| {
            let mut tar = Tar::new().file("f", b"f").end();
            tar[0] ^= 1;
            site(&tar)
        }),
        sized("a tar that is cut", |_| {
            let tar = Tar::new().file("f", &[b'x'; 5000]).end();
            site(&tar[..2000])
        }),
        sized("an entry of an unknown kind", |_| {
            site(
                &Tar::new()
                    .entry(&Entry {
                        name: "f",
                        kind: b'Z',
                        ..Entry::default()
                    })
                    .end(),
            )
        }),
    ]
}

fn specials() -> Vec<Case> {
    vec![
        Case::of("device nodes", |_| {
            let tar = Tar::new().entry(&special(b'3'));
            site(
                &tar.entry(&Entry {
                    name: "disk",
                    kind: b'4',
                    device: (8, 0),
                    ..Entry::default()
                })
                .end(),
            )
        })
        .works(),
        Case::of("a device of impossible numbers", |_| {
            let entry = Entry {
                device: (0o7_777_777, 0o7_777_777),
                ..special(b'3')
            };
            site(&Tar::new().entry(&entry).end())
        }),
        Case::of("a whiteout as it is on disk", |_| {
            let entry = Entry {
                name: "f",
                kind: b'3',
                ..Entry::default()
            };
            two(
                &Tar::new().file("f", b"f").file("g", b"g").end(),
                &Tar::new().entry(&entry).end(),
            )
        })
        .works()
        .check(|ran| {
            let files = ran.files()?;
            ensure!(files.contains_key("g") && !files.contains_key("f"), "{files:?}");
            Ok(())
        }),
        Case::of("a pipe, then a file below it", |_| {
            site(&Tar::new().entry(&special(b'6')).file("special/f", b"x").end())
        }),
        Case::of("a pipe, then a file in its place", |_| {
            site(&Tar::new().entry(&special(b'6')).file("special", b"x").end())
        })
        .works()
        .check(|ran| ran.has("special", "x")),
        Case::of("a set-user-id file", |_| {
            site(
                &Tar::new()
                    .entry(&Entry {
                        name: "f",
                        data: b"f",
                        mode: 0o6755,
                        ..Entry::default()
                    })
                    .end(),
            )
        })
        .works(),
        Case::of("ten thousand directories", |_| {
            let tar = (0..10_000).fold(Tar::new(), |tar, number| {
                tar.directory(&format!("{}/d{number}", number % 100))
            });
            site(&tar.end())
        })
        .works(),
        Case::of("ten thousand implied directories", |_| {
            let tar = (0..250).fold(Tar::new(), |tar, number| {
                tar.file(&format!("{number}/{}f", "d/".repeat(45)), b"")
            });
            site(&tar.end())
        })
        .works(),
    ]
}
