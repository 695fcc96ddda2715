//! Answers every request at once and keeps nothing, on as many ports as backends are asked for:
//! what it costs is the same behind every proxy. It answers in the dialect of the request.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::args::Args;
use crate::poll::{Poll, Ready};
use crate::wire::{self, Answers, Dialect};
use crate::{Error, say};

struct Connection {
    socket: TcpStream,
    /// A head that is not complete yet.
    partial: Vec<u8>,
    /// Bytes of a request's body still to come.
    body_left: usize,
    /// What is owed once the request is complete.
    answer: Option<Answer>,
    written: usize,
    dialect: Dialect,
}

#[derive(Clone, Copy)]
enum Answer {
    Item,
    Done,
    Absent,
}

struct Bodies {
    aspnet: Answers,
    http: Answers,
}

/// `--listeners N --body BYTES`: listens on N ports, says `ports P,P,...` and serves until killed.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let count: usize = args.get("listeners", 3)?;
    let body = vec![b'x'; args.get("body", 2048)?];
    let bodies = Bodies {
        aspnet: Answers::new(Dialect::AspNet, &body),
        http: Answers::new(Dialect::Http, &body),
    };
    let mut poll = Poll::new()?;
    let mut listeners = Vec::new();
    let mut ports = Vec::new();
    for token in 0..count {
        let (listener, port) = crate::listen()?;
        ports.push(port.to_string());
        poll.add_listener(&listener, token)?;
        listeners.push(listener);
    }
    say(&format!("ports {}", ports.join(",")))?;

    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut free = Vec::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut ready: Vec<Ready> = Vec::new();
    loop {
        ready.clear();
        ready.extend(poll.wait(None)?);
        for event in &ready {
            if let Some(listener) = listeners.get(event.token) {
                let slot = free.pop().unwrap_or(connections.len());
                if slot == connections.len() {
                    connections.push(None);
                }
                connections[slot] = accept(listener, &poll, count + slot)?;
                if connections[slot].is_none() {
                    free.push(slot);
                }
                continue;
            }
            let slot = event.token - count;
            let Some(connection) = &mut connections[slot] else {
                continue;
            };
            if !connection.serve(&bodies, &mut buffer) {
                connections[slot] = None;
                free.push(slot);
            }
        }
    }
}

fn accept(listener: &TcpListener, poll: &Poll, token: usize) -> Result<Option<Connection>, Error> {
    let Ok((socket, _)) = listener.accept() else {
        return Ok(None);
    };
    let set = socket
        .set_nonblocking(true)
        .and_then(|()| socket.set_nodelay(true));
    set.map_err(|e| Error::Io("accepting", e))?;
    poll.add(&socket, token)?;
    Ok(Some(Connection {
        socket,
        partial: Vec::new(),
        body_left: 0,
        answer: None,
        written: 0,
        dialect: Dialect::AspNet,
    }))
}

impl Connection {
    /// Takes in and answers what it can; false when the connection is over.
    fn serve(&mut self, bodies: &Bodies, buffer: &mut [u8]) -> bool {
        loop {
            if !self.flush(bodies) {
                return false;
            }
            match self.socket.read(buffer) {
                Ok(0) => return false,
                Ok(n) => {
                    if self.take(&buffer[..n]).is_err() || !self.flush(bodies) {
                        return false;
                    }
                    // A short read emptied the socket; the next bytes make a new event.
                    if n < buffer.len() {
                        return true;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.answer.is_some() {
            self.body_left = self.body_left.saturating_sub(bytes.len());
            return Ok(());
        }
        let whole = if self.partial.is_empty() {
            bytes
        } else {
            self.partial.extend_from_slice(bytes);
            &self.partial
        };
        let Some(head) = wire::head(whole, "a proxy")? else {
            if self.partial.is_empty() {
                self.partial.extend_from_slice(bytes);
            }
            return Ok(());
        };
        let target = whole.iter().position(|byte| *byte == b' ').map(|at| at + 1);
        self.dialect = match target.and_then(|at| whole.get(at)) {
            Some(b'/') => Dialect::Http,
            _ => Dialect::AspNet,
        };
        self.answer = Some(match whole {
            [b'G', ..] => Answer::Item,
            [b'H', ..] => Answer::Absent,
            _ => Answer::Done,
        });
        self.body_left = head.body_len.saturating_sub(whole.len() - head.len);
        self.partial.clear();
        Ok(())
    }

    /// Sends what is owed once the request is complete; false when the connection is over.
    fn flush(&mut self, bodies: &Bodies) -> bool {
        let (Some(kind), 0) = (self.answer, self.body_left) else {
            return true;
        };
        let answers = match self.dialect {
            Dialect::AspNet => &bodies.aspnet,
            Dialect::Http => &bodies.http,
        };
        let bytes = match kind {
            Answer::Item => &answers.item,
            Answer::Done => &answers.done,
            Answer::Absent => &answers.absent,
        };
        while self.written < bytes.len() {
            match self.socket.write(&bytes[self.written..]) {
                Ok(n) => self.written += n,
                Err(e) => return e.kind() == ErrorKind::WouldBlock,
            }
        }
        self.answer = None;
        self.written = 0;
        true
    }
}
