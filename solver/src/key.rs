//! What goes into a step's key.
//!
//! Each vertex that does work has two keys over the same operation. They differ in how inputs count:
//!
//! | part | definition key | content key |
//! |---|---|---|
//! | format version, platform | yes | yes |
//! | operation and all its parameters | yes | yes |
//! | input: image | manifest digest | its layers' identities |
//! | input: another step's root | that step's definition key | its layers' identities |
//! | input: copied from another step | that step's definition key and the sources as written | the selected files, from listings |
//! | input: copied from a local directory | the selected files | the selected files |
//! | timestamps of files | no | no |
//! | names of stages, tags, positions in the file | no | no |
//! | proxy settings, jobs, progress, the CA bundle | no | no |
//!
//! A merge has only a definition key, over those of its inputs: its result is a list of theirs, which is never looked
//! up. What stands on it counts the layers themselves.
//!
//! The definition key can be looked up before anything has run. The content key is tried when that misses
//! and the inputs are there: a step that was run again but made the same content lets all after it hit.

use kiln_cache::{Key, KeyPart, RecordKind};
use kiln_image::Platform;
use kiln_tree::{ContentHash, TreePath};

use crate::graph::{Copy, Exec, FileAction, FileOp, NetworkMode};

/// Raised when the meaning of any part changes, so that no record of an older version can hit.
const KEY_VERSION: &str = "2";

/// How the root file system that a step works on counts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RootIdentity {
    /// By the definition key of the vertex that makes it.
    Definition(Key),
    /// By the identities of its layers.
    Content(ContentHash),
}

/// How what a copy takes counts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CopyIdentity {
    /// By the definition key of the vertex that it is taken from, and the sources as written.
    Definition(Key),
    /// By the files that are selected.
    Files(ContentHash),
}

/// Collects the readable parts of a key.
#[derive(Debug)]
struct KeyBuilder {
    domain: String,
    parts: Vec<KeyPart>,
}

impl KeyBuilder {
    /// Keys of different operations or kinds never meet: their domains differ.
    fn new(operation: &str, kind: RecordKind, platform: &Platform) -> Self {
        let kind = match kind {
            RecordKind::Definition => "definition",
            RecordKind::Content => "content",
        };
        let mut builder = Self {
            domain: format!("{operation} {kind}"),
            parts: Vec::new(),
        };
        builder.part("version", KEY_VERSION);
        builder.part("platform", platform.to_string());
        builder
    }

    fn part(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.parts.push(KeyPart::new(name, value));
    }

    fn root(&mut self, root: RootIdentity) {
        match root {
            RootIdentity::Definition(key) => self.part("base", key.to_string()),
            RootIdentity::Content(hash) => self.part("base content", hash.to_string()),
        }
    }

    fn copy(&mut self, copy: &Copy, identity: Option<CopyIdentity>) {
        self.part("copy to", &copy.destination);
        self.part("copy owner", copy.owner.as_deref().unwrap_or("as in the source"));
        self.part("copy mode", copy.mode.as_deref().unwrap_or("as in the source"));
        self.part("copy unpacks archives", copy.unpack.to_string());
        match identity {
            Some(CopyIdentity::Files(hash)) => self.part("copy files", hash.to_string()),
            Some(CopyIdentity::Definition(key)) => {
                self.part("copy from", key.to_string());
                for source in &copy.sources {
                    // `/a`, `./a` and `a` are the same place.
                    let path = TreePath::clean(&source.pattern);
                    let path = path.map_or_else(|_| source.pattern.clone(), |path| path.to_string());
                    self.part("copy source", path);
                    if let Some(below) = &source.below {
                        self.part("copy source below", below);
                    }
                }
                // Where the files themselves count, what was left out does not.
                for pattern in &copy.exclude {
                    self.part("copy exclude", pattern);
                }
            }
            None => self.part("copy from", "nothing"),
        }
    }

    /// The key over all parts, and the parts.
    fn finish(self) -> (Key, Vec<KeyPart>) {
        (Key::of(&self.domain, &self.parts), self.parts)
    }
}

/// The definition key of an image: its manifest digest alone.
pub(crate) fn image(digest: &kiln_image::Digest, platform: &Platform) -> Key {
    let mut builder = KeyBuilder::new("image", RecordKind::Definition, platform);
    builder.part("digest", digest.to_string());
    builder.finish().0
}

/// The definition key of an empty root.
pub(crate) fn scratch(platform: &Platform) -> Key {
    KeyBuilder::new("scratch", RecordKind::Definition, platform)
        .finish()
        .0
}

/// The definition key of a merge, from those of its inputs, by slot.
pub(crate) fn merge(platform: &Platform, inputs: &[Key]) -> (Key, Vec<KeyPart>) {
    let mut builder = KeyBuilder::new("merge", RecordKind::Definition, platform);
    for (slot, input) in inputs.iter().enumerate() {
        builder.part(format!("input {slot}"), input.to_string());
    }
    builder.finish()
}

/// A key of a process's run. `network` is the mode after the request's default was filled in.
pub(crate) fn exec(
    kind: RecordKind,
    exec: &Exec,
    network: NetworkMode,
    platform: &Platform,
    root: RootIdentity,
) -> (Key, Vec<KeyPart>) {
    let mut builder = KeyBuilder::new("exec", kind, platform);
    builder.root(root);
    for (position, argument) in exec.args.iter().enumerate() {
        builder.part(format!("argument {position}"), argument);
    }
    for variable in &exec.env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        builder.part(format!("env {name}"), value);
    }
    builder.part("working directory", &exec.cwd);
    builder.part("user", &exec.user);
    builder.part("network", network_name(network));
    for file in &exec.files {
        let content = ContentHash::of(&file.data);
        builder.part(
            format!("file {}", file.path),
            format!("{content} mode {:o}", file.mode),
        );
    }
    builder.finish()
}

/// Spelled out: renaming a variant must not change keys.
fn network_name(network: NetworkMode) -> &'static str {
    match network {
        NetworkMode::Default => "default",
        NetworkMode::Host => "host",
        NetworkMode::None => "none",
    }
}

/// A key of a chain of file actions. `copies` is by the action's position.
pub(crate) fn file(
    kind: RecordKind,
    op: &FileOp,
    platform: &Platform,
    root: RootIdentity,
    copies: &[Option<CopyIdentity>],
) -> (Key, Vec<KeyPart>) {
    let mut builder = KeyBuilder::new("file", kind, platform);
    builder.root(root);
    for (position, action) in op.actions.iter().enumerate() {
        match action {
            FileAction::Copy(copy) => builder.copy(copy, copies.get(position).copied().flatten()),
            FileAction::MakeDirectory(make) => {
                builder.part("make directory", &make.path);
                builder.part("make directory mode", format!("{:o}", make.mode));
                builder.part("make directory owner", &make.owner);
            }
            FileAction::MakeFile(make) => {
                builder.part("make file", &make.destination);
                builder.part("make file name", &make.name);
                builder.part("make file content", ContentHash::of(&make.data).to_string());
                builder.part("make file mode", make.mode.as_deref().unwrap_or("644"));
                builder.part("make file owner", make.owner.as_deref().unwrap_or("root"));
            }
        }
    }
    builder.finish()
}

#[cfg(test)]
mod tests;
