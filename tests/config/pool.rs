//! The keys of the pool: the admin address, the peers, health, handover; and what of them is held
//! against other keys.

use std::time::Duration;

use super::expect::{main_fault, main_faults, map_faults};
use staterouter::config::{AdminConfig, Config, HealthConfig, PartitionMap};

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
#[track_caller]
fn parse(below: &str) -> Config {
    Config::parse(format!("partition_map: m\n{below}"), "f").unwrap()
}

#[test]
fn every_key_of_the_pool_is_read() {
    let config = parse(
        "admin: {listen: \"[::1]:8080\", token_file: token, hosts: [Proxy-A.example.]}
peers: [Proxy-B.example:42480, \"[fd00::6]:1\"]
health: {interval: 500ms, timeout: 2s, fall: 5, rise: 4, flap_window: 1m, max_rise: 4}
handover:
  settle: 40s
  session_timeout: 30m
  max_session_timeout: 8760h
  takeover: 5m
  failover: off
  failover_after: 11s
  hold: 7s
  max_moved_share: 100
  state_file: /var/lib/staterouter/state
",
    );
    let listen = "[::1]:8080".parse().ok();
    let token_file = Some("token".into());
    assert_eq!(
        config.admin,
        AdminConfig {
            listen,
            tls: None,
            token_file,
            token: None,
            hosts: vec!["proxy-a.example".to_owned()],
        }
    );
    let peers: Vec<String> = config.peers.iter().map(ToString::to_string).collect();
    assert_eq!(peers, ["proxy-b.example:42480", "[fd00::6]:1"]);
    let health = HealthConfig {
        interval: Duration::from_millis(500),
        timeout: Duration::from_secs(2),
        fall: 5,
        rise: 4,
        flap_window: Duration::from_secs(60),
        max_rise: 4,
    };
    assert_eq!(config.health, health);
    let handover = config.handover;
    let seconds = [
        handover.settle,
        handover.session_timeout,
        handover.max_session_timeout,
        handover.takeover,
        handover.failover_after,
        handover.hold,
    ]
    .map(|time| time.as_secs());
    assert_eq!(seconds, [40, 1800, 365 * 24 * 3600, 300, 11, 7]);
    assert!(!handover.failover);
    assert_eq!(handover.max_moved_percent, 100);
    assert_eq!(
        handover.state_file.to_str(),
        Some("/var/lib/staterouter/state")
    );
}

#[test]
fn the_state_file_lies_beside_the_main_file_unless_its_path_is_absolute() {
    let text = "partition_map: m\nhandover: {state_file: sub/s.json}\n";
    let config = Config::parse(text, "/etc/sr/main.yaml").unwrap();
    assert_eq!(
        config.handover.state_file.to_str(),
        Some("/etc/sr/sub/s.json")
    );
}

#[test]
fn the_admin_server_can_be_off() {
    for off in ["off", "\"off\""] {
        assert_eq!(
            parse(&format!("admin: {{listen: {off}}}\n")).admin.listen,
            None
        );
    }
    main_fault(
        "admin: {listen: on}\n",
        (2, 17, "`on` is not an IP address and a port", "or `off`"),
    );
    main_fault(
        "admin: {listen: admin.example:80}\n",
        (2, 17, "not an IP address and a port", "127.0.0.1:42480"),
    );
}

#[test]
fn the_admin_server_has_an_address_of_its_own() {
    main_fault(
        "listen: 127.0.0.1:42480\n",
        (
            2,
            9,
            "`listen` and `admin.listen` are both 127.0.0.1:42480",
            "a port of its own",
        ),
    );
    main_fault(
        "listen: 127.0.0.1:1\nadmin: {listen: 127.0.0.1:1}\n",
        (3, 17, "are both 127.0.0.1:1", ""),
    );
    parse("listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\n");
}

#[test]
fn peers_are_addresses_and_each_is_there_once() {
    for (peer, problem) in [
        ("10.0.0.6", "it has no port"),
        ("tcpip=10.0.0.6:42480", "its host is neither"),
        ("\"[fd00::6:1\"", "not an IPv6 address"),
        ("0.0.0.0:42480", "no server can be reached"),
    ] {
        main_fault(
            &format!("peers:\n  - {peer}\n"),
            (3, 5, problem, "such as `10.0.0.6:42480`"),
        );
    }
    main_fault(
        "peers: [\"[::ffff:10.0.0.6]:1\", 10.0.0.7:1, 10.0.0.6:1]\n",
        (2, 8, "`peers` lists `10.0.0.6:1` twice", "once"),
    );
    let peers = |count| -> String { (1..=count).map(|n| format!("  - p{n}:1\n")).collect() };
    assert_eq!(parse(&format!("peers:\n{}", peers(32))).peers.len(), 32);
    main_fault(
        &format!("peers:\n{}", peers(33)),
        (2, 1, "`peers` has 33 entries", "from 0 to 32"),
    );
}

#[test]
fn peers_need_an_admin_server() {
    main_fault(
        "admin: {listen: off}\npeers: [10.0.0.6:1]\n",
        (
            3,
            8,
            "`admin.listen` is off",
            "an address that they can reach",
        ),
    );
    parse("admin: {listen: off}\npeers: []\n");
}

#[test]
fn counts_and_shares_have_ranges() {
    for (key, bad, range) in [
        ("health:\n  fall", "0", "from 1 to 100"),
        ("health:\n  rise", "101", "from 1 to 100"),
        ("health:\n  max_rise", "1001", "from 1 to 1000"),
        ("handover:\n  max_moved_share", "0", "from 1 to 100"),
        ("handover:\n  max_moved_share", "101", "from 1 to 100"),
        (
            "handover:\n  session_timeout",
            "8761h",
            "from 100ms to 8760h",
        ),
        ("handover:\n  takeover", "25h", "from 100ms to 24h"),
    ] {
        let column = key.lines().last().unwrap().len() + 3;
        let problem = format!("`{bad}` is out of range");
        main_fault(&format!("{key}: {bad}\n"), (3, column, &problem, range));
    }
    main_fault(
        "handover:\n  failover: yes\n",
        (3, 13, "`yes` is not known here", "`on`, `off`"),
    );
    main_fault(
        "accounting: true\n",
        (2, 13, "`true` is not known here", "`on`, `off`"),
    );
}

#[test]
fn rise_can_only_grow() {
    main_fault(
        "health: {rise: 4, max_rise: 3}\n",
        (
            2,
            16,
            "`rise` (4) is larger than `max_rise` (3)",
            "at least as large",
        ),
    );
    main_fault(
        "health: {rise: 17}\n",
        (
            2,
            16,
            "`rise` (17) is larger than `max_rise` (16, the default)",
            "",
        ),
    );
    main_fault(
        "health: {max_rise: 1}\n",
        (
            2,
            20,
            "`rise` (2, the default) is larger than `max_rise` (1)",
            "",
        ),
    );
}

#[test]
fn proxies_may_differ_for_as_long_as_an_operation_lasts() {
    main_fault(
        "handover:\n  settle: 9s\n",
        (
            3,
            11,
            "`timeouts.connect` plus `timeouts.answer` (10s, the default) is longer than \
             `handover.settle` (9s)",
            "make `handover.settle` at least as long",
        ),
    );
    // Also when the handover is left to its defaults.
    main_faults(
        "partition_map: m\ntimeouts:\n  answer: 29s\n",
        &[(
            3,
            11,
            "(31s) is longer than `handover.settle` (30s, the default)",
            "",
        )],
    );
    parse(
        "timeouts: {connect: 1s, answer: 2s}\nhandover: {settle: 3s, failover_after: 100ms, hold: 0s}\n",
    );
    // A faulty value is blamed for itself only.
    main_fault(
        "timeouts: {answer: 1h}\nhandover: {settle: 1, failover_after: 2h}\n",
        (3, 20, "`1` has no unit", ""),
    );
}

#[test]
fn proxies_that_ask_each_other_may_also_differ_for_as_long_as_an_answer_counts() {
    main_fault(
        "peers: [10.0.0.6:1]\ntimeouts: {connect: 1s, answer: 2s}\nhandover:\n  settle: 5999ms\n",
        (
            3,
            33,
            "`timeouts.connect` plus `timeouts.answer` plus 3s for `peers` (6s) is longer than \
             `handover.settle` (5999ms)",
            "and 3s longer",
        ),
    );
    parse(
        "peers: [10.0.0.6:1]\ntimeouts: {connect: 1s, answer: 2s}\n\
         handover: {settle: 6s, failover_after: 3s}\n",
    );
    // Also when the handover is left to its defaults.
    let text = "peers: [10.0.0.6:1]\ntimeouts: {connect: 2s, answer: 26s}\n\
                handover: {failover_after: 28s}\n";
    main_fault(
        text,
        (3, 33, "(31s) is longer than `handover.settle` (30s", ""),
    );
    parse(text.strip_prefix("peers: [10.0.0.6:1]\n").unwrap());
}

/// Both lines are shown: either may be the wrong one.
#[test]
fn values_that_contradict_each_other_are_shown_together() {
    let text = "partition_map: m\nhandover:\n  settle: 5s\ntimeouts:\n  answer: 6s\n";
    let shown = Config::parse(text, "f").unwrap_err().to_string();
    let lines = "3 |   settle: 5s\n  |           --\n...\n5 |   answer: 6s\n  |           ^^\n";
    assert!(shown.contains(lines), "{shown}");
}

#[test]
fn the_longest_session_timeout_is_not_below_the_shortest() {
    main_fault(
        "handover:\n  session_timeout: 25h\n",
        (
            3,
            20,
            "`session_timeout` (25h) is longer than `max_session_timeout` (24h",
            "",
        ),
    );
    parse("handover: {session_timeout: 100ms, max_session_timeout: 100ms}\n");
}

#[test]
fn a_map_may_say_how_much_it_moves() {
    let map = |share: &str| {
        let text = format!("version: 1\n{share}backends: [{{name: a, address: a:1}}]\n");
        PartitionMap::parse(text, "f").map(|map| map.accept_moved_percent)
    };
    assert_eq!(map(""), Ok(None));
    assert_eq!(map("accept_moved_share: 100\n"), Ok(Some(100)));
    for share in ["0", "101"] {
        map_faults(
            &format!(
                "version: 1\naccept_moved_share: {share}\nbackends: [{{name: a, address: a:1}}]\n"
            ),
            &[(2, 21, "is out of range", "from 1 to 100")],
        );
    }
}

#[test]
fn an_application_has_a_name_and_ids_of_its_own() {
    let map = |applications: &str| {
        format!("version: 1\nbackends: [{{name: a, address: a:1}}]\napplications:\n{applications}")
    };
    let text = map("  - {name: shop, id: /LM/W3SVC/2/ROOT/Shop, also: [/a], ignore_case: on}\n");
    let read = PartitionMap::parse(text, "f").unwrap().applications;
    let [shop] = read.as_slice() else {
        panic!("{read:?}")
    };
    assert!(shop.application.has_id(b"/lm/w3svc/2/root/SHOP") && shop.application.has_id(b"/A"));
    assert_eq!(
        shop.hash,
        staterouter::config::application_hash("/LM/W3SVC/2/ROOT/Shop")
    );
    map_faults(
        &map("  - {name: a, id: /x}\n  - {name: a, id: /y}\n"),
        &[(5, 12, "the application name `a` is taken", "its own")],
    );
    map_faults(
        &map("  - {name: a, id: /x, also: [/LM/Y]}\n  - {name: b, id: /lm/y, ignore_case: on}\n"),
        &[(
            5,
            19,
            "two applications have the id `/LM/Y`",
            "write each id once",
        )],
    );
    map_faults(
        &map("  - {name: a, id: /x, hash: abc}\n"),
        &[(4, 29, "`abc` is no such hash", "")],
    );
    let long = "%".repeat(190);
    map_faults(
        &map(&format!("  - {{name: a, id: \"{long}\"}}\n")),
        &[(4, 19, "would be longer than 480 bytes", "shorter")],
    );
}

/// A copy that was cut off anywhere behind its first lines.
#[test]
fn a_map_that_says_where_it_ends_is_not_taken_half() {
    let whole = "version: 2\ncheck_end: on\nbackends:\n  - {name: a, address: 10.0.0.1:42424}\n  \
                 - {name: b, address: 10.0.0.2:42424}\nend: on\n";
    assert!(PartitionMap::parse(whole, "map.yaml").is_ok());
    let without_end = whole.strip_suffix("end: on\n").unwrap();
    let first_backend = whole.find("  - {name: b").unwrap();
    for half in [without_end, &whole[..first_backend]] {
        map_faults(half, &[(2, 1, "no `end: on`", "write the whole file")]);
        let unchecked = half.replace("check_end: on\n", "");
        assert!(PartitionMap::parse(&unchecked, "map.yaml").is_ok());
    }
}

#[test]
fn every_fault_below_redis_is_reported_once() {
    const ONE: &str = "urls: [\"redis://h:1\"]";
    const ENCRYPTED: &str = "urls: [\"rediss://h:1\"]";
    for (urls, more, expected) in [
        (
            "prefix: p",
            "sentinel: s",
            (4, 5, "`redis` has no `urls`", "write `urls: "),
        ),
        (
            "urls: [\"redis://h:1\", \"rediss://h:1\"]",
            "prefix: p",
            (5, 13, "differ in their scheme", "the same database"),
        ),
        (
            ONE,
            "tls: {ca: /ca.pem}",
            (6, 7, "is of no use with `redis://`", "or remove `tls`"),
        ),
        (
            ONE,
            "user: proxy",
            (5, 13, "no `password_file`", "or remove `user`"),
        ),
        (
            ENCRYPTED,
            "tls: {cert: /a.pem}",
            (6, 19, "`cert` has no key", "add `key:`"),
        ),
        (
            ENCRYPTED,
            "tls: {cert: /a.pem, key: a.key}",
            (6, 32, "is not an absolute path", "absolute path"),
        ),
    ] {
        let map =
            format!("version: 1\nbackends:\n  - name: a\n    redis:\n      {urls}\n      {more}\n");
        map_faults(&map, &[expected]);
    }
}
