//! Authorities and certificates, made anew for each test.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

/// Each has a name of its own.
static AUTHORITIES: AtomicUsize = AtomicUsize::new(0);

/// An authority that only this test knows.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub fn new() -> Self {
        Self::until(4096)
    }

    /// One that ends with the year before `year`.
    pub fn until(year: i32) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let number = AUTHORITIES.fetch_add(1, Ordering::Relaxed);
        let name = format!("authority {number}");
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = date_time_ymd(year, 1, 1);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    /// Writes its certificate to `ca.pem`.
    pub fn write(&self, folder: &Path) {
        std::fs::write(folder.join("ca.pem"), &self.pem).unwrap();
    }

    /// Its certificate, in PEM form.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Writes a certificate that bears `name`, and its key, to `NAME.pem` and `NAME.key` in `folder`,
    /// where `file` stands for NAME.
    pub fn issue(&self, folder: &Path, file: &str, name: &str) {
        self.issue_until(folder, file, name, 4000);
    }

    /// The same for one that ends with the year before `year`.
    pub fn issue_until(&self, folder: &Path, file: &str, name: &str, year: i32) {
        self.issue_between(folder, file, name, 1975, year);
    }

    /// The same for one that is valid from the year `from` on.
    pub fn issue_between(&self, folder: &Path, file: &str, name: &str, from: i32, until: i32) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(folder.join(format!("{file}.key")), key.serialize_pem()).unwrap();
        std::fs::write(folder.join(format!("{file}.pem")), certificate.pem()).unwrap();
    }
}
