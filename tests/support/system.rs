//! What the kernel knows about sockets and processes, and what a test may use of it.

use std::collections::HashMap;
use std::fs::read_to_string;
use std::io::{Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, SockRef, Socket, Type};

/// No sign of it after this long is a failure of the test.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until the other ends have read all that was written to `streams`: what is written next
/// reaches them in a read of its own.
pub fn wait_until_read<'a>(streams: impl IntoIterator<Item = &'a TcpStream>) {
    let ends: Vec<_> = streams.into_iter().map(ends).collect();
    // First nothing may be under way, then nothing may lie unread: one look is not atomic.
    let is_sent = |queues: &Queues| {
        ends.iter()
            .all(|&(own, peer)| queues.unsent(own, peer) == 0)
    };
    let is_read = |queues: &Queues| {
        ends.iter()
            .all(|&(own, peer)| queues.unread(peer, own) == 0)
    };
    for is_empty in [&is_sent as &dyn Fn(&Queues) -> bool, &is_read] {
        wait_until("the peer has read", || is_empty(&Queues::now()));
    }
}

/// Waits until all that was written to `stream` is at the peer, whether it has been read there or not.
pub fn wait_until_arrived(stream: &TcpStream) {
    let (own, peer) = ends(stream);
    wait_until("it has arrived", || {
        let queues = Queues::now();
        // The peer may have closed the connection for it.
        !queues.is_open(own, peer) || queues.unsent(own, peer) == 0
    });
}

/// The own address of a connection, and the peer's.
fn ends(stream: &TcpStream) -> (SocketAddrV4, SocketAddrV4) {
    let own = ipv4(stream.local_addr().unwrap());
    (own, ipv4(stream.peer_addr().unwrap()))
}

/// Closes a connection, and waits until the kernel has told the peer. On a busy machine that comes
/// after `close` has returned: what the peer sends in between is lost, as it would be on a network.
pub fn end(stream: TcpStream) {
    /// The kernel's table may leave out a line while it changes.
    const LOOKS: usize = 3;
    let own = ipv4(stream.local_addr().unwrap());
    // There is none if the peer has ended the connection first.
    let peer = stream.peer_addr().map(ipv4);
    let no_copies = super::no_child_is_starting();
    drop(stream);
    drop(no_copies);
    if let Ok(peer) = peer {
        wait_until("the peer sees that the connection has ended", || {
            (0..LOOKS).all(|_| !Queues::now().is_open(peer, own))
        });
    }
}

/// Waits for something that only looking can tell.
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "never came true: {what}");
        std::thread::yield_now();
    }
}

/// What `look` finds within this time. For what takes long: in between it rests.
pub fn wait_up_to<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    const REST: Duration = Duration::from_millis(20);
    let since = Instant::now();
    loop {
        let found = look();
        if found.is_some() || since.elapsed() > patience {
            return found;
        }
        std::thread::sleep(REST);
    }
}

/// A port of the loopback address that is given to nobody else while the socket lives. It does not
/// listen, so that a program which is told the address can.
pub fn hold_port() -> (Socket, SocketAddr) {
    let socket = hold_address(SocketAddr::from(([127, 0, 0, 1], 0)));
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// The same for a known address.
pub fn hold_address(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

/// The body of an HTTP page, whatever its status.
pub fn ask_page(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// Number of files and sockets process `pid` has open.
pub fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count()
}

/// Whether the child process `pid` has ended.
pub fn has_ended(pid: u32) -> bool {
    let status = read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().any(|line| line.starts_with("State:\tZ"))
}

/// Makes a stream end with a reset instead of an orderly close when it is dropped.
pub fn reset_on_drop(stream: &TcpStream) {
    SockRef::from(stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

/// Bytes of memory process `pid` has in use now.
pub fn resident_bytes(pid: u32) -> u64 {
    memory(pid, "VmRSS:")
}

/// The most bytes of memory process `pid` has had in use.
pub fn peak_resident_bytes(pid: u32) -> u64 {
    memory(pid, "VmHWM:")
}

/// Lets this process, and those it starts, open as many files as the system allows.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}

fn memory(pid: u32, field: &str) -> u64 {
    let status = read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.unwrap().trim().strip_suffix(" kB").unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

/// Bytes queued on every open TCP connection of the machine, by its own and its peer's address.
struct Queues(HashMap<(String, String), (u64, u64)>);

impl Queues {
    fn now() -> Self {
        let table = read_to_string("/proc/net/tcp").unwrap();
        let connection = |line: &str| {
            let mut fields = line.split_whitespace().skip(1).map(str::to_owned);
            let ends = (fields.next()?, fields.next()?);
            let queues = fields.nth(1)?;
            let (unsent, unread) = queues.split_once(':')?;
            let bytes = |hex| u64::from_str_radix(hex, 16).ok();
            Some((ends, (bytes(unsent)?, bytes(unread)?)))
        };
        // Established ones only: the table is mostly about connections that are long gone.
        let alive = table.lines().filter(|line| line.contains(" 01 "));
        Self(alive.filter_map(connection).collect())
    }

    fn is_open(&self, own: SocketAddrV4, peer: SocketAddrV4) -> bool {
        self.0.contains_key(&(hex(own), hex(peer)))
    }

    fn unsent(&self, own: SocketAddrV4, peer: SocketAddrV4) -> u64 {
        self.of(own, peer).0
    }

    fn unread(&self, own: SocketAddrV4, peer: SocketAddrV4) -> u64 {
        self.of(own, peer).1
    }

    /// A connection that a look has missed counts as busy: the table changes while it is read.
    fn of(&self, own: SocketAddrV4, peer: SocketAddrV4) -> (u64, u64) {
        let ends = (hex(own), hex(peer));
        self.0.get(&ends).copied().unwrap_or((u64::MAX, u64::MAX))
    }
}

fn ipv4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(address) => panic!("{address} is no IPv4 address"),
    }
}

/// As the kernel prints an address: the four bytes as one number of this machine.
fn hex(address: SocketAddrV4) -> String {
    let ip = u32::from_ne_bytes(address.ip().octets());
    format!("{ip:08X}:{:04X}", address.port())
}
