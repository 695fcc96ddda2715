//! What a new partition map would do before it is saved: `POST /plan`, and the command.

use serde::{Deserialize, Serialize};

use super::load::{Load, Loads};
use crate::config::{BackendState, Faults, PartitionMap, application_hash};
use crate::control::pool_state::{BackendShift, Order, PoolState, Preview, Shift};
use crate::route::SLOT_COUNT;

/// A backend whose capacity is used to this share has no room for growth.
const NEARLY_FULL_PERCENT: f64 = 90.0;

/// A change that moves more than this is worth to be made in two.
const MUCH_PERCENT: f64 = 40.0;

/// A backend among several that serves more than this is one that the pool cannot do without.
const LARGE_PERCENT: f64 = 60.0;

/// What a map would do. Sessions and bytes are those that live at a backend now, in the proportion
/// of the slots that it is to have; `null` where nobody counts them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanReport {
    /// Whether it would be put in force.
    pub result: PlanResult,
    /// Version of the map in force.
    pub map_version: u64,
    /// Version of the new map; `null` if it is none.
    pub new_version: Option<u64>,
    /// What is wrong with the text, with its place.
    pub faults: Vec<PlanFault>,
    /// Why the map would be refused; `null` if it would not, or has faults.
    pub refusal: Option<String>,
    /// Every backend that one of the two maps has, those of the new one first and in its order.
    pub backends: Vec<PlannedBackend>,
    /// What goes from where to where, by names.
    pub flows: Vec<PlannedFlow>,
    /// All slots that get another backend.
    pub moved_slots: usize,
    /// The same in percent of all slots.
    pub moved_percent: f64,
    /// Sessions that move; those that are lost are not among them.
    pub sessions: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
    /// How long the handover takes if nothing holds it up; `null` where nothing moves.
    pub handover: Option<HandoverTimes>,
    /// What to think about before it is done, for people.
    pub warnings: Vec<String>,
    /// Whether users lose sessions by it or are refused, now or with the next server that fails. A
    /// command does it only when it is told that this is meant.
    pub is_dangerous: bool,
}

/// Whether a map would be put in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlanResult {
    /// It would be.
    Accepted,
    /// It is the one that is in force.
    Unchanged,
    /// It has faults, or may not follow the one in force.
    Refused,
}

/// One fault of the text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanFault {
    /// Its line, from 1.
    pub line: usize,
    /// Its column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub help: String,
}

/// One backend before and after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedBackend {
    /// Its name.
    pub name: String,
    /// Its state before: `active`, `drain`, `off`; `null` where it is new.
    pub state_before: Option<String>,
    /// Its state after; `null` where it leaves.
    pub state_after: Option<String>,
    /// Slots that it was to have.
    pub slots_before: usize,
    /// Slots that it will have when the handover has ended.
    pub slots_after: usize,
    /// Sessions there now.
    pub sessions_before: Option<u64>,
    /// Sessions there when the handover has ended.
    pub sessions_after: Option<u64>,
    /// Their bytes now.
    pub bytes_before: Option<u64>,
    /// Their bytes then.
    pub bytes_after: Option<u64>,
    /// Sessions of which it keeps the copy now; `null` without `replicas`.
    #[serde(default)]
    pub copies_before: Option<u64>,
    /// Sessions of which it will keep the copy once all are filled; `null` without `replicas`.
    #[serde(default)]
    pub copies_after: Option<u64>,
    /// How much of its capacity is used then, copies included, by sessions or bytes, whichever is
    /// more.
    pub used_percent_after: Option<f64>,
}

/// Slots that go from one backend to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedFlow {
    /// Name of the backend that has them.
    pub from: String,
    /// Name of the backend that gets them.
    pub to: String,
    /// How many.
    pub slots: usize,
    /// Sessions in them.
    pub sessions: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
    /// Whether the sessions are lost, because the backend is given up.
    pub lost: bool,
}

/// How long the stages of a handover last, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverTimes {
    /// Nothing moves yet.
    pub settle_ms: u64,
    /// Sessions move when they are used.
    pub move1_ms: u64,
    /// The same, and new ones begin at their new backend.
    pub move2_ms: u64,
    /// All of it.
    pub total_ms: u64,
}

/// What the map in `text` would do to the pool; `file_name` is its name in messages.
pub fn plan(pool_state: &PoolState, text: &[u8], file_name: &str, loads: &Loads) -> PlanReport {
    let map_version = pool_state.map().version;
    let map = match PartitionMap::parse(text, file_name) {
        Ok(map) => map,
        Err(faults) => return PlanReport::faulty(map_version, &faults),
    };
    let new_version = map.version;
    let renamed = renamed(pool_state.map(), &map);
    let preview = pool_state.preview(map);
    let mut report = PlanReport::of(pool_state, preview, Some(new_version), loads);
    report.is_dangerous |= !renamed.is_empty();
    report.warnings.splice(0..0, renamed);
    report
}

/// The applications whose sessions state servers know under another id than before, or no more: they
/// are not found any more.
fn renamed(before: &PartitionMap, after: &PartitionMap) -> Vec<String> {
    let all = || after.applications.iter().chain(&before.applications);
    let mut names: Vec<&str> = Vec::new();
    for application in all() {
        if !names.contains(&application.name.as_str()) {
            names.push(&application.name);
        }
    }
    let warning = |name: &str| {
        let of_name = all().filter(|application| application.name == name);
        let ids = of_name.flat_map(|one| std::iter::once(&one.id).chain(&one.also));
        let mut moved: Vec<&str> = ids
            .filter(|id| known_as(before, id) != known_as(after, id))
            .map(String::as_str)
            .collect();
        moved.sort_unstable();
        moved.dedup();
        (!moved.is_empty()).then(|| {
            let ids = moved.join(", ");
            format!(
                "application {name}: the sessions that web servers have stored under {ids} are not \
                 found any more; their users start new ones"
            )
        })
    };
    names.into_iter().filter_map(warning).collect()
}

/// What state servers know an application under that web servers call `id`, which have .NET 4 or
/// later.
fn known_as(map: &PartitionMap, id: &str) -> (String, String) {
    let named = map.applications.iter();
    let mut named = named.filter(|application| application.application.has_id(id.as_bytes()));
    match named.next() {
        Some(application) => (application.id.clone(), application.hash.clone()),
        None => (id.to_owned(), application_hash(id)),
    }
}

/// What an order about one backend would do to the pool.
pub fn plan_order(pool_state: &PoolState, order: &Order, loads: &Loads, now_ms: u64) -> PlanReport {
    let preview = pool_state.preview_order(order, now_ms);
    PlanReport::of(pool_state, preview, None, loads)
}

impl PlanReport {
    fn of(
        pool_state: &PoolState,
        preview: Preview,
        new_version: Option<u64>,
        loads: &Loads,
    ) -> Self {
        let Preview { verdict, shift } = preview;
        let mut report = Self::empty(pool_state.map().version);
        report.new_version = new_version;
        (report.result, report.refusal) = match verdict {
            Ok(true) => (PlanResult::Accepted, None),
            Ok(false) => (PlanResult::Unchanged, None),
            Err(refused) => (PlanResult::Refused, Some(refused.to_string())),
        };
        if let Some(shift) = shift {
            report.describe(pool_state, &shift, loads);
            report.warnings = dangers(&shift, &report);
            report.is_dangerous = !report.warnings.is_empty();
            report
                .warnings
                .extend(cautions(pool_state, &shift, &report));
        }
        report
    }

    fn empty(map_version: u64) -> Self {
        Self {
            result: PlanResult::Refused,
            map_version,
            new_version: None,
            faults: Vec::new(),
            refusal: None,
            backends: Vec::new(),
            flows: Vec::new(),
            moved_slots: 0,
            moved_percent: 0.0,
            sessions: None,
            bytes: None,
            handover: None,
            warnings: Vec::new(),
            is_dangerous: false,
        }
    }

    fn faulty(map_version: u64, faults: &Faults) -> Self {
        let fault = |fault: &crate::config::Fault| PlanFault {
            line: fault.line(),
            column: fault.column(),
            problem: fault.problem().to_owned(),
            help: fault.help().to_owned(),
        };
        Self {
            faults: faults.iter().map(fault).collect(),
            ..Self::empty(map_version)
        }
    }

    fn describe(&mut self, pool_state: &PoolState, shift: &Shift, loads: &Loads) {
        let flows = shift.flows.iter().map(|flow| {
            let from = shift.backends.iter().find(|known| known.name == flow.from);
            let load = loads.of(&flow.from);
            let part = |whole: Option<u64>| {
                from.and_then(|from| part(whole?, flow.slots, from.slots_before))
            };
            PlannedFlow {
                from: flow.from.clone(),
                to: flow.to.clone(),
                slots: flow.slots,
                sessions: part(load.sessions),
                bytes: part(load.bytes),
                lost: from
                    .is_some_and(|from| from.after == Some(BackendState::Off) && !from.is_copied),
            }
        });
        self.flows = flows.collect();
        self.moved_slots = self.flows.iter().map(|flow| flow.slots).sum();
        self.moved_percent = percent(self.moved_slots);
        let kept = || self.flows.iter().filter(|flow| !flow.lost);
        self.sessions = loads
            .any()
            .then(|| kept().filter_map(|flow| flow.sessions).sum());
        self.bytes = loads
            .any()
            .then(|| kept().filter_map(|flow| flow.bytes).sum());
        if kept().next().is_some() {
            let times = pool_state.times();
            let (settle_ms, move2_ms) = (times.settle_ms, times.lifetime_ms);
            self.handover = Some(HandoverTimes {
                settle_ms,
                move1_ms: 2 * settle_ms,
                move2_ms,
                total_ms: 3 * settle_ms + move2_ms,
            });
        }
        let backends = shift.backends.iter();
        self.backends = backends
            .map(|backend| self.backend(backend, loads.of(&backend.name), shift, loads))
            .collect();
    }

    fn backend(
        &self,
        backend: &BackendShift,
        load: Load,
        shift: &Shift,
        loads: &Loads,
    ) -> PlannedBackend {
        let is_counted = loads.any();
        let BackendShift { name, .. } = backend;
        // Nothing is known to be there that nobody has seen yet.
        let now = |known: Option<u64>| known.or_else(|| is_counted.then_some(0));
        let after = |now: Option<u64>, of: fn(&PlannedFlow) -> Option<u64>| {
            let sum = |end: fn(&PlannedFlow) -> &str| -> u64 {
                let flows = self.flows.iter().filter(|flow| end(flow) == name);
                flows
                    .filter(|flow| end(flow) == flow.from || !flow.lost)
                    .filter_map(of)
                    .sum()
            };
            Some((now? + sum(|flow| &flow.to)).saturating_sub(sum(|flow| &flow.from)))
        };
        let (sessions, bytes) = (now(load.sessions), now(load.bytes));
        let then = Load {
            sessions: after(sessions, |flow| flow.sessions),
            bytes: after(bytes, |flow| flow.bytes),
            copies: copies_after(name, shift, loads, |load| load.sessions),
            copy_bytes: copies_after(name, shift, loads, |load| load.bytes),
            room_bytes: load.room_bytes,
        };
        PlannedBackend {
            name: name.clone(),
            state_before: backend.before.map(|state| state.as_str().to_owned()),
            state_after: backend.after.map(|state| state.as_str().to_owned()),
            slots_before: backend.slots_before,
            slots_after: backend.slots_after,
            sessions_before: sessions,
            sessions_after: then.sessions,
            bytes_before: bytes,
            bytes_after: then.bytes,
            copies_before: load.copies,
            copies_after: then.copies,
            used_percent_after: then.used_percent(backend.capacity),
        }
    }
}

/// What a backend will keep of what lives elsewhere; `None` if nobody keeps copies then, or nobody
/// counts.
fn copies_after(
    name: &str,
    shift: &Shift,
    loads: &Loads,
    of: fn(&Load) -> Option<u64>,
) -> Option<u64> {
    if shift.copies.is_empty() || !loads.any() {
        return None;
    }
    let kept = shift.copies.iter().filter(|flow| flow.to == name);
    let sessions = kept.filter_map(|flow| {
        let from = shift
            .backends
            .iter()
            .find(|known| known.name == flow.from)?;
        part(of(&loads.of(&flow.from))?, flow.slots, from.slots_before)
    });
    Some(sessions.sum())
}

/// What users would notice, or would if one more server failed.
fn dangers(shift: &Shift, report: &PlanReport) -> Vec<String> {
    let mut warnings: Vec<_> = losses(report).collect();
    for backend in &report.backends {
        let name = &backend.name;
        if let Some(used) = backend.used_percent_after.filter(|used| *used > 100.0) {
            warnings.push(format!(
                "{name} would need {used:.0} % of its capacity: new sessions there would be refused"
            ));
        }
    }
    let serving: Vec<_> = shift
        .backends
        .iter()
        .filter(|backend| backend.slots_after > 0)
        .collect();
    if let [only] = serving.as_slice() {
        let name = &only.name;
        warnings.push(format!(
            "{name} would be the only backend: nobody could stand in for it"
        ));
    }
    for backend in &serving {
        let (name, share) = (&backend.name, percent(backend.slots_after));
        if serving.len() > 1 && share > LARGE_PERCENT {
            warnings.push(format!("{name} would serve {share:.0} % of all sessions"));
        }
    }
    warnings
}

/// What somebody should know besides.
fn cautions(pool_state: &PoolState, shift: &Shift, report: &PlanReport) -> Vec<String> {
    let mut warnings: Vec<_> = refusals(pool_state, shift).collect();
    for backend in &report.backends {
        let used = backend.used_percent_after;
        if let Some(used) = used.filter(|used| (NEARLY_FULL_PERCENT..=100.0).contains(used)) {
            let name = &backend.name;
            warnings.push(format!("{name} would use {used:.0} % of its capacity"));
        }
    }
    warnings.extend(
        shift
            .backends
            .iter()
            .filter_map(|backend| silence(shift, backend)),
    );
    warnings.extend(held_back(pool_state, shift));
    if report.moved_percent > MUCH_PERCENT {
        let moved = report.moved_percent;
        warnings.push(format!(
            "{moved:.0} % of all sessions would move in one change: two smaller ones, each after \
             the handover before, are easier on the backends"
        ));
    }
    let slots = pool_state.slots().iter();
    let busy = slots.filter(|slot| slot.second.is_some()).count();
    if busy > 0 && report.moved_slots > 0 {
        warnings.push(format!(
            "{busy} slots are in a handover or a failover now: those of them that this map sends \
             elsewhere go there when that has ended"
        ));
    }
    warnings
}

/// What would stay where it is, because a backend that is to get more takes nothing now.
fn refusals(pool_state: &PoolState, shift: &Shift) -> impl Iterator<Item = String> {
    pool_state.failing_moves().filter_map(|moves| {
        let name = pool_state.name_of(moves.to);
        let mut backends = shift.backends.iter();
        let gets_more = backends
            .any(|backend| backend.name == name && backend.slots_after > backend.slots_before);
        let reason = crate::control::pool_state::failing::reason(moves.status, name);
        gets_more.then(|| {
            format!(
                "sessions cannot be moved to {name} now: {reason}; what this map sends there would \
                 stay where it is as well"
            )
        })
    })
}

/// What would be refused because a backend that was given up may not have it yet.
fn held_back(pool_state: &PoolState, shift: &Shift) -> impl Iterator<Item = String> {
    let held_back = pool_state.held_back();
    let refuses = held_back.filter(|(name, _)| gets_of_one_that_is_off(shift, name));
    refuses.map(|(name, _)| {
        format!(
            "{name} was given up and gets no sessions yet: what it gets of a backend that is off is \
             refused until then, and status says how long"
        )
    })
}

/// Whether a backend that is off leaves its slots to the backend of this name.
fn gets_of_one_that_is_off(shift: &Shift, name: &str) -> bool {
    shift.flows.iter().any(|flow| {
        let mut backends = shift.backends.iter();
        let from = backends.find(|backend| backend.name == flow.from);
        flow.to == name && from.is_some_and(|from| from.after == Some(BackendState::Off))
    })
}

/// What waits for a backend that does not answer, or that nobody has asked.
fn silence(shift: &Shift, backend: &BackendShift) -> Option<String> {
    let name = &backend.name;
    let gets_more = backend.slots_after > backend.slots_before;
    let has_less = backend.slots_after < backend.slots_before;
    if gets_more && backend.is_new && gets_of_one_that_is_off(shift, name) {
        let asked = "has not been asked yet: what it gets of a backend that is off is refused \
                     before it answers, the rest does not move";
        Some(format!("{name} {asked}"))
    } else if gets_more && backend.is_new {
        let asked = "has not been asked yet: nothing moves there before it answers";
        Some(format!("{name} {asked}"))
    } else if gets_more && !backend.is_up {
        let silent = "does not answer: nothing moves there before it does";
        Some(format!("{name} {silent}"))
    } else if has_less && !backend.is_up && backend.after != Some(BackendState::Off) {
        let silent = "does not answer: its sessions do not move before it does";
        Some(format!("{name} {silent}"))
    } else {
        None
    }
}

/// What would be lost with backends that are given up.
fn losses(report: &PlanReport) -> impl Iterator<Item = String> {
    let lost = report.backends.iter().filter(|backend| {
        let is_off = backend.state_after.as_deref() == Some("off");
        is_off && backend.state_before.as_deref() != Some("off")
    });
    lost.map(|backend| {
        let name = &backend.name;
        match backend.sessions_before {
            Some(sessions) => format!("{name} would be given up, with its {sessions} sessions"),
            None => format!("{name} would be given up, with all sessions that it holds"),
        }
    })
}

/// The part of `whole` that so many of all slots hold.
fn part(whole: u64, slots: usize, of_slots: usize) -> Option<u64> {
    let product = u128::from(whole) * slots as u128;
    let rounded = (product + of_slots as u128 / 2).checked_div(of_slots as u128)?;
    u64::try_from(rounded).ok()
}

/// A number of slots in percent of all.
fn percent(slots: usize) -> f64 {
    slots as f64 * 100.0 / SLOT_COUNT as f64
}
