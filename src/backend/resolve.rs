//! From a host name to socket addresses: the one place where names are looked up.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::connector::ConnectError;
use crate::config::{BackendAddress, BackendHost};

/// How long the next answer is waited for where there is an earlier one: a name service that hangs
/// must not cost what it does not have to.
const SLOW_LOOKUP: Duration = Duration::from_millis(500);

/// Looks up the addresses behind one host and port.
///
/// At most one lookup is under way: each that hangs keeps a thread.
#[derive(Debug)]
pub struct Resolver {
    address: BackendAddress,
    /// The lookup that the last caller did not live to see the end of.
    looking_up: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
    /// The last good answer. One that is old is still better than none.
    known: Vec<SocketAddr>,
}

impl Resolver {
    /// For the server at `address`.
    pub fn new(address: BackendAddress) -> Self {
        Self {
            address,
            looking_up: None,
            known: Vec::new(),
        }
    }

    /// What the system says now, waiting for it until `due`; a lookup that takes longer goes on, and
    /// the next call waits for its end. Needs a runtime with timers.
    ///
    /// # Errors
    /// [`ConnectError::Unresolved`], [`ConnectError::TimedOut`].
    pub async fn look_up(&mut self, due: Instant) -> Result<&[SocketAddr], ConnectError> {
        let port = self.address.port();
        let name = match self.address.host() {
            BackendHost::Ip(ip) => {
                self.known = vec![SocketAddr::new(*ip, port)];
                return Ok(&self.known);
            }
            BackendHost::Name(name) => name,
        };
        let lookup = self
            .looking_up
            .get_or_insert_with(|| tokio::spawn(ask_system(name.clone(), port)));
        let Ok(ended) = timeout_at(due, lookup).await else {
            return Err(ConnectError::TimedOut);
        };
        self.looking_up = None;
        let found = ended.unwrap_or_else(|panicked| Err(panicked.into()));
        self.known = found.map_err(ConnectError::unresolved)?;
        Ok(&self.known)
    }

    /// The addresses to try before `due`, in the order of the name service: its last good answer
    /// serves on while it fails or is slow.
    ///
    /// # Errors
    /// As for [`Self::look_up`], where there is no such answer.
    pub(super) async fn addresses(&mut self, due: Instant) -> Result<&[SocketAddr], ConnectError> {
        let wait_until = match self.known.is_empty() {
            true => due,
            false => due.min(Instant::now() + SLOW_LOOKUP),
        };
        match self.look_up(wait_until).await.err() {
            Some(failed) if self.known.is_empty() => Err(failed),
            _ => Ok(&self.known),
        }
    }
}

#[cfg(test)]
impl Resolver {
    /// The next lookup ends like this.
    pub(super) fn will_find(&mut self, found: Vec<SocketAddr>) {
        self.looking_up = Some(tokio::spawn(async { Ok(found) }));
    }
}

async fn ask_system(name: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found = tokio::net::lookup_host((name, port)).await?;
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(100);
    const PATIENT: Duration = Duration::from_secs(30);

    fn address() -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 42424))
    }

    fn named() -> Resolver {
        Resolver::new(BackendAddress::parse("state-a.invalid:42424").unwrap())
    }

    async fn addresses(
        resolver: &mut Resolver,
        within: Duration,
    ) -> Result<Vec<SocketAddr>, ConnectError> {
        let found = resolver.addresses(Instant::now() + within).await;
        found.map(<[_]>::to_vec)
    }

    #[tokio::test]
    async fn a_lookup_that_hangs_is_waited_for_again_and_not_repeated() {
        let mut resolver = named();
        let hanging = tokio::spawn(std::future::pending());
        let id = hanging.id();
        resolver.looking_up = Some(hanging);
        for _ in 0..3 {
            let found = addresses(&mut resolver, SHORT).await;
            assert!(matches!(found, Err(ConnectError::TimedOut)));
            assert_eq!(resolver.looking_up.as_ref().map(JoinHandle::id), Some(id));
        }
    }

    #[tokio::test]
    async fn the_last_good_answer_outlives_a_name_service_that_fails_or_hangs() {
        let mut resolver = named();
        for lookup in [
            tokio::spawn(async { Ok(vec![address()]) }),
            tokio::spawn(async { Err(io::ErrorKind::NotFound.into()) }),
            tokio::spawn(std::future::pending()),
        ] {
            resolver.looking_up = Some(lookup);
            let found = addresses(&mut resolver, PATIENT).await;
            assert_eq!(found.unwrap(), [address()]);
        }
    }

    #[tokio::test]
    async fn a_lookup_that_fails_is_repeated_with_the_next_call() {
        let mut resolver = named();
        resolver.looking_up = Some(tokio::spawn(async { Err(io::ErrorKind::NotFound.into()) }));
        let found = addresses(&mut resolver, PATIENT).await;
        assert!(matches!(found, Err(ConnectError::Unresolved(_))));
        assert!(resolver.looking_up.is_none());
    }
}
