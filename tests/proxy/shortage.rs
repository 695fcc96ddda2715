//! What the proxy itself is short of is no fault of a backend, and what a backend refuses is one of
//! every display.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::io::{ErrorKind, Read};
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::support::answers::{BAD_REQUEST, DONE, item};
use crate::support::backend::Backend;
use crate::support::client::{Client, acquire, get, put};
use crate::support::metrics::Scrape;
use crate::support::system::wait_until_read;
use crate::support::{Program, ProxyFiles, admin, proxy};
use serde_json::Value;

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";

/// One failure is enough to be down.
const STRICT: &str = "health: {interval: 100ms, timeout: 30s, fall: 1, rise: 1}";

/// Sets how many files the process may have open; what it has stays. Returns the limit before.
fn limit_open_files(pid: u32, files: u64) -> u64 {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let set = |current| {
        let limit = Rlimit {
            current: Some(current),
            maximum: getrlimit(Resource::Nofile).maximum,
        };
        prlimit(Some(pid), Resource::Nofile, limit)
    };
    set(files).unwrap().current.unwrap()
}

#[test]
fn a_proxy_without_open_files_blames_no_backend_and_keeps_its_connections() {
    let server = Program::state_server();
    // One worker, so that all use one pool.
    let files = ProxyFiles::new(&[server.address], STRICT);
    let main = files.read("staterouter.yaml");
    files.replace(
        "staterouter.yaml",
        &main.replace("workers: 2", "workers: 1"),
    );
    let proxy = files.serve();
    let mut clients = [(); 3].map(|()| Client::connect(proxy.address));
    let body = b"a session that comes in two parts";
    for client in &mut clients {
        assert_eq!(client.ask(&put(ID, 0, body)), DONE);
    }
    let [first, second, third] = &mut clients;
    // The one connection to the backend is in use while this body comes.
    let request = put(ID, 0, body);
    let (start, rest) = request.split_at(request.len() - 1);
    first.send(start);
    wait_until_read([&first.stream]);

    let before = limit_open_files(proxy.id(), 3);
    second.send(&get(ID));
    assert_eq!(second.until_closed(), b"");
    proxy.wait_for_log(|line| line.contains("cannot probe"));
    first.send(rest);
    assert_eq!(first.answer_to(false), DONE);
    assert_eq!(third.ask(&get(ID)), item(body));
    limit_open_files(proxy.id(), before);

    let found = admin::wait_for_finding(proxy.admin(), "proxy_shortage");
    assert_eq!(found["level"], "critical");
    let scrape = Scrape::of(proxy.admin());
    let value = |series: &str| scrape.value(&format!("staterouter_{series}"));
    assert_eq!(
        value("failed_requests_total{reason=\"proxy_shortage\"}"),
        1.0
    );
    assert!(value("backend_probes_total{backend=\"state-1\",result=\"proxy_shortage\"}") >= 1.0);
    assert_eq!(value("backend_up{backend=\"state-1\"}"), 1.0);
    assert!(
        scrape
            .non_zero("staterouter_backend_health_changes_total")
            .is_empty()
    );
}

/// Runs in a network of its own with six ports: a proxy with one state server, and a farm whose
/// requests need more while the state server stands still.
const FEW_PORTS: &str = "
set -e
ip link set lo up
echo '41000 41005' > /proc/sys/net/ipv4/ip_local_port_range
trap 'kill -CONT $server; kill $server $proxy $farm; wait' EXIT
$P state-server --workers 1 --listen 127.0.0.1:4001 2>&1 & server=$!
$P serve --config $CONFIG > $LOG 2>&1 & proxy=$!
until grep -q 'admin on' $LOG; do sleep 0.05; done
$P bench --clients 24 --sessions 50 --duration 60s --threads 1 \\
  --target 127.0.0.2:4002 --target 127.0.0.3:4002 --target 127.0.0.4:4002 --target 127.0.0.5:4002 \\
  --target 127.0.0.6:4002 > $LOG.farm 2>&1 & farm=$!
until $P status --json --admin 127.0.0.1:4003 | grep -q '\"sessions\": [1-9]'; do sleep 0.05; done
kill -STOP $server
until grep -q 'cannot probe' $LOG; do sleep 0.05; done
kill -CONT $server
$P status --json --admin 127.0.0.1:4003 > $STATUS || true
# What is logged from here on is the end of it all.
cp $LOG $LOG.seen
";

#[test]
fn a_proxy_without_ports_blames_no_backend() {
    let files = ProxyFiles::new(&["127.0.0.1:4001"], "");
    files.replace(
        "staterouter.yaml",
        &format!(
            "listen: 0.0.0.0:4002\nallow: [127.0.0.0/8]\npartition_map: map.yaml\nworkers: 1\n\
             admin: {{listen: \"127.0.0.1:4003\"}}\n{STRICT}\n"
        ),
    );
    let alone = Command::new("unshare")
        .args(["--net", "ip", "link"])
        .output();
    if !alone.is_ok_and(|alone| alone.status.success()) {
        eprintln!("left out: a network of its own takes root, `unshare --net` and `ip`");
        return;
    }
    let output = Command::new("unshare")
        .args(["--net", "sh", "-c", FEW_PORTS])
        .env("P", env!("CARGO_BIN_EXE_staterouter"))
        .env("CONFIG", files.config())
        .env("LOG", files.path("log"))
        .env("STATUS", files.path("status"))
        .output()
        .unwrap();
    let log = files.read("log");
    assert!(output.status.success(), "{output:?}; the log is {log}");
    let log = files.read("log.seen");
    let status: Value = serde_json::from_str(&files.read("status")).unwrap();
    let status = &status["proxies"][0]["status"];
    assert_eq!(status["backends"][0]["verdict"], "up", "{status:#}");
    let findings = status["findings"].to_string();
    assert!(findings.contains("proxy_shortage"), "{findings}");
    for wrong in ["backend is down", "backend is suspect"] {
        assert!(!log.contains(wrong), "{log}");
    }
}

/// A port stays in use for a minute after an orderly end, and web servers may break off more uploads
/// than there are ports.
#[test]
fn an_upload_that_its_client_breaks_off_leaves_no_port_in_use() {
    let backend = Backend::start();
    let proxy = proxy(&[backend.address], "");
    let mut client = Client::connect(proxy.address);
    let request = put(ID, 0, &vec![7; 1 << 20]);
    client.send(&request[..200_000]);
    let mut connection = backend.accept();
    connection.read(100_000);
    client.close();
    let mut rest = Vec::new();
    let end = connection.stream.read_to_end(&mut rest).unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_write_that_a_full_state_server_refuses_is_a_failure() {
    let memory = ["--max-memory", "1MiB"];
    let server = ["state-server", "--listen", "127.0.0.1:0", "--workers", "1"];
    let server = Program::start(&[&server[..], &memory[..]].concat());
    let proxy = proxy(&[server.address], "");
    let mut client = Client::connect(proxy.address);
    let body = vec![0; 300 << 10];
    let mut refused = 0.0;
    for number in 0..10 {
        let answer = client.ask(&put(&format!("{ID}{number}"), 0, &body));
        refused += f64::from(u8::from(answer == BAD_REQUEST));
    }
    assert!(refused > 0.0);
    // A session that is there is served all the same.
    assert!(client.ask(&acquire(&format!("{ID}0"))).starts_with(b"200"));
    let scrape = Scrape::of(proxy.admin());
    let reason = "staterouter_failed_requests_total{reason=\"refused_by_backend\"}";
    assert_eq!(scrape.value(reason), refused);
    proxy.wait_for_log(|line| line.contains("state-1") && line.contains("status 400"));
    let found = admin::wait_for_finding(proxy.admin(), "backend_refuses");
    assert_eq!(
        (&found["level"], &found["about"]),
        (&"critical".into(), &"state-1".into())
    );
    admin::wait_for_finding(proxy.admin(), "requests_failed");
}
