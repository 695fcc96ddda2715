//! What the host names in both files stand for: looked up once to find what no file shows by itself.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::config::{BackendAddress, BackendHost, Config, PartitionMap};

/// How long all lookups together may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// A host that a file names, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    /// `backend state-a` or `peer`.
    what: String,
    address: BackendAddress,
}

/// What the name service says; `None` if it says nothing in time.
type Answer = Option<Result<Vec<SocketAddr>, String>>;

/// Names that lead nowhere, and state servers that are there twice. Takes up to 3 s.
pub fn warnings(config: &Config, map: &PartitionMap) -> Vec<String> {
    let named = named(config, map);
    let answers = look_up(&named, resolve, PATIENCE);
    let mut warnings = unresolved(&named, &answers);
    warnings.extend(same_servers(map, &named, &answers));
    warnings
}

fn named(config: &Config, map: &PartitionMap) -> Vec<Named> {
    let backends = map.backends.iter().map(|backend| Named {
        what: format!("backend {}", backend.name),
        address: backend.address.clone(),
    });
    let peers = config.peers.iter().map(|peer| Named {
        what: "peer".to_owned(),
        address: peer.clone(),
    });
    backends.chain(peers).collect()
}

fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((host, port).to_socket_addrs()?.collect())
}

/// Asks for all of them at the same time: a name service that hangs costs its patience once. Its
/// threads end when it answers.
fn look_up(
    named: &[Named],
    resolve: fn(&str, u16) -> io::Result<Vec<SocketAddr>>,
    patience: Duration,
) -> Vec<Answer> {
    let (tell, told) = mpsc::channel();
    let mut answers: Vec<Answer> = vec![None; named.len()];
    let mut awaited = 0;
    for (index, Named { address, .. }) in named.iter().enumerate() {
        let port = address.port();
        let name = match address.host() {
            BackendHost::Ip(ip) => {
                answers[index] = Some(Ok(vec![SocketAddr::new(*ip, port)]));
                continue;
            }
            BackendHost::Name(name) => name.clone(),
        };
        let tell = tell.clone();
        let ask = move || {
            // Nobody listens any more when the patience is over.
            let _ = tell.send((index, resolve(&name, port)));
        };
        if thread::Builder::new()
            .name("names".to_owned())
            .spawn(ask)
            .is_ok()
        {
            awaited += 1;
        }
    }
    let due = Instant::now() + patience;
    for _ in 0..awaited {
        let left = due.saturating_duration_since(Instant::now());
        let Ok((index, answer)) = told.recv_timeout(left) else {
            break;
        };
        answers[index] = Some(answer.map_err(|error| error.to_string()));
    }
    answers
}

fn unresolved(named: &[Named], answers: &[Answer]) -> Vec<String> {
    let warning = |(named, answer): (&Named, &Answer)| {
        let Named { what, address } = named;
        let why = match answer {
            None => "the name service does not answer".to_owned(),
            Some(Err(error)) => error.clone(),
            Some(Ok(addresses)) if addresses.is_empty() => "it has no address".to_owned(),
            Some(Ok(_)) => return None,
        };
        Some(format!(
            "the host name of {what} ({address}) cannot be looked up from this machine: {why}; \
             correct the name, or make it known here (DNS, /etc/hosts)"
        ))
    };
    named.iter().zip(answers).filter_map(warning).collect()
}

/// Backends whose addresses lead to one server. A session that is moved between the two would be
/// removed where it was just stored.
fn same_servers(map: &PartitionMap, named: &[Named], answers: &[Answer]) -> Vec<String> {
    let mut firsts: HashMap<SocketAddr, usize> = HashMap::new();
    let mut warnings = Vec::new();
    for (index, (backend, answer)) in map.backends.iter().zip(answers).enumerate() {
        let addresses = match answer {
            Some(Ok(addresses)) => addresses.as_slice(),
            _ => &[],
        };
        let known = addresses.iter().find_map(|at| {
            let first = firsts.get(at).filter(|first| **first != index);
            first.map(|first| (*at, *first))
        });
        if let Some((at, first)) = known {
            let (one, other) = (&map.backends[first].name, &backend.name);
            let [spelt, spelt_other] = [first, index].map(|index| &named[index].address);
            warnings.push(format!(
                "the backends {one} ({spelt}) and {other} ({spelt_other}) are one server, {at}: \
                 sessions that move between the two are lost; take one out of the partition map"
            ));
        }
        for at in addresses {
            firsts.entry(*at).or_insert(index);
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(addresses: &[&str]) -> PartitionMap {
        let backend = |(index, address): (usize, &&str)| {
            format!(
                "  - {{name: state-{index}, id: {}, address: '{address}'}}\n",
                index + 1
            )
        };
        let backends: String = addresses.iter().enumerate().map(backend).collect();
        PartitionMap::parse(format!("version: 1\nbackends:\n{backends}"), "map").unwrap()
    }

    fn found(
        addresses: &[&str],
        resolve: fn(&str, u16) -> io::Result<Vec<SocketAddr>>,
        patience: Duration,
    ) -> Vec<String> {
        let map = map(addresses);
        let named = named(&Config::new("map"), &map);
        let answers = look_up(&named, resolve, patience);
        let mut found = unresolved(&named, &answers);
        found.extend(same_servers(&map, &named, &answers));
        found
    }

    #[test]
    fn one_server_under_two_spellings_is_found() {
        let resolve = |name: &str, port| match name {
            "a.example" => Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))]),
            _ => Err(io::Error::other("no such name")),
        };
        let found = found(
            &["10.0.0.1:1", "a.example:1", "a.example:2", "10.0.0.2:1"],
            resolve,
            PATIENCE,
        );
        assert_eq!(found.len(), 1, "{found:?}");
        let says = "state-0 (10.0.0.1:1) and state-1 (a.example:1) are one server, 10.0.0.1:1";
        assert!(found[0].contains(says), "{found:?}");
    }

    #[test]
    fn names_that_lead_nowhere_are_told_with_what_they_are_for() {
        let unknown = |_: &str, _| Err(io::Error::other("no such name"));
        let found_unknown = found(&["a.example:1", "10.0.0.2:1"], unknown, PATIENCE);
        assert_eq!(found_unknown.len(), 1, "{found_unknown:?}");
        let says = "backend state-0 (a.example:1) cannot be looked up from this machine: no such";
        assert!(found_unknown[0].contains(says), "{found_unknown:?}");
        let hanging = |_: &str, _| {
            thread::park();
            Ok(Vec::new())
        };
        let found_none = found(&["a.example:1"], hanging, Duration::ZERO);
        assert!(found_none[0].contains("does not answer"), "{found_none:?}");
    }
}
