//! How a backend is reached with TLS as the state file has it, with the keys of the partition map.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::TlsTrust;
use crate::tls::{ClientFiles, name_of};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrustDocument {
    ca: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cert: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server_name: Option<String>,
}

impl From<&TlsTrust> for TrustDocument {
    fn from(trust: &TlsTrust) -> Self {
        let (cert, key) = trust.files.own.clone().unzip();
        let name = trust.server_name.as_ref();
        Self {
            ca: trust.files.ca.clone(),
            cert,
            key,
            server_name: name.map(|name| name.to_str().into_owned()),
        }
    }
}

impl TrustDocument {
    /// `None` for a name that no certificate can bear.
    pub(super) fn into_trust(self) -> Option<TlsTrust> {
        let server_name = match self.server_name {
            Some(name) => Some(name_of(&name)?),
            None => None,
        };
        Some(TlsTrust {
            files: ClientFiles {
                ca: self.ca,
                own: self.cert.zip(self.key),
            },
            server_name,
            client: None,
        })
    }
}
