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

#[cfg(test)]
mod tests {
    use kiln_solver::graph::{Mount, MountKind, Op, Sharing};

    use crate::testing::{FakeResolver, last_op, lower_with, lowered, messages, options};

    /// The mounts of the last RUN.
    fn mounts(text: &str) -> Vec<Mount> {
        match last_op(&lowered(text)) {
            Op::Exec(exec) => exec.mounts.clone(),
            other => panic!("{other:?} is no process"),
        }
    }

    fn targets(mounts: &[Mount]) -> Vec<&str> {
        mounts.iter().map(|mount| mount.target.as_str()).collect()
    }

    #[test]
    fn targets_are_absolute_sorted_and_unique() {
        let text = "FROM busybox\nWORKDIR /w\nRUN --mount=target=b/c --mount=type=tmpfs,target=b \
                    --mount=type=tmpfs,target=/a --mount=target=/x/../a/ --mount=target=../b y\n";
        let mounts = mounts(text);
        assert_eq!(targets(&mounts), ["/a", "/b", "/w/b", "/w/b/c"]);
        assert_eq!(mounts[0].kind.name(), "bind", "the last of two counts");
        // Slots in the order of the mounts, without that of the mount that was replaced.
        let slots: Vec<_> = mounts.iter().map(|mount| mount.kind.input()).collect();
        assert_eq!(slots, [Some(1), Some(2), None, Some(3)]);
    }

    #[test]
    fn a_cache_is_called_as_written_and_begins_empty() {
        let text = "FROM busybox\nWORKDIR /w\nRUN --mount=type=cache,target=./c//d/ --mount=type=cache,target=/x,id=i,\
                    sharing=locked,mode=0700,uid=1,gid=2,ro y\n";
        let mut options = options();
        options
            .build_args
            .insert("BUILDKIT_CACHE_MOUNT_NS".to_owned(), Some("team".to_owned()));
        let lowered = lower_with(text, &options, &FakeResolver::new([])).unwrap();
        let Op::Exec(exec) = last_op(&lowered) else {
            panic!("no process")
        };
        let cache = |id: &str, sharing, mode, uid, gid| MountKind::Cache {
            namespace: "team".to_owned(),
            id: id.to_owned(),
            sharing,
            input: None,
            source: String::new(),
            mode,
            uid,
            gid,
        };
        assert_eq!(targets(&exec.mounts), ["/w/c/d", "/x"]);
        assert_eq!(
            exec.mounts[0].kind,
            cache("c/d", Sharing::Shared, None, None, None)
        );
        let other = cache("i", Sharing::Locked, Some(0o700), Some(1), Some(2));
        assert_eq!((&exec.mounts[1].kind, exec.mounts[1].read_only), (&other, true));
        assert!(lowered.contexts.is_empty(), "the context is not needed");
    }

    #[test]
    fn binds_are_read_only_unless_they_say_otherwise() {
        for (options, read_only) in [
            ("", true),
            (",rw", false),
            (",ro", true),
            (",rw=false", true),
            (",readonly=false", false),
            (",ro,rw", false),
        ] {
            let mounts = mounts(&format!("FROM busybox\nRUN --mount=target=/t{options} x\n"));
            assert_eq!(mounts[0].read_only, read_only, "{options}");
        }
    }

    #[test]
    fn secrets_and_agents_have_places_of_their_own() {
        let text = "FROM busybox\nRUN --mount=type=secret,id=dir/a --mount=type=secret,id=b,env=B \
                    --mount=type=ssh --mount=type=ssh,id=x --mount=type=secret,id=c,target=/c,env=C y\n";
        let mounts = mounts(text);
        let expected = [
            "",
            "/c",
            "/run/buildkit/ssh_agent.0",
            "/run/buildkit/ssh_agent.1",
            "/run/secrets/a",
        ];
        assert_eq!(targets(&mounts), expected);
        let as_file = |mount: &Mount| matches!(mount.kind, MountKind::Secret { file: true, .. });
        assert_eq!((as_file(&mounts[0]), as_file(&mounts[1])), (false, true));
    }

    #[test]
    fn what_cannot_be_mounted_is_told_with_its_place() {
        for (mount, message) in [
            ("target=/", "invalid mount target \"/\""),
            ("target=a/..", "invalid mount target \"/\""),
            ("type=tmpfs", "invalid mount target \"/\""),
            (
                "type=cache,target=/c,source=x",
                "a cache mount takes source only together with from",
            ),
            (
                "target=/t,from=later",
                "cannot mount from stage \"later\": it needs stage 0, so that neither can be built first",
            ),
            ("target=/t,from=7", "there is no stage 7"),
        ] {
            let text =
                format!("FROM busybox\nRUN --mount={mount} x\nFROM busybox AS later\nCOPY --from=0 / /\n");
            assert_eq!(messages(&text), [message], "{mount}");
        }
    }
}
