//! Debian's `redis-server`, started by the test that wants it and ended with it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot set up its scene must fail and say why"
)]
#![allow(dead_code, reason = "each test binary uses a part of this")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A server that has not answered by now never will.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether there is a `redis-server`; if not, says that the test is left out. With `CI` set it must
/// be there.
pub(crate) fn has_redis() -> bool {
    let version = Command::new("redis-server").arg("--version").output();
    let has = version.is_ok_and(|output| output.status.success());
    assert!(has || std::env::var_os("CI").is_none(), "no redis-server");
    if !has {
        eprintln!("skipped: no redis-server");
    }
    has
}

/// A running server.
#[derive(Debug)]
pub(crate) struct RedisServer {
    pub(crate) port: u16,
    process: Child,
    arguments: Vec<String>,
    folder: TempDir,
}

impl RedisServer {
    /// One that keeps nothing, on a port of the system's choice.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_as(|_port| arguments.iter().map(|word| (*word).to_owned()).collect())
    }

    /// The same, with arguments that depend on the port.
    pub(crate) fn start_as(arguments: impl Fn(u16) -> Vec<String>) -> Self {
        Self::start_configured("save \"\"\n", arguments)
    }

    fn start_configured(config: &str, arguments: impl Fn(u16) -> Vec<String>) -> Self {
        // Somebody else may take the port in between.
        for _ in 0..20 {
            let port = free_port();
            let folder = tempfile::tempdir().unwrap();
            // A file as Sentinels want it: they write down what they learn.
            std::fs::write(folder.path().join("redis.conf"), config).unwrap();
            let arguments = arguments(port);
            let process = spawn(port, &arguments, &folder);
            let mut server = Self {
                port,
                process,
                arguments,
                folder,
            };
            if server.comes_up() {
                return server;
            }
        }
        panic!("redis-server does not start");
    }

    /// A Sentinel that watches the master at this port of this machine under `name`.
    pub(crate) fn start_sentinel(name: &str, master: u16) -> Self {
        let config = format!(
            "sentinel monitor {name} 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds {name} 3000\n\
             sentinel failover-timeout {name} 5000\n"
        );
        Self::start_configured(&config, |_port| vec!["--sentinel".to_owned()])
    }

    /// Ends it as a crash would. Its port and its folder stay.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again where it was.
    pub(crate) fn start_again(&mut self) {
        self.process = spawn(self.port, &self.arguments, &self.folder);
        assert!(self.comes_up(), "redis-server does not start again");
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A connection of the test's own.
    pub(crate) fn connect(&self) -> RedisClient {
        RedisClient::connect(self.address())
    }

    fn comes_up(&mut self) -> bool {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if self.process.try_wait().unwrap().is_some() {
                return false;
            }
            // A server with TLS alone answers nothing here, but it takes the connection.
            if TcpStream::connect(self.address()).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(port: u16, arguments: &[String], folder: &TempDir) -> Child {
    let port = port.to_string();
    let mut command = Command::new("redis-server");
    command.arg(folder.path().join("redis.conf"));
    command.args(["--bind", "127.0.0.1", "--loglevel", "warning"]);
    if !arguments.iter().any(|word| word == "--port") {
        command.args(["--port", &port]);
    }
    command.arg("--dir").arg(folder.path());
    command.args(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// A port that nobody has now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A few lines of RESP.
#[derive(Debug)]
pub(crate) struct RedisClient {
    stream: BufReader<TcpStream>,
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resp {
    Nil,
    Number(i64),
    Bytes(Vec<u8>),
    List(Vec<Resp>),
    Error(String),
}

impl Resp {
    pub(crate) fn number(&self) -> i64 {
        match self {
            Self::Number(number) => *number,
            other => panic!("{other:?} is no number"),
        }
    }

    pub(crate) fn text(&self) -> String {
        match self {
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("{other:?} is no text"),
        }
    }

    pub(crate) fn list(&self) -> &[Resp] {
        match self {
            Self::List(list) => list,
            other => panic!("{other:?} is no list"),
        }
    }
}

impl RedisClient {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// Asks with words.
    pub(crate) fn ask(&mut self, words: &[&str]) -> Resp {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.ask_bytes(&words)
    }

    pub(crate) fn ask_bytes(&mut self, words: &[&[u8]]) -> Resp {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&request).unwrap();
        self.answer()
    }

    /// Asks, and wants no error.
    pub(crate) fn expect(&mut self, words: &[&str]) -> Resp {
        let answer = self.ask(words);
        assert!(!matches!(answer, Resp::Error(_)), "{words:?}: {answer:?}");
        answer
    }

    fn answer(&mut self) -> Resp {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let line = line.trim_end_matches("\r\n");
        let (kind, rest) = line.split_at(1);
        match kind {
            "+" => Resp::Bytes(rest.as_bytes().to_vec()),
            "-" => Resp::Error(rest.to_owned()),
            ":" => Resp::Number(rest.parse().unwrap()),
            "$" if rest == "-1" => Resp::Nil,
            "$" => {
                let mut bytes = vec![0; rest.parse::<usize>().unwrap() + 2];
                self.stream.read_exact(&mut bytes).unwrap();
                bytes.truncate(bytes.len() - 2);
                Resp::Bytes(bytes)
            }
            "*" if rest == "-1" => Resp::Nil,
            "*" => {
                let count = rest.parse::<usize>().unwrap();
                Resp::List((0..count).map(|_| self.answer()).collect())
            }
            _ => panic!("{line:?} is no answer"),
        }
    }
}
