//! The page for people: one HTML file without anything from elsewhere, put together from its parts.
//!
//! What it shows comes from `GET /status`, `GET /history` and `GET /contents`, and becomes text: names, reasons and
//! faults come from files and from other machines, and a browser that obeys the policy below takes
//! none of it for markup.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};

use super::respond::respond;

const HTML: &str = "text/html; charset=utf-8";

const FRAME: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/style.css");

/// In the order in which they need each other.
const SCRIPTS: [&str; 8] = [
    include_str!("page/base.js"),
    include_str!("page/verdict.js"),
    include_str!("page/ring.js"),
    include_str!("page/charts.js"),
    include_str!("page/backends.js"),
    include_str!("page/panels.js"),
    include_str!("page/contents.js"),
    include_str!("page/main.js"),
];

/// Where the nonce goes in.
const NONCE: &str = "{nonce}";

/// The page but for its nonce.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    FRAME
        .replace("{style}", STYLE)
        .replace("{script}", &SCRIPTS.concat())
});

/// The page. Only its own style and script count, it may ask its own server only, and no string is
/// ever parsed as markup.
pub(super) fn response() -> Response<Full<Bytes>> {
    let nonce = nonce();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
         img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    );
    let body = PAGE.replace(NONCE, &nonce);
    let mut response = respond(StatusCode::OK, HTML, body.into());
    let headers = response.headers_mut();
    // Digits and letters make a header: without one nothing on the page would run.
    let policy = HeaderValue::try_from(policy);
    let policy = policy.unwrap_or(HeaderValue::from_static("default-src 'none'"));
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// Hashers have random keys, which makes this as good as a random number.
fn nonce() -> String {
    let random = || RandomState::new().hash_one(());
    format!("{:016x}{:016x}", random(), random())
}
