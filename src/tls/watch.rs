//! Looks after the files of all certificates, and says how they are.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use super::certificate::{CertificateState, Watched};
use super::endpoint::{ClientEnd, ClientTls, ServerTls};

/// How often the files are read. A certificate and its key are two files, so that one of them may be
/// new when they are read: that is a fault until the next look.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);

/// All certificates of this process. A thread of its own looks after their files for as long as this
/// lives, from the first of them on. Whoever uses an end keeps it: one that nobody uses is forgotten.
#[derive(Default)]
pub struct TlsWatch {
    watched: Arc<Mutex<Vec<Looked>>>,
    /// Has the thread look at once; that ends with it.
    looks: OnceLock<SyncSender<()>>,
}

/// One end.
struct Looked {
    end: Weak<dyn Watched>,
    /// The same if it is one that connects.
    client: Option<Weak<ClientEnd>>,
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
        let watch = Self::default();
        for server in servers {
            watch.look_after(server.watched(), None)?;
        }
        for client in clients {
            watch.look_after(client.watched(), Some(client.end()))?;
        }
        Ok(watch)
    }

    /// Looks after the files of `client`, too. If the same files are looked after already, what was made
    /// of them counts, and is returned.
    pub fn adopt(&self, client: ClientTls) -> ClientTls {
        if let Some(known) = self.clients().find(|known| known.is_of_files_of(&client)) {
            return known;
        }
        if let Err(error) = self.look_after(client.watched(), Some(client.end())) {
            tracing::error!(
                "new certificates are not noticed before a restart: no thread: {error}"
            );
        }
        client
    }

    /// Those ends that connect and are used.
    fn clients(&self) -> impl Iterator<Item = ClientTls> {
        let watched = self.lock();
        let clients = watched
            .iter()
            .filter_map(|looked| looked.client.as_ref()?.upgrade());
        let clients: Vec<_> = clients.map(ClientTls::from).collect();
        clients.into_iter()
    }

    fn look_after(
        &self,
        end: Weak<dyn Watched>,
        client: Option<Weak<ClientEnd>>,
    ) -> io::Result<()> {
        let mut watched = self.lock();
        watched.retain(|looked| looked.end.strong_count() > 0);
        watched.push(Looked { end, client });
        if self.looks.get().is_some() {
            return Ok(());
        }
        let (looks, wanted) = mpsc::sync_channel(1);
        let looked_after = Arc::clone(&self.watched);
        let run = move || {
            while wanted.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Disconnected) {
                ends(&looked_after).iter().for_each(|end| end.look());
            }
        };
        thread::Builder::new()
            .name("certificates".to_owned())
            .spawn(run)?;
        // The list is locked: nobody else has set it.
        let _ = self.looks.set(looks);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Looked>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the files read soon, and waits for nothing.
    pub fn hurry(&self) {
        if let Some(looks) = self.looks.get() {
            // One that is waiting is enough.
            let _ = looks.try_send(());
        }
    }

    /// How the certificates are.
    #[must_use]
    pub fn states(&self) -> Vec<CertificateState> {
        ends(&self.watched).iter().map(|end| end.state()).collect()
    }
}

/// Those that are used. Their files are read without a lock.
fn ends(watched: &Mutex<Vec<Looked>>) -> Vec<Arc<dyn Watched>> {
    let watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
    let ends = watched.iter().filter_map(|looked| looked.end.upgrade());
    ends.collect()
}

impl std::fmt::Debug for TlsWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsWatch")
            .field("states", &self.states())
            .finish_non_exhaustive()
    }
}
