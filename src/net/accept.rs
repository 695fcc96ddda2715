//! How a worker gets its connections: from a listener of its own, or from the one thread that accepts
//! for all where the kernel does not spread them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};

use super::listen::Sockets;

/// Pause after the kernel refused an accept for want of descriptors or memory.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that wait for one worker; the kernel holds those behind them.
const MAX_WAITING: usize = 256;

type Accepted = (std::net::TcpStream, SocketAddr);

/// Where one worker gets its connections, not yet on its runtime.
pub(super) enum Source {
    Listener(TcpListener),
    Handed(mpsc::Receiver<Accepted>),
}

/// Where one worker gets its connections.
pub(super) enum Acceptor {
    Listener(tokio::net::TcpListener),
    Handed(mpsc::Receiver<Accepted>),
}

impl Source {
    /// One for each worker, and the thread that accepts for them if there is one. It ends when
    /// `stopped` says so.
    ///
    /// # Errors
    /// When the system gives no thread or event queue.
    pub(super) fn for_workers(
        sockets: Sockets,
        thread_name: &str,
        stopped: &watch::Receiver<bool>,
    ) -> io::Result<(Vec<Self>, Option<JoinHandle<()>>)> {
        let (listener, workers) = match sockets {
            Sockets::EachWorker(listeners) => {
                let sources = listeners.into_iter().map(Self::Listener).collect();
                return Ok((sources, None));
            }
            Sockets::HandedRound(listener, workers) => (listener, workers),
        };
        let (senders, sources) = (0..workers)
            .map(|_| {
                let (sender, receiver) = mpsc::channel(MAX_WAITING);
                (sender, Self::Handed(receiver))
            })
            .unzip();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _entered = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let mut stopped = stopped.clone();
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = hand_round(&listener, senders) => {}
                    _ = stopped.wait_for(|stop| *stop) => {}
                }
            });
        };
        let thread = thread::Builder::new().name(format!("{thread_name}-accept"));
        Ok((sources, Some(thread.spawn(run)?)))
    }

    /// Must be called on the worker's runtime.
    pub(super) fn start(self) -> io::Result<Acceptor> {
        Ok(match self {
            Self::Listener(listener) => {
                Acceptor::Listener(tokio::net::TcpListener::from_std(listener)?)
            }
            Self::Handed(connections) => Acceptor::Handed(connections),
        })
    }
}

impl Acceptor {
    /// The next connection.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let connections = match self {
            Self::Listener(listener) => return listener.accept().await,
            Self::Handed(connections) => connections,
        };
        match connections.recv().await {
            Some((stream, peer)) => Ok((TcpStream::from_std(stream)?, peer)),
            // The thread that accepts has ended: so does this worker, in a moment.
            None => std::future::pending().await,
        }
    }
}

/// Gives each worker every so manieth connection; one whose queue is full is passed over.
async fn hand_round(listener: &tokio::net::TcpListener, mut workers: Vec<mpsc::Sender<Accepted>>) {
    loop {
        let accepted = match listener.accept().await {
            Ok((stream, peer)) => stream.into_std().map(|stream| (stream, peer)),
            Err(error) => Err(error),
        };
        let mut accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let free = workers.iter().position(|worker| worker.capacity() > 0);
        workers.rotate_left(free.unwrap_or(0));
        while let Some(worker) = workers.first() {
            match worker.send(accepted).await {
                Ok(()) => break,
                // A worker that has ended takes none.
                Err(mpsc::error::SendError(back)) => accepted = back,
            }
            workers.remove(0);
        }
        if workers.is_empty() {
            return;
        }
        workers.rotate_left(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Listeners;

    #[tokio::test]
    async fn one_listener_serves_all_workers_in_turn_and_passes_over_those_that_ended() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = Listeners::bind_one(any, 3).unwrap();
        let address = listeners.address;
        let (stop, stopped) = watch::channel(false);
        let (sources, thread) = Source::for_workers(listeners.sockets, "test", &stopped).unwrap();
        let sources = sources.into_iter().map(|source| source.start().unwrap());
        let mut workers: Vec<_> = sources.collect();
        for round in 0..3 {
            if round == 2 {
                workers.remove(1);
            }
            for worker in &mut workers {
                let connected = TcpStream::connect(address).await.unwrap();
                let (_, peer) = worker.accept().await.unwrap();
                assert_eq!(peer, connected.local_addr().unwrap());
            }
        }
        stop.send(true).unwrap();
        thread.unwrap().join().unwrap();
    }
}
