//! What the proxy says about an engine.

use std::fs;

use serde_json::Value;

use crate::redis_server::{RedisServer, has_redis};
use crate::support::scene::{Map, Proxy, SHORT_TIMES, backend};
use crate::support::system::ask_page;

fn proxy_over(keys: &str) -> Proxy {
    let mut map = Map::of(&[]);
    map.add_redis(keys);
    Proxy::start(&map, SHORT_TIMES)
}

fn finding<'a>(status: &'a Value, code: &str) -> Option<&'a Value> {
    let mut findings = status["findings"].as_array()?.iter();
    findings.find(|finding| finding["code"] == code)
}

#[test]
fn an_engine_that_evicts_is_a_finding_from_the_start() {
    if !has_redis() {
        return;
    }
    let redis = RedisServer::start(&["--maxmemory-policy", "volatile-lru"]);
    let proxy = proxy_over(&format!("urls: [\"{}\"]", redis.url()));
    let status = proxy.wait("the finding is there", |status| {
        finding(status, "engine_evicts").is_some()
    });
    let found = finding(&status, "engine_evicts").unwrap();
    assert_eq!(
        (&found["level"], &found["about"]),
        (&"critical".into(), &"state-1".into())
    );
    assert!(
        found["says"].to_string().contains("volatile-lru"),
        "{found}"
    );
    assert!(finding(&status, "engine_unkept").is_some(), "{status:#}");
    let metrics = ask_page(proxy.admin, "/metrics");
    let counted = "staterouter_findings{code=\"engine_evicts\",level=\"critical\"} 1";
    assert!(metrics.lines().any(|line| line == counted), "{metrics}");
    proxy.wait_for_log("maxmemory-policy noeviction");
}

#[test]
fn an_engine_that_cannot_be_used_is_named_with_the_reason_and_no_secret() {
    if !has_redis() {
        return;
    }
    let redis = RedisServer::start(&["--requirepass", "the-right-one"]);
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    fs::write(&password, "a-wrong-one").unwrap();
    let password = password.to_str().unwrap();
    let proxy = proxy_over(&format!(
        "urls: [\"{}\"], password_file: \"{password}\"",
        redis.url()
    ));
    let status = proxy.wait("the backend is down", |status| {
        finding(status, "engine_unusable").is_some() && finding(status, "no_backend").is_some()
    });
    let found = finding(&status, "engine_unusable").unwrap().to_string();
    assert!(found.contains("refuses user or password"), "{found}");
    assert_eq!(backend(&status, 1)["address"], redis.url());
    // Nothing but the file has to change.
    fs::write(password, "the-right-one").unwrap();
    proxy.wait("it is up", |status| {
        finding(status, "engine_unusable").is_none() && finding(status, "no_backend").is_none()
    });
    for text in [status.to_string(), proxy.logged()] {
        assert!(!text.contains("a-wrong-one"), "{text}");
    }
}
