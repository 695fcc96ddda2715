//! Proxies that see each other late, servers and links that fail, maps that arrive late: what one
//! proxy does with a slot never contradicts what another does or has just done.

use std::collections::VecDeque;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::copies::{Copies, PLACES, backend_id, creates_at, sees, serves};
use super::*;
use crate::handover::Stage::*;

mod known_worlds;

/// In ticks; an item dies sooner than a handover ends, by the time an operation takes.
const TIMES: Times = Times {
    settle_ms: 30,
    move_ms: 200,
    lifetime_ms: 200,
    failover_after_ms: 5,
    overlap_ms: OPERATION,
    silence_ms: 8,
    failover: true,
};
const ITEM: u64 = 170;
const OPERATION: u64 = 10;

/// Enough for a server to be full again that has missed something.
const FILLING: u64 = 4 * TIMES.lifetime_ms;

/// How late each proxy notices a server's fall or return, takes a map, and hears of the others.
const LAGS: [u64; 3] = [1, 6, 3];

#[derive(Debug, Clone)]
enum Event {
    /// `leaves` says whether the one before is to be left.
    Target {
        id: u8,
        leaves: bool,
    },
    Server {
        id: u8,
        up: bool,
    },
    View {
        proxy: usize,
        id: u8,
        up: bool,
    },
    Proxy {
        proxy: usize,
        on: bool,
    },
    Link {
        proxy: usize,
        on: bool,
    },
    /// How long the copies of a proxy are under way from now on.
    Copies {
        proxy: usize,
        last: u64,
    },
    /// A copy of a proxy comes to nothing.
    Miss {
        proxy: usize,
    },
    /// A server is drained, or is not any more.
    Keeper {
        id: u8,
        on: bool,
    },
}

fn any_event_with_copies() -> impl Strategy<Value = Event> {
    let id = 1..=PLACES;
    prop_oneof![
        9 => any_event(),
        1 => (0..3_usize, 0..OPERATION).prop_map(|(proxy, last)| Event::Copies { proxy, last }),
        1 => (0..3_usize).prop_map(|proxy| Event::Miss { proxy }),
        1 => (id, any::<bool>()).prop_map(|(id, on)| Event::Keeper { id, on }),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    let id = 1..=PLACES;
    prop_oneof![
        3 => (id.clone(), any::<bool>()).prop_map(|(id, leaves)| Event::Target { id, leaves }),
        5 => (id.clone(), any::<bool>()).prop_map(|(id, up)| Event::Server { id, up }),
        1 => (0..3_usize, id, any::<bool>()).prop_map(|(proxy, id, up)| Event::View { proxy, id, up }),
        2 => (0..3_usize, any::<bool>()).prop_map(|(proxy, on)| Event::Proxy { proxy, on }),
        2 => (0..3_usize, any::<bool>()).prop_map(|(proxy, on)| Event::Link { proxy, on }),
    ]
}

struct Proxy {
    slot: SlotState,
    target: BackendId,
    leaving: [bool; 5],
    /// Since when each server has been up in its eyes.
    up_since: [Option<u64>; 5],
    /// Servers it cannot reach although they are up.
    cut_off: [bool; 5],
    is_on: bool,
    hears: bool,
    on_since: u64,
    /// How long its copies are under way.
    copies_last: u64,
    /// Until when copies of what is at each server are.
    copying_until: [u64; 5],
    /// A copy has come to nothing, and the slot does not say so yet.
    has_missed: bool,
    /// What it tells of the slot: nothing that its copies under way contradict.
    told: SlotState,
    /// What it did, newest last, an entry per tick; `None` while it was off.
    past: VecDeque<Option<Done>>,
}

#[derive(Debug, Clone, Copy)]
struct Done {
    slot: SlotState,
    /// What it tells the others.
    seen: PeerSlot,
    /// What it had under way then is broken off: nobody waits for it any more.
    is_broken_off: bool,
}

struct Farm {
    now: u64,
    /// The newest map's wish and since when.
    target: (BackendId, u64),
    /// The servers that it leaves.
    leaving: [bool; 5],
    /// Whether each server is up, and since when that has been so.
    servers: [(bool, u64); 5],
    proxies: Vec<Proxy>,
    copies: Copies,
    /// Whether the slot is to have a replica.
    has_replicas: bool,
    /// Servers that may keep copies.
    keepers: [bool; 5],
}

impl Proxy {
    fn is_down(&self, id: usize) -> bool {
        self.up_since[id].is_none()
    }

    /// Whether no copy is under way of what is at a server that is down.
    fn copies_have_ended(&self, now: u64) -> bool {
        let ended = |id: usize| !self.is_down(id) || self.copying_until[id] <= now;
        !self.has_missed && (1..=usize::from(PLACES)).all(ended)
    }

    fn begins_copies(&mut self, now: u64) {
        if self.slot.stage == Suspect || self.slot.copied_to().is_none() {
            return;
        }
        let until = now + self.copies_last;
        for place in serves(&self.slot) {
            let known = &mut self.copying_until[usize::from(place.id())];
            *known = until.max(*known);
        }
    }

    /// What it has under way at a server that is down, of a slot that was there alone, or whose
    /// copies have ended.
    fn break_off(&mut self, now: u64) {
        let Some(failed) = self.slot.second.filter(|_| self.slot.stage == Suspect) else {
            return;
        };
        if !self.copies_have_ended(now) {
            return;
        }
        for done in self.past.iter_mut().flatten() {
            let slot = done.slot;
            let is_copied = slot.replica_in(ReplicaPhase::Full).is_some();
            let was_there = slot.first == failed || slot.second == Some(failed);
            done.is_broken_off |= was_there && (slot.second.is_none() || is_copied);
        }
    }
}

impl Farm {
    fn new(proxies: usize, has_replicas: bool) -> Self {
        let proxy = |_| Proxy {
            slot: SlotState::steady(backend_id(1), 0),
            target: backend_id(1),
            leaving: [false; 5],
            up_since: [Some(0); 5],
            cut_off: [false; 5],
            is_on: true,
            hears: true,
            on_since: 0,
            copies_last: 1,
            copying_until: [0; 5],
            has_missed: false,
            told: SlotState::steady(backend_id(1), 0),
            past: VecDeque::new(),
        };
        Self {
            now: 0,
            target: (backend_id(1), 0),
            leaving: [false; 5],
            servers: [(true, 0); 5],
            proxies: (0..proxies).map(proxy).collect(),
            copies: Copies::new(ITEM),
            has_replicas,
            keepers: [true; 5],
        }
    }

    fn apply(&mut self, event: &Event) {
        let (now, count) = (self.now, self.proxies.len());
        match *event {
            Event::Target { id, leaves } => {
                self.leaving[usize::from(self.target.0.id())] = leaves;
                self.leaving[usize::from(id)] = false;
                self.target = (backend_id(id), now);
            }
            Event::Server { id, up } => self.servers[usize::from(id)] = (up, now),
            Event::View { proxy, id, up } => {
                let proxy = &mut self.proxies[proxy % count];
                proxy.cut_off[usize::from(id)] = !up;
            }
            Event::Link { proxy, on } => self.proxies[proxy % count].hears = on,
            Event::Copies { proxy, last } => self.proxies[proxy % count].copies_last = last,
            Event::Miss { proxy } => self.miss(proxy % count),
            Event::Keeper { id, on } => self.keepers[usize::from(id)] = on,
            Event::Proxy { proxy, on } => {
                let proxy = &mut self.proxies[proxy % count];
                proxy.is_on = on;
                proxy.on_since = now;
            }
        }
    }

    fn miss(&mut self, proxy: usize) {
        let proxy = &mut self.proxies[proxy];
        let is_served = proxy.is_on && proxy.slot.stage != Suspect;
        if let Some(copies) = proxy.slot.copied_to().filter(|_| is_served) {
            proxy.has_missed = true;
            self.copies.miss(copies, self.now);
        }
    }

    fn tick(&mut self) -> Result<(), TestCaseError> {
        self.now += 1;
        for index in 0..self.proxies.len() {
            self.look_around(index);
            self.advance(index)?;
        }
        self.live();
        self.check()
    }

    fn slots(&self) -> Vec<SlotState> {
        self.proxies.iter().map(|proxy| proxy.slot).collect()
    }

    fn is_at_rest(&self) -> bool {
        let is_there = |slot: SlotState| slot.stage == Steady && slot.first == self.target.0;
        self.proxies.iter().all(|proxy| is_there(proxy.slot))
    }

    fn look_around(&mut self, index: usize) {
        let (now, lag) = (self.now, LAGS[index]);
        let proxy = &mut self.proxies[index];
        for id in 1..=usize::from(PLACES) {
            let (up, since) = self.servers[id];
            let up = up && !proxy.cut_off[id];
            if now - since >= lag && up != proxy.up_since[id].is_some() {
                proxy.up_since[id] = up.then_some(now);
            }
        }
        if now - self.target.1 >= lag {
            proxy.target = self.target.0;
            proxy.leaving = self.leaving;
        }
    }

    /// Who may become the replica, the one to prefer first.
    fn copy_candidates(&self, proxy: &Proxy) -> Vec<BackendId> {
        let target = proxy.target.id();
        let ids = [2, 3, 0, 1].map(|behind| (target - 1 + behind) % PLACES + 1);
        let fits = |id: &u8| !proxy.is_down(usize::from(*id)) && self.keepers[usize::from(*id)];
        let fit = ids.into_iter().filter(fits).map(backend_id);
        fit.filter(|_| self.has_replicas).collect()
    }

    fn keepers(&self) -> Places {
        let kept = |id: &u8| self.has_replicas && self.keepers[usize::from(*id)];
        (1..=PLACES).filter(kept).map(backend_id).collect()
    }

    fn advance(&mut self, index: usize) -> Result<(), TestCaseError> {
        let others = (0..self.proxies.len()).filter(|other| *other != index);
        let peers: Vec<_> = others.map(|other| self.heard(index, other)).collect();
        let now = self.now;
        let keepers = self.keepers();
        let candidates = self.copy_candidates(&self.proxies[index]);
        let proxy = &mut self.proxies[index];
        let mut seen = None;
        if proxy.is_on {
            let fits = |id: &u8| proxy.up_since[usize::from(*id)].is_some();
            let stand_ins: Vec<_> = (1..=PLACES).filter(fits).map(backend_id).collect();
            let mut standings = Standings::new();
            for id in 1..=PLACES {
                let index = usize::from(id);
                let standing = proxy.up_since[index].map_or(Standing::down(), Standing::up);
                let is_leaving = proxy.leaving[index];
                let standing = Standing {
                    is_leaving,
                    ..standing
                };
                standings.set(backend_id(id), standing);
            }
            let is_broken_off = proxy.copies_have_ended(now);
            proxy.break_off(now);
            let before = proxy.slot;
            if std::mem::take(&mut proxy.has_missed) {
                proxy.slot = missed(proxy.slot, &peers, &TIMES, now);
            }
            let around = Surroundings {
                target: proxy.target,
                stand_ins: &stand_ins,
                copies: CopyPlaces {
                    candidates: &candidates,
                    keepers,
                },
                standings: &standings,
                peers: &peers,
                times: &TIMES,
                move_failed_ms: None,
                is_broken_off,
                now_ms: now,
            };
            proxy.slot = advance(proxy.slot, &around);
            if let Some(copies) = goes_on_with(before, proxy.slot) {
                self.copies.check_whole(copies, now)?;
            }
            proxy.break_off(now);
            if proxy.copies_have_ended(now) {
                proxy.told = proxy.slot;
            }
            let second_up = proxy
                .slot
                .second
                .is_some_and(|second| proxy.up_since[usize::from(second.id())].is_some());
            seen = Some(Done {
                slot: proxy.slot,
                seen: PeerSlot {
                    slot: proxy.told,
                    second_up,
                    gone: Places::default(),
                    heard_ms: now,
                },
                is_broken_off: false,
            });
        }
        proxy.past.push_back(seen);
        if proxy.past.len() > usize::try_from(OPERATION).unwrap() {
            proxy.past.pop_front();
        }
        Ok(())
    }

    /// What a proxy knows of another: as it was a while ago, or nothing.
    fn heard(&self, index: usize, other: usize) -> Option<PeerSlot> {
        let (me, other) = (&self.proxies[index], &self.proxies[other]);
        let lag = LAGS[index];
        if !me.hears || self.now - me.on_since < lag || !other.is_on {
            return None;
        }
        let back = usize::try_from(lag).unwrap();
        let mut heard = (*other.past.get(other.past.len().checked_sub(back)?)?)?.seen;
        // It says how long ago, not when.
        heard.slot.since_ms += lag;
        if let Some(before) = &mut heard.slot.before {
            before.since_ms += lag;
        }
        if let Some(replica) = &mut heard.slot.replica {
            replica.since_ms += lag;
        }
        let left_ms = heard.slot.outdated.since_ms();
        heard.slot.outdated = heard.slot.outdated.since(left_ms + lag);
        heard.heard_ms = self.now;
        Some(heard)
    }

    fn live(&mut self) {
        for proxy in self.proxies.iter_mut().filter(|proxy| proxy.is_on) {
            proxy.begins_copies(self.now);
            self.copies.serve(&proxy.slot, self.now);
        }
    }

    /// What a proxy does now against what any has done as long ago as an operation takes.
    fn check(&self) -> Result<(), TestCaseError> {
        for now in self.proxies.iter().filter(|proxy| proxy.is_on) {
            self.copies.check(&now.slot, self.now)?;
            let past = self.proxies.iter().flat_map(|proxy| &proxy.past).flatten();
            for Done { slot, .. } in past.filter(|then| !then.is_broken_off) {
                self.check_pair(&now.slot, slot)?;
                self.check_pair(slot, &now.slot)?;
            }
        }
        Ok(())
    }

    fn check_pair(&self, one: &SlotState, other: &SlotState) -> Result<(), TestCaseError> {
        if one.stage == Suspect || other.stage == Suspect {
            return Ok(());
        }
        let sees = |backend_id| sees(other, backend_id);
        let moves_to = matches!(one.stage, Move1 | Move2).then_some(one.first);
        for backend_id in creates_at(one).into_iter().chain(moves_to) {
            prop_assert!(
                sees(backend_id),
                "at {}: {one:?} puts items where {other:?} does not look",
                self.now
            );
        }
        for backend_id in serves(one) {
            prop_assert!(
                !self.copies.are_at(backend_id, self.now) || sees(backend_id),
                "at {}: {one:?} serves what {other:?} does not see",
                self.now
            );
        }
        let is_neighbour = matches!((one.stage, other.stage), (Move1, Move2) | (Move2, Move1));
        prop_assert!(
            is_neighbour || creates_at(one) == creates_at(other),
            "at {}: {one:?} and {other:?} create at different places",
            self.now
        );
        Ok(())
    }
}

/// The replica that a suspect slot has gone on with in place of a server that alone had items.
fn goes_on_with(before: SlotState, after: SlotState) -> Option<BackendId> {
    let copies = before.replica?.backend_id;
    let failed = before.second?;
    let served = restored(before);
    let was_place = served.places().any(|place| place == copies);
    let had_items = served.stage != Settle || served.first != failed;
    let is_left = had_items && after.places().all(|place| place != failed);
    let is_served = matches!(after.stage, Steady | Settle | Move1 | Move2)
        && after.places().any(|place| place == copies);
    (before.stage == Suspect && !was_place && is_left && is_served).then_some(copies)
}

/// All comes to rest once everything works.
fn play(
    has_replicas: bool,
    proxies: usize,
    events: &[(u64, Event)],
) -> Result<Farm, TestCaseError> {
    let mut farm = Farm::new(proxies, has_replicas);
    for (ticks, event) in events {
        for _ in 0..*ticks {
            farm.tick()?;
        }
        farm.apply(event);
    }
    // Once everything works, all get where the map wants them.
    for id in 1..=PLACES {
        farm.apply(&Event::Server { id, up: true });
        farm.apply(&Event::Keeper { id, on: true });
        for proxy in 0..proxies {
            farm.apply(&Event::View {
                proxy,
                id,
                up: true,
            });
        }
    }
    for proxy in 0..proxies {
        farm.apply(&Event::Proxy { proxy, on: true });
        farm.apply(&Event::Link { proxy, on: true });
    }
    let mut ticks = 0;
    while ticks < 5000 && !farm.is_at_rest() {
        farm.tick()?;
        ticks += 1;
    }
    prop_assert!(farm.is_at_rest(), "{:?}", farm.slots());
    Ok(farm)
}

fn play_with_replicas(proxies: usize, events: &[(u64, Event)]) -> Result<(), TestCaseError> {
    let mut farm = play(true, proxies, events)?;
    for _ in 0..FILLING {
        farm.tick()?;
    }
    let slots = farm.slots();
    let full = |slot: &SlotState| slot.replica_in(ReplicaPhase::Full);
    let replica = full(&slots[0]);
    prop_assert!(replica.is_some(), "{slots:?}");
    prop_assert!(slots.iter().all(|slot| full(slot) == replica), "{slots:?}");
    Ok(())
}

/// The same worlds in every run, so that a rare one fails nobody's unrelated change. With
/// `PROPTEST_CASES` as many others are played: docs/handover-proof.md says how many have been.
fn worlds() -> ProptestConfig {
    const BY_DEFAULT: u32 = 256;
    let config = ProptestConfig::default();
    match config.cases {
        BY_DEFAULT => ProptestConfig {
            rng_seed: RngSeed::Fixed(1),
            ..config
        },
        _ => config,
    }
}

proptest! {
    #![proptest_config(worlds())]

    #[test]
    fn proxies_never_contradict_each_other(
        proxies in 2..=3_usize,
        events in prop::collection::vec((0..70_u64, any_event()), 1..60),
    ) {
        play(false, proxies, &events)?;
    }

    #[test]
    fn proxies_with_replicas_never_contradict_each_other(
        proxies in 1..=3_usize,
        events in prop::collection::vec((0..70_u64, any_event_with_copies()), 1..60),
    ) {
        play_with_replicas(proxies, &events)?;
    }
}
