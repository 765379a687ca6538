//! Layer tars that aim outside, repeat themselves, or say what cannot be.

use crate::case::{Case, Command};
use kiln_e2e::crafted::{Crafted, Layer, Tar};
use kiln_e2e::hostile_registry::Site;

pub(crate) fn site(tar: &[u8]) -> Site {
    Crafted::of_tar(tar).site()
}

/// An image of two layers.
pub(crate) fn two(below: &[u8], above: &[u8]) -> Site {
    Crafted::new(&[Layer::of(below), Layer::of(above)]).site()
}

pub(crate) fn cases() -> Vec<Case> {
    [names(), links(), repeated(), whiteouts()].concat()
}

/// Names never lead out: they are taken as names below the root, as Docker does.
fn names() -> Vec<Case> {
    vec![
        Case::of("a name that climbs", |world| {
            site(
                &Tar::new()
                    .file(&world.climb("x")[60..], b"evil")
                    .file("f", b"f")
                    .end(),
            )
        })
        .works()
        .check(|ran| ran.has("f", "f")),
        Case::of("a short name that climbs", |_| {
            site(&Tar::new().file("../../../../../../evil", b"evil").end())
        })
        .works()
        .check(|ran| ran.has("evil", "evil")),
        Case::of("an absolute name", |world| {
            site(&Tar::new().file(&world.aim("x"), b"evil").end())
        })
        .works()
        .check(|ran| ran.has(ran.world.aim("x").trim_start_matches('/'), "evil")),
        Case::of("a name of dots", |_| site(&Tar::new().file("..", b"evil").end())),
        Case::of("an empty name", |_| site(&Tar::new().file("", b"evil").end())),
        Case::of("a directory named ..", |_| {
            site(&Tar::new().directory("../").file("f", b"f").end())
        })
        .works()
        .check(|ran| ran.has("f", "f")),
        Case::of("a name of 5000 bytes", |_| {
            site(&Tar::new().long_name(&"n/".repeat(2500)).end())
        }),
        Case::of("a component of 300 bytes", |_| {
            site(&Tar::new().long_name(&"n".repeat(300)).end())
        }),
        Case::of("a directory of 2000 levels", |_| {
            site(&Tar::new().long_name(&"n/".repeat(2000)).end())
        })
        .works(),
        Case::of("a name that wants to write to the terminal", |_| {
            site(
                &Tar::new()
                    .hard_link("\u{1b}[2Jx", "absent\r\nERROR: \u{9b}31m")
                    .end(),
            )
        }),
    ]
}

fn links() -> Vec<Case> {
    vec![
        Case::of("a write through an absolute symbolic link", |world| {
            let tar = Tar::new().symlink("l", &world.aim("dir"));
            site(&tar.file("l/kept", b"evil").file("l/new", b"evil").end())
        })
        .works()
        .check(|ran| {
            let dir = ran.world.aim("dir/new");
            ran.has(dir.trim_start_matches('/'), "evil")
        }),
        Case::of("a write through a climbing symbolic link", |_| {
            let tar = Tar::new().symlink("l", &format!("{}dir", "../".repeat(20)));
            site(&tar.file("l/new", b"evil").end())
        })
        .works()
        .check(|ran| ran.has("dir/new", "evil")),
        Case::of("a write through a symbolic link of the layer below", |world| {
            two(
                &Tar::new().symlink("l", &world.aim("dir")).end(),
                &Tar::new().file("l/kept", b"evil").end(),
            )
        })
        .works(),
        Case::of("a file in the place of a symbolic link", |world| {
            site(
                &Tar::new()
                    .symlink("l", &world.aim("kept"))
                    .file("l", b"own")
                    .end(),
            )
        })
        .works()
        .check(|ran| ran.has("l", "own")),
        Case::of("symbolic links in a circle", |_| {
            site(
                &Tar::new()
                    .symlink("a", "b")
                    .symlink("b", "a")
                    .file("a/f", b"x")
                    .end(),
            )
        }),
        Case::of("symbolic links that grow", |_| {
            let mut tar = Tar::new().directory("d0");
            for number in 1..60 {
                let before = format!("d{}", number - 1);
                tar = tar.symlink(&format!("d{number}"), &format!("{before}/../{before}"));
            }
            site(&tar.file("d59/f", b"x").end())
        }),
        Case::of("a hard link to a file outside", |world| {
            site(&Tar::new().hard_link("h", &world.aim("kept")).end())
        }),
        Case::of("a hard link that climbs", |_| {
            site(
                &Tar::new()
                    .hard_link("h", "../../../../../../../../etc/passwd")
                    .end(),
            )
        }),
        Case::of("a hard link through a symbolic link", |world| {
            site(
                &Tar::new()
                    .symlink("l", &world.aim(""))
                    .hard_link("h", "l/kept")
                    .end(),
            )
        }),
        Case::of("a hard link to nothing", |_| {
            site(&Tar::new().hard_link("h", "absent").end())
        }),
        Case::of("a hard link to itself", |_| {
            site(&Tar::new().hard_link("h", "h").end())
        }),
        Case::of("a hard link to a directory", |_| {
            site(&Tar::new().directory("d").hard_link("h", "d").end())
        }),
        Case::of(
            "a hard link to a symbolic link that leads out, then a write",
            |world| {
                let tar = Tar::new().symlink("l", &world.aim("kept")).hard_link("h", "l");
                site(&tar.file("h", b"own").end())
            },
        )
        .works()
        .check(|ran| ran.has("h", "own")),
        Case::of("a symbolic link without a target", |_| {
            site(&Tar::new().symlink("l", "").end())
        }),
        Case::of("a symbolic link of a long target", |_| {
            let target = "t/".repeat(3000);
            site(&Tar::new().pax(&[("linkpath", &target)]).symlink("l", "t").end())
        }),
        Case::of("a build that copies through a link that leads out", |world| {
            site(&Tar::new().symlink("l", &world.aim("dir")).end())
        })
        .runs(Command::Build("FROM @HOST@/app:1\nCOPY f /l/kept\n"))
        .works(),
        Case::of(
            "a build whose working directory is a link that leads out",
            |world| site(&Tar::new().symlink("l", &world.aim("dir")).end()),
        )
        .runs(Command::Build(
            "FROM @HOST@/app:1\nWORKDIR /l/made\nCOPY f kept\n",
        ))
        .works(),
        Case::of("a stage whose file is a link that leads out", |world| {
            site(&Tar::new().symlink("l", &world.aim("kept")).end())
        })
        .runs(Command::Build(
            "FROM @HOST@/app:1 AS a\nFROM scratch\nCOPY --from=a /l /f\n",
        )),
    ]
}

fn repeated() -> Vec<Case> {
    vec![
        Case::of("a file twice", |_| {
            site(&Tar::new().file("f", b"one").file("f", b"two").end())
        })
        .works()
        .check(|ran| ran.has("f", "two")),
        Case::of("a file, then a directory of its name", |_| {
            site(
                &Tar::new()
                    .file("f", b"one")
                    .directory("f")
                    .file("f/g", b"two")
                    .end(),
            )
        })
        .works()
        .check(|ran| ran.has("f/g", "two")),
        Case::of("a directory with files, then a file of its name", |_| {
            site(
                &Tar::new()
                    .directory("d")
                    .file("d/g", b"one")
                    .file("d", b"two")
                    .end(),
            )
        })
        .works()
        .check(|ran| ran.has("d", "two")),
        Case::of("a file below a file", |_| {
            site(&Tar::new().file("f", b"one").file("f/g", b"two").end())
        }),
        Case::of(
            "a directory, then a link of its name, then a file in it",
            |world| {
                let tar = Tar::new().directory("d").file("d/a", b"one");
                site(&tar.symlink("d", &world.aim("dir")).file("d/kept", b"evil").end())
            },
        )
        .works(),
        Case::of("the root as a file", |_| {
            site(&Tar::new().file("./", b"").file(".", b"x").end())
        }),
        Case::of("the root as a link that leads out", |world| {
            site(
                &Tar::new()
                    .symlink(".", &world.aim("dir"))
                    .file("kept", b"evil")
                    .end(),
            )
        }),
    ]
}

fn whiteouts() -> Vec<Case> {
    vec![
        Case::of("a whiteout of the parent", |_| {
            site(&Tar::new().file("d/.wh...", b"").end())
        }),
        Case::of("a whiteout of the directory itself", |_| {
            site(&Tar::new().file(".wh..", b"").end())
        }),
        Case::of("a whiteout of nothing", |_| {
            site(&Tar::new().file(".wh.", b"").end())
        }),
        Case::of("a file below a whiteout", |_| {
            site(&Tar::new().file(".wh.d/f", b"x").end())
        }),
        Case::of("a whiteout through a link that leads out", |world| {
            site(
                &Tar::new()
                    .symlink("l", &world.aim("dir"))
                    .file("l/.wh.kept", b"")
                    .end(),
            )
        })
        .works(),
        Case::of("an opaque root", |_| {
            two(
                &Tar::new().file("f", b"f").end(),
                &Tar::new().file(".wh..wh..opq", b"").end(),
            )
        }),
        Case::of("an opaque marker below a file", |_| {
            site(&Tar::new().file("f", b"x").file("f/.wh..wh..opq", b"").end())
        }),
        Case::of("an opaque marker that is a directory", |_| {
            two(
                &Tar::new().directory("d").file("d/f", b"f").end(),
                &Tar::new().directory("d").directory("d/.wh..wh..opq").end(),
            )
        })
        .works(),
        Case::of("an opaque marker through a link that leads out", |world| {
            site(
                &Tar::new()
                    .symlink("l", &world.aim("dir"))
                    .file("l/.wh..wh..opq", b"")
                    .end(),
            )
        })
        .works(),
        Case::of("bookkeeping of another file system", |_| {
            site(&Tar::new().file(".wh..wh.plnk/1.2", b"x").file("f", b"f").end())
        })
        .works()
        .check(|ran| ran.has("f", "f")),
        Case::of("attributes that steer the overlay", |_| {
            let redirect = [
                ("SCHILY.xattr.trusted.overlay.redirect", "/etc"),
                ("SCHILY.xattr.user.overlay.opaque", "y"),
            ];
            let below = Tar::new().directory("d").file("d/f", b"f").end();
            two(&below, &Tar::new().pax(&redirect).directory("d").end())
        })
        .works()
        .check(|ran| ran.has("d/f", "f")),
    ]
}
