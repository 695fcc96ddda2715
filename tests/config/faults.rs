//! Every kind of fault is found, at its place, with what would be right, and nothing else is.

use super::expect::{Expected, assert_faults, main_fault, main_faults, map_faults};
use staterouter::config::{Config, PartitionMap};

/// Faults in the backends below `version: 1` and `backends:`, which are lines 1 and 2.
#[track_caller]
fn backend_faults(below: &str, expected: &[Expected<'_>]) {
    map_faults(&format!("version: 1\nbackends:\n{below}"), expected);
}

#[test]
fn unknown_keys_name_the_nearest_known_one() {
    main_fault(
        "lisetn: 127.0.0.1:1\n",
        (2, 1, "unknown key `lisetn`", "Did you mean `listen`?"),
    );
    main_fault(
        "worker: 2\n",
        (2, 1, "unknown key `worker`", "`workers`, `timeouts`"),
    );
    // Columns count characters, not bytes.
    main_fault(
        "log: {? \"level\" : info, 'ü\u{1f600}': 1}\n",
        (2, 25, "unknown key `ü\u{1f600}`", ""),
    );
    main_fault(
        "log:\n  Level: info\n",
        (3, 3, "unknown key `Level`", "Did you mean `level`?"),
    );
    main_fault(
        "connect: 2s\n",
        (2, 1, "unknown key", "`connect` belongs below `timeouts`"),
    );
    let faults = Config::parse("partition_map: m\nzzz: 1\n", "f").unwrap_err();
    assert_faults(
        &faults,
        &[(2, 1, "unknown key `zzz`", "The keys known here are")],
    );
    assert!(!faults.to_string().contains("Did you mean"));
    backend_faults(
        "  - name: a\n    address: a:1\n    wieght: 5\n",
        &[(5, 5, "unknown key `wieght`", "Did you mean `weight`?")],
    );
}

#[test]
fn keys_that_are_here_twice() {
    main_fault(
        "workers: 1\nlog: {}\nworkers: 2\n",
        (4, 1, "`workers` is here twice", "remove one"),
    );
    main_fault(
        "log: {level: info, level: warn}\n",
        (2, 20, "`level` is here twice", ""),
    );
    main_fault("\"log\": {}\nlog: {}\n", (3, 1, "`log` is here twice", ""));
}

#[test]
fn keys_that_are_missing() {
    main_faults(
        "workers: 1\n",
        &[(1, 1, "`partition_map` is missing", "add `partition_map:`")],
    );
    map_faults(
        "# comment\nhash_key: \"00112233445566778899aabbccddeeff\"\n",
        &[
            (2, 1, "`version` is missing", "a whole number of 1 or more"),
            (2, 1, "`backends` is missing", "add `backends:`"),
        ],
    );
    backend_faults(
        "  - weight: 5\n  - {}\n",
        &[
            (3, 5, "`name` is missing", "1 to 63 letters"),
            (3, 5, "`address` is missing", "10.0.0.11:42424"),
            (4, 5, "`name` is missing", ""),
            (4, 5, "`address` is missing", ""),
        ],
    );
}

#[test]
fn values_of_the_wrong_structure() {
    main_fault(
        "timeouts: 5s\n",
        (
            2,
            11,
            "`timeouts` must be a map, this is `5s`",
            "key: value",
        ),
    );
    main_fault(
        "timeouts:\n",
        (2, 1, "`timeouts` has no keys", "or remove this line"),
    );
    main_fault(
        "workers: [1]\n",
        (2, 10, "`workers`: this is a list", "from 0 to 256"),
    );
    main_fault(
        "workers:\n  a: 1\n",
        (3, 3, "`workers`: this is a map", "whole number"),
    );
    main_fault(
        "workers:\n",
        (2, 1, "`workers` has no value", "whole number"),
    );
    main_fault(
        "allow: 10.0.0.1\n",
        (2, 8, "`allow` must be a list, this is `10.0.0.1`", "`- `"),
    );
    main_fault(
        "allow:\n",
        (2, 1, "`allow` must be a list, this is nothing", ""),
    );
    main_fault(
        "allow:\n  - [10.0.0.1]\n",
        (3, 5, "`allow`: this is a list", "an IP address"),
    );
    map_faults(
        "version: 1\nbackends: {a: 1}\n",
        &[(2, 11, "must be a list, this is a map", "")],
    );
    backend_faults(
        "  - a\n",
        &[(
            3,
            5,
            "an entry of `backends` must be a map, this is `a`",
            "",
        )],
    );
}

#[test]
fn integers() {
    main_fault(
        "workers: 257\n",
        (2, 10, "`257` is out of range", "from 0 to 256"),
    );
    main_fault(
        "workers: -1\n",
        (2, 10, "`-1` is out of range", "from 0 to 256"),
    );
    main_fault("workers: 1.0\n", (2, 10, "`1.0` is not a whole number", ""));
    main_fault("workers: 0x1FF\n", (2, 10, "`511` is out of range", ""));
    main_fault("workers: .inf\n", (2, 10, "`inf` is not a whole", ""));
    main_fault(
        "workers: true\n",
        (2, 10, "`true` is not a whole number", ""),
    );
    main_fault("workers: 010\n", (2, 10, "octal", "without leading zeros"));
    main_fault(
        "workers: \"4\"\n",
        (2, 10, "text because of its quotes", "without quotes"),
    );
    main_fault(
        "limits:\n  client_connections: 0\n",
        (3, 23, "`0` is out of range", "from 1 to"),
    );
    map_faults(
        "version: 0\nbackends: [{name: a, address: a:1}]\n",
        &[(1, 10, "`0` is out of range", "of 1 or more")],
    );
    map_faults(
        "version: 18446744073709551616\nbackends: [{name: a, address: a:1}]\n",
        &[(1, 10, "is out of range", "of 1 or more")],
    );
}

#[test]
fn durations_and_sizes() {
    let timeout = |value: &str| format!("timeouts:\n  answer: {value}\n");
    main_fault(
        &timeout("2"),
        (3, 11, "`2` has no unit", "`2ms`, `2s`, `2m`, `2h`"),
    );
    main_fault(
        &timeout("2 s"),
        (3, 11, "`2 s` is not a duration", "from 100ms to 1h"),
    );
    main_fault(
        &timeout("1.5s"),
        (3, 11, "`1.5s` is not a duration", "(ms, s, m, h)"),
    );
    main_fault(
        &timeout("99ms"),
        (3, 11, "`99ms` is out of range", "from 100ms to 1h"),
    );
    main_fault(&timeout("61m"), (3, 11, "`61m` is out of range", ""));
    let body = |value: &str| format!("limits:\n  body: {value}\n");
    main_fault(
        &body("65536"),
        (3, 9, "`65536` has no unit", "`65536B`, `65536KiB`"),
    );
    main_fault(
        &body("64MB"),
        (3, 9, "`64MB` is not a size", "(B, KiB, MiB, GiB)"),
    );
    main_fault(
        &body("2GiB"),
        (3, 9, "`2GiB` is out of range", "from 1KiB to 2047MiB"),
    );
    main_fault(&body("99999999999GiB"), (3, 9, "out of range", ""));
    main_fault(
        "limits:\n  head: 65KiB\n",
        (3, 9, "`65KiB` is out of range", "1KiB to 64KiB"),
    );
}

#[test]
fn quantities_at_the_ends_of_their_ranges_are_accepted() {
    for (below, is_good) in [
        ("timeouts: {connect: 100ms, answer: 100ms}", true),
        ("timeouts: {shutdown: 60m}", true),
        ("timeouts: {shutdown: 3600001ms}", false),
        ("limits: {body: 2047MiB, head: 1KiB}", true),
        ("limits: {body: 2146435073B}", false),
        ("limits: {head: 1023B}", false),
        (
            "limits: {client_connections: 1000000, idle_backend_connections: 65536}",
            true,
        ),
        ("limits: {idle_backend_connections: 65537}", false),
        ("workers: 256", true),
    ] {
        let parsed = Config::parse(format!("partition_map: m\n{below}\n"), "f");
        assert_eq!(parsed.is_ok(), is_good, "{below}");
    }
}

#[test]
fn a_capacity_is_a_number_of_sessions_a_size_or_both() {
    for (capacity, is_good) in [
        ("{}", true),
        ("{sessions: 1}", true),
        ("{memory: 2GiB}", true),
        ("{sessions: 1000000000, memory: 16384GiB}", true),
        ("{sessions: 1000000001}", false),
        ("{memory: 1048575B}", false),
    ] {
        let map =
            format!("version: 1\nbackends:\n  - {{name: a, address: a:1, capacity: {capacity}}}\n");
        assert_eq!(PartitionMap::parse(map, "f").is_ok(), is_good, "{capacity}");
    }
    backend_faults(
        "  - {name: a, address: a:1, capacity: {sessions: 0, memory: 2}}\n",
        &[
            (3, 50, "`0` is out of range", "from 1 to 1000000000"),
            (3, 61, "`2` has no unit", "`2GiB`"),
        ],
    );
    backend_faults(
        "  - {name: a, address: a:1, capacity: 5}\n",
        &[(3, 39, "`capacity` must be a map", "`key: value`")],
    );
    backend_faults(
        "  - {name: a, address: a:1, capacity: {bytes: 5}}\n",
        &[(3, 40, "unknown key `bytes`", "`sessions`, `memory`")],
    );
}

#[test]
fn connecting_must_fit_into_the_answer() {
    main_fault(
        "timeouts:\n  connect: 5s\n  answer: 4000ms\n",
        (
            3,
            12,
            "`connect` (5s) is longer than `answer` (4s)",
            "includes connecting",
        ),
    );
    main_fault(
        "timeouts:\n  answer: 1s\n",
        (
            3,
            11,
            "`connect` (2s, the default) is longer than `answer` (1s)",
            "",
        ),
    );
    // A faulty value is blamed for itself only, not compared.
    main_fault(
        "timeouts:\n  answer: 1s\n  connect: x\n",
        (4, 12, "is not a duration", ""),
    );
}

#[test]
fn words() {
    main_fault(
        "log:\n  level: loud\n",
        (
            3,
            10,
            "`loud` is not known here",
            "write one of `error`, `warn`, `info`, `debug`, `trace`",
        ),
    );
    main_fault(
        "log: {format: JSON}\n",
        (2, 15, "`JSON` is not", "`text`, `json`"),
    );
    backend_faults(
        "  - {name: a, address: a:1, state: down}\n",
        &[(3, 36, "`down` is not", "`active`, `drain`, `off`")],
    );
}

#[test]
fn text_that_yaml_takes_for_something_else() {
    main_faults(
        "partition_map: 12\n",
        &[(1, 16, "takes `12` for a number", "in quotes")],
    );
    backend_faults(
        "  - {name: true, address: a:1}\n",
        &[(3, 12, "takes `true` for a truth value", "in quotes")],
    );
    assert!(Config::parse("partition_map: \"12\"\n", "f").is_ok());
}

#[test]
fn who_may_connect() {
    main_fault(
        "listen: localhost:1\n",
        (2, 9, "not an IP address and a port", "127.0.0.1:42424"),
    );
    main_fault(
        "listen: 127.0.0.1\n",
        (2, 9, "not an IP address and a port", ""),
    );
    for listen in [
        "0.0.0.0:42424",
        "10.0.0.5:1",
        "\"[::]:42424\"",
        "\"[::ffff:10.0.0.5]:1\"",
    ] {
        let expected = (2, 9, "`allow` is empty", "can run code on the web servers");
        main_fault(&format!("listen: {listen}\n"), expected);
        main_fault(&format!("listen: {listen}\nallow: []\n"), expected);
        let text = format!("partition_map: m\nlisten: {listen}\nallow: [10.0.0.0/8]\n");
        assert!(Config::parse(text, "f").is_ok());
    }
    main_fault(
        "allow: [10.0.0.1/8]\n",
        (2, 9, "bits set beyond its prefix", "`10.0.0.0/8`"),
    );
    main_fault(
        "allow:\n  - web-1\n",
        (3, 5, "`web-1` is not an IP address or network", ""),
    );
    // A faulty list is not taken for an empty one.
    main_fault("listen: 0.0.0.0:1\nallow: [web-1]\n", (3, 9, "`web-1`", ""));
    let many = "  - 10.0.0.1\n".repeat(1025);
    main_fault(
        &format!("allow:\n{many}"),
        (2, 1, "`allow` has 1025 entries", "from 0 to 1024"),
    );
}

#[test]
fn backend_names_and_addresses() {
    let named = |name: &str| format!("  - name: {name}\n    address: a:1\n");
    for name in ["a b", "ä", "\"\"", "a/b", &"x".repeat(64)] {
        backend_faults(
            &named(name),
            &[(3, 11, "cannot be a name", "1 to 63 letters")],
        );
    }
    assert!(
        PartitionMap::parse(
            format!("version: 1\nbackends:\n{}", named(&"x".repeat(63))),
            "f"
        )
        .is_ok()
    );
    let at = |address: &str| format!("  - name: a\n    address: {address}\n");
    backend_faults(
        &at("10.0.0.11"),
        &[(4, 14, "it has no port", "10.0.0.11:42424")],
    );
    backend_faults(
        &at("10.0.0.300:1"),
        &[(4, 14, "neither an IPv4 address nor", "")],
    );
    backend_faults(
        &at("fd00::1:1"),
        &[(4, 14, "needs brackets", "\"[fd00::11]:42424\"")],
    );
    backend_faults(&at("a:65536"), &[(4, 14, "from 1 to 65535", "")]);
}

#[test]
fn backends_that_are_not_distinct() {
    backend_faults(
        "  - {name: a, address: a:1}\n  - {name: a, address: b:1}\n",
        &[(4, 12, "the backend name `a` is taken", "a name of its own")],
    );
    backend_faults(
        "  - {name: a, id: 1, address: State-A:1}\n  - {name: b, id: 2, address: tcpip=state-a.:1}\n",
        &[(4, 31, "two backends have the address `state-a:1`", "weight")],
    );
    backend_faults(
        "  - {name: a, id: 1, address: \"[::ffff:10.0.0.1]:1\"}\n  - {name: b, id: 2, address: 10.0.0.1:1}\n",
        &[(4, 31, "two backends have the address `10.0.0.1:1`", "")],
    );
}

#[test]
fn backend_ids() {
    backend_faults(
        "  - {name: a, id: 128, address: a:1}\n  - {name: b, id: 0, address: b:1}\n",
        &[
            (3, 19, "out of range", "from 1 to 127"),
            (4, 19, "out of range", "from 1 to 127"),
        ],
    );
    backend_faults(
        "  - {name: a, id: 1, address: a:1}\n  - {name: b, id: 1, address: b:1}\n",
        &[(
            4,
            19,
            "the id 1: `a` (written) and `b` (written)",
            "`id: 2`",
        )],
    );
    // Both derive 44.
    backend_faults(
        "  - {name: node-0, address: a:1}\n  - {name: node-16, address: b:1}\n",
        &[(
            4,
            12,
            "the id 44: `node-0` (derived from the name) and `node-16` (derived",
            "write `id:` explicitly, for instance `id: 1`",
        )],
    );
    backend_faults(
        "  - {name: node-0, address: a:1}\n  - {name: b, id: 44, address: b:1}\n",
        &[(
            4,
            19,
            "the id 44: `node-0` (derived from the name) and `b` (written)",
            "",
        )],
    );
    let map = "version: 7\nbackends:\n  - {name: node-0, address: a:1}\n  - {name: b, id: 45, address: b:1}\n";
    let map = PartitionMap::parse(map, "f").unwrap();
    let ids: Vec<(u8, bool)> = map
        .backends
        .iter()
        .map(|b| (b.id, b.id_is_derived))
        .collect();
    assert_eq!(ids, [(44, true), (45, false)]);
}

#[test]
fn the_number_of_backends() {
    let map = |count: usize| {
        let backends = (1..=count)
            .map(|id| format!("  - {{name: b{id}, id: {id}, address: b{id}:1}}\n"))
            .collect::<String>();
        PartitionMap::parse(format!("version: 1\nbackends:\n{backends}"), "f")
    };
    assert_eq!(map(127).unwrap().backends.len(), 127);
    let problem = (2, 1, "`backends` has 128 entries", "from 1 to 127");
    assert_faults(&map(128).unwrap_err(), &[problem]);
    map_faults(
        "version: 1\nbackends: []\n",
        &[(2, 1, "`backends` has 0 entries", "from 1")],
    );
}

#[test]
fn a_pool_needs_an_active_backend() {
    let pool =
        "  - {name: a, address: a:1, state: off}\n  - {name: b, address: b:1, state: drain}\n";
    backend_faults(
        pool,
        &[(3, 3, "the pool would be empty", "`state: active`")],
    );
    // Whether the pool is empty is not known while a state is faulty.
    backend_faults(
        "  - {name: a, address: a:1, state: off}\n  - {name: b, address: b:1, state: x}\n",
        &[(4, 36, "`x` is not", "")],
    );
}
