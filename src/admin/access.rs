//! Who may ask for what.
//!
//! A browser on a machine that reaches the admin server runs the scripts of any site. Three things
//! keep those out, and each closes a way that the others leave open:
//!
//! * A known host: a site that has its own name point here is told by that name (DNS rebinding).
//! * No sign of another site: browsers say in `Origin`, `Referer` or `Sec-Fetch-Site` whose page
//!   asks.
//! * A header of our own: no form or image can send one, however old the browser is, and a script
//!   of another site only after it has asked for leave, which nobody gets here.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN, REFERER};
use hyper::http::uri::Authority;

use crate::control::handle::AdminAccess;
use crate::metrics::AdminRefusal;

/// The header that comes with everything that changes something or is work. Its value does not
/// matter.
pub(super) const OWN_HEADER: HeaderName = HeaderName::from_static("staterouter-request");

/// Says whose page makes a browser ask.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What is asked of a request before it is answered. Each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Guard {
    /// Says no more than that the program lives: anybody may know.
    Open,
    /// Tells about the pool: under a known host only.
    Read,
    /// Keeps a processor busy: no page of another site may ask for it.
    Work,
    /// Changes something: with the token, or from this machine where there is none.
    Change,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    /// It asks for a host that this admin server is not known as.
    #[error(
        "{0} is not a known name of this admin server: ask by IP address, or add the name to \
         admin.hosts (state-server: --admin-host)"
    )]
    UnknownHost(ShownHost),
    /// A page of another site makes a browser ask.
    #[error("no page of another site may ask for this")]
    OtherSite,
    /// It lacks [`OWN_HEADER`].
    #[error("ask for this with the header Staterouter-Request: 1")]
    NoOwnHeader,
    /// There is a token, and the request shows none.
    #[error("show the token of admin.token_file: Authorization: Bearer TOKEN")]
    NoToken,
    /// There is a token, and the request shows another one.
    #[error("this is not the token of admin.token_file")]
    WrongToken,
    /// There is a token, and one that was shown from there a moment ago was wrong. This one has not
    /// been looked at.
    #[error(
        "a wrong token came from your address less than a second ago: this one was not looked at, \
         try again in a second"
    )]
    TooSoon,
    /// There is no token, and the request comes from another machine.
    #[error(
        "without admin.token_file only requests from the proxy's own machine, over loopback, may \
         change something"
    )]
    Remote,
    /// There is no token, and a page in a browser on this machine makes the request.
    #[error("without admin.token_file no web page may change something")]
    WebPage,
}

/// A host as a request spells it, fit for a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShownHost(String);

impl std::fmt::Display for ShownHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`", self.0)
    }
}

impl ShownHost {
    fn of(host: &[u8]) -> Self {
        const MAX_CHARS: usize = 100;
        let shown = host.iter().take(MAX_CHARS).map(|&byte| match byte {
            b'!'..=b'~' if byte != b'`' => char::from(byte),
            _ => '?',
        });
        Self(shown.collect())
    }
}

/// Whether a request may be answered as far as its headers say; the token is another matter.
///
/// # Errors
/// [`Denied`].
pub(super) fn check(
    guard: Guard,
    target_host: Option<&Authority>,
    headers: &HeaderMap,
    peer: IpAddr,
    access: &AdminAccess,
) -> Result<(), Denied> {
    if guard >= Guard::Read {
        require_known_host(target_host, headers, &access.hosts)?;
    }
    if guard >= Guard::Work {
        if is_of_another_site(headers) {
            return Err(Denied::OtherSite);
        }
        if !headers.contains_key(OWN_HEADER) {
            return Err(Denied::NoOwnHeader);
        }
    }
    if guard >= Guard::Change && access.token.is_none() {
        if !peer.to_canonical().is_loopback() {
            return Err(Denied::Remote);
        }
        if headers.contains_key(ORIGIN) {
            return Err(Denied::WebPage);
        }
    }
    Ok(())
}

/// Every browser says which host it asks for; what says nothing, as simple health checks do, is
/// none.
fn require_known_host(
    target_host: Option<&Authority>,
    headers: &HeaderMap,
    names: &[String],
) -> Result<(), Denied> {
    let target_host = target_host.map(|host| host.as_str().as_bytes());
    let hosts = headers.get_all(HOST).iter().map(|host| host.as_bytes());
    for host in target_host.into_iter().chain(hosts) {
        if !is_known_host(host, names) {
            return Err(Denied::UnknownHost(ShownHost::of(host)));
        }
    }
    Ok(())
}

/// Whether a host, with or without a port, is an IP address, this machine by the name that every
/// machine gives itself, or one of `names`. Nobody else can make one of these point here.
fn is_known_host(host: &[u8], names: &[String]) -> bool {
    let Ok(authority) = Authority::try_from(host) else {
        return false;
    };
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let bracketed = host.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
    if bracketed.unwrap_or(host).parse::<IpAddr>().is_ok() {
        return true;
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost") || names.contains(&host)
}

/// Whether a browser says that a page from elsewhere makes it ask. Our own page is at the host that
/// is asked for.
fn is_of_another_site(headers: &HeaderMap) -> bool {
    let own = headers.get(HOST).map(|host| host.as_bytes());
    let is_elsewhere = |url: &[u8]| {
        let site = site_of(url);
        site.is_none_or(|site| !own.is_some_and(|own| own.eq_ignore_ascii_case(site)))
    };
    let mut urls = headers
        .get_all(ORIGIN)
        .iter()
        .chain(headers.get_all(REFERER));
    let mut relations = headers.get_all(SEC_FETCH_SITE).iter();
    urls.any(|url| is_elsewhere(url.as_bytes()))
        || relations.any(|relation| !matches!(relation.as_bytes(), b"same-origin" | b"none"))
}

/// Host and port of a URL.
fn site_of(url: &[u8]) -> Option<&[u8]> {
    const BEFORE: &[u8] = b"://";
    let before = url
        .windows(BEFORE.len())
        .position(|bytes| bytes == BEFORE)?;
    let rest = &url[before + BEFORE.len()..];
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    Some(&rest[..end.unwrap_or(rest.len())])
}

/// The token that a request shows.
pub(super) fn shown_token(headers: &HeaderMap) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme
        .eq_ignore_ascii_case(SCHEME)
        .then(|| token.trim_ascii())
}

impl Denied {
    /// What a `WWW-Authenticate` header says; `None` where no token would help.
    pub(super) fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::NoToken => Some("Bearer realm=\"staterouter\""),
            Self::WrongToken => Some("Bearer realm=\"staterouter\", error=\"invalid_token\""),
            _ => None,
        }
    }

    /// What it is counted as.
    pub(super) fn reason(&self) -> AdminRefusal {
        match self {
            Self::UnknownHost(_) => AdminRefusal::UnknownHost,
            Self::OtherSite | Self::WebPage => AdminRefusal::WebPage,
            Self::NoOwnHeader => AdminRefusal::NoOwnHeader,
            Self::NoToken => AdminRefusal::NoToken,
            Self::WrongToken => AdminRefusal::WrongToken,
            Self::TooSoon => AdminRefusal::TooSoon,
            Self::Remote => AdminRefusal::Remote,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use hyper::header::HeaderValue;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            let name: HeaderName = name.parse().unwrap();
            (name, HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    fn check_change(lines: &[(&'static str, &'static str)], peer: IpAddr) -> Result<(), Denied> {
        let own = ("staterouter-request", "1");
        let lines = [lines, &[own]].concat();
        let access = AdminAccess::default();
        check(Guard::Change, None, &headers(&lines), peer, &access)
    }

    #[test]
    fn without_a_token_this_machine_may_change_something_and_no_other() {
        let mapped = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
        for own in [HERE, IpAddr::V6(Ipv6Addr::LOCALHOST), mapped] {
            assert_eq!(check_change(&[], own), Ok(()));
        }
        assert_eq!(check_change(&[], ELSEWHERE), Err(Denied::Remote));
        let of_own_page = [
            ("host", "127.0.0.1:42480"),
            ("origin", "http://127.0.0.1:42480"),
        ];
        assert_eq!(check_change(&of_own_page, HERE), Err(Denied::WebPage));
    }

    #[test]
    fn hosts_are_known_by_address_and_by_the_names_that_are_listed() {
        let names = ["proxy-a.example".to_owned()];
        for (host, known) in [
            ("127.0.0.1", true),
            ("10.0.0.5:42480", true),
            ("[::1]:42480", true),
            ("localhost:42480", true),
            ("LOCALHOST", true),
            ("page.localhost", true),
            ("proxy-a.example", true),
            ("Proxy-A.Example.:42480", true),
            ("proxy-b.example", false),
            ("proxy-a.example.attacker.example", false),
            ("localhost.attacker.example", false),
            ("10.0.0.5.attacker.example", false),
            ("notlocalhost", false),
            ("127.0.0.1@attacker.example", false),
            ("attacker.example@127.0.0.1", false),
            ("2130706433", false),
            ("", false),
            ("::1", false),
        ] {
            assert_eq!(is_known_host(host.as_bytes(), &names), known, "{host}");
        }
    }

    #[test]
    fn a_target_with_a_host_of_its_own_does_not_get_around_the_check() {
        let access = AdminAccess::default();
        let foreign = Authority::from_static("attacker.example");
        let own = headers(&[("host", "127.0.0.1")]);
        let denied = check(Guard::Read, Some(&foreign), &own, HERE, &access);
        assert!(matches!(denied, Err(Denied::UnknownHost(_))), "{denied:?}");
        // Two hosts: whichever another server would go by.
        let two = headers(&[("host", "127.0.0.1"), ("host", "attacker.example")]);
        let denied = check(Guard::Read, None, &two, HERE, &access);
        assert!(denied.is_err());
        let open = check(Guard::Open, Some(&foreign), &two, ELSEWHERE, &access);
        assert_eq!(open, Ok(()));
    }

    #[test]
    fn browsers_say_whose_page_asks() {
        let host = ("host", "127.0.0.1:42480");
        for (line, is_elsewhere) in [
            (("origin", "http://127.0.0.1:42480"), false),
            (("origin", "https://127.0.0.1:42480"), false),
            (("origin", "http://127.0.0.1:8080"), true),
            (("origin", "http://127.0.0.1"), true),
            (("origin", "null"), true),
            (("origin", ""), true),
            (("referer", "http://127.0.0.1:42480/"), false),
            (("referer", "http://127.0.0.1:42480/?a#b"), false),
            (("referer", "http://elsewhere/"), true),
            (
                ("referer", "http://elsewhere/http://127.0.0.1:42480/"),
                true,
            ),
            (("referer", "http://127.0.0.1:42480@elsewhere/"), true),
            (("sec-fetch-site", "same-origin"), false),
            (("sec-fetch-site", "none"), false),
            (("sec-fetch-site", "same-site"), true),
            (("sec-fetch-site", "cross-site"), true),
        ] {
            let found = is_of_another_site(&headers(&[host, line]));
            assert_eq!(found, is_elsewhere, "{line:?}");
        }
        assert!(is_of_another_site(&headers(&[("origin", "http://a")])));
        assert!(!is_of_another_site(&headers(&[host])));
    }

    #[test]
    fn what_works_or_changes_needs_our_header_and_what_reads_does_not() {
        let access = AdminAccess::default();
        let plain = headers(&[("host", "127.0.0.1:42480")]);
        for (guard, wanted) in [
            (Guard::Open, Ok(())),
            (Guard::Read, Ok(())),
            (Guard::Work, Err(Denied::NoOwnHeader)),
            (Guard::Change, Err(Denied::NoOwnHeader)),
        ] {
            let checked = check(guard, None, &plain, HERE, &access);
            assert_eq!(checked, wanted, "{guard:?}");
        }
    }

    #[test]
    fn a_token_is_shown_as_bearer() {
        for (value, token) in [
            ("Basic eDp5", None),
            ("Bearer ", Some(&b""[..])),
            ("bearer 0123456789abcdef", Some(b"0123456789abcdef")),
            ("Bearer   x ", Some(b"x")),
        ] {
            let headers = headers(&[("authorization", value)]);
            assert_eq!(shown_token(&headers), token, "{value}");
        }
        assert_eq!(shown_token(&headers(&[])), None);
    }

    #[test]
    fn a_host_is_shown_without_what_a_terminal_obeys() {
        let shown = ShownHost::of(b"a\x1b[2J`b\xff");
        assert_eq!(shown.to_string(), "`a?[2J?b?`");
        assert!(ShownHost::of(&[b'a'; 500]).to_string().len() < 120);
    }
}
