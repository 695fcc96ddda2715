//! What is accepted in the files and hardly meant.

use staterouter::config::{self, Fault};

const MAP: &str = "version: 1\nbackends: [{name: a, id: 1, address: '10.0.0.1:1'}]\n";

/// The warnings of both files, a line each without the directory.
#[expect(clippy::unwrap_used, reason = "a helper of tests")]
#[track_caller]
fn warnings(main: &str, map: &str) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("main.yaml");
    std::fs::write(&path, format!("partition_map: map.yaml\n{main}")).unwrap();
    std::fs::write(directory.path().join("map.yaml"), map).unwrap();
    let prefix = format!("{}/", directory.path().display());
    let warnings = config::load(&path).unwrap().warnings;
    let line = |warning: &Fault| warning.in_one_line().replace(&prefix, "");
    warnings.iter().map(line).collect()
}

#[track_caller]
fn assert_warning(main: &str, map: &str, start: &str, remedy: &str) {
    let found = warnings(main, map);
    let is_it = |line: &String| line.starts_with(start) && line.contains(remedy);
    assert!(found.len() == 1 && is_it(&found[0]), "{found:#?}");
}

#[test]
fn a_key_that_everybody_knows_is_warned_of_where_others_reach_the_proxy() {
    let open = "listen: 0.0.0.0:42424\nallow: [10.0.0.7]\n";
    let example = format!("hash_key: \"00112233445566778899aabbccddeeff\"\n{MAP}");
    let default = format!("hash_key: \"7374617465726f757465722f6b657931\"\n{MAP}");
    let own = format!("hash_key: \"3f1d0c7a52c94be2a0c1b7f2f6b1c9d4\"\n{MAP}");
    let remedy = "openssl rand -hex 16";
    let start = "map.yaml:1:1: `hash_key` is the example of the docs";
    assert_warning(open, &example, start, remedy);
    let start = "map.yaml:1:1: `hash_key` is the default";
    assert_warning(open, &default, start, remedy);
    let start = "map.yaml:1:1: there is no `hash_key`, so the default counts";
    assert_warning(open, MAP, start, remedy);
    assert_eq!(warnings(open, &own), [""; 0]);
    for map in [MAP, &example, &default] {
        assert_eq!(warnings("", map), [""; 0]);
    }
}

#[test]
fn an_allow_list_that_lets_everybody_in_is_warned_of() {
    for network in ["0.0.0.0/0", "::/0"] {
        let main = format!("allow: [10.0.0.7, '{network}']\n");
        let start = format!("main.yaml:2:8: `allow` lists {network}, which lets every machine in");
        assert_warning(&main, MAP, &start, "list the web servers");
    }
    assert_eq!(warnings("allow: [0.0.0.0/1]\n", MAP), [""; 0]);
}

#[test]
fn peers_that_cannot_reach_the_admin_server_are_warned_of() {
    let remedy = "give `admin.listen` an address that the peers reach";
    let start = "main.yaml:2:8: `admin.listen` is 127.0.0.1:42480, which only this machine reaches, \
                 but the peer 10.0.0.6:42480 asks it";
    assert_warning("peers: [10.0.0.6:42480]\n", MAP, start, remedy);
    let start = "main.yaml:2:17: `admin.listen` is [::1]:1, which only this machine reaches";
    let main = "admin: {listen: '[::1]:1'}\npeers: [proxy-b:42480]\n";
    assert_warning(main, MAP, start, remedy);
    for main in [
        "admin: {listen: '10.0.0.5:42480'}\npeers: [10.0.0.6:42480]\n",
        "peers: ['127.0.0.1:42481', 'localhost:42482']\n",
    ] {
        assert_eq!(warnings(main, MAP), [""; 0], "{main}");
    }
}

#[test]
fn a_time_for_answers_that_cuts_waiting_short_is_warned_of() {
    let remedy = "make `timeouts.answer` at least as long";
    let main = "timeouts: {answer: 4s}\n";
    let start = "main.yaml:2:20: `timeouts.answer` is 4s, less than `handover.hold`, 6s";
    assert_warning(main, MAP, start, remedy);
    let main = "handover: {hold: 9s}\n";
    let start = "main.yaml:2:18: `timeouts.answer` is 8s, less than `handover.hold`, 9s";
    assert_warning(main, MAP, start, remedy);
    for main in [
        "handover: {hold: 8s}\n",
        "timeouts: {answer: 6s}\n",
        "timeouts: {answer: 4s}\nhandover: {hold: 0s}\n",
    ] {
        assert_eq!(warnings(main, MAP), [""; 0]);
    }
}
