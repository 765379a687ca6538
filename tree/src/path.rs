//! `TreePath`: a path inside a tree, in canonical form.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// A relative path inside a tree: components joined by `/`, no leading or trailing slash, no empty, `.` or `..`
/// component, no NUL. The empty path is the tree's root.
///
/// Paths are ordered component by component, so that everything below a directory directly follows it.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct TreePath(Box<[u8]>);

/// Why some bytes are not a [`TreePath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It starts or ends with a slash or has two in a row.
    #[error("path has an empty component")]
    EmptyComponent,
    /// It has a `.` or `..` component.
    #[error("path has a `.` or `..` component")]
    DotComponent,
    /// It has a NUL byte.
    #[error("path has a NUL byte")]
    Nul,
}

impl TreePath {
    /// The path of the tree's root.
    pub fn root() -> Self {
        Self::default()
    }

    /// Takes `bytes` that are a canonical path already.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        if bytes.contains(&0) {
            return Err(PathError::Nul);
        }
        if !bytes.is_empty() {
            for component in bytes.split(|&b| b == b'/') {
                match component {
                    b"" => return Err(PathError::EmptyComponent),
                    b"." | b".." => return Err(PathError::DotComponent),
                    _ => {}
                }
            }
        }
        Ok(Self(bytes.into_boxed_slice()))
    }

    /// Brings any path into canonical form by its text alone: `//`, `.` and slashes at either end vanish, and `..`
    /// removes the component before it but never leads above the root. Fails only for a NUL byte.
    pub fn clean(bytes: impl AsRef<[u8]>) -> Result<Self, PathError> {
        let bytes = bytes.as_ref();
        if bytes.contains(&0) {
            return Err(PathError::Nul);
        }
        let mut kept: Vec<&[u8]> = Vec::new();
        for component in bytes.split(|&b| b == b'/') {
            match component {
                b"" | b"." => {}
                b".." => drop(kept.pop()),
                name => kept.push(name),
            }
        }
        Ok(Self(kept.join(&b'/').into_boxed_slice()))
    }

    /// The path as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as a `Path`, for the system's own interfaces.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Whether this is the tree's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// This path followed by `other`.
    #[must_use]
    pub fn join(&self, other: &TreePath) -> Self {
        if self.is_root() {
            return other.clone();
        }
        if other.is_root() {
            return self.clone();
        }
        self.push_unchecked(&other.0)
    }

    /// This path followed by one more component.
    pub fn join_name(&self, name: impl AsRef<[u8]>) -> Result<Self, PathError> {
        let name = name.as_ref();
        match name {
            b"" => Err(PathError::EmptyComponent),
            b"." | b".." => Err(PathError::DotComponent),
            _ if name.contains(&b'/') => Err(PathError::EmptyComponent),
            _ if name.contains(&0) => Err(PathError::Nul),
            _ => Ok(self.push_unchecked(name)),
        }
    }

    /// As [`Self::join_name`] for a name that the kernel gave as a directory's entry.
    pub(crate) fn push_unchecked(&self, name: &[u8]) -> Self {
        if self.is_root() {
            return Self(name.into());
        }
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        bytes.push(b'/');
        bytes.extend_from_slice(name);
        Self(bytes.into_boxed_slice())
    }

    /// The directory that holds this path; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|&b| b == b'/').unwrap_or(0);
        Some(Self(self.0[..end].into()))
    }

    /// The last component; `None` for the root.
    pub fn file_name(&self) -> Option<&[u8]> {
        self.0
            .rsplit(|&b| b == b'/')
            .next()
            .filter(|name| !name.is_empty())
    }

    /// The components, from the root downwards.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|name| !name.is_empty())
    }

    /// All directories above this path, nearest first, without the root.
    pub fn ancestors(&self) -> impl Iterator<Item = TreePath> {
        std::iter::successors(self.parent(), TreePath::parent).take_while(|path| !path.is_root())
    }

    /// Whether this path is `ancestor` or lies below it.
    pub fn starts_with(&self, ancestor: &TreePath) -> bool {
        self.strip(ancestor).is_some()
    }

    /// This path as seen from `ancestor`; `None` when it does not lie there.
    pub fn strip_prefix(&self, ancestor: &TreePath) -> Option<Self> {
        self.strip(ancestor).map(|rest| Self(rest.into()))
    }

    fn strip(&self, ancestor: &TreePath) -> Option<&[u8]> {
        if ancestor.is_root() {
            return Some(&self.0);
        }
        let rest = self.0.strip_prefix(&*ancestor.0)?;
        if rest.is_empty() {
            Some(rest)
        } else {
            rest.strip_prefix(b"/")
        }
    }
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> Ordering {
        // As bytes, but `/` sorts before everything else: so `a/b` comes before `a-b`.
        let at = shared_length(&self.0, &other.0);
        match (self.0.get(at), other.0.get(at)) {
            (Some(&a), Some(&b)) => {
                let weight = |byte: u8| if byte == b'/' { 0 } else { byte };
                weight(a).cmp(&weight(b))
            }
            _ => self.0.len().cmp(&other.0.len()),
        }
    }
}

/// How many bytes are the same at the start. Paths in a sorted map share most of theirs, up to 4 KiB in deep trees, so
/// they are compared many at a time.
fn shared_length(a: &[u8], b: &[u8]) -> usize {
    const STEP: usize = 32;
    let (a_steps, b_steps) = (a.as_chunks::<STEP>().0, b.as_chunks::<STEP>().0);
    let whole = STEP * a_steps.iter().zip(b_steps).take_while(|(a, b)| a == b).count();
    let rest = a[whole..].iter().zip(&b[whole..]);
    whole + rest.take_while(|(a, b)| a == b).count()
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl AsRef<[u8]> for TreePath {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<Path> for TreePath {
    fn as_ref(&self) -> &Path {
        self.as_path()
    }
}

impl TryFrom<&str> for TreePath {
    type Error = PathError;

    fn try_from(text: &str) -> Result<Self, PathError> {
        Self::new(text)
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    #[test]
    fn only_canonical_paths_are_taken() {
        for good in ["", "a", "a/b", "...", ".a", "a..", " ", "a\nb", "ü/é"] {
            assert_eq!(path(good).as_bytes(), good.as_bytes());
        }
        for (bad, reason) in [
            ("/", PathError::EmptyComponent),
            ("/a", PathError::EmptyComponent),
            ("a/", PathError::EmptyComponent),
            ("a//b", PathError::EmptyComponent),
            (".", PathError::DotComponent),
            ("a/./b", PathError::DotComponent),
            ("..", PathError::DotComponent),
            ("a/..", PathError::DotComponent),
            ("a\0b", PathError::Nul),
        ] {
            assert_eq!(TreePath::new(bad), Err(reason), "{bad:?}");
        }
    }

    #[test]
    fn cleaning_never_leaves_the_root() {
        for (from, to) in [
            ("", ""),
            ("/", ""),
            (".", ""),
            ("..", ""),
            ("/../../a", "a"),
            ("a/../../b", "b"),
            ("./a//b/./c/", "a/b/c"),
            ("a/b/../..", ""),
            ("a/b/../../c/..d", "c/..d"),
        ] {
            assert_eq!(TreePath::clean(from).unwrap(), path(to), "{from}");
        }
        assert_eq!(TreePath::clean("a\0"), Err(PathError::Nul));
    }

    #[test]
    fn parts() {
        let deep = path("a/b/c");
        assert_eq!(deep.parent(), Some(path("a/b")));
        assert_eq!(path("a").parent(), Some(TreePath::root()));
        assert_eq!(TreePath::root().parent(), None);
        assert_eq!(deep.file_name(), Some(&b"c"[..]));
        assert_eq!(TreePath::root().file_name(), None);
        assert_eq!(deep.components().collect::<Vec<_>>(), [b"a", b"b", b"c"]);
        assert_eq!(TreePath::root().components().count(), 0);
        assert_eq!(deep.ancestors().collect::<Vec<_>>(), [path("a/b"), path("a")]);
        assert_eq!(path("a").join(&path("b/c")), deep);
        assert_eq!(deep.join(&TreePath::root()), deep);
        assert_eq!(TreePath::root().join(&deep), deep);
        assert_eq!(path("a/b").join_name("c"), Ok(deep.clone()));
        for bad in ["", ".", "..", "a/b", "a\0"] {
            assert!(deep.join_name(bad).is_err(), "{bad:?}");
        }
        assert!(deep.starts_with(&path("a/b")) && deep.starts_with(&deep) && deep.starts_with(&path("")));
        assert!(!path("ab").starts_with(&path("a")) && !path("a").starts_with(&path("a/b")));
        assert_eq!(deep.strip_prefix(&path("a")), Some(path("b/c")));
        assert_eq!(deep.strip_prefix(&path("b")), None);
    }

    proptest! {
        #[test]
        fn order_is_that_of_the_components(
            shared in "[a/]{0,90}", a in "[a!/\u{1}é]{0,8}", b in "[a!/\u{1}é]{0,8}",
        ) {
            let (a, b) = (shared.clone() + &a, shared + &b);
            let (a, b) = (TreePath::clean(a).unwrap(), TreePath::clean(b).unwrap());
            prop_assert_eq!(a.cmp(&b), a.components().cmp(b.components()));
        }

        #[test]
        fn cleaning_gives_canonical_paths(bytes in proptest::collection::vec(prop::sample::select(&b"a./\xff"[..]), 0..12)) {
            let clean = TreePath::clean(&bytes).unwrap();
            prop_assert_eq!(TreePath::new(clean.as_bytes()), Ok(clean.clone()));
            prop_assert_eq!(TreePath::clean(&clean).unwrap(), clean);
        }
    }
}
