//! A Cluster of six under a farm: slots move, and a master dies.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::io::Write;
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use staterouter::farm::FarmOptions;

use crate::balancer::balance;
use crate::redis_server::{RedisClient, RedisServer, free_port, has_redis};
use crate::status::finding;
use crate::support::scene::{CLIENTS, Farm, Map, Proxy, SLOTS, assert_no_wrong_answer, backend};
use crate::support::system::wait_up_to;

const PATIENCE: Duration = Duration::from_secs(60);

/// Times of a Cluster that fails over within seconds, and of proxies that wait for it.
const TIMES: &str = "
timeouts: {connect: 2s, answer: 10s}
health: {interval: 1s, timeout: 10s, fall: 5, rise: 1, max_rise: 1}
handover: {settle: 13s, session_timeout: 1s, max_session_timeout: 12s, takeover: 5s, failover: off}";

/// While a node is dead, its ports are free for others. Were that nodes of another Cluster, the two would
/// meet: none starts meanwhile.
static PORTS: Mutex<()> = Mutex::new(());

fn keep_ports() -> MutexGuard<'static, ()> {
    PORTS.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Cluster {
    /// Three masters, then their replicas.
    nodes: Vec<RedisServer>,
}

impl Cluster {
    fn start() -> Self {
        Self::start_with(&[])
    }

    /// One whose replicas never take over, so that none does from a master that only stands still.
    fn start_steady(more: &[&str]) -> Self {
        Self::start_with(&[&["--cluster-replica-no-failover", "yes"], more].concat())
    }

    /// One whose servers have more arguments.
    fn start_with(more: &[&str]) -> Self {
        let _kept = keep_ports();
        let nodes: Vec<_> = (0..6).map(|_| Self::start_node(more)).collect();
        let mut clients: Vec<_> = nodes.iter().map(RedisServer::connect).collect();
        for (client, slots) in
            clients
                .iter_mut()
                .zip([["0", "5460"], ["5461", "10922"], ["10923", "16383"]])
        {
            client.expect(&["CLUSTER", "ADDSLOTSRANGE", slots[0], slots[1]]);
        }
        for node in &nodes[1..] {
            let (port, bus) = (node.port.to_string(), bus_port(node).to_string());
            clients[0].expect(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        let knows_all = |client: &mut RedisClient| {
            let info = client.expect(&["CLUSTER", "INFO"]).text();
            info.contains("cluster_known_nodes:6")
        };
        wait_for("all know all", || clients.iter_mut().all(knows_all));
        for index in 3..6 {
            let master = clients[index - 3].expect(&["CLUSTER", "MYID"]).text();
            clients[index].expect(&["CLUSTER", "REPLICATE", &master]);
        }
        let is_ok = |client: &mut RedisClient| {
            let info = client.expect(&["CLUSTER", "INFO"]).text();
            info.contains("cluster_state:ok")
        };
        wait_for("the cluster is up", || clients.iter_mut().all(is_ok));
        wait_for("replicas follow", || {
            let mut replicas = clients[3..].iter_mut();
            replicas.all(|replica| {
                let info = replica.expect(&["INFO", "replication"]).text();
                info.contains("master_link_status:up")
            })
        });
        Self { nodes }
    }

    fn start_node(more: &[&str]) -> RedisServer {
        RedisServer::start_as(|_port| {
            let bus = free_port().to_string();
            let words = [
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                "1500",
                "--repl-diskless-sync-delay",
                "0",
                "--cluster-allow-replica-migration",
                "no",
            ];
            let all = words.iter().chain(more);
            all.map(|word| (*word).to_owned()).collect()
        })
    }

    /// Kills the master of a third of the slots, waits until its replica has taken over, and starts
    /// it again as the replica of that.
    fn fail_over(&mut self, third: usize) {
        let _kept = keep_ports();
        let says = |node: &RedisServer, words: &str| {
            let info = node.connect().expect(&["INFO", "replication"]).text();
            info.contains(words)
        };
        let is_master = |node: &RedisServer| says(node, "role:master");
        let (master, replica) = match is_master(&self.nodes[third]) {
            true => (third, third + 3),
            false => (third + 3, third),
        };
        self.nodes[master].kill();
        let replica = &self.nodes[replica];
        wait_for("the replica takes over", || is_master(replica));
        // Until it is back nobody has a second copy.
        self.nodes[master].start_again();
        let replica = &self.nodes[if master < 3 { third + 3 } else { third }];
        wait_for("it follows", || says(replica, "state=online"));
    }

    /// Moves every slot that has a session from one master to another, as `redis-cli` does.
    fn move_sessions(&self, from: usize, to: usize) -> usize {
        let mut source = self.nodes[from].connect();
        let mut target = self.nodes[to].connect();
        let from_id = source.expect(&["CLUSTER", "MYID"]).text();
        let to_id = target.expect(&["CLUSTER", "MYID"]).text();
        let port = self.nodes[to].port.to_string();
        let keys = source.expect(&["KEYS", "*"]);
        let mut slots: Vec<_> = keys
            .list()
            .iter()
            .map(|key| source.expect(&["CLUSTER", "KEYSLOT", &key.text()]).number())
            .collect();
        slots.sort_unstable();
        slots.dedup();
        for slot in &slots {
            let slot = slot.to_string();
            target.expect(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
            source.expect(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
            loop {
                let keys = source.expect(&["CLUSTER", "GETKEYSINSLOT", &slot, "10"]);
                let keys: Vec<_> = keys
                    .list()
                    .iter()
                    .map(crate::redis_server::Resp::text)
                    .collect();
                if keys.is_empty() {
                    break;
                }
                let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
                words.extend(keys.iter().map(String::as_str));
                source.expect(&words);
            }
            target.expect(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
            source.expect(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
        }
        slots.len()
    }

    fn urls(&self) -> String {
        let urls: Vec<_> = self.nodes[..3]
            .iter()
            .map(|node| format!("\"{}\"", node.url()))
            .collect();
        urls.join(", ")
    }
}

fn bus_port(node: &RedisServer) -> i64 {
    let answer = node.connect().expect(&["CONFIG", "GET", "cluster-port"]);
    answer.list()[1].text().parse().unwrap()
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let came = wait_up_to(PATIENCE, || is_so().then_some(()));
    assert!(came.is_some(), "never came true: {what}");
}

fn proxy_over(cluster: &Cluster, more: &str) -> Proxy {
    let mut map = Map::of(&[]);
    map.add_redis(&format!("urls: [{}]{more}", cluster.urls()));
    Proxy::start(&map, TIMES)
}

#[test]
fn slots_move_and_nobody_notices() {
    if !has_redis() {
        return;
    }
    let cluster = Cluster::start_steady(&[]);
    let proxy = proxy_over(&cluster, "");
    let farm = Farm::start(&[&proxy]);
    for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 1)] {
        assert!(cluster.move_sessions(from, to) > 0);
        farm.go_on_for(1.0);
    }
    farm.finish_flawless();
}

#[test]
fn a_master_that_dies_takes_nothing_with_it_that_a_replica_had_to_have() {
    if !has_redis() {
        return;
    }
    let mut cluster = Cluster::start();
    let proxy = proxy_over(&cluster, ", wait_replicas: 1");
    let farm = Farm::start(&[&proxy]);
    cluster.fail_over(0);
    farm.forget_failures();
    farm.go_on_for(5.0);
    assert_eq!(farm.new_failures(), 0);
    assert_no_wrong_answer(&farm.finish());
}

#[test]
#[ignore = "takes a minute and a half: `.ci/run` runs it, CONTRIBUTING.md has the command"]
fn twenty_masters_die_and_nothing_is_lost_that_replicas_had_to_have() {
    const RUNS: usize = 20;
    if !has_redis() {
        return;
    }
    let mut cluster = Cluster::start_with(&["--min-replicas-to-write", "1"]);
    let proxy = proxy_over(&cluster, ", wait_replicas: 1");
    let farm = Farm::start(&[&proxy]);
    for run in 0..RUNS {
        cluster.fail_over(run % 3);
        farm.forget_failures();
        farm.go_on_for(1.0);
    }
    let report = farm.finish();
    println!(
        "{RUNS} masters killed: {} pages, {} of them failed",
        report.pages, report.failed_pages
    );
    assert_no_wrong_answer(&report);
}

/// Answers do not wait for the replica here: what it did not have yet is lost, a few changes at most.
#[test]
fn a_master_that_dies_loses_what_its_replica_did_not_have_and_each_loss_is_named() {
    const FEW: u64 = 3;
    if !has_redis() {
        return;
    }
    let mut cluster = Cluster::start();
    let proxy = proxy_over(&cluster, "");
    let farm = Farm::start(&[&proxy]);
    cluster.fail_over(1);
    farm.forget_failures();
    farm.go_on_for(3.0);
    assert_eq!(farm.new_failures(), 0);
    let report = farm.finish();
    let mut wrong = report.violations.iter();
    // A change of a session that lives on is stale, not lost; a lock that is gone lets two in.
    let other = wrong.find(|(_, finding)| finding.count > FEW);
    assert!(other.is_none(), "{report:#?}");
    for (kind, finding) in &report.violations {
        assert_eq!(finding.count > 0, !finding.examples.is_empty(), "{kind}");
    }
}

#[test]
fn slots_that_nobody_has_and_a_replica_that_lags_are_findings() {
    if !has_redis() {
        return;
    }
    let serves_what_is_left = ["--cluster-require-full-coverage", "no"];
    let takes_no_commands = ["--enable-debug-command", "yes"];
    let cluster = Cluster::start_steady(&[serves_what_is_left, takes_no_commands].concat());
    for node in &cluster.nodes {
        node.connect().expect(&["CLUSTER", "DELSLOTS", "16383"]);
    }
    let proxy = proxy_over(&cluster, "");
    let says = |proxy: &Proxy, code: &str| {
        let status = proxy.wait(code, |status| finding(status, code).is_some());
        finding(&status, code).unwrap()["says"].to_string()
    };
    let unserved = says(&proxy, "engine_unserved");
    assert!(
        unserved.contains("has 1 of the 16384 hash slots"),
        "{unserved}"
    );

    let (master, replica) = (&cluster.nodes[0], &cluster.nodes[3]);
    let mut sleeper = TcpStream::connect(replica.address()).unwrap();
    sleeper.write_all(b"DEBUG SLEEP 60\r\n").unwrap();
    wait_for("the replica is ten seconds behind", || {
        let info = master.connect().expect(&["INFO", "replication"]).text();
        let lag = info.split_once("state=online").and_then(|(_, rest)| {
            let (_, lag) = rest.split_once("lag=")?;
            lag.split([',', '\r']).next()?.parse::<u64>().ok()
        });
        lag.is_some_and(|lag_s| lag_s >= 10)
    });
    let lags = says(&proxy_over(&cluster, ""), "engine_lags");
    assert!(lags.contains(&format!(":{}", replica.port)), "{lags}");
}

#[test]
fn a_proxy_that_dies_takes_no_session_with_it() {
    if !has_redis() {
        return;
    }
    let cluster = Cluster::start_steady(&[]);
    let mut map = Map::of(&[]);
    map.add_redis(&format!("urls: [{}]", cluster.urls()));
    let times = TIMES.replace("settle: 13s", "settle: 15s");
    let [mut dies, stays] = Proxy::start_all(&map, &times);
    for proxy in [&dies, &stays] {
        proxy.wait("the backend is up", |status| {
            backend(status, 1)["verdict"] == "up"
        });
    }
    let both = balance(vec![dies.address, stays.address]);
    let farm = Farm::with(FarmOptions {
        targets: vec![both],
        ..Farm::options(&[])
    });
    farm.forget_failures();
    dies.kill();
    farm.forget_failures();
    farm.go_on_for(5.0);
    assert_eq!(farm.new_failures(), 0);
    let status = stays.status();
    assert_eq!(status["slots"]["steady"], SLOTS, "{status:#}");
    let report = farm.finish();
    assert_no_wrong_answer(&report);
    // A page has one request under way.
    assert!(report.failed_pages <= CLIENTS as u64, "{report:#?}");
}

#[test]
fn a_cluster_that_is_down_says_so_and_comes_back_with_every_session() {
    if !has_redis() {
        return;
    }
    // By default a server answers for up to two seconds before it writes, if its disk is slow.
    let mut cluster = Cluster::start_steady(&["--appendonly", "yes", "--appendfsync", "always"]);
    let proxy = proxy_over(&cluster, "");
    let farm = Farm::start(&[&proxy]);
    let kept = keep_ports();
    // Replicas first: none of them is to take over.
    for node in cluster.nodes.iter_mut().rev() {
        node.kill();
    }
    farm.wait_for_failures();
    // At first the connection that was there has broken.
    let status = proxy.wait("it is said, and why", |status| {
        let why = finding(status, "engine_unusable").map(|found| found["says"].to_string());
        why.is_some_and(|why| why.contains("cannot connect"))
            && finding(status, "no_backend").is_some()
    });
    let says = finding(&status, "engine_unusable").unwrap()["says"].to_string();
    let named = cluster
        .nodes
        .iter()
        .any(|node| says.contains(&node.port.to_string()));
    assert!(named, "{says}");
    for node in &mut cluster.nodes {
        node.start_again();
    }
    drop(kept);
    proxy.wait("it is over", |status| {
        let codes = ["engine_unusable", "no_backend"];
        codes.iter().all(|code| finding(status, code).is_none())
    });
    farm.forget_failures();
    farm.go_on_for(3.0);
    assert_eq!(farm.new_failures(), 0);
    assert_no_wrong_answer(&farm.finish());
}
