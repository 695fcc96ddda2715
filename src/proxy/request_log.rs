//! What the log says of single requests: why one failed, how a few of the good ones went, and how a
//! request found its session while that is on the move.

use std::cell::Cell;
use std::net::IpAddr;

use tracing::Level;

use super::copies::CopiedSession;
use super::error::{ProxyError, Unanswered};
use super::lock_queue::ItemHash;
use super::view::View;
use crate::handover::{BackendId, DriverTask, RequestEnd, RouteRef, Subrequest, SubrequestReply};
use crate::log::LogLimit;
use crate::metrics::RequestOutcome;
use crate::net::Moment;
use crate::route::{BackendIndex, Fingerprint, Slot};
use crate::wire::Operation;

/// What every line of a request says of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject {
    pub(super) peer: IpAddr,
    pub(super) operation: Operation,
    pub(super) session: Fingerprint,
    pub(super) slot: Slot,
    pub(super) item: ItemHash,
    /// Hash of what stands in front of the session id.
    pub(super) start_hash: u64,
    /// Its place among the applications of the view, of which there may be none.
    pub(super) application: usize,
    pub(super) route: RouteRef,
    /// When its head was there.
    pub(super) started: Moment,
}

impl Subject {
    /// The session, as its copy is noted.
    pub(super) const fn copied(&self) -> CopiedSession {
        CopiedSession {
            slot: self.slot,
            fingerprint: self.session,
        }
    }
}

/// The lines of one worker, each kind bounded by itself.
#[derive(Debug, Default)]
pub(super) struct LogLines {
    failures: LogLimit,
    answers: LogLimit,
    trails: LogLimit,
    followed: Cell<u64>,
}

/// One request on its way through the questions of a search, a line for each.
#[derive(Debug)]
pub(super) struct Trail {
    subject: Subject,
    worker: usize,
    /// Its number among those that this worker followed.
    request: u64,
    questions: u32,
}

/// A request whose answer was passed on.
pub(super) struct Answered {
    /// Who gave the answer.
    pub(super) backend: BackendIndex,
    pub(super) outcome: RequestOutcome,
    /// It says that the session is locked, has not been passed on, and may become another one soon.
    pub(super) is_queued: bool,
}

impl Subject {
    fn duration_ms(&self) -> f64 {
        (self.started.elapsed_ns() / 1000) as f64 / 1e3
    }

    /// Whose fault a refusal is that no backend has given cause for by itself: a slot with a second
    /// place is refused because of that one.
    pub(super) fn in_the_way(&self, view: &View) -> Option<BackendIndex> {
        let backend_id = self.route.second.unwrap_or(self.route.first);
        view.snapshot.backend_at(backend_id)
    }
}

impl LogLines {
    /// One line for a request that failed, unless lines come too fast.
    pub(super) fn failure(&self, view: &View, subject: &Subject, failed: &Unanswered, now_ms: u64) {
        let Some(suppressed) = self.failures.allow(now_ms) else {
            return;
        };
        let Unanswered { error, backend, .. } = failed;
        let of_slot = subject.in_the_way(view).unwrap_or(*backend);
        let backend = if error.has_backend() {
            *backend
        } else {
            of_slot
        };
        tracing::warn!(
            operation = subject.operation.name(),
            backend = view.backend(backend).name,
            phase = error.phase(),
            sessions = subject.route.stage.label(),
            duration_ms = subject.duration_ms(),
            session = %subject.session,
            peer = %subject.peer,
            suppressed,
            "request failed: {error}"
        );
    }

    /// One line for bytes that are no request, unless lines come too fast.
    pub(super) fn refusal(&self, peer: IpAddr, error: &ProxyError, now_ms: u64) {
        if let Some(suppressed) = self.failures.allow(now_ms) {
            tracing::warn!(peer = %peer, suppressed, "request refused: {error}");
        }
    }

    /// One line for a request that its backend has refused with a 400, unless lines come too fast.
    pub(super) fn refused_by_backend(
        &self,
        view: &View,
        subject: &Subject,
        answered: &Answered,
        now_ms: u64,
    ) {
        if let Some(suppressed) = self.failures.allow(now_ms) {
            tracing::warn!(
                operation = subject.operation.name(),
                backend = view.backend(answered.backend).name,
                session = %subject.session,
                peer = %subject.peer,
                suppressed,
                "the backend refused the request with status 400, so the page fails; a write is \
                 refused by a state server that is full"
            );
        }
    }

    /// One line for what stays behind at a backend until its session's next request or its end.
    pub(super) fn untidy(&self, backend: &str, reason: &str, now_ms: u64) {
        if let Some(suppressed) = self.failures.allow(now_ms) {
            tracing::warn!(
                backend,
                suppressed,
                "a lock that nobody holds stays: {reason}"
            );
        }
    }

    /// A line for some of the requests that were answered, if anybody wants them.
    pub(super) fn answered(
        &self,
        view: &View,
        subject: &Subject,
        answered: &Answered,
        now_ms: u64,
    ) {
        if !tracing::enabled!(Level::DEBUG) {
            return;
        }
        if let Some(suppressed) = self.answers.allow(now_ms) {
            tracing::debug!(
                operation = subject.operation.name(),
                backend = view.backend(answered.backend).name,
                result = answered.outcome.name(),
                stage = subject.route.stage.name(),
                duration_ms = subject.duration_ms(),
                session = %subject.session,
                peer = %subject.peer,
                suppressed,
                "request answered"
            );
        }
    }

    /// Follows some of the requests that have to ask around, if anybody wants that: one of them
    /// whole, or not at all.
    pub(super) fn follow(&self, subject: &Subject, worker: usize, now_ms: u64) -> Option<Trail> {
        if !tracing::enabled!(Level::DEBUG) {
            return None;
        }
        self.trails.allow(now_ms)?;
        let request = self.followed.get() + 1;
        self.followed.set(request);
        Some(Trail {
            subject: *subject,
            worker,
            request,
            questions: 0,
        })
    }
}

impl Trail {
    /// A question was answered, or not.
    pub(super) fn asked(&mut self, view: &View, ask: Subrequest, seen: SubrequestReply) {
        self.questions += 1;
        let (ask, at) = match ask {
            Subrequest::Client { at, .. } => ("its own request", at),
            Subrequest::Acquire { at } => ("acquire", at),
            Subrequest::Look { at } => ("touch", at),
            Subrequest::Insert { at } => ("put unless there", at),
            Subrequest::Release { at, .. } => ("release", at),
            Subrequest::Remove { at, .. } => ("remove", at),
            Subrequest::NoteDelete { to } => ("note removal for", to),
            Subrequest::Copy { at } | Subrequest::CopyHeld { at } => ("copy", at),
            Subrequest::Recall { at } => ("read copy", at),
            Subrequest::Refresh { at, .. } => ("refresh copy", at),
            Subrequest::CopyAnew { at, .. } => ("copy anew", at),
            Subrequest::Miss { at } => ("note missed copy of", at),
        };
        let seen = match seen {
            SubrequestReply::Done { .. } => "ok",
            SubrequestReply::Absent => "absent",
            SubrequestReply::Locked { .. } => "locked",
            SubrequestReply::Refused => "refused",
            SubrequestReply::Unknown => "unknown",
        };
        self.line(view, ask, Some(at), seen);
    }

    /// The search is over.
    pub(super) fn decided(&self, view: &View, task: DriverTask) {
        let DriverTask::End(end) = task else {
            return;
        };
        match end {
            RequestEnd::Forward { at, .. } => {
                self.line(view, "forward", Some(at), "its answer counts");
            }
            RequestEnd::Pass {
                behind: Some(Subrequest::Remove { at, .. }),
                ..
            } => self.line(view, "remove behind", Some(at), "moved"),
            RequestEnd::Pass { .. } => {
                self.line(view, "pass on", None, "the last answer counts");
            }
            RequestEnd::Fail { reason, .. } => self.line(view, "drop", None, &reason.to_string()),
        }
    }

    fn line(&self, view: &View, ask: &str, at: Option<BackendId>, seen: &str) {
        let backend = at.and_then(|at| view.snapshot.backend_at(at));
        tracing::debug!(
            worker = self.worker,
            request = self.request,
            question = self.questions,
            operation = self.subject.operation.name(),
            stage = self.subject.route.stage.name(),
            session = %self.subject.session,
            ask,
            backend = backend.map(|backend| view.backend(backend).name.as_str()),
            seen,
            duration_ms = self.subject.duration_ms(),
            "request followed"
        );
    }
}
