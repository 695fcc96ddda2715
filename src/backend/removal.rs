//! Removes items from a backend that was out of reach when their clients removed them.

use std::time::Duration;

use super::asker::{AskError, Asker};
use super::connector::Connector;
use super::upstream::{Outgoing, Reply, RequestContent, RetryPolicy};
use crate::handover::NO_LOCK;
use crate::wire::{self, Operation, Request, encode_request};

/// How often a lock is asked for that somebody else opens and takes in between.
pub const MAX_LOCKS: usize = 4;

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
    asker: Asker,
}

impl Remover {
    /// For `server`; each request takes `timeout` at most, connecting included.
    pub fn new(server: Connector, timeout: Duration) -> Self {
        let asker = Asker::new(server, timeout, 1);
        Self { asker }
    }

    /// Sees to it that there is no item at `target`, which is spelled as on the wire. A lock on it
    /// is from before the backend was lost, and is broken. Needs a runtime with timers and sockets,
    /// on the thread where it stays.
    ///
    /// # Errors
    /// [`RemoveError`], unless the backend says that the item is gone.
    pub async fn remove(&mut self, target: &[u8]) -> Result<(), RemoveError> {
        let mut lock_cookie = NO_LOCK;
        for _ in 0..MAX_LOCKS {
            let reply = self.ask(target, lock_cookie).await?;
            let (head, lock) = (reply.head, lock_in_the_way(&reply));
            self.asker.keep(reply);
            match head.status {
                200 | 404 => return Ok(()),
                423 => lock_cookie = lock.ok_or(RemoveError::Locked)?,
                other => return Err(RemoveError::Status(other)),
            }
        }
        Err(RemoveError::Locked)
    }

    /// One removal. Repeating it is harmless, so a connection that has died meanwhile costs nothing.
    async fn ask(&self, target: &[u8], lock_cookie: u32) -> Result<Reply, AskError> {
        let mut bytes = Vec::new();
        encode_request(
            &mut bytes,
            &Request {
                operation: Operation::Remove,
                target,
                lock_cookie,
                timeout_minutes: 0,
                extra_flags: 0,
                body: &[],
            },
        );
        let request = Outgoing {
            operation: Operation::Remove,
            content: RequestContent::Whole(&bytes),
            body_bytes: 0,
            retry: RetryPolicy::Unanswered,
        };
        let asked = self.asker.ask(request).await;
        asked.map_err(|failed| self.asker.error(failed))
    }
}

fn lock_in_the_way(reply: &Reply) -> Option<u32> {
    let cookie = wire::decimal(reply.head.lock_cookie?.of(reply.bytes.filled()))?;
    u32::try_from(cookie).ok()
}
