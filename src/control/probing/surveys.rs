//! One task per engine, which looks every minute, and whenever its health changes, whether sessions
//! are safe there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use crate::backend::Connector;
use crate::handover::BackendId;
use crate::store::{StoreDanger, StoreSurvey};

/// Results that wait for control at most; a task with one more waits itself.
const MAX_RESULTS: usize = 64;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(60);

/// The same while the engine cannot be used: what is said of it should end soon after that.
const INTERVAL_UNUSABLE: Duration = Duration::from_secs(5);

/// What one look has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surveyed {
    /// The backend on the engine.
    pub backend_id: BackendId,
    /// What there is to say of it.
    pub found: StoreSurvey,
}

/// The tasks. They end with this.
#[derive(Debug)]
pub struct Surveys {
    tasks: JoinSet<()>,
    running: HashMap<BackendId, Running>,
    results: mpsc::Sender<Surveyed>,
}

/// The task for one backend.
#[derive(Debug)]
struct Running {
    connector: Connector,
    task: AbortHandle,
    hurry: Arc<Notify>,
}

impl Surveys {
    /// No task yet; results arrive at the receiver.
    pub fn new() -> (Self, mpsc::Receiver<Surveyed>) {
        let (results, received) = mpsc::channel(MAX_RESULTS);
        let surveys = Self {
            tasks: JoinSet::new(),
            running: HashMap::new(),
            results,
        };
        (surveys, received)
    }

    /// Looks at exactly these from now on, at a new one at once; those that are not in this process
    /// are left out. Must be called on a runtime with timers, where tasks stay on their thread.
    pub fn follow(&mut self, backends: impl IntoIterator<Item = (BackendId, Connector)>) {
        let mut before = std::mem::take(&mut self.running);
        for (backend_id, connector) in backends {
            let running = match before.remove(&backend_id) {
                Some(running) if running.connector == connector => running,
                other => {
                    before.extend(other.map(|other| (backend_id, other)));
                    self.begin(backend_id, connector)
                }
            };
            self.running.insert(backend_id, running);
        }
        before.into_values().for_each(|before| before.task.abort());
        // What has ended is only kept until somebody looks.
        while self.tasks.try_join_next().is_some() {}
    }

    /// Looks at a backend now: something has changed there.
    pub fn hurry(&self, backend_id: BackendId) {
        if let Some(running) = self.running.get(&backend_id) {
            running.hurry.notify_one();
        }
    }

    fn begin(&mut self, backend_id: BackendId, connector: Connector) -> Running {
        let hurry = Arc::<Notify>::default();
        let (results, hurried, asked) =
            (self.results.clone(), Arc::clone(&hurry), connector.clone());
        let task = self.tasks.spawn_local(async move {
            let Connector::Local(server) = asked else {
                return;
            };
            loop {
                let found = server.survey().await;
                let is_unusable = matches!(found.dangers[..], [StoreDanger::Unusable { .. }, ..]);
                if results.send(Surveyed { backend_id, found }).await.is_err() {
                    return;
                }
                let interval = if is_unusable {
                    INTERVAL_UNUSABLE
                } else {
                    INTERVAL
                };
                let _ = timeout(interval, hurried.notified()).await;
            }
        });
        Running {
            connector,
            task,
            hurry,
        }
    }
}
