//! What can be said of a certificate in force.

use std::path::PathBuf;

/// How a certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateState {
    /// What it is for.
    pub what: String,
    /// Where it lies.
    pub file: PathBuf,
    /// Until when the one in force counts: Unix time in seconds.
    pub until_s: i64,
    /// Why the files as they are now cannot be used; the one in force is an older one then.
    pub problem: Option<String>,
}

/// An end of connections whose files may change.
pub(super) trait Watched: Send + Sync {
    /// Reads the files again, and puts them in force if they have changed and are right.
    fn look(&self);

    /// How its certificate is.
    fn state(&self) -> CertificateState;
}
