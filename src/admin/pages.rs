//! From a request to its answer.

use std::net::IpAddr;
use std::sync::Arc;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;

use super::AdminOptions;
use super::access::{self, Denied};
use super::page;
use super::plan::{self, MAX_MAP_BYTES, Planner, QuestionError};
use super::query::Query;
use super::site::Site;
use super::steer::Steering;
use crate::control::handle::{ControlGone, ControlHandle};
use crate::control::status::{BackendStatus, ReloadResult, Status, SteerResult};
use crate::metrics::Metrics;

/// Bytes of a request's body where there is no use for one.
pub(super) const MAX_BODY_BYTES: usize = 4096;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// Prometheus' text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page<'p> {
    Admin,
    Healthz,
    Readyz,
    Reload,
    Peer,
    Status,
    Metrics,
    History,
    Steer(Steering<'p>),
    Plan,
    Route,
}

/// Every page that has a path of its own.
const PAGES: [(&str, Page<'static>); 10] = [
    ("/", Page::Admin),
    ("/healthz", Page::Healthz),
    ("/readyz", Page::Readyz),
    ("/reload", Page::Reload),
    ("/peer", Page::Peer),
    ("/status", Page::Status),
    ("/metrics", Page::Metrics),
    ("/history", Page::History),
    ("/plan", Page::Plan),
    ("/route", Page::Route),
];

/// A proxy: what its answers come from.
#[derive(Debug, Clone)]
pub(super) struct ProxySite {
    pub(super) control: ControlHandle,
    pub(super) metrics: Arc<Metrics>,
    pub(super) planner: Planner,
}

impl Site for ProxySite {
    async fn answer(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        options: &AdminOptions,
    ) -> Response<Full<Bytes>> {
        let target = request.uri().clone();
        let Some(page) = Page::of(target.path()) else {
            return text(StatusCode::NOT_FOUND, "there is no such page");
        };
        let method = request.method().clone();
        if !page.methods().contains(&method) {
            return page.wrong_method();
        }
        let token = self.control.published().token.clone();
        if page.changes_something()
            && let Err(denied) = access::check(request.headers(), peer, token.as_ref())
        {
            return denied.into();
        }
        let max_bytes = match (page, &method) {
            (Page::Plan, &Method::POST) => MAX_MAP_BYTES,
            _ => MAX_BODY_BYTES,
        };
        let query = Query::new(target.query());
        match read_body(request.into_body(), max_bytes, options).await {
            Ok(map) if page == Page::Plan && method == Method::POST => self.plan(map, &query).await,
            Ok(_) => self.page(page, &query).await,
            Err(refusal) => refusal,
        }
    }
}

impl ProxySite {
    async fn page(&self, page: Page<'_>, query: &Query<'_>) -> Response<Full<Bytes>> {
        let control = &self.control;
        match page {
            Page::Healthz => text(StatusCode::OK, "ok"),
            Page::Readyz if !control.is_running() => {
                text(StatusCode::SERVICE_UNAVAILABLE, &ControlGone.to_string())
            }
            Page::Readyz => readiness(&control.published().status),
            Page::Reload => reload(control).await,
            Page::Peer => json(StatusCode::OK, &control.published().peer.report()),
            Page::Status => json(StatusCode::OK, &control.published().status),
            Page::Metrics => self.scrape(),
            Page::History => history(query, control),
            Page::Admin => page::response(),
            Page::Steer(steering) => steer(steering, query, control).await,
            Page::Plan => found(self.planner.suggest(query, control).await),
            Page::Route => found(plan::route(query, control).await),
        }
    }

    fn scrape(&self) -> Response<Full<Bytes>> {
        match self.metrics.scrape(&self.control.published().metrics) {
            Ok(text) => respond(StatusCode::OK, METRICS, text.into()),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }

    async fn plan(&self, map: Bytes, query: &Query<'_>) -> Response<Full<Bytes>> {
        match self.planner.plan(map, query, &self.control).await {
            Ok(report) => json(plan::status_of(&report), &report),
            Err(error) => text(error.status(), &error.to_string()),
        }
    }
}

impl<'p> Page<'p> {
    fn of(path: &'p str) -> Option<Self> {
        let page = PAGES.iter().find(|(known, _)| *known == path);
        page.map(|(_, page)| *page)
            .or_else(|| Steering::of(path).map(Self::Steer))
    }

    fn methods(self) -> &'static [Method] {
        match self {
            Self::Reload | Self::Steer(_) => &[Method::POST],
            Self::Plan => &[Method::GET, Method::HEAD, Method::POST],
            _ => &[Method::GET, Method::HEAD],
        }
    }

    fn changes_something(self) -> bool {
        matches!(self, Self::Reload | Self::Steer(_))
    }

    fn wrong_method(self) -> Response<Full<Bytes>> {
        wrong_method(match self {
            Self::Reload | Self::Steer(_) => "POST",
            Self::Plan => "GET, HEAD, POST",
            _ => "GET, HEAD",
        })
    }
}

pub(super) fn wrong_method(allowed: &'static str) -> Response<Full<Bytes>> {
    let message = format!("ask for it with {allowed}");
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, &message);
    let headers = response.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

impl From<Denied> for Response<Full<Bytes>> {
    fn from(denied: Denied) -> Self {
        let Some(challenge) = denied.challenge() else {
            return text(StatusCode::FORBIDDEN, &denied.to_string());
        };
        let mut response = text(StatusCode::UNAUTHORIZED, &denied.to_string());
        let headers = response.headers_mut();
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        response
    }
}

/// Reads a body to its end, so that the next request can follow on the connection.
pub(super) async fn read_body<B>(
    body: B,
    max_bytes: usize,
    options: &AdminOptions,
) -> Result<Bytes, Response<Full<Bytes>>>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let too_long = || {
        let message = format!("the body is longer than {max_bytes} bytes");
        text(StatusCode::PAYLOAD_TOO_LARGE, &message)
    };
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(too_long());
    }
    let body = Limited::new(body, max_bytes).collect();
    match tokio::time::timeout(options.receive, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long()),
        Ok(Err(_)) => Err(text(StatusCode::BAD_REQUEST, "the body cannot be read")),
        Err(_late) => Err(text(
            StatusCode::REQUEST_TIMEOUT,
            "the body came too slowly",
        )),
    }
}

fn readiness(status: &Status) -> Response<Full<Bytes>> {
    if status.backends.iter().any(BackendStatus::serves) {
        text(StatusCode::OK, "ready")
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, "no backend is up")
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

async fn steer(
    steering: Steering<'_>,
    query: &Query<'_>,
    control: &ControlHandle,
) -> Response<Full<Bytes>> {
    let (order, is_dry_run) = match steering.order(query) {
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

fn found(answer: Result<impl Serialize, QuestionError>) -> Response<Full<Bytes>> {
    match answer {
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(error) => text(error.status(), &error.to_string()),
    }
}

pub(super) fn json(status: StatusCode, content: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(content) {
        Ok(mut body) => {
            body.push(b'\n');
            respond(status, JSON, body.into())
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

pub(super) fn text(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    respond(status, TEXT, format!("{message}\n").into())
}

pub(super) fn respond(
    status: StatusCode,
    kind: &'static str,
    body: Bytes,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
