//! A file tree as data.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file: its size, the sha256 of its bytes, and the inode that hard links share.
    File {
        /// Bytes.
        size: u64,
        /// Lower-case hex.
        sha256: String,
        /// A number that is the same for all names of one file, and for nothing else in this tree.
        inode: usize,
    },
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A character device.
    CharDevice(u32, u32),
    /// A block device.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// One path of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Modification time in whole seconds.
    pub mtime: u64,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A merged file tree: paths without a leading slash, the root left out.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// The nodes by path.
    pub nodes: BTreeMap<Vec<u8>, Node>,
}

impl Tree {
    /// The node at a path.
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path.trim_start_matches('/').as_bytes())
    }

    /// Removes a path and everything below it.
    pub fn remove(&mut self, path: &[u8]) {
        self.nodes.remove(path);
        self.remove_below(path);
    }

    /// Removes everything below a path; the empty path is the root.
    pub fn remove_below(&mut self, path: &[u8]) {
        self.nodes.retain(|candidate, _| !is_below(candidate, path));
    }

    /// One line a path: what the tree holds, without times.
    pub fn lines(&self, with_times: bool) -> BTreeMap<Vec<u8>, String> {
        let mut names_of_inode: BTreeMap<usize, &[u8]> = BTreeMap::new();
        let mut lines = BTreeMap::new();
        for (path, node) in &self.nodes {
            let mut line = String::new();
            let kind = match &node.kind {
                Kind::Directory => "dir",
                Kind::File { .. } => "file",
                Kind::Symlink(_) => "symlink",
                Kind::CharDevice(..) => "char",
                Kind::BlockDevice(..) => "block",
                Kind::Fifo => "fifo",
            };
            let _ = write!(
                line,
                "/{} {kind} {:04o} {}:{}",
                printable(path),
                node.mode,
                node.uid,
                node.gid
            );
            match &node.kind {
                Kind::File { size, sha256, inode } => {
                    let _ = write!(line, " {size} sha256:{}", &sha256[..16]);
                    let first = *names_of_inode.entry(*inode).or_insert(path);
                    if first != path {
                        let _ = write!(line, " hardlink=/{}", printable(first));
                    }
                }
                Kind::Symlink(target) => {
                    let _ = write!(line, " -> {}", printable(target));
                }
                Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => {
                    let _ = write!(line, " {major},{minor}");
                }
                Kind::Directory | Kind::Fifo => {}
            }
            for (name, value) in &node.xattrs {
                let _ = write!(line, " {}={}", printable(name), printable(value));
            }
            if with_times && node.kind != Kind::Directory {
                let _ = write!(line, " mtime={}", node.mtime);
            }
            lines.insert(path.clone(), line);
        }
        lines
    }

    /// What this tree has more, else or no longer than `base`: lines as of [`Tree::lines`], and `deleted /path` for
    /// the topmost paths that are gone.
    pub fn changes_since(&self, base: &Tree, with_times: bool) -> Vec<String> {
        let (old, new) = (base.lines(with_times), self.lines(with_times));
        let mut changes: Vec<String> = new
            .iter()
            .filter(|(path, line)| old.get(*path) != Some(line))
            .map(|(_, line)| line.clone())
            .collect();
        let gone: BTreeSet<&Vec<u8>> = old.keys().filter(|path| !new.contains_key(*path)).collect();
        for path in &gone {
            if !parent(path).is_some_and(|parent| gone.contains(&parent.to_vec())) {
                changes.push(format!("deleted /{}", printable(path)));
            }
        }
        changes.sort();
        changes
    }
}

/// The path of the directory that holds a path; none when that is the root.
pub fn parent(path: &[u8]) -> Option<&[u8]> {
    path.iter()
        .rposition(|byte| *byte == b'/')
        .map(|slash| &path[..slash])
}

/// Whether a path lies below a directory; the empty directory is the root.
fn is_below(path: &[u8], directory: &[u8]) -> bool {
    directory.is_empty()
        || (path.len() > directory.len() && path.starts_with(directory) && path[directory.len()] == b'/')
}

/// Bytes as one printable word.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            b' ' => text.push_str("\\x20"),
            b'\'' | b'"' => text.push(char::from(*byte)),
            _ => text.push_str(&std::ascii::escape_default(*byte).to_string()),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(sha256: &str, inode: usize) -> Node {
        let kind = Kind::File {
            size: 3,
            sha256: sha256.repeat(64),
            inode,
        };
        Node {
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: 7,
            xattrs: BTreeMap::new(),
        }
    }

    fn directory() -> Node {
        Node {
            kind: Kind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: 9,
            xattrs: BTreeMap::new(),
        }
    }

    fn tree(nodes: &[(&str, Node)]) -> Tree {
        Tree {
            nodes: nodes
                .iter()
                .map(|(path, node)| (path.as_bytes().to_vec(), node.clone()))
                .collect(),
        }
    }

    #[test]
    fn changes_name_new_changed_and_topmost_gone_paths() {
        let old = tree(&[
            ("a", directory()),
            ("a/x", file("a", 1)),
            ("a/y", file("b", 2)),
            ("keep", file("c", 3)),
        ]);
        let new = tree(&[("keep", file("d", 3)), ("new name", directory())]);
        assert_eq!(
            new.changes_since(&old, false),
            [
                "/keep file 0644 0:0 3 sha256:dddddddddddddddd",
                "/new\\x20name dir 0755 0:0",
                "deleted /a"
            ]
        );
    }

    #[test]
    fn hard_links_and_times_are_shown() {
        let linked = tree(&[("a", file("a", 5)), ("b", file("a", 5)), ("c", file("a", 6))]);
        let lines: Vec<String> = linked.lines(true).into_values().collect();
        assert_eq!(
            lines[1],
            "/b file 0644 0:0 3 sha256:aaaaaaaaaaaaaaaa hardlink=/a mtime=7"
        );
        assert!(!lines[2].contains("hardlink"));
    }

    #[test]
    fn remove_takes_only_what_is_below() {
        let mut names = tree(&[("a", directory()), ("a/x", directory()), ("ab", directory())]);
        names.remove(b"a");
        assert_eq!(names.nodes.len(), 1);
        assert!(names.get("/ab").is_some());
    }
}
