//! The keys of the admin server.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::fault::Location;
use super::kinds::Text;
use super::reader::{Field, MapReader};
use super::sections::{FILE_PATH, HOST_NAME, parse_listen};
use super::settings::AdminConfig;
use super::tls_section::read_server;
use crate::tls::ServerFiles;

/// The keys of the admin server, with their places.
pub(super) struct AdminDraft {
    pub(super) listen: Field<Option<SocketAddr>>,
    pub(super) tls: Option<ServerFiles>,
    pub(super) tls_place: Option<Location>,
    pub(super) token_file: Field<Option<PathBuf>>,
    pub(super) hosts: Vec<String>,
}

/// The admin server.
pub(super) fn read_admin(map: &mut MapReader<'_, '_>) -> AdminDraft {
    let default = AdminConfig::default();
    let tls_place = map.name_place("tls");
    let doc = "The certificate of the admin server: with it only connections with TLS are served.";
    let client_ca = "The file with the authorities of clients: then only clients with a certificate \
                     from one of them are served, peers, metrics collectors and browsers alike.";
    AdminDraft {
        tls: map.section("tls", doc, |map| read_server(map, tls_place, client_ca)),
        tls_place,
        listen: map.optional(
            "listen",
            "IP address and port of the admin server; the other proxies and the metrics collector \
             reach it there. `off` for none.",
            &ADMIN_LISTEN,
            default.listen,
        ),
        token_file: map.optional(
            "token_file",
            "The file that holds the token which whoever changes something over the admin server \
             has to show, 16 characters or more. A relative path is relative to the directory of \
             this file. `off` for none: then only this machine may change something.",
            &TOKEN_FILE,
            default.token_file,
        ),
        hosts: map
            .list(
                "hosts",
                "Host names under which browsers and the metrics collector ask the admin server, \
                 beside IP addresses, `localhost`, the machine's own name and the names in `peers`. \
                 A request for another host is refused: a web site can point a name of its own \
                 here.",
                &HOST_NAME,
                MAX_HOSTS,
            )
            .value,
    }
}

/// Most entries of `admin.hosts`.
const MAX_HOSTS: usize = 32;

/// In place of an address to listen on.
const NO_LISTENER: &str = "off";

const ADMIN_LISTEN: Text<Option<SocketAddr>> = Text {
    wanted: "an IP address and a port, such as `127.0.0.1:42480` or `\"[::1]:42480\"`, or `off`",
    pattern: Some(r"^(off|(\[[0-9A-Fa-f:.%]+\]|[0-9.]+):[0-9]+)$"),
    parse: |text| match text {
        NO_LISTENER => Ok(None),
        _ => parse_listen(text).map(Some),
    },
    write: |listen| listen.map_or(NO_LISTENER.to_owned(), |address| address.to_string()),
    secret: false,
};

const TOKEN_FILE: Text<Option<PathBuf>> = Text {
    wanted: "the path of a file, or `off`",
    pattern: None,
    parse: |text| match text {
        NO_FILE => Ok(None),
        _ => (FILE_PATH.parse)(text).map(Some),
    },
    write: |path| path.as_ref().map_or(NO_FILE.to_owned(), FILE_PATH.write),
    secret: false,
};

/// In place of the path of a file.
const NO_FILE: &str = "off";
