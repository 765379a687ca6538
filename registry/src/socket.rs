//! TCP below the HTTP client: every wait (for a connection, for bytes to come, for bytes to go) ends in time, and soon
//! after the caller wants no more.
//!
//! The HTTP client's own sockets wait in one system call, for as long as a server may be silent: half a minute in
//! which Ctrl-C would do nothing.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, time,
};

use crate::config::Clock;
use crate::wait::{LOOK, Wait};

/// Opens TCP connections, unless there is one to a proxy already.
pub(crate) struct SocketConnector(pub(crate) Arc<dyn Clock>);

impl fmt::Debug for SocketConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SocketConnector")
    }
}

impl<In: Transport> Connector<In> for SocketConnector {
    type Out = Either<In, Socket>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        if chained.is_some() {
            return Ok(chained.map(Either::A));
        }
        let stream = self.connect_any(&details.addrs, details.timeout)?;
        stream.set_nodelay(true)?;
        // Both calls come back this often. What that means is decided in `Socket`.
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(LOOK))?;
        Ok(Some(Either::B(Socket {
            stream,
            buffers: LazyBuffers::new(
                details.config.input_buffer_size(),
                details.config.output_buffer_size(),
            ),
            clock: Arc::clone(&self.0),
        })))
    }
}

impl SocketConnector {
    /// Tries one address after the other. Each but the last gets half of the time that is left.
    fn connect_any(&self, addresses: &[SocketAddr], timeout: NextTimeout) -> Result<TcpStream, Error> {
        let began = Instant::now();
        let mut failure = Error::ConnectionFailed;
        for (index, address) in addresses.iter().enumerate() {
            let mut timeout = timeout;
            if let time::Duration::Exact(whole) = timeout.after {
                let left = whole.saturating_sub(began.elapsed());
                let last = index + 1 == addresses.len();
                timeout.after = time::Duration::Exact(if last { left } else { left / 2 });
            }
            match connect(*address, &Wait::new(&self.0, timeout)) {
                Ok(stream) => return Ok(stream),
                Err(error @ Error::Timeout(_)) => failure = error,
                Err(Error::Io(error)) if is_of_address(&error) => failure = Error::Io(error),
                Err(error) => return Err(error),
            }
        }
        Err(failure)
    }
}

/// Whether another address of the same host may do better.
fn is_of_address(error: &io::Error) -> bool {
    use io::ErrorKind as Io;
    matches!(
        error.kind(),
        Io::ConnectionRefused
            | Io::HostUnreachable
            | Io::NetworkUnreachable
            | Io::AddrNotAvailable
            | Io::TimedOut
    ) || error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
}

fn connect(address: SocketAddr, wait: &Wait<'_>) -> Result<TcpStream, Error> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        rustix::net::socket_with(family, SocketType::STREAM, flags, None).map_err(io::Error::from)?;
    match rustix::net::connect(&socket, &address) {
        // Begun, also if a signal came meanwhile.
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => {}
        Err(error) => return Err(io::Error::from(error).into()),
    }
    loop {
        let look = wait.next()?;
        let timeout = Timespec::try_from(look).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => break,
            Err(error) => return Err(io::Error::from(error).into()),
        }
    }
    let outcome = sockopt::socket_error(&socket).map_err(io::Error::from)?;
    outcome.map_err(io::Error::from)?;
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// A connection.
pub(crate) struct Socket {
    stream: TcpStream,
    buffers: LazyBuffers,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Socket")
    }
}

/// Whether nothing moved for as long as one call waits.
fn is_pause(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let began = Instant::now();
        let timeout_now = || {
            let mut now = timeout;
            if let time::Duration::Exact(whole) = now.after {
                now.after = time::Duration::Exact(whole.saturating_sub(began.elapsed()));
            }
            now.for_write()
        };
        let mut wait = Wait::new(&self.clock, timeout_now());
        let mut rest = &self.buffers.output()[..amount];
        while !rest.is_empty() {
            wait.next()?;
            match self.stream.write(rest) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(count) => {
                    rest = &rest[count..];
                    wait = Wait::new(&self.clock, timeout_now());
                }
                Err(error) if is_pause(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let wait = Wait::new(&self.clock, timeout.for_read());
        let room = self.buffers.input_append_buf();
        let count = loop {
            wait.next()?;
            match self.stream.read(room) {
                Ok(count) => break count,
                Err(error) if is_pause(&error) => {}
                Err(error) => return Err(error.into()),
            }
        };
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        // Nothing may have come on a connection that is not in use, neither bytes nor its end.
        let idle = || -> io::Result<bool> {
            self.stream.set_nonblocking(true)?;
            let nothing = self.stream.peek(&mut [0]);
            self.stream.set_nonblocking(false)?;
            Ok(matches!(nothing, Err(error) if error.kind() == io::ErrorKind::WouldBlock))
        };
        idle().unwrap_or(false)
    }
}
