//! Lowering in tests: images that exist only in memory, and a text form of what comes out.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use kiln_cache::LayerId;
use kiln_image::{Config, Digest, History, ImageConfig, Platform, Reference};
use kiln_parser::{Diagnostic, LineIndex};
use kiln_remote::git::GitAddress;
use kiln_solver::graph::{
    Exec, FileAction, GitSource, HttpSource, ImageSource, Op, Source, SourceLayer, SourceSpan, Vertex,
};

use crate::{
    ContextImage, ImageLocation, ImageResolver, LowerOptions, Lowered, RemoteFailure, RemoteResolver,
    ResolveError, ResolveErrorKind, ResolvedImage, lower,
};

/// What a made-up image is like.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FakeImage {
    /// Number of layers.
    pub(crate) layers: usize,
    /// `os/architecture[/variant]`; the one asked for when empty.
    pub(crate) platform: String,
    /// Variables.
    pub(crate) env: Vec<String>,
    /// Triggers.
    pub(crate) onbuild: Vec<String>,
    /// Default command.
    pub(crate) cmd: Vec<String>,
    /// Entry point.
    pub(crate) entrypoint: Vec<String>,
    /// User.
    pub(crate) user: String,
    /// Working directory.
    pub(crate) workdir: String,
    /// Shell.
    pub(crate) shell: Vec<String>,
    /// Labels.
    pub(crate) labels: BTreeMap<String, String>,
}

/// Resolves from a table, and remembers what it was asked.
#[derive(Debug, Default)]
pub(crate) struct FakeResolver {
    images: BTreeMap<String, FakeImage>,
    asked: Mutex<Vec<String>>,
}

impl FakeResolver {
    /// Knows `busybox` and these, by familiar name.
    pub(crate) fn new(images: impl IntoIterator<Item = (String, FakeImage)>) -> Self {
        let busybox = FakeImage {
            layers: 1,
            env: vec!["PATH=/bin".to_owned()],
            cmd: vec!["sh".to_owned()],
            ..FakeImage::default()
        };
        let mut table = BTreeMap::from([("busybox".to_owned(), busybox)]);
        table.extend(images);
        let images = table
            .into_iter()
            .map(|(name, image)| (Reference::parse(&name).unwrap().to_string(), image))
            .collect();
        Self {
            images,
            asked: Mutex::default(),
        }
    }

    /// The images that were asked for, sorted, each as often as it was.
    pub(crate) fn asked(&self) -> Vec<String> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        asked.sort();
        asked
    }
}

impl FakeResolver {
    fn ask(&self, source: &str) -> Result<(), RemoteFailure> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.push(source.to_owned());
        if source.contains("missing") {
            return Err(RemoteFailure {
                message: format!("failed to download {source}"),
                hint: None,
            });
        }
        Ok(())
    }
}

/// Has everything but what is called `missing`.
impl RemoteResolver for FakeResolver {
    fn http(
        &self,
        url: &str,
        checksum: Option<Digest>,
        _name: &str,
        _span: Option<SourceSpan>,
    ) -> Result<HttpSource, RemoteFailure> {
        self.ask(url)?;
        Ok(HttpSource {
            url: url.to_owned(),
            digest: checksum.unwrap_or_else(|| Digest::sha256_of(url.as_bytes())),
            name: kiln_remote::http::file_name(url),
            modified: None,
            fresh: false,
        })
    }

    fn git(
        &self,
        address: &GitAddress,
        _name: &str,
        _span: Option<SourceSpan>,
    ) -> Result<GitSource, RemoteFailure> {
        self.ask(&address.remote)?;
        Ok(GitSource {
            remote: address.remote.clone(),
            commit: "0".repeat(40),
            subdirectory: address.subdirectory.clone(),
            keep_git_dir: address.keep_git_dir.unwrap_or(false),
            submodules: address.submodules.unwrap_or(true),
            ..GitSource::default()
        })
    }
}

impl ImageResolver for FakeResolver {
    fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        _span: Option<SourceSpan>,
    ) -> Result<ResolvedImage, ResolveError> {
        self.find(reference.to_string(), platform)
    }

    fn resolve_context(
        &self,
        image: &ContextImage,
        platform: &Platform,
        _span: Option<SourceSpan>,
    ) -> Result<ResolvedImage, ResolveError> {
        match &image.location {
            ImageLocation::Registry(reference) => self.find(reference.to_string(), platform),
            ImageLocation::Layout(layout) => {
                let name = Reference::parse(&layout.path.to_string_lossy()).unwrap();
                self.find(name.to_string(), platform)
            }
        }
    }
}

impl FakeResolver {
    fn find(&self, name: String, platform: &Platform) -> Result<ResolvedImage, ResolveError> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(name.clone());
        let fake = self.images.get(&name).ok_or_else(|| {
            ResolveError::new(
                ResolveErrorKind::NotFound,
                "manifest unknown (asked as anonymous)",
            )
        })?;
        let platform = if fake.platform.is_empty() {
            platform.clone()
        } else {
            fake.platform.parse().unwrap()
        };
        Ok(resolved(name, fake, platform))
    }
}

fn resolved(name: String, fake: &FakeImage, platform: Platform) -> ResolvedImage {
    let digest = |what: &str| Digest::sha256_of(format!("{name} {what}").as_bytes());
    let layer = |number: usize| {
        let diff_id = digest(&format!("layer {number}"));
        SourceLayer {
            layer: LayerId::from_diff_id(&diff_id),
            diff_id,
            blob: None,
        }
    };
    let layers: Vec<SourceLayer> = (0..fake.layers).map(layer).collect();
    let mut config = ImageConfig {
        created: Some("2020-01-01T00:00:00Z".to_owned()),
        config: Config {
            env: fake.env.clone(),
            on_build: fake.onbuild.clone(),
            cmd: fake.cmd.clone(),
            entrypoint: fake.entrypoint.clone(),
            user: fake.user.clone(),
            working_dir: fake.workdir.clone(),
            shell: fake.shell.clone(),
            labels: fake.labels.clone(),
            ..Config::default()
        },
        history: vec![
            History {
                created_by: Some(format!("base {name}")),
                ..History::default()
            };
            fake.layers
        ],
        ..ImageConfig::default()
    };
    config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
    config.set_platform(&platform);
    let digest = digest("manifest");
    ResolvedImage {
        source: ImageSource {
            reference: name,
            digest,
            layers,
        },
        config,
        platform,
    }
}

/// Options for linux/amd64.
pub(crate) fn options() -> LowerOptions {
    LowerOptions::new("linux/amd64".parse().unwrap())
}

/// Lowers a text that has no syntax error, with the default options and images.
pub(crate) fn lower_text(text: &str) -> Result<Lowered, Vec<Diagnostic>> {
    lower_with(text, &options(), &FakeResolver::new([]))
}

/// Lowers a text that has no syntax error.
pub(crate) fn lower_with(
    text: &str,
    options: &LowerOptions,
    resolver: &FakeResolver,
) -> Result<Lowered, Vec<Diagnostic>> {
    let parsed = kiln_parser::parse(text.as_bytes());
    let errors: Vec<_> = parsed
        .diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.is_error())
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    lower(&parsed.dockerfile, options, None, resolver)
}

/// Lowers a text that is right.
pub(crate) fn lowered(text: &str) -> Lowered {
    lower_text(text).unwrap_or_else(|errors| panic!("{}", dump_diagnostics(text, &errors)))
}

/// Lowers a text that is wrong, and gives the messages.
pub(crate) fn messages(text: &str) -> Vec<String> {
    let errors = lower_text(text).expect_err("the text is wrong");
    errors.into_iter().map(|error| error.message).collect()
}

/// The history that the file itself made, each entry with `-` before it when it has no layer.
pub(crate) fn history(lowered: &Lowered) -> Vec<String> {
    let own = lowered
        .config
        .history
        .iter()
        .filter(|entry| entry.comment.is_some());
    own.map(|entry| {
        let mark = if entry.empty_layer { "- " } else { "" };
        format!("{mark}{}", entry.created_by.as_deref().unwrap_or_default())
    })
    .collect()
}

/// The vertices of what the target needs, in order.
pub(crate) fn vertices(lowered: &Lowered) -> Vec<&Vertex> {
    let order = lowered.graph.order(&[lowered.target]);
    order.into_iter().filter_map(|id| lowered.graph.get(id)).collect()
}

/// The names of the vertices of what the target needs, digests shortened.
pub(crate) fn names(lowered: &Lowered) -> Vec<String> {
    vertices(lowered)
        .into_iter()
        .map(|vertex| shorten_digests(&vertex.name))
        .collect()
}

/// The last vertex's operation.
pub(crate) fn last_op(lowered: &Lowered) -> &Op {
    &lowered
        .graph
        .get(lowered.target)
        .expect("the target is in the graph")
        .op
}

/// Everything that came out, as text.
pub(crate) fn dump(lowered: &Lowered) -> String {
    let mut out = String::new();
    let stage = lowered.target_stage.as_deref().unwrap_or("-");
    let contexts: Vec<&str> = lowered.contexts.iter().map(String::as_str).collect();
    writeln!(out, "stage {stage}, contexts [{}]", contexts.join(" ")).unwrap();
    let order = lowered.graph.order(&[lowered.target]);
    for id in &order {
        let vertex = lowered.graph.get(*id).unwrap();
        let input = |input| order.iter().position(|id| *id == input).unwrap().to_string();
        let inputs: Vec<String> = lowered.graph.inputs(*id).into_iter().map(input).collect();
        let number = order.iter().position(|other| other == id).unwrap();
        write!(out, "\n#{number} {}", vertex.name).unwrap();
        write!(out, "\n   {} <- [{}]", vertex.platform, inputs.join(" ")).unwrap();
        writeln!(
            out,
            "{}",
            if vertex.ignore_cache {
                ", ignoring the cache"
            } else {
                ""
            }
        )
        .unwrap();
        dump_op(&mut out, &vertex.op);
    }
    let mut config = lowered.config.clone();
    let history = std::mem::take(&mut config.history);
    writeln!(out, "\n{}\n", serde_json::to_string_pretty(&config).unwrap()).unwrap();
    for entry in history {
        let kind = if entry.empty_layer { "     " } else { "layer" };
        writeln!(out, "{kind} {:?}", entry.created_by.unwrap_or_default()).unwrap();
    }
    for unused in &lowered.unused_build_args {
        writeln!(
            out,
            "unused build argument {} ({:?})",
            unused.name, unused.suggestion
        )
        .unwrap();
    }
    shorten_digests(&out)
}

fn dump_op(out: &mut String, op: &Op) {
    match op {
        Op::Source(Source::Scratch) => writeln!(out, "   scratch"),
        Op::Source(Source::Image(image)) => {
            writeln!(
                out,
                "   image {}@{}, {} layers",
                image.reference,
                image.digest,
                image.layers.len()
            )
        }
        Op::Source(Source::Local(local)) => writeln!(out, "   local {}", local.name),
        Op::Source(Source::Http(http)) => writeln!(out, "   http {} as {}", http.url, http.name),
        Op::Source(Source::Git(git)) => {
            writeln!(out, "   git {}#{}:{}", git.remote, git.commit, git.subdirectory)
        }
        Op::Merge => writeln!(out, "   merge"),
        Op::Exec(exec) => dump_exec(out, exec),
        Op::File(file) => file
            .actions
            .iter()
            .try_for_each(|action| dump_action(out, action)),
    }
    .unwrap();
}

fn dump_exec(out: &mut String, exec: &Exec) -> std::fmt::Result {
    writeln!(out, "   exec {:?}", exec.args)?;
    writeln!(
        out,
        "   in {} as {:?}, network {:?}",
        exec.cwd, exec.user, exec.network
    )?;
    writeln!(out, "   env {:?} unkeyed {:?}", exec.env, exec.unkeyed_env)?;
    exec.files.iter().try_for_each(|file| {
        let data = String::from_utf8_lossy(&file.data);
        writeln!(out, "   file {} {:o} {data:?}", file.path, file.mode)
    })?;
    exec.mounts.iter().try_for_each(|mount| {
        let read_only = if mount.read_only { ", read-only" } else { "" };
        writeln!(out, "   mount {:?}{read_only}: {:?}", mount.target, mount.kind)
    })
}

fn dump_action(out: &mut String, action: &FileAction) -> std::fmt::Result {
    match action {
        FileAction::Copy(copy) => {
            let sources: Vec<&str> = copy
                .sources
                .iter()
                .map(|source| source.pattern.as_str())
                .collect();
            let mut rest = if copy.unpack { ", unpacking" } else { "" }.to_owned();
            for source in &copy.sources {
                if let Some(below) = &source.below {
                    write!(rest, ", below {below:?}")?;
                }
            }
            if !copy.exclude.is_empty() {
                write!(rest, ", without {:?}", copy.exclude)?;
            }
            let (from, to, owner, mode) = (copy.from, &copy.destination, &copy.owner, &copy.mode);
            writeln!(
                out,
                "   copy {from}:{sources:?} to {to:?}, owner {owner:?}, mode {mode:?}{rest}"
            )
        }
        FileAction::MakeDirectory(make) => {
            writeln!(
                out,
                "   mkdir {:?} {:o}, owner {:?}",
                make.path, make.mode, make.owner
            )
        }
        FileAction::MakeFile(make) => writeln!(
            out,
            "   mkfile {:?} in {:?}, owner {:?}, mode {:?}: {:?}",
            make.name,
            make.destination,
            make.owner,
            make.mode,
            String::from_utf8_lossy(&make.data)
        ),
    }
}

/// Diagnostics with their places as text.
pub(crate) fn dump_diagnostics(text: &str, diagnostics: &[Diagnostic]) -> String {
    let index = LineIndex::new(text.as_bytes());
    let place = |span: kiln_parser::Span| {
        let at = index.position(text.as_bytes(), span.start);
        format!(
            "{}:{} {:?}",
            at.line,
            at.column,
            text.get(span.start..span.end).unwrap_or("?")
        )
    };
    let mut out = String::new();
    for diagnostic in diagnostics {
        let severity = diagnostic.rule.unwrap_or("error");
        writeln!(
            out,
            "{severity}: {}\n  at {}",
            diagnostic.message,
            place(diagnostic.span)
        )
        .unwrap();
        for related in &diagnostic.related {
            writeln!(out, "  {}: {}", place(related.span), related.message).unwrap();
        }
        if let Some(hint) = &diagnostic.hint {
            writeln!(out, "  hint: {hint}").unwrap();
        }
    }
    out
}

/// Digests cut to six digits, so that lines stay readable.
fn shorten_digests(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("sha256:") {
        let (before, digest) = rest.split_at(start);
        let hex = digest["sha256:".len()..]
            .bytes()
            .take_while(u8::is_ascii_hexdigit)
            .count();
        out.push_str(before);
        out.push_str(&digest[.."sha256:".len() + hex.min(6)]);
        rest = &digest["sha256:".len() + hex..];
    }
    out + rest
}
