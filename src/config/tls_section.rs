//! The keys for TLS in the main file.

use std::path::{Path, PathBuf};

use super::address::BackendHost;
use super::fault::Location;
use super::key_pair::{Pair, pair};
use super::kinds::{Mistake, Text};
use super::printable::quoted;
use super::reader::{MapReader, Read};
use super::sections::FILE_PATH;
use super::sections::NAME;
use crate::tls::{
    ClientFiles, ClientTls, ServerFiles, TargetTls, TlsError, TlsName, TlsWatch, name_of,
};

/// Most entries of `backend_tls.plain`: as many as there can be backends.
const MAX_PLAIN: usize = 127;

/// How servers are reached with TLS.
#[derive(Debug, Clone)]
pub struct TlsTrust {
    /// Whom the proxy trusts, and what it shows.
    pub files: ClientFiles,
    /// What all certificates bear; `None` if each bears the host in the address of its server.
    pub server_name: Option<TlsName>,
    /// What was made of the files; `None` for a config that nobody has started a proxy with. No part
    /// of what the configuration says.
    pub client: Option<ClientTls>,
}

/// How backends are reached with TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendTls {
    /// All of them but those in `plain`.
    pub trust: TlsTrust,
    /// Names of the backends that are reached without TLS.
    pub plain: Vec<String>,
}

impl PartialEq for TlsTrust {
    fn eq(&self, other: &Self) -> bool {
        (&self.files, &self.server_name) == (&other.files, &other.server_name)
    }
}

impl Eq for TlsTrust {}

impl TlsTrust {
    /// What it takes to be sure of the server that is known as `host`; `None` before the files were
    /// read, or if no certificate can bear that name.
    #[must_use]
    pub fn target(&self, host: &BackendHost) -> Option<TargetTls> {
        let bears = || match host {
            BackendHost::Ip(ip) => name_of(&ip.to_string()),
            BackendHost::Name(name) => name_of(name),
        };
        let name = self.server_name.clone().or_else(bears);
        let (tls, name) = self.client.clone().zip(name)?;
        Some(TargetTls { tls, name })
    }

    /// Reads the files, which are for `what`.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(&mut self, what: &str) -> Result<ClientTls, TlsError> {
        let client = ClientTls::load(what, self.files.clone())?;
        self.client = Some(client.clone());
        Ok(client)
    }

    /// Has the files looked after by `watch`, if they have been read.
    pub fn follow(&mut self, watch: &TlsWatch) {
        self.client = self.client.take().map(|client| watch.adopt(client));
    }

    pub(super) fn join(&mut self, directory: &Path) {
        let files = &mut self.files;
        files.ca = directory.join(&files.ca);
        files.own = files
            .own
            .take()
            .map(|(cert, key)| (directory.join(cert), directory.join(key)));
    }
}

/// Joins relative paths to the directory of the main file.
pub(super) fn join(files: &mut ServerFiles, directory: &Path) {
    files.cert = directory.join(&files.cert);
    files.key = directory.join(&files.key);
    files.client_ca = files.client_ca.take().map(|path| directory.join(path));
}

/// What clients are shown; `client_ca` says what becomes of those without a certificate.
pub(super) fn read_server(
    map: &mut MapReader<'_, '_>,
    section: Option<Location>,
    client_ca: &'static str,
) -> Option<ServerFiles> {
    let cert = map.derived(
        "cert",
        "The file with the certificate of this proxy, and behind it those up to its authority, in \
         PEM form. Relative to the directory of this file, as are the others.",
        &FILE_PATH,
    );
    let key = map.derived(
        "key",
        "The file with the key of the certificate. Let only the user that runs staterouter read it.",
        &FILE_PATH,
    );
    let client_ca = map.derived("client_ca", client_ca, &FILE_PATH);
    let pair = pair(map, cert, key);
    match (pair, section) {
        (Pair::Both(cert, key), _) => Some(ServerFiles {
            cert,
            key,
            client_ca: client_ca.value(),
        }),
        (Pair::Neither, Some(place)) => {
            let problem = "`tls` has no certificate";
            map.fault(place, problem, "add `cert:` and `key:`, or remove `tls`");
            None
        }
        (Pair::Neither | Pair::Faulty, _) => None,
    }
}

/// How backends are reached.
pub(super) fn read_backends(
    map: &mut MapReader<'_, '_>,
    section: Option<Location>,
) -> Option<BackendTls> {
    let trust = read_client(map, section, "backend_tls", &FILE_PATH);
    let plain = map.list(
        "plain",
        "Names of the backends that are reached without TLS, such as stock state servers, which \
         speak none.",
        &NAME,
        MAX_PLAIN,
    );
    trust.map(|trust| BackendTls {
        trust,
        plain: plain.value,
    })
}

/// How servers are reached; `name` is that of the section.
pub(super) fn read_client(
    map: &mut MapReader<'_, '_>,
    section: Option<Location>,
    name: &str,
    path: &'static Text<PathBuf>,
) -> Option<TlsTrust> {
    let ca = map.derived(
        "ca",
        "The file with the authorities whose certificates are trusted, in PEM form. In the main \
         file paths are relative to its directory; in the partition map they are absolute.",
        path,
    );
    let cert = map.derived(
        "cert",
        "The file with the certificate that the proxy shows, and behind it those up to its \
         authority.",
        path,
    );
    let key = map.derived("key", "The file with the key of that certificate.", path);
    let server_name = map.derived(
        "server_name",
        "The name or IP address that all certificates bear. When left out, each has to bear the \
         host in the address of its server.",
        &SERVER_NAME,
    );
    let own = match pair(map, cert, key) {
        Pair::Both(cert, key) => Some((cert, key)),
        Pair::Neither => None,
        Pair::Faulty => return None,
    };
    match (ca, section) {
        (Read::Found(ca, _), _) => Some(TlsTrust {
            files: ClientFiles { ca, own },
            server_name: server_name.value(),
            client: None,
        }),
        (Read::Absent, Some(place)) => {
            let problem = format!("`{name}` has no authorities");
            map.fault(place, problem, format!("add `ca:`, or remove `{name}`"));
            None
        }
        (Read::Absent | Read::Faulty, _) => None,
    }
}

const SERVER_NAME: Text<TlsName> = Text {
    wanted: "a host name or an IP address, such as `state.farm.example`",
    pattern: Some("^[A-Za-z0-9._:-]{1,254}$"),
    parse: |text| {
        name_of(text).ok_or_else(|| {
            Mistake::new(format!(
                "{} is no host name and no IP address",
                quoted(text)
            ))
        })
    },
    write: |name| name.to_str().into_owned(),
    secret: false,
};
