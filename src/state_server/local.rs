//! A state server in the process of those who ask it.
//!
//! Each thread that opens a connection has a part of the server of its own, with a store of its
//! own: a request never changes its thread. What the stores lead to is shared, or they would have
//! different sessions.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_local;

use super::body_budget::BodyBudget;
use super::clock::ServerClock;
use super::service::{StateOptions, StateService};
use crate::backend::LocalServer;
use crate::config::AllowList;
use crate::net::{self, Conn, Deadlines, Service, Worker};
use crate::store::{SessionStore, StoreSurvey};
use crate::wire::HeadLimits;

/// Bytes that one end of a connection takes before the other has read them.
const CONN_BYTES: usize = 64 * 1024;

/// Capacity of a buffer of a part.
const BUFFER_BYTES: usize = 64 * 1024;

/// Whoever asks is this process.
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// How long a connection may be idle. Whoever opens one closes it sooner.
const IDLE: Duration = Duration::from_secs(3600);

/// Memory for bodies that are still arriving, over all parts.
const ARRIVING_BODIES_BYTES: u64 = 1 << 30;

/// The largest body. Whoever asks has a limit of its own.
const MAX_BODY_BYTES: u64 = 2047 << 20;

thread_local! {
    /// The parts of this thread, by the number of their server.
    static PARTS: RefCell<HashMap<u64, Rc<dyn Any>>> = RefCell::default();
}

/// A server whose store on each thread comes from `M`.
pub struct LocalStateServer<M> {
    /// No other server of this process has it.
    number: u64,
    make_store: M,
    body_budget: Arc<BodyBudget>,
    clock: Arc<ServerClock>,
    stall: Duration,
    ticks: watch::Receiver<()>,
    /// Ends the parts with the server.
    life: Arc<()>,
}

/// What one thread has of a server.
struct Part<S> {
    service: Rc<StateService<S>>,
    store: S,
}

impl<S, M> LocalStateServer<M>
where
    S: SessionStore + Clone,
    M: Fn(&Rc<Deadlines>) -> S + Send + Sync + 'static,
{
    /// A server that nobody has asked yet. `make_store` makes the store of a thread, which has the
    /// clock of that thread's part. An answer of it may take `stall`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn new(stall: Duration, make_store: M) -> io::Result<Self> {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        Ok(Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            make_store,
            body_budget: BodyBudget::new(ARRIVING_BODIES_BYTES),
            clock: Arc::default(),
            stall,
            ticks: net::worker_ticks()?,
            life: Arc::default(),
        })
    }

    /// The part of this thread.
    fn part(&self) -> Rc<Part<S>> {
        let known = PARTS.with_borrow(|parts| parts.get(&self.number).cloned());
        if let Some(part) = known.and_then(|part| part.downcast().ok()) {
            return part;
        }
        let worker = Worker::new(0, BUFFER_BYTES);
        let store = (self.make_store)(&worker.deadlines);
        let options = StateOptions {
            store: store.clone(),
            body_budget: Arc::clone(&self.body_budget),
            clock: Arc::clone(&self.clock),
            allow: AllowList::default(),
            head_limits: HeadLimits {
                max_body_bytes: MAX_BODY_BYTES,
                ..HeadLimits::default()
            },
            idle: IDLE,
            stall: self.stall,
        };
        let service = Rc::new(StateService::new(Rc::clone(&worker), options));
        let part = Rc::new(Part { service, store });
        PARTS.with_borrow_mut(|parts| parts.insert(self.number, Rc::clone(&part) as Rc<dyn Any>));
        let (life, ticks) = (Arc::downgrade(&self.life), self.ticks.clone());
        spawn_local(drive(
            self.number,
            life,
            ticks,
            worker,
            Rc::clone(&part.service),
        ));
        part
    }
}

/// Lets the time of a part pass, until its server is gone and its last connection has ended.
async fn drive<S: SessionStore>(
    number: u64,
    life: Weak<()>,
    ticks: watch::Receiver<()>,
    worker: Rc<Worker>,
    service: Rc<StateService<S>>,
) {
    let goes_on = || {
        if life.strong_count() == 0 {
            PARTS.with_borrow_mut(|parts| parts.remove(&number));
        }
        Rc::strong_count(&service) > 1
    };
    net::drive(&worker, &*service, ticks, goes_on).await;
}

impl<S, M> LocalServer for LocalStateServer<M>
where
    S: SessionStore + Clone,
    M: Fn(&Rc<Deadlines>) -> S + Send + Sync + 'static,
{
    fn open(&self) -> Pin<Box<dyn Future<Output = io::Result<Conn>>>> {
        let part = self.part();
        Box::pin(async move {
            part.store.ready().await.map_err(io::Error::other)?;
            let (ours, theirs) = Conn::pair(CONN_BYTES);
            spawn_local(Rc::clone(&part.service).serve(theirs, PEER));
            Ok(ours)
        })
    }

    fn survey(&self) -> Pin<Box<dyn Future<Output = StoreSurvey>>> {
        let part = self.part();
        Box::pin(async move { part.store.survey().await })
    }
}

impl<M> fmt::Debug for LocalStateServer<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalStateServer")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}
