//! The admin page in a real browser.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use crate::support;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::browser::{Browser, Screen};
use crate::support::scene::{Farm, Map, Proxy, SHORT_TIMES, Server};
use crate::support::system::ask_page;
use crate::support::{Program, ProxyFiles};
use serde_json::{Value, json};

const PHONE: Screen = Screen {
    width: 360,
    height: 800,
};
const TABLET: Screen = Screen {
    width: 800,
    height: 1000,
};
const WIDE: Screen = Screen {
    width: 1400,
    height: 1000,
};

/// Would be seen as a picture, and run, if any text were taken for markup.
const HOSTILE: &str = "<img src=x onerror=\"throw Error('ran')\"> & </script>";

#[test]
fn a_drain_a_kill_and_silence_show_on_the_open_page() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let [first, second, mut third] = [(); 3].map(|()| Server::start());
    let map = Map::of(&[&first, &second, &third]);
    let mut proxy = Proxy::start(&map, SHORT_TIMES);
    browser.resize(WIDE, "light");
    browser.open(&format!("http://{}/", proxy.admin));
    browser.evaluate("window.isStillTheSame = true");

    browser.wait_for(&headline("=== 'All well'"));
    let farm = Farm::start(&[&proxy]);
    browser.wait_for("document.querySelectorAll('tr[data-id]').length === 3");
    for (id, name) in [(1, "state-1"), (2, "state-2"), (3, "state-3")] {
        browser.wait_for(&row(id, name));
        browser.wait_for(&row(id, "up"));
    }
    browser.wait_for("/^[1-9]/.test(document.getElementById('rate-readout').textContent)");
    browser.wait_for("document.querySelectorAll('#rate .layer').length === 3");
    browser.wait_for("/ [mµ]s/.test(document.getElementById('latency-readout').textContent)");

    proxy.change(&map.changed(|map| map.lines[1].state = "drain"));
    browser.wait_for(&row(2, "draining"));
    // The farm's sessions live a minute, handovers wait 12 s.
    browser.wait_for(&headline(
        ".startsWith('Sessions have a timeout of up to 1 min')",
    ));
    browser.wait_for(&says("findings", "handover is under way"));
    browser.wait_for(&says("moves", "state-2"));
    browser.wait_for(&ring("state-2 to state-1"));
    browser.wait_for(&says("reload", "in force"));
    browser.wait_for(&says("events", "handover of"));

    third.kill();
    browser.wait_for(&headline(".startsWith('state-3 is down: ')"));
    browser.wait_for(&row(3, "down"));
    browser.wait_for(&says("events", "state-3 is down"));
    browser.wait_for("document.title.startsWith('state-3 is down')");
    assert_eq!(browser.complaints(), [""; 0]);

    drop(farm);
    proxy.kill();
    browser.wait_for(&headline(".startsWith('The proxy does not answer since')"));
    proxy.restart();
    browser.wait_for(&headline(".startsWith('state-3 is down: ')"));
    assert_eq!(browser.evaluate("window.isStillTheSame"), true);
}

/// A minute until another backend stands in: an outage that one can look at.
const PATIENT: &str = "
timeouts: {connect: 500ms, answer: 1s}
health: {interval: 500ms, timeout: 500ms, fall: 2, rise: 2, max_rise: 2}
handover: {settle: 2s, session_timeout: 1s, max_session_timeout: 12s, takeover: 5s, failover_after: 60s}";

#[test]
fn an_outage_says_how_much_is_refused_and_until_when() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let [mut first, second] = [(); 2].map(|()| Server::start());
    let mut map = Map::of(&[&first, &second]);
    map.lines[0].weight = 400;
    map.lines[1].max_sessions = Some(1_000);
    let proxy = Proxy::start(&map, PATIENT);
    browser.resize(WIDE, "light");
    browser.open(&format!("http://{}/", proxy.admin));
    browser.wait_for(&headline("=== 'All well'"));
    // Which proxy this is.
    browser.wait_for(&says("facts", &proxy.address.to_string()));
    browser.wait_for("document.getElementById('facts').textContent.includes('proxy ')");
    browser.wait_for(&says("tiles", "no capacity given for state-1"));

    first.kill();
    browser.wait_for(&headline(".startsWith('Requests for ')"));
    browser.wait_for(&headline(
        ".includes('% of the sessions are refused: state-1 is down')",
    ));
    browser.wait_for(&says(
        "findings",
        "Users: Their users see error pages until",
    ));
    browser.wait_for(&says("findings", "or state-2 stands in"));
    browser.wait_for(&says("findings", "To do: Start the state server state-1"));
    browser.wait_for("/over in \\d+ s/.test(document.getElementById('findings').textContent)");
    browser.wait_for(&ring("refused"));
    browser.wait_for(&row(1, "refused"));
    browser.wait_for(&says("moves", "are refused"));
    browser.wait_for(&says("moves", "refused"));
    for word in ["suspect", "move 2", "away"] {
        let is_there = browser.evaluate(&says("moves", word));
        assert_eq!(is_there, false, "{word}");
    }
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_backend_that_others_wait_for_and_lost_sessions_stay_visible() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let [mut first, second, mut third] = [(); 3].map(|()| Server::start());
    let map = Map::of(&[&first, &second]);
    let proxy = Proxy::start(&map, SHORT_TIMES);
    browser.resize(WIDE, "light");
    browser.open(&format!("http://{}/", proxy.admin));
    browser.wait_for(&headline("=== 'All well'"));
    let farm = Farm::start(&[&proxy]);
    third.kill();
    proxy.change(&map.changed(|map| map.add(&third)));
    browser.wait_for(&headline(".startsWith('state-3 is waited for')"));
    browser.wait_for(&says("moves", "of the sessions wait for state-3"));
    browser.wait_for(&ring("waiting to move"));
    browser.wait_for(&row(3, "waiting"));

    first.kill();
    browser.wait_for(&says(
        "findings",
        "Sessions were out of reach while state-1 was away",
    ));
    drop(farm);
    first.restart();
    third.restart();
    browser.wait_for("document.getElementById('backends-count').textContent === '3 of 3 up'");
    browser.wait_for("!document.getElementById('findings').textContent.includes('stands in')");
    let lost = "Sessions were out of reach while state-1 was away";
    assert_eq!(browser.evaluate(&says("findings", lost)), true);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn the_page_fits_and_reads_well_whatever_the_pool() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let files = ProxyFiles::new(&["127.0.0.1:1"], "");
    let proxy = files.start();
    let stand_in = StandIn::of(&proxy);
    for backends in [0, 1, 3, 64] {
        stand_in.show(backends);
        for (screen, scheme) in [
            (PHONE, "light"),
            (TABLET, "dark"),
            (WIDE, "light"),
            (WIDE, "dark"),
        ] {
            let scene = format!("{backends} backends, {screen:?}, {scheme}");
            browser.resize(screen, scheme);
            browser.open(&format!("http://{}/", stand_in.address));
            browser
                .wait_for("document.getElementById('updated').textContent.startsWith('updated')");
            let rows = browser.evaluate("document.querySelectorAll('tr[data-id]').length");
            assert_eq!(rows, backends, "{scene}");
            let arcs = browser.evaluate("document.querySelectorAll('#ring .arc').length");
            assert!(arcs.as_u64() >= Some(backends), "{scene}");
            assert_eq!(browser.evaluate(TOO_WIDE), json!([]), "{scene}");
            assert_eq!(browser.evaluate(PALE), json!([]), "{scene}");
            let images = browser.evaluate("document.querySelectorAll('img').length");
            assert_eq!(images, 0, "{scene}");
            let text = browser.evaluate("document.body.textContent");
            assert!(text.as_str().unwrap().contains(HOSTILE), "{scene}");
            assert_eq!(browser.complaints(), [""; 0], "{scene}");
        }
    }
}

#[test]
fn the_page_asks_for_nothing_from_elsewhere_and_never_writes_markup() {
    let files = ProxyFiles::new(&["127.0.0.1:1"], "");
    let proxy = files.start();
    let (head, page) = support::admin::page(proxy.admin(), "/");
    assert!(head.starts_with("http/1.1 200"), "{head}");
    for promised in [
        "default-src 'none'",
        "script-src 'nonce-",
        "frame-ancestors 'none'",
    ] {
        assert!(head.contains(promised), "{promised}: {head}");
    }
    assert!(!head.contains("unsafe"), "{head}");
    for elsewhere in ["src=", "@import", "url(http", "href=\"http", "href=\"/"] {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }
    for parsed in [
        "innerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "style=\"",
    ] {
        assert!(!page.contains(parsed), "{parsed}");
    }
    let (_, other) = support::admin::page(proxy.admin(), "/");
    assert_ne!(page, other, "the nonce is the same");
}

#[test]
fn the_history_begins_where_it_is_asked_to() {
    let files = ProxyFiles::new(&["127.0.0.1:1"], "");
    let proxy = files.start();
    let page = |query: &str| support::admin::get(proxy.admin(), &format!("/history{query}"));
    let samples = |query: &str| -> Vec<Value> {
        let mut history: Value = serde_json::from_str(&page(query).1).unwrap();
        serde_json::from_value(history["samples"].take()).unwrap()
    };
    let all = support::system::wait_up_to(support::PATIENCE, || {
        Some(samples("")).filter(|samples| !samples.is_empty())
    });
    let first = &all.unwrap()[0];
    assert_eq!(first["backends"][0]["id"], 1);
    assert_eq!(samples("?since=0")[0], *first);
    let later = samples(&format!("?since={}", first["at_ms"]));
    assert!(!later.contains(first));
    for wrong in ["?since=", "?since=-1", "?since=yesterday"] {
        assert_eq!(page(wrong).0, 400, "{wrong}");
    }
}

/// What is wider than it should be: the page itself, or something that lies partly outside.
const TOO_WIDE: &str = "(() => {
    const width = document.documentElement.clientWidth;
    const scrolled = (node) => !!node.closest('.events, .faults');
    const outside = [...document.querySelectorAll('main *')].filter((node) => {
        const box = node.getBoundingClientRect();
        return box.width > 0 && !scrolled(node) && (box.right > width + 0.5 || box.left < -0.5);
    });
    const page = document.documentElement.scrollWidth;
    return [...(page > innerWidth ? [`the page: ${page}`] : []),
        ...outside.map((node) => `${node.tagName} ${node.className.baseVal ?? node.className} ${node.textContent}`)];
})()";

/// Text that is hard to read: a contrast below 4.5 to 1.
const PALE: &str = "(() => {
    const parse = (colour) => /^rgba?\\(/.test(colour) ? colour.match(/[\\d.]+/g).map(Number) : null;
    const light = ([r, g, b]) => {
        const part = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
    };
    const behind = (node) => {
        for (; node; node = node.parentElement) {
            const colour = parse(getComputedStyle(node).backgroundColor);
            if (colour && colour[3] !== 0) return colour;
        }
        return [255, 255, 255];
    };
    const own = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    const pale = [...document.body.querySelectorAll('*')].filter((node) => {
        const box = node.getBoundingClientRect();
        if (!own(node) || box.width === 0 || node.closest('script, noscript, title')) return false;
        const style = getComputedStyle(node);
        const text = parse(node instanceof SVGElement ? style.fill : style.color);
        const [high, low] = [light(text), light(behind(node))].sort((a, b) => b - a);
        return (high + 0.05) / (low + 0.05) < 4.5;
    });
    return [...new Set(pale.map((node) => `${node.tagName} ${node.className.baseVal ?? node.className} ${node.textContent}`))];
})()";

fn headline(is: &str) -> String {
    format!("document.getElementById('headline').textContent{is}")
}

fn says(id: &str, words: &str) -> String {
    format!("document.getElementById('{id}').textContent.includes('{words}')")
}

fn row(id: u8, words: &str) -> String {
    format!("document.querySelector('tr[data-id=\"{id}\"]')?.textContent.includes('{words}')")
}

fn ring(words: &str) -> String {
    format!("document.getElementById('ring').textContent.includes('{words}')")
}

/// Serves the page of a real proxy, under its policy, with pools that no test can start.
struct StandIn {
    address: SocketAddr,
    pages: Arc<Mutex<Pages>>,
    status: Value,
}

#[derive(Default)]
struct Pages {
    head: String,
    page: String,
    status: Value,
    history: Value,
}

impl StandIn {
    fn of(proxy: &Program) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (head, page) = support::admin::page(proxy.admin(), "/");
        let policy = head
            .lines()
            .find(|line| line.starts_with("content-security-policy:"));
        let pages = Arc::new(Mutex::new(Pages {
            head: policy.unwrap().to_owned(),
            page,
            ..Pages::default()
        }));
        let served = Arc::clone(&pages);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let served = Arc::clone(&served);
                thread::spawn(move || serve(&stream.unwrap(), &served));
            }
        });
        let status = serde_json::from_str(&ask_page(proxy.admin(), "/status")).unwrap();
        Self {
            address,
            pages,
            status,
        }
    }

    /// From now on there are so many backends, in all conditions.
    fn show(&self, backends: u64) {
        let mut pages = self.pages.lock().unwrap();
        pages.status = status(&self.status, backends);
        pages.history = history(&pages.status, backends);
    }
}

/// A real status, with other backends, much under way and everything wrong that can be.
fn status(real: &Value, backends: u64) -> Value {
    let mut status = real.clone();
    let template = real["backends"][0].clone();
    let slots = 16_384 / backends.max(1);
    let name = |id: u64| {
        format!(
            "state-{id}-{}",
            "w".repeat(if id % 5 == 2 { 53 } else { 2 })
        )
    };
    let now_ms = real["now_ms"].as_u64().unwrap();
    let finding = |id: u64| {
        let levels = ["critical", "warning", "info"];
        let codes = [
            "backend_down",
            "backend_suspect",
            "moving",
            "of_a_later_version",
        ];
        json!({
            "level": levels[id as usize % levels.len()], "code": codes[id as usize % codes.len()],
            "about": name(id), "says": format!("{} is down: {HOSTILE}", name(id)), "means": HOSTILE,
            "action": HOSTILE, "since_ms": now_ms - 1_000, "until_ms": now_ms + id * 10_000,
        })
    };
    let backend = |id: u64| {
        let mut backend = template.clone();
        let is_up = id % 3 == 1;
        backend["id"] = id.into();
        backend["name"] = name(id).into();
        backend["verdict"] = json!(if is_up { "up" } else { "down" });
        backend["reason"] = json!((!is_up).then_some(HOSTILE));
        backend["state"] = json!(["active", "drain", "off", "removed"][id as usize % 4]);
        backend["slots_owned"] = slots.into();
        backend["slots_first"] = slots.into();
        backend["sessions"] = 123_456_789_u64.into();
        backend["session_bytes"] = (u64::from(u32::MAX) * id).into();
        backend["used_percent"] = json!(id as f64 * 3.1);
        backend["seconds_to_full"] = (id * 5_000).into();
        backend["moved_here"] = 1_234_567_u64.into();
        backend["pending_deletes"] = 12_345_u64.into();
        backend
    };
    status["backends"] = (1..=backends).map(backend).collect();
    status["findings"] = (1..=backends).map(finding).collect();
    let stages = [
        "settle", "move1", "move2", "turned", "suspect", "away", "back", "wait",
    ];
    let work = |id: u64| {
        let stage = stages[id as usize % stages.len()];
        let ends_ms = now_ms + 1_000_000;
        json!({
            "stage": stage, "label": stage, "means": HOSTILE, "first": name(id), "second": name(id % backends + 1), "slots": slots / 2,
            "began_ms": now_ms - 500_000, "stage_ends_ms": now_ms - 100_000,
            "ends_ms": (id as usize % stages.len() < 3).then_some(ends_ms),
        })
    };
    status["under_way"] = (2..=backends).map(work).collect();
    for stage in stages {
        status["slots"][stage] = json!(if backends > 1 { slots / 2 } else { 0 });
    }
    status["last_reload"] = json!({
        "at_ms": now_ms, "result": "refused", "map_version": 3, "needs_restart": [],
        "faults": [format!("map.yaml:3:1: {HOSTILE}\n  |\n3 | {}", "x".repeat(200))],
    });
    status["applications"] = (0..12).map(application).collect();
    let peer = "a-proxy-with-a-long-name.somewhere.in.a.large.farm.example.org:42480";
    status["peers"] = json!([{"address": peer, "failure": HOSTILE, "map_version": null},
        {"address": peer, "failure": null, "map_version": 99}]);
    status
}

/// One of the map, with sessions that are not always known.
fn application(number: u64) -> Value {
    json!({
        "name": format!("{HOSTILE}-{number}"), "requests": 1_000_000 * number, "requests_failed": number, "requests_renamed": 3,
        "sessions": (number != 2).then_some(1_234_567), "session_bytes": 123_456_789,
    })
}

/// Applications and items with names of all kinds.
fn contents() -> Value {
    let item = |number: u64| {
        let name = if number == 1 {
            HOSTILE.to_owned()
        } else {
            "n".repeat(128)
        };
        json!({"name": name, "percent": 12.3, "sessions_percent": 99.9, "mean_bytes": 1 << (10 * number)})
    };
    let app = |number: u64| {
        json!({
            "name": format!("/LM/W3SVC/{number}/ROOT/{}", "a".repeat(200)), "percent": 25.0, "sessions": 1_234_567,
            "compressed": 3, "not_understood": 4, "too_long": 1, "mean_bytes": 123_456, "rest_percent": 1.5,
            "items": (0..9).map(|n| item(n % 3)).collect::<Vec<_>>(),
        })
    };
    let applications: Vec<_> = (0..6).map(app).collect();
    json!({"on": true, "one_in": 4, "sessions": 2_500, "applications": applications})
}

fn history(status: &Value, backends: u64) -> Value {
    let now_ms = status["now_ms"].as_u64().unwrap();
    let sample = |number: u64| {
        let backend = |id: u64| json!({"id": id, "requests": 1_000 * id, "failed": 3, "p50_us": 250, "p99_us": 12_345_678});
        json!({
            "at_ms": now_ms - 900_000 + number * 5_000, "span_ms": 5_000, "requests": 500 * backends * (backends + 1),
            "failed": 7, "p50_us": 250, "p99_us": if number == 90 { Value::Null } else { json!(12_345_678) },
            "backends": (1..=backends).map(backend).collect::<Vec<_>>(),
        })
    };
    let event = |number: u64| {
        json!({
            "at_ms": now_ms - number * 100_000_000, "kind": "health", "level": "error",
            "backend": format!("state-{number}-{}", "w".repeat(53)), "says": format!("is down: {HOSTILE}"),
        })
    };
    json!({
        "interval_ms": 5_000,
        "samples": (1..=180).map(sample).collect::<Vec<_>>(),
        "events": (0..100).rev().map(event).collect::<Vec<_>>(),
    })
}

/// Answers one request.
fn serve(stream: &TcpStream, pages: &Mutex<Pages>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    if lines.find(String::is_empty).is_none() {
        return;
    }
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let pages = pages.lock().unwrap();
    let (kind, head, body) = match path.split('?').next() {
        Some("/") => (
            "text/html; charset=utf-8",
            pages.head.as_str(),
            pages.page.clone(),
        ),
        Some("/contents") => ("application/json", "x: y", contents().to_string()),
        Some("/status") => ("application/json", "x: y", pages.status.to_string()),
        _ => ("application/json", "x: y", pages.history.to_string()),
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let mut stream = stream;
    // The browser may have gone on to another page.
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body.as_bytes());
}
