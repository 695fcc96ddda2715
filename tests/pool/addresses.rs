//! Backends whose address changes, that have several, or that are no state servers: real processes,
//! with host names of their own.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::net::{SocketAddr, TcpListener};

use crate::support::admin;
use crate::support::client::{Client, body, get, put, status};
use crate::support::hosts::Hosts;
use crate::support::scene::SHORT_TIMES;
use crate::support::sessions::ids;
use crate::support::{Program, ProxyFiles, run};

const SESSIONS: u64 = 40;

/// State servers on one port, each at a loopback address of its own.
fn servers<const N: usize>(hosts: [&str; N]) -> [Program; N] {
    let mut port = 0;
    hosts.map(|host| {
        let listen = format!("{host}:{port}");
        let server = Program::start(&["state-server", "--listen", &listen, "--workers", "1"]);
        port = server.address.port();
        server
    })
}

/// A request on a connection of its own; `None` when it is closed without an answer.
fn ask(proxy: &Program, request: &[u8]) -> Option<Vec<u8>> {
    let mut client = Client::connect(proxy.address);
    client.send(request);
    client.finish_sending();
    let answer = client.until_closed();
    (!answer.is_empty()).then_some(answer)
}

fn store(proxy: &Program, ids: &[String]) {
    for id in ids {
        let answer = ask(proxy, &put(id, 0, id.as_bytes())).unwrap();
        assert_eq!(status(&answer), "200");
    }
}

/// How many of the sessions are as they were stored. All are asked for at the same time, so that
/// every one needs a connection of its own.
fn intact(proxy: &Program, ids: &[String]) -> usize {
    let mut clients: Vec<_> = ids.iter().map(|_| Client::connect(proxy.address)).collect();
    for (client, id) in clients.iter_mut().zip(ids) {
        client.send(&get(id));
    }
    let answers = clients.iter_mut().map(|client| client.answer_to(false));
    let both = answers.zip(ids);
    both.filter(|(answer, id)| status(answer) == "200" && body(answer) == id.as_bytes())
        .count()
}

fn address_in_use(proxy: &Program) -> String {
    let status = admin::status(proxy.admin());
    let in_use = &admin::backend(&status, "state-1")["address_in_use"];
    in_use.as_str().unwrap_or("none").to_owned()
}

fn wait_for_address(proxy: &Program, address: SocketAddr) {
    admin::wait_for(proxy.admin(), "another address", |status| {
        admin::backend(status, "state-1")["address_in_use"] == address.to_string()
    });
}

fn named(servers: &[Program], name: &str) -> String {
    format!("{name}:{}", servers[0].address.port())
}

#[test]
fn a_name_that_leads_elsewhere_splits_no_sessions() {
    let Some(hosts) = Hosts::new(&[("state-1.test", "127.0.0.2")]) else {
        return;
    };
    let servers = servers(["127.0.0.2", "127.0.0.3"]);
    let files = ProxyFiles::new(&[named(&servers, "state-1.test")], SHORT_TIMES);
    let proxy = files.start_knowing(&hosts);
    let before = ids(1, SESSIONS);
    store(&proxy, &before);

    hosts.set(&[("state-1.test", "127.0.0.3")]);
    let says = format!(
        "leads to {} now, but {}",
        servers[1].address, servers[0].address
    );
    proxy.wait_for_log(|line| line.contains(&says));
    assert_eq!(intact(&proxy, &before), before.len());
    let meanwhile = ids(2, SESSIONS);
    store(&proxy, &meanwhile);
    assert_eq!(intact(&proxy, &meanwhile), meanwhile.len());

    // A restart does not take the chance to go elsewhere.
    drop(proxy.stop());
    let proxy = files.start_knowing(&hosts);
    assert_eq!(address_in_use(&proxy), servers[0].address.to_string());
    assert_eq!(intact(&proxy, &before), before.len());

    // An order does, for all workers at once.
    assert_eq!(admin::reload(proxy.admin()).0, 200);
    wait_for_address(&proxy, servers[1].address);
    assert_eq!(intact(&proxy, &before), 0);
    let after = ids(3, SESSIONS);
    store(&proxy, &after);
    assert_eq!(intact(&proxy, &after), after.len());
    let log = proxy.stop();
    assert!(log.contains("are lost"), "{log}");
}

#[test]
fn of_two_addresses_behind_a_name_one_is_used_until_it_dies() {
    let both = [("state-1.test", "127.0.0.3"), ("state-1.test", "127.0.0.2")];
    let Some(hosts) = Hosts::new(&both) else {
        return;
    };
    let [first, second] = servers(["127.0.0.2", "127.0.0.3"]);
    let port = first.address.port();
    let files = ProxyFiles::new(&[format!("state-1.test:{port}")], SHORT_TIMES);
    let proxy = files.start_knowing(&hosts);
    assert_eq!(address_in_use(&proxy), first.address.to_string());
    proxy.wait_for_log(|line| line.contains("its host name has 2 addresses"));
    let before = ids(1, SESSIONS);
    store(&proxy, &before);
    assert_eq!(intact(&proxy, &before), before.len());

    // While it may come back its sessions are out of reach, which is not the same as gone.
    first.signal("STOP");
    admin::wait_for(proxy.admin(), "it is down", |status| {
        admin::backend(status, "state-1")["verdict"] == "down"
    });
    assert_eq!(ask(&proxy, &get(&before[0])), None);
    first.signal("CONT");
    admin::wait_for(proxy.admin(), "it is up", |status| {
        admin::backend(status, "state-1")["verdict"] == "up"
    });
    assert_eq!(intact(&proxy, &before), before.len());

    first.kill();
    wait_for_address(&proxy, second.address);
    proxy.wait_for_log(|line| line.contains("which does not answer: ") && line.contains("lost"));
    let after = ids(2, SESSIONS);
    store(&proxy, &after);
    assert_eq!(intact(&proxy, &after), after.len());
}

#[test]
fn a_mistyped_address_of_a_living_backend_takes_no_session_out_of_reach() {
    let server = Program::state_server();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let mistyped = nobody.local_addr().unwrap();
    drop(nobody);
    let files = ProxyFiles::new(&[server.address], SHORT_TIMES);
    let proxy = files.start();
    let sessions = ids(1, SESSIONS);
    store(&proxy, &sessions);

    let right = files.read("map.yaml");
    let wrong = right
        .replace("version: 1", "version: 2")
        .replace(&server.address.to_string(), &mistyped.to_string());
    files.replace("map.yaml", &wrong);
    let says = format!(
        "{} stays in use: its new address {mistyped} does not",
        server.address
    );
    proxy.wait_for_log(|line| line.contains(&says));
    assert_eq!(intact(&proxy, &sessions), sessions.len());
    assert_eq!(address_in_use(&proxy), server.address.to_string());

    // The server that was meant.
    let other = Program::state_server();
    let meant = wrong
        .replace("version: 2", "version: 3")
        .replace(&mistyped.to_string(), &other.address.to_string());
    files.replace("map.yaml", &meant);
    wait_for_address(&proxy, other.address);
    let after = ids(2, SESSIONS);
    store(&proxy, &after);
    assert_eq!(intact(&proxy, &after), after.len());
}

/// Files of a proxy that listens on `own` and has `backend` in its map.
fn pointing_at(own: SocketAddr, backend: &str) -> ProxyFiles {
    let files = ProxyFiles::new(&[backend], SHORT_TIMES);
    let main = files.read("staterouter.yaml");
    let main = main.replace("listen: 127.0.0.1:0\np", &format!("listen: {own}\np"));
    files.replace("staterouter.yaml", &main);
    files
}

/// Addresses that are free, and stay so: nobody else uses this loopback address.
fn free<const N: usize>() -> [SocketAddr; N] {
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    let ports = [(); N].map(|()| TcpListener::bind((format!("127.{high}.{low}.7"), 0)).unwrap());
    ports.map(|port| port.local_addr().unwrap())
}

/// Connections of clients that the proxy has accepted.
fn accepted(proxy: &Program) -> u64 {
    let metrics = admin::get(proxy.admin(), "/metrics").1;
    let mut lines = metrics.lines();
    let value =
        lines.find_map(|line| line.strip_prefix("staterouter_client_connections_accepted_total "));
    value.unwrap().parse().unwrap()
}

#[test]
fn a_proxy_in_its_own_map_is_refused_or_found_before_anything_goes_in_circles() {
    let [own] = free();
    let files = pointing_at(own, &own.to_string());
    for command in ["check", "serve"] {
        let (exit, stdout, stderr) = run(&[command, "--config", &files.config()]);
        let said = format!("{stdout}{stderr}");
        assert_ne!(exit, Some(0), "{said}");
        assert!(said.contains("where this proxy itself listens"), "{said}");
    }

    let address = own.ip().to_string();
    let Some(hosts) = Hosts::new(&[("state-1.test", address.as_str())]) else {
        return;
    };
    let files = pointing_at(own, &format!("state-1.test:{}", own.port()));
    let proxy = files.start_knowing(&hosts);
    assert_leads_nowhere(&proxy, own);
}

#[test]
fn proxies_that_point_at_each_other_are_no_state_servers() {
    let [one, other] = free();
    let proxies = [(one, other), (other, one)]
        .map(|(own, backend)| pointing_at(own, &backend.to_string()).serve());
    assert_leads_nowhere(&proxies[0], other);
    assert_leads_nowhere(&proxies[1], one);
    // A new backend that is a proxy gets nothing either.
    let server = Program::state_server();
    let files = ProxyFiles::new(&[server.address], SHORT_TIMES);
    let proxy = files.start();
    let map = files.read("map.yaml").replace("version: 1", "version: 2");
    files.replace(
        "map.yaml",
        &format!("{map}  - {{name: state-2, address: \"{one}\"}}\n"),
    );
    proxy.wait_for_log(|line| line.contains(&format!("state-2: {one} is the address of a")));
    let sessions = ids(1, SESSIONS);
    store(&proxy, &sessions);
    assert_eq!(intact(&proxy, &sessions), sessions.len());
    let status = admin::status(proxy.admin());
    assert_eq!(admin::backend(&status, "state-2")["verdict"], "down");
    assert_eq!(admin::backend(&status, "state-2")["slots_first"], 0);
}

/// The backend of the proxy is known to be one, and requests go nowhere.
fn assert_leads_nowhere(proxy: &Program, address: SocketAddr) {
    let says = format!("state-1: {address} is the address of a staterouter proxy");
    proxy.wait_for_log(|line| line.contains(&says));
    admin::wait_for(proxy.admin(), "it is down", |status| {
        admin::backend(status, "state-1")["verdict"] == "down"
    });
    let before = accepted(proxy);
    for id in ids(1, 20) {
        assert_eq!(ask(proxy, &get(&id)), None);
    }
    // The clients', and some probes.
    let accepted = accepted(proxy) - before;
    assert!(accepted < 100, "{accepted} connections");
}
