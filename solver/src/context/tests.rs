use std::sync::Arc;
use std::sync::Mutex;

use kiln_tree::walk::{Decision, HashMemory, StatKey, WalkPolicy};
use kiln_tree::{ContentHash, TreePath};

use super::{
    ContextError, ContextPolicy, ContextView, LocalContext, LocalKind, similar, similar_names, why_hidden,
};
use crate::graph::CopySource;
use crate::narrow::Want;
use crate::testing::{TempDir, path};

/// Hides paths, and what is below them, by name.
#[derive(Debug)]
struct Hiding(&'static [&'static str]);

impl WalkPolicy for Hiding {
    fn decide(&self, path: &TreePath, _is_dir: bool) -> Decision {
        if self.why_excluded(path).is_some() {
            Decision::Prune
        } else {
            Decision::Include
        }
    }
}

impl ContextPolicy for Hiding {
    fn why_excluded(&self, path: &TreePath) -> Option<String> {
        let rule = self.0.iter().position(|name| path.to_string() == *name)?;
        Some(format!("ignore:{}", rule + 1))
    }
}

/// Remembers which files were read.
#[derive(Default)]
struct Recording(Mutex<Vec<String>>);

impl HashMemory for Recording {
    fn recall(&self, _path: &TreePath, _key: &StatKey) -> Option<ContentHash> {
        None
    }

    fn remember(&self, path: &TreePath, _key: &StatKey, _content: ContentHash) {
        self.0.lock().expect("the lock").push(path.to_string());
    }
}

fn local(folder: &TempDir, hidden: &'static [&'static str]) -> LocalContext {
    LocalContext {
        title: "the build context".to_owned(),
        kind: LocalKind::Directory,
        directory: folder.path().to_owned(),
        policy: Arc::new(Hiding(hidden)),
    }
}

/// What a context is seen to hold, and which files were read for it.
fn view(folder: &TempDir, hidden: &'static [&'static str], patterns: &[&str]) -> (Vec<String>, Vec<String>) {
    let wants: Vec<Want> = patterns
        .iter()
        .map(|text| TreePath::clean(text).expect("a path").into())
        .collect();
    view_of(folder, hidden, &wants)
}

fn view_of(folder: &TempDir, hidden: &'static [&'static str], wants: &[Want]) -> (Vec<String>, Vec<String>) {
    let context = local(folder, hidden);
    let memory = Recording::default();
    let root = context.open().expect("the context");
    let view = ContextView::read(&context, root, wants, &memory).expect("a view");
    assert!(
        view.listing
            .entries()
            .iter()
            .all(|entry| (entry.uid, entry.gid) == (0, 0))
    );
    let mut read = memory.0.into_inner().expect("the lock");
    read.sort();
    (
        view.listing
            .entries()
            .iter()
            .map(|entry| entry.path.to_string())
            .collect(),
        read,
    )
}

#[test]
fn only_what_patterns_reach_is_read() {
    let folder = TempDir::new();
    for path in [
        "a.txt",
        "b.txt",
        "src/main.c",
        "src/deep/x.c",
        "src/deep/y.h",
        "docs/a.txt",
    ] {
        folder.write(path, path);
    }
    let table: &[(&[&str], &[&str])] = &[
        (&[], &[]),
        (&["a.txt"], &["a.txt"]),
        (&["*.txt"], &["a.txt", "b.txt"]),
        (&["src"], &["src/deep/x.c", "src/deep/y.h", "src/main.c"]),
        (&["src/*/*.c"], &["src/deep/x.c"]),
        (&["src/deep/../main.c"], &["src/main.c"]),
        (&["*/a.txt", "b.txt"], &["b.txt", "docs/a.txt"]),
        (&["nothing", "no/thing"], &[]),
        (&["a.txt/below"], &[]),
        (&["["], &[]),
        (
            &["."],
            &[
                "a.txt",
                "b.txt",
                "docs/a.txt",
                "src/deep/x.c",
                "src/deep/y.h",
                "src/main.c",
            ],
        ),
    ];
    for (patterns, expected) in table {
        let (seen, read) = view(&folder, &[], patterns);
        assert_eq!(read, *expected, "{patterns:?}");
        // Directories above are listed, other files are not.
        assert!(
            expected.iter().all(|path| seen.iter().any(|seen| seen == path)),
            "{patterns:?}: {seen:?}"
        );
        let files = seen.iter().filter(|seen| seen.contains('.')).count();
        assert_eq!(files, expected.len(), "{patterns:?}: {seen:?}");
    }
}

/// Sources, each a directory and after a `|` the pattern below it; what is excluded; what is read.
type Narrowing = (
    &'static [&'static str],
    &'static [&'static str],
    &'static [&'static str],
);

#[test]
fn what_copies_leave_out_is_not_read() {
    let folder = TempDir::new();
    for path in [
        "a/x.c",
        "a/x.o",
        "a/deep/y.c",
        "a/deep/y.o",
        "b/x.c",
        "keep.o",
        "z.c",
    ] {
        folder.write(path, path);
    }
    folder.symlink("to_a", "a");
    folder.symlink("named.c", "keep.o");
    let table: &[Narrowing] = &[
        (&["a"], &["**/*.o"], &["a/deep/y.c", "a/x.c"]),
        (&["a"], &["deep"], &["a/x.c", "a/x.o"]),
        (&["a"], &["*", "!deep/y.c"], &["a/deep/y.c"]),
        (&["to_a"], &["*.c", "deep"], &["a/x.o"]),
        (&["."], &["a", "b"], &["keep.o", "z.c"]),
        // By the name as it is written.
        (&["named.c"], &["*.o"], &["keep.o"]),
        (&["|a/deep"], &[], &["a/deep/y.c", "a/deep/y.o"]),
        (&["|**/*.c"], &[], &["a/deep/y.c", "a/x.c", "b/x.c", "z.c"]),
        (&["|*/x.c"], &["b"], &["a/x.c"]),
        (&["a|deep/y.*"], &["**/*.o"], &["a/deep/y.c"]),
        (&["to_a|x.c"], &[], &["a/x.c"]),
        (&["|none/x", "z.c"], &[], &["z.c"]),
    ];
    for (sources, exclude, expected) in table {
        let exclude: Vec<String> = exclude.iter().map(|&pattern| pattern.to_owned()).collect();
        let want = |source: &&str| {
            let (pattern, below) = match source.split_once('|') {
                Some((pattern, below)) => (pattern, Some(below.to_owned())),
                None => (*source, None),
            };
            let source = CopySource {
                pattern: pattern.to_owned(),
                below,
                span: None,
            };
            Want::of(&source, &exclude).expect("patterns")
        };
        let wants: Vec<Want> = sources.iter().map(want).collect();
        let (_, read) = view_of(&folder, &[], &wants);
        assert_eq!(read, *expected, "{sources:?} without {exclude:?}");
    }
    // What another copy takes is read all the same.
    let mut wants = vec![Want::from(path("a/x.o"))];
    let source = CopySource {
        pattern: "a".to_owned(),
        ..CopySource::default()
    };
    wants.extend(Want::of(&source, &["**/*.o".to_owned()]));
    assert_eq!(view_of(&folder, &[], &wants).1, ["a/deep/y.c", "a/x.c", "a/x.o"]);
}

#[test]
fn symlinks_draw_in_what_they_point_at() {
    let folder = TempDir::new();
    for path in ["real/file", "real/other", "deep/down/x", "lone", "odd*name/z"] {
        folder.write(path, path);
    }
    folder.symlink("to_file", "real/file");
    folder.symlink("to_dir", "real");
    folder.symlink("chain", "to_file");
    folder.symlink("absolute", "/real/file");
    folder.symlink("outside", "../../../../real/file");
    folder.symlink("loop", "loop");
    folder.symlink("dangling", "none");
    folder.symlink("jump", "deep/down");
    folder.symlink("climb", "jump/../down/x");
    folder.symlink("odd", "odd*name");
    folder.symlink("deep/up", "../lone");
    let table: &[(&str, &[&str])] = &[
        ("to_file", &["real/file"]),
        ("to_dir/file", &["real/file"]),
        ("to_dir", &["real/file", "real/other"]),
        ("to_fi*", &["real/file"]),
        // Wildcards do not lead through symlinks.
        ("to_d*/f*", &[]),
        ("chain", &["real/file"]),
        ("absolute", &["real/file"]),
        ("outside", &["real/file"]),
        ("climb", &["deep/down/x"]),
        ("odd/z", &["odd*name/z"]),
        ("loop", &[]),
        ("dangling", &[]),
        ("*/up", &["lone"]),
        // Below a copied directory, links stay links.
        ("deep", &["deep/down/x"]),
    ];
    for (pattern, expected) in table {
        let (_, read) = view(&folder, &[], &[pattern]);
        assert_eq!(read, *expected, "{pattern}");
    }
}

#[test]
fn hidden_paths_are_not_looked_at() {
    let folder = TempDir::new();
    for path in ["kept", "secret/key", "src/a"] {
        folder.write(path, path);
    }
    folder.symlink("src/way", "../secret/key");
    let (_, read) = view(&folder, &["secret"], &["."]);
    assert_eq!(read, ["kept", "src/a"]);
    assert_eq!(view(&folder, &["secret"], &["src/way"]).1, [""; 0]);
    assert_eq!(view(&folder, &["secret"], &["secret/key"]).1, [""; 0]);
}

#[test]
fn a_missing_source_is_explained() {
    let folder = TempDir::new();
    for path in ["app.py", "secret/key", "src/main.c"] {
        folder.write(path, path);
    }
    let context = local(&folder, &["other", "secret", "app.pyc"]);
    let root = context.open().expect("the context");
    assert_eq!(
        why_hidden(&context, &root, &path("secret/key")).as_deref(),
        Some("ignore:2")
    );
    assert_eq!(
        why_hidden(&context, &root, &path("app.pyc")),
        None,
        "a rule hides nothing that is not there"
    );
    assert_eq!(why_hidden(&context, &root, &path("app.py")), None);
    assert_eq!(similar_names(&context, &root, &path("App.yp")), ["app.py"]);
    assert_eq!(similar_names(&context, &root, &path("src/main.cc")), ["main.c"]);
    assert_eq!(
        similar_names(&context, &root, &path("secrt")),
        [""; 0],
        "what is hidden is no help"
    );
    assert_eq!(similar_names(&context, &root, &path("none/x")), [""; 0]);
    assert_eq!(
        similar(b"ab", ["zz", "x"].iter()),
        [""; 0],
        "short names resemble nothing"
    );
}

#[test]
fn a_context_that_is_not_there_is_named() {
    let folder = TempDir::new();
    let context = LocalContext {
        directory: folder.path().join("none"),
        ..local(&folder, &[])
    };
    assert!(
        matches!(context.open(), Err(ContextError::Open { directory, .. }) if directory.ends_with("none"))
    );
}
