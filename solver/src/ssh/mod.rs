//! SSH agents of the request: steps may sign with their keys and do nothing else.
//!
//! A step that mounts an agent gets a socket of its own. Behind it, the `forward` module passes questions on to
//! the agent: one of the host, or one that `keys` starts for key files.

pub(crate) mod forward;
mod keys;

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use keys::KeyAgent;

/// What stands behind an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentSource {
    /// The socket of an agent that runs.
    Socket(PathBuf),
    /// Files of private keys.
    Keys(Vec<PathBuf>),
}

/// Why an agent cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Nobody answers at its socket.
    #[error("SSH agent {id}: cannot connect to {}: {source}", path.display())]
    Connect {
        /// The agent.
        id: String,
        /// Its socket.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A program that is needed for key files cannot be run.
    #[error("SSH agent {id}: cannot run {program}: {source}")]
    Program {
        /// The agent.
        id: String,
        /// The program.
        program: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A key file was refused.
    #[error("SSH agent {id}: the key {} cannot be used: {reason}", path.display())]
    Key {
        /// The agent.
        id: String,
        /// The key file.
        path: PathBuf,
        /// What ssh-add says.
        reason: String,
    },
    /// The socket for the sandbox cannot be made.
    #[error("SSH agent {id}: cannot make a socket: {source}")]
    Socket {
        /// The agent.
        id: String,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// One agent of the request.
#[derive(Debug)]
struct Agent {
    source: AgentSource,
    /// The program that serves key files, started when the first step needs it.
    started: Mutex<Option<KeyAgent>>,
}

/// The agents of a request, by id. Programs that were started for them end with it.
#[derive(Debug, Default)]
pub struct SshAgents {
    by_id: BTreeMap<String, Agent>,
}

impl SshAgents {
    /// The agents of `sources`. Of two with one id the last counts.
    pub fn new(sources: impl IntoIterator<Item = (String, AgentSource)>) -> Self {
        let agent = |source| Agent {
            source,
            started: Mutex::default(),
        };
        let by_id = sources.into_iter().map(|(id, source)| (id, agent(source)));
        Self {
            by_id: by_id.collect(),
        }
    }

    /// The ids.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.by_id.keys().map(String::as_str)
    }

    /// The socket of the agent `id`; `None` when the request has no such agent. Someone answers there.
    pub(crate) fn socket(&self, id: &str) -> Option<Result<PathBuf, AgentError>> {
        let agent = self.by_id.get(id)?;
        Some(match &agent.source {
            AgentSource::Socket(path) => match UnixStream::connect(path) {
                Ok(_) => Ok(path.clone()),
                Err(source) => Err(AgentError::Connect {
                    id: id.to_owned(),
                    path: path.clone(),
                    source,
                }),
            },
            AgentSource::Keys(files) => {
                let mut started = agent.started.lock().unwrap_or_else(PoisonError::into_inner);
                match started.as_ref() {
                    Some(running) => Ok(running.socket().to_owned()),
                    None => KeyAgent::start(id, files).map(|new| started.insert(new).socket().to_owned()),
                }
            }
        })
    }
}
