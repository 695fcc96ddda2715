//! Builds everything and decides what starts and stops in which order.
//!
//! * [`demo`]: state servers and the proxy in one process.
//! * [`engines`]: the way to a Redis or Valkey.
//! * [`names`]: what the host names in the files stand for.
//! * [`proxy_server`]: the proxy from a checked configuration.
//! * [`state_server`]: one embedded state server.
//! * [`signals`]: what SIGTERM and Ctrl-C do.
//! * `system`: limits of the process.

pub mod demo;
pub mod engines;
pub mod names;
pub mod proxy_server;
pub mod signals;
pub mod state_server;
mod system;

use std::io;
use std::num::NonZero;
use std::path::PathBuf;

use crate::config::LoadError;
use crate::control::ControlError;
use crate::disk::DiskError;
use crate::net::ListenError;
use crate::tls::TlsError;

/// A server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system gives no thread.
    #[error("cannot start a worker thread: {0}")]
    Thread(#[source] io::Error),
    /// Control finds what it cannot go on with.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The system gives no directory for the files of the demo.
    #[error("cannot make the directory {}: {source}", path.display())]
    Directory {
        /// The wanted directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The files of the demo are not as they should be.
    #[error(transparent)]
    Config(#[from] LoadError),
    /// The files of a certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The folder of the sessions cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The system gives no random numbers.
    #[error("cannot get random numbers from the system: {0}")]
    Random(#[source] io::Error),
}

/// Number of workers: `configured`, or one per core when it is 0.
fn worker_count(configured: usize) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(1, NonZero::get),
        count => count,
    }
}
