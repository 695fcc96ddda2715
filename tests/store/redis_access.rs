//! Who may use an engine: certificates and users.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use staterouter::config::{RedisIdentity, RedisSpec, RedisUrl};
use staterouter::store::{Body, Now, SessionCommand, SessionStore, StoreDanger, StoreOutcome};

use crate::on_redis::OnRedis;
use crate::redis::{RedisServer, has_redis};
use crate::stores::Ask;

const KEY: &[u8] = b"/LM/W3SVC/7/ROOT(hash=)/q3m1zt0xk4vdw2hn5sbyr0ac";
const NOW: Now = Now {
    unix_ms: 1_000_000,
    local_ticks: 638_000_000_000_000_000,
};
const PATIENT: Duration = Duration::from_secs(20);

/// Every operation once.
fn use_once(store: &OnRedis) {
    let put = |cookie: &[u8]| {
        let body = Body::from(b"x".as_slice());
        SessionCommand::put(None, None, Some(cookie), body).unwrap()
    };
    for command in [
        put(b"0"),
        SessionCommand::Get,
        SessionCommand::Acquire,
        SessionCommand::release(Some(b"2")),
        SessionCommand::Acquire,
        put(b"3"),
        SessionCommand::Touch,
        SessionCommand::remove(Some(b"3")),
    ] {
        let shown = format!("{command:?}");
        let outcome = store.ask(KEY, command, NOW);
        let is_done = matches!(
            outcome,
            StoreOutcome::Done { .. } | StoreOutcome::Found { .. }
        );
        assert!(is_done, "{shown}: {outcome:?}");
    }
}

fn openssl(folder: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    let output = command
        .current_dir(folder)
        .args(arguments.split(' '))
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {error}");
}

/// An authority, a certificate of 127.0.0.1 and one of a proxy.
fn certificates() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(
        path,
        &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority"),
    );
    for (name, extension) in [
        ("server", "subjectAltName=IP:127.0.0.1"),
        ("proxy", "extendedKeyUsage=clientAuth"),
    ] {
        std::fs::write(path.join("extension"), extension).unwrap();
        openssl(
            path,
            &format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"),
        );
        openssl(
            path,
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
                 -extfile extension -out {name}.pem"
            ),
        );
    }
    folder
}

#[test]
fn tls_asks_both_sides_who_they_are() {
    if !has_redis() {
        return;
    }
    let folder = certificates();
    let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (cert, key, ca) = (file("server.pem"), file("server.key"), file("ca.pem"));
    let server = Rc::new(RedisServer::start_as(|port| {
        let port = port.to_string();
        let words = [
            "--port",
            "0",
            "--tls-port",
            &port,
            "--tls-auth-clients",
            "yes",
            "--tls-cert-file",
            &cert,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &ca,
        ];
        words.map(str::to_owned).to_vec()
    }));
    let url = |host: &str| RedisUrl::parse(&format!("rediss://{host}:{}", server.port)).unwrap();
    let mut spec = RedisSpec::new(url("127.0.0.1"));
    let store = |spec: &RedisSpec| {
        OnRedis::without_own(Rc::clone(&server), spec.clone(), Duration::from_secs(2))
    };
    let ready = |spec: &RedisSpec| {
        let store = store(spec);
        store.wait(store.store.ready())
    };
    // Nobody here trusts that authority.
    let error = ready(&spec).unwrap_err();
    assert!(error.contains("ertificate"), "{error}");
    spec.tls.ca = Some(ca.into());
    assert!(ready(&spec).is_err(), "no certificate was shown");
    spec.tls.identity = Some(RedisIdentity {
        cert: file("proxy.pem").into(),
        key: file("proxy.key").into(),
    });
    assert_eq!(ready(&spec), Ok(()));
    use_once(&store(&spec));
    // The right server under a name that is not its own.
    spec.urls = vec![url("localhost")];
    let error = ready(&spec).unwrap_err();
    assert!(
        error.contains("localhost") && error.contains("ertificate"),
        "{error}"
    );
}

/// The user is made as docs/redis.md says.
#[test]
fn the_user_of_the_docs_may_do_all_that_is_needed() {
    if !has_redis() {
        return;
    }
    let docs = include_str!("../../docs/redis.md");
    let line = docs.lines().find(|line| line.starts_with("ACL SETUSER"));
    let line = line.unwrap().replace(">PASSWORD", ">secret");
    let words: Vec<&str> = line.split(' ').collect();
    let server = Rc::new(RedisServer::start(&[]));
    let mut client = server.connect();
    client.expect(&words);
    let (_folder, mut spec) = as_user(&server, "staterouter");
    let store = OnRedis::over(Rc::clone(&server), spec.clone(), PATIENT);
    use_once(&store);
    let found = store.wait(store.store.survey());
    assert_eq!(found.dangers, [], "what may not be asked is no danger");
    assert!(found.memory.is_some());
    let mut other = spec.clone();
    other.urls = vec![RedisUrl::parse(&(server.url() + "/1")).unwrap()];
    let store = OnRedis::over(Rc::clone(&server), other.clone(), PATIENT);
    assert!(store.wait(store.store.ready()).is_err());
    assert!(docs.contains("takes `+select` as well"));
    client.expect(&["ACL", "SETUSER", "staterouter", "+select"]);
    let store = OnRedis::over(Rc::clone(&server), other, PATIENT);
    assert_eq!(store.wait(store.store.ready()), Ok(()));
    // Its keys are those of its prefix.
    spec.prefix = "another:".to_owned();
    let store = OnRedis::over(server, spec, PATIENT);
    let error = store.wait(store.store.ready()).unwrap_err();
    assert!(error.contains("NOPERM"), "{error}");
}

/// A user of this server with all rights but `without`, and how to be it.
fn user_without(server: &RedisServer, without: &str) -> (tempfile::TempDir, RedisSpec) {
    let user = ["ACL", "SETUSER", "web", "on", ">secret", "~*", "+@all"];
    server.connect().expect(&[&user[..], &[without]].concat());
    as_user(server, "web")
}

/// Whoever has `name` and the password `secret`, which lies in the folder.
fn as_user(server: &RedisServer, name: &str) -> (tempfile::TempDir, RedisSpec) {
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("password");
    std::fs::write(&password_file, "secret").unwrap();
    let mut spec = RedisSpec::new(RedisUrl::parse(&server.url()).unwrap());
    spec.user = Some(name.to_owned());
    spec.password_file = Some(password_file);
    (folder, spec)
}

/// A user who may not wait for replicas would be refused every change, and the engine would look well.
#[test]
fn a_right_that_is_missing_is_named_before_the_engine_is_used() {
    if !has_redis() {
        return;
    }
    for (command, wait_replicas, is_needed) in
        [("wait", 1, true), ("wait", 0, false), ("ping", 0, true)]
    {
        let server = Rc::new(RedisServer::start(&[]));
        let (_folder, mut spec) = user_without(&server, &format!("-{command}"));
        spec.wait_replicas = wait_replicas;
        let store = OnRedis::over(server, spec, PATIENT);
        let ready = store.wait(store.store.ready());
        match ready {
            Ok(()) => assert!(!is_needed, "{command}"),
            Err(error) => {
                assert!(is_needed, "{command}: {error}");
                assert!(error.contains(&format!("'{command}' command")), "{error}");
            }
        }
    }
}

/// Each server of a Cluster has users of its own, and rights are taken away while others are served.
#[test]
fn a_right_that_is_taken_away_is_named_while_the_engine_is_used() {
    if !has_redis() {
        return;
    }
    let server = Rc::new(RedisServer::start(&[]));
    let (_folder, mut spec) = user_without(&server, "-flushall");
    spec.wait_replicas = 1;
    let store = OnRedis::over(Rc::clone(&server), spec, PATIENT);
    assert_eq!(store.wait(store.store.ready()), Ok(()));
    let is_unusable = || {
        let dangers = store.wait(store.store.survey()).dangers;
        let mut reasons = dangers.iter().filter_map(|danger| match danger {
            StoreDanger::Unusable { reason } => Some(reason),
            _ => None,
        });
        reasons.any(|reason| reason.contains("'wait' command"))
    };
    assert!(!is_unusable());
    let mut client = server.connect();
    client.expect(&["ACL", "SETUSER", "web", "-wait"]);
    assert!(is_unusable());
}
