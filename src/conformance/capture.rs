//! A relay between a farm and its state server that writes down what they say to each other, without
//! what nobody else may see.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::blank::{self, Blanked};
use crate::config::AllowList;
use crate::os;
use crate::route::{HashKey, KeyBuffer};
use crate::wire::{HeadLimits, Operation, Parsed, RequestHead, ResponseHead};

/// What to relay, and where to write it down.
#[derive(Debug, Clone)]
pub struct CaptureOptions {
    /// Where the farm connects.
    pub listen: SocketAddr,
    /// The state server, or a proxy.
    pub target: SocketAddr,
    /// Who may connect.
    pub allow: AllowList,
    /// A new file.
    pub file: PathBuf,
    /// Lines after which nothing more is written; the relay goes on.
    pub max_lines: u64,
}

/// Why a capture could not begin.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file is there already, or cannot be made.
    #[error("cannot make the file {}: {source}", path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The port cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The system gives no thread or no random bytes.
    #[error("cannot begin to write down: {0}")]
    System(io::Error),
    /// Not all of it is in the file.
    #[error("cannot write to the file {}: {source}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What was written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptureCounts {
    /// Lines in the file.
    pub lines: u64,
    /// Lines that were not written, for the disk was too slow or the file full.
    pub left_out: u64,
}

/// Most connections at a time: a farm has as many as pages that run at once.
const MAX_CONNECTIONS: usize = 2000;

/// Lines that wait for the disk.
const MAX_WAITING: usize = 4096;

/// Requests of one connection whose answers are awaited; ASP.NET sends one.
const MAX_OPEN_REQUESTS: usize = 16;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A capture that listens.
#[derive(Debug)]
pub struct Capture {
    /// Where the farm connects.
    pub address: SocketAddr,
    listener: StdListener,
    shared: Arc<Shared>,
    writer: JoinHandle<io::Result<()>>,
    path: PathBuf,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    allow: AllowList,
    /// Of the fingerprints: nobody can look ids up by them.
    key: HashKey,
    begun: Instant,
    lines: SyncSender<Value>,
    max_lines: u64,
    taken: AtomicU64,
    left_out: AtomicU64,
    connections: AtomicU64,
}

/// Makes the file and listens.
///
/// # Errors
/// [`CaptureError`].
pub fn capture(options: &CaptureOptions) -> Result<Capture, CaptureError> {
    let cannot_listen = |source| CaptureError::Listen {
        address: options.listen,
        source,
    };
    let listener = StdListener::bind(options.listen).map_err(cannot_listen)?;
    listener.set_nonblocking(true).map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    let mut open = OpenOptions::new();
    let open = os::owner_only(open.write(true).create_new(true));
    let file = open.open(&options.file);
    let file = file.map_err(|source| CaptureError::File {
        path: options.file.clone(),
        source,
    })?;
    let mut key = [0; 16];
    os::random(&mut key).map_err(CaptureError::System)?;
    let (lines, waiting) = sync_channel(MAX_WAITING);
    let writer = thread::Builder::new()
        .name("capture".to_owned())
        .spawn(move || write_lines(file, &waiting))
        .map_err(CaptureError::System)?;
    let shared = Shared {
        target: options.target,
        allow: options.allow.clone(),
        key: HashKey::new(key),
        begun: Instant::now(),
        lines,
        max_lines: options.max_lines,
        taken: AtomicU64::new(0),
        left_out: AtomicU64::new(0),
        connections: AtomicU64::new(0),
    };
    shared.note(json!({"staterouter_capture": 1, "version": env!("CARGO_PKG_VERSION")}));
    Ok(Capture {
        address,
        listener,
        shared: Arc::new(shared),
        writer,
        path: options.file.clone(),
    })
}

impl Capture {
    /// Relays until it is dropped. To be run in a runtime with sockets and timers.
    ///
    /// # Errors
    /// When the system has no place for the listener.
    pub async fn relay(&self) -> io::Result<()> {
        let listener = TcpListener::from_std(self.listener.try_clone()?)?;
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return Ok(());
            };
            let (client, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(_) => {
                    // Out of open files: those that are open will end.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move {
                shared.connection(client, peer.ip()).await;
                drop(place);
            });
        }
    }

    /// Waits until everything is in the file.
    ///
    /// # Errors
    /// [`CaptureError::Write`].
    pub fn finish(self) -> Result<CaptureCounts, CaptureError> {
        let Self {
            shared,
            writer,
            path,
            ..
        } = self;
        // Connections that are still open have nothing more to say.
        let _ = shared.lines.send(Value::Null);
        let counts = CaptureCounts {
            lines: shared.taken.load(Ordering::Relaxed),
            left_out: shared.left_out.load(Ordering::Relaxed),
        };
        drop(shared);
        let written = writer
            .join()
            .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        written.map_err(|source| CaptureError::Write { path, source })?;
        Ok(counts)
    }
}

/// Writes lines until a null comes or nobody can send any more.
fn write_lines(file: File, lines: &Receiver<Value>) -> io::Result<()> {
    let mut file = BufWriter::new(file);
    while let Ok(line) = lines.recv() {
        if line.is_null() {
            break;
        }
        writeln!(file, "{line}")?;
        // What a reader sees is whole lines.
        file.flush()?;
    }
    file.flush()
}

impl Shared {
    fn note(&self, line: Value) {
        if self.taken.fetch_add(1, Ordering::Relaxed) >= self.max_lines {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            self.left_out.fetch_add(1, Ordering::Relaxed);
        } else if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.lines.try_send(line)
        {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn connection(self: Arc<Self>, client: TcpStream, peer: IpAddr) {
        if !self.allow.allows(peer.to_canonical()) {
            return;
        }
        let number = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let connecting = TcpStream::connect(self.target);
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
        let server = match connected {
            Ok(Ok(server)) => server,
            // ASP.NET has to see what it would have seen: no connection.
            Ok(Err(error)) => {
                return self.event(number, &format!("the server took no connection: {error}"));
            }
            Err(_) => return self.event(number, "the server took no connection in time"),
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        self.event(number, "opened");
        let tap = Mutex::new(Tap::new(number, Arc::clone(&self)));
        let (client_reads, client_writes) = client.into_split();
        let (server_reads, server_writes) = server.into_split();
        let up = pump(client_reads, server_writes, |bytes| {
            locked(&tap).request(bytes)
        });
        let down = pump(server_reads, client_writes, |bytes| {
            locked(&tap).answer(bytes)
        });
        tokio::pin!(up, down);
        // The first end ends both: ASP.NET never half-closes, and neither does a state server.
        let who = tokio::select! {
            () = &mut up => "closed by the web server",
            () = &mut down => "closed by the state server",
        };
        let quiet_ms = locked(&tap).quiet_ms();
        self.note(json!({
            "connection": number, "at_ms": self.at_ms(), "event": who, "quiet_ms": quiet_ms,
            "unanswered": locked(&tap).open.len(),
        }));
    }

    fn event(&self, number: u64, event: &str) {
        self.note(json!({"connection": number, "at_ms": self.at_ms(), "event": event}));
    }

    fn at_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }
}

/// Passes bytes on as they come, until one side ends.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut tap: impl FnMut(&[u8])) {
    let mut part = vec![0; 16 * 1024];
    loop {
        match from.read(&mut part).await {
            Ok(count) if count > 0 => {
                let bytes = part.get(..count).unwrap_or_default();
                tap(bytes);
                if to.write_all(bytes).await.is_err() {
                    return;
                }
            }
            _ => return,
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is heard on one connection.
struct Tap {
    number: u64,
    shared: Arc<Shared>,
    requests: Side,
    answers: Side,
    buffer: KeyBuffer,
    /// Requests without an answer so far.
    open: VecDeque<OpenRequest>,
    heard_at: Instant,
}

struct OpenRequest {
    shown: Value,
    is_head: bool,
    sent_at_ms: u64,
}

/// One direction: heads are gathered, bodies skipped.
#[derive(Default)]
struct Side {
    head: Vec<u8>,
    skip_bytes: u64,
    is_lost: bool,
}

impl Side {
    /// The head that `bytes` complete, as `parse` reads it, and what follows; `None` when more is needed.
    fn take<T>(
        &mut self,
        bytes: &mut &[u8],
        parse: impl Fn(&[u8]) -> Result<Option<(T, usize, u64)>, String>,
    ) -> Result<Option<(T, Vec<u8>)>, String> {
        let skipped = self.skip_bytes.min(bytes.len() as u64);
        self.skip_bytes -= skipped;
        *bytes = &bytes[skipped as usize..];
        if self.is_lost || bytes.is_empty() {
            *bytes = &[];
            return Ok(None);
        }
        let before = self.head.len();
        self.head.extend_from_slice(bytes);
        let parsed = parse(&self.head).inspect_err(|_| self.is_lost = true)?;
        let Some((message, head_bytes, body_bytes)) = parsed else {
            *bytes = &[];
            return Ok(None);
        };
        *bytes = &bytes[head_bytes.saturating_sub(before)..];
        self.skip_bytes = body_bytes;
        let mut head = std::mem::take(&mut self.head);
        head.truncate(head_bytes);
        Ok(Some((message, head)))
    }
}

impl Tap {
    fn new(number: u64, shared: Arc<Shared>) -> Self {
        Self {
            number,
            shared,
            requests: Side::default(),
            answers: Side::default(),
            buffer: KeyBuffer::new(),
            open: VecDeque::new(),
            heard_at: Instant::now(),
        }
    }

    fn quiet_ms(&self) -> u64 {
        self.heard_at.elapsed().as_millis() as u64
    }

    fn request(&mut self, mut bytes: &[u8]) {
        self.heard_at = Instant::now();
        let limits = HeadLimits {
            max_body_bytes: u64::MAX,
            ..HeadLimits::default()
        };
        let parse = |head: &[u8]| match RequestHead::parse(head, &limits) {
            Ok(Parsed::Complete(head)) => Ok(Some((head, head.head_bytes, head.body_bytes))),
            Ok(Parsed::Partial) => Ok(None),
            Err(error) => Err(error.to_string()),
        };
        while !bytes.is_empty() {
            match self.requests.take(&mut bytes, parse) {
                Ok(Some((parsed, head))) => {
                    let target = parsed.target.of(&head);
                    let blanked = blank::request(&head, target, &self.shared.key, &mut self.buffer);
                    self.open.push_back(OpenRequest {
                        shown: shown(blanked, parsed.body_bytes),
                        is_head: parsed.operation() == Operation::Touch,
                        sent_at_ms: self.shared.at_ms(),
                    });
                    if self.open.len() > MAX_OPEN_REQUESTS {
                        self.lost("more requests than answers");
                    }
                }
                Ok(None) => {}
                Err(reason) => self.lost(&reason),
            }
        }
    }

    fn answer(&mut self, mut bytes: &[u8]) {
        self.heard_at = Instant::now();
        let max_head_bytes = HeadLimits::default().max_head_bytes;
        while !bytes.is_empty() {
            let to_head = self.open.front().is_some_and(|request| request.is_head);
            let parse = |head: &[u8]| match ResponseHead::parse(head, max_head_bytes, to_head) {
                Ok(Parsed::Complete(head)) => Ok(Some((head, head.head_bytes, head.body_bytes))),
                Ok(Parsed::Partial) => Ok(None),
                Err(error) => Err(error.to_string()),
            };
            match self.answers.take(&mut bytes, parse) {
                Ok(Some((parsed, head))) => {
                    let answer = shown(blank::answer(&head), parsed.body_bytes);
                    let request = self.open.pop_front();
                    let now_ms = self.shared.at_ms();
                    let sent_at_ms = request.as_ref().map_or(now_ms, |open| open.sent_at_ms);
                    self.shared.note(json!({
                        "connection": self.number,
                        "at_ms": sent_at_ms,
                        "took_ms": now_ms - sent_at_ms,
                        "request": request.map(|open| open.shown),
                        "answer": answer,
                    }));
                }
                Ok(None) => {}
                Err(reason) => self.lost(&reason),
            }
        }
    }

    /// Nothing more of this connection is understood; it is relayed all the same.
    fn lost(&mut self, reason: &str) {
        (self.requests.is_lost, self.answers.is_lost) = (true, true);
        self.open.clear();
        let event = format!("not understood from here on: {reason}");
        self.shared.event(self.number, &event);
    }
}

fn shown(blanked: Blanked, body_bytes: u64) -> Value {
    let Blanked { line, headers } = blanked;
    json!({"line": line, "headers": headers, "body_bytes": body_bytes})
}
