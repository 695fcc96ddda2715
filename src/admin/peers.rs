//! Asks the other proxies of the farm how they are.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::AdminOptions;
use crate::backend::{ConnectError, Dialer};
use crate::config::BackendAddress;
use crate::control::handle::{ControlHandle, PeerNews};

/// Bytes of an answer: enough for a report in which every slot is in a state of its own.
const MAX_BODY_BYTES: usize = 4 << 20;

/// Why a peer has not answered.
#[derive(Debug, thiserror::Error)]
enum AskError {
    /// Its name is unknown, or it cannot be connected to.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It took too long.
    #[error("no answer within {} ms", .limit.as_millis())]
    TimedOut {
        /// How long it had.
        limit: Duration,
    },
    /// It broke off or does not speak HTTP.
    #[error("no HTTP answer: {0}")]
    Http(#[from] hyper::Error),
    /// It answered something else than a report.
    #[error("it answered {0}")]
    Status(StatusCode),
    /// It sent too much.
    #[error("its answer is longer than {MAX_BODY_BYTES} bytes")]
    TooLong,
    /// It broke off in its answer.
    #[error("its answer broke off: {0}")]
    BrokeOff(Box<dyn std::error::Error + Send + Sync>),
    /// Its address in our main file makes no header line.
    #[error("cannot ask for it: {0}")]
    Unaskable(#[from] hyper::http::Error),
}

/// Asks the peer at `address` again and again, until `stopped` or control has ended.
pub(super) async fn ask_for_ever(
    index: usize,
    address: BackendAddress,
    control: ControlHandle,
    options: AdminOptions,
    mut stopped: watch::Receiver<bool>,
) {
    let mut interval = tokio::time::interval(options.ask_every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let host = address.to_string();
    let mut dialer = Dialer::new(address);
    let asking = async {
        loop {
            interval.tick().await;
            let answer = ask(&mut dialer, &host, options.ask_timeout).await;
            let answer = answer.map_err(|error| error.to_string());
            if control
                .tell_of_peer(PeerNews { index, answer })
                .await
                .is_err()
            {
                return;
            }
        }
    };
    tokio::select! {
        () = asking => {}
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

/// The body of one answer, over a connection of its own: whether a peer can be reached at all is
/// part of the question.
async fn ask(dialer: &mut Dialer, host: &str, limit: Duration) -> Result<Vec<u8>, AskError> {
    let exchange = async {
        let stream = dialer.connect(Instant::now() + limit).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with this function.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let request = Request::get("/peer")
            .header(HOST, host)
            .header(CONNECTION, "close")
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(AskError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect();
        match body.await {
            Ok(body) => Ok(body.to_bytes().into()),
            Err(error) if error.is::<LengthLimitError>() => Err(AskError::TooLong),
            Err(error) => Err(AskError::BrokeOff(error)),
        }
    };
    let exchanged = tokio::time::timeout(limit, exchange).await;
    exchanged.unwrap_or(Err(AskError::TimedOut { limit }))
}
