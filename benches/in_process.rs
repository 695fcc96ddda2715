//! What the state server in the process of the proxy adds to the latency of the Redis behind it: its
//! in-memory connection beside a plain client, which runs the same scripts on the same server. One
//! request at a time, on one thread, in turns.
//!
//! `cargo bench --bench in_process -- --port PORT [--rounds N] [--pairs N]` empties the Redis at this
//! port of this machine, and prints one JSON line for each round. `benches/peers/storage.py` starts
//! one and sums up.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot run must say why"
)]

use std::env;
use std::time::{Duration, Instant};

use serde_json::json;
use staterouter::app::engines;
use staterouter::config::{RedisSpec, RedisUrl};
use staterouter::net::{Buffer, BufferPool, Conn, Deadline, Deadlines};
use staterouter::redis::item_key;
use staterouter::wire::{Operation, Parsed, Request, ResponseHead, encode_request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};

const BODY_BYTES: usize = 2048;
const SESSIONS: usize = 1000;
const PREFIX: &str = "staterouter:";
const MAX_HEAD_BYTES: usize = 8192;

/// Longer than any answer takes: a run without one must end.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    let words: Vec<String> = env::args().collect();
    let number = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        Some(words.get(at + 1)?.parse::<usize>().unwrap())
    };
    let Some(port) = number("--port") else {
        println!("left out: no --port of a Redis that may be emptied");
        return;
    };
    let port = u16::try_from(port).unwrap();
    let pairs = number("--pairs").unwrap_or(4000);
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap();
    runtime.block_on(async {
        let mut plain = Plain::connect(port).await;
        let mut served = Served::connect(port).await;
        for session in 0..SESSIONS {
            served.store(session, 0).await;
        }
        for round in 0..number("--rounds").unwrap_or(9) {
            let mut times = [Times::default(), Times::default()];
            // Each round begins with another one; both have a warm start.
            for turn in 0..4 {
                let is_plain = (round + turn) % 2 == 0;
                let times = &mut times[usize::from(is_plain)];
                for pair in 0..pairs / 2 {
                    let session = (pair * 7 + turn * 13) % SESSIONS;
                    let begun = Instant::now();
                    let cookie = match is_plain {
                        true => plain.acquire(session).await,
                        false => served.acquire(session).await,
                    };
                    let read = begun.elapsed();
                    match is_plain {
                        true => plain.store(session, cookie).await,
                        false => served.store(session, cookie).await,
                    }
                    times.reads.push(read);
                    times.writes.push(begun.elapsed() - read);
                }
            }
            let [served, plain] = times.map(Times::medians);
            println!("{}", json!({ "in process": served, "plain client": plain }));
        }
    });
}

#[derive(Default)]
struct Times {
    reads: Vec<Duration>,
    writes: Vec<Duration>,
}

impl Times {
    fn medians(self) -> serde_json::Value {
        let [read, write] = [self.reads, self.writes].map(median_us);
        json!({ "read_us": read, "write_us": write, "pair_us": read + write })
    }
}

fn median_us(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_nanos() as f64 / 1e3
}

fn target(session: usize) -> String {
    format!("/LM/W3SVC/1/ROOT(hash=)/q3m1zt0xk4vdw2hn5sby{session:04}")
}

/// The state server, as the proxy asks it.
struct Served {
    conn: Conn,
    bytes: Buffer,
    deadline: Deadline,
    out: Vec<u8>,
    body: Vec<u8>,
}

impl Served {
    async fn connect(port: u16) -> Self {
        let spec = RedisSpec::new(RedisUrl {
            is_tls: false,
            host: "127.0.0.1".to_owned(),
            port,
            database: 0,
        });
        assert_eq!(spec.prefix, PREFIX);
        let deadline = Deadlines::new().register();
        deadline.arm(PATIENCE);
        let connector = engines::connector(&spec, PATIENCE);
        let conn = connector.connect(&deadline).await.unwrap();
        Self {
            conn,
            bytes: BufferPool::new(64 * 1024).take(),
            deadline,
            out: Vec::new(),
            body: vec![b'y'; BODY_BYTES],
        }
    }

    async fn acquire(&mut self, session: usize) -> u32 {
        let head = self.ask(session, Operation::Acquire, 0).await;
        let cookie = head.lock_taken(self.bytes.filled()).unwrap();
        assert_eq!(self.bytes.len(), head.head_bytes + BODY_BYTES);
        self.bytes.clear();
        cookie
    }

    async fn store(&mut self, session: usize, cookie: u32) {
        let head = self.ask(session, Operation::Put, cookie).await;
        assert_eq!(head.status, 200);
        self.bytes.clear();
    }

    async fn ask(&mut self, session: usize, operation: Operation, cookie: u32) -> ResponseHead {
        self.out.clear();
        let target = target(session);
        let request = Request {
            operation,
            target: target.as_bytes(),
            lock_cookie: cookie,
            timeout_minutes: 20,
            extra_flags: 0,
            body: &self.body,
        };
        encode_request(&mut self.out, &request);
        let (conn, deadline) = (&mut self.conn, &self.deadline);
        conn.write_all(&self.out, &mut 0, deadline).await.unwrap();
        loop {
            conn.read_more(&mut self.bytes, deadline).await.unwrap();
            let parsed = ResponseHead::parse(self.bytes.filled(), MAX_HEAD_BYTES, false).unwrap();
            if let Parsed::Complete(head) = parsed
                && head.head_bytes as u64 + head.body_bytes <= self.bytes.len() as u64
            {
                return head;
            }
        }
    }
}

/// A client of Redis that does nothing but this.
struct Plain {
    stream: TcpStream,
    read: String,
    put: String,
    nonce: u64,
    out: Vec<u8>,
    bytes: Vec<u8>,
    body: Vec<u8>,
}

impl Plain {
    async fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut plain = Self {
            stream,
            read: String::new(),
            put: String::new(),
            nonce: 0,
            out: Vec::new(),
            bytes: Vec::with_capacity(64 * 1024),
            body: vec![b'y'; BODY_BYTES],
        };
        plain.ask(&[b"FLUSHALL"], b"+OK\r\n").await;
        plain.put = plain
            .load(include_str!("../src/redis/scripts/put.lua"))
            .await;
        plain.read = plain
            .load(include_str!("../src/redis/scripts/read.lua"))
            .await;
        plain
    }

    /// What no other request has had, as long as that of the proxy.
    fn next_nonce(&mut self) -> String {
        self.nonce += 1;
        format!("{:022}", self.nonce)
    }

    async fn load(&mut self, script: &str) -> String {
        // As the proxy has it: each answer ends with the nonce.
        let script = format!(
            "#!lua\nlocal function run()\n{script}end\nlocal answer = run()\n\
             answer[#answer + 1] = ARGV[1]\nreturn answer\n"
        );
        let words: [&[u8]; 3] = [b"SCRIPT", b"LOAD", script.as_bytes()];
        self.ask(&words, b"\r\n").await;
        let answer = String::from_utf8_lossy(&self.bytes);
        answer.lines().nth(1).unwrap().to_owned()
    }

    async fn acquire(&mut self, session: usize) -> u32 {
        let key = item_key(PREFIX, target(session).as_bytes());
        let (sha, nonce) = (self.read.clone(), self.next_nonce());
        let (key, sha) = (key.as_bytes(), sha.as_bytes());
        let (due, nonce): (&[u8], _) = (b"9999999999999", nonce.as_bytes());
        let words = [b"EVALSHA", sha, b"1", key, nonce, b"17", due, b"65536"];
        self.ask(&words, &[nonce, b"\r\n"].concat()).await;
        let counter = self.bytes.split(|byte| *byte == b'\n').nth(3).unwrap();
        let counter = String::from_utf8_lossy(counter);
        counter.trim_end().trim_start_matches(':').parse().unwrap()
    }

    async fn store(&mut self, session: usize, cookie: u32) {
        let key = item_key(PREFIX, target(session).as_bytes());
        let (sha, cookie, body) = (self.put.clone(), cookie.to_string(), self.body.clone());
        let (key, sha, cookie) = (key.as_bytes(), sha.as_bytes(), cookie.as_bytes());
        let nonce = self.next_nonce();
        let (due, nonce): (&[u8], _) = (b"9999999999999", nonce.as_bytes());
        let words: [&[u8]; 12] = [
            b"EVALSHA", sha, b"1", key, nonce, b"20", cookie, b"0", b"0", b"0", due, &body,
        ];
        let stored = [b"*2\r\n:200\r\n$22\r\n", nonce, b"\r\n"].concat();
        self.ask(&words, &stored).await;
    }

    /// Sends one command and waits until what came ends so.
    async fn ask(&mut self, words: &[&[u8]], end: &[u8]) {
        self.out.clear();
        self.out
            .extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            let length = format!("${}\r\n", word.len());
            self.out.extend_from_slice(length.as_bytes());
            self.out.extend_from_slice(word);
            self.out.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(&self.out).await.unwrap();
        self.bytes.clear();
        while !self.bytes.ends_with(end) {
            let count = self.stream.read_buf(&mut self.bytes).await.unwrap();
            let refused = count == 0 || self.bytes.starts_with(b"-");
            assert!(!refused, "{}", self.bytes.escape_ascii());
        }
    }
}
