//! The keys below `redis` of a backend.

use std::path::{Path, PathBuf};

use super::fault::Location;
use super::key_pair::{Pair, pair};
use super::kinds::{Integer, Mistake, Text};
use super::printable::quoted;
use super::reader::MapReader;
use super::redis_spec::{
    DEFAULT_REDIS_PREFIX, RedisIdentity, RedisSpec, RedisTls, RedisUrl, RedisUrlError,
};

/// Servers named in a map at most. A Cluster says itself which others it has.
const MAX_URLS: usize = 64;

/// `None` if the section is not there, or faulty, which has been reported then.
pub(super) fn read_redis(
    map: &mut MapReader<'_, '_>,
    section: Option<Location>,
) -> Option<RedisSpec> {
    let urls = map.list(
        "urls",
        "The server, as `redis://host:port` or, with TLS, `rediss://host:port`; a number behind a \
         slash chooses the database. Of a Cluster several nodes, so that one of them is reached; \
         with `sentinel` the Sentinels.",
        &URL,
        MAX_URLS,
    );
    let sentinel = map.derived(
        "sentinel",
        "The name under which the Sentinels in `urls` know the master.",
        &SENTINEL,
    );
    let user = map.derived(
        "user",
        "The ACL user; the default user when left out.",
        &USER,
    );
    let password_file = map.derived(
        "password_file",
        "The file whose first line is the password. It is read for every new connection, so a new \
         password needs no restart.",
        &FILE,
    );
    let prefix = map.optional(
        "prefix",
        "What the keys of all sessions begin with. Pools that share an engine need different ones; \
         proxies of one pool the same.",
        &PREFIX,
        DEFAULT_REDIS_PREFIX.to_owned(),
    );
    let wait_replicas = map.optional(
        "wait_replicas",
        "Replicas that must have a change before it is answered. With 1, a failover loses next to \
         nothing; each change takes one round trip to the replica longer.",
        &Integer(0..=16),
        0,
    );
    let tls_place = map.name_place("tls");
    let tls = map.section("tls", "Certificates for `rediss://`.", read_tls);
    let section = section?;
    if urls.sound && urls.value.is_empty() {
        let help = "write `urls: [\"redis://10.0.0.31:6379\"]`";
        map.fault(section.start(), "`redis` has no `urls`", help);
    }
    let sound = urls.sound && !urls.value.is_empty() && prefix.sound && wait_replicas.sound;
    let spec = RedisSpec {
        urls: urls.value,
        sentinel: sentinel.value(),
        user: user.value(),
        password_file: password_file.value(),
        prefix: prefix.value,
        tls: tls?,
        wait_replicas: u8::try_from(wait_replicas.value).ok()?,
    };
    if !sound {
        return None;
    }
    let place = urls.place.unwrap_or(section);
    check(map, &spec, place, tls_place)
}

/// What no key is wrong about by itself.
fn check(
    map: &mut MapReader<'_, '_>,
    spec: &RedisSpec,
    place: Location,
    tls_place: Option<Location>,
) -> Option<RedisSpec> {
    let first = spec.urls.first()?;
    let agrees = |url: &RedisUrl| url.is_tls == first.is_tls && url.database == first.database;
    if !spec.urls.iter().all(agrees) {
        let problem = "the `urls` differ in their scheme or their database";
        let help = "write either `redis://` or `rediss://` and the same database in all of them";
        map.fault(place, problem, help);
        return None;
    }
    if let Some(tls_place) = tls_place.filter(|_| !first.is_tls) {
        let help = "write `rediss://` in `urls`, or remove `tls`";
        map.fault(tls_place, "`tls` is of no use with `redis://`", help);
        return None;
    }
    if spec.user.is_some() && spec.password_file.is_none() {
        let help = "add `password_file:`, or remove `user`";
        map.fault(place, "there is a `user` and no `password_file`", help);
        return None;
    }
    Some(spec.clone())
}

/// `None` if one of certificate and key is missing or faulty, which has been reported then.
fn read_tls(map: &mut MapReader<'_, '_>) -> Option<RedisTls> {
    let ca = map.derived(
        "ca",
        "The authority that has signed the servers' certificates, in PEM; those that the system \
         trusts when left out.",
        &FILE,
    );
    let cert = map.derived(
        "cert",
        "The certificate that the proxy shows, in PEM; needs `key`.",
        &FILE,
    );
    let key = map.derived("key", "The private key of `cert`, in PEM.", &FILE);
    let identity = match pair(map, cert, key) {
        Pair::Both(cert, key) => Some(RedisIdentity { cert, key }),
        Pair::Neither => None,
        Pair::Faulty => return None,
    };
    Some(RedisTls {
        ca: ca.value(),
        identity,
    })
}

const URL: Text<RedisUrl> = Text {
    wanted: "a URL such as `redis://10.0.0.31:6379`",
    pattern: Some(r"^rediss?://[^@/]+(/[0-9]*)?$"),
    parse: |text| {
        RedisUrl::parse(text).map_err(|error| match error {
            // The password that stands in it is not repeated.
            RedisUrlError::Credentials => Mistake::new(error.to_string()),
            error => Mistake::new(format!("{} is no URL of Redis: {error}", quoted(text))),
        })
    },
    write: RedisUrl::to_string,
    secret: true,
};

const SENTINEL: Text<String> = Text {
    wanted: "a name of 1 to 63 letters, digits, `.`, `_` and `-`",
    pattern: Some("^[A-Za-z0-9._-]{1,63}$"),
    parse: |text| word(text, 63, b"._-"),
    write: String::clone,
    secret: false,
};

const USER: Text<String> = Text {
    wanted: "the name of an ACL user, without blanks",
    pattern: Some("^[!-~]{1,128}$"),
    parse: |text| {
        let fits = (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        let mistake = || Mistake::new(format!("{} cannot be a user", quoted(text)));
        fits.then(|| text.to_owned()).ok_or_else(mistake)
    },
    write: String::clone,
    secret: false,
};

const PREFIX: Text<String> = Text {
    wanted: "1 to 63 letters, digits, `:`, `.`, `_` and `-`",
    pattern: Some("^[A-Za-z0-9:._-]{1,63}$"),
    parse: |text| word(text, 63, b":._-"),
    write: String::clone,
    secret: false,
};

fn word(text: &str, most: usize, besides: &[u8]) -> Result<String, Mistake> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || besides.contains(&b);
    match (1..=most).contains(&text.len()) && text.bytes().all(fits) {
        true => Ok(text.to_owned()),
        false => Err(Mistake::new(format!("{} cannot stand here", quoted(text)))),
    }
}

/// A file of every proxy that has the map.
pub(super) const FILE: Text<PathBuf> = Text {
    wanted: "the absolute path of a file",
    pattern: Some("^/"),
    parse: |text| {
        let path = Path::new(text);
        let mistake = || Mistake::new(format!("{} is not an absolute path", quoted(text)));
        path.is_absolute()
            .then(|| path.to_owned())
            .ok_or_else(mistake)
    },
    write: |path| path.to_string_lossy().into_owned(),
    secret: false,
};
