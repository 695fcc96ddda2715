use proptest::prelude::*;

use super::*;

const THRESHOLDS: Thresholds = Thresholds {
    fall: 3,
    rise: 2,
    flap_window_ms: 600_000,
    max_rise: 16,
};

/// A backend, and the time that passes between its events.
struct Scene {
    health: Health,
    now_ms: u64,
    answered: u64,
}

impl Scene {
    fn new() -> Self {
        Self {
            health: Health::new(THRESHOLDS, 1_000),
            now_ms: 1_000,
            answered: 0,
        }
    }

    fn good(&mut self) -> Option<Change> {
        self.now_ms += 2_000;
        self.health.probe_ok(self.now_ms)
    }

    fn bad(&mut self) -> Option<Change> {
        self.bad_because(Failure::Refused)
    }

    fn bad_because(&mut self, failure: Failure) -> Option<Change> {
        self.now_ms += 2_000;
        self.health
            .probe_failed(failure, self.answered, self.now_ms)
    }

    fn request_fails(&mut self) -> Option<Change> {
        self.now_ms += 1;
        self.health
            .request_failed(Failure::Late, self.answered, self.now_ms)
    }

    fn fall(&mut self) {
        let to_down = (0..100).any(|_| self.bad().is_some_and(|c| c.to == HealthState::Down));
        assert!(to_down);
    }

    /// The number of good probes until it is up.
    fn rise(&mut self) -> u32 {
        let mut count = 1;
        while self.good().is_none() {
            count += 1;
            assert!(count < 10_000, "it never comes up");
        }
        count
    }
}

fn change(from: HealthState, to: HealthState, reason: Reason) -> Option<Change> {
    Some(Change { from, to, reason })
}

const fn failures(count: u32, last: Failure) -> Reason {
    Reason::Failures { count, last }
}

#[test]
fn an_unknown_backend_is_up() {
    let mut scene = Scene::new();
    assert_eq!(scene.health.verdict(), HealthState::Up);
    assert_eq!(scene.good(), None);
    assert_eq!(scene.health.since_ms(), 1_000);
}

#[test]
fn failures_in_a_row_take_it_down_and_good_probes_bring_it_back() {
    use HealthState::{Down, Suspect, Up};
    let mut scene = Scene::new();
    let refused = |count| failures(count, Failure::Refused);
    assert_eq!(scene.bad(), change(Up, Suspect, refused(1)));
    assert_eq!(scene.bad(), None);
    assert_eq!(scene.health.verdict(), Suspect);
    let third = scene.bad_because(Failure::Late);
    assert_eq!(third, change(Suspect, Down, failures(3, Failure::Late)));
    assert_eq!(scene.health.since_ms(), scene.now_ms);

    assert_eq!(scene.good(), None);
    assert_eq!(scene.health.verdict(), Down);
    let count = 2;
    let back = change(Down, Up, Reason::GoodProbes { count });
    assert_eq!(scene.good(), back);
    assert_eq!(scene.health.since_ms(), scene.now_ms);
}

#[test]
fn a_good_probe_ends_a_row_of_failures() {
    let mut scene = Scene::new();
    for _ in 0..10 {
        assert!(scene.bad().is_some());
        assert_eq!(scene.bad(), None);
        let one = Reason::GoodProbes { count: 1 };
        let up = change(HealthState::Suspect, HealthState::Up, one);
        assert_eq!(scene.good(), up);
    }
    assert_eq!(scene.health.since_ms(), 1_000, "it served all the time");
}

#[test]
fn one_that_is_suspect_is_doubted_until_it_answers_or_is_down() {
    let mut scene = Scene::new();
    let is_doubted = |scene: &Scene| scene.health.is_doubted(scene.answered);
    assert!(!is_doubted(&scene));
    scene.bad();
    assert!(is_doubted(&scene));
    scene.answered += 1;
    assert!(!is_doubted(&scene), "it serves, and is too busy for probes");
    scene.bad();
    assert!(is_doubted(&scene));
    scene.good();
    assert!(!is_doubted(&scene));
    scene.fall();
    assert!(!is_doubted(&scene), "it is down for certain");
}

#[test]
fn a_failed_probe_ends_a_row_of_good_ones() {
    let mut scene = Scene::new();
    scene.fall();
    let down_ms = scene.now_ms;
    for _ in 0..10 {
        assert_eq!(scene.good(), None);
        assert_eq!(scene.bad(), None);
    }
    assert_eq!(scene.health.since_ms(), down_ms);
    assert_eq!(scene.rise(), 2);
}

#[test]
fn failed_requests_count_with_failed_probes() {
    let mut scene = Scene::new();
    assert!(scene.request_fails().is_some());
    assert_eq!(scene.bad(), None);
    let down = change(
        HealthState::Suspect,
        HealthState::Down,
        failures(3, Failure::Late),
    );
    assert_eq!(scene.request_fails(), down);
}

#[test]
fn requests_that_are_answered_start_the_count_anew() {
    let mut scene = Scene::new();
    for _ in 0..20 {
        scene.answered += 1;
        scene.request_fails();
        scene.request_fails();
        assert_eq!(scene.health.verdict(), HealthState::Suspect);
    }
    let down = scene.request_fails();
    assert!(down.is_some_and(|change| change.to == HealthState::Down));
}

#[test]
fn a_backend_that_answers_requests_is_not_down_because_it_is_slow() {
    for failure in Failure::ALL {
        let mut scene = Scene::new();
        for _ in 0..20 {
            scene.answered += 1;
            scene.bad_because(failure);
        }
        // Something else at its address must not be given sessions, whatever it answers.
        let expected = match failure {
            Failure::Shortage => HealthState::Up,
            failure if failure.is_wrong_answer() => HealthState::Down,
            _ => HealthState::Suspect,
        };
        assert_eq!(scene.health.verdict(), expected, "{failure}");
    }
}

#[test]
fn what_the_proxy_is_short_of_says_nothing_about_a_backend() {
    let mut scene = Scene::new();
    for _ in 0..20 {
        assert_eq!(scene.bad_because(Failure::Shortage), None);
        let now_ms = scene.now_ms;
        let change = scene.health.request_failed(Failure::Shortage, 0, now_ms);
        assert_eq!(change, None);
    }
    assert!(!scene.health.is_known());
    // Nor does it hold up the rise.
    scene.fall();
    assert_eq!(scene.good(), None);
    scene.bad_because(Failure::Shortage);
    assert_eq!(scene.good().map(|change| change.to), Some(HealthState::Up));
}

#[test]
fn requests_from_before_the_fall_do_not_hold_up_the_rise() {
    let mut scene = Scene::new();
    scene.fall();
    assert_eq!(scene.good(), None);
    assert_eq!(scene.request_fails(), None);
    assert!(
        scene
            .good()
            .is_some_and(|change| change.to == HealthState::Up)
    );
}

#[test]
fn one_failure_is_enough_where_the_threshold_says_so() {
    let thresholds = Thresholds {
        fall: 1,
        rise: 1,
        ..THRESHOLDS
    };
    let mut health = Health::new(thresholds, 0);
    let down = change(
        HealthState::Up,
        HealthState::Down,
        failures(1, Failure::Broken),
    );
    assert_eq!(health.request_failed(Failure::Broken, 0, 1), down);
    let one = Reason::GoodProbes { count: 1 };
    assert_eq!(
        health.probe_ok(2),
        change(HealthState::Down, HealthState::Up, one)
    );
}

#[test]
fn every_quick_fall_doubles_the_rise_up_to_its_bound() {
    let mut scene = Scene::new();
    let rises: Vec<u32> = (0..40)
        .map(|_| {
            scene.fall();
            scene.rise()
        })
        .collect();
    assert_eq!(rises[..5], [2, 4, 8, 16, 16]);
    assert!(rises[5..].iter().all(|rise| *rise == 16));
}

#[test]
fn a_backend_that_stays_up_is_trusted_again() {
    let mut scene = Scene::new();
    for expected in [2, 4, 8] {
        scene.fall();
        assert_eq!(scene.rise(), expected);
    }
    // It falls 6 s after this.
    scene.now_ms += THRESHOLDS.flap_window_ms - 6_001;
    scene.fall();
    assert_eq!(scene.rise(), 16, "one millisecond too early");
    scene.now_ms += THRESHOLDS.flap_window_ms - 6_000;
    scene.fall();
    assert_eq!(scene.rise(), 2);
}

#[test]
fn the_first_fall_is_no_flap_however_soon_it_comes() {
    let mut scene = Scene::new();
    scene.fall();
    assert_eq!(scene.rise(), THRESHOLDS.rise);
}

#[test]
fn new_thresholds_hold_from_the_next_event_on() {
    let mut scene = Scene::new();
    scene.bad();
    scene.health.set_thresholds(Thresholds {
        fall: 2,
        rise: 3,
        ..THRESHOLDS
    });
    assert_eq!(scene.health.verdict(), HealthState::Suspect);
    assert!(
        scene
            .bad()
            .is_some_and(|change| change.to == HealthState::Down)
    );
    assert_eq!(scene.rise(), 3);
    scene.fall();
    scene.health.set_thresholds(Thresholds {
        rise: 1,
        max_rise: 1,
        ..THRESHOLDS
    });
    assert_eq!(scene.rise(), 1);
}

#[test]
fn reasons_read_as_a_part_of_a_log_line() {
    for (reason, text) in [
        (failures(1, Failure::Refused), "connection refused"),
        (
            failures(3, Failure::Late),
            "3 failures in a row, now no answer in time",
        ),
        (Reason::GoodProbes { count: 1 }, "a good probe"),
        (Reason::GoodProbes { count: 4 }, "4 good probes in a row"),
    ] {
        assert_eq!(reason.to_string(), text);
    }
}

#[test]
fn a_backend_is_known_as_soon_as_it_was_asked() {
    let new = || Health::new(THRESHOLDS, 0);
    assert!(!new().is_known());
    for tell in [
        |health: &mut Health| health.probe_ok(1),
        |health: &mut Health| health.probe_failed(Failure::Refused, 0, 1),
        |health: &mut Health| health.request_failed(Failure::Refused, 0, 1),
    ] {
        let mut health = new();
        tell(&mut health);
        assert!(health.is_known());
    }
}

#[test]
fn a_backend_has_answered_once_a_probe_was_good() {
    let mut scene = Scene::new();
    scene.bad();
    scene.request_fails();
    assert!(!scene.health.has_answered());
    scene.good();
    scene.fall();
    assert!(scene.health.has_answered());
    scene.answered += 1;
    scene.health.ask_anew(scene.answered);
    scene.bad();
    assert!(!scene.health.has_answered());
    assert_eq!(scene.health.verdict(), HealthState::Down);
}

#[test]
fn a_backend_that_answers_requests_while_its_probes_fail_has_answered() {
    let mut scene = Scene::new();
    scene.answered += 1;
    scene.bad_because(Failure::Garbage);
    assert!(!scene.health.has_answered());
    scene.answered += 1;
    scene.bad();
    assert!(scene.health.has_answered());
}

#[test]
fn a_suspect_backend_is_probed_sooner_and_never_later() {
    let middle = |interval_ms, is_suspect| {
        let pause_ms = pause_ms(interval_ms, is_suspect, 0);
        pause_ms * 5 / 4
    };
    assert_eq!(middle(2_000, false), 2_000);
    assert_eq!(middle(2_000, true), 500);
    assert_eq!(middle(400, true), 250);
    assert_eq!(middle(100, true), 100);
}

#[test]
fn jitter_reaches_a_fifth_to_either_side_and_no_further() {
    assert_eq!(jittered(2_000, 0), 1_600);
    assert_eq!(jittered(2_000, 400), 2_000);
    assert_eq!(jittered(2_000, 800), 2_400);
    assert_eq!(jittered(2_000, 801), 1_600);
    assert_eq!(jittered(0, u64::MAX), 0);
}

proptest! {
    #[test]
    fn jitter_stays_in_its_bounds(interval_ms in 0..=u64::MAX, random: u64) {
        let delay_ms = jittered(interval_ms, random);
        let spread_ms = interval_ms / 5;
        prop_assert!(delay_ms >= interval_ms - spread_ms);
        prop_assert!(delay_ms <= interval_ms.saturating_add(spread_ms));
    }

    /// Whatever happens: a change is one, it begins where the last one ended, down takes as many
    /// failures as the threshold says, and enough good probes end it.
    #[test]
    fn changes_follow_each_other(
        fall in 1_u32..5,
        rise in 1_u32..5,
        events in prop::collection::vec((0_u8..4, 0_u64..400_000), 0..200),
    ) {
        let thresholds = Thresholds { fall, rise, ..THRESHOLDS };
        let mut health = Health::new(thresholds, 0);
        let (mut now_ms, mut answered, mut last) = (0, 0, HealthState::Up);
        let (mut failed, mut good) = (0, 0);
        for (event, pause_ms) in events {
            now_ms += pause_ms;
            let changed = match event {
                0 => {
                    (failed, good) = (0, good + 1);
                    health.probe_ok(now_ms)
                }
                1 => {
                    (failed, good) = (failed + 1, 0);
                    health.probe_failed(Failure::Late, answered, now_ms)
                }
                2 => {
                    failed += 1;
                    health.request_failed(Failure::Broken, answered, now_ms)
                }
                _ => {
                    answered += 1;
                    None
                }
            };
            if let Some(Change { from, to, .. }) = changed {
                prop_assert_eq!(from, last);
                prop_assert!(to != from);
                prop_assert!(to != HealthState::Down || failed >= fall);
                prop_assert!(from != HealthState::Down || (to == HealthState::Up && good >= rise));
                last = to;
            }
            prop_assert_eq!(health.verdict(), last);
        }
        for _ in 0..THRESHOLDS.max_rise {
            health.probe_ok(now_ms);
        }
        prop_assert_eq!(health.verdict(), HealthState::Up);
    }
}
