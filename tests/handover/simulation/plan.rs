//! What a seed stands for: proxies, slots, maps, and what goes wrong when.

use staterouter::handover::BackendId;
use staterouter::route::Slot;

use super::maps::{self, Spec};
use super::random::Random;

/// Virtual time at which every world begins, in milliseconds.
pub(crate) const START_MS: u64 = 1_000_000;
/// No proxy takes a map later than this after another, where no peers hold it back.
const MAX_LAG_MS: u64 = 8_000;
/// Slots that are looked at in one world.
const MAX_SLOTS: u64 = 2;
/// Servers that there are, whether a map names them or not.
pub(crate) const SERVERS: u8 = 4;

/// What kinds of things go wrong in a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Another map: a backend more, one drained, one removed, another weight, the one before.
    Map,
    /// Five maps within a few seconds.
    FiveMaps,
    /// A backend is given up.
    Off,
    /// One proxy does not reach one backend.
    Cut,
    /// No proxy reaches a backend, which keeps what it has.
    Isolate,
    /// The same for the one that stands in for the owner of a slot.
    IsolateNext,
    /// Two proxies do not reach each other.
    CutPeers,
    /// A backend stands still and goes on, with its memory and all requests in its buffers.
    Pause,
    /// A backend is killed and starts empty.
    Crash,
    /// A backend has no room for what it does not have yet.
    Full,
    /// Any backend is out of reach of one proxy, or of all, or stands still.
    AnyCut,
    AnyIsolate,
    AnyPause,
    /// Any backend is killed and starts empty.
    AnyCrash,
    /// A proxy is killed and goes on from its memory.
    Kill,
}

/// A kind of worlds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Class {
    pub(crate) name: &'static str,
    /// Fewest and most proxies.
    pub(crate) proxies: (u64, u64),
    /// Whether the proxies know of each other.
    pub(crate) peers: bool,
    pub(crate) failover: bool,
    /// What happens, drawn with equal chances.
    pub(crate) kinds: &'static [Kind],
    /// Most things that happen.
    pub(crate) max_faults: u64,
    /// Messages between proxies and servers that are lost or come late, of a thousand.
    pub(crate) losses: u64,
    /// How late such a message may be, in milliseconds.
    pub(crate) latest_ms: u64,
    /// Pages that remove their session, of a hundred; the next one starts it anew.
    pub(crate) removals: u64,
    /// Pages that only read a session in use, of a hundred.
    pub(crate) reads: u64,
    /// Nothing goes wrong that a client may notice.
    pub(crate) strict: bool,
    /// Whether each session is kept twice.
    pub(crate) replicas: bool,
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// The map at this position of the plan is there, at each proxy so much later.
    Map(usize, Vec<u64>),
    Cut {
        proxy: usize,
        server: u8,
    },
    Isolate {
        server: u8,
    },
    CutPeers {
        one: usize,
        other: usize,
    },
    Pause {
        server: u8,
    },
    Crash {
        server: u8,
    },
    Full {
        server: u8,
    },
    Kill {
        proxy: usize,
    },
}

/// Something that happens, and how long it lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) at_ms: u64,
    pub(crate) lasts_ms: u64,
    pub(crate) what: What,
}

/// Everything about a world but the noise.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) class: Class,
    pub(crate) proxies: usize,
    pub(crate) slots: Vec<Slot>,
    /// Web requests of one slot that run at a time.
    pub(crate) lanes: usize,
    /// The first is in force at the start.
    pub(crate) maps: Vec<Spec>,
    pub(crate) faults: Vec<Fault>,
}

impl Plan {
    pub(crate) fn new(class: Class, seed: u64) -> Self {
        let mut random = Random::new(seed, 1);
        let proxies = random.between(class.proxies.0, class.proxies.1) as usize;
        let first = match class.replicas {
            true => maps::first_of(random.between(3, 4) as u8),
            false => maps::first(&mut random),
        };
        let mut plan = Self {
            seed,
            class,
            proxies,
            slots: Vec::new(),
            lanes: random.between(2, 3) as usize,
            maps: vec![first],
            faults: Vec::new(),
        };
        plan.draw_maps_and_slots(&mut random);
        plan.draw_failures(&mut random);
        plan.faults.sort_by_key(|fault| fault.at_ms);
        plan
    }

    /// When the last fault is over.
    pub(crate) fn end_ms(&self) -> u64 {
        let ends = self
            .faults
            .iter()
            .map(|fault| fault.at_ms + fault.lasts_ms + MAX_LAG_MS);
        ends.max().unwrap_or(START_MS)
    }

    fn draw_maps_and_slots(&mut self, random: &mut Random) {
        let mut at_ms = START_MS + random.between(1_000, 15_000);
        for _ in 0..random.between(1, self.class.max_faults) {
            match random.pick(self.class.kinds) {
                Kind::Map => self.publish(maps::next(random, &self.maps), at_ms, random),
                Kind::FiveMaps => {
                    for _ in 0..5 {
                        self.publish(maps::next(random, &self.maps), at_ms, random);
                        at_ms += random.between(100, 5_000);
                    }
                }
                Kind::Off => {
                    if let Some(map) = maps::without(random, &self.maps) {
                        self.publish(map, at_ms, random);
                    }
                }
                _ => continue,
            }
            at_ms += offset_ms(random);
        }
        // Slots that go somewhere are worth more than those that stay.
        for _ in 0..random.between(1, MAX_SLOTS) {
            let mut slot = any_slot(random);
            for _ in 0..8 {
                if maps::moves(&self.maps, slot) {
                    break;
                }
                slot = any_slot(random);
            }
            self.slots.push(slot);
        }
    }

    fn publish(&mut self, map: Spec, at_ms: u64, random: &mut Random) {
        let lags = (0..self.proxies)
            .map(|_| random.below(MAX_LAG_MS))
            .collect();
        self.maps.push(map);
        self.faults.push(Fault {
            at_ms,
            lasts_ms: 0,
            what: What::Map(self.maps.len() - 1, lags),
        });
    }

    fn draw_failures(&mut self, random: &mut Random) {
        let mut at_ms = START_MS + random.between(1_000, 15_000);
        for _ in 0..random.between(1, self.class.max_faults) {
            let kind = random.pick(self.class.kinds);
            let Some((what, longest_ms)) = self.failure(kind, random) else {
                continue;
            };
            let lasts_ms = match random.below(3) {
                0 => random.between(300, 4_000),
                1 => random.between(4_000, 40_000),
                _ => random.between(4_000, longest_ms),
            };
            // A server that comes back empty before anybody has noticed is the model's.
            let shortest_ms = match what {
                What::Crash { .. } if self.class.replicas => 15_000,
                _ => 0,
            };
            self.faults.push(Fault {
                at_ms,
                lasts_ms: lasts_ms.min(longest_ms).max(shortest_ms),
                what,
            });
            at_ms += offset_ms(random);
            if self.class.replicas && random.chance(600) {
                // Copies are full again by then.
                at_ms += random.between(300_000, 700_000);
            }
        }
    }

    /// A failure of this kind, and how long it may last.
    fn failure(&self, kind: Kind, random: &mut Random) -> Option<(What, u64)> {
        let proxy = random.below(self.proxies as u64) as usize;
        let server = match kind {
            Kind::IsolateNext => self.candidate(1, random)?,
            // The one that sessions are to go to.
            Kind::Full => self.newest_owner(random)?,
            Kind::AnyCut | Kind::AnyIsolate | Kind::AnyPause | Kind::AnyCrash => {
                random.between(1, self.maps[0].len() as u64) as u8
            }
            _ => self.candidate(0, random)?,
        };
        Some(match kind {
            Kind::Map | Kind::FiveMaps | Kind::Off => return None,
            Kind::Cut | Kind::AnyCut => (What::Cut { proxy, server }, 300_000),
            Kind::Isolate | Kind::IsolateNext | Kind::AnyIsolate => {
                (What::Isolate { server }, 400_000)
            }
            Kind::CutPeers if self.proxies == 1 => return None,
            Kind::CutPeers => {
                let other = (proxy + 1) % self.proxies;
                (What::CutPeers { one: proxy, other }, 120_000)
            }
            // What is in its buffers must be executed before a lock becomes old enough to be
            // broken.
            Kind::Pause | Kind::AnyPause => (What::Pause { server }, 80_000),
            Kind::Crash | Kind::AnyCrash => (What::Crash { server }, 120_000),
            Kind::Full => (What::Full { server }, 1_000_000),
            Kind::Kill => (What::Kill { proxy }, 60_000),
        })
    }

    fn newest_owner(&self, random: &mut Random) -> Option<u8> {
        let slot = random.pick(&self.slots);
        let newest = self.maps.last()?;
        Some(maps::owner(newest, slot).id())
    }

    /// The server that is so many places behind the owner of a slot, under any of the maps.
    fn candidate(&self, behind: usize, random: &mut Random) -> Option<u8> {
        let map = &self.maps[random.below(self.maps.len() as u64) as usize];
        let slot = random.pick(&self.slots);
        maps::candidate(map, slot, behind).map(BackendId::id)
    }
}

fn any_slot(random: &mut Random) -> Slot {
    let number = random.below(1 << 14) as u16;
    Slot::all().nth(number.into()).unwrap()
}

/// Until the next thing happens: at once, or around the ends of stages, or at any time.
fn offset_ms(random: &mut Random) -> u64 {
    match random.below(4) {
        0 => random.between(100, 8_000),
        1 => random.between(20_000, 45_000),
        2 => random.between(60_000, 120_000),
        _ => random.between(1_000, 400_000),
    }
}
