//! The options of commands that reach a server with TLS.

use std::path::PathBuf;

use crate::config::TlsTrust;
use crate::tls::{self, ClientFiles, TlsName};

/// Whom to trust, and what to show.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct TlsArgs {
    /// The file with the authorities of servers, in PEM form: servers are reached with TLS then
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// What the server's certificate bears; the host of its address if left out
    #[arg(long, value_name = "NAME", requires = "tls_ca", value_parser = tls_name)]
    tls_name: Option<TlsName>,
    /// The file with the certificate that the server is shown, in PEM form
    #[arg(long, value_name = "FILE", requires_all = ["tls_ca", "tls_key"])]
    tls_cert: Option<PathBuf>,
    /// The file with the key of that certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

fn tls_name(text: &str) -> Result<TlsName, String> {
    tls::name_of(text).ok_or_else(|| format!("no certificate can bear the name `{text}`"))
}

impl TlsArgs {
    /// How servers are known, if they are reached with TLS.
    pub(super) fn trust(&self) -> Result<Option<TlsTrust>, String> {
        let Some(ca) = self.tls_ca.clone() else {
            return Ok(None);
        };
        let own = self.tls_cert.clone().zip(self.tls_key.clone());
        let mut trust = TlsTrust {
            files: ClientFiles { ca, own },
            server_name: self.tls_name.clone(),
            client: None,
        };
        trust.load("servers").map_err(|error| error.to_string())?;
        Ok(Some(trust))
    }
}
