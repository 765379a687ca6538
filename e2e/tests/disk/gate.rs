//! Steps and containers that wait for the test.

use crate::du;
use kiln_e2e::{Result, ensure};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Lets steps go on that ask, one at a time, when the store is no larger than it may be: how long a machine takes to make
/// room says nothing.
pub(crate) struct Gate {
    listener: TcpListener,
    port: u16,
}

impl Gate {
    pub(crate) fn open() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }

    /// What a step says to ask.
    pub(crate) fn question(&self) -> String {
        format!("nc 127.0.0.1 {} < /dev/null", self.port)
    }

    /// The next one that asks, and gets its answer when what is returned is dropped; `None` if nobody does until `is_over`.
    pub(crate) fn asked(&self, is_over: impl Fn() -> bool) -> Result<Option<TcpStream>> {
        loop {
            match self.listener.accept() {
                Ok((asking, _)) => return Ok(Some(asking)),
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(error.into()),
                Err(_) if is_over() => return Ok(None),
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Answers the questions of a build until that is `over`. Without anybody who answers, the steps fail.
    pub(crate) fn tend(self, over: &AtomicBool, root: &Path, ceiling: u64) -> Result<()> {
        while let Some(asking) = self.asked(|| over.load(Ordering::Relaxed))? {
            let deadline = Instant::now() + Duration::from_mins(1);
            while du(root)? > ceiling {
                ensure!(
                    Instant::now() < deadline,
                    "a minute after a step the store takes {}, the ceiling is {ceiling}",
                    du(root)?
                );
                thread::sleep(Duration::from_millis(50));
            }
            drop(asking);
        }
        Ok(())
    }
}
