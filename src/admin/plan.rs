//! `POST /plan`, `GET /plan?suggest=`, `GET /plan?backend=` and `GET /route?id=`: questions that take a copy of the pool,
//! or a placement that has yet to be built.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::body::Bytes;
use tokio::sync::Semaphore;

use super::query::Query;
use super::steer;
use crate::config::PartitionMap;
use crate::control::handle::{ControlGone, ControlHandle};
use crate::control::pool_state::PoolState;
use crate::control::report::finding::{Code, Finding};
use crate::control::report::load::Loads;
use crate::control::report::plan::{PlanReport, PlanResult, plan, plan_order};
use crate::control::report::slot_view::{SlotView, slot_view};
use crate::control::report::suggest::{Suggestion, suggest};
use crate::route::{KeyBuffer, extract};

/// Bytes of a partition map: what is longer is refused when it is parsed, too.
pub(super) const MAX_MAP_BYTES: usize = 1 << 20;

/// What a map is called that came in a request.
const MAP_NAME: &str = "map";

/// One placement is built at a time, whoever asks: it takes a processor for a while.
#[derive(Debug, Clone)]
pub(super) struct Planner(Arc<Semaphore>);

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum QuestionError {
    /// The query is not one.
    #[error("{0}")]
    Query(String),
    /// What is asked for cannot be known.
    #[error("{0}")]
    Unknown(String),
    /// Control does not answer.
    #[error(transparent)]
    Gone(#[from] ControlGone),
    /// The task that worked on it has panicked, and said so on stderr.
    #[error("the answer could not be worked out")]
    Broken,
}

impl Planner {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }

    /// What the map in `text` would do.
    pub(super) async fn plan(
        &self,
        text: Bytes,
        query: &Query<'_>,
        control: &ControlHandle,
    ) -> Result<PlanReport, QuestionError> {
        query.only(&[]).map_err(QuestionError::Query)?;
        let loads = loads(control);
        let findings = control.published().status.findings.clone();
        self.work(control, move |pool_state| {
            let mut report = plan(pool_state, &text, MAP_NAME, &loads);
            report.warnings.extend(uncured(&findings, &text));
            report
        })
        .await
    }

    /// What an order about one backend would do.
    pub(super) async fn plan_order(
        &self,
        query: &Query<'_>,
        control: &ControlHandle,
    ) -> Result<PlanReport, QuestionError> {
        let order = steer::order_of(query).map_err(QuestionError::Query)?;
        let published = control.published();
        let (loads, now_ms) = (loads(control), published.status.now_ms);
        self.work(control, move |pool_state| {
            plan_order(pool_state, &order, &loads, now_ms)
        })
        .await
    }

    /// What would bring every backend under a share of its capacity.
    pub(super) async fn suggest(
        &self,
        query: &Query<'_>,
        control: &ControlHandle,
    ) -> Result<Suggestion, QuestionError> {
        query.only(&["suggest"]).map_err(QuestionError::Query)?;
        let percent = query.get("suggest").and_then(|text| text.parse().ok());
        let Some(percent) = percent.filter(|percent| (1.0..=100.0).contains(percent)) else {
            let problem = "ask with suggest= and a percentage from 1 to 100, with backend= and state=, or POST a map";
            return Err(QuestionError::Query(problem.to_owned()));
        };
        let loads = loads(control);
        let suggested = self
            .work(control, move |pool_state| {
                suggest(pool_state, percent, &loads)
            })
            .await?;
        suggested.map_err(|error| QuestionError::Unknown(error.to_string()))
    }

    async fn work<T: Send + 'static>(
        &self,
        control: &ControlHandle,
        work: impl FnOnce(&PoolState) -> T + Send + 'static,
    ) -> Result<T, QuestionError> {
        // Never closed.
        let turn = Arc::clone(&self.0).acquire_owned().await;
        let turn = turn.map_err(|_| QuestionError::Broken)?;
        let pool = control.pool().await?;
        // The turn ends with the work: whoever asked may leave before, which ends this future only.
        let worked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work(&pool)
        });
        worked.await.map_err(|_panicked| QuestionError::Broken)
    }
}

/// Where a session is. Its id is a secret: the answer names it by its fingerprint.
pub(super) async fn route(
    query: &Query<'_>,
    control: &ControlHandle,
) -> Result<SlotView, QuestionError> {
    query.only(&["id"]).map_err(QuestionError::Query)?;
    let id = query.get("id").unwrap_or_default();
    let mut buffer = KeyBuffer::new();
    let Ok(key) = extract(id.as_bytes(), &mut buffer) else {
        let problem = "ask with id= and a session id, or a whole request target".to_owned();
        return Err(QuestionError::Query(problem));
    };
    Ok(slot_view(
        &*control.pool().await?,
        id.as_bytes(),
        key.session_id(),
    ))
}

/// The applications that go by several ids, with the entry for the map, as far as the map in `text` has
/// none for them.
fn uncured(findings: &[Finding], text: &[u8]) -> Vec<String> {
    let Ok(map) = PartitionMap::parse(text, MAP_NAME) else {
        return Vec::new();
    };
    let has_entry = |id: &str| {
        let mut applications = map.applications.iter();
        applications.any(|spec| spec.application.has_id(id.as_bytes()))
    };
    let differ = findings
        .iter()
        .filter(|finding| finding.code == Code::ApplicationIdsDiffer);
    let uncured = differ.filter(|finding| !finding.about.as_deref().is_some_and(has_entry));
    uncured
        .map(|finding| format!("{}. {}", finding.says, finding.action))
        .collect()
}

fn loads(control: &ControlHandle) -> Loads {
    Loads::from(&control.published().status)
}

/// The status of an answer to `POST /plan`.
pub(super) fn status_of(report: &PlanReport) -> StatusCode {
    match report.result {
        PlanResult::Accepted | PlanResult::Unchanged => StatusCode::OK,
        PlanResult::Refused => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

impl QuestionError {
    /// The status of the answer that says so.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Query(_) => StatusCode::BAD_REQUEST,
            Self::Unknown(_) => StatusCode::CONFLICT,
            Self::Gone(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::backend::Connector;
    use crate::config::Config;
    use crate::control::{ControlOptions, prepare};

    const MAP: &str = "version: 1\nbackends: [{name: a, id: 1, address: '10.0.0.1:1'}]";

    #[tokio::test]
    async fn a_turn_lasts_as_long_as_the_work_whoever_waits_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::new("map.yaml");
        config.handover.state_file = directory.path().join("state");
        let prepared = prepare(ControlOptions {
            config,
            map: PartitionMap::parse(MAP, "map.yaml").unwrap(),
            main_file: None,
            level: None,
            certificates: Default::default(),
            engines: |_, _| Connector::Nowhere,
        });
        let prepared = prepared.unwrap();
        let control = prepared.ends.handle;
        let running = prepared.control.spawn(prepared.inbox).unwrap();
        let planner = Planner::new();
        let (begin, mut begun) = tokio::sync::oneshot::channel();
        let (end, ended) = mpsc::channel::<()>();
        {
            let asked = planner.work(&control, move |_| {
                begin.send(()).unwrap();
                ended.recv()
            });
            tokio::select! {
                _ = asked => unreachable!("it waits for us"),
                begun = &mut begun => begun.unwrap(),
            }
        }
        // Whoever asked has left, and the work goes on.
        assert_eq!(planner.0.available_permits(), 0);
        end.send(()).unwrap();
        assert!(planner.work(&control, |_| ()).await.is_ok());
        running.stop();
    }
}
