//! The programs that a comparison of proxies needs around them: `run.py` starts them.
//!
//! * `peers backend`: answers like a state server, without keeping anything
//! * `peers relay`: copies bytes between a client and a backend, the least that a proxy can do
//! * `peers load`: sends requests and measures
//!
//! Whatever fails ends the program with a line on stderr and exit code 1.

mod args;
mod backend;
mod load;
mod poll;
mod relay;
mod stores;
mod wire;

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;

use args::Args;

/// The most that Linux allows by default.
const WAITING_CONNECTIONS: i32 = 4096;

/// Who could not do what.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("usage: {0}")]
    Usage(String),
    #[error("{0}: {1}")]
    Io(&'static str, #[source] std::io::Error),
    #[error("epoll: {0}")]
    Poll(#[from] rustix::io::Errno),
    #[error("{who} sent what is not of the protocol: {what}")]
    Protocol {
        who: &'static str,
        what: &'static str,
    },
    #[error("the subject closed a connection in use")]
    Closed,
    #[error("the subject answered {0}")]
    Status(u16),
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let args = Args::parse(words)?;
    match command.as_str() {
        "backend" => backend::run(&args),
        "relay" => relay::run(&args),
        "load" => load::run(&args),
        _ => Err(Error::Usage(
            "peers backend|relay|load --NAME VALUE ...".into(),
        )),
    }
}

/// Writes one line for `run.py` to read.
fn say(line: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|e| Error::Io("writing to stdout", e))
}

/// A listener on a port that the system chooses, and the port. Of the connections that wait to be
/// accepted it keeps so many that thousands may come at once.
fn listen() -> Result<(TcpListener, u16), Error> {
    let open = || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        rustix::net::listen(&listener, WAITING_CONNECTIONS)?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        Ok((listener, port))
    };
    open().map_err(|e| Error::Io("listening", e))
}
