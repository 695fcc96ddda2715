//! Applications that go by several ids, and the one id that state servers know them by.
//!
//! What ASP.NET puts in front of a session id is `id(hash)/`, the application's id and a hash of it
//! (protocol 2.1). Web servers share sessions only if they put the same there. An [`Application`]
//! says which ids mean the same, and what is to stand there instead.

use super::key::{KeyBuffer, KeyError, extract, sent_start_bytes};

/// Longest start of a target that is put in place of another one, in bytes as they are sent.
pub const MAX_START_BYTES: usize = 480;

/// One application with all its ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// All ids without the slashes in front of them.
    ids: Vec<Vec<u8>>,
    ignores_case: bool,
    /// `id(hash)/` of the first one.
    start: Vec<u8>,
    /// The same as .NET 4.x sends it.
    sent: Vec<u8>,
}

/// The start of a target would be longer than [`MAX_START_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what stands in front of the session id would be longer than {MAX_START_BYTES} bytes")]
pub struct StartTooLong;

/// What becomes of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renaming<'a> {
    /// Which application it belongs to.
    pub application: usize,
    /// How many bytes at the start of the target are replaced, and by which; `None` if it is what
    /// state servers know already.
    pub start: Option<(usize, &'a [u8])>,
}

impl Application {
    /// The application that state servers are to know as `id`, with `hash` in base64 behind it; it is
    /// `also` known by other ids. With `ignores_case` the ASCII letters of ids may have either case.
    ///
    /// # Errors
    /// [`StartTooLong`].
    pub fn new(
        id: &str,
        hash: &str,
        also: &[String],
        ignores_case: bool,
    ) -> Result<Self, StartTooLong> {
        let start = format!("{id}({hash})/").into_bytes();
        let sent = form_url_encoded(&start);
        if sent.len() > MAX_START_BYTES {
            return Err(StartTooLong);
        }
        let ids = std::iter::once(id).chain(also.iter().map(String::as_str));
        Ok(Self {
            ids: ids
                .map(|id| without_slashes(id.as_bytes()).to_vec())
                .collect(),
            ignores_case,
            start,
            sent,
        })
    }

    /// Whether one of its ids is this one. How many slashes stand in front depends on the framework.
    #[must_use]
    pub fn has_id(&self, id: &[u8]) -> bool {
        let id = without_slashes(id);
        self.ids.iter().any(|own| match self.ignores_case {
            true => own.eq_ignore_ascii_case(id),
            false => own == id,
        })
    }
}

/// What becomes of `target`; `None` if it belongs to none of `applications`, or has not the usual
/// form, which is left alone.
///
/// # Errors
/// As [`extract`].
pub fn renaming<'a>(
    applications: &'a [Application],
    target: &[u8],
    buffer: &mut KeyBuffer,
) -> Result<Option<Renaming<'a>>, KeyError> {
    let key = extract(target, buffer)?;
    if !key.is_usual() {
        return Ok(None);
    }
    let has_id = |application: &Application| application.has_id(key.app());
    let Some(application) = applications.iter().position(has_id) else {
        return Ok(None);
    };
    let Application { start, sent, .. } = &applications[application];
    let known = key.start();
    let start = (known != start).then(|| (sent_start_bytes(target, known.len()), sent.as_slice()));
    Ok(Some(Renaming { application, start }))
}

fn without_slashes(id: &[u8]) -> &[u8] {
    let slashes = id.iter().take_while(|&&byte| byte == b'/').count();
    &id[slashes..]
}

/// As .NET encodes it (protocol 2.1).
fn form_url_encoded(bytes: &[u8]) -> Vec<u8> {
    let mut sent = Vec::new();
    for &byte in bytes {
        match byte {
            b' ' => sent.push(b'+'),
            b'-' | b'_' | b'.' | b'!' | b'*' | b'(' | b')' => sent.push(byte),
            _ if byte.is_ascii_alphanumeric() => sent.push(byte),
            _ => sent.extend_from_slice(format!("%{byte:02x}").as_bytes()),
        }
    }
    sent
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "Jm6ty1cajOuzgqZzg9R7dzIu2QqSsb6LymzfuVMEdFI=";
    const SENT: &str =
        "%2fLM%2fW3SVC%2f7%2fROOT%2fshop(Jm6ty1cajOuzgqZzg9R7dzIu2QqSsb6LymzfuVMEdFI%3d)%2f";
    const OTHER: &str = "(p7e8AFa1XIhN0rf6iZYx2E%2b1R83HfuFFEmId91CQ6DU%3d)%2f";

    fn shop(also: &[&str], ignores_case: bool) -> [Application; 1] {
        let also: Vec<_> = also.iter().map(|id| (*id).to_owned()).collect();
        let id = "/LM/W3SVC/7/ROOT/shop";
        [Application::new(id, HASH, &also, ignores_case).unwrap()]
    }

    /// The target that is sent on.
    fn sent_on(applications: &[Application], target: &str) -> String {
        let mut buffer = KeyBuffer::new();
        let renaming = renaming(applications, target.as_bytes(), &mut buffer).unwrap();
        match renaming.and_then(|renaming| renaming.start) {
            Some((count, start)) => String::from_utf8_lossy(start) + &target[count..],
            None => target.into(),
        }
        .into_owned()
    }

    #[test]
    fn every_id_leads_to_the_one_that_state_servers_know_and_the_session_id_stays_as_it_came() {
        let applications = shop(&["/LM/W3SVC/3/ROOT/Shop", "LM/W3SVC/4/ROOT/my shop"], false);
        for app in [
            "%2fLM%2fW3SVC%2f3%2fROOT%2fShop",
            "/%2fLM%2fW3SVC%2f3%2fROOT%2fShop",
            "//LM/W3SVC/3/ROOT/Shop",
            "/LM/W3SVC/3/ROOT/%53hop",
            "%2fLM%2fW3SVC%2f4%2fROOT%2fmy+shop",
            "%u002fLM%2FW3SVC%2f4%2fROOT%2fmy%20shop",
        ] {
            for id in [
                "q3m1zt0xk4vdw2hn5sbyr0ac",
                "a(b)%2fc",
                "100%zz%4",
                "%e3%81%82+x",
            ] {
                let target = format!("{app}{OTHER}{id}");
                assert_eq!(
                    sent_on(&applications, &target),
                    format!("{SENT}{id}"),
                    "{target}"
                );
            }
        }
    }

    #[test]
    fn what_state_servers_know_already_and_other_applications_stay_as_they_came() {
        let applications = shop(&["/LM/W3SVC/3/ROOT/Shop"], false);
        for target in [
            format!("{SENT}abc"),
            "/LM/W3SVC/7/ROOT/shop(Jm6ty1cajOuzgqZzg9R7dzIu2QqSsb6LymzfuVMEdFI%3d)/abc".to_owned(),
            format!("%2fLM%2fW3SVC%2f3%2fROOT%2fshop{OTHER}abc"),
            format!("%2fLM%2fW3SVC%2f3%2fROOT{OTHER}abc"),
            "/LM/W3SVC/3/ROOT/Shop/abc".to_owned(),
            "/LM/W3SVC/3/ROOT/Shop(abc)/abc".to_owned(),
        ] {
            assert_eq!(sent_on(&applications, &target), target);
        }
    }

    #[test]
    fn case_counts_unless_it_is_to_be_ignored() {
        let target = format!("%2flm%2fw3svc%2f7%2froot%2fSHOP{OTHER}AbC");
        assert_eq!(sent_on(&shop(&[], false), &target), target);
        assert_eq!(sent_on(&shop(&[], true), &target), format!("{SENT}AbC"));
        // Another hash under the very id.
        let target = format!("%2fLM%2fW3SVC%2f7%2fROOT%2fshop{OTHER}abc");
        assert_eq!(sent_on(&shop(&[], false), &target), format!("{SENT}abc"));
    }

    #[test]
    fn a_start_has_a_bound() {
        let long = format!("/LM/{}", "é".repeat(80));
        let refused = Application::new(&long, HASH, &[], false);
        assert_eq!(refused, Err(StartTooLong));
    }
}
