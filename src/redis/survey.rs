//! What a server says of itself, and what of it is dangerous for sessions.

use super::shown::shown;
use crate::store::{StoreDanger, StoreMemory, StoreSurvey};

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

    /// Adds what `server` says to what is known of the others. `saves` says whether it writes
    /// snapshots, as far as it tells.
    pub(super) fn add_to(self, found: &mut StoreSurvey, server: &str, saves: Option<bool>) {
        if let Some(used_bytes) = self.number("used_memory") {
            let max_bytes = self.number("maxmemory").filter(|max| *max > 0);
            found.memory = Some(match found.memory {
                None => StoreMemory {
                    used_bytes,
                    max_bytes,
                },
                Some(others) => StoreMemory {
                    used_bytes: others.used_bytes.saturating_add(used_bytes),
                    max_bytes: others
                        .max_bytes
                        .zip(max_bytes)
                        .map(|(others, own)| others.saturating_add(own)),
                },
            });
        }
        found.dangers.extend(self.dangers(server, saves));
    }

    fn dangers(self, server: &str, saves: Option<bool>) -> impl Iterator<Item = StoreDanger> {
        [
            self.eviction(server),
            self.disk(server),
            self.unkept(server, saves),
            self.unproven(server),
        ]
        .into_iter()
        .flatten()
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

    fn surveyed(info: &str, saves: Option<bool>) -> StoreSurvey {
        let mut found = StoreSurvey::default();
        Info(info).add_to(&mut found, "redis-a:6379", saves);
        found
    }

    #[test]
    fn a_good_server_is_no_danger() {
        let found = surveyed(GOOD, Some(false));
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
        for (good, bad, saves, danger) in [
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
            let found = surveyed(&GOOD.replace(good, bad), saves);
            assert_eq!(found.dangers, [danger], "{bad}");
        }
    }

    #[test]
    fn one_of_disk_and_replica_is_enough() {
        let alone = GOOD.replace("connected_slaves:1", "connected_slaves:0");
        assert_eq!(surveyed(&alone, Some(true)).dangers, []);
        // Not everybody may ask: then nothing is claimed.
        assert_eq!(surveyed(&alone, None).dangers, []);
        let appends = alone.replace("aof_enabled:0", "aof_enabled:1");
        assert_eq!(surveyed(&appends, Some(false)).dangers, []);
    }

    #[test]
    fn the_limits_of_several_servers_add_up_if_all_have_one() {
        let limited = GOOD.replace("maxmemory:0", "maxmemory:5000");
        let mut found = surveyed(&limited, None);
        Info(&limited).add_to(&mut found, "redis-b:6379", None);
        let memory = |max_bytes| {
            Some(StoreMemory {
                used_bytes: 2000,
                max_bytes,
            })
        };
        assert_eq!(found.memory, memory(Some(10_000)));
        let mut found = surveyed(&limited, None);
        Info(GOOD).add_to(&mut found, "redis-b:6379", None);
        assert_eq!(found.memory, memory(None));
    }

    #[test]
    fn nonsense_is_no_danger() {
        for info in ["", "used_memory:x\r\nmaxmemory_policy", "\u{0}:\r\n:::"] {
            assert_eq!(surveyed(info, Some(false)), StoreSurvey::default());
        }
    }
}
