//! Asks the other proxies of the farm how they are.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use super::AdminOptions;
use crate::config::{BackendAddress, BackendHost};
use crate::control::handle::{ControlHandle, PeerNews};

/// Bytes of an answer: enough for a report in which every slot is in a state of its own.
const MAX_BODY_BYTES: usize = 4 << 20;

/// Why a peer has not answered.
#[derive(Debug, thiserror::Error)]
enum AskError {
    /// Its name is unknown, or it cannot be connected to.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
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
    let mut peer = Peer {
        address,
        lookup: None,
    };
    let asking = async {
        loop {
            interval.tick().await;
            let limit = options.ask_timeout;
            let answer = match tokio::time::timeout(limit, peer.ask()).await {
                Ok(answer) => answer,
                Err(_late) => Err(AskError::TimedOut { limit }),
            };
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

/// One peer.
#[derive(Debug)]
struct Peer {
    address: BackendAddress,
    /// Outlives a round that could not wait for it: a name service that hangs would otherwise
    /// pile up one lookup per round.
    lookup: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
}

impl Peer {
    /// The body of one answer, over a connection of its own: whether a peer can be reached at all
    /// is part of the question.
    async fn ask(&mut self) -> Result<Vec<u8>, AskError> {
        let stream = self.connect().await.map_err(AskError::Connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with this function.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let request = Request::get("/peer")
            .header(HOST, self.address.to_string())
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
    }

    async fn connect(&mut self) -> io::Result<TcpStream> {
        let port = self.address.port();
        match self.address.host() {
            BackendHost::Ip(ip) => TcpStream::connect((*ip, port)).await,
            BackendHost::Name(name) => {
                let name = name.clone();
                let lookup = self.lookup.get_or_insert_with(|| {
                    tokio::spawn(async move {
                        let found = tokio::net::lookup_host((name, port)).await?;
                        Ok(found.collect())
                    })
                });
                let found = lookup.await;
                self.lookup = None;
                TcpStream::connect(&*found??).await
            }
        }
    }
}
