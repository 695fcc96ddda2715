//! What fills the servers: bodies of known contents through a real proxy, compressed and not, small
//! and large, head and body in pieces.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;

use serde_json::Value;
use staterouter::contents::{BodyItem, compress, encode};

use crate::support::client::{Client, status};
use crate::support::metrics::Scrape;
use crate::support::system::wait_up_to;
use crate::support::{PATIENCE, Program, ProxyFiles, admin, run};

const SESSIONS: u64 = 10_000;
/// So few that a machine that stalls for a moment loses none of the samples.
const CONNECTIONS: u64 = 2;
const HASH: &str = "(cAHkmVhipCLv%2fQnONQmPsKL%2bq%2fAjnK%2fnYS9aV3Zlad8%3d)";

/// What was stored: bytes by application and item.
type Stored = BTreeMap<(&'static str, String), u64>;

/// The body of a session, and what each of its items takes of it.
fn session(number: u64) -> (&'static str, Vec<u8>, Vec<(String, u64)>) {
    let is_compressed = number.is_multiple_of(2);
    let item = |name: &str, bytes| BodyItem {
        name: name.to_owned(),
        bytes,
    };
    let mut items = vec![item("User", 120), item("Cart", 200 + number * 7919 % 1500)];
    if number.is_multiple_of(5) {
        items.push(item("SearchResults", 3000));
    }
    // More than is looked at, and more than a buffer of the proxy holds.
    if number.is_multiple_of(97) {
        items.insert(0, item("Report", 150_000));
    }
    let plain = encode(20, &items);
    let body = if is_compressed {
        compress(&plain)
    } else {
        plain
    };
    let values: u64 = items.iter().map(|item| item.bytes).sum();
    let parts = items.into_iter().map(|item| {
        let bytes = if is_compressed {
            item.bytes * body.len() as u64 / values
        } else {
            item.bytes
        };
        (item.name, bytes)
    });
    let parts = parts.collect();
    (if is_compressed { "Shop" } else { "Intranet" }, body, parts)
}

fn put(app: &str, number: u64, body: &[u8]) -> [Vec<u8>; 2] {
    let head = format!(
        "PUT %2fLM%2fW3SVC%2f1%2fROOT%2f{app}{HASH}%2f{number:024} HTTP/1.1\r\nHost: localhost\r\n\
         Timeout:20\r\nContent-Length:{}\r\nExtraFlags:0\r\nLockCookie:0\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.to_vec()]
}

/// Stores all sessions; returns what they consist of.
fn store_all(proxy: SocketAddr) -> Stored {
    let part = |first: u64| {
        let mut client = Client::connect(proxy);
        let mut stored = Stored::new();
        for number in (first..SESSIONS).step_by(CONNECTIONS as usize) {
            let (app, body, parts) = session(number);
            let [head, body] = put(app, number, &body);
            // The body comes in a packet of its own, as from the real client.
            client.send(&head);
            client.send(&body);
            assert_eq!(status(&client.answer_to(false)), "200");
            for (name, bytes) in parts {
                *stored.entry((app, name)).or_default() += bytes;
            }
            *stored.entry((app, String::new())).or_default() += body.len() as u64;
        }
        stored
    };
    let parts: Vec<Stored> = thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|first| scope.spawn(move || part(first)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let mut all = Stored::new();
    for (key, bytes) in parts.into_iter().flatten() {
        *all.entry(key).or_default() += bytes;
    }
    all
}

fn contents(proxy: &Program) -> Value {
    serde_json::from_str(&admin::get(proxy.admin(), "/contents").1).unwrap()
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let found = wait_up_to(PATIENCE, || is_so().then_some(()));
    assert!(found.is_some(), "never came true: {what}");
}

fn proxy(server: &Program, extra: &str) -> (ProxyFiles, Program) {
    let files = ProxyFiles::new(&[server.address], extra);
    let proxy = files.start();
    (files, proxy)
}

#[test]
fn shares_of_ten_thousand_sessions_are_right_within_five_percent() {
    let server = Program::state_server();
    let (_files, proxy) = proxy(&server, "");
    wait_until("bodies are looked into", || contents(&proxy)["on"] == true);
    let stored = store_all(proxy.address);
    wait_until("the samples have been looked into", || {
        let report = contents(&proxy);
        report["one_in"] == 4 && report["sessions"].as_u64() > Some(2_000)
    });
    let report = contents(&proxy);
    let scrape = Scrape::of(proxy.admin());
    let apps = report["applications"].as_array().unwrap();
    assert_eq!(apps.len(), 2, "{report:#}");
    for app in apps {
        let name = app["name"].as_str().unwrap();
        let short = name.strip_prefix("/LM/W3SVC/1/ROOT/").unwrap();
        let all = stored
            .iter()
            .find(|((app, item), _)| *app == short && item.is_empty());
        let all = *all.unwrap().1 as f64;
        for item in ["Cart", "Report", "SearchResults", "User"] {
            let is_item = |entry: &&Value| entry["name"] == item;
            let found = app["items"]
                .as_array()
                .unwrap()
                .iter()
                .find(is_item)
                .unwrap();
            let wanted = stored
                .iter()
                .find(|((app, name), _)| *app == short && name == item);
            let wanted = *wanted.unwrap().1 as f64 * 100.0 / all;
            let found = found["percent"].as_f64().unwrap();
            assert!(
                (found - wanted).abs() < 5.0,
                "{name} {item}: {found} instead of {wanted}"
            );
            let labels = format!("application=\"{name}\",item=\"{item}\"");
            let series = format!("staterouter_contents_item_ratio{{{labels}}}");
            let shown = scrape.get(&series).unwrap() * 100.0;
            assert!((shown - found).abs() < 0.01, "{series}: {shown}");
        }
        assert_eq!(
            (&app["not_understood"], &app["too_long"]),
            (&0.into(), &0.into())
        );
    }

    let admin = proxy.admin().to_string();
    let (code, text, error) = run(&["contents", "--admin", &admin]);
    assert_eq!((code, &*error), (Some(0), ""));
    assert!(text.contains("/LM/W3SVC/1/ROOT/Shop: "), "{text}");
    assert!(text.contains("  Report"), "{text}");
    let (code, json, _) = run(&["contents", "--json", "--admin", &admin]);
    assert_eq!(code, Some(0));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json[0]["applications"].as_array().unwrap().len(),
        2,
        "{json}"
    );
}

#[test]
fn what_is_not_understood_is_counted_and_what_has_ended_is_not() {
    let server = Program::state_server();
    let (_files, proxy) = proxy(&server, "");
    wait_until("bodies are looked into", || contents(&proxy)["on"] == true);
    let mut client = Client::connect(proxy.address);
    let (_, body, _) = session(1);
    for (number, body) in [(1, &b"{\"not\": \"ours\"}"[..]), (2, &body), (3, &body)] {
        client.send(&put("Shop", number, body).concat());
        assert_eq!(status(&client.answer_to(false)), "200");
    }
    wait_until("all three are looked into", || {
        contents(&proxy)["sessions"] == 3
    });
    let report = contents(&proxy);
    let app = &report["applications"][0];
    assert_eq!(app["not_understood"], 1, "{report:#}");
    assert_eq!(app["items"].as_array().unwrap().len(), 2, "{report:#}");
    let text = report.to_string();
    assert!(
        !text.contains("ours") && !text.contains("abcdefgh"),
        "{text}"
    );

    let delete = format!(
        "DELETE %2fLM%2fW3SVC%2f1%2fROOT%2fShop{HASH}%2f{:024} HTTP/1.1\r\nHost: localhost\r\n\
         LockCookie: 0\r\n\r\n",
        2
    );
    // Used in the same minute, which is told once.
    let read = delete.replace("DELETE", "GET");
    assert_eq!(status(&client.ask(read.as_bytes())), "200");
    assert_eq!(status(&client.ask(delete.as_bytes())), "200");
    wait_until("the removed one is gone", || {
        contents(&proxy)["sessions"] == 2
    });
}

/// As ASP.NET begins a session: first an empty item, then the page's contents, in one minute. Somebody
/// else's first page, which comes late, changes nothing.
#[test]
fn a_new_session_counts_with_what_its_first_page_has_stored() {
    let server = Program::state_server();
    let (_files, proxy) = proxy(&server, "");
    wait_until("bodies are looked into", || contents(&proxy)["on"] == true);
    let mut client = Client::connect(proxy.address);
    let [head, empty] = put("Shop", 1, &encode(20, &[]));
    let head = String::from_utf8(head).unwrap();
    let create = head.replace("ExtraFlags:0", "ExtraFlags:1").into_bytes();
    let (_, body, _) = session(1);
    let page = put("Shop", 1, &body).concat();
    for request in [
        &[&create[..], &empty].concat(),
        &page,
        &[&create[..], &empty].concat(),
    ] {
        assert_eq!(status(&client.ask(request)), "200");
    }
    wait_until("it is looked into", || contents(&proxy)["sessions"] == 1);
    let items = &contents(&proxy)["applications"][0]["items"];
    assert_eq!(items.as_array().unwrap().len(), 2, "{items}");
}

#[test]
fn it_can_be_switched_off_and_on_without_a_restart() {
    let server = Program::state_server();
    let (files, proxy) = proxy(&server, "contents: off");
    let mut client = Client::connect(proxy.address);
    let (_, body, _) = session(1);
    let store = put("Shop", 1, &body).concat();
    assert_eq!(status(&client.ask(&store)), "200");
    assert_eq!(contents(&proxy)["on"], false);
    let admin = proxy.admin().to_string();
    let (code, text, _) = run(&["contents", "--admin", &admin]);
    assert_eq!(code, Some(0));
    assert!(text.contains("contents: off"), "{text}");

    let main = files
        .read("staterouter.yaml")
        .replace("contents: off", "contents: on");
    files.replace("staterouter.yaml", &main);
    admin::reload(proxy.admin());
    wait_until("bodies are looked into", || contents(&proxy)["on"] == true);
    wait_until("the session is looked into", || {
        assert_eq!(status(&client.ask(&store)), "200");
        contents(&proxy)["sessions"] == 1
    });
}
