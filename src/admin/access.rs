//! Who may change something.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, ORIGIN};

use crate::config::AdminToken;

/// Why somebody may not change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    /// There is a token, and the request shows none.
    #[error("show the token of admin.token_file: Authorization: Bearer TOKEN")]
    NoToken,
    /// There is a token, and the request shows another one.
    #[error("this is not the token of admin.token_file")]
    WrongToken,
    /// There is no token, and the request comes from another machine.
    #[error(
        "without admin.token_file only requests from the proxy's own machine, over loopback, may \
         change something"
    )]
    Remote,
    /// There is no token, and the request was made by a web page in a browser on this machine,
    /// which may be anybody's page.
    #[error("without admin.token_file no web page may change something")]
    WebPage,
}

/// Whether a request with these headers from `peer` may change something.
///
/// # Errors
/// [`Denied`].
pub(super) fn check(
    headers: &HeaderMap,
    peer: IpAddr,
    token: Option<&AdminToken>,
) -> Result<(), Denied> {
    match token {
        Some(token) => match shown(headers) {
            None => Err(Denied::NoToken),
            Some(shown) if token.is(shown) => Ok(()),
            Some(_) => Err(Denied::WrongToken),
        },
        None if !peer.to_canonical().is_loopback() => Err(Denied::Remote),
        None if headers.contains_key(ORIGIN) => Err(Denied::WebPage),
        None => Ok(()),
    }
}

/// The token that a request shows.
fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme
        .eq_ignore_ascii_case(SCHEME)
        .then(|| token.trim_ascii())
}

impl Denied {
    /// What a `WWW-Authenticate` header says; `None` where no token would help.
    pub(super) fn challenge(self) -> Option<&'static str> {
        match self {
            Self::NoToken => Some("Bearer realm=\"staterouter\""),
            Self::WrongToken => Some("Bearer realm=\"staterouter\", error=\"invalid_token\""),
            Self::Remote | Self::WebPage => None,
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
            (name.parse().unwrap(), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn without_a_token_this_machine_may_and_no_other() {
        let plain = headers(&[]);
        let mapped = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
        for own in [HERE, IpAddr::V6(Ipv6Addr::LOCALHOST), mapped] {
            assert_eq!(check(&plain, own, None), Ok(()));
        }
        assert_eq!(check(&plain, ELSEWHERE, None), Err(Denied::Remote));
        let of_page = headers(&[("origin", "http://127.0.0.1:42480")]);
        assert_eq!(check(&of_page, HERE, None), Err(Denied::WebPage));
    }

    #[test]
    fn with_a_token_whoever_shows_it_may() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        let token = AdminToken::read(&path).unwrap();
        for (lines, wanted) in [
            (&[][..], Err(Denied::NoToken)),
            (&[("authorization", "Basic eDp5")], Err(Denied::NoToken)),
            (&[("authorization", "Bearer ")], Err(Denied::WrongToken)),
            (
                &[("authorization", "Bearer 0123456789abcdeX")],
                Err(Denied::WrongToken),
            ),
            (&[("authorization", "bearer 0123456789abcdef")], Ok(())),
            (
                &[
                    ("authorization", "Bearer 0123456789abcdef"),
                    ("origin", "http://proxy:42480"),
                ],
                Ok(()),
            ),
        ] {
            for peer in [HERE, ELSEWHERE] {
                assert_eq!(check(&headers(lines), peer, Some(&token)), wanted);
            }
        }
    }
}
