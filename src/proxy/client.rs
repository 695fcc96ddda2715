//! One client connection: request after request, one outstanding at a time.

use std::net::IpAddr;
use std::rc::Rc;

use super::error::{ProxyError, Unanswered};
use super::exchange::Exchange;
use super::seek;
use super::service::{Located, ProxyService, View};
use crate::handover::{Refusal, Search, Stage, Step};
use crate::net::{self, Buffer, Conn, Deadline};
use crate::route::BackendIndex;
use crate::wire::RequestHead;

/// Serves the connection until the client closes it, it fails, or the program stops.
///
/// Not an `async fn`: those keep every argument twice, and every idle connection pays for it.
pub(super) fn serve(
    service: Rc<ProxyService>,
    conn: Conn,
    peer: IpAddr,
) -> impl Future<Output = ()> {
    let deadline = service.worker.deadlines.register();
    let mut client = Client {
        service,
        conn,
        deadline,
        peer,
    };
    async move {
        // While idle a connection holds neither a buffer nor a view.
        while let Some(mut received) = client.wait().await {
            loop {
                if let Err(error) = client.answer(&mut received).await {
                    if error.is_bad_request() {
                        client.service.log_refusal(client.peer, &error);
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
}

struct Client {
    service: Rc<ProxyService>,
    conn: Conn,
    deadline: Deadline,
    peer: IpAddr,
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
        let located = self
            .service
            .locate(&view, head.target.of(received.filled()))?;
        let answered = self.answer_at(&view, &head, located, received).await;
        answered.map_err(|failed| {
            let request = (&*view, head.operation(), located.fingerprint);
            self.service.log_failure(self.peer, request, &failed);
            self.service.report(&view, &failed);
            failed.error
        })
    }

    async fn answer_at(
        &mut self,
        view: &Rc<View>,
        head: &RequestHead,
        located: Located,
        received: &mut Buffer,
    ) -> Result<(), Unanswered> {
        let route = located.route;
        let snapshot = &view.snapshot;
        let Some(backend) = snapshot.backend_at(route.first) else {
            return Err(Unanswered::refused(Refusal::Unknown, BackendIndex::new(0)));
        };
        let due_ms = self.deadline.after_ms(snapshot.timeouts.answer);
        let mut exchange = Exchange {
            service: &self.service,
            view,
            client: &mut self.conn,
            deadline: &self.deadline,
            head,
            backend,
            counter: None,
            away: route.second.filter(|_| route.stage == Stage::Away),
        };
        let request = exchange.request(received.filled());
        let (search, step) = Search::start(route, request, snapshot.mover_s);
        match step {
            Step::Forward { at, counter } => {
                exchange.backend = snapshot.backend_at(at).unwrap_or(backend);
                exchange.counter = counter;
                let backend = exchange.backend;
                let answered = exchange.run(received, due_ms).await;
                answered.map_err(|error| Unanswered { error, backend })
            }
            // A search is rare and its state large: it lives on the heap.
            Step::Ask(ask) => Box::pin(seek::run(exchange, search, ask, received, due_ms)).await,
            Step::Drop { reason, .. } => Err(Unanswered::refused(reason, backend)),
            Step::Pass { .. } => Err(Unanswered::refused(Refusal::Unknown, backend)),
        }
    }
}
