//! Encrypted connections between our own parts: certificates, and who is trusted.
//!
//! ASP.NET and the stock state server speak no TLS. It stands between a proxy and a state server of
//! this program, and between a proxy near the web servers and whoever it asks.
//!
//! * `certificate`: what can be said of those in force.
//! * `files`: from PEM files to what the library takes.
//! * `ending`: whether the peer of a connection has ended it.
//! * [`endpoint`]: the two ends of a connection, whose files can change while they are used.
//! * `trust`: the end that connects to servers that are not of this program.
//! * [`watch`]: looks after the files, and says how the certificates are.
//!
//! Between our own parts TLS 1.3 alone, and no resumed sessions: each connection shows its certificate, and a change of the
//! files counts for every connection from then on.

mod certificate;
mod ending;
pub mod endpoint;
mod files;
mod trust;
pub mod watch;

pub use certificate::{CertificateState, ShownValidity, TimeLimit, Validity};
pub use ending::poll_ended;
pub use endpoint::{BlockingTls, ClientTls, ServerTls, TargetTls, TlsName, is_tls_error, name_of};
pub use files::{ClientFiles, ServerFiles, TlsError};
pub use trust::TrustTls;
pub use watch::TlsWatch;
