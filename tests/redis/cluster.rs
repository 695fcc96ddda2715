//! A Cluster of six under a farm: slots move, and a master dies.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::time::Duration;

use crate::redis_server::{RedisClient, RedisServer, free_port, has_redis};
use crate::support::scene::{Farm, Map, Proxy, assert_no_wrong_answer};
use crate::support::system::wait_up_to;

const PATIENCE: Duration = Duration::from_secs(60);

/// Times of a Cluster that fails over within seconds, and of proxies that wait for it.
const TIMES: &str = "
timeouts: {connect: 2s, answer: 10s}
health: {interval: 1s, timeout: 10s, fall: 5, rise: 1, max_rise: 1}
handover: {settle: 13s, session_timeout: 1s, max_session_timeout: 12s, takeover: 5s, failover: off}";

struct Cluster {
    /// Three masters, then their replicas.
    nodes: Vec<RedisServer>,
}

impl Cluster {
    fn start() -> Self {
        let nodes: Vec<_> = (0..6).map(|_| Self::start_node()).collect();
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

    fn start_node() -> RedisServer {
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
            words.map(str::to_owned).to_vec()
        })
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
    let cluster = Cluster::start();
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
    cluster.nodes[0].kill();
    let mut replica = cluster.nodes[3].connect();
    wait_for("the replica takes over", || {
        let info = replica.expect(&["INFO", "replication"]).text();
        info.contains("role:master")
    });
    // Back as a replica of the one that was its own: until then nobody has a second copy.
    cluster.nodes[0].start_again();
    wait_for("it follows", || {
        let info = replica.expect(&["INFO", "replication"]).text();
        info.contains("connected_slaves:1")
    });
    farm.forget_failures();
    farm.go_on_for(5.0);
    assert_eq!(farm.new_failures(), 0);
    assert_no_wrong_answer(&farm.finish());
}
