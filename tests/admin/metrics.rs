//! Metrics of real proxies over real sockets: known traffic, exact numbers.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use crate::support;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::answers::{BAD_REQUEST, DONE, locked_item};
use crate::support::backend::{ABSENT, Backend};
use crate::support::certificates::Authority;
use crate::support::client::{self, Client, acquire, delete, get, head, put, release, status};
use crate::support::metrics::Scrape;
use crate::support::system::{hold_port, wait_until};
use crate::support::tags::tag;
use crate::support::{Program, ProxyFiles, admin, proxy, slots};
use staterouter::contents::{BodyItem, encode};
use staterouter::handover::Stage;
use staterouter::metrics::table;

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";
const OTHER_ID: &str = "b5k2ye1tqz0mh3wdcx4nvs1g";

const PAGE: &str = include_str!("../../docs/metrics.md");

/// Series of `metric{backend, operation, result}` and their values.
fn expected(rows: &[(&str, &str, &str, u32)]) -> BTreeMap<String, f64> {
    let labels = |(backend, operation, result, count): &(&str, &str, &str, u32)| {
        let labels =
            format!("{{backend=\"{backend}\",operation=\"{operation}\",result=\"{result}\"}}");
        (labels, f64::from(*count))
    };
    rows.iter().map(labels).collect()
}

#[track_caller]
fn assert_outcomes(scrape: &Scrape, metric: &str, rows: &[(&str, &str, &str, u32)]) {
    let found = scrape.non_zero(metric).into_iter();
    let found: BTreeMap<_, _> = found
        .map(|(labels, count)| (labels.to_owned(), count))
        .collect();
    assert_eq!(found, expected(rows), "{metric}");
}

/// Waits until a series has this value. A request counts once its answer is out, so whoever has the
/// answer may be faster.
fn wait_for(proxy: &Program, series: &str, value: f64) -> Scrape {
    wait_until(series, || Scrape::of(proxy.admin()).value(series) == value);
    Scrape::of(proxy.admin())
}

/// A series of the requests of clients.
fn requests(backend: &str, operation: &str, result: &str) -> String {
    format!(
        "staterouter_requests_total{{backend=\"{backend}\",operation=\"{operation}\",result=\"{result}\"}}"
    )
}

/// The lock cookie of an answer.
fn cookie(answer: &[u8]) -> u32 {
    let text = std::str::from_utf8(answer).unwrap();
    let cookie = text
        .lines()
        .find_map(|line| line.strip_prefix("LockCookie:"));
    cookie.unwrap().trim().parse().unwrap()
}

/// One client of one worker, which keeps account of the bytes.
struct Counting {
    client: Client,
    sent: usize,
    received: usize,
}

impl Counting {
    fn connect(proxy: &Program) -> Self {
        Self {
            client: Client::connect(proxy.address),
            sent: 0,
            received: 0,
        }
    }

    #[track_caller]
    fn ask(&mut self, request: &[u8], expected: &str) -> Vec<u8> {
        let answer = self.client.ask(request);
        assert_eq!(status(&answer), expected);
        self.sent += request.len();
        self.received += answer.len();
        answer
    }
}

/// Sends 14 requests that are answered by the backend, and two that are not forwarded.
fn one_of_everything(proxy: &Program) -> Counting {
    let mut client = Counting::connect(proxy);
    client.ask(&get(ID), "404");
    client.ask(&put(ID, 0, &[7; 100]), "200");
    let lock = cookie(&client.ask(&acquire(ID), "200"));
    client.ask(&acquire(ID), "423");
    client.ask(&get(ID), "423");
    client.ask(&put(ID, lock + 1, b"lost"), "423");
    client.ask(&put(ID, lock, &[8; 200_000]), "200");
    client.ask(&get(ID), "200");
    client.ask(&head(ID), "200");
    let lock = cookie(&client.ask(&acquire(ID), "200"));
    client.ask(&release(ID, lock), "200");
    client.ask(&delete(ID, lock), "200");
    client.ask(&head(ID), "404");
    let odd = format!(
        "GET {} HTTP/1.1\r\nExclusive: odd\r\n\r\n",
        client::target(ID)
    );
    client.ask(odd.as_bytes(), "400");
    for refused in ["NONSENSE\r\n\r\n", "PUT app/ HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut hostile = Client::connect(proxy.address);
        hostile.send(refused.as_bytes());
        assert_eq!(hostile.until_closed(), BAD_REQUEST);
        client.sent += refused.len();
        client.received += BAD_REQUEST.len();
    }
    client
}

#[test]
fn every_request_counts_once_by_operation_and_result() {
    let server = Program::state_server();
    // A request that waits for a lock asks its backend more than once.
    let proxy = proxy(&[server.address], "locks: {wait: 0s}");
    let client = one_of_everything(&proxy);
    wait_for(&proxy, &requests("state-1", "unknown", "bad_request"), 1.0);
    let scrape = wait_for(&proxy, "staterouter_client_connections", 1.0);
    let of_backend = [
        ("state-1", "acquire", "locked", 1),
        ("state-1", "acquire", "ok", 2),
        ("state-1", "get", "absent", 1),
        ("state-1", "get", "locked", 1),
        ("state-1", "get", "ok", 1),
        ("state-1", "put", "locked", 1),
        ("state-1", "put", "ok", 2),
        ("state-1", "release", "ok", 1),
        ("state-1", "remove", "ok", 1),
        ("state-1", "touch", "absent", 1),
        ("state-1", "touch", "ok", 1),
        ("state-1", "unknown", "bad_request", 1),
    ];
    assert_outcomes(&scrape, "staterouter_backend_requests_total", &of_backend);
    let refused = [
        ("", "put", "bad_request", 1),
        ("", "unknown", "bad_request", 1),
    ];
    let all = [&of_backend[..], &refused].concat();
    assert_outcomes(&scrape, "staterouter_requests_total", &all);
    for (series, value) in [
        ("staterouter_failed_requests_total{reason=\"malformed\"}", 1),
        (
            "staterouter_failed_requests_total{reason=\"bad_target\"}",
            1,
        ),
        (
            "staterouter_failed_requests_total{reason=\"refused_by_backend\"}",
            1,
        ),
        ("staterouter_lost_writes_total{backend=\"state-1\"}", 1),
        ("staterouter_proxy_overhead_seconds_count", 14),
        (
            "staterouter_backend_request_duration_seconds_count{backend=\"state-1\"}",
            14,
        ),
        ("staterouter_client_connections_accepted_total", 3),
        ("staterouter_client_received_bytes_total", client.sent),
        ("staterouter_client_sent_bytes_total", client.received),
        ("staterouter_backend_up{backend=\"state-1\"}", 1),
        (
            "staterouter_backend_connections{backend=\"state-1\",state=\"busy\"}",
            0,
        ),
    ] {
        assert_eq!(scrape.value(series), value as f64, "{series}");
    }
    assert_eq!(scrape.sum("staterouter_failed_requests_total"), 3.0);
    // The same bytes, but for the tags of lock cookies and what never reached it.
    let to_backend = scrape.value("staterouter_backend_sent_bytes_total{backend=\"state-1\"}");
    assert!(
        to_backend > 200_100.0 && to_backend < client.sent as f64,
        "{to_backend}"
    );
    let from = scrape.value("staterouter_backend_received_bytes_total{backend=\"state-1\"}");
    assert!(from > 200_000.0 && from < client.received as f64, "{from}");
}

#[test]
fn a_backend_that_fails_counts_with_its_reason_and_shows_in_its_state() {
    let backend = Backend::start();
    let (_held, nobody) = hold_port();
    // Each is asked once.
    let files = ProxyFiles::new(&[backend.address, nobody], "handover: {hold: 0s}");
    let [breaks, refuses] = [0, 1].map(|owner| support::sessions::owned_by(owner, 2, 3, 1));
    let proxy = files.serve();
    let mut client = Client::connect(proxy.address);
    client.send(&acquire(&breaks[0]));
    let mut connection = backend.accept();
    connection.read(acquire(&breaks[0]).len());
    connection.close();
    assert_eq!(client.until_closed(), b"");
    let mut client = Client::connect(proxy.address);
    client.send(&head(&refuses[0]));
    assert_eq!(client.until_closed(), b"");

    let scrape = wait_for(
        &proxy,
        "staterouter_backend_state{backend=\"state-2\",state=\"suspect\"}",
        1.0,
    );
    let failed = [
        ("state-1", "acquire", "failed", 1),
        ("state-2", "touch", "failed", 1),
    ];
    for metric in [
        "staterouter_requests_total",
        "staterouter_backend_requests_total",
    ] {
        assert_outcomes(&scrape, metric, &failed);
    }
    for (series, value) in [
        ("staterouter_failed_requests_total{reason=\"broken\"}", 1),
        ("staterouter_failed_requests_total{reason=\"connect\"}", 1),
        (
            "staterouter_backend_connections_opened_total{backend=\"state-1\"}",
            1,
        ),
        (
            "staterouter_backend_connect_failures_total{backend=\"state-1\"}",
            0,
        ),
        (
            "staterouter_backend_connect_failures_total{backend=\"state-2\"}",
            1,
        ),
        ("staterouter_backend_up{backend=\"state-2\"}", 1),
        (
            "staterouter_backend_state{backend=\"state-2\",state=\"up\"}",
            0,
        ),
        (
            "staterouter_backend_health_changes_total{backend=\"state-2\",to=\"suspect\"}",
            1,
        ),
    ] {
        assert_eq!(scrape.value(series), f64::from(value), "{series}");
    }
    let durations = "staterouter_backend_request_duration_seconds_count{backend=\"state-1\"}";
    assert_eq!(scrape.value(durations), 0.0, "nothing was answered");
}

#[test]
fn a_dead_pooled_connection_counts_as_a_retry_and_one_exchange() {
    let backend = Backend::start();
    let proxy = proxy(&[backend.address], "");
    let mut client = Client::connect(proxy.address);
    client.send(&get(ID));
    let mut first = backend.accept();
    first.expect(&get(ID), ABSENT);
    assert_eq!(client.answer_to(false), ABSENT);
    client.send(&get(ID));
    first.read(get(ID).len());
    first.close();
    backend.accept().expect(&get(ID), ABSENT);
    assert_eq!(client.answer_to(false), ABSENT);

    wait_for(&proxy, &requests("state-1", "get", "absent"), 2.0);
    let idle = "staterouter_backend_connections{backend=\"state-1\",state=\"idle\"}";
    let scrape = wait_for(&proxy, idle, 1.0);
    let both = [("state-1", "get", "absent", 2)];
    assert_outcomes(&scrape, "staterouter_requests_total", &both);
    assert_outcomes(&scrape, "staterouter_backend_requests_total", &both);
    assert_eq!(scrape.sum("staterouter_backend_retries_total"), 1.0);
    assert_eq!(
        scrape.sum("staterouter_backend_connections_opened_total"),
        2.0
    );
}

/// Nobody should look for a fault at a backend whose clients send half a request.
#[test]
fn a_client_that_leaves_within_its_body_counts_for_itself_alone() {
    let backend = Backend::start();
    let proxy = proxy(&[backend.address], "");
    let mut client = Client::connect(proxy.address);
    client.send(&put(ID, 0, &[7; 200_000])[..100_000]);
    let mut connection = backend.accept();
    connection.read(1000);
    client.close();
    let scrape = wait_for(&proxy, &requests("state-1", "put", "failed"), 1.0);
    assert_outcomes(&scrape, "staterouter_backend_requests_total", &[]);
    let busy = "staterouter_backend_connections{backend=\"state-1\",state=\"busy\"}";
    assert_eq!(scrape.value(busy), 0.0);
}

#[test]
fn an_overdue_lock_counts_once_per_page_that_waits() {
    let backend = Backend::start();
    let proxy = proxy(&[backend.address], "handover: {takeover: 20s}");
    let mut client = Client::connect(proxy.address);
    let locked = |age: &str| {
        format!(
            "423 Locked\r\nLockDate: 1\r\nLockAge: {age}\r\nLockCookie: 2\r\nContent-Length: 0\r\n\r\n"
        )
    };
    client.send(&acquire(ID));
    let mut connection = backend.accept();
    for age in ["19", "20", "31536000"] {
        connection.expect(&acquire(ID), locked(age).as_bytes());
        client.answer_to(false);
        client.send(&acquire(ID));
    }
    connection.expect(&acquire(ID), ABSENT);
    client.answer_to(false);
    let scrape = Scrape::of(proxy.admin());
    assert_eq!(scrape.sum("staterouter_overdue_locks_total"), 1.0);
}

/// Stores a session whose contents are understood, until they show.
fn store_known_contents(proxy: &Program) {
    let cart = BodyItem {
        name: "Cart".to_owned(),
        bytes: 100,
    };
    let session = put(OTHER_ID, 0, &encode(20, &[cart]));
    let share = "staterouter_contents_item_ratio{application=\"/LM/W3SVC/1/ROOT\",item=\"Cart\"}";
    wait_until("its contents are known", || {
        let stored = Client::connect(proxy.address).ask(&session);
        assert_eq!(status(&stored), "200");
        Scrape::of(proxy.admin()).value(share) > 0.5
    });
}

#[test]
fn a_moved_session_counts_with_every_question_it_took() {
    let servers = [(); 2].map(|()| Program::state_server());
    // An authority in force has a series, too.
    let extra = "backend_tls: {ca: ca.pem, plain: [state-1, state-2]}\n";
    let files = ProxyFiles::new(&servers.each_ref().map(|server| server.address), extra);
    Authority::new().write(Path::new(&files.path("")));
    let map = files.read("map.yaml");
    let map = map
        .replace(
            "}
",
            ", capacity: {sessions: 1, memory: 1GiB}}
",
        )
        .replace(
            "backends:",
            "replicas: 1
backends:",
        );
    let applications = "applications: [{name: shop, id: /LM/W3SVC/9/ROOT}]
";
    files.replace("map.yaml", &(map + applications));
    slots::put_all(&files, Stage::Move2, 2, 1);
    let proxy = files.serve();
    let earlier = Client::connect(servers[0].address).ask(&put(ID, 0, b"state"));
    assert_eq!(earlier, DONE);
    let mut client = Client::connect(proxy.address);
    let lock = cookie(&client.ask(&acquire(ID)));
    assert_eq!(lock >> 24, 2, "issued by the second");
    assert_eq!(status(&client.ask(&release(ID, lock))), "200");

    let behind = "staterouter_backend_requests_total{backend=\"state-1\",operation=\"remove\",result=\"ok\"}";
    wait_for(&proxy, &requests("state-2", "release", "ok"), 1.0);
    wait_for(&proxy, behind, 1.0);
    let scrape = wait_for(
        &proxy,
        "staterouter_backend_sessions{backend=\"state-2\"}",
        1.0,
    );
    assert_outcomes(
        &scrape,
        "staterouter_requests_total",
        &[
            ("state-2", "acquire", "ok", 1),
            ("state-2", "release", "ok", 1),
        ],
    );
    assert_outcomes(
        &scrape,
        "staterouter_backend_requests_total",
        &[
            ("state-1", "acquire", "ok", 1),
            ("state-1", "remove", "ok", 1),
            ("state-2", "acquire", "absent", 1),
            ("state-2", "acquire", "ok", 1),
            ("state-2", "put", "ok", 1),
            ("state-2", "release", "ok", 1),
        ],
    );
    let moved = scrape.non_zero("staterouter_sessions_moved_total");
    assert_eq!(
        moved,
        BTreeMap::from([("{from=\"state-1\",to=\"state-2\"}", 1.0)])
    );
    assert_eq!(scrape.value("staterouter_handover_active"), 1.0);
    assert_eq!(scrape.value("staterouter_slots{stage=\"move2\"}"), 16_384.0);
    assert_eq!(scrape.sum("staterouter_slots"), 16_384.0);
    assert_eq!(scrape.sum("staterouter_session_moves_failed_total"), 0.0);
    store_known_contents(&proxy);
    let scrape = Scrape::of(proxy.admin());
    assert_is_as_declared(&scrape);
    assert_promtool_accepts(&scrape);
}

#[test]
fn a_move_that_breaks_off_counts_as_failed_and_not_as_moved() {
    let [earlier, owner] = [(); 2].map(|()| Backend::start());
    let files = ProxyFiles::new(&[earlier.address, owner.address], "");
    slots::put_all(&files, Stage::Move2, 2, 1);
    let proxy = files.serve();
    let mut client = Client::connect(proxy.address);
    client.send(&acquire(ID));
    let mut new = owner.accept();
    new.expect(&acquire(ID), ABSENT);
    earlier
        .accept()
        .expect(&acquire(ID), &locked_item(2, b"state"));
    // The copy arrives, and is never acknowledged.
    new.read(1);
    new.reset();
    assert_eq!(client.until_closed(), b"");
    let scrape = Scrape::of(proxy.admin());
    let failed = scrape.non_zero("staterouter_session_moves_failed_total");
    assert_eq!(failed, BTreeMap::from([("{step=\"insert\"}", 1.0)]));
    assert_eq!(scrape.sum("staterouter_sessions_moved_total"), 0.0);
}

#[test]
fn sessions_out_of_reach_count_for_the_backend_that_is_away() {
    let stands_in = Program::state_server();
    let (_held, away) = hold_port();
    let files = ProxyFiles::new(&[stands_in.address, away], "");
    slots::put_all(&files, Stage::Away, 1, 2);
    let proxy = files.serve();
    let mut client = Client::connect(proxy.address);
    assert_eq!(client.ask(&acquire(ID)), ABSENT);
    assert_eq!(client.ask(&get(OTHER_ID)), ABSENT);
    client.send(&put(ID, tag(2, 7), b"late"));
    assert_eq!(client.until_closed(), b"");

    let scrape = Scrape::of(proxy.admin());
    let out_of_reach = scrape.non_zero("staterouter_sessions_out_of_reach_total");
    assert_eq!(
        out_of_reach,
        BTreeMap::from([("{backend=\"state-2\"}", 2.0)])
    );
    let reason = "staterouter_failed_requests_total{reason=\"lock_out_of_reach\"}";
    assert_eq!(scrape.value(reason), 1.0);
    assert_outcomes(
        &scrape,
        "staterouter_requests_total",
        &[
            ("", "put", "failed", 1),
            ("state-1", "acquire", "absent", 1),
            ("state-1", "get", "absent", 1),
        ],
    );
    assert_eq!(
        scrape.value("staterouter_backend_up{backend=\"state-2\"}"),
        0.0
    );
    assert_eq!(scrape.value("staterouter_handover_active"), 0.0);
}

#[test]
fn counters_outlive_reloads_and_a_backend_that_is_gone_has_none() {
    let servers = [(); 2].map(|()| Program::state_server());
    let files = ProxyFiles::new(
        &servers.each_ref().map(|server| server.address),
        "handover: {max_moved_share: 100}",
    );
    let [stays, leaves] = [0, 1].map(|owner| support::sessions::owned_by(owner, 2, 4, 1));
    let proxy = files.start();
    let mut client = Client::connect(proxy.address);
    for id in [&stays[0], &leaves[0]] {
        assert_eq!(client.ask(&get(id)), ABSENT);
    }
    let absent = |backend: &str| requests(backend, "get", "absent");
    let map = |version: u32, second: &str| {
        let [first, other] = servers.each_ref().map(|server| server.address);
        let second = second.replace("ADDRESS", &other.to_string());
        files.replace("map.yaml", &format!(
            "version: {version}\nbackends:\n  - {{name: state-1, id: 1, address: \"{first}\"}}\n{second}"
        ));
        admin::reload(proxy.admin()).0
    };
    let off = "  - {name: state-2, id: 2, address: \"ADDRESS\", state: off}\n";
    assert_eq!(map(2, off), 200);
    wait_for(&proxy, &absent("state-1"), 1.0);
    let scrape = wait_for(&proxy, &absent("state-2"), 1.0);
    assert_eq!(
        scrape.value("staterouter_backend_state{backend=\"state-2\",state=\"off\"}"),
        1.0
    );
    assert_eq!(scrape.value("staterouter_map_version"), 2.0);
    assert_eq!(map(3, ""), 200);
    assert_eq!(map(3, off), 422);
    assert_eq!(client.ask(&get(&stays[0])), ABSENT);

    let scrape = wait_for(&proxy, &absent("state-1"), 2.0);
    assert!(!scrape.text.contains("state-2"), "{}", scrape.text);
    for (series, value) in [
        ("staterouter_map_version", 3.0),
        ("staterouter_map_last_reload_success", 0.0),
        ("staterouter_map_reloads_total{result=\"refused\"}", 1.0),
    ] {
        assert_eq!(scrape.value(series), value, "{series}");
    }
    // The proxy may have seen the files change by itself before it was asked.
    let reloads = scrape.sum("staterouter_map_reloads_total");
    assert!((3.0..=6.0).contains(&reloads), "{reloads}");
}

#[test]
fn a_connection_without_a_place_counts_as_refused() {
    let server = Program::state_server();
    let limits = "limits: {client_connections: 1}\ntimeouts: {accept_wait: 100ms}";
    let proxy = proxy(&[server.address], limits);
    let mut served = Client::connect(proxy.address);
    assert_eq!(served.ask(&get(ID)), ABSENT);
    assert_eq!(Client::connect(proxy.address).until_closed(), b"");
    let scrape = Scrape::of(proxy.admin());
    let refused = "staterouter_client_connections_refused_total{reason=\"no_place\"}";
    assert_eq!(scrape.value(refused), 1.0);
    assert_eq!(
        scrape.value("staterouter_client_connections_accepted_total"),
        1.0
    );
}

/// The scrape has every declared metric, with the declared type and labels, and nothing else.
#[track_caller]
fn assert_is_as_declared(scrape: &Scrape) {
    // There is no engine: `tests/redis/status.rs` sees what one adds.
    let families = table::ALL.iter();
    let families = families.filter(|family| !family.name.starts_with("staterouter_engine_"));
    let declared: BTreeMap<_, _> = families
        .clone()
        .map(|family| (family.name, family.kind.name()))
        .collect();
    assert_eq!(scrape.types(), declared);
    for family in families {
        let labels: Vec<_> = family
            .labels
            .iter()
            .map(|label| (*label).to_owned())
            .collect();
        let found: Vec<_> = scrape.labels(family.name).into_iter().collect();
        assert_eq!(found, [labels], "{}", family.name);
    }
}

/// Debian's package prometheus has it; a machine that checks changes must.
#[track_caller]
fn assert_promtool_accepts(scrape: &Scrape) {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match promtool {
        Ok(promtool) => promtool,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "promtool: {error}");
            return;
        }
    };
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(scrape.text.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}

#[test]
fn the_page_has_every_metric_as_it_is_declared() {
    let rows = PAGE.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let name = cells.next()?.strip_suffix('`')?;
        let kind = cells.next()?;
        let labels = cells.next()?.replace('`', "");
        let meaning = cells.next()?.strip_suffix(" |")?;
        Some((name, kind, labels.trim().to_owned(), meaning))
    });
    let mut rows: Vec<_> = rows.collect();
    let declared = table::ALL.iter().chain(table::OF_STATE_SERVER);
    let mut declared: Vec<_> = declared
        .map(|family| {
            (
                family.name,
                family.kind.name(),
                family.labels.join(", "),
                family.help,
            )
        })
        .collect();
    rows.sort_unstable();
    declared.sort_unstable();
    assert_eq!(rows, declared);
}
