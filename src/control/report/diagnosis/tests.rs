use super::*;
use crate::control::report::finding::{Code, Level};
use crate::control::report::status::example::{status, under_way};
use crate::control::report::status::{LastReload, ReloadOutcome, StageCounts};

/// What is found in a status with one more field or another value here and there.
fn found(change: impl FnOnce(&mut Status)) -> Vec<Finding> {
    let mut status = status();
    change(&mut status);
    diagnose(&status, &History::default())
}

#[track_caller]
fn only(change: impl FnOnce(&mut Status)) -> Finding {
    let found = found(change);
    assert_eq!(found.len(), 1, "{found:#?}");
    found[0].clone()
}

#[test]
fn where_nothing_is_wrong_nothing_is_found() {
    assert_eq!(found(|_| {}), []);
    assert_eq!(
        found(|status| {
            // What it said last counts for nothing.
            status.backends[0].state = ServiceState::Off;
            status.backends[0].verdict = BackendHealth::Down;
        }),
        []
    );
}

#[test]
fn a_backend_that_is_down_is_one_finding_and_what_happens_to_its_sessions_another() {
    let down = |status: &mut Status| {
        status.backends[0].verdict = BackendHealth::Down;
        status.backends[0].reason = Some("3 failures in a row".to_owned());
    };
    let finding = only(down);
    assert_eq!(finding.code, Code::BackendDown);
    assert_eq!(finding.about.as_deref(), Some("state-a"));
    assert_eq!(finding.says, "state-a is down: 3 failures in a row");
    assert_eq!(finding.since_ms, Some(500_000));

    let refuses = |status: &mut Status| {
        down(status);
        status.backends[0].slots_refused = 4096;
        status.under_way = vec![under_way(Stage::Suspect, 990_000, 1_010_000, None)];
    };
    let refusal = |change: &dyn Fn(&mut Status)| {
        let found = found(|status| {
            refuses(status);
            change(status);
        });
        let refused = found.into_iter();
        let refused = refused.filter(|it| it.code == Code::RequestsRefused);
        refused.collect::<Vec<_>>().remove(0)
    };
    let refused = refusal(&|_| {});
    assert!(
        refused.says.contains("25.0 % of the sessions"),
        "{refused:?}"
    );
    assert!(refused.means.contains("state-b stands in"), "{refused:?}");
    assert_eq!(refused.until_ms, Some(1_010_000));
    assert!(refused.means.contains("error pages"), "{refused:?}");
    // Just after the fall nobody sees an error page yet.
    let waits = refusal(&|status| status.backends[0].waits_until_ms = Some(1_000_001));
    assert!(
        waits.says.contains("25.0 % of the sessions wait"),
        "{waits:?}"
    );
    assert!(waits.means.contains("state-b stands in"), "{waits:?}");
    assert!(!waits.means.contains("error"), "{waits:?}");
    let over = refusal(&|status| status.backends[0].waits_until_ms = Some(1_000_000));
    assert_eq!(over.means, refused.means);
    // Nobody can say when, or nobody can stand in at all.
    let silent = refusal(&|status| {
        status.peers = vec![PeerStatus {
            address: "peer:1".to_owned(),
            failure: Some("gone".to_owned()),
            map_version: None,
            overrides_differ: false,
            gone: false,
        }];
    });
    assert_eq!(silent.until_ms, None);
    let alone = refusal(&|status| status.backends[1].verdict = BackendHealth::Down);
    assert!(alone.means.contains("no other backend"), "{alone:?}");
    assert_eq!(alone.until_ms, None);

    // It is off and may be well: nobody is sent to start it, and nothing is about to stand in.
    let off = refusal(&|status| {
        status.backends[0].verdict = BackendHealth::Up;
        status.backends[0].state = ServiceState::Off;
    });
    assert!(off.says.contains("state-a is off"), "{off:?}");
    assert!(off.action.contains("backend state-a activate"), "{off:?}");
    assert_eq!(off.until_ms, None);

    let both = found(|status| {
        down(status);
        status.under_way = vec![under_way(Stage::Away, 600_000, 700_000, None)];
    });
    let away = both.iter().find(|it| it.code == Code::FailedOver).unwrap();
    assert!(away.means.contains("start anew"), "{away:?}");
    assert_eq!(away.until_ms, None);
}

#[test]
fn a_pool_that_serves_nothing_says_so() {
    // Nobody asks one that is off, so its verdict stays.
    let second = [
        (ServiceState::Active, BackendHealth::Down, 3),
        (ServiceState::Off, BackendHealth::Up, 2),
    ];
    for (state, verdict, count) in second {
        let found = found(|status| {
            status.backends[0].verdict = BackendHealth::Down;
            let backend = &mut status.backends[1];
            (backend.state, backend.verdict) = (state, verdict);
        });
        assert_eq!(found.len(), count, "{found:#?}");
        assert_eq!(found[0].code, Code::NoBackend);
        assert!(found[0].code.keeps_from_serving());
    }
    assert_eq!(only(|status| status.backends.clear()).code, Code::NoBackend);
}

#[test]
fn a_backend_that_is_full_or_soon_is_found() {
    for (used, seconds_to_full, code) in [
        (75.0, Some(3_601), None),
        (89.9, None, None),
        (75.0, Some(1_800), Some(Code::BackendFillsUp)),
        (90.0, None, Some(Code::BackendFillsUp)),
        (100.0, Some(0), Some(Code::BackendFull)),
    ] {
        let found = found(|status| {
            let load = &mut status.backends[1].load;
            load.used_percent = Some(used);
            load.seconds_to_full = seconds_to_full;
        });
        let codes: Vec<_> = found.iter().map(|finding| finding.code).collect();
        assert_eq!(codes, Vec::from_iter(code), "{used} {seconds_to_full:?}");
    }
}

#[test]
fn what_was_refused_or_is_silent_or_differs_is_found() {
    let last = |result, faults: &[&str], needs_restart: &[&str]| LastReload {
        at_ms: 900_000,
        outcome: ReloadOutcome {
            result,
            map_version: 7,
            faults: faults.iter().copied().map(str::to_owned).collect(),
            needs_restart: needs_restart.iter().copied().map(str::to_owned).collect(),
        },
    };
    let refused = only(|status| {
        let faults = ["map.yaml:3:5: bad\n  |", "other"];
        status.last_reload = Some(last(ReloadResult::Refused, &faults, &[]));
    });
    assert_eq!(refused.code, Code::ReloadRefused);
    assert!(
        refused.says.ends_with("map.yaml:3:5: bad (and 1 more)"),
        "{refused:?}"
    );
    let restart = only(|status| {
        status.last_reload = Some(last(ReloadResult::Applied, &[], &["listen"]));
    });
    assert_eq!(
        (restart.code, restart.level),
        (Code::RestartNeeded, Level::Info)
    );

    let peer = |failure: Option<&str>, map_version, overrides_differ| PeerStatus {
        address: "peer:1".to_owned(),
        failure: failure.map(str::to_owned),
        map_version,
        overrides_differ,
        gone: false,
    };
    for (peer, code) in [
        (peer(Some("gone"), None, false), Code::ProxySilent),
        (peer(None, Some(6), false), Code::MapsDiffer),
        (peer(None, Some(7), true), Code::OverridesDiffer),
    ] {
        let finding = only(|status| status.peers = vec![peer]);
        assert_eq!(finding.code, code);
        assert_eq!(finding.about.as_deref(), Some("peer:1"));
    }
    assert_eq!(
        found(|status| status.peers = vec![peer(None, Some(7), false)]),
        []
    );
}

#[test]
fn a_handover_is_no_fault_until_it_is_held_up() {
    let moving = only(|status| {
        let ends_ms = Some(1_500_000);
        status.under_way = vec![under_way(Stage::Move2, 500_000, 1_500_000, ends_ms)];
    });
    assert_eq!((moving.code, moving.level), (Code::Moving, Level::Info));
    assert_eq!(
        (moving.since_ms, moving.until_ms),
        (Some(500_000), Some(1_500_000))
    );
    let held_up = found(|status| {
        status.under_way = vec![under_way(Stage::Settle, 100_000, 130_000, Some(2_000_000))];
    });
    assert_eq!(held_up[0].code, Code::HandoverHeldUp);
    assert_eq!(held_up[0].since_ms, Some(130_000));
}

#[test]
fn a_backend_without_sessions_is_waited_for_or_may_be_stopped() {
    let idle = |state| {
        found(|status| {
            let backend = &mut status.backends[1];
            backend.state = state;
            backend.verdict = BackendHealth::Down;
            backend.slots_in = StageCounts::default();
        })
    };
    let awaited = idle(ServiceState::Active);
    assert_eq!(awaited.len(), 1, "{awaited:#?}");
    assert_eq!(awaited[0].code, Code::BackendAwaited);
    assert!(awaited[0].says.contains("50.0 % of the sessions"));
    for state in [ServiceState::Drain, ServiceState::Removed] {
        assert_eq!(idle(state), [], "{state}");
    }
    let unasked = only(|status| {
        let backend = &mut status.backends[1];
        backend.reason = Some("it has not been asked yet".to_owned());
        backend.slots_in = StageCounts::default();
        backend.slots_waiting = 8192;
    });
    assert_eq!(unasked.code, Code::BackendAwaited);
}
