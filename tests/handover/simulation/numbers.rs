//! Times and bounds of production that these worlds go by: each is read where production has it.

use std::time::Duration;

use staterouter::admin::AdminOptions;
use staterouter::backend::removal;
use staterouter::config::{Config, PEER_SILENCE};
use staterouter::control::{event_loop, persist::replay};
use staterouter::proxy::snapshot;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    /// What a request of a client may take, and what of it a connection may.
    pub(crate) answer_ms: u64,
    pub(crate) connect_ms: u64,
    /// How long a request waits for a server that is down.
    pub(crate) hold_ms: u64,
    /// Younger locks may belong to a mover.
    pub(crate) mover_s: u64,
    pub(crate) probe_ms: u64,
    pub(crate) probe_timeout_ms: u64,
    /// How often peers are asked, and how long they may take.
    pub(crate) round_ms: u64,
    pub(crate) peer_timeout_ms: u64,
    /// What a peer has said counts for so long.
    pub(crate) silent_ms: u64,
    /// How often control looks what was missed.
    pub(crate) tick_ms: u64,
    /// Until a server is told again of what it has missed.
    pub(crate) replay_pause_ms: u64,
    /// How often a removal is repeated because of another lock.
    pub(crate) max_locks: u64,
}

impl Numbers {
    pub(crate) fn of(config: &Config) -> Self {
        let admin = AdminOptions::default();
        Self {
            answer_ms: ms(config.timeouts.answer),
            connect_ms: ms(config.timeouts.connect),
            hold_ms: ms(config.handover.hold),
            mover_s: snapshot::mover_s(&config.timeouts),
            probe_ms: ms(config.health.interval),
            probe_timeout_ms: ms(config.health.timeout),
            round_ms: ms(admin.ask_every),
            peer_timeout_ms: ms(admin.ask_timeout),
            silent_ms: ms(PEER_SILENCE),
            tick_ms: ms(event_loop::TICK),
            replay_pause_ms: replay::PAUSE_MS,
            max_locks: removal::MAX_LOCKS as u64,
        }
    }
}

fn ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
}
