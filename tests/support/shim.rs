//! A network between proxies and one server that loses, delays or refuses single messages.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// What is never answered is given up by then.
const PATIENCE: Duration = Duration::from_secs(60);

/// Passes messages on to one server, as it is told.
pub struct Shim {
    /// Where to connect instead.
    pub address: SocketAddr,
    orders: Arc<Orders>,
}

#[derive(Default)]
struct Orders {
    now: Mutex<Order>,
    met: Condvar,
}

#[derive(Default)]
struct Order {
    swallows: bool,
    /// What becomes of so many copies from now on.
    copies: Option<(Fate, u64)>,
    met: u64,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It never arrives.
    Lost,
    /// It arrives, and its answer never does.
    Unanswered,
    /// It arrives after this long.
    Late(Duration),
    /// The server answers with this status and does nothing.
    Refused(&'static str),
}

/// The head and the body of a message.
struct Message {
    head: String,
    bytes: Vec<u8>,
}

impl Shim {
    /// A way to the server at `server`.
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let orders = Arc::<Orders>::default();
        let shared = Arc::clone(&orders);
        // Ends with the tests.
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, orders) = (client.unwrap(), Arc::clone(&shared));
                // Whoever breaks the connection ends it.
                thread::spawn(move || pass_on(&client, server, &orders));
            }
        });
        Self { address, orders }
    }

    /// From now on nothing gets through, and nobody is told: what is open stays open.
    pub fn swallow(&self) {
        self.orders.now.lock().unwrap().swallows = true;
    }

    /// Everything gets through again.
    pub fn mend(&self) {
        let mut order = self.orders.now.lock().unwrap();
        (order.swallows, order.copies) = (false, None);
    }

    /// The next so many copies meet with this fate.
    pub fn harm_copies(&self, fate: Fate, count: u64) {
        let mut order = self.orders.now.lock().unwrap();
        (order.copies, order.met) = (Some((fate, count)), 0);
    }

    /// Waits until so many copies have met with it.
    pub fn wait_until_harmed(&self, count: u64) {
        let order = self.orders.now.lock().unwrap();
        let waits = |order: &mut Order| order.met < count;
        let waited = self.orders.met.wait_timeout_while(order, PATIENCE, waits);
        assert!(!waited.unwrap().1.timed_out(), "nothing is copied");
    }
}

impl Orders {
    fn swallows(&self) -> bool {
        self.now.lock().unwrap().swallows
    }

    fn fate_of(&self, head: &str) -> Option<Fate> {
        let is_copy = head.starts_with("PUT ") && head.contains("\r\nLockCookie:1\r\n");
        let mut order = self.now.lock().unwrap();
        let (fate, left) = order.copies.filter(|_| is_copy)?;
        order.copies = (left > 1).then_some((fate, left - 1));
        order.met += 1;
        drop(order);
        // What has no answer has done by then what it does.
        let is_told_later = fate == Fate::Unanswered;
        if !is_told_later {
            self.met.notify_all();
        }
        Some(fate)
    }
}

fn pass_on(client: &TcpStream, server: SocketAddr, orders: &Orders) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut to_server: Option<TcpStream> = None;
    let (mut asked, mut answered) = (Vec::new(), Vec::new());
    while let Some(request) = read_message(client, &mut asked, false)? {
        let fate = orders.fate_of(&request.head);
        if orders.swallows() || fate == Some(Fate::Lost) {
            return hold_open(client);
        }
        if let Some(Fate::Late(delay)) = fate {
            thread::sleep(delay);
        }
        if let Some(Fate::Refused(status)) = fate {
            let answer = format!(
                "{status}\r\nX-AspNet-Version: 4.0.30319\r\nCache-Control: private\r\nContent-Length: 0\r\n\r\n"
            );
            { client }.write_all(answer.as_bytes())?;
            continue;
        }
        let stream = match &to_server {
            Some(stream) => stream,
            None => to_server.insert(TcpStream::connect(server)?),
        };
        stream.set_nodelay(true)?;
        { stream }.write_all(&request.bytes)?;
        let is_head = request.head.starts_with("HEAD ");
        let Some(answer) = read_message(stream, &mut answered, is_head)? else {
            return Ok(());
        };
        if fate == Some(Fate::Unanswered) {
            orders.met.notify_all();
        }
        if orders.swallows() || fate == Some(Fate::Unanswered) {
            return hold_open(client);
        }
        { client }.write_all(&answer.bytes)?;
    }
    Ok(())
}

/// Takes what comes and answers nothing, until the other end has had enough.
fn hold_open(client: &TcpStream) -> io::Result<()> {
    let mut scrap = [0; 4096];
    while { client }.read(&mut scrap)? > 0 {}
    Ok(())
}

/// The next message, of which `begun` may have come already; `None` at the end.
fn read_message(
    mut stream: &TcpStream,
    begun: &mut Vec<u8>,
    is_without_body: bool,
) -> io::Result<Option<Message>> {
    let mut chunk = vec![0; 1 << 16];
    let mut whole = None;
    loop {
        if whole.is_none()
            && let Some(end) = begun.windows(4).position(|four| four == b"\r\n\r\n")
        {
            let head = String::from_utf8_lossy(&begun[..end + 4]).into_owned();
            let lower = head.to_ascii_lowercase();
            let length = lower
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"));
            let body_bytes = length.map_or(0, |length| length.trim().parse().unwrap_or(0));
            let body_bytes = if is_without_body { 0 } else { body_bytes };
            whole = Some((head, end + 4 + body_bytes));
        }
        if let Some((head, length)) = whole.take_if(|(_, length)| begun.len() >= *length) {
            let rest = begun.split_off(length);
            let bytes = std::mem::replace(begun, rest);
            return Ok(Some(Message { head, bytes }));
        }
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Ok(None);
        }
        begun.extend_from_slice(&chunk[..count]);
    }
}
