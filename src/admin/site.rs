//! What an admin server can be about: a proxy, or a state server.

use std::net::IpAddr;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;

use super::AdminOptions;
use super::pages::{self, MAX_BODY_BYTES, json, read_body, text};
use crate::store::Store;

/// Answers requests, which come from `peer`; cloned for each connection.
pub(super) trait Site: Clone + Send + Sync + 'static {
    fn answer(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        options: &AdminOptions,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send;
}

/// An embedded state server.
#[derive(Debug, Clone)]
pub struct StoreSite {
    /// Its items.
    pub store: Arc<Store>,
    /// Its limit on their memory.
    pub max_memory_bytes: Option<u64>,
}

/// What a state server says about itself: `GET /status`. More fields may come, those that are here
/// keep their meaning.
#[derive(Debug, Serialize)]
struct StoreStatus {
    /// Version of the program.
    version: &'static str,
    /// Sessions held, those included that have expired in the last few seconds.
    sessions: u64,
    /// Bytes of their bodies.
    session_bytes: u64,
    /// What they cost with keys and administration: what the limit counts.
    memory_bytes: u64,
    /// The limit; `null` for none.
    max_memory_bytes: Option<u64>,
    /// New sessions refused since the start because of the limit.
    refused_new: u64,
    /// Sessions expired since the start.
    expired: u64,
}

impl Site for StoreSite {
    async fn answer(
        &self,
        request: Request<Incoming>,
        _peer: IpAddr,
        options: &AdminOptions,
    ) -> Response<Full<Bytes>> {
        let is_status = match request.uri().path() {
            "/status" => true,
            "/healthz" => false,
            _ => return text(StatusCode::NOT_FOUND, "there is no such page"),
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return pages::wrong_method("GET, HEAD");
        }
        if let Err(refusal) = read_body(request.into_body(), MAX_BODY_BYTES, options).await {
            return refusal;
        }
        if is_status {
            json(StatusCode::OK, &self.status())
        } else {
            text(StatusCode::OK, "ok")
        }
    }
}

impl StoreSite {
    fn status(&self) -> StoreStatus {
        let stats = self.store.stats();
        StoreStatus {
            version: env!("CARGO_PKG_VERSION"),
            sessions: stats.items,
            session_bytes: stats.body_bytes,
            memory_bytes: stats.bytes,
            max_memory_bytes: self.max_memory_bytes,
            refused_new: stats.refused_new,
            expired: stats.expired,
        }
    }
}
