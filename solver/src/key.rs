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
//! | input: copied from another step | that step's definition key | the selected files, from listings |
//! | input: copied from a local directory | the selected files | the selected files |
//! | timestamps of files | no | no |
//! | names of stages, tags, positions in the file | no | no |
//! | proxy settings, jobs, progress, the CA bundle | no | no |
//!
//! The definition key can be looked up before anything has run. The content key is tried when that misses
//! and the inputs are there: a step that was run again but made the same content lets all after it hit.

use kiln_cache::{Key, KeyPart};
use kiln_image::Platform;
use kiln_tree::ContentHash;

use crate::graph::{Exec, FileAction, FileOp, NetworkMode};

/// Raised when the meaning of any part changes, so that no record of an older version can hit.
const KEY_VERSION: &str = "1";

/// What is known of an input when a key is made.
#[derive(Debug, Clone, Copy)]
pub(crate) enum InputIdentity {
    /// The input's own definition key.
    Key(Key),
    /// The layers of the input's root, by what is in them.
    Root(ContentHash),
    /// The files that are selected from it.
    Files(ContentHash),
}

/// Collects the readable parts of a key.
#[derive(Debug)]
pub(crate) struct KeyBuilder {
    operation: &'static str,
    parts: Vec<KeyPart>,
}

impl KeyBuilder {
    fn new(operation: &'static str, platform: &Platform) -> Self {
        let mut builder = Self {
            operation,
            parts: Vec::new(),
        };
        builder.part("version", KEY_VERSION);
        builder.part("platform", platform.to_string());
        builder
    }

    fn part(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.parts.push(KeyPart::new(name, value));
    }

    fn inputs(&mut self, inputs: &[InputIdentity]) {
        for (slot, input) in inputs.iter().enumerate() {
            match input {
                InputIdentity::Key(key) => self.part(format!("input {slot}"), key.to_string()),
                InputIdentity::Root(hash) => self.part(format!("input {slot} root"), hash.to_string()),
                InputIdentity::Files(hash) => self.part(format!("input {slot} files"), hash.to_string()),
            }
        }
    }

    /// The key over all parts, and the parts.
    pub(crate) fn finish(self) -> (Key, Vec<KeyPart>) {
        (Key::of(self.operation, &self.parts), self.parts)
    }
}

/// The definition key of an image: its manifest digest alone.
pub(crate) fn image(digest: &kiln_image::Digest, platform: &Platform) -> Key {
    let mut builder = KeyBuilder::new("image", platform);
    builder.part("digest", digest.to_string());
    builder.finish().0
}

/// The definition key of an empty root.
pub(crate) fn scratch(platform: &Platform) -> Key {
    KeyBuilder::new("scratch", platform).finish().0
}

/// A key of a process's run. `network` is the mode after the request's default was filled in.
pub(crate) fn exec(
    exec: &Exec,
    network: NetworkMode,
    platform: &Platform,
    inputs: &[InputIdentity],
) -> (Key, Vec<KeyPart>) {
    let mut builder = KeyBuilder::new("exec", platform);
    for (position, argument) in exec.args.iter().enumerate() {
        builder.part(format!("argument {position}"), argument);
    }
    for variable in &exec.env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        builder.part(format!("env {name}"), value);
    }
    builder.part("working directory", &exec.cwd);
    builder.part("user", &exec.user);
    builder.part("network", format!("{network:?}").to_lowercase());
    for file in &exec.files {
        let content = ContentHash::of(&file.data);
        builder.part(
            format!("file {}", file.path),
            format!("{content} mode {:o}", file.mode),
        );
    }
    builder.inputs(inputs);
    builder.finish()
}

/// A key of a chain of file actions.
pub(crate) fn file(op: &FileOp, platform: &Platform, inputs: &[InputIdentity]) -> (Key, Vec<KeyPart>) {
    let mut builder = KeyBuilder::new("file", platform);
    for action in &op.actions {
        match action {
            FileAction::Copy(copy) => {
                builder.part("copy to", &copy.destination);
                // Sources count by what they select; only how many there are changes the outcome besides.
                builder.part("copy sources", copy.sources.len().to_string());
                builder.part("copy from input", copy.from.to_string());
                builder.part("copy owner", copy.owner.as_deref().unwrap_or("as in the source"));
                builder.part("copy mode", copy.mode.as_deref().unwrap_or("as in the source"));
                builder.part("copy unpacks archives", copy.unpack.to_string());
            }
            FileAction::MakeDirectory(make) => {
                builder.part("make directory", &make.path);
                builder.part("make directory mode", format!("{:o}", make.mode));
                builder.part("make directory owner", &make.owner);
            }
            FileAction::MakeFile(make) => {
                builder.part("make file", format!("{} named {}", make.destination, make.name));
                builder.part("make file content", ContentHash::of(&make.data).to_string());
                builder.part("make file mode", make.mode.as_deref().unwrap_or("644"));
                builder.part("make file owner", make.owner.as_deref().unwrap_or("root"));
            }
        }
    }
    builder.inputs(inputs);
    builder.finish()
}
