//! What can be said of the certificates of one end.

use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::{DateTime, Decode};

/// Longest name that is told, in characters.
const MAX_NAME_CHARS: usize = 128;

/// How the certificates of one end are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateState {
    /// What they are for.
    pub what: String,
    /// Where the one that is shown lies, or those that are trusted if none is.
    pub file: PathBuf,
    /// When those in force are valid.
    pub validity: Validity,
    /// Where the authorities lie that are trusted, if any are.
    pub trusted_in: Option<PathBuf>,
    /// Why the files as they are now cannot be used; those in force are older ones then.
    pub problem: Option<String>,
}

/// When certificates are valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validity {
    /// The certificate that is shown, with those behind it; `None` if this end shows none.
    pub shown: Option<ShownValidity>,
    /// The authorities that are trusted, as far as they say until when they are valid.
    pub authorities: Vec<TimeLimit>,
}

/// When a certificate is valid, with those between it and the authority: all of them have to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownValidity {
    /// The one that begins last.
    pub from: TimeLimit,
    /// The one that ends first.
    pub until: TimeLimit,
}

/// Until when a certificate is valid, or from when on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeLimit {
    /// Its subject. Nothing in it steers a terminal.
    pub name: String,
    /// Unix time in seconds.
    pub at_s: i64,
}

/// An end of connections whose files may change.
pub(super) trait Watched: Send + Sync {
    /// Reads the files again, and puts them in force if they have changed and are right.
    fn look(&self);

    /// How its certificate is.
    fn state(&self) -> CertificateState;
}

impl CertificateState {
    /// Until when those in force are valid: Unix time in seconds. Of authorities one is enough.
    #[must_use]
    pub fn until_s(&self) -> i64 {
        let authorities = || self.validity.authorities.iter().map(|one| one.at_s);
        let shown = self.validity.shown.as_ref().map(|shown| shown.until.at_s);
        shown.or_else(|| authorities().max()).unwrap_or(i64::MAX)
    }
}

impl Validity {
    /// Why nobody takes the certificate that is shown at `now_s`, Unix time.
    #[must_use]
    pub fn fault_at(&self, now_s: i64) -> Option<String> {
        let ShownValidity { from, until } = self.shown.as_ref()?;
        if until.at_s <= now_s {
            Some(format!("{} has expired, on {}", until.name, until.date()))
        } else if from.at_s > now_s {
            let date = from.date();
            Some(format!("{} is not valid before {date}", from.name))
        } else {
            None
        }
    }
}

impl ShownValidity {
    /// That of a chain, its first certificate the one that is shown; `None` if that cannot be read.
    ///
    /// An authority at the end of a chain is there by habit: whoever trusts it has it. Of the others, those
    /// that cannot be read say nothing.
    pub(super) fn of_chain(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let (first, rest) = chain.split_first()?;
        let first = Certificate::from_der(first).ok()?;
        let mut shown = Self {
            from: TimeLimit::start_of(&first),
            until: TimeLimit::end_of(&first),
        };
        let rest = rest
            .iter()
            .filter_map(|der| Certificate::from_der(der).ok());
        for other in rest.filter(|other| !is_self_issued(other)) {
            let (from, until) = (TimeLimit::start_of(&other), TimeLimit::end_of(&other));
            if from.at_s > shown.from.at_s {
                shown.from = from;
            }
            if until.at_s < shown.until.at_s {
                shown.until = until;
            }
        }
        Some(shown)
    }
}

impl TimeLimit {
    /// The ends of all that can be read.
    pub(super) fn ends_of(certificates: &[CertificateDer<'_>]) -> Vec<Self> {
        let read = certificates.iter().filter_map(|der| {
            let certificate = Certificate::from_der(der).ok()?;
            Some(Self::end_of(&certificate))
        });
        read.collect()
    }

    fn start_of(certificate: &Certificate) -> Self {
        let validity = &certificate.tbs_certificate.validity;
        Self::new(certificate, validity.not_before.to_unix_duration())
    }

    fn end_of(certificate: &Certificate) -> Self {
        let validity = &certificate.tbs_certificate.validity;
        Self::new(certificate, validity.not_after.to_unix_duration())
    }

    fn new(certificate: &Certificate, at: Duration) -> Self {
        let subject = certificate.tbs_certificate.subject.to_string();
        let is_plain = |c: &char| c.is_alphanumeric() || c.is_ascii_graphic() || *c == ' ';
        let name: String = subject
            .chars()
            .filter(is_plain)
            .take(MAX_NAME_CHARS)
            .collect();
        Self {
            name: match name.is_empty() {
                true => "a certificate without a name".to_owned(),
                false => name,
            },
            at_s: i64::try_from(at.as_secs()).unwrap_or(i64::MAX),
        }
    }

    /// As text.
    #[must_use]
    pub fn date(&self) -> String {
        let seconds = u64::try_from(self.at_s).unwrap_or(0);
        let date = DateTime::from_unix_duration(Duration::from_secs(seconds));
        date.map_or_else(
            |_| format!("{seconds} s after 1970"),
            |date| date.to_string(),
        )
    }
}

fn is_self_issued(certificate: &Certificate) -> bool {
    certificate.tbs_certificate.subject == certificate.tbs_certificate.issuer
}
