//! `RUN --mount`: what is mounted over the root while the command runs.

use std::collections::BTreeMap;

use kiln_parser::Diagnostic;
use kiln_parser::ast::{self, MountSpec};
use kiln_solver::graph::{Mount, MountKind, Sharing};

use super::Context;
use crate::path;
use crate::stage::{Line, Origin};
use crate::state::StageState;
use crate::step::{Input, source_span};

/// The build argument that keeps cache mounts of equal ids apart.
const CACHE_NAMESPACE: &str = "BUILDKIT_CACHE_MOUNT_NS";

/// Where secrets lie that say no target.
const SECRETS: &str = "/run/secrets";
/// Where sockets of SSH agents lie that say no target; their number comes after it.
const SSH_AGENT: &str = "/run/buildkit/ssh_agent.";

/// Bits of a secret file when the mount does not say.
const SECRET_MODE: u32 = 0o400;
/// Bits of an agent's socket when the mount does not say.
const SSH_MODE: u32 = 0o600;

/// The mounts of a RUN, by ascending target, and the inputs that they read, from slot 1 on.
pub(super) fn lower(
    mounts: &[ast::Mount],
    line: &Line<'_>,
    stage: &StageState,
    context: Context<'_>,
) -> Result<(Vec<Mount>, Vec<Input>), Diagnostic> {
    // By target: of several mounts at one place the last counts, and a mount comes after what it lies in.
    let mut files: BTreeMap<String, (Mount, Option<Input>)> = BTreeMap::new();
    // Secrets that become variables alone have no place.
    let mut variables = Vec::new();
    let mut agents = 0;
    for (position, mount) in mounts.iter().enumerate() {
        let spec: MountSpec =
            mount.resolve(|word| context.expander.word(word, &stage.environment).map_err(Error))?;
        let origin = line.mounts.get(position).and_then(Option::as_ref);
        if let MountSpec::Cache {
            source: Some(source), ..
        } = &spec
            && origin.is_none()
            && !path::source_pattern(source).is_empty()
        {
            return Err(
                Diagnostic::error(mount.span, "a cache mount takes source only together with from")
                    .hint("without from it begins empty; a subdirectory of a cache mount cannot be mounted"),
            );
        }
        let (target, kind, read_only, input) = kind(spec, origin, &mut agents, context);
        let target = path::resolve(stage.workdir(), &target);
        let mount = Mount {
            target: target.clone(),
            kind,
            read_only,
            span: Some(source_span(line.locate(mount.span))),
        };
        if matches!(mount.kind, MountKind::Secret { file: false, .. }) {
            variables.push(Mount {
                target: String::new(),
                ..mount
            });
            continue;
        }
        if target == "/" {
            return Err(
                Diagnostic::error(mounts[position].span, "invalid mount target \"/\"")
                    .hint("say where to mount it: target=<path>"),
            );
        }
        files.insert(target, (mount, input));
    }
    let mut inputs = Vec::new();
    let mut lowered = variables;
    for (mut mount, input) in files.into_values() {
        if let Some(input) = input {
            inputs.push(input);
            set_input(&mut mount.kind, inputs.len());
        }
        lowered.push(mount);
    }
    Ok((lowered, inputs))
}

/// An error of the parser's or of the expansion.
struct Error(Diagnostic);

impl From<ast::MountError> for Error {
    fn from(error: ast::MountError) -> Self {
        Self(Diagnostic {
            hint: error.hint,
            ..Diagnostic::error(error.span, error.message)
        })
    }
}

impl From<Error> for Diagnostic {
    fn from(error: Error) -> Self {
        error.0
    }
}

/// The target as written, the kind with an input slot that is set later, whether it is read-only, and the input.
fn kind(
    spec: MountSpec,
    origin: Option<&Origin>,
    agents: &mut usize,
    context: Context<'_>,
) -> (String, MountKind, bool, Option<Input>) {
    match spec {
        MountSpec::Bind {
            target,
            source,
            read_write,
            ..
        } => {
            let kind = MountKind::Bind {
                input: 0,
                source: path::source_pattern(source.as_deref().unwrap_or_default()),
            };
            (target, kind, !read_write, Some(Input::from_origin(origin)))
        }
        MountSpec::Cache {
            target,
            id,
            sharing,
            source,
            mode,
            uid,
            gid,
            read_only,
            ..
        } => {
            let kind = MountKind::Cache {
                namespace: context
                    .options
                    .build_arg(CACHE_NAMESPACE)
                    .unwrap_or_default()
                    .to_owned(),
                // As written: a relative target gives the same id in every working directory, as with Docker.
                id: id.unwrap_or_else(|| path::clean(&target)),
                sharing: match sharing {
                    ast::Sharing::Shared => Sharing::Shared,
                    ast::Sharing::Private => Sharing::Private,
                    ast::Sharing::Locked => Sharing::Locked,
                },
                input: None,
                source: path::source_pattern(source.as_deref().unwrap_or_default()),
                mode,
                uid,
                gid,
            };
            // Without `from` it begins empty; the build context is no default here.
            (
                target,
                kind,
                read_only,
                origin.map(|origin| Input::from_origin(Some(origin))),
            )
        }
        MountSpec::Tmpfs { target, size } => (target, MountKind::Tmpfs { size }, false, None),
        MountSpec::Secret {
            id,
            target,
            env,
            required,
            mode,
            uid,
            gid,
        } => {
            let file = target.is_some() || env.is_none();
            let name = id.rsplit('/').find(|name| !name.is_empty()).unwrap_or(&id);
            let target = target.unwrap_or_else(|| format!("{SECRETS}/{name}"));
            let kind = MountKind::Secret {
                id,
                environment: env,
                file,
                required,
                mode: mode.unwrap_or(SECRET_MODE),
                uid: uid.unwrap_or(0),
                gid: gid.unwrap_or(0),
            };
            (target, kind, true, None)
        }
        MountSpec::Ssh {
            id,
            target,
            required,
            mode,
            uid,
            gid,
        } => {
            let target = target.unwrap_or_else(|| format!("{SSH_AGENT}{agents}"));
            *agents += 1;
            let kind = MountKind::Ssh {
                id: id.unwrap_or_else(|| "default".to_owned()),
                required,
                mode: mode.unwrap_or(SSH_MODE),
                uid: uid.unwrap_or(0),
                gid: gid.unwrap_or(0),
            };
            (target, kind, true, None)
        }
    }
}

fn set_input(kind: &mut MountKind, slot: usize) {
    match kind {
        MountKind::Bind { input, .. } => *input = slot,
        MountKind::Cache { input, .. } => *input = Some(slot),
        MountKind::Tmpfs { .. } | MountKind::Secret { .. } | MountKind::Ssh { .. } => {}
    }
}
