//! What the proxy says about an engine.

use std::fs;

use serde_json::Value;

use crate::redis_server::{RedisServer, has_redis};
use crate::support::answers::{BAD_REQUEST, DONE, item};
use crate::support::client::{Client, get, put};
use crate::support::metrics::Scrape;
use crate::support::scene::{Map, Proxy, SHORT_TIMES, backend};
use crate::support::system::ask_page;

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";

fn proxy_over(keys: &str) -> Proxy {
    let mut map = Map::of(&[]);
    map.add_redis(keys);
    Proxy::start(&map, SHORT_TIMES)
}

pub(crate) fn finding<'a>(status: &'a Value, code: &str) -> Option<&'a Value> {
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

#[test]
fn an_engine_that_is_gone_is_not_taken_for_a_state_server() {
    if !has_redis() {
        return;
    }
    let mut redis = RedisServer::start(&[]);
    let proxy = proxy_over(&format!("urls: [\"{}\"]", redis.url()));
    let is_up = |status: &Value| backend(status, 1)["verdict"] == "up";
    proxy.wait("the backend is up", is_up);
    redis.kill();
    let status = proxy.wait("the backend is down", |status| {
        backend(status, 1)["verdict"] == "down" && finding(status, "backend_down").is_some()
    });
    let down = finding(&status, "backend_down").unwrap();
    let says = down["says"].as_str().unwrap();
    assert!(says.contains("its Redis cannot be used"), "{says}");
    let action = down["action"].as_str().unwrap();
    assert!(action.starts_with("Start the Redis of state-1"), "{action}");
    // Whatever the log advises is about Redis, too.
    for text in [status.to_string(), proxy.logged()] {
        for words in ["AllowRemoteConnection", "Start the state server"] {
            assert!(!text.contains(words), "{words}: {text}");
        }
    }
    redis.start_again();
    proxy.wait("it is up again", is_up);
}

/// Writes that nobody asked for are what fills it.
fn fill(redis: &RedisServer, megabytes: usize) {
    let mut client = redis.connect();
    let body = "x".repeat(1 << 20);
    for number in 0..megabytes {
        client.expect(&["SET", &format!("filling-{number}"), &body]);
    }
}

#[test]
fn the_memory_of_an_engine_is_its_capacity() {
    if !has_redis() {
        return;
    }
    let redis = RedisServer::start(&["--maxmemory", "40mb"]);
    fill(&redis, 18);
    let mut map = Map::of(&[]);
    map.add_redis(&format!("urls: [\"{}\"]", redis.url()));
    let proxy = Proxy::start(&map, SHORT_TIMES);
    let mut client = Client::connect(proxy.address);
    proxy.wait("the backend is up", |status| {
        backend(status, 1)["verdict"] == "up"
    });
    for number in 0..50 {
        let id = format!("session{number:017}");
        assert_eq!(client.ask(&put(&id, 0, &[b'x'; 2000])), DONE);
    }
    let status = proxy.wait("sessions and engine are known", |status| {
        let backend = backend(status, 1);
        backend["sessions"] == 50 && !backend["engine"].is_null()
    });
    let shown = backend(&status, 1);
    let engine = &shown["engine"];
    assert_eq!(engine["max_memory_bytes"], 40 << 20);
    assert!(engine["memory_bytes"].as_u64().unwrap() > 18 << 20);
    let server = redis.url().replace("redis://", "");
    assert_eq!(engine["fullest_server"], server);
    let used = shown["used_percent"].as_f64().unwrap();
    assert!((45.0..75.0).contains(&used), "{used}");
    // Less than what is free: sessions need more than their bodies.
    let room = shown["capacity"]["memory_bytes"].as_u64().unwrap();
    assert!((100_000..20 << 20).contains(&room), "{room}");
    let metrics = Scrape::read(ask_page(proxy.admin, "/metrics"));
    let series = |name: &str| metrics.value(&format!("{name}{{backend=\"state-1\"}}"));
    assert_eq!(
        series("staterouter_engine_max_memory_bytes"),
        f64::from(40 << 20)
    );
    assert!((used / 100.0 - series("staterouter_backend_used_ratio")).abs() < 0.01);
    // A plan knows it, too.
    let plan = ask_page(proxy.admin, "/plan?suggest=70");
    assert!(!plan.contains("nothing is known of the capacity"), "{plan}");
}

#[test]
fn a_full_engine_is_a_finding_that_names_the_server_and_serves_what_lives() {
    if !has_redis() {
        return;
    }
    let redis = RedisServer::start(&["--maxmemory-policy", "noeviction"]);
    let first = proxy_over(&format!("urls: [\"{}\"]", redis.url()));
    first.wait("the backend is up", |status| {
        backend(status, 1)["verdict"] == "up"
    });
    let mut client = Client::connect(first.address);
    assert_eq!(client.ask(&put(ID, 0, b"kept")), DONE);
    let mut admin = redis.connect();
    admin.expect(&["CONFIG", "SET", "maxmemory", "1mb"]);
    // One that begins when it is full serves, too: it has tried the scripts all the same.
    let second = proxy_over(&format!("urls: [\"{}\"]", redis.url()));
    let status = second.wait("the finding is there", |status| {
        finding(status, "backend_full").is_some() && finding(status, "no_backend").is_none()
    });
    let found = finding(&status, "backend_full").unwrap();
    let says = found["says"].as_str().unwrap();
    let server = redis.url().replace("redis://", "");
    assert!(
        says.contains(&server) && says.contains("maxmemory"),
        "{says}"
    );
    for proxy in [&first, &second] {
        let mut client = Client::connect(proxy.address);
        assert_eq!(
            client.ask(&put("another00000000000000000", 0, b"new")),
            BAD_REQUEST
        );
        assert_eq!(client.ask(&get(ID)), item(b"kept"));
    }
}

#[test]
fn missing_replicas_are_a_finding_as_long_as_they_are_missing() {
    if !has_redis() {
        return;
    }
    let redis = RedisServer::start(&["--min-replicas-to-write", "1"]);
    let proxy = proxy_over(&format!("urls: [\"{}\"]", redis.url()));
    let status = proxy.wait("the finding is there", |status| {
        finding(status, "engine_read_only").is_some()
    });
    let found = finding(&status, "engine_read_only").unwrap();
    let says = found["says"].as_str().unwrap();
    assert!(
        says.contains("0 of the 1 replicas that min-replicas-to-write"),
        "{says}"
    );
    let mut admin = redis.connect();
    admin.expect(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    proxy.wait("it is over", |status| {
        finding(status, "engine_read_only").is_none() && finding(status, "no_backend").is_none()
    });
    let mut client = Client::connect(proxy.address);
    assert_eq!(client.ask(&put(ID, 0, b"kept")), DONE);
}
