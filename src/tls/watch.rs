//! Looks after the files of all certificates, and says how they are.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use super::certificate::{CertificateState, Watched};
use super::endpoint::{ClientTls, ServerTls};

/// How often the files are read. A certificate and its key are two files, so that one of them may be
/// new when they are read: that is a fault until the next look.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);

/// All certificates of this process. A thread of its own looks after their files for as long as this
/// lives.
#[derive(Default)]
pub struct TlsWatch {
    watched: Vec<Arc<dyn Watched>>,
    /// Has the thread look at once; that ends with it.
    looks: Option<SyncSender<()>>,
}

impl TlsWatch {
    /// Looks after the files of `servers` and `clients` from now on.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        servers: impl IntoIterator<Item = ServerTls>,
        clients: impl IntoIterator<Item = ClientTls>,
    ) -> io::Result<Self> {
        let servers = servers.into_iter().map(|end| end.watched());
        let clients = clients.into_iter().map(|end| end.watched());
        let watched: Vec<_> = servers.chain(clients).collect();
        if watched.is_empty() {
            return Ok(Self::default());
        }
        let (looks, wanted) = mpsc::sync_channel(1);
        let looked_after = watched.clone();
        let run = move || {
            while wanted.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Disconnected) {
                looked_after.iter().for_each(|end| end.look());
            }
        };
        thread::Builder::new()
            .name("certificates".to_owned())
            .spawn(run)?;
        Ok(Self {
            watched,
            looks: Some(looks),
        })
    }

    /// Has the files read soon, and waits for nothing.
    pub fn hurry(&self) {
        if let Some(looks) = &self.looks {
            // One that is waiting is enough.
            let _ = looks.try_send(());
        }
    }

    /// How the certificates are.
    #[must_use]
    pub fn states(&self) -> Vec<CertificateState> {
        self.watched.iter().map(|end| end.state()).collect()
    }
}

impl std::fmt::Debug for TlsWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsWatch")
            .field("states", &self.states())
            .finish_non_exhaustive()
    }
}
