//! What a server says of itself, and what of it is dangerous for sessions.

use super::reply::EngineReply;
use super::shown::shown;
use crate::store::{FullestServer, StoreDanger, StoreMemory, StoreSurvey};

/// A replica that has said nothing for so long is behind: it does so every second.
const BEHIND_S: u64 = 10;

/// More replicas than this no server has.
const MAX_REPLICAS: usize = 64;

/// What is to be known of a server beside what it says in INFO.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Settings {
    /// Whether it writes snapshots, as far as it tells.
    pub(super) saves: Option<bool>,
    /// Its `min-replicas-to-write`, as far as it tells.
    pub(super) min_replicas: Option<u64>,
    /// Replicas that the map makes every change wait for.
    pub(super) wait_replicas: u8,
}

impl Settings {
    /// Reads the answer to CONFIG GET of these two.
    pub(super) fn read(answer: &EngineReply, wait_replicas: u8) -> Self {
        let words = answer.list().unwrap_or_default();
        let value = |name: &str| {
            let mut pairs = words.chunks_exact(2);
            let pair = pairs.find(|pair| pair[0].text() == Some(name))?;
            pair[1].text()
        };
        Self {
            saves: value("save").map(|save| !save.is_empty()),
            min_replicas: value("min-replicas-to-write").and_then(|min| min.parse().ok()),
            wait_replicas,
        }
    }
}

/// A line of INFO about a replica.
#[derive(Debug)]
struct ReplicaLine<'a> {
    address: String,
    is_online: bool,
    behind_s: Option<&'a str>,
}

/// The answer to INFO of one server, as lines of `name:value`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Info<'a>(pub(super) &'a str);

impl<'a> Info<'a> {
    fn value(&self, name: &str) -> Option<&'a str> {
        let mut lines = self.0.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.value(name)?.trim().parse().ok()
    }

    /// Adds what `server` says to what is known of the others.
    pub(super) fn add_to(self, found: &mut StoreSurvey, server: &str, settings: Settings) {
        if let Some(used_bytes) = self.number("used_memory") {
            let max_bytes = self.number("maxmemory").filter(|max| *max > 0);
            let memory = StoreMemory {
                used_bytes,
                max_bytes,
            };
            let fullest = found.fullest.as_ref();
            let highest = fullest.and_then(|fullest| fullest.memory.used_ratio());
            if memory.used_ratio() > highest {
                found.fullest = Some(FullestServer {
                    server: server.to_owned(),
                    memory,
                });
            }
            found.memory = Some(match found.memory {
                None => memory,
                Some(others) => StoreMemory {
                    used_bytes: others.used_bytes.saturating_add(used_bytes),
                    max_bytes: others
                        .max_bytes
                        .zip(max_bytes)
                        .map(|(others, own)| others.saturating_add(own)),
                },
            });
        }
        found.dangers.extend(self.dangers(server, settings));
    }

    fn dangers(self, server: &str, settings: Settings) -> Vec<StoreDanger> {
        let worst = [
            self.eviction(server),
            self.disk(server),
            self.too_few_replicas(server, settings),
            self.unkept(server, settings.saves),
        ];
        let mut found: Vec<_> = worst.into_iter().flatten().collect();
        found.extend(self.lags(server));
        found.extend(self.unproven(server));
        found
    }

    /// Every session has an expiry, so `volatile` policies drop living ones as `allkeys` do.
    fn eviction(&self, server: &str) -> Option<StoreDanger> {
        let policy = self.value("maxmemory_policy")?;
        (policy != "noeviction").then(|| StoreDanger::Evicts {
            server: server.to_owned(),
            policy: shown(policy),
            evicted: self.number("evicted_keys").unwrap_or(0),
        })
    }

    fn disk(&self, server: &str) -> Option<StoreDanger> {
        let fails = |name: &str| self.value(name) == Some("err");
        let what = match () {
            () if fails("aof_last_write_status") => "its append-only file",
            () if fails("rdb_last_bgsave_status") => "its snapshots",
            () => return None,
        };
        Some(StoreDanger::DiskFails {
            server: server.to_owned(),
            what,
        })
    }

    /// `slave0:ip=10.0.0.2,port=6379,state=online,offset=1234,lag=0`.
    fn replicas(&self) -> impl Iterator<Item = ReplicaLine<'a>> {
        let lines = self.0.lines().filter_map(|line| {
            let (number, rest) = line.strip_prefix("slave")?.split_once(':')?;
            number.parse::<u16>().ok()?;
            let value = |name: &str| {
                let mut fields = rest.trim().split(',');
                fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
            };
            Some(ReplicaLine {
                address: shown(&format!("{}:{}", value("ip")?, value("port")?)),
                is_online: value("state")? == "online",
                behind_s: value("lag"),
            })
        });
        lines.take(MAX_REPLICAS)
    }

    fn too_few_replicas(&self, server: &str, settings: Settings) -> Option<StoreDanger> {
        let danger = |have, wanted, rule| StoreDanger::TooFewReplicas {
            server: server.to_owned(),
            have,
            wanted,
            rule,
        };
        // A server that is to have none does not say how many it has that are good.
        if let Some(good) = self.number("min_slaves_good_slaves") {
            let wanted = settings.min_replicas.unwrap_or(1);
            if good < wanted {
                return Some(danger(good, wanted, "min-replicas-to-write"));
            }
        }
        let wanted = u64::from(settings.wait_replicas);
        let online = self.replicas().filter(|replica| replica.is_online).count() as u64;
        let says = self.value("connected_slaves").is_some();
        (says && online < wanted).then(|| danger(online, wanted, "wait_replicas"))
    }

    fn lags(&self, server: &str) -> Option<StoreDanger> {
        let online = self.replicas().filter(|replica| replica.is_online);
        let behind = online.filter_map(|replica| {
            let behind_s = replica.behind_s?.parse::<u64>().ok()?;
            (behind_s >= BEHIND_S).then_some((behind_s, replica.address))
        });
        let (behind_s, replica) = behind.max()?;
        Some(StoreDanger::Lags {
            server: server.to_owned(),
            replica,
            behind_s,
        })
    }

    fn unkept(&self, server: &str, saves: Option<bool>) -> Option<StoreDanger> {
        let has_replica = self.number("connected_slaves")? > 0;
        let appends = self.number("aof_enabled")? > 0;
        (!has_replica && !appends && saves == Some(false)).then(|| StoreDanger::Unkept {
            server: server.to_owned(),
        })
    }

    fn unproven(&self, server: &str) -> Option<StoreDanger> {
        let engine = match () {
            () if self.value("dragonfly_version").is_some() => "Dragonfly",
            () if self.value("garnet_version").is_some() => "Garnet",
            () => return None,
        };
        Some(StoreDanger::Unproven {
            server: server.to_owned(),
            engine,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# Server\r\nredis_version:7.0.15\r\n# Memory\r\nused_memory:1000\r\n\
                        maxmemory:0\r\nmaxmemory_policy:noeviction\r\n# Persistence\r\n\
                        rdb_last_bgsave_status:ok\r\naof_enabled:0\r\naof_last_write_status:ok\r\n\
                        # Stats\r\nevicted_keys:0\r\n# Replication\r\nconnected_slaves:1\r\n";

    fn saves(saves: Option<bool>) -> Settings {
        Settings {
            saves,
            ..Settings::default()
        }
    }

    fn surveyed(info: &str, settings: Settings) -> StoreSurvey {
        let mut found = StoreSurvey::default();
        Info(info).add_to(&mut found, "redis-a:6379", settings);
        found
    }

    #[test]
    fn a_good_server_is_no_danger() {
        let found = surveyed(GOOD, saves(Some(false)));
        assert_eq!(found.dangers, []);
        let memory = StoreMemory {
            used_bytes: 1000,
            max_bytes: None,
        };
        assert_eq!(found.memory, Some(memory));
    }

    #[test]
    fn every_danger_is_seen() {
        let server = || "redis-a:6379".to_owned();
        for (good, bad, saved, danger) in [
            (
                "noeviction",
                "volatile-lru",
                None,
                StoreDanger::Evicts {
                    server: server(),
                    policy: "volatile-lru".to_owned(),
                    evicted: 0,
                },
            ),
            (
                "aof_last_write_status:ok",
                "aof_last_write_status:err",
                None,
                StoreDanger::DiskFails {
                    server: server(),
                    what: "its append-only file",
                },
            ),
            (
                "bgsave_status:ok",
                "bgsave_status:err",
                None,
                StoreDanger::DiskFails {
                    server: server(),
                    what: "its snapshots",
                },
            ),
            (
                "connected_slaves:1",
                "connected_slaves:0",
                Some(false),
                StoreDanger::Unkept { server: server() },
            ),
            (
                "redis_version",
                "dragonfly_version",
                None,
                StoreDanger::Unproven {
                    server: server(),
                    engine: "Dragonfly",
                },
            ),
        ] {
            let found = surveyed(&GOOD.replace(good, bad), saves(saved));
            assert_eq!(found.dangers, [danger], "{bad}");
        }
    }

    #[test]
    fn replicas_that_are_missing_or_behind_are_a_danger() {
        let online = "slave0:ip=10.0.0.2,port=6379,state=online,offset=7,lag=1\r\n";
        let behind = "slave1:ip=10.0.0.3,port=6379,state=online,offset=7,lag=12\r\n";
        let filling = "slave2:ip=10.0.0.4,port=6379,state=wait_bgsave,offset=0,lag=0\r\n";
        let too_few = |have, wanted, rule| StoreDanger::TooFewReplicas {
            server: "redis-a:6379".to_owned(),
            have,
            wanted,
            rule,
        };
        let waits = Settings {
            wait_replicas: 1,
            ..Settings::default()
        };
        let has_min = Settings {
            min_replicas: Some(2),
            ..Settings::default()
        };
        let lags = StoreDanger::Lags {
            server: "redis-a:6379".to_owned(),
            replica: "10.0.0.3:6379".to_owned(),
            behind_s: 12,
        };
        let good = |count: u64| format!("min_slaves_good_slaves:{count}\r\n");
        for (lines, settings, dangers) in [
            (String::new(), waits, vec![too_few(0, 1, "wait_replicas")]),
            (
                filling.to_owned(),
                waits,
                vec![too_few(0, 1, "wait_replicas")],
            ),
            (online.to_owned(), waits, vec![]),
            (String::new(), Settings::default(), vec![]),
            (
                good(1),
                has_min,
                vec![too_few(1, 2, "min-replicas-to-write")],
            ),
            (good(2), has_min, vec![]),
            // It does not say how many it wants, so it wants one at least.
            (
                good(0),
                Settings::default(),
                vec![too_few(0, 1, "min-replicas-to-write")],
            ),
            (good(1), Settings::default(), vec![]),
            (format!("{online}{behind}"), waits, vec![lags]),
        ] {
            let found = surveyed(&format!("{GOOD}{lines}"), settings);
            assert_eq!(found.dangers, dangers, "{lines}");
        }
    }

    #[test]
    fn settings_are_read_as_far_as_they_are_told() {
        let word = |word: &str| EngineReply::Bytes(word.as_bytes().to_vec());
        let words = ["save", "", "min-replicas-to-write", "2"].map(word);
        let settings = Settings::read(&EngineReply::List(words.to_vec()), 0);
        assert_eq!(
            (settings.saves, settings.min_replicas),
            (Some(false), Some(2))
        );
        for odd in [EngineReply::Nil, EngineReply::List(vec![word("save")])] {
            let settings = Settings::read(&odd, 0);
            assert_eq!((settings.saves, settings.min_replicas), (None, None));
        }
    }

    #[test]
    fn the_fullest_server_is_named() {
        let with = |used: &str| {
            let limited = GOOD.replace("maxmemory:0", "maxmemory:5000");
            limited.replace("used_memory:1000", used)
        };
        let mut found = surveyed(&with("used_memory:1000"), saves(None));
        Info(&with("used_memory:4900")).add_to(&mut found, "redis-b:6379", saves(None));
        Info(GOOD).add_to(&mut found, "redis-c:6379", saves(None));
        Info(&with("used_memory:2000")).add_to(&mut found, "redis-d:6379", saves(None));
        let fullest = found.fullest.unwrap();
        assert_eq!(
            (fullest.server.as_str(), fullest.memory.used_bytes),
            ("redis-b:6379", 4900)
        );
    }

    #[test]
    fn one_of_disk_and_replica_is_enough() {
        let alone = GOOD.replace("connected_slaves:1", "connected_slaves:0");
        assert_eq!(surveyed(&alone, saves(Some(true))).dangers, []);
        // Not everybody may ask: then nothing is claimed.
        assert_eq!(surveyed(&alone, saves(None)).dangers, []);
        let appends = alone.replace("aof_enabled:0", "aof_enabled:1");
        assert_eq!(surveyed(&appends, saves(Some(false))).dangers, []);
    }

    #[test]
    fn the_limits_of_several_servers_add_up_if_all_have_one() {
        let limited = GOOD.replace("maxmemory:0", "maxmemory:5000");
        let mut found = surveyed(&limited, saves(None));
        Info(&limited).add_to(&mut found, "redis-b:6379", saves(None));
        let memory = |max_bytes| {
            Some(StoreMemory {
                used_bytes: 2000,
                max_bytes,
            })
        };
        assert_eq!(found.memory, memory(Some(10_000)));
        let mut found = surveyed(&limited, saves(None));
        Info(GOOD).add_to(&mut found, "redis-b:6379", saves(None));
        assert_eq!(found.memory, memory(None));
    }

    #[test]
    fn nonsense_is_no_danger() {
        for info in ["", "used_memory:x\r\nmaxmemory_policy", "\u{0}:\r\n:::"] {
            assert_eq!(surveyed(info, saves(Some(false))), StoreSurvey::default());
        }
    }
}
