//! The same for a slot with a replica: what becomes of each way that a request goes without one.

use staterouter::handover::{ReplicaPhase, ReplicaRoute, SlotRoute, Stage};

use super::{
    COSTS, Item, RULES, Row, STAGES, Ways, World, assert_same, backend_id, named_requests,
    named_ways, request, requests, route, rows, written_down,
};

/// What a request may know of the replica, by the name that the rules have for it: its phase,
/// whether the item has a copy there, and whether that one needs no keep-alive.
const REPLICAS: [(&str, ReplicaPhase, bool, bool); 8] = [
    ("chosen", ReplicaPhase::Chosen, false, false),
    ("joining", ReplicaPhase::Joining, false, false),
    ("filling", ReplicaPhase::Filling, false, false),
    ("copied", ReplicaPhase::Filling, true, true),
    ("copied-idle", ReplicaPhase::Filling, true, false),
    ("full", ReplicaPhase::Full, true, true),
    ("full-idle", ReplicaPhase::Full, true, false),
    ("dropping", ReplicaPhase::Dropping, true, false),
];

/// What a request goes on as in front of a replica.
struct Place<'a> {
    replica: &'a str,
    stage: &'a str,
    request: &'a str,
}

/// The row of a replica: like any other, with the replicas it is about in front.
struct ReplicaRow {
    replicas: Vec<&'static str>,
    stages: Vec<&'static str>,
    requests: Vec<String>,
    row: Row,
}

/// How a request would end without a replica.
struct Plain {
    end: String,
    /// Where a forwarded request would have gone, and under which lock.
    to: String,
}

fn route_with(stage: Stage, replica: usize) -> SlotRoute {
    let (_, phase, has_copy, is_fresh) = REPLICAS[replica];
    SlotRoute {
        replica: Some(ReplicaRoute {
            at: backend_id("R"),
            phase,
            since_ms: 0,
            has_copy,
            is_fresh,
        }),
        ..route(stage)
    }
}

/// All requests of a slot, and the acquire that gets the first lock of its session.
fn all_requests(stage: Stage) -> Vec<String> {
    let mut names = requests(stage);
    names.push("begin".to_owned());
    names
}

impl ReplicaRow {
    fn new(cells: &[&'static str]) -> Self {
        let (replicas, cells) = cells.split_first().unwrap();
        let row = Row::new(cells);
        assert!(!row.name.is_empty(), "{} follows nothing", row.questions);
        let stages = match row.stages {
            "all" => STAGES.map(|(name, _)| name).to_vec(),
            stages => stages.split(' ').collect(),
        };
        Self {
            replicas: replicas.split(' ').collect(),
            stages,
            requests: named_requests(row.requests, &all_requests(Stage::Settle)),
            row,
        }
    }

    fn is_about(&self, name: &str, place: &Place<'_>) -> bool {
        self.row.name == name
            && self.replicas.contains(&place.replica)
            && self.stages.contains(&place.stage)
            && self.requests.iter().any(|it| it == place.request)
    }
}

impl Plain {
    fn new(end: &str) -> Self {
        let to = end.strip_prefix("forward ").unwrap_or_default();
        let (end, to) = (end.to_owned(), to.to_owned());
        Self { end, to }
    }

    /// The text of a row about this end.
    fn fill_in(&self, text: &str) -> String {
        let place = self.to.split(' ').next().unwrap_or_default();
        let text = text.replace("as before", &self.end);
        text.replace('X', &self.to).replace('Y', place)
    }

    /// What the rows call it.
    fn name(&self, way: &str, request: &str) -> &'static str {
        let last = way.trim_end_matches(',').rsplit([',', '|']).next();
        let (ask, answer) = last
            .and_then(|last| last.split_once(" = "))
            .unwrap_or(("", ""));
        let is_client = ask.trim().starts_with("ask ");
        match self.end.split(' ').next() {
            Some("forward") => "forward",
            Some("pass") if request == "begin" && is_client && answer == "200" => "first",
            Some("pass") if !["200", "new"].contains(&answer) => "",
            Some("pass") if self.end.contains('+') => "moved",
            Some("pass") => "found",
            _ => "",
        }
    }
}

/// Adds the ways that go on behind `begun` with the rows of this name, if there are any.
fn go_on(
    rows: &[ReplicaRow],
    name: &str,
    place: &Place<'_>,
    (begun, plain): (&str, &Plain),
    ways: &mut Ways,
) -> bool {
    let mut is_known = false;
    for ReplicaRow { row, .. } in rows.iter().filter(|row| row.is_about(name, place)) {
        is_known = true;
        for way in named_ways(&plain.fill_in(row.questions)) {
            let way = format!("{begun}{way}");
            match row.end.strip_prefix("then ") {
                Some(next) => {
                    let is_known = go_on(rows, next, place, (&way, plain), ways);
                    assert!(is_known, "no row goes on with {next} of {}", place.replica);
                }
                None => ways.add(way, plain.fill_in(row.end)),
            }
        }
    }
    is_known
}

fn written_down_with_replicas() -> Ways {
    let rows = rows(RULES).filter(|cells| cells.len() == 5);
    let rows: Vec<_> = rows.map(|cells| ReplicaRow::new(&cells)).collect();
    let mut ways = Ways::default();
    for (way, end) in written_down().0 {
        let (stage, rest) = way.split_once(" | ").unwrap();
        let (request, questions) = rest.split_once(" |").unwrap();
        let plain = Plain::new(&end);
        let first = (request == "acquire").then_some("begin");
        for request in [request].into_iter().chain(first) {
            for (replica, ..) in REPLICAS {
                let place = Place {
                    replica,
                    stage,
                    request,
                };
                let begun = format!("{stage} {replica} | {request} |{questions}");
                let name = plain.name(&way, request);
                if !go_on(&rows, name, &place, (&begun, &plain), &mut ways) {
                    ways.add(begun, end.clone());
                }
            }
        }
    }
    ways
}

#[test]
fn every_request_of_a_slot_with_a_replica_goes_its_way_as_it_is_written_down() {
    let mut gone = Ways::default();
    for (stage_name, stage) in STAGES {
        for (index, (replica, ..)) in REPLICAS.into_iter().enumerate() {
            let slot = format!("{stage_name} {replica}");
            for request in all_requests(stage) {
                gone.walk((&slot, route_with(stage, index)), &request);
            }
        }
    }
    assert_same(gone, written_down_with_replicas());
}

#[test]
fn every_request_of_a_slot_with_a_replica_costs_what_is_written_down() {
    let mut rows = rows(COSTS).skip(1).skip_while(|row| row[0] != "request");
    let head = rows.next().unwrap();
    for row in rows {
        for (name, expected) in head[2..].iter().zip(&row[2..]) {
            if expected.is_empty() {
                continue;
            }
            let index = REPLICAS.iter().position(|replica| replica.0 == *name);
            let route = route_with(Stage::Steady, index.unwrap());
            let has_copy = route.replica.unwrap().has_copy;
            let (at_place, is_lost) = match row[1] {
                "lost" => ("none", true),
                item => (item, false),
            };
            let mut world = World::new(at_place, request(row[0]));
            world.is_first_lock = row[0] == "begin";
            if is_lost || (at_place == "B" && has_copy) {
                world.items.insert(backend_id("R"), Item::default());
            }
            let cost = world.cost(route);
            assert_eq!(cost, *expected, "{} of {} with {name}", row[0], row[1]);
        }
    }
}
