//! Copies bytes between a client connection and a backend connection of its own, without looking at
//! them: two reads and two writes for a request, the least that a program between two sockets can
//! do. It does not route by session.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use crate::args::Args;
use crate::poll::{Poll, Ready};
use crate::{Error, say};

/// Bytes copied by one call.
const BUFFER_BYTES: usize = 64 * 1024;

/// The token of the listener; connection `n` has `2n + 1` and, on the backend's side, `2n + 2`.
const LISTENER: usize = 0;

/// One direction: what was read and could not be written yet.
#[derive(Default)]
struct Way {
    pending: Vec<u8>,
}

struct Pair {
    client: TcpStream,
    backend: TcpStream,
    up: Way,
    down: Way,
}

/// `--backends PORT,PORT,... --threads N`: says `port P` and copies until killed.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let backends: Vec<u16> = args.list("backends")?;
    let threads: usize = args.get("threads", 1)?;
    let (listener, port) = crate::listen()?;
    say(&format!("port {port}"))?;
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| copy(&listener, &backends));
        }
        copy(&listener, &backends)
    })
}

fn copy(listener: &TcpListener, backends: &[u16]) -> Result<(), Error> {
    let mut poll = Poll::new()?;
    poll.add_listener(listener, LISTENER)?;
    let mut pairs: Vec<Option<Pair>> = Vec::new();
    let mut free = Vec::new();
    let mut next_backend = backends.iter().cycle();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut ready: Vec<Ready> = Vec::new();
    loop {
        ready.clear();
        ready.extend(poll.wait(None)?);
        for event in &ready {
            if event.token == LISTENER {
                let Ok((client, _)) = listener.accept() else {
                    continue;
                };
                let port = next_backend.next().copied().unwrap_or_default();
                let pair = connect(client, port).map_err(|e| Error::Io("connecting", e))?;
                let slot = free.pop().unwrap_or(pairs.len());
                poll.add(&pair.client, 2 * slot + 1)?;
                poll.add(&pair.backend, 2 * slot + 2)?;
                if slot == pairs.len() {
                    pairs.push(None);
                }
                pairs[slot] = Some(pair);
                continue;
            }
            let slot = (event.token - 1) / 2;
            let Some(pair) = &mut pairs[slot] else {
                continue;
            };
            if pair.serve(*event, &mut buffer).is_err() {
                pairs[slot] = None;
                free.push(slot);
            }
        }
    }
}

fn connect(client: TcpStream, port: u16) -> std::io::Result<Pair> {
    let backend = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    for socket in [&client, &backend] {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
    }
    Ok(Pair {
        client,
        backend,
        up: Way::default(),
        down: Way::default(),
    })
}

impl Pair {
    fn serve(&mut self, event: Ready, buffer: &mut [u8]) -> std::io::Result<()> {
        let of_client = event.token % 2 == 1;
        let (here, there) = (&self.client, &self.backend);
        let (out, back) = (&mut self.up, &mut self.down);
        let (here, there, out, back) = if of_client {
            (here, there, out, back)
        } else {
            (there, here, back, out)
        };
        if event.writable && !back.pending.is_empty() {
            back.copy(there, here, buffer)?;
        }
        if event.readable {
            out.copy(here, there, buffer)?;
        }
        Ok(())
    }
}

impl Way {
    /// Copies until `from` is empty or `to` is full.
    fn copy(&mut self, from: &TcpStream, to: &TcpStream, buffer: &mut [u8]) -> std::io::Result<()> {
        loop {
            if !self.pending.is_empty() {
                let written = write(to, &self.pending)?;
                self.pending.drain(..written);
                if !self.pending.is_empty() {
                    return Ok(());
                }
            }
            let mut socket = from;
            let n = match socket.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            };
            let written = write(to, &buffer[..n])?;
            self.pending.extend_from_slice(&buffer[written..n]);
            // A short read emptied the socket; the next bytes make a new event.
            if n < buffer.len() {
                return Ok(());
            }
        }
    }
}

/// Writes until the socket is full.
fn write(mut to: &TcpStream, bytes: &[u8]) -> std::io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match to.write(&bytes[written..]) {
            Ok(n) => written += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) => return Err(e),
        }
    }
    Ok(written)
}
