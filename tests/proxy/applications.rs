//! Web servers that call one application by several ids.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its scene must fail"
)]

use crate::support::client::{self, Client, body, status};
use crate::support::metrics::Scrape;
use crate::support::system::wait_until;
use crate::support::{Program, ProxyFiles, admin, run, sessions, slots};
use serde_json::{Value, json};
use staterouter::config::application_hash;
use staterouter::handover::Stage;

const ID: &str = "q3m1zt0xk4vdw2hn5sbyr0ac";
const APPLICATIONS: &str = "
applications:
  - {name: shop, id: /LM/W3SVC/2/ROOT/Shop, also: [/LM/W3SVC/3/ROOT/Shop], ignore_case: on}
";

/// Writes the applications into the map, as its next version.
fn name(files: &ProxyFiles, version: u32, applications: &str) {
    let map = files.read("map.yaml");
    let (_, backends) = map.split_once("backends:").unwrap();
    let map = format!("version: {version}\n{applications}backends:{backends}");
    files.replace("map.yaml", &map);
}

/// A target as .NET 4 sends it.
fn target(app: &str) -> String {
    let hash = application_hash(app);
    let encoded = |text: &str| {
        let text = text.replace('/', "%2f").replace('+', "%2b");
        text.replace('=', "%3d")
    };
    format!("{}({})%2f{ID}", encoded(app), encoded(&hash))
}

/// The request with another target.
fn to(request: &[u8], target: &str) -> Vec<u8> {
    let request = String::from_utf8(request.to_vec()).unwrap();
    request.replace(&client::target(ID), target).into_bytes()
}

#[test]
fn web_servers_with_different_site_ids_share_their_sessions_once_the_map_says_so() {
    let backend = Program::state_server();
    let files = ProxyFiles::new(&[backend.address], "");
    let proxy = files.start();
    let [first, second] = ["/LM/W3SVC/2/ROOT/Shop", "/LM/W3SVC/3/ROOT/shop"].map(target);
    let mut web_servers = [(); 2].map(|()| Client::connect(proxy.address));
    let mut ask =
        |at: usize, target: &str, request: &[u8]| web_servers[at].ask(&to(request, target));
    assert_eq!(status(&ask(0, &first, &client::put(ID, 0, b"one"))), "200");
    assert_eq!(status(&ask(1, &second, &client::get(ID))), "404");

    name(&files, 2, APPLICATIONS);
    assert_eq!(admin::reload(proxy.admin()).0, 200);
    assert_eq!(body(&ask(1, &second, &client::get(ID))), b"one");
    let locked = ask(1, &second, &client::acquire(ID));
    let text = String::from_utf8_lossy(&locked).into_owned();
    let cookie = text
        .lines()
        .find_map(|line| line.strip_prefix("LockCookie:"));
    let cookie = cookie.unwrap().trim().parse().unwrap();
    let large = vec![b'x'; 200_000];
    assert_eq!(
        status(&ask(1, &second, &client::put(ID, cookie, &large))),
        "200"
    );
    assert_eq!(body(&ask(0, &first, &client::get(ID))), large);
    assert_eq!(
        status(&Client::connect(backend.address).ask(&to(&client::head(ID), &first))),
        "200"
    );
    assert_eq!(
        status(&Client::connect(backend.address).ask(&to(&client::head(ID), &second))),
        "404"
    );

    let renamed = "staterouter_application_renamed_requests_total{application=\"shop\"}";
    assert_eq!(Scrape::of(proxy.admin()).value(renamed), 3.0);
    let puts = "staterouter_application_requests_total{application=\"shop\",operation=\"put\",result=\"ok\"}";
    wait_until("it is counted, behind its answer", || {
        Scrape::of(proxy.admin()).value(puts) == 1.0
    });
}

#[test]
fn the_admin_server_says_under_which_id_a_target_is_sent_on() {
    let files = ProxyFiles::new(&["127.0.0.1:9"], "");
    name(&files, 2, APPLICATIONS);
    let proxy = files.serve();
    let application = |id: &str| {
        let (_, answer) = admin::get(proxy.admin(), &format!("/route?id={id}"));
        let answer: Value = serde_json::from_str(&answer).unwrap();
        answer["application"].clone()
    };
    let known = "/LM/W3SVC/2/ROOT/Shop";
    let renamed_to = format!("{known}({})", application_hash(known));
    assert_eq!(
        application(&target("/LM/W3SVC/3/ROOT/shop")),
        json!({"name": "shop", "sent_on_as": renamed_to})
    );
    assert_eq!(
        application(&target(known)),
        json!({"name": "shop", "sent_on_as": null})
    );
    assert_eq!(application(&target("/LM/W3SVC/2/ROOT")), Value::Null);
    assert_eq!(application(ID), Value::Null);
}

#[test]
fn sessions_and_failed_requests_count_by_application() {
    let backend = Program::state_server();
    let files = ProxyFiles::new(&[backend.address], "handover: {hold: 0s, failover: off}");
    let proxy = files.start();
    name(&files, 2, APPLICATIONS);
    assert_eq!(admin::reload(proxy.admin()).0, 200);
    let mut client = Client::connect(proxy.address);
    let apps = [
        "/LM/W3SVC/2/ROOT/Shop",
        "/LM/W3SVC/3/ROOT/Shop",
        "/LM/W3SVC/2/ROOT",
    ];
    for (id, app) in sessions::ids(5, 6).iter().zip(apps.iter().cycle()) {
        let target = target(app).replace(ID, id);
        let request = String::from_utf8(client::put(id, 0, &[7; 100])).unwrap();
        let request = request.replace(&client::target(id), &target);
        assert_eq!(status(&client.ask(request.as_bytes())), "200");
    }
    let of = |name: &str, labels: &str| {
        Scrape::of(proxy.admin()).value(&format!("staterouter_application_{name}{{{labels}}}"))
    };
    for (application, sessions) in [("shop", 4.0), ("other", 2.0)] {
        let label = format!("application=\"{application}\"");
        wait_until(application, || of("sessions", &label) == sessions);
        assert_eq!(of("session_bytes", &label), 100.0 * sessions);
    }
    let said = &admin::status(proxy.admin())["applications"];
    let expected = json!([
        {"name": "shop", "requests": 4, "requests_failed": 0, "requests_renamed": 2,
         "sessions": 4, "session_bytes": 400},
        {"name": "other", "requests": 2, "requests_failed": 0, "requests_renamed": 0,
         "sessions": 2, "session_bytes": 200},
    ]);
    assert_eq!(*said, expected);
    backend.kill();
    client.send(&to(&client::get(ID), &target(apps[1])));
    assert_eq!(client.until_closed(), b"");
    let failed = "application=\"shop\",operation=\"get\",result=\"failed\"";
    wait_until("it counts as failed", || {
        of("requests_total", failed) == 1.0
    });
}

#[test]
fn two_ids_of_one_application_are_a_finding_whose_entry_cures_it() {
    let backend = Program::state_server();
    let files = ProxyFiles::new(&[backend.address], "");
    let proxy = files.start();
    let apps = ["/LM/W3SVC/2/ROOT/Shop", "/LM/W3SVC/3/ROOT/Shop"];
    let mut web_servers = [2, 3].map(|host| Client::connect_from([127, 0, 0, host], proxy.address));
    let ids = sessions::ids(3, 64);
    let mut use_all = |what: fn(&str) -> Vec<u8>| {
        for (client, app) in web_servers.iter_mut().zip(apps) {
            for id in &ids {
                let target = target(app).replace(ID, id);
                let request = String::from_utf8(what(id)).unwrap();
                client.ask(request.replace(&client::target(id), &target).as_bytes());
            }
        }
    };
    let finding = || {
        let status = admin::status(proxy.admin());
        let findings = status["findings"].as_array().unwrap().clone();
        findings
            .into_iter()
            .find(|one| one["code"] == "application_ids_differ")
    };
    // Each session goes to the other web server once, and stays there.
    use_all(client::head);
    wait_until("the finding is there", || finding().is_some());
    let finding = finding().unwrap();
    for host in ["127.0.0.2", "127.0.0.3"] {
        assert!(
            finding["says"].as_str().unwrap().contains(host),
            "{finding}"
        );
    }
    let action = finding["action"].as_str().unwrap();
    let (_, entry) = action.split_once("applications: ").unwrap();
    let planned = |applications: &str| {
        name(&files, 2, applications);
        let map = files.path("map.yaml");
        run(&["plan", "--admin", &proxy.admin().to_string(), "--map", &map])
    };
    let (code, text, _) = planned("");
    assert!(code == Some(0) && text.contains(entry), "{text}");
    let (code, text, _) = planned(&format!("applications: {entry}\n"));
    assert!(code == Some(0) && !text.contains("by two ids"), "{text}");
    assert_eq!(admin::reload(proxy.admin()).0, 200);
    let mut web_server = Client::connect(proxy.address);
    let [first, second] = apps.map(target);
    assert_eq!(
        status(&web_server.ask(&to(&client::put(ID, 0, b"one"), &first))),
        "200"
    );
    assert_eq!(
        body(&web_server.ask(&to(&client::get(ID), &second))),
        b"one"
    );
}

#[test]
fn every_spelling_of_a_target_reaches_the_item() {
    let backend = Program::state_server();
    let files = ProxyFiles::new(&[backend.address], "");
    let lines = include_str!("../vectors/targets.jsonl").lines();
    let lines = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let text = |vector: &Value, field: &str| vector[field].as_str().unwrap().to_owned();
    let usual = |vector: &Value| {
        let hash_bytes = vector["hash"].as_str().map_or(0, str::len);
        matches!(hash_bytes, 24 | 28 | 44 | 64 | 88) && vector["sid"].as_str() != Some("")
    };
    let vectors: Vec<Value> = lines.filter(usual).collect();
    assert!(vectors.len() > 15);
    let mut ids: Vec<_> = vectors.iter().map(|vector| text(vector, "app")).collect();
    ids.sort_unstable();
    ids.dedup();
    let also: Vec<_> = ids.iter().map(|id| format!("\"{id}\"")).collect();
    let also = also.join(", ");
    name(
        &files,
        2,
        &format!("applications: [{{name: all, id: /LM/new, also: [{also}]}}]\n"),
    );
    let proxy = files.serve();
    let mut farm = Client::connect(proxy.address);
    let mut direct = Client::connect(backend.address);
    let canonical = target("/LM/new");
    let start = canonical.strip_suffix(ID).unwrap();
    for vector in vectors {
        let (raw, sid) = (text(&vector, "raw"), text(&vector, "sid"));
        let stored = farm.ask(&to(&client::put(ID, 0, raw.as_bytes()), &raw));
        assert_eq!(status(&stored), "200", "{raw}");
        let item = format!("{start}{}", percent_encoded(&sid));
        let answer = direct.ask(&to(&client::get(ID), &item));
        assert_eq!(body(&answer), raw.as_bytes(), "{raw}");
    }
}

/// Every byte as an escape: whatever stands in an id.
fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

#[test]
fn a_session_on_the_move_is_found_under_the_id_that_state_servers_know() {
    let [earlier, owner] = [(); 2].map(|()| Program::state_server());
    let files = ProxyFiles::new(&[earlier.address, owner.address], "");
    name(&files, 1, APPLICATIONS);
    slots::put_all(&files, Stage::Move2, 2, 1);
    let proxy = files.serve();
    let [known, other] = ["/LM/W3SVC/2/ROOT/Shop", "/LM/W3SVC/3/ROOT/Shop"].map(target);
    let mut direct = Client::connect(earlier.address);
    assert_eq!(
        status(&direct.ask(&to(&client::put(ID, 0, b"old"), &known))),
        "200"
    );
    let mut web_server = Client::connect(proxy.address);
    let answer = web_server.ask(&to(&client::acquire(ID), &other));
    assert_eq!(body(&answer), b"old");
    let mut moved = Client::connect(owner.address);
    assert_eq!(status(&moved.ask(&to(&client::head(ID), &known))), "200");
}
