//! The end that connects to servers that are not of this program.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

use super::endpoint::TlsName;
use super::files::{TlsError, authorities_of, certificates, pair, private_key, provider, unusable};
use crate::os::read_regular;

/// More is no certificate and no key.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Trusts the authorities of a file, or those of the system. TLS 1.2 will do: others have it.
#[derive(Debug, Clone)]
pub struct TrustTls(Arc<ClientConfig>);

impl TrustTls {
    /// Trusts the authorities in `ca`, those of the system without, and shows `own`, certificate and
    /// key, if asked. The files are read.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn read(ca: Option<&Path>, own: Option<(&Path, &Path)>) -> Result<Self, TlsError> {
        let roots = match ca {
            Some(path) => authorities_of(path, &read(path)?)?,
            None => authorities_of_the_system(),
        };
        let name = ca.unwrap_or_else(|| Path::new("the system"));
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|problem| unusable(name, problem))?
            .with_root_certificates(roots);
        let config = match own {
            Some((cert, key)) => {
                let chain = certificates(cert, &read(cert)?)?;
                let secret = private_key(key, &read(key)?)?;
                let config = builder.with_client_auth_cert(chain, secret);
                config.map_err(|problem| pair(cert, key, problem))?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self(Arc::new(config)))
    }

    /// Makes an encrypted connection from one to the server whose certificate has to bear `name`.
    ///
    /// # Errors
    /// What is wrong with the server, or with the connection.
    pub async fn connect(
        &self,
        stream: TcpStream,
        name: TlsName,
    ) -> io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(Arc::clone(&self.0));
        connector.connect(name, stream).await.map(TlsStream::Client)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    read_regular(path, MAX_FILE_BYTES).map_err(|problem| TlsError::Read {
        path: path.to_owned(),
        problem,
    })
}

/// Those that cannot be read are left out: who has none of the others is refused with the reason.
fn authorities_of_the_system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    roots
}
