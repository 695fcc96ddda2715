//! From a request to the row of a table that answers it.

use std::net::IpAddr;
use std::pin::Pin;
use std::time::Instant;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ALLOW, CONNECTION, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};

use super::access::{self, Denied, Guard};
use super::options::AdminOptions;
use super::query::Query;
use super::refusals::Refusals;
use super::respond::text;
use crate::control::handle::AdminAccess;

/// Bytes of a request's body where there is no use for one.
pub(super) const MAX_BODY_BYTES: usize = 4096;

/// What can be asked for, and what the answers come from; cloned for each connection.
pub(super) trait Site: Clone + Send + Sync + 'static {
    /// Everything that can be asked for.
    const ROUTES: &'static [AdminRoute<Self>];

    /// Who may ask, as it is now.
    fn access(&self) -> AdminAccess;

    /// Where refused requests are counted.
    fn refusals(&self) -> &Refusals;
}

/// Everything there is to know of one thing that can be asked for.
pub(super) struct AdminRoute<S: 'static> {
    pub(super) verb: Verb,
    /// The whole path; one that ends with `*` stands for all that begin with what is before it.
    pub(super) path: &'static str,
    pub(super) guard: Guard,
    /// Longest body.
    pub(super) max_body_bytes: usize,
    pub(super) answer: for<'a> fn(&'a S, AdminRequest<'a>) -> Answering<'a>,
}

/// How something is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// GET, or HEAD for the head of the answer.
    Get,
    Post,
}

/// What was asked, for those that want to know.
pub(super) struct AdminRequest<'a> {
    pub(super) path: &'a str,
    pub(super) query: Query<'a>,
    pub(super) body: Bytes,
}

/// An answer that may take a while.
pub(super) type Answering<'a> = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send + 'a>>;

impl<S> AdminRoute<S> {
    /// Asked for with GET.
    pub(super) const fn get(
        path: &'static str,
        guard: Guard,
        answer: for<'a> fn(&'a S, AdminRequest<'a>) -> Answering<'a>,
    ) -> Self {
        Self {
            verb: Verb::Get,
            path,
            guard,
            max_body_bytes: MAX_BODY_BYTES,
            answer,
        }
    }

    /// Asked for with POST.
    pub(super) const fn post(
        path: &'static str,
        guard: Guard,
        answer: for<'a> fn(&'a S, AdminRequest<'a>) -> Answering<'a>,
    ) -> Self {
        Self {
            verb: Verb::Post,
            ..Self::get(path, guard, answer)
        }
    }

    /// The same with room for a body.
    pub(super) const fn with_body(self, max_body_bytes: usize) -> Self {
        Self {
            max_body_bytes,
            ..self
        }
    }

    fn is_for(&self, path: &str) -> bool {
        match self.path.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == self.path,
        }
    }
}

/// Answers a request that came from `peer` by the table of `site`.
pub(super) async fn answer<S: Site>(
    site: &S,
    request: Request<Incoming>,
    peer: IpAddr,
    options: &AdminOptions,
) -> Response<Full<Bytes>> {
    let target = request.uri().clone();
    let path = target.path();
    let route = match route_of::<S>(request.method(), path) {
        Ok(route) => route,
        Err(refusal) => return *refusal,
    };
    if let Err(denied) = admit(site, route.guard, &request, peer) {
        return denied.into();
    }
    match read_body(request.into_body(), route.max_body_bytes, options).await {
        Ok(body) => {
            let query = Query::new(target.query());
            (route.answer)(site, AdminRequest { path, query, body }).await
        }
        Err(refusal) => refusal,
    }
}

fn route_of<S: Site>(
    method: &Method,
    path: &str,
) -> Result<&'static AdminRoute<S>, Box<Response<Full<Bytes>>>> {
    let found = S::ROUTES.iter().filter(|route| route.is_for(path));
    let found: Vec<&AdminRoute<S>> = found.collect();
    if found.is_empty() {
        let missing = text(StatusCode::NOT_FOUND, "there is no such page");
        return Err(Box::new(missing));
    }
    let asked_for = found.iter().find(|route| route.verb.is(method));
    asked_for
        .copied()
        .ok_or_else(|| Box::new(wrong_method(&found)))
}

/// Whether the request may be answered. One that may not is counted.
fn admit<S: Site>(
    site: &S,
    guard: Guard,
    request: &Request<Incoming>,
    peer: IpAddr,
) -> Result<(), Denied> {
    let (target, headers) = (request.uri(), request.headers());
    let now = Instant::now();
    let access = site.access();
    let admitted = access::check(guard, target.authority(), headers, peer, &access);
    let admitted = admitted.and_then(|()| match &access.token {
        Some(token) if guard >= Guard::Change => {
            site.refusals().check_token(headers, peer, token, now)
        }
        _ => Ok(()),
    });
    if let Err(denied) = &admitted {
        site.refusals().note(denied, peer, target.path(), now);
    }
    admitted
}

impl Verb {
    fn is(self, method: &Method) -> bool {
        match self {
            Self::Get => matches!(*method, Method::GET | Method::HEAD),
            Self::Post => *method == Method::POST,
        }
    }

    fn methods(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD",
            Self::Post => "POST",
        }
    }
}

fn wrong_method<S>(routes: &[&AdminRoute<S>]) -> Response<Full<Bytes>> {
    let allowed: Vec<_> = routes.iter().map(|route| route.verb.methods()).collect();
    let allowed = allowed.join(", ");
    let message = format!("ask for it with {allowed}");
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, &message);
    if let Ok(allowed) = HeaderValue::try_from(allowed) {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

impl From<Denied> for Response<Full<Bytes>> {
    fn from(denied: Denied) -> Self {
        let status = match denied {
            Denied::NoToken | Denied::WrongToken => StatusCode::UNAUTHORIZED,
            Denied::TooSoon => StatusCode::TOO_MANY_REQUESTS,
            Denied::UnknownHost(_) => StatusCode::MISDIRECTED_REQUEST,
            Denied::OtherSite | Denied::NoOwnHeader | Denied::Remote | Denied::WebPage => {
                StatusCode::FORBIDDEN
            }
        };
        let mut response = text(status, &denied.to_string());
        let headers = response.headers_mut();
        // Whoever tries again and again has to connect anew each time.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        if let Some(challenge) = denied.challenge() {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if denied == Denied::TooSoon {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// Reads a body to its end, so that the next request can follow on the connection.
async fn read_body<B>(
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
