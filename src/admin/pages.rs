//! From a request to its answer.

use std::sync::Arc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::access::Guard;
use super::page;
use super::plan::{self, MAX_MAP_BYTES, Planner, QuestionError};
use super::query::Query;
use super::refusals::Refusals;
use super::respond::{json, respond, text};
use super::routes::{AdminRequest, AdminRoute, Site};
use super::steer::Steering;
use crate::config::BackendAddress;
use crate::control::handle::{AdminAccess, ControlHandle};
use crate::control::report::plan::PlanReport;
use crate::control::report::status::{ReloadResult, SteerResult};
use crate::metrics::Metrics;

/// Prometheus' text format.
pub(super) const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A proxy: what its answers come from.
#[derive(Debug, Clone)]
pub(super) struct ProxySite {
    pub(super) control: ControlHandle,
    pub(super) metrics: Arc<Metrics>,
    pub(super) planner: Planner,
    pub(super) refusals: Refusals,
}

impl Site for ProxySite {
    const ROUTES: &'static [AdminRoute<Self>] = &[
        AdminRoute::get("/healthz", Guard::Open, |_, _| {
            Box::pin(async { text(StatusCode::OK, "ok") })
        }),
        AdminRoute::get("/readyz", Guard::Open, |site, _| {
            Box::pin(async { readiness(&site.control) })
        }),
        AdminRoute::get("/", Guard::Read, |_, _| {
            Box::pin(async { page::response() })
        }),
        AdminRoute::get("/peer", Guard::Read, |site, _| {
            Box::pin(async { peer_report(&site.control) })
        }),
        AdminRoute::get("/status", Guard::Read, |site, _| {
            Box::pin(async { json(StatusCode::OK, &site.control.published().status) })
        }),
        AdminRoute::get("/metrics", Guard::Read, |site, _| {
            Box::pin(async { site.scrape() })
        }),
        AdminRoute::get("/history", Guard::Read, |site, asked| {
            Box::pin(async move { history(&asked.query, &site.control) })
        }),
        AdminRoute::get("/contents", Guard::Read, |site, _| {
            Box::pin(async { json(StatusCode::OK, &site.control.contents()) })
        }),
        AdminRoute::get("/route", Guard::Read, |site, asked| {
            Box::pin(async move { found(plan::route(&asked.query, &site.control).await) })
        }),
        AdminRoute::<Self>::get("/plan", Guard::Work, |site, asked| {
            Box::pin(site.plan_without_map(asked))
        }),
        AdminRoute::<Self>::post("/plan", Guard::Work, |site, asked| {
            Box::pin(site.plan(asked))
        })
        .with_body(MAX_MAP_BYTES),
        AdminRoute::post("/reload", Guard::Change, |site, _| {
            Box::pin(reload(&site.control))
        }),
        AdminRoute::post("/backends/*", Guard::Change, |site, asked| {
            Box::pin(steer(asked, &site.control))
        }),
        AdminRoute::post("/peers/*", Guard::Change, |site, asked| {
            Box::pin(leave_behind(asked, &site.control))
        }),
    ];

    fn access(&self) -> AdminAccess {
        self.control.published().access.clone()
    }

    fn refusals(&self) -> &Refusals {
        &self.refusals
    }
}

impl ProxySite {
    fn scrape(&self) -> Response<Full<Bytes>> {
        let mut pool = self.control.published().metrics.clone();
        pool.contents = Vec::from(&self.control.contents());
        match self.metrics.scrape(&pool) {
            Ok(text) => respond(StatusCode::OK, METRICS, text.into()),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }

    async fn plan_without_map(&self, asked: AdminRequest<'_>) -> Response<Full<Bytes>> {
        let (planner, query, control) = (&self.planner, &asked.query, &self.control);
        if query.get("backend").is_none() {
            return found(planner.suggest(query, control).await);
        }
        planned(planner.plan_order(query, control).await)
    }

    async fn plan(&self, asked: AdminRequest<'_>) -> Response<Full<Bytes>> {
        let (query, control) = (&asked.query, &self.control);
        planned(self.planner.plan(asked.body, query, control).await)
    }
}

/// Whether a balancer should send web servers here, and what keeps it from that.
fn readiness(control: &ControlHandle) -> Response<Full<Bytes>> {
    let published = control.published();
    let mut findings = published.status.findings.iter();
    match findings.find(|finding| finding.code.keeps_from_serving()) {
        None => text(StatusCode::OK, "ready"),
        Some(finding) => text(StatusCode::SERVICE_UNAVAILABLE, &finding.says),
    }
}

/// What was published last may no longer be true when control is silent, and a peer would rely on
/// it.
fn peer_report(control: &ControlHandle) -> Response<Full<Bytes>> {
    match control.silence() {
        Some(silence) => text(StatusCode::SERVICE_UNAVAILABLE, &silence.to_string()),
        None => json(StatusCode::OK, &control.published().peer.report()),
    }
}

async fn reload(control: &ControlHandle) -> Response<Full<Bytes>> {
    match control.reload().await {
        Ok(outcome) if outcome.result == ReloadResult::Refused => {
            json(StatusCode::UNPROCESSABLE_ENTITY, &outcome)
        }
        Ok(outcome) => json(StatusCode::OK, &outcome),
        Err(gone) => text(StatusCode::SERVICE_UNAVAILABLE, &gone.to_string()),
    }
}

async fn steer(asked: AdminRequest<'_>, control: &ControlHandle) -> Response<Full<Bytes>> {
    let Some(steering) = Steering::of(asked.path) else {
        return text(StatusCode::NOT_FOUND, "there is no such page");
    };
    let (order, is_dry_run) = match steering.order(&asked.query) {
        Ok(order) => order,
        Err(problem) => return text(StatusCode::BAD_REQUEST, &problem),
    };
    let published = control.published();
    let mut backends = published.status.backends.iter();
    if !backends.any(|backend| backend.name == steering.backend()) {
        return text(StatusCode::NOT_FOUND, "there is no such backend");
    }
    let steered = if is_dry_run {
        control.dry_run(order).await
    } else {
        control.steer(order).await
    };
    match steered {
        Ok(outcome) if outcome.result == SteerResult::Refused => {
            json(StatusCode::UNPROCESSABLE_ENTITY, &outcome)
        }
        Ok(outcome) => json(StatusCode::OK, &outcome),
        Err(gone) => text(StatusCode::SERVICE_UNAVAILABLE, &gone.to_string()),
    }
}

/// `POST /peers/ADDRESS/gone`.
async fn leave_behind(asked: AdminRequest<'_>, control: &ControlHandle) -> Response<Full<Bytes>> {
    let address = asked.path.strip_prefix("/peers/");
    let address = address.and_then(|rest| rest.strip_suffix("/gone"));
    let Some(address) = address else {
        return text(StatusCode::NOT_FOUND, "there is no such page");
    };
    let Ok(peer) = BackendAddress::parse(address) else {
        return text(StatusCode::BAD_REQUEST, "this is no address of a peer");
    };
    let is_dry_run = match (asked.query.only(&["dry_run"]), asked.query.get("dry_run")) {
        (Ok(()), None) => false,
        (Ok(()), Some("true")) => true,
        (Ok(()), Some(_)) => {
            return text(StatusCode::BAD_REQUEST, "dry_run takes nothing but true");
        }
        (Err(problem), _) => return text(StatusCode::BAD_REQUEST, &problem),
    };
    match control.leave_behind(peer, is_dry_run).await {
        Ok(outcome) if outcome.result == SteerResult::Refused => {
            json(StatusCode::UNPROCESSABLE_ENTITY, &outcome)
        }
        Ok(outcome) => json(StatusCode::OK, &outcome),
        Err(gone) => text(StatusCode::SERVICE_UNAVAILABLE, &gone.to_string()),
    }
}

/// The samples that came after `since`, Unix time in milliseconds; all without it.
fn history(query: &Query<'_>, control: &ControlHandle) -> Response<Full<Bytes>> {
    if let Err(problem) = query.only(&["since"]) {
        return text(StatusCode::BAD_REQUEST, &problem);
    }
    match query.get("since").unwrap_or("0").parse() {
        Ok(since_ms) => json(StatusCode::OK, &control.published().history.page(since_ms)),
        Err(_) => text(
            StatusCode::BAD_REQUEST,
            "since takes Unix time in milliseconds",
        ),
    }
}

fn planned(report: Result<PlanReport, QuestionError>) -> Response<Full<Bytes>> {
    match report {
        Ok(report) => json(plan::status_of(&report), &report),
        Err(error) => text(error.status(), &error.to_string()),
    }
}

fn found(answer: Result<impl Serialize, QuestionError>) -> Response<Full<Bytes>> {
    match answer {
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(error) => text(error.status(), &error.to_string()),
    }
}
