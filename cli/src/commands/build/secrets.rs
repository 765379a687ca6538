//! `--secret` and `--ssh`: what the request lends to steps.

use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use kiln_solver::ssh::{AgentSource, SshAgents};
use kiln_solver::{MAX_SECRET_BYTES, SecretSource, Secrets};

use super::fields::fields;
use crate::config::Environment;
use crate::report::{self, Failure};

/// The variable that names the user's agent.
const SSH_SOCKET: &str = "SSH_AUTH_SOCK";

/// The secrets of all `--secret`.
pub(super) fn secrets(environment: &Environment, values: &[String]) -> Result<Secrets, Failure> {
    let sources = values.iter().map(|value| secret(environment, value));
    Ok(Secrets::new(sources.collect::<Result<Vec<_>, _>>()?))
}

/// What one `--secret` says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Spec {
    id: String,
    file: Option<String>,
    variable: Option<String>,
}

fn secret(environment: &Environment, text: &str) -> Result<(String, SecretSource), Failure> {
    let Spec { id, file, variable } = spec(text)?;
    let source = match (file, variable) {
        (Some(file), _) => from_file(&id, Path::new(&file))?,
        (None, Some(variable)) => from_variable(environment, &id, &variable),
        // A variable of that name comes before a file of that name.
        (None, None) if environment.get_raw(&id).is_some() => from_variable(environment, &id, &id),
        (None, None) => {
            let file = Path::new(&id);
            if !file.exists() {
                let message = format!("--secret {text}: there is neither a variable nor a file of that name");
                return Err(Failure::message(message).hint("say where it is: src=FILE or env=NAME"));
            }
            from_file(&id, file)?
        }
    };
    Ok((id, source))
}

fn spec(text: &str) -> Result<Spec, Failure> {
    let wrong = |what: String| Failure::usage(format!("--secret {text}: {what}"));
    let (mut spec, mut kind) = (Spec::default(), None);
    for (key, value) in fields("--secret", text)? {
        match key.as_str() {
            "id" => spec.id = value,
            "src" | "source" => spec.file = Some(value).filter(|value| !value.is_empty()),
            "env" => spec.variable = Some(value).filter(|value| !value.is_empty()),
            "type" if value == "env" || value == "file" => kind = Some(value),
            "type" => {
                return Err(wrong(format!("unsupported secret type {value:?}")).hint("it is file or env"));
            }
            _ => {
                let hint = "--secret takes id, src (or source), env and type";
                return Err(wrong(format!("unexpected key '{key}'")).hint(hint));
            }
        }
    }
    if spec.id.is_empty() {
        return Err(wrong("the id is missing".to_owned()).hint("write --secret id=ID,src=FILE"));
    }
    if spec.file.is_some() && spec.variable.is_some() {
        return Err(wrong("it takes src or env, not both".to_owned()));
    }
    match kind.as_deref() {
        // `src` names a variable then; without one, the id does.
        Some("env") => {
            let id = spec.id.clone();
            spec.variable = spec.variable.or(spec.file.take()).or(Some(id));
        }
        Some("file") if spec.variable.is_some() => {
            return Err(wrong("a secret of type file takes src".to_owned()));
        }
        Some("file") => spec.file = spec.file.or_else(|| Some(spec.id.clone())),
        _ => {}
    }
    Ok(spec)
}

/// A file is read when the first step runs; that it cannot be should be known before.
fn from_file(id: &str, path: &Path) -> Result<SecretSource, Failure> {
    let failed = |error| Failure::io(&format!("read secret {id} from"), path, error);
    let metadata = std::fs::File::open(path)
        .and_then(|file| file.metadata())
        .map_err(failed)?;
    if metadata.is_dir() {
        return Err(failed(std::io::ErrorKind::IsADirectory.into()));
    }
    if metadata.len() > MAX_SECRET_BYTES as u64 {
        return Err(Failure::message(format!(
            "secret {id} too big: {} has more than {MAX_SECRET_BYTES} bytes",
            path.display()
        )));
    }
    Ok(SecretSource::File(path.to_owned()))
}

/// One that is not set is empty, as with Docker; but not without a word.
fn from_variable(environment: &Environment, id: &str, variable: &str) -> SecretSource {
    let value = environment.get_raw(variable).unwrap_or_else(|| {
        report::warning(&format!(
            "secret {id} is empty: the variable {variable} is not set"
        ));
        ""
    });
    SecretSource::Value(value.as_bytes().to_vec())
}

/// The agents of all `--ssh`.
pub(super) fn ssh(environment: &Environment, values: &[String]) -> Result<SshAgents, Failure> {
    let mut agents: Vec<(String, AgentSource)> = Vec::new();
    for value in values {
        let (id, source) = agent(environment, value)?;
        if agents.iter().any(|(known, _)| *known == id) {
            return Err(Failure::usage(format!(
                "--ssh {value}: duplicate agent id {id:?}"
            )));
        }
        agents.push((id, source));
    }
    Ok(SshAgents::new(agents))
}

fn agent(environment: &Environment, text: &str) -> Result<(String, AgentSource), Failure> {
    let wrong = |what: &str| Failure::usage(format!("--ssh {text}: {what}"));
    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    let id = if id.is_empty() { "default" } else { id }.to_owned();
    let paths: Vec<PathBuf> = paths
        .split(',')
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .collect();
    if paths.is_empty() {
        let hint = "start one with `eval $(ssh-agent)` and ssh-add, or name a key: --ssh default=KEYFILE";
        let socket = environment
            .get(SSH_SOCKET)
            .ok_or_else(|| wrong("no SSH agent runs: SSH_AUTH_SOCK is not set").hint(hint))?;
        return Ok((id, AgentSource::Socket(PathBuf::from(socket))));
    }
    let mut sockets = 0;
    for path in &paths {
        let metadata = std::fs::metadata(path).map_err(|error| Failure::io("read", path, error))?;
        sockets += usize::from(metadata.file_type().is_socket());
    }
    match (sockets, paths.as_slice()) {
        (0, _) => Ok((id, AgentSource::Keys(paths))),
        (1, [socket]) => Ok((id, AgentSource::Socket(socket.clone()))),
        (1, _) => Err(wrong("it takes one socket or key files, not both")),
        _ => Err(wrong("it takes one socket only")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Spec, spec};

    fn found(id: &str, file: Option<&str>, variable: Option<&str>) -> Spec {
        Spec {
            id: id.to_owned(),
            file: file.map(str::to_owned),
            variable: variable.map(str::to_owned),
        }
    }

    #[test]
    fn secrets_are_written_as_for_docker() {
        for (text, expected) in [
            ("id=a", found("a", None, None)),
            ("id=a,src=f", found("a", Some("f"), None)),
            ("source=f,ID=a", found("a", Some("f"), None)),
            ("id=a,\"src=f,g\"", found("a", Some("f,g"), None)),
            ("id=a,env=V", found("a", None, Some("V"))),
            ("type=env,id=a", found("a", None, Some("a"))),
            ("type=env,id=a,src=V", found("a", None, Some("V"))),
            ("type=file,id=a", found("a", Some("a"), None)),
            ("id=a,src=", found("a", None, None)),
        ] {
            assert_eq!(spec(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, expected) in [
            ("src=f", "the id is missing"),
            ("id=a,size=1", "unexpected key 'size'"),
            ("a", "invalid field 'a' must be a key=value pair"),
            ("id=a,type=vault", "unsupported secret type \"vault\""),
            ("id=a,src=f,env=V", "it takes src or env, not both"),
            ("id=a,type=file,env=V", "a secret of type file takes src"),
            ("\"id=a", "a quote is not closed"),
        ] {
            let error = spec(text).unwrap_err().text();
            assert_eq!(error, format!("--secret {text}: {expected}"));
        }
    }
}
