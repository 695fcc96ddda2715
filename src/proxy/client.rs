//! One client connection: request after request, one outstanding at a time.

use std::net::SocketAddr;
use std::rc::Rc;

use super::error::ProxyError;
use super::exchange::Exchange;
use super::service::ProxyService;
use crate::net::{self, Buffer, Conn, Deadline};

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
                if error.is_bad_request() {
                    client.service.log_failure(peer, None, &error);
                    net::refuse_request(client.conn, received, &client.deadline).await;
                }
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
    async fn wait(&mut self) -> Option<Buffer> {
        let idle = self.service.view().snapshot.timeouts.client_idle;
        net::wait_for_request(&mut self.conn, &self.service.worker, &self.deadline, idle).await
    }

    /// Answers the request at the start of `received` and takes it out.
    async fn answer(&mut self, received: &mut Buffer) -> Result<(), ProxyError> {
        let view = self.service.view();
        let limits = &view.snapshot.head_limits;
        let stall = view.snapshot.timeouts.client_stall;
        let reading =
            net::read_request_head(&mut self.conn, received, &self.deadline, limits, stall);
        let head = reading.await?;
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
}
