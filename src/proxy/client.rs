//! One client connection: request after request, one outstanding at a time.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::error::ProxyError;
use super::exchange::Exchange;
use super::service::{ProxyService, View};
use crate::net::{Buffer, Conn, Deadline};
use crate::wire::{self, Parsed, RequestHead};

/// How long a refused client may go on sending before its connection is cut.
const LINGER: Duration = Duration::from_secs(2);

/// How much a refused client may go on sending.
const LINGER_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Serves the connection until the client closes it, it fails, or the program stops.
pub(super) async fn serve(service: Rc<ProxyService>, conn: Conn, peer: SocketAddr) {
    let deadline = service.worker.deadlines.register();
    let mut client = Client {
        service,
        conn,
        deadline,
        peer,
    };
    // While idle a connection holds neither a buffer nor a view.
    while let Some(mut received) = client.wait().await {
        loop {
            if let Err(error) = client.answer(&mut received).await {
                client.refuse(received, error).await;
                return;
            }
            if received.is_empty() {
                break;
            }
            // The client sent the next request early; it was held until now.
            received.compact();
        }
    }
}

struct Client {
    service: Rc<ProxyService>,
    conn: Conn,
    deadline: Deadline,
    peer: SocketAddr,
}

impl Client {
    /// Waits for the first bytes of a request; `None` when the connection is over.
    async fn wait(&mut self) -> Option<Buffer> {
        self.deadline
            .arm(self.service.view().snapshot.timeouts.client_idle);
        let worker = &self.service.worker;
        let first = self
            .conn
            .read_first(&worker.buffers, &self.deadline, || worker.is_stopping());
        first.await.ok()
    }

    /// Answers the request at the start of `received` and takes it out.
    async fn answer(&mut self, received: &mut Buffer) -> Result<(), ProxyError> {
        let view = self.service.view();
        let head = self.read_head(&view, received).await?;
        let route = self
            .service
            .route(&view, head.target.of(received.filled()))?;
        let exchange = Exchange {
            service: &self.service,
            view: &view,
            client: &mut self.conn,
            deadline: &self.deadline,
            head: &head,
            backend: route.backend,
        };
        exchange.run(received).await.inspect_err(|error| {
            let request = Some((&*view, head.operation(), route));
            self.service.log_failure(self.peer, request, error);
        })
    }

    /// Reads until the head at the start of `received` is complete.
    async fn read_head(
        &mut self,
        view: &View,
        received: &mut Buffer,
    ) -> Result<RequestHead, ProxyError> {
        let limits = &view.snapshot.head_limits;
        if let Parsed::Complete(head) = RequestHead::parse(received.filled(), limits)? {
            return Ok(head);
        }
        self.deadline.arm(view.snapshot.timeouts.client_stall);
        loop {
            let seen = received.len();
            let more = self.conn.read_more(received, &self.deadline).await;
            more.map_err(ProxyError::Client)?;
            // Only the end of a line, or too much without one, can change the verdict.
            let full = received.len() >= limits.max_head_bytes;
            if !full && !received.filled()[seen..].contains(&b'\n') {
                continue;
            }
            if let Parsed::Complete(head) = RequestHead::parse(received.filled(), limits)? {
                return Ok(head);
            }
        }
    }

    /// Ends the connection in the way its failure asks for.
    async fn refuse(mut self, mut received: Buffer, error: ProxyError) {
        if !matches!(error, ProxyError::BadRequest(_) | ProxyError::BadTarget(_)) {
            return;
        }
        self.service.log_failure(self.peer, None, &error);
        self.deadline.arm(LINGER);
        let answered = self
            .conn
            .write_all(wire::BAD_REQUEST, &mut 0, &self.deadline)
            .await;
        if answered.is_ok() {
            self.conn
                .linger(&mut received, LINGER_MAX_BYTES, &self.deadline)
                .await;
        }
    }
}
