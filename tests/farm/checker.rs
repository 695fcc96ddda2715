//! The farm finds exactly the fault a server has, and none where there is none.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mini_state_server.rs"]
mod mini_state_server;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use mini_state_server::Fault;
use staterouter::farm::{
    self, BadSecond, FarmOptions, FarmReport, FarmStats, PageMix, RunEnd, Stop,
};

fn options(target: SocketAddr) -> FarmOptions {
    FarmOptions {
        targets: vec![target],
        clients: 8,
        sessions: 5,
        end: RunEnd::Pages(1500),
        body: "112..600".parse().unwrap(),
        mix: PageMix {
            abandon: 10,
            ..PageMix::default()
        },
        poll_interval: Duration::from_millis(1),
        ..FarmOptions::default()
    }
}

fn run(options: FarmOptions) -> FarmReport {
    farm::run(options, &Stop::default(), &Arc::default()).unwrap()
}

fn violations(report: &FarmReport) -> Vec<(&str, u64)> {
    let all = report.violations.iter();
    all.map(|(&kind, finding)| (kind, finding.count))
        .filter(|&(_, count)| count > 0)
        .collect()
}

#[track_caller]
fn assert_finds(fault: Fault, kind: &str) {
    assert_found(&run(options(mini_state_server::start(fault))), kind);
}

#[track_caller]
fn assert_found(report: &FarmReport, kind: &str) {
    // Each request that was under way at the fault may meet it and say so.
    let found = violations(report);
    assert!(
        matches!(found[..], [(only, 1..)] if only == kind),
        "{found:?}: {report:#?}"
    );
    assert!(!report.is_clean());
    let example = &report.violations[kind].examples[0];
    assert_eq!(example.session.len(), 8);
}

#[test]
fn a_correct_server_has_no_violations_however_hard_its_locks_are_fought_for() {
    let report = run(FarmOptions {
        clients: 100,
        threads: 2,
        ..options(mini_state_server::start(Fault::None))
    });
    assert_eq!(violations(&report), []);
    assert!(
        report.is_clean() && report.failures.is_empty(),
        "{report:#?}"
    );
    assert_eq!(report.pages, 1500);
    assert!(report.lock_waits > 0 && report.new_sessions >= 5);
    assert_eq!(report.session_starts, report.new_sessions);
    let sweep = report.sweep.unwrap();
    assert!(sweep.read >= 5 && sweep.unread == 0, "{sweep:?}");
}

#[test]
fn a_lost_session_is_found() {
    // Alone: another request could meet the session made in its place before the loss is known.
    let report = run(FarmOptions {
        clients: 1,
        ..options(mini_state_server::start(Fault::LoseSession))
    });
    assert_found(&report, "lost");
    let seconds = report.bad_seconds.iter();
    let lost: u64 = seconds.map(|second| second.lost_sessions).sum();
    assert_eq!(lost, report.violations["lost"].count);
}

#[test]
fn outdated_contents_are_found() {
    assert_finds(Fault::OlderBody, "stale");
}

#[test]
fn a_forgotten_removal_is_found() {
    // Alone: beside another request it could pass for the session that one is making.
    let report = run(FarmOptions {
        clients: 1,
        ..options(mini_state_server::start(Fault::ForgetRemoval))
    });
    assert_found(&report, "resurrected");
}

#[test]
fn a_lock_handed_out_twice_is_found() {
    let report = run(FarmOptions {
        end: RunEnd::Pages(60),
        hold: Duration::from_millis(50),
        ..options(mini_state_server::start(Fault::DoubleLock))
    });
    assert_found(&report, "double_lock");
}

#[test]
fn a_changed_byte_is_found() {
    assert_finds(Fault::FlipByte, "corrupt");
}

#[test]
fn a_false_start_is_found() {
    // Alone: beside another request the flag could be that of the session that one is making.
    let report = run(FarmOptions {
        clients: 1,
        ..options(mini_state_server::start(Fault::FlagLive))
    });
    assert_found(&report, "false_start");
}

#[test]
fn a_missed_start_is_found() {
    // Alone: beside another request the flag might be in that one's answer.
    let report = run(FarmOptions {
        clients: 1,
        ..options(mini_state_server::start(Fault::HideFlag))
    });
    assert_found(&report, "missed_start");
}

#[test]
fn a_refused_write_is_found() {
    // Alone: another request could see the lock freed without a write before the refusal is known.
    let report = run(FarmOptions {
        clients: 1,
        ..options(mini_state_server::start(Fault::RefuseWrite))
    });
    assert_found(&report, "refused_write");
}

#[test]
fn a_write_under_somebody_elses_lock_is_found() {
    // Two pages that break each other's locks: while one writes, the other one holds.
    let report = run(FarmOptions {
        clients: 2,
        sessions: 1,
        end: RunEnd::Pages(100),
        hold: Duration::from_millis(20),
        execution_timeout: Duration::ZERO,
        ..options(mini_state_server::start(Fault::StaleWrite))
    });
    assert_found(&report, "stale_write");
}

#[test]
fn broken_connections_and_takeovers_are_no_violations() {
    let report = run(FarmOptions {
        // Every waiter breaks the lock it waits for.
        execution_timeout: Duration::ZERO,
        ..options(mini_state_server::start(Fault::DropAnswers))
    });
    assert_eq!(violations(&report), [], "{report:#?}");
    assert!(report.failures["closed"] > 0 && report.takeovers > 0);
    assert!(report.failed_pages > 0);
    // Every failed page is in one of the seconds.
    let seconds = &report.bad_seconds;
    let failed: u64 = seconds.iter().map(|second| second.failed_pages).sum();
    assert_eq!(failed, report.failed_pages);
    assert!(seconds.is_sorted_by_key(|second| second.second));
    let of = |second: &BadSecond| second.second;
    let seconds = (seconds.first().map(of), seconds.last().map(of));
    let in_seconds = |at_ms: Option<u64>| at_ms.map(|at_ms| at_ms / 1000);
    let (first, last) = (report.first_failed_page_ms, report.last_failed_page_ms);
    assert_eq!(seconds, (in_seconds(first), in_seconds(last)));
}

#[test]
fn the_open_loop_counts_pages_against_the_clock() {
    let report = run(FarmOptions {
        pages_per_s: Some(5000.0),
        end: RunEnd::Pages(500),
        ..options(mini_state_server::start(Fault::None))
    });
    assert_eq!((report.pages, violations(&report)), (500, vec![]));
    assert!(report.worst_lag_ms.is_some() && report.page_latency.count > 0);
    assert!(report.elapsed_ms >= 99, "{}", report.elapsed_ms);
}

#[test]
fn several_targets_share_the_sessions() {
    let one = mini_state_server::start(Fault::None);
    let report = run(FarmOptions {
        targets: vec![one, one],
        seed: Some(7),
        ..options(one)
    });
    assert_eq!((report.seed, violations(&report)), (7, vec![]));
    // Two servers that do not know of each other's sessions are no replacement for one.
    let report = run(FarmOptions {
        targets: vec![one, mini_state_server::start(Fault::None)],
        poll_interval: Duration::from_micros(100),
        execution_timeout: Duration::ZERO,
        ..options(one)
    });
    assert!(!report.is_clean());
}

#[test]
fn a_stopped_run_ends_and_reports() {
    let stop = Stop::default();
    let stats = Arc::<FarmStats>::default();
    let options = FarmOptions {
        end: RunEnd::WhenStopped,
        ..options(mini_state_server::start(Fault::None))
    };
    let report = std::thread::scope(|scope| {
        let running = scope.spawn(|| farm::run(options, &stop, &stats));
        while stats.counts().pages < 10 {
            std::thread::yield_now();
        }
        stop.stop();
        running.join().unwrap().unwrap()
    });
    assert!(report.pages >= 10 && report.is_clean());
}

#[test]
fn a_target_nobody_listens_at_is_an_error() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = nobody.local_addr().unwrap();
    drop(nobody);
    let error = farm::run(options(target), &Stop::default(), &Arc::default());
    assert!(matches!(error, Err(farm::FarmError::Unreachable { .. })));
}
