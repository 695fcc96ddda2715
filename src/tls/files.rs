//! From PEM files to what the library takes.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::certificate::{ShownValidity, TimeLimit, Validity};
use crate::os::read_regular;

/// More is no certificate and no key.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What a server shows, and whose certificates it wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFiles {
    /// Its certificate, and those between it and the authority.
    pub cert: PathBuf,
    /// The key of the certificate.
    pub key: PathBuf,
    /// The authorities of clients; without it a client needs no certificate.
    pub client_ca: Option<PathBuf>,
}

/// Whom a client trusts, and what it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    /// The authorities of servers.
    pub ca: PathBuf,
    /// Its certificate and the key of that, for a server that wants to see one.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// The files give no working end of a connection.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The system does not give the file.
    #[error("cannot read {}: {problem}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        problem: std::io::Error,
    },
    /// The file holds something else.
    #[error("{} holds no {wanted} in PEM form: {problem}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
        /// What is there instead.
        problem: String,
    },
    /// Certificate and key are not a pair, or of a kind that is not supported.
    #[error("{} and {} cannot be used together: {problem}", cert.display(), key.display())]
    Pair {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// What the library says.
        problem: rustls::Error,
    },
    /// Nobody would take the certificate as the clock stands.
    #[error("{}: {fault}", path.display())]
    OutOfTime {
        /// The certificate.
        path: PathBuf,
        /// Which of those in the file, and why.
        fault: String,
    },
    /// The authorities cannot be used.
    #[error("the authorities in {} cannot be used: {problem}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What the library says.
        problem: String,
    },
}

/// What one end of a connection is made from.
pub(super) trait TlsFiles: Send + Sync + 'static {
    /// What the library makes of them.
    type Config: Send + Sync + 'static;

    /// All of them, in the order that [`Self::parse`] takes.
    fn paths(&self) -> Vec<&Path>;

    /// The file with the certificate that is shown; one that is trusted if none is.
    fn certificate(&self) -> &Path;

    /// The file with the authorities that are trusted, if any are.
    fn trusted(&self) -> Option<&Path>;

    /// Makes the end from the content of the files; also when the certificates are valid.
    fn parse(&self, contents: &[Vec<u8>]) -> Result<(Self::Config, Validity), TlsError>;
}

/// The content of all files.
pub(super) fn read(files: &impl TlsFiles) -> Result<Vec<Vec<u8>>, TlsError> {
    let read = |path: &Path| {
        read_regular(path, MAX_FILE_BYTES).map_err(|problem| TlsError::Read {
            path: path.to_owned(),
            problem,
        })
    };
    files.paths().into_iter().map(read).collect()
}

impl TlsFiles for ServerFiles {
    type Config = ServerConfig;

    fn paths(&self) -> Vec<&Path> {
        let all = [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()];
        all.into_iter().flatten().map(PathBuf::as_path).collect()
    }

    fn certificate(&self) -> &Path {
        &self.cert
    }

    fn trusted(&self) -> Option<&Path> {
        self.client_ca.as_deref()
    }

    fn parse(&self, contents: &[Vec<u8>]) -> Result<(ServerConfig, Validity), TlsError> {
        let [cert, key, rest @ ..] = contents else {
            return Err(missing(&self.cert));
        };
        let chain = certificates(&self.cert, cert)?;
        let shown = Some(validity_of(&self.cert, &chain)?);
        let mut trusted = Vec::new();
        let key = private_key(&self.key, key)?;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|problem| self.pair(problem))?;
        let builder = match (&self.client_ca, rest) {
            (Some(path), [authorities, ..]) => {
                trusted = TimeLimit::ends_of(&certificates(path, authorities)?);
                let roots = Arc::new(authorities_of(path, authorities)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                let verifier = verifier
                    .build()
                    .map_err(|problem| unusable(path, problem))?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|problem| self.pair(problem))?;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        let authorities = trusted;
        Ok((config, Validity { shown, authorities }))
    }
}

impl ServerFiles {
    fn pair(&self, problem: rustls::Error) -> TlsError {
        pair(&self.cert, &self.key, problem)
    }
}

impl TlsFiles for ClientFiles {
    type Config = ClientConfig;

    fn paths(&self) -> Vec<&Path> {
        let own = self.own.iter().flat_map(|(cert, key)| [cert, key]);
        let all = std::iter::once(&self.ca).chain(own);
        all.map(PathBuf::as_path).collect()
    }

    fn certificate(&self) -> &Path {
        self.own.as_ref().map_or(&self.ca, |(cert, _)| cert)
    }

    fn trusted(&self) -> Option<&Path> {
        Some(&self.ca)
    }

    fn parse(&self, contents: &[Vec<u8>]) -> Result<(ClientConfig, Validity), TlsError> {
        let [ca, own @ ..] = contents else {
            return Err(missing(&self.ca));
        };
        let roots = authorities_of(&self.ca, ca)?;
        let authorities = TimeLimit::ends_of(&certificates(&self.ca, ca)?);
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|problem| unusable(&self.ca, problem))?
            .with_root_certificates(roots);
        let (mut config, shown) = match (&self.own, own) {
            (Some((cert_path, key_path)), [cert, key]) => {
                let chain = certificates(cert_path, cert)?;
                let shown = validity_of(cert_path, &chain)?;
                let key = private_key(key_path, key)?;
                let config = builder.with_client_auth_cert(chain, key);
                let config = config.map_err(|problem| pair(cert_path, key_path, problem))?;
                (config, Some(shown))
            }
            _ => (builder.with_no_client_auth(), None),
        };
        config.resumption = Resumption::disabled();
        Ok((config, Validity { shown, authorities }))
    }
}

pub(super) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(ring::default_provider())
}

pub(super) fn certificates(
    path: &Path,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(|problem| no_pem(path, "certificate", problem))?;
    match found.is_empty() {
        true => Err(no_pem(path, "certificate", "there is none")),
        false => Ok(found),
    }
}

/// The text of a fault in a key could show a part of it: the kind of the fault is enough.
pub(super) fn private_key(path: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    let problem = "there is none, or it is damaged";
    PrivateKeyDer::from_pem_slice(bytes).map_err(|_| no_pem(path, "private key", problem))
}

pub(super) fn authorities_of(path: &Path, bytes: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, bytes)? {
        roots
            .add(certificate)
            .map_err(|problem| unusable(path, problem))?;
    }
    Ok(roots)
}

fn validity_of(path: &Path, chain: &[CertificateDer<'_>]) -> Result<ShownValidity, TlsError> {
    let validity = ShownValidity::of_chain(chain);
    validity.ok_or_else(|| no_pem(path, "certificate", "the first one cannot be read"))
}

fn missing(path: &Path) -> TlsError {
    no_pem(path, "certificate", "there is none")
}

fn no_pem(path: &Path, wanted: &'static str, problem: impl Display) -> TlsError {
    TlsError::Pem {
        path: path.to_owned(),
        wanted,
        problem: problem.to_string(),
    }
}

pub(super) fn pair(cert: &Path, key: &Path, problem: rustls::Error) -> TlsError {
    TlsError::Pair {
        cert: cert.to_owned(),
        key: key.to_owned(),
        problem,
    }
}

pub(super) fn unusable(path: &Path, problem: impl Display) -> TlsError {
    TlsError::Authorities {
        path: path.to_owned(),
        problem: problem.to_string(),
    }
}
