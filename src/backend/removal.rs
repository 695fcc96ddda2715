//! Removes items from a backend that was out of reach when their clients removed them.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::dial::{AskError, ask, connect};
use crate::handover::NO_LOCK;
use crate::wire::{self, Operation, Request, ResponseHead, Unfit, encode_request};

/// How often a lock is asked for that somebody else opens and takes in between.
const MAX_LOCKS: usize = 4;

/// A removal that has not happened. It can be repeated.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// No answer: it may have happened.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// An answer that a state server does not give to a removal.
    #[error("status {0} instead of 200, 404 or 423")]
    Status(u16),
    /// The backend does not tell which lock is in the way, or there was another every time.
    #[error("the item stays locked")]
    Locked,
}

/// Removals at one backend, one after the other over one connection.
#[derive(Debug)]
pub struct Remover {
    address: SocketAddr,
    timeout: Duration,
    /// Nothing is under way on it.
    idle: Option<TcpStream>,
}

impl Remover {
    /// For the server at `address`; each request takes `timeout` at most, connecting included.
    pub fn new(address: SocketAddr, timeout: Duration) -> Self {
        Self {
            address,
            timeout,
            idle: None,
        }
    }

    /// Sees to it that there is no item at `target`, which is spelled as on the wire. A lock on it
    /// is from before the backend was lost, and is broken. Needs a runtime with timers and sockets.
    ///
    /// # Errors
    /// [`RemoveError`], unless the backend says that the item is gone.
    pub async fn remove(&mut self, target: &[u8]) -> Result<(), RemoveError> {
        let mut lock_cookie = NO_LOCK;
        for _ in 0..MAX_LOCKS {
            let (answer, bytes) = self.ask(target, lock_cookie).await?;
            match answer.status {
                200 | 404 => return Ok(()),
                423 => lock_cookie = lock_in_the_way(&answer, &bytes).ok_or(RemoveError::Locked)?,
                other => return Err(RemoveError::Status(other)),
            }
        }
        Err(RemoveError::Locked)
    }

    /// One removal. Repeating it is harmless, so a connection that has died meanwhile costs nothing.
    async fn ask(
        &mut self,
        target: &[u8],
        lock_cookie: u32,
    ) -> Result<(ResponseHead, Vec<u8>), AskError> {
        let mut request = Vec::new();
        encode_request(
            &mut request,
            &Request {
                operation: Operation::Remove,
                target,
                lock_cookie,
                timeout_minutes: 0,
                extra_flags: 0,
                body: &[],
            },
        );
        let due = Instant::now() + self.timeout;
        if let Some(stream) = self.idle.take()
            && let Ok(answered) = self.ask_on(stream, &request, due).await
        {
            return Ok(answered);
        }
        let stream = connect(self.address, due).await?;
        self.ask_on(stream, &request, due).await
    }

    async fn ask_on(
        &mut self,
        mut stream: TcpStream,
        request: &[u8],
        due: Instant,
    ) -> Result<(ResponseHead, Vec<u8>), AskError> {
        let (answer, bytes) = ask(&mut stream, request, due, false).await?;
        answer.fits(Operation::Remove)?;
        if answer.is_one_of_two(&bytes) {
            return Err(Unfit::Two.into());
        }
        // Nothing may lie behind the answer: it would pass for the answer to the next request.
        if answer.body_bytes == 0 && bytes.len() == answer.head_bytes {
            self.idle = Some(stream);
        }
        Ok((answer, bytes))
    }
}

fn lock_in_the_way(answer: &ResponseHead, bytes: &[u8]) -> Option<u32> {
    let cookie = wire::decimal(answer.lock_cookie?.of(bytes))?;
    u32::try_from(cookie).ok()
}
