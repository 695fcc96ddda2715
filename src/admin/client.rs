//! Asks an admin server: another proxy's, or the one that a command is about.

use std::error::Error;
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::access::OWN_HEADER;
use super::refusals::TOKEN_PAUSE;
use crate::backend::{ConnectError, Dialer};
use crate::config::{AdminToken, BackendAddress, TlsTrust};
use crate::tls::TargetTls;

/// Bytes of an answer: enough for a report in which every slot is in a state of its own.
const MAX_BODY_BYTES: usize = 4 << 20;

/// Why an admin server has not answered.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Its name is unknown, or it cannot be connected to.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It is to be asked with TLS.
    #[error("no certificate can bear its name: set `server_name` in `peer_tls`")]
    Nameless,
    /// It took too long.
    #[error("no answer within {} ms", .limit.as_millis())]
    TimedOut {
        /// How long it had.
        limit: Duration,
    },
    /// It broke off or does not speak HTTP.
    #[error("no HTTP answer: {0}")]
    Http(String),
    /// It sent too much.
    #[error("its answer is longer than {MAX_BODY_BYTES} bytes")]
    TooLong,
    /// It broke off in its answer.
    #[error("its answer broke off: {0}")]
    BrokeOff(Box<dyn std::error::Error + Send + Sync>),
    /// Its address, or what it is asked for, makes no request.
    #[error("cannot ask for it: {0}")]
    Unaskable(#[from] hyper::http::Error),
}

/// With its causes: that a certificate was refused shows in them alone.
impl From<hyper::Error> for AdminError {
    fn from(error: hyper::Error) -> Self {
        let mut said = error.to_string();
        let mut cause = error.source();
        while let Some(deeper) = cause {
            said = format!("{said}: {deeper}");
            cause = deeper.source();
        }
        if error.is_parse() {
            said += "; one that speaks TLS is asked with --tls-ca, or as a peer with `peer_tls`";
        }
        Self::Http(said)
    }
}

/// What an admin server has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The body as it came.
    pub body: Vec<u8>,
}

/// One admin server. Every question has a connection of its own: whether the server can be reached
/// at all is part of it.
#[derive(Debug)]
pub struct AdminClient {
    dialer: Dialer,
    way: AdminWay,
    host: String,
    limit: Duration,
}

/// How an admin server is asked.
#[derive(Debug, Clone)]
pub enum AdminWay {
    /// In the clear.
    Plain,
    /// With TLS, or not at all.
    Encrypted(TargetTls),
    /// Not at all: it is to be asked with TLS, and no certificate can bear its name.
    Nameless,
}

/// What carries a question and its answer.
trait Carrier: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl AdminWay {
    /// To the server at `address`; `trust` says how those with TLS are known.
    #[must_use]
    pub fn to(address: &BackendAddress, trust: Option<&TlsTrust>) -> Self {
        match trust.map(|trust| trust.target(address.host())) {
            None => Self::Plain,
            Some(Some(target)) => Self::Encrypted(target),
            Some(None) => Self::Nameless,
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Carrier for T {}

impl AdminClient {
    /// The server at `address`, which has `limit` for each answer, connecting included.
    pub fn new(address: BackendAddress, way: AdminWay, limit: Duration) -> Self {
        Self {
            host: address.to_string(),
            way,
            dialer: Dialer::new(address),
            limit,
        }
    }

    /// Host and port of the server.
    pub fn address(&self) -> &str {
        &self.host
    }

    /// Asks for `path` with GET. Needs a runtime with timers and sockets.
    ///
    /// # Errors
    /// [`AdminError`]; an answer with another status than 200 is none.
    pub async fn get(&mut self, path: &str) -> Result<AdminAnswer, AdminError> {
        self.ask(Method::GET, path, None, Vec::new()).await
    }

    /// Asks for `path` with POST, with `token` where the server wants one. A server to which a wrong
    /// one was shown from here a moment ago is asked once more in a second.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub async fn post(
        &mut self,
        path: &str,
        token: Option<&AdminToken>,
        body: Vec<u8>,
    ) -> Result<AdminAnswer, AdminError> {
        let answer = self.ask(Method::POST, path, token, body.clone()).await?;
        if answer.status != StatusCode::TOO_MANY_REQUESTS {
            return Ok(answer);
        }
        tokio::time::sleep(TOKEN_PAUSE).await;
        self.ask(Method::POST, path, token, body).await
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        token: Option<&AdminToken>,
        body: Vec<u8>,
    ) -> Result<AdminAnswer, AdminError> {
        let Self {
            dialer, way, limit, ..
        } = self;
        let limit = *limit;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(OWN_HEADER, "1")
            .header(CONNECTION, "close");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token.header());
        }
        let request = request.body(Full::new(Bytes::from(body)))?;
        let exchanged = exchange(dialer, way, request, limit);
        let exchanged = tokio::time::timeout(limit, exchanged).await;
        exchanged.unwrap_or(Err(AdminError::TimedOut { limit }))
    }
}

async fn exchange(
    dialer: &mut Dialer,
    way: &AdminWay,
    mut request: Request<Full<Bytes>>,
    limit: Duration,
) -> Result<AdminAnswer, AdminError> {
    let stream = dialer.connect(Instant::now() + limit).await?;
    // Every admin server is known by its address; the name may be ours alone.
    if let Ok(address) = stream.peer_addr()
        && let Ok(host) = HeaderValue::try_from(address.to_string())
    {
        request.headers_mut().insert(HOST, host);
    }
    match way {
        AdminWay::Plain => carry(stream, request).await,
        AdminWay::Encrypted(TargetTls { tls, name }) => {
            let stream = tls.connect(stream, name.clone()).await;
            carry(stream.map_err(ConnectError::untrusted)?, request).await
        }
        AdminWay::Nameless => Err(AdminError::Nameless),
    }
}

async fn carry(
    stream: impl Carrier,
    request: Request<Full<Bytes>>,
) -> Result<AdminAnswer, AdminError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with this function.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    match Limited::new(response.into_body(), MAX_BODY_BYTES)
        .collect()
        .await
    {
        Ok(body) => Ok(AdminAnswer {
            status,
            body: body.to_bytes().into(),
        }),
        Err(error) if error.is::<LengthLimitError>() => Err(AdminError::TooLong),
        Err(error) => Err(AdminError::BrokeOff(error)),
    }
}
