//! What is wrong with the certificates that this program shows and trusts.

use super::{Code, Finding};
use crate::tls::{CertificateState, TimeLimit};

const S_PER_DAY: i64 = 24 * 60 * 60;

/// So long before its end a certificate is told of.
const EXPIRES_SOON_S: i64 = 14 * S_PER_DAY;

/// Authorities that a finding names.
const MAX_NAMED: usize = 3;

impl Finding {
    /// What is wrong with the certificates of an end at `now_ms`, Unix time: nothing, that one ends, has
    /// ended or has not begun, that an authority ends, and that successors cannot be used.
    pub fn of_certificate(state: &CertificateState, now_ms: u64) -> Vec<Self> {
        let now_s = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
        let what = &state.what;
        let mut found: Vec<_> = Self::of_shown(state, now_s).into_iter().collect();
        if let Some(problem) = &state.problem {
            found.push(Self::new(
                Code::CertificateRefused,
                format!("the certificate for {what} stays as it was: {problem}"),
                "Nothing until the certificate in force expires.",
                "Correct the files; they are read every 5 s.",
            ));
        }
        let found = found.into_iter().map(|finding| finding.about(what));
        found.chain(Self::of_authorities(state, now_s)).collect()
    }

    /// About the certificate that is shown, and those behind it.
    fn of_shown(state: &CertificateState, now_s: i64) -> Option<Self> {
        let (what, file) = (&state.what, state.file.display());
        let until = &state.validity.shown.as_ref()?.until;
        let renew =
            format!("Put a new certificate and its key in place of {file}; no restart is needed.");
        if let Some(fault) = state.validity.fault_at(now_s) {
            return Some(Self::new(
                Code::CertificateExpired,
                format!("the certificate for {what} in {file} is not valid: {fault}"),
                "Whoever has to trust it refuses new connections: pages fail.",
                format!("{renew} If it should be valid, correct the clock of this machine."),
            ));
        }
        let left_s = until.at_s.saturating_sub(now_s);
        (left_s <= EXPIRES_SOON_S).then(|| {
            Self::new(
                Code::CertificateExpires,
                format!(
                    "the certificate for {what} in {file} expires in {} days: {}",
                    left_s / S_PER_DAY,
                    until.name
                ),
                "Nothing until then; then new connections are refused, and pages fail.",
                renew,
            )
        })
    }

    /// About the authorities that are trusted. What they have issued is taken here all the same.
    fn of_authorities(state: &CertificateState, now_s: i64) -> Option<Self> {
        let file = state.trusted_in.as_ref()?.display().to_string();
        let ends = |one: &&TimeLimit| one.at_s.saturating_sub(now_s) <= EXPIRES_SOON_S;
        let ending: Vec<_> = state.validity.authorities.iter().filter(ends).collect();
        let named = ending.iter().take(MAX_NAMED);
        let mut names: Vec<_> = named
            .map(|one| format!("{} ({})", one.name, one.date()))
            .collect();
        if ending.len() > MAX_NAMED {
            names.push(format!("{} more", ending.len() - MAX_NAMED));
        }
        (!ending.is_empty()).then(|| {
            Self::new(
                Code::CertificateExpires,
                format!(
                    "authorities in {file}, trusted for {}, have expired or will within 14 days: {}",
                    state.what,
                    names.join(", ")
                ),
                "Nothing: certificates of these authorities are taken here while they count \
                 themselves. Other programs refuse them once the authority has expired.",
                format!(
                    "Put the new authority into {file} beside the old one and renew what the old one \
                     has issued. Then take the old one out of {file}."
                ),
            )
            .about(&file)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{ShownValidity, Validity};

    const NOW_S: i64 = 1_000_000_000;

    fn limit(name: &str, at_s: i64) -> TimeLimit {
        let name = name.to_owned();
        TimeLimit { name, at_s }
    }

    fn state(shown: Option<(i64, i64)>, authorities: &[(&str, i64)]) -> CertificateState {
        CertificateState {
            what: "`listen`".to_owned(),
            file: "proxy.pem".into(),
            validity: Validity {
                shown: shown.map(|(since_s, left_s)| ShownValidity {
                    from: limit("CN=last", NOW_S - since_s),
                    until: limit("CN=first", NOW_S.saturating_add(left_s)),
                }),
                authorities: authorities
                    .iter()
                    .map(|(name, left_s)| limit(name, NOW_S + left_s))
                    .collect(),
            },
            trusted_in: Some("ca.pem".into()),
            problem: None,
        }
    }

    fn found(state: &CertificateState) -> Vec<(Code, String)> {
        let found = Finding::of_certificate(state, NOW_S as u64 * 1000).into_iter();
        found.map(|finding| (finding.code, finding.says)).collect()
    }

    fn codes(state: &CertificateState) -> Vec<Code> {
        found(state).into_iter().map(|(code, _)| code).collect()
    }

    #[test]
    fn a_certificate_is_told_of_fourteen_days_ahead_and_when_its_successor_is_faulty() {
        let shown = |since_s, left_s| state(Some((since_s, left_s)), &[]);
        assert_eq!(codes(&shown(1, 14 * S_PER_DAY + 1)), []);
        assert_eq!(codes(&shown(1, 14 * S_PER_DAY)), [Code::CertificateExpires]);
        assert_eq!(codes(&shown(1, 0)), [Code::CertificateExpired]);
        let refused = |left_s| CertificateState {
            problem: Some("no key".to_owned()),
            ..shown(1, left_s)
        };
        assert_eq!(
            codes(&refused(-S_PER_DAY)),
            [Code::CertificateExpired, Code::CertificateRefused]
        );
        assert_eq!(codes(&refused(i64::MAX)), [Code::CertificateRefused]);
    }

    #[test]
    fn what_ends_first_and_what_begins_last_is_named() {
        for (since_s, left_s, part) in [
            (1, S_PER_DAY, "1 days: CN=first"),
            (1, 0, "CN=first has expired, on 2001-09-09T01:46:40Z"),
            (
                -60,
                S_PER_DAY,
                "CN=last is not valid before 2001-09-09T01:47:40Z",
            ),
        ] {
            let found = found(&state(Some((since_s, left_s)), &[]));
            assert!(found[0].1.contains(part), "{found:?}");
        }
    }

    #[test]
    fn an_authority_that_has_expired_is_named_and_breaks_nothing() {
        let bundle = state(None, &[("CN=old", -1), ("CN=new", 400 * S_PER_DAY)]);
        let told = found(&bundle);
        assert_eq!(codes(&bundle), [Code::CertificateExpires]);
        assert!(
            told[0].1.contains("CN=old") && !told[0].1.contains("CN=new"),
            "{told:?}"
        );
        assert_eq!(bundle.until_s(), NOW_S + 400 * S_PER_DAY);
        let fresh = state(None, &[("CN=new", 400 * S_PER_DAY)]);
        assert_eq!(codes(&fresh), []);
    }
}
