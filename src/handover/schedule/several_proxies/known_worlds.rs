//! Worlds that once went wrong, as events at so many ticks after the one before.

use super::*;

fn up(id: u8) -> Event {
    Event::Server { id, up: true }
}

fn down(id: u8) -> Event {
    Event::Server { id, up: false }
}

fn target(id: u8) -> Event {
    Event::Target { id, leaves: false }
}

fn proxy(proxy: usize, on: bool) -> Event {
    Event::Proxy { proxy, on }
}

fn link(proxy: usize, on: bool) -> Event {
    Event::Link { proxy, on }
}

fn keeper(id: u8, on: bool) -> Event {
    Event::Keeper { id, on }
}

#[test]
fn a_note_of_what_was_left_before_is_not_renewed() -> Result<(), TestCaseError> {
    let events = [
        (5, target(3)),
        (0, down(2)),
        (32, target(3)),
        (62, down(2)),
        (59, proxy(0, true)),
        (
            52,
            Event::View {
                proxy: 0,
                id: 1,
                up: true,
            },
        ),
        (54, proxy(0, true)),
        (50, keeper(4, false)),
        (1, down(1)),
    ];
    play_with_replicas(2, &events)
}

#[test]
fn nobody_takes_what_a_silent_proxy_copies_to() -> Result<(), TestCaseError> {
    let events = [
        (5, down(1)),
        (13, keeper(4, false)),
        (1, down(1)),
        (
            0,
            Event::View {
                proxy: 0,
                id: 4,
                up: false,
            },
        ),
        (54, target(1)),
        (57, down(1)),
        (59, up(2)),
        (48, proxy(2, false)),
        (0, keeper(3, false)),
        (0, keeper(2, false)),
        (0, keeper(1, false)),
        (49, target(1)),
        (23, target(3)),
        (65, down(1)),
        (65, target(1)),
        (2, down(1)),
    ];
    play_with_replicas(3, &events)
}

#[test]
fn a_handover_that_has_begun_again_elsewhere_has_ended() -> Result<(), TestCaseError> {
    let events = [
        (62, proxy(0, true)),
        (59, target(1)),
        (36, up(1)),
        (61, target(2)),
        (61, target(1)),
        (40, target(1)),
        (60, link(0, false)),
        (37, target(1)),
        (34, keeper(1, false)),
        (28, target(1)),
        (25, target(1)),
        (18, down(2)),
        (0, target(1)),
        (14, target(1)),
    ];
    play_with_replicas(3, &events)
}

#[test]
fn nobody_returns_to_a_place_that_another_waits_for() -> Result<(), TestCaseError> {
    let events = [
        (
            47,
            Event::View {
                proxy: 0,
                id: 1,
                up: true,
            },
        ),
        (25, keeper(1, false)),
        (62, down(2)),
        (26, up(1)),
        (57, link(0, false)),
        (0, down(1)),
        (0, target(1)),
        (36, target(1)),
        (35, down(1)),
        (37, up(1)),
        (44, down(2)),
        (55, down(3)),
        (6, target(1)),
    ];
    play_with_replicas(2, &events)
}

#[test]
fn who_follows_keeps_what_it_has_noted_itself() -> Result<(), TestCaseError> {
    let events = [
        (12, Event::Miss { proxy: 2 }),
        (10, link(0, false)),
        (0, target(2)),
        (3, target(3)),
        (55, target(1)),
        (60, target(3)),
        (33, Event::Copies { proxy: 0, last: 0 }),
        (23, target(1)),
        (33, target(1)),
        (37, target(4)),
        (0, up(1)),
        (0, down(1)),
    ];
    play_with_replicas(3, &events)
}

#[test]
fn who_was_silent_follows_one_whose_next_place_fails() -> Result<(), TestCaseError> {
    let events = [
        (39, up(1)),
        (32, down(2)),
        (40, target(1)),
        (27, down(2)),
        (30, down(2)),
        (56, link(0, false)),
        (0, down(1)),
        (0, down(2)),
        (14, target(1)),
        (0, down(4)),
        (41, proxy(1, false)),
        (34, down(3)),
        (16, target(1)),
        (57, up(1)),
        (52, target(1)),
    ];
    play_with_replicas(3, &events)
}
