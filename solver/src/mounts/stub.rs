//! Mountpoints that leave no trace in the layer.
//!
//! A mount needs a file or directory to cover. Where the root has none, one made there would become a part of the
//! layer, and taking it away again would leave the directories above as changed. So missing mountpoints lie in a
//! layer of their own, below all others; and those inside a bind mount below what is bound.

use std::collections::VecDeque;
use std::path::Path;

use kiln_cache::{Snapshot, TempDir};
use kiln_tree::Root;
use kiln_tree::root::FileType;

use crate::error::StepFailure;
use crate::solve::Solve;

/// As many symlinks as Linux follows in one path.
const MAX_SYMLINKS: u32 = 40;

/// A mountpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point<'a> {
    /// Absolute path in the sandbox, or one below what is bound, with a leading slash.
    pub(super) target: &'a str,
    /// A directory, else a file.
    pub(super) directory: bool,
}

impl Point<'_> {
    /// Whether `other` lies below this.
    fn holds(&self, other: &Point<'_>) -> bool {
        other
            .target
            .strip_prefix(self.target)
            .is_some_and(|rest| rest.starts_with('/'))
    }
}

/// The mountpoints that lie in the root itself, not in another mount.
pub(super) fn outside<'a>(points: &[Point<'a>]) -> Vec<Point<'a>> {
    let nested = |point: &Point<'_>| points.iter().any(|outer| outer.holds(point));
    points.iter().filter(|point| !nested(point)).copied().collect()
}

/// The mountpoints that lie in the mount at `outer` and in no other one between, relative to it.
pub(super) fn inside<'a>(points: &[Point<'a>], outer: &Point<'_>) -> Vec<Point<'a>> {
    let between = |point: &Point<'_>| {
        points
            .iter()
            .any(|other| outer.holds(other) && other.holds(point))
    };
    points
        .iter()
        .filter(|point| outer.holds(point) && !between(point))
        .map(|point| Point {
            target: &point.target[outer.target.len()..],
            ..*point
        })
        .collect()
}

impl Solve<'_> {
    /// A layer with those of `points` that `base` lacks; `None` when it lacks nothing.
    pub(super) fn stub_layer(
        &self,
        base: &Snapshot,
        points: &[Point<'_>],
    ) -> Result<Option<TempDir>, StepFailure> {
        let root = self.roots.readable(base)?;
        let mut missing = Vec::new();
        for point in points {
            missing.extend(missing_path(&root, point.target)?.map(|path| (path, point.directory)));
        }
        if missing.is_empty() {
            return Ok(None);
        }
        let folder = self.engine.store.temp().dir()?;
        for (path, directory) in missing {
            make(folder.path(), &path, directory)?;
        }
        Ok(Some(folder))
    }
}

/// Makes a mountpoint at `path` below `folder`.
pub(super) fn make(folder: &Path, path: &[u8], directory: bool) -> Result<(), StepFailure> {
    let stub = Root::open(folder)?;
    if directory {
        stub.create_dir_all(path, 0o755, None)?;
        return Ok(());
    }
    if let Some(parent) = path.iter().rposition(|&byte| byte == b'/') {
        stub.create_dir_all(&path[..parent], 0o755, None)?;
    }
    stub.create_file(path, 0o644)?;
    Ok(())
}

/// Where in `root` the mountpoint `target` has to be made: its path with all symlinks resolved, inside the root.
/// `None` when it exists, or cannot be made (which the sandbox reports, with its reason).
fn missing_path(root: &Root, target: &str) -> Result<Option<Vec<u8>>, StepFailure> {
    let split = |path: &[u8]| -> Vec<Vec<u8>> {
        path.split(|&byte| byte == b'/')
            .filter(|name| !matches!(*name, b"" | b"."))
            .map(<[u8]>::to_vec)
            .collect()
    };
    let mut rest: VecDeque<Vec<u8>> = split(target.as_bytes()).into();
    let mut at: Vec<Vec<u8>> = Vec::new();
    let mut symlinks = 0;
    let mut missing = false;
    while let Some(name) = rest.pop_front() {
        if name == b".." {
            at.pop();
            continue;
        }
        at.push(name);
        let path = at.join(&b'/');
        match root.lstat_opt(&path)?.map(|metadata| metadata.file_type) {
            None => missing = true,
            Some(FileType::Symlink) => {
                symlinks += 1;
                if symlinks > MAX_SYMLINKS {
                    return Ok(None);
                }
                at.pop();
                let link = root.read_link(&path)?;
                if link.first() == Some(&b'/') {
                    at.clear();
                }
                for name in split(&link).into_iter().rev() {
                    rest.push_front(name);
                }
            }
            Some(FileType::Directory) => missing = false,
            // A file on the way.
            Some(_) if !rest.is_empty() => return Ok(None),
            Some(_) => missing = false,
        }
    }
    Ok(missing.then(|| at.join(&b'/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(target: &str) -> Point<'_> {
        Point {
            target,
            directory: true,
        }
    }

    #[test]
    fn mountpoints_belong_to_the_innermost_mount_around_them() {
        let targets = ["/a", "/a/b", "/a/b/c/d", "/ab", "/a/e/f"].map(point);
        let names = |points: Vec<Point<'_>>| points.iter().map(|p| p.target.to_owned()).collect::<Vec<_>>();
        assert_eq!(names(outside(&targets)), ["/a", "/ab"]);
        assert_eq!(names(inside(&targets, &targets[0])), ["/b", "/e/f"]);
        assert_eq!(names(inside(&targets, &targets[1])), ["/c/d"]);
        assert!(inside(&targets, &targets[2]).is_empty());
    }

    #[test]
    fn missing_places_are_found_behind_symlinks_and_never_outside() {
        let folder = std::env::temp_dir().join(format!("kiln-stub-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("var/lib")).unwrap();
        std::fs::create_dir_all(folder.join("run")).unwrap();
        std::fs::write(folder.join("file"), "").unwrap();
        std::os::unix::fs::symlink("/run", folder.join("var/run")).unwrap();
        std::os::unix::fs::symlink("../../../../etc", folder.join("out")).unwrap();
        std::os::unix::fs::symlink("loop", folder.join("loop")).unwrap();
        let root = Root::open(&folder).unwrap();
        let missing = |target: &str| {
            missing_path(&root, target)
                .unwrap()
                .map(|path| String::from_utf8(path).unwrap())
        };
        for (target, expected) in [
            ("/var/lib", None),
            ("/var/lib/x/y", Some("var/lib/x/y")),
            ("/var/run/x", Some("run/x")),
            ("/out/x", Some("etc/x")),
            ("/loop/x", None),
            ("/file", None),
            ("/file/x", None),
        ] {
            assert_eq!(missing(target).as_deref(), expected, "{target}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
