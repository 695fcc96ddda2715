//! What others may ask of control, and what it publishes for them. They know nothing of how it
//! decides.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::contents::ContentsBoard;
use super::peers::report::PeerState;
use super::pool_state::{Order, PoolState};
use super::pulse::{Pulse, Stuck};
use super::report::contents::ContentsReport;
use super::report::finding::{self, Finding};
use super::report::history::History;
use super::report::status::{ReloadOutcome, Status, SteerOutcome, SteerPeerOutcome};
use crate::config::{AdminToken, BackendAddress};
use crate::metrics::PoolMetrics;

/// Requests that wait for control at most.
const MAX_COMMANDS: usize = 64;

/// How often whoever waits for an answer looks whether control still goes on.
const LOOK: Duration = Duration::from_secs(1);

/// What control is asked or told from outside.
#[derive(Debug)]
pub enum ControlCommand {
    /// Read the files again and answer how that ended.
    Reload(oneshot::Sender<ReloadOutcome>),
    /// Give a backend another state than the map does and answer how that ended.
    Steer(Order, oneshot::Sender<SteerOutcome>),
    /// Answer how that would end, and leave everything as it is.
    DryRun(Order, oneshot::Sender<SteerOutcome>),
    /// Answer with a copy of the pool.
    Pool(oneshot::Sender<Box<PoolState>>),
    /// What became of asking a peer.
    Peer(PeerNews),
    /// Go on without a peer and answer whether that is so now, or check only whether it could be.
    LeaveBehind {
        /// Its address in the `peers` of the main file.
        peer: BackendAddress,
        /// Nothing is to change.
        is_dry_run: bool,
        /// Told how it ended.
        answer: oneshot::Sender<SteerPeerOutcome>,
    },
}

/// What one peer has answered.
#[derive(Debug)]
pub struct PeerNews {
    /// Its address in the `peers` of the main file.
    pub address: BackendAddress,
    /// When it was asked, by control's clock: what it says may have changed since.
    pub asked_ms: u64,
    /// The body of its answer to `GET /peer`, or why there is none.
    pub answer: Result<Vec<u8>, String>,
    /// Something takes connections at its address, whatever it answers.
    pub is_there: bool,
}

/// What control lets others see, written anew as a whole.
#[derive(Debug, Clone)]
pub struct Published {
    /// What `GET /status` answers.
    pub status: Status,
    /// What `GET /history` answers.
    pub history: Arc<History>,
    /// What `GET /peer` answers.
    pub peer: PeerState,
    /// What `GET /metrics` answers beside what the workers count.
    pub metrics: PoolMetrics,
    /// Who may ask the admin server.
    pub access: AdminAccess,
    /// The admin addresses of the other proxies, which are to be asked.
    pub peers: Vec<BackendAddress>,
}

/// Who may ask the admin server.
#[derive(Debug, Clone, Default)]
pub struct AdminAccess {
    /// What whoever changes something has to show; `None` where this machine alone may.
    pub token: Option<AdminToken>,
    /// Host names that the admin server is known under beside its IP addresses and `localhost`, in
    /// lower case.
    pub hosts: Vec<String>,
}

impl Published {
    /// The same with one more finding: what control itself cannot say.
    fn with(&self, finding: Finding) -> Self {
        let mut published = self.clone();
        let findings = &mut published.status.findings;
        findings.push(finding);
        findings.sort_by_key(|finding| (finding.level, finding.code));
        published.metrics.findings = finding::counted(findings);
        published
    }
}

/// Control does not answer: it has ended, or is stuck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("control does not answer")]
pub struct ControlGone;

/// Why control says nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// Its thread has ended.
    #[error("control has ended")]
    Ended,
    /// Its thread hangs.
    #[error("control is {0}")]
    Stuck(Stuck),
}

/// The way to control, for any thread.
#[derive(Debug, Clone)]
pub struct ControlHandle {
    commands: mpsc::Sender<ControlCommand>,
    published: watch::Receiver<Arc<Published>>,
    pulse: Pulse,
    contents: ContentsBoard,
}

/// Control's end of its handles.
#[derive(Debug)]
pub struct ControlEnd {
    /// What it is asked and told.
    pub commands: mpsc::Receiver<ControlCommand>,
    /// Where it shows what others may see.
    pub published: watch::Sender<Arc<Published>>,
    /// Where it says that it goes on.
    pub pulse: Pulse,
}

/// A handle and control's end of it.
pub fn handle(first: Published, contents: ContentsBoard) -> (ControlHandle, ControlEnd) {
    let (send, commands) = mpsc::channel(MAX_COMMANDS);
    let (publish, published) = watch::channel(Arc::new(first));
    let pulse = Pulse::default();
    let handle = ControlHandle {
        commands: send,
        published,
        pulse: pulse.clone(),
        contents,
    };
    let end = ControlEnd {
        commands,
        published: publish,
        pulse,
    };
    (handle, end)
}

impl ControlHandle {
    /// What control has published last, with a finding if it publishes nothing any more.
    pub fn published(&self) -> Arc<Published> {
        let last = Arc::clone(&self.published.borrow());
        let found = match self.silence() {
            None => return last,
            Some(Silence::Ended) => Finding::control_stopped(),
            Some(Silence::Stuck(stuck)) => Finding::control_stuck(stuck),
        };
        Arc::new(last.with(found.since(last.status.now_ms)))
    }

    /// What fills the servers.
    pub fn contents(&self) -> ContentsReport {
        self.contents.report()
    }

    /// Why what was published last may no longer be true; `None` while control goes on.
    pub fn silence(&self) -> Option<Silence> {
        if self.commands.is_closed() {
            return Some(Silence::Ended);
        }
        self.pulse.stuck().map(Silence::Stuck)
    }

    /// Has the files read again at once, whatever their content.
    ///
    /// # Errors
    /// [`ControlGone`].
    pub async fn reload(&self) -> Result<ReloadOutcome, ControlGone> {
        self.ask(ControlCommand::Reload).await
    }

    /// Gives a backend another state than the map does, or takes that back.
    ///
    /// # Errors
    /// [`ControlGone`].
    pub async fn steer(&self, order: Order) -> Result<SteerOutcome, ControlGone> {
        self.ask(|answer| ControlCommand::Steer(order, answer))
            .await
    }

    /// What [`Self::steer`] would answer now. Nothing changes by that.
    ///
    /// # Errors
    /// [`ControlGone`].
    pub async fn dry_run(&self, order: Order) -> Result<SteerOutcome, ControlGone> {
        self.ask(|answer| ControlCommand::DryRun(order, answer))
            .await
    }

    /// A copy of the pool as it is, for questions that take longer than control can wait.
    ///
    /// # Errors
    /// [`ControlGone`].
    pub async fn pool(&self) -> Result<Box<PoolState>, ControlGone> {
        self.ask(ControlCommand::Pool).await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> ControlCommand,
    ) -> Result<T, ControlGone> {
        let (answer, answered) = oneshot::channel();
        let ask = async {
            let sent = self.commands.send(command(answer)).await;
            sent.map_err(|_ended| ControlGone)?;
            answered.await.map_err(|_ended| ControlGone)
        };
        tokio::select! {
            answer = ask => answer,
            () = self.falls_silent() => Err(ControlGone),
        }
    }

    async fn falls_silent(&self) {
        while self.silence().is_none() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Goes on without the peer at this address, or checks whether that could be.
    ///
    /// # Errors
    /// [`ControlGone`].
    pub async fn leave_behind(
        &self,
        peer: BackendAddress,
        is_dry_run: bool,
    ) -> Result<SteerPeerOutcome, ControlGone> {
        self.ask(|answer| ControlCommand::LeaveBehind {
            peer,
            is_dry_run,
            answer,
        })
        .await
    }

    /// Waits until control has published something.
    ///
    /// # Errors
    /// [`ControlGone`] when control has ended.
    pub async fn changed(&mut self) -> Result<(), ControlGone> {
        let changed = self.published.changed().await;
        changed.map_err(|_ended| ControlGone)
    }

    /// Has the files read again without waiting for the result, which is logged.
    pub fn reload_soon(&self) {
        // When so many requests wait already, one of them does it.
        let _ = self
            .commands
            .try_send(ControlCommand::Reload(oneshot::channel().0));
    }

    /// Tells what a peer has answered. Waits while control is busy.
    ///
    /// # Errors
    /// [`ControlGone`] when control has ended.
    pub async fn tell_of_peer(&self, news: PeerNews) -> Result<(), ControlGone> {
        let command = ControlCommand::Peer(news);
        let sent = self.commands.send(command).await;
        sent.map_err(|_ended| ControlGone)
    }
}
