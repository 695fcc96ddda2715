//! From a request to its answer.

use std::net::IpAddr;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;

use super::AdminOptions;
use super::access::{self, Denied};
use super::page;
use crate::control::handle::{ControlGone, ControlHandle};
use crate::control::status::{ReloadResult, Status, Verdict};
use crate::metrics::Metrics;

/// Bytes of a request's body; no page has a use for one.
const MAX_BODY_BYTES: usize = 4096;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// Prometheus' text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Admin,
    Healthz,
    Readyz,
    Reload,
    Peer,
    Status,
    Metrics,
    History,
}

/// Every page by its path.
const PAGES: [(&str, Page); 8] = [
    ("/", Page::Admin),
    ("/healthz", Page::Healthz),
    ("/readyz", Page::Readyz),
    ("/reload", Page::Reload),
    ("/peer", Page::Peer),
    ("/status", Page::Status),
    ("/metrics", Page::Metrics),
    ("/history", Page::History),
];

/// Answers one request, which came from `peer`.
pub(super) async fn answer<B>(
    request: Request<B>,
    peer: IpAddr,
    control: &ControlHandle,
    metrics: &Metrics,
    options: &AdminOptions,
) -> Response<Full<Bytes>>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let path = request.uri().path();
    let Some((_, page)) = PAGES.iter().find(|(known, _)| *known == path) else {
        return text(StatusCode::NOT_FOUND, "there is no such page");
    };
    if !page.methods().contains(request.method()) {
        return page.wrong_method();
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    let token = control.published().token.clone();
    if page.changes_something()
        && let Err(denied) = access::check(request.headers(), peer, token.as_ref())
    {
        return denied.into();
    }
    if let Err(refusal) = skip_body(request.into_body(), options).await {
        return refusal;
    }
    match page {
        Page::Healthz => text(StatusCode::OK, "ok"),
        Page::Readyz if !control.is_running() => {
            text(StatusCode::SERVICE_UNAVAILABLE, &ControlGone.to_string())
        }
        Page::Readyz => readiness(&control.published().status),
        Page::Reload => reload(control).await,
        Page::Peer => json(StatusCode::OK, &control.published().peer.report()),
        Page::Status => json(StatusCode::OK, &control.published().status),
        Page::Metrics => scrape(control, metrics),
        Page::History => history(control, &query),
        Page::Admin => page::response(),
    }
}

impl Page {
    fn methods(self) -> &'static [Method] {
        match self {
            Self::Reload => &[Method::POST],
            _ => &[Method::GET, Method::HEAD],
        }
    }

    fn changes_something(self) -> bool {
        self.methods().contains(&Method::POST)
    }

    fn wrong_method(self) -> Response<Full<Bytes>> {
        let allowed = match self {
            Self::Reload => "POST",
            _ => "GET, HEAD",
        };
        let message = format!("ask for it with {allowed}");
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, &message);
        let headers = response.headers_mut();
        headers.insert(ALLOW, HeaderValue::from_static(allowed));
        response
    }
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
async fn skip_body<B>(body: B, options: &AdminOptions) -> Result<(), Response<Full<Bytes>>>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let too_long = || {
        let message = format!("the body is longer than {MAX_BODY_BYTES} bytes");
        text(StatusCode::PAYLOAD_TOO_LARGE, &message)
    };
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(too_long());
    }
    let body = Limited::new(body, MAX_BODY_BYTES).collect();
    match tokio::time::timeout(options.receive, body).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long()),
        Ok(Err(_)) => Err(text(StatusCode::BAD_REQUEST, "the body cannot be read")),
        Err(_late) => Err(text(
            StatusCode::REQUEST_TIMEOUT,
            "the body came too slowly",
        )),
    }
}

fn readiness(status: &Status) -> Response<Full<Bytes>> {
    let serves = |verdict| verdict != Verdict::Down;
    if status
        .backends
        .iter()
        .any(|backend| serves(backend.verdict))
    {
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

/// The samples that came after `since`, Unix time in milliseconds; all without it.
fn history(control: &ControlHandle, query: &str) -> Response<Full<Bytes>> {
    let since = query
        .split('&')
        .find_map(|part| part.strip_prefix("since="));
    match since.unwrap_or("0").parse() {
        Ok(since_ms) => json(StatusCode::OK, &control.published().history.page(since_ms)),
        Err(_) => text(
            StatusCode::BAD_REQUEST,
            "since takes Unix time in milliseconds",
        ),
    }
}

fn scrape(control: &ControlHandle, metrics: &Metrics) -> Response<Full<Bytes>> {
    match metrics.scrape(&control.published().metrics) {
        Ok(text) => respond(StatusCode::OK, METRICS, text.into()),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn json(status: StatusCode, content: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(content) {
        Ok(mut body) => {
            body.push(b'\n');
            respond(status, JSON, body.into())
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn text(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
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
