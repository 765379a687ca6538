//! Name lookup: on a thread, because the system's has no end of its own, with errors that say what failed.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};

use ureq::Error;
use ureq::http::Uri;
use ureq::http::uri::Scheme;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::config::Clock;
use crate::tls::StageError;
use crate::wait::Wait;

/// No more addresses of a name are tried. The resolver's list has room for so many.
const ADDRESSES: usize = 16;

/// Looks names up as the machine does.
pub(crate) struct Lookup(pub(crate) Arc<dyn Clock>);

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lookup")
    }
}

impl Resolver for Lookup {
    fn resolve(
        &self,
        uri: &Uri,
        _: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let name = uri
            .authority()
            .and_then(|authority| {
                DefaultResolver::host_and_port(uri.scheme().unwrap_or(&Scheme::HTTPS), authority)
            })
            .ok_or(Error::HostNotFound)?;
        let found = self
            .addresses(name, timeout)
            .map_err(|error| Error::Other(Box::new(StageError::Dns(Box::new(error)))))?;
        let mut addresses = self.empty();
        for address in found.into_iter().take(ADDRESSES) {
            addresses.push(address);
        }
        Ok(addresses)
    }
}

impl Lookup {
    /// At least one address.
    fn addresses(&self, name: String, timeout: NextTimeout) -> Result<Vec<SocketAddr>, Error> {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        let wait = Wait::new(&self.0, timeout);
        let (sender, answer) = mpsc::sync_channel(1);
        // The thread of a lookup that nobody waits for ends with the lookup.
        std::thread::Builder::new()
            .name("lookup".to_owned())
            .spawn(move || {
                let found = name.to_socket_addrs().map(Iterator::collect::<Vec<_>>);
                // The other side is gone when it was given up.
                drop(sender.send(found));
            })?;
        let found = loop {
            match answer.recv_timeout(wait.next()?) {
                Ok(found) => break found?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Error::HostNotFound),
            }
        };
        if found.is_empty() {
            return Err(Error::HostNotFound);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::Lookup;
    use crate::config::{Clock, Over, SystemClock};
    use crate::wait::is_interrupted;
    use std::sync::Arc;
    use ureq::Error;
    use ureq::unversioned::transport::NextTimeout;

    fn look_up(clock: impl Clock + 'static, name: &str) -> Result<Vec<String>, Error> {
        let found = Lookup(Arc::new(clock)).addresses(name.to_owned(), NextTimeout::default())?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn addresses_are_taken_as_they_are() {
        for address in ["127.0.0.1:80", "[::1]:443"] {
            assert_eq!(look_up(Over, address).unwrap(), [address]);
        }
    }

    #[test]
    fn names_are_looked_up() {
        let found = look_up(SystemClock, "localhost:80").unwrap();
        let loopback = ["127.0.0.1:80", "[::1]:80"];
        assert!(
            found.iter().any(|address| loopback.contains(&address.as_str())),
            "{found:?}"
        );
    }

    #[test]
    fn a_lookup_that_nobody_waits_for_is_over() {
        let result = look_up(Over, "localhost:80");
        assert!(matches!(result, Err(Error::Io(error)) if is_interrupted(&error)));
    }
}
