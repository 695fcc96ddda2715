//! The rules of a handover, spelled out: what a request asks in every stage of its slot, given
//! every answer, and what that costs.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a rule that cannot be read must fail the test"
)]

mod replica;

use std::collections::{BTreeMap, BTreeSet};

use staterouter::handover::{
    BackendId, COPY_LOCK, ClientRequest, Cookie, FIRST_LOCK, NO_LOCK, Refusal, RequestMachine,
    SlotRoute, Stage, Step, Subrequest, SubrequestReply,
};

const RULES: &str = include_str!("rules/rules.txt");
const COSTS: &str = include_str!("rules/costs.txt");

const STAGES: [(&str, Stage); 9] = [
    ("steady", Stage::Steady),
    ("settle", Stage::Settle),
    ("move1", Stage::Move1),
    ("move2", Stage::Move2),
    ("turned", Stage::Turned),
    ("suspect", Stage::Suspect),
    ("away", Stage::Away),
    ("back", Stage::Back),
    ("wait", Stage::Wait),
];

/// The client's cookies: the lock `c` of a place, none, one without a tag.
const COOKIES: [&str; 5] = ["A", "B", "C", "0", "u"];

const CLIENT_LOCK: u32 = 5;
const CLIENT_UNTAGGED: u32 = 6;
const LOCK_AT_A: u32 = 11;
const LOCK_AT_B: u32 = 12;
const LOCK_IN_THE_WAY: u32 = 13;

/// Locks younger than this may belong to a request under way, seconds.
const MOVER_S: u64 = 10;

/// Every answer by its name.
const ANSWERS: [&str; 7] = ["200", "new", "404", "423", "old", "no", "lost"];

fn backend_id(name: &str) -> BackendId {
    let id = match name {
        "A" => 1,
        "B" => 2,
        "C" => 3,
        "R" => 4,
        _ => panic!("{name} is no place"),
    };
    BackendId::new(id).unwrap()
}

fn place_name(backend_id: BackendId) -> &'static str {
    ["A", "B", "C", "R"][usize::from(backend_id.id()) - 1]
}

fn route(stage: Stage) -> SlotRoute {
    SlotRoute {
        first: backend_id("B"),
        second: (stage != Stage::Steady).then(|| backend_id("A")),
        stage,
        left: staterouter::handover::Places::NONE,
        replica: None,
    }
}

fn stage(name: &str) -> Stage {
    let known = STAGES.iter().find(|(known, _)| *known == name);
    known.unwrap_or_else(|| panic!("{name} is no stage")).1
}

fn request(name: &str) -> ClientRequest {
    let (operation, cookie) = name.split_once(' ').unwrap_or((name, ""));
    let cookie = || match cookie {
        "0" => Cookie::Untagged(0),
        "u" => Cookie::Untagged(CLIENT_UNTAGGED),
        at => Cookie::Tagged {
            backend_id: backend_id(at),
            counter: CLIENT_LOCK,
        },
    };
    match operation {
        "read" => ClientRequest::Read,
        "touch" => ClientRequest::Touch,
        "acquire" | "begin" => ClientRequest::Acquire,
        "create" => ClientRequest::Create,
        "put" => ClientRequest::Put(cookie()),
        "release" => ClientRequest::Release(cookie()),
        "remove" => ClientRequest::Remove(cookie()),
        _ => panic!("{name} is no request"),
    }
}

/// All requests of a slot in `stage`, by name. A steady slot has no place A.
fn requests(stage: Stage) -> Vec<String> {
    let mut names: Vec<String> = ["read", "touch", "acquire", "create"]
        .map(str::to_owned)
        .into();
    for operation in ["put", "release", "remove"] {
        names.extend(COOKIES.map(|cookie| format!("{operation} {cookie}")));
    }
    names.retain(|name| stage != Stage::Steady || !name.ends_with('A'));
    names
}

fn lock_name(at: BackendId, counter: u32) -> &'static str {
    match counter {
        0 => "0",
        COPY_LOCK => "copy",
        FIRST_LOCK if at == backend_id("A") => "a",
        FIRST_LOCK => "b",
        CLIENT_LOCK => "c",
        CLIENT_UNTAGGED => "u",
        LOCK_AT_A => "a",
        LOCK_AT_B => "b",
        LOCK_IN_THE_WAY => "d",
        NO_LOCK => "none",
        _ => panic!("lock {counter} came from nowhere"),
    }
}

/// The answer of this name to `ask`.
fn seen(name: &str, ask: Subrequest) -> SubrequestReply {
    let done = |flag| SubrequestReply::Done {
        counter: match ask {
            Subrequest::Client { at, .. } | Subrequest::Acquire { at } if at == backend_id("A") => {
                LOCK_AT_A
            }
            Subrequest::Client { .. } | Subrequest::Acquire { .. } => LOCK_AT_B,
            _ => NO_LOCK,
        },
        flag,
    };
    let locked = |age_s| SubrequestReply::Locked {
        counter: LOCK_IN_THE_WAY,
        age_s,
    };
    match name {
        "200" => done(false),
        "new" => done(true),
        "404" => SubrequestReply::Absent,
        "423" => locked(MOVER_S - 1),
        "old" => locked(MOVER_S),
        "no" => SubrequestReply::Refused,
        "lost" => SubrequestReply::Unknown,
        _ => panic!("{name} is no answer"),
    }
}

/// The same to an acquire of `request`, which may be the first one of the session.
fn seen_by(request: &str, name: &str, ask: Subrequest) -> SubrequestReply {
    match (seen(name, ask), ask) {
        (
            SubrequestReply::Done { flag, .. },
            Subrequest::Client { .. } | Subrequest::Acquire { .. },
        ) if request == "begin" => {
            let counter = FIRST_LOCK;
            SubrequestReply::Done { counter, flag }
        }
        (seen, _) => seen,
    }
}

fn with(text: String, at: BackendId, counter: Option<u32>) -> String {
    match counter {
        Some(counter) => format!("{text} with {}", lock_name(at, counter)),
        None => text,
    }
}

fn ask_text(ask: Subrequest) -> String {
    let text = |what: &str, at, counter| with(format!("{what} {}", place_name(at)), at, counter);
    match ask {
        Subrequest::Client { at, counter } => text("ask", at, counter),
        Subrequest::Acquire { at } => text("fetch", at, None),
        Subrequest::Look { at } => text("look", at, None),
        Subrequest::Insert { at } => text("insert", at, None),
        Subrequest::Release { at, counter } => text("release", at, Some(counter)),
        Subrequest::Remove { at, counter } => text("remove", at, Some(counter)),
        Subrequest::NoteDelete { to } => text("note", to, None),
        Subrequest::Copy { at } => text("copy", at, None),
        Subrequest::CopyHeld { at } => text("copy found", at, None),
        Subrequest::Recall { at } => text("recall", at, None),
        Subrequest::Refresh { at, from: None } => text("refresh", at, None),
        Subrequest::Refresh {
            at,
            from: Some(from),
        } => format!("{} from {}", text("refresh", at, None), place_name(from)),
        Subrequest::CopyAnew { at, from } => {
            format!("{} from {}", text("copy anew", at, None), place_name(from))
        }
        Subrequest::Miss { at } => text("miss", at, None),
    }
}

/// How a request ends; not for [`Step::Ask`].
fn end_text(step: Step) -> String {
    let (end, behind) = match step {
        Step::Ask(ask) => panic!("{ask:?} is no end"),
        Step::Forward { at, counter } => {
            let text = format!("forward {}", place_name(at));
            (with(text, at, counter), None)
        }
        Step::Pass { clear_flag, behind } => {
            let text = if clear_flag { "pass plain" } else { "pass" };
            (text.to_owned(), behind)
        }
        Step::Drop { reason, behind } => {
            let reason = match reason {
                Refusal::Unknown => "unknown",
                Refusal::Suspect => "suspect",
                Refusal::Returning => "returning",
                Refusal::LockOutOfReach => "lock",
                Refusal::Moving => "moving",
                Refusal::CopyMissed => "copy missed",
                Refusal::Unheard => "peers unheard",
                Refusal::CopyLocked => "copy locked",
                Refusal::Restless => "restless",
                Refusal::BegunAnew => "begun anew",
            };
            (format!("drop {reason}"), behind)
        }
    };
    match behind {
        Some(ask) => format!("{end} + {}", ask_text(ask)),
        None => end,
    }
}

/// Every way a request can go, each with its end.
#[derive(Default)]
struct Ways(BTreeMap<String, String>);

impl Ways {
    /// Those of a request in a slot of this name.
    fn walk(&mut self, slot: (&str, SlotRoute), request_name: &str) {
        let start = RequestMachine::start(slot.1, request(request_name), MOVER_S);
        let way = format!("{} | {request_name} |", slot.0);
        self.go_on((request_name, start.1), start, None, way);
    }

    fn go_on(
        &mut self,
        (request, first): (&str, Step),
        at: (RequestMachine, Step),
        asked: Option<Subrequest>,
        way: String,
    ) {
        let (search, step) = at;
        let Step::Ask(ask) = step else {
            self.add(way, end_text(step));
            return;
        };
        if step == first && asked.is_some_and(|ask| is_last_before_again(ask, &way)) {
            self.add(way, "again".to_owned());
            return;
        }
        for answer in ANSWERS {
            let mut search = search;
            let next = search.next(seen_by(request, answer, ask));
            let way = format!("{way} {} = {answer},", ask_text(ask));
            self.go_on((request, first), (search, next), Some(ask), way);
        }
    }

    fn add(&mut self, way: String, end: String) {
        if let Some(other) = self.0.insert(way.clone(), end.clone()) {
            panic!("two ends of {way} {other} and {end}");
        }
    }
}

/// A request begins anew when it has found, by a look at the first place, that its item has moved.
/// An acquire gives back the lock of what it got from the second place before that.
fn is_last_before_again(ask: Subrequest, way: &str) -> bool {
    matches!(ask, Subrequest::Release { at, .. } if at == backend_id("A"))
        || ask
            == Subrequest::Look {
                at: backend_id("B"),
            }
            && !is_taken(way)
}

/// The first place has the item of a move although it did not take it: it is asked for that one.
fn is_taken(way: &str) -> bool {
    let mut questions = way.split(',').rev().skip(2);
    let before = questions.next();
    before.is_some_and(|question| question.trim().starts_with("insert"))
}

/// The rows of a table: cells between bars, comments and empty lines left out.
fn rows(table: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    let lines = table
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split('|').map(str::trim).collect())
}

/// The requests that a cell of the rules names.
fn named_requests(cell: &str, all: &[String]) -> Vec<String> {
    let mut named = Vec::new();
    let mut words = cell.split(' ').peekable();
    while let Some(word) = words.next() {
        let cookie = words.next_if(|next| COOKIES.contains(next));
        let name = cookie.map_or(word.to_owned(), |cookie| format!("{word} {cookie}"));
        named.extend(all.iter().filter(|known| match name.as_str() {
            "every" => true,
            "find" => ["read", "touch", "acquire", "begin"].contains(&known.as_str()),
            name => *known == name || known.split(' ').next() == Some(name),
        }));
    }
    let named: Vec<String> = named.into_iter().cloned().collect();
    assert!(!named.is_empty(), "{cell} names no request");
    named
}

fn named_answers(cell: &str) -> Vec<&'static str> {
    let one = |name: &str| -> Vec<&'static str> {
        match name {
            "ok" => vec!["200", "new"],
            "locked" => vec!["423", "old"],
            "?" => vec!["no", "lost"],
            "bad" => vec!["423", "old", "no", "lost"],
            "any" => ANSWERS.to_vec(),
            name => ANSWERS.into_iter().filter(|known| *known == name).collect(),
        }
    };
    let named: Vec<_> = cell.split(' ').flat_map(one).collect();
    assert!(!named.is_empty(), "{cell} names no answer");
    named
}

/// All ways that a row's questions and answers stand for.
fn named_ways(cell: &str) -> Vec<String> {
    let mut ways = vec![String::new()];
    for question in cell.split(',').filter(|question| !question.is_empty()) {
        let (ask, answers) = question.split_once('=').unwrap();
        let next = |way: &String| {
            let one = |answer| format!("{way} {} = {answer},", ask.trim());
            named_answers(answers.trim())
                .into_iter()
                .map(one)
                .collect::<Vec<_>>()
        };
        ways = ways.iter().flat_map(next).collect();
    }
    ways
}

/// One row of the rules.
struct Row {
    /// What other rows go on with, empty for a row that begins.
    name: &'static str,
    stages: &'static str,
    requests: &'static str,
    questions: &'static str,
    end: &'static str,
}

impl Row {
    fn new(cells: &[&'static str]) -> Self {
        let [stages, requests, questions, end] = cells[..] else {
            panic!("no row of four cells: {cells:?}");
        };
        let (name, questions) = questions.split_once(':').unwrap_or(("", questions));
        Self {
            name,
            stages,
            requests,
            questions,
            end,
        }
    }

    fn is_about(&self, stage_name: &str, request: &str) -> bool {
        let is_of_stage = self.stages.split(' ').any(|known| known == stage_name);
        is_of_stage
            && named_requests(self.requests, &requests(stage(stage_name)))
                .iter()
                .any(|known| known == request)
    }
}

fn written_down() -> Ways {
    let rows = rows(RULES).filter(|cells| cells.len() == 4);
    let rows: Vec<Row> = rows.map(|cells| Row::new(&cells)).collect();
    let mut ways = Ways::default();
    for row in rows.iter().filter(|row| row.name.is_empty()) {
        for stage_name in row.stages.split(' ') {
            for request in named_requests(row.requests, &requests(stage(stage_name))) {
                let begun = format!("{stage_name} | {request} |");
                go_on_as_written(&rows, row, (stage_name, &request), &begun, &mut ways);
            }
        }
    }
    ways
}

/// Adds the ways that begin with `begun` and the questions of `row`.
fn go_on_as_written(
    rows: &[Row],
    row: &Row,
    (stage_name, request): (&str, &str),
    begun: &str,
    ways: &mut Ways,
) {
    for way in named_ways(row.questions) {
        let way = format!("{begun}{way}");
        let Some(name) = row.end.strip_prefix("then ") else {
            ways.add(way, row.end.to_owned());
            continue;
        };
        let next = rows
            .iter()
            .filter(|next| next.name == name && next.is_about(stage_name, request));
        for next in next {
            go_on_as_written(rows, next, (stage_name, request), &way, ways);
        }
    }
}

#[test]
fn every_request_goes_its_way_as_it_is_written_down() {
    let mut gone = Ways::default();
    for stage in STAGES {
        for request in requests(stage.1) {
            gone.walk((stage.0, route(stage.1)), &request);
        }
    }
    assert_same(gone, written_down());
}

/// What is done and what is written down is the same.
fn assert_same(gone: Ways, written: Ways) {
    let text = |ways: Ways| -> BTreeSet<String> {
        let lines = ways.0.into_iter().map(|(way, end)| format!("{way} {end}"));
        lines.collect()
    };
    let (gone, written) = (text(gone), text(written));
    let only = |one: &BTreeSet<String>, other| -> String {
        one.difference(other)
            .take(20)
            .map(|way| format!("{way}\n"))
            .collect()
    };
    let (unwritten, not_gone) = (only(&gone, &written), only(&written, &gone));
    assert!(
        unwritten.is_empty() && not_gone.is_empty(),
        "not written down:\n{unwritten}\nwritten down, but not so:\n{not_gone}"
    );
}

/// Each time the item was found to have moved away.
#[test]
fn a_request_begins_anew_three_times_at_most() {
    for (stage, name, answers) in [
        (Stage::Settle, "acquire", &["404", "200", "200", "200"][..]),
        (Stage::Settle, "read", &["404", "200", "200"]),
    ] {
        let (mut search, mut step) = RequestMachine::start(route(stage), request(name), MOVER_S);
        let first = step;
        for _ in 0..4 {
            assert_eq!(step, first);
            for answer in answers {
                let Step::Ask(ask) = step else {
                    panic!("{name} ended early: {step:?}");
                };
                step = search.next(seen(answer, ask));
            }
        }
        assert_eq!(end_text(step), "drop restless");
    }
}

/// One item on a state server, as far as costs depend on it.
#[derive(Clone, Copy, Default)]
struct Item {
    is_new: bool,
    is_locked: bool,
}

/// Three state servers and one item.
struct World {
    items: BTreeMap<BackendId, Item>,
    request: ClientRequest,
    /// Whether an acquire gets the first lock of the session.
    is_first_lock: bool,
}

impl World {
    /// `item` is the place of the item, with `new` in front if nobody has read it yet.
    fn new(item: &str, request: ClientRequest) -> Self {
        let is_new = item.starts_with("new ");
        let at = item.trim_start_matches("new ");
        let is_locked = matches!(
            request,
            ClientRequest::Put(_) | ClientRequest::Release(_) | ClientRequest::Remove(_)
        );
        let item = Item { is_new, is_locked };
        let items = (at != "none").then(|| (backend_id(at), item));
        Self {
            items: items.into_iter().collect(),
            request,
            is_first_lock: false,
        }
    }

    fn answer(&mut self, ask: Subrequest) -> SubrequestReply {
        let (at, is_look) = match ask {
            Subrequest::Client { at, .. } => (at, self.request == ClientRequest::Touch),
            Subrequest::Acquire { at } => (at, false),
            Subrequest::Look { at } => (at, true),
            // Nobody holds the copy: the cookie opens nothing, and the flag goes.
            Subrequest::Release { at, .. } => {
                let Some(copy) = self.items.get_mut(&at) else {
                    return seen("404", ask);
                };
                copy.is_new = false;
                return seen("200", ask);
            }
            Subrequest::Insert { at } => {
                let copy = Item {
                    is_new: true,
                    is_locked: false,
                };
                self.items.entry(at).or_insert(copy);
                return seen("200", ask);
            }
            Subrequest::Remove {
                at,
                counter: NO_LOCK,
            } => {
                return match self.items.get(&at) {
                    None => seen("404", ask),
                    Some(item) if item.is_locked => seen("423", ask),
                    Some(_) => {
                        self.items.remove(&at);
                        seen("200", ask)
                    }
                };
            }
            Subrequest::Remove {
                at,
                counter: COPY_LOCK,
            } => {
                let removed = self.items.remove(&at);
                return seen(if removed.is_some() { "200" } else { "404" }, ask);
            }
            Subrequest::Copy { at } | Subrequest::CopyHeld { at } => {
                self.items.insert(at, Item::default());
                return seen("200", ask);
            }
            Subrequest::Recall { at } => (at, false),
            ask => panic!("{ask:?} costs nobody anything here"),
        };
        let Some(item) = self.items.get_mut(&at) else {
            let is_stored = matches!(
                (ask, self.request),
                (Subrequest::Client { .. }, ClientRequest::Put(_))
            );
            return seen(if is_stored { "200" } else { "404" }, ask);
        };
        if is_look {
            return seen("200", ask);
        }
        if item.is_locked && matches!(self.request, ClientRequest::Read | ClientRequest::Acquire) {
            return seen("423", ask);
        }
        item.is_locked |= self.request == ClientRequest::Acquire;
        seen_by(
            if self.is_first_lock { "begin" } else { "" },
            if std::mem::take(&mut item.is_new) {
                "new"
            } else {
                "200"
            },
            ask,
        )
    }

    /// What the request costs, as the table says it.
    fn cost(mut self, route: SlotRoute) -> String {
        let (mut search, mut step) = RequestMachine::start(route, self.request, MOVER_S);
        let mut trips = 0;
        loop {
            match step {
                // A note on disk, not a round trip.
                Step::Ask(Subrequest::NoteDelete { .. }) => {
                    step = search.next(SubrequestReply::Done {
                        counter: 0,
                        flag: false,
                    })
                }
                Step::Ask(ask) => {
                    trips += 1;
                    step = search.next(self.answer(ask));
                }
                Step::Forward { .. } => return format!("{}", trips + 1),
                Step::Pass { behind: None, .. } => return format!("{trips}"),
                Step::Pass {
                    behind: Some(_), ..
                } => return format!("{trips}+1"),
                Step::Drop { .. } => return format!("-{trips}"),
            }
        }
    }
}

#[test]
fn every_request_costs_what_is_written_down() {
    let mut rows = rows(COSTS);
    let head = rows.next().unwrap();
    for row in rows.take_while(|row| row[0] != "request") {
        for (stage_name, expected) in head[2..].iter().zip(&row[2..]) {
            if expected.is_empty() {
                continue;
            }
            let world = World::new(row[1], request(row[0]));
            let cost = world.cost(route(stage(stage_name)));
            assert_eq!(cost, *expected, "{} of {} in {stage_name}", row[0], row[1]);
        }
    }
}
