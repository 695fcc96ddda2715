//! One task per backend that the map names by host, which looks the name up again and again.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};

use crate::backend::Resolver;
use crate::config::BackendAddress;
use crate::handover::BackendId;

/// Results that wait for control at most; a task with one more waits itself.
const MAX_RESULTS: usize = 64;

/// Time from an answer to the next question.
const INTERVAL: Duration = Duration::from_secs(5);

/// A name service that has not answered within this time does not answer; what it says later counts.
const PATIENCE: Duration = Duration::from_secs(2);

/// Lookups under way at most. Each that hangs keeps a thread, and others need some, too.
const MAX_LOOKUPS: usize = 4;

/// What the name service says of one backend.
#[derive(Debug)]
pub(crate) struct LookedUp {
    pub(crate) backend_id: BackendId,
    /// Whose name was looked up.
    pub(crate) in_map: BackendAddress,
    /// Its addresses, or why there is no answer.
    pub(crate) found: Result<Vec<SocketAddr>, String>,
}

/// The tasks. They end with this.
#[derive(Debug)]
pub(crate) struct Names {
    tasks: JoinSet<()>,
    running: HashMap<(BackendId, BackendAddress), AbortHandle>,
    /// Changes when all are to be looked up at once.
    now: watch::Sender<()>,
    lookups: Arc<Semaphore>,
    results: mpsc::Sender<LookedUp>,
}

impl Names {
    /// No task yet; results arrive at the receiver.
    pub(crate) fn new() -> (Self, mpsc::Receiver<LookedUp>) {
        let (results, received) = mpsc::channel(MAX_RESULTS);
        let names = Self {
            tasks: JoinSet::new(),
            running: HashMap::new(),
            now: watch::channel(()).0,
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            results,
        };
        (names, received)
    }

    /// Looks up exactly these from now on, a new one at once. Must be called on a runtime with
    /// timers.
    pub(crate) fn follow(&mut self, names: impl IntoIterator<Item = (BackendId, BackendAddress)>) {
        let mut before = std::mem::take(&mut self.running);
        for key in names {
            let task = before.remove(&key).unwrap_or_else(|| self.begin(&key));
            self.running.insert(key, task);
        }
        before.into_values().for_each(|task| task.abort());
        // What has ended is only kept until somebody looks.
        while self.tasks.try_join_next().is_some() {}
    }

    /// Looks all of them up now.
    pub(crate) fn hurry(&self) {
        self.now.send_replace(());
    }

    fn begin(&mut self, (backend_id, in_map): &(BackendId, BackendAddress)) -> AbortHandle {
        self.tasks.spawn(look_up_for_ever(
            *backend_id,
            in_map.clone(),
            self.now.subscribe(),
            Arc::clone(&self.lookups),
            self.results.clone(),
        ))
    }
}

async fn look_up_for_ever(
    backend_id: BackendId,
    in_map: BackendAddress,
    mut now: watch::Receiver<()>,
    lookups: Arc<Semaphore>,
    results: mpsc::Sender<LookedUp>,
) {
    let mut resolver = Resolver::new(in_map.clone());
    loop {
        let found = match tokio::time::timeout(PATIENCE, lookups.acquire()).await {
            Ok(_turn) => look_up(&mut resolver).await,
            Err(_elapsed) => Err("others are still being looked up".to_owned()),
        };
        let result = LookedUp {
            backend_id,
            in_map: in_map.clone(),
            found,
        };
        if results.send(result).await.is_err() {
            return;
        }
        tokio::select! {
            () = sleep(INTERVAL) => {}
            // Without a sender the task is about to be ended.
            Ok(()) = now.changed() => {}
        }
    }
}

async fn look_up(resolver: &mut Resolver) -> Result<Vec<SocketAddr>, String> {
    let found = resolver.look_up(Instant::now() + PATIENCE).await;
    found.map(<[_]>::to_vec).map_err(|error| error.to_string())
}
