//! What goes into a step's key.
//!
//! Each vertex that does work has two keys over the same operation. They differ in how inputs count:
//!
//! | part | definition key | content key |
//! |---|---|---|
//! | format version, platform | yes | yes |
//! | operation and all its parameters | yes | yes |
//! | input: image | manifest digest | its layers' identities |
//! | source: file by HTTP | digest, name, server's time of it | as a copied file |
//! | source: git | commit, directory, submodules, whose time; with `.git` also reference, tag, remote | as copied files |
//! | input: another step's root | that step's definition key | its layers' identities |
//! | input: copied from another step | that step's definition key and the sources as written | the selected files, from listings |
//! | input: mounted from another step | that step's definition key and the source as written | the mounted files, from listings |
//! | input: mounted from a local directory | the mounted files | the mounted files |
//! | mounts: type, target, read-only, limits, modes and owners | yes | yes |
//! | cache mounts: id, namespace, sharing, contents | no | no |
//! | input: copied from a local directory | the selected files | the selected files |
//! | timestamps of files | no | no |
//! | names of stages, tags, positions in the file | no | no |
//! | proxy settings, jobs, progress, the CA bundle | no | no |
//! | host name, ulimits, `insecure`, names of extra hosts | when set | when set |
//! | addresses of extra hosts: where a machine is must not decide what is built | no | no |
//! | values of secrets, SSH agents and their keys: they are renewed, and keys are kept | no | no |
//! | memory, processors, `/dev/shm`, cgroup parent: they decide whether a step succeeds, not what it makes | no | no |
//!
//! A bind mount counts like a copy, by the selected part alone, since nothing of it can get out but through the step.
//! A cache mount must not decide what comes of a step, so nothing counts that only says which directory it is: two
//! steps that differ in the cache's id make the same layer. (BuildKit leaves these out, too.) What it begins with does
//! count, with its mode and owner.
//!
//! The definition key can be looked up before anything has run. The content key is tried when that misses
//! and the inputs are there: a step that was run again but made the same content lets all after it hit.

mod mount;

use kiln_cache::{Key, KeyPart, RecordKind};
use kiln_image::Platform;
use kiln_tree::{ContentHash, TreePath};

use crate::graph::{Copy, Exec, FileAction, FileOp, GitSource, HttpSource, Mount, NetworkMode, SecurityMode};

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

/// How what a copy or a mount takes counts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TakenIdentity {
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

    /// For what is the same on all platforms.
    fn for_all_platforms(operation: &str) -> Self {
        let mut builder = Self {
            domain: format!("{operation} definition"),
            parts: Vec::new(),
        };
        builder.part("version", KEY_VERSION);
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

    fn copy(&mut self, copy: &Copy, identity: Option<TakenIdentity>) {
        self.part("copy to", &copy.destination);
        self.part("copy owner", copy.owner.as_deref().unwrap_or("as in the source"));
        self.part("copy mode", copy.mode.as_deref().unwrap_or("as in the source"));
        self.part("copy unpacks archives", copy.unpack.to_string());
        match identity {
            Some(TakenIdentity::Files(hash)) => self.part("copy files", hash.to_string()),
            Some(TakenIdentity::Definition(key)) => {
                self.part("copy from", key.to_string());
                for source in &copy.sources {
                    // `/a`, `./a` and `a` are the same place.
                    let path = TreePath::clean(&source.pattern);
                    let path = path.map_or_else(|_| source.pattern.clone(), |path| path.to_string());
                    self.part("copy source", path);
                }
            }
            None => self.part("copy from", "nothing"),
        }
    }

    fn mount(&mut self, mount: &Mount, identity: Option<TakenIdentity>) {
        let name = format!("mount {}", mount.target);
        let access = if mount.read_only { "read-only" } else { "writable" };
        self.part(&name, format!("{} {access}", mount.kind.name()));
        for (detail, value) in mount::details(&mount.kind) {
            self.part(format!("{name} {detail}"), value);
        }
        match identity {
            Some(TakenIdentity::Files(hash)) => self.part(format!("{name} files"), hash.to_string()),
            Some(TakenIdentity::Definition(key)) => {
                self.part(format!("{name} from"), key.to_string());
                self.part(format!("{name} source"), mount::source(&mount.kind));
            }
            None => {}
        }
    }

    /// What a request may add to the surroundings of a process. What it does not add leaves the key as it is.
    fn surroundings(&mut self, exec: &Exec) {
        if exec.security == SecurityMode::Insecure {
            self.part("security", "insecure");
        }
        if let Some(hostname) = &exec.hostname {
            self.part("host name", hostname);
        }
        for host in &exec.extra_hosts {
            self.part("extra host", &host.name);
        }
        for limit in &exec.ulimits {
            let value = format!("{}:{}", limit.soft, limit.hard);
            self.part(format!("ulimit {}", limit.name), value);
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

/// The definition key of a file by HTTP. Its URL does not count: the same content under the same name is the same
/// file, wherever it comes from.
pub(crate) fn http(source: &HttpSource) -> (Key, Vec<KeyPart>) {
    let mut builder = KeyBuilder::for_all_platforms("http");
    builder.part("digest", source.digest.to_string());
    builder.part("name", &source.name);
    builder.part("mode", "600");
    let modified = source.modified.map(|seconds| seconds.to_string());
    builder.part("modified", modified.as_deref().unwrap_or("not known"));
    builder.finish()
}

/// The definition key of the files of a commit. The reference and the remote can be seen in a `.git` only.
pub(crate) fn git(source: &GitSource) -> (Key, Vec<KeyPart>) {
    let mut builder = KeyBuilder::for_all_platforms("git");
    builder.part("commit", &source.commit);
    builder.part("subdirectory", &source.subdirectory);
    builder.part("submodules", source.submodules.to_string());
    let times = if source.commit_time { "commit" } else { "checkout" };
    builder.part("times", times);
    if source.keeps_git_dir() {
        builder.part("git directory of", &source.remote);
        builder.part("reference", source.reference.as_deref().unwrap_or("none"));
        builder.part("tag", source.tag.as_deref().unwrap_or("none"));
    }
    builder.finish()
}

/// The definition key of an empty root.
pub(crate) fn scratch(platform: &Platform) -> Key {
    KeyBuilder::new("scratch", RecordKind::Definition, platform)
        .finish()
        .0
}

/// A key of a process's run. `network` is the mode after the request's default was filled in; `mounts` is by the
/// mount's position.
pub(crate) fn exec(
    kind: RecordKind,
    exec: &Exec,
    network: NetworkMode,
    platform: &Platform,
    root: RootIdentity,
    mounts: &[Option<TakenIdentity>],
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
    for (position, mount) in exec.mounts.iter().enumerate() {
        builder.mount(mount, mounts.get(position).copied().flatten());
    }
    builder.surroundings(exec);
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
    copies: &[Option<TakenIdentity>],
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
