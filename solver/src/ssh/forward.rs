//! A socket that passes questions on to an agent.
//!
//! What a step asks is filtered: it may list the keys and sign with them. Adding, removing and locking keys, and
//! extensions, are answered with a failure, as BuildKit does: a step must not change the user's agent.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};

/// No message of the protocol is longer; OpenSSH has the same limit.
const MAX_MESSAGE: usize = 256 * 1024;
/// `SSH_AGENTC_REQUEST_IDENTITIES` and `SSH_AGENTC_SIGN_REQUEST`.
const ALLOWED: [u8; 2] = [11, 13];
/// `SSH_AGENT_FAILURE`, as a whole message.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];

/// The open connections, so that they can be ended.
#[derive(Debug, Default)]
struct Connections {
    next: u64,
    open: BTreeMap<u64, [UnixStream; 2]>,
    closed: bool,
}

/// A listening socket. Dropping it ends all its connections.
#[derive(Debug)]
pub(crate) struct Forward {
    connections: Arc<Mutex<Connections>>,
    /// Closed to wake the listening thread.
    wake: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Forward {
    /// Listens at `at`, which must not exist, for the agent at `agent`.
    pub(crate) fn listen(at: &Path, agent: &Path) -> std::io::Result<Self> {
        let listener = UnixListener::bind(at)?;
        listener.set_nonblocking(true)?;
        let (woken, wake) = pipe_with(PipeFlags::CLOEXEC)?;
        let connections = Arc::new(Mutex::new(Connections::default()));
        let (shared, agent) = (Arc::clone(&connections), agent.to_owned());
        let thread = std::thread::Builder::new()
            .name("ssh agent".to_owned())
            .spawn(move || accept(&listener, &woken, &agent, &shared))?;
        Ok(Self {
            connections,
            wake: Some(wake),
            thread: Some(thread),
        })
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.wake = None;
        {
            let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
            connections.closed = true;
            for stream in connections.open.values().flatten() {
                // One that is closed already is what is wanted.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        if let Some(thread) = self.thread.take() {
            // A panic has been reported on its way already.
            let _ = thread.join();
        }
    }
}

/// Takes connections until the other end of `woken` is closed.
fn accept(listener: &UnixListener, woken: &OwnedFd, agent: &Path, connections: &Arc<Mutex<Connections>>) {
    loop {
        let mut fds = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(woken, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) if fds[1].revents().is_empty() => {}
            Err(rustix::io::Errno::INTR) => continue,
            _ => return,
        }
        if let Ok((client, _)) = listener.accept() {
            let (agent, connections) = (agent.to_owned(), Arc::clone(connections));
            // Without a thread the client sees its connection closed, as when the agent is gone.
            let _ = std::thread::Builder::new()
                .name("ssh agent connection".to_owned())
                .spawn(move || serve(client, &agent, &connections));
        }
    }
}

/// One connection, from its beginning to its end.
fn serve(client: UnixStream, agent: &PathBuf, connections: &Mutex<Connections>) {
    let lock = || connections.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(agent) = client
        .set_nonblocking(false)
        .and_then(|()| UnixStream::connect(agent))
    else {
        return;
    };
    let (Ok(client_end), Ok(agent_end)) = (client.try_clone(), agent.try_clone()) else {
        return;
    };
    let number = {
        let mut connections = lock();
        if connections.closed {
            return;
        }
        connections.next += 1;
        let number = connections.next;
        connections.open.insert(number, [client_end, agent_end]);
        number
    };
    // However it ends, both see their connection closed.
    let _ = talk(&client, &agent);
    lock().open.remove(&number);
}

/// Passes allowed questions and their answers on until one side closes.
fn talk(mut client: &UnixStream, mut agent: &UnixStream) -> std::io::Result<()> {
    while let Some(question) = message(client)? {
        if question.get(4).is_some_and(|kind| ALLOWED.contains(kind)) {
            agent.write_all(&question)?;
            let Some(answer) = message(agent)? else {
                return Ok(());
            };
            client.write_all(&answer)?;
        } else {
            client.write_all(&FAILURE)?;
        }
    }
    Ok(())
}

/// One message with its length; `None` at the end.
fn message(mut stream: &UnixStream) -> std::io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let size = u32::from_be_bytes(length) as usize;
    if size == 0 || size > MAX_MESSAGE {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; 4 + size];
    message[..4].copy_from_slice(&length);
    stream.read_exact(&mut message[4..])?;
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::{FAILURE, Forward, message};
    use crate::testing::TempDir;

    /// An agent that answers each question with its kind.
    fn echo(listener: UnixListener) {
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                std::thread::spawn(move || {
                    while let Ok(Some(question)) = message(&stream) {
                        let answer = [0, 0, 0, 2, 200, question[4]];
                        (&stream).write_all(&answer).expect("the answer is taken");
                    }
                });
            }
        });
    }

    fn ask(mut stream: &UnixStream, question: &[u8]) -> Vec<u8> {
        let mut bytes = (question.len() as u32).to_be_bytes().to_vec();
        bytes.extend(question);
        stream.write_all(&bytes).expect("the question is taken");
        message(stream).expect("an answer").expect("an answer")
    }

    #[test]
    fn questions_are_passed_on_and_changes_are_refused() {
        let folder = TempDir::new();
        let (agent, socket) = (folder.path().join("agent"), folder.path().join("socket"));
        echo(UnixListener::bind(&agent).expect("a socket"));
        let forward = Forward::listen(&socket, &agent).expect("a socket");
        let one = UnixStream::connect(&socket).expect("a connection");
        let two = UnixStream::connect(&socket).expect("a connection");
        for stream in [&one, &two, &one] {
            assert_eq!(ask(stream, &[11]), [0, 0, 0, 2, 200, 11]);
            assert_eq!(ask(stream, &[13, 1, 2, 3]), [0, 0, 0, 2, 200, 13]);
            // Add, remove, remove all, lock, unlock, add with constraints, an extension.
            for kind in [17, 18, 19, 22, 23, 25, 27] {
                assert_eq!(ask(stream, &[kind, 0]), FAILURE);
            }
        }
        drop(forward);
        let mut rest = Vec::new();
        assert_eq!((&one).read_to_end(&mut rest).expect("the end"), 0);
        UnixStream::connect(&socket).expect_err("nobody listens");
    }

    #[test]
    fn nonsense_ends_the_connection() {
        let folder = TempDir::new();
        let (agent, socket) = (folder.path().join("agent"), folder.path().join("socket"));
        echo(UnixListener::bind(&agent).expect("a socket"));
        let _forward = Forward::listen(&socket, &agent).expect("a socket");
        for nonsense in [[0, 0, 0, 0], [255, 255, 255, 255]] {
            let mut stream = UnixStream::connect(&socket).expect("a connection");
            stream.write_all(&nonsense).expect("it is taken");
            let mut rest = Vec::new();
            assert_eq!(stream.read_to_end(&mut rest).expect("the end"), 0);
        }
    }
}
