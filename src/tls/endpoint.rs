//! The two ends of a connection, whose files can change while they are used.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::certificate::{CertificateState, Validity, Watched};
use super::files::{self, ClientFiles, ServerFiles, TlsError, TlsFiles};

/// The end that accepts. A clone is the same one.
#[derive(Debug, Clone)]
pub struct ServerTls(Arc<ServerEnd>);

/// The end that connects. A clone is the same one.
#[derive(Debug, Clone)]
pub struct ClientTls(Arc<ClientEnd>);

type ServerEnd = Endpoint<ServerFiles>;

pub(super) type ClientEnd = Endpoint<ClientFiles>;

/// An encrypted connection for a thread that waits for each byte.
pub struct BlockingTls(Box<StreamOwned<ClientConnection, std::net::TcpStream>>);

/// The name that a server's certificate has to bear.
pub type TlsName = ServerName<'static>;

/// What it takes to be sure of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetTls {
    /// Who is trusted, and what it is shown.
    pub tls: ClientTls,
    /// What its certificate has to bear.
    pub name: TlsName,
}

/// `host` as a name that a certificate can bear, if it is a host name or an IP address.
#[must_use]
pub fn name_of(host: &str) -> Option<TlsName> {
    ServerName::try_from(host.to_owned()).ok()
}

/// TlsFiles, and what was made of them last.
pub(super) struct Endpoint<F: TlsFiles> {
    what: String,
    files: F,
    state: Mutex<State<F::Config>>,
}

struct State<C> {
    config: Arc<C>,
    /// What `config` was made from.
    contents: Vec<Vec<u8>>,
    validity: Validity,
    /// Why the files as they are now cannot be used.
    problem: Option<String>,
}

impl ServerTls {
    /// From `files`; `what` says in messages what the certificate is for.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(what: impl Into<String>, files: ServerFiles) -> Result<Self, TlsError> {
        Endpoint::load(what.into(), files).map(|end| Self(Arc::new(end)))
    }

    /// Makes an encrypted connection from one that a client has opened.
    ///
    /// # Errors
    /// What is wrong with the client ([`is_tls_error`]), or with the connection.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(self.0.config());
        acceptor.accept(stream).await.map(TlsStream::Server)
    }

    pub(super) fn watched(&self) -> Weak<dyn Watched> {
        let end: Weak<ServerEnd> = Arc::downgrade(&self.0);
        end
    }
}

impl ClientTls {
    /// From `files`; `what` says in messages what the certificate is for.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(what: impl Into<String>, files: ClientFiles) -> Result<Self, TlsError> {
        Endpoint::load(what.into(), files).map(|end| Self(Arc::new(end)))
    }

    /// Makes an encrypted connection from one to the server whose certificate has to bear `name`.
    ///
    /// # Errors
    /// What is wrong with the server ([`is_tls_error`]), or with the connection.
    pub async fn connect(
        &self,
        stream: TcpStream,
        name: TlsName,
    ) -> io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(self.0.config());
        connector.connect(name, stream).await.map(TlsStream::Client)
    }

    /// The same for a thread that waits for each byte. Certificates are exchanged with the first bytes
    /// that are read or written.
    ///
    /// # Errors
    /// When the library makes no connection of it.
    pub fn connect_blocking(
        &self,
        stream: std::net::TcpStream,
        name: TlsName,
    ) -> io::Result<BlockingTls> {
        let session = ClientConnection::new(self.0.config(), name).map_err(io::Error::other)?;
        Ok(BlockingTls(Box::new(StreamOwned::new(session, stream))))
    }

    pub(super) fn watched(&self) -> Weak<dyn Watched> {
        self.end()
    }

    pub(super) fn end(&self) -> Weak<ClientEnd> {
        Arc::downgrade(&self.0)
    }

    pub(super) fn is_of_files_of(&self, other: &Self) -> bool {
        self.0.files == other.0.files
    }
}

impl BlockingTls {
    /// The socket, whose timeouts count.
    pub fn socket(&self) -> &std::net::TcpStream {
        self.0.get_ref()
    }
}

impl Read for BlockingTls {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.read(room)
    }
}

impl Write for BlockingTls {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Nothing of the keys.
impl std::fmt::Debug for BlockingTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlockingTls")
    }
}

impl From<Arc<ClientEnd>> for ClientTls {
    fn from(end: Arc<ClientEnd>) -> Self {
        Self(end)
    }
}

impl PartialEq for ClientTls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ClientTls {}

/// Whether what failed was the agreement and not the connection: a certificate that is refused by
/// one side or the other, or a peer that speaks no TLS.
#[must_use]
pub fn is_tls_error(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|inner| inner.is::<rustls::Error>())
}

impl<F: TlsFiles> Endpoint<F> {
    fn load(what: String, files: F) -> Result<Self, TlsError> {
        let contents = files::read(&files)?;
        // One that has expired is in force all the same, and is told of: there is none besides it.
        let (config, validity) = files.parse(&contents)?;
        let state = State {
            config: Arc::new(config),
            contents,
            validity,
            problem: None,
        };
        Ok(Self {
            what,
            files,
            state: Mutex::new(state),
        })
    }

    fn config(&self) -> Arc<F::Config> {
        Arc::clone(&self.lock().config)
    }

    fn lock(&self) -> MutexGuard<'_, State<F::Config>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The new end, if the files have changed. One that nobody would take does not replace one that all
    /// take.
    fn read_again(&self) -> Result<Option<State<F::Config>>, TlsError> {
        let contents = files::read(&self.files)?;
        if contents == self.lock().contents {
            return Ok(None);
        }
        let (config, validity) = self.files.parse(&contents)?;
        let now_s = now_s();
        if let Some(fault) = validity.fault_at(now_s)
            && self.lock().validity.fault_at(now_s).is_none()
        {
            let path = self.files.certificate().to_owned();
            return Err(TlsError::OutOfTime { path, fault });
        }
        Ok(Some(State {
            config: Arc::new(config),
            contents,
            validity,
            problem: None,
        }))
    }
}

impl<F: TlsFiles> Watched for Endpoint<F> {
    fn look(&self) {
        match self.read_again() {
            Ok(None) => self.lock().problem = None,
            Ok(Some(state)) => {
                *self.lock() = state;
                tracing::info!(
                    certificate = %self.files.certificate().display(),
                    "new certificate for {} in force",
                    self.what
                );
            }
            Err(error) => {
                let problem = error.to_string();
                if self.lock().problem.as_ref() != Some(&problem) {
                    tracing::error!(
                        "the certificate for {} stays as it was: {problem}",
                        self.what
                    );
                }
                self.lock().problem = Some(problem);
            }
        }
    }

    fn state(&self) -> CertificateState {
        let state = self.lock();
        CertificateState {
            what: self.what.clone(),
            file: PathBuf::from(self.files.certificate()),
            validity: state.validity.clone(),
            trusted_in: self.files.trusted().map(PathBuf::from),
            problem: state.problem.clone(),
        }
    }
}

fn now_s() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

/// Nothing of the keys.
impl<F: TlsFiles> std::fmt::Debug for Endpoint<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("what", &self.what)
            .field("file", &self.files.certificate())
            .finish_non_exhaustive()
    }
}
