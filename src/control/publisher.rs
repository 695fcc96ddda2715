//! What control keeps in order to show it, and the channel on which it does.

use std::sync::Arc;

use tokio::sync::watch;

use super::handle::Published;
use super::in_force::InForce;
use super::pool_state::{Notice, PoolState};
use super::publish::{About, Known, Reasons, Sources};
use super::report::history::Recorder;
use super::report::noticed::Noticed;
use super::report::pauses::Counts;
use super::report::status::{LastReload, PeerStatus};
use super::report::usage_estimates::UsageEstimates;
use crate::config::LogLevel;
use crate::metrics::{Metrics, Reloads};
use crate::usage::Account;

/// Decides nothing. Invariant: what is wrong has one list, [`Noticed`] and what the status shows,
/// and everybody reads that.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) about: About,
    pub(super) published: watch::Sender<Arc<Published>>,
    /// Why each backend counts as what it does.
    pub(super) reasons: Reasons,
    pub(super) accounting: UsageEstimates,
    pub(super) last_reload: Option<LastReload>,
    pub(super) reloads: Reloads,
    pub(super) history: Recorder,
    pub(super) noticed: Noticed,
    /// What the workers count.
    pub(super) metrics: Arc<Metrics>,
}

impl Publisher {
    /// Shows everybody else `pool_state`, whose slots are as `in_force` has them.
    pub(super) fn publish(
        &mut self,
        pool_state: &PoolState,
        in_force: &InForce,
        peers: Vec<PeerStatus>,
        now_ms: u64,
    ) {
        let published = self.about.publish(Known {
            pool_state,
            in_force: in_force.slots(),
            followed: in_force.followed(),
            sources: Sources::new(&self.reasons, &self.accounting, &self.noticed.engines),
            last_reload: self.last_reload.clone(),
            reloads: self.reloads,
            peers,
            history: self.history.history(),
            noticed: self.noticed.findings(pool_state, now_ms),
            last_failover: pool_state
                .last_failover()
                .map(|failover| self.noticed.pauses.status(failover)),
            contended_sessions: self.noticed.web_farm.contended_sessions(now_ms),
            certificates: self.noticed.certificates.states(),
            since: &mut self.noticed.since,
        });
        self.published.send_replace(Arc::new(published));
    }

    /// Counts the sessions of each backend, and tells the pool state.
    pub(super) fn count_sessions(
        &mut self,
        account: &Account,
        pool_state: &mut PoolState,
        now_ms: u64,
    ) {
        self.accounting.follow(account, pool_state, now_ms);
        let load_of = |member: &super::pool_state::PoolMember| {
            let served = self.accounting.served(member.backend_id);
            (member.backend_id, served.map(|served| served.sessions))
        };
        let counted: Vec<_> = pool_state.members().iter().map(load_of).collect();
        for (backend_id, sessions) in counted {
            pool_state.set_sessions(backend_id, sessions);
        }
    }

    /// Remembers what the workers have counted until now.
    pub(super) fn sample(&mut self, pool_state: &PoolState, now_ms: u64) {
        let members = pool_state.members().iter();
        let backends = members.map(|member| (member.backend_id, &member.metrics));
        let unplaced = || self.metrics.unplaced();
        self.history.sample(now_ms, unplaced, backends);
        let members = pool_state.members().iter();
        let lost = members.map(|member| (member.backend_id, member.metrics.absent_while_away()));
        self.noticed.lost.follow(lost, now_ms);
        let members = pool_state.members().iter();
        let restored = members.map(|member| (member.backend_id, member.metrics.restored()));
        self.noticed.restored.follow(restored, now_ms);
    }

    /// Looks whether all web servers go on.
    pub(super) fn follow_web_servers(&mut self, now_ms: u64) {
        let web_servers = self.metrics.web_servers();
        self.noticed.web_farm.follow(web_servers, now_ms);
    }

    /// Says of an outage that is over how long requests waited, and how many failed.
    pub(super) fn follow_pauses(&mut self, pool_state: &PoolState, now_ms: u64) {
        let members = pool_state.members();
        let failed: u64 = members.iter().map(|member| member.metrics.failed()).sum();
        let counts = Counts {
            held: self.metrics.held(),
            failed: failed + self.metrics.unplaced().1,
        };
        let down = members.iter().filter(|member| !member.is_up());
        let down = down.map(|member| member.spec.name.as_str());
        let failover = pool_state.last_failover();
        let told = self.noticed.pauses.follow(counts, down, failover, now_ms);
        self.tell(told.as_slice(), now_ms);
    }

    /// Logs what is new in the slots, and remembers it.
    pub(super) fn tell(&mut self, notices: &[Notice], now_ms: u64) {
        self.history.note_slots(notices, now_ms);
        for Notice { level, text } in notices {
            match level {
                LogLevel::Error => tracing::error!("{text}"),
                LogLevel::Warn => tracing::warn!("{text}"),
                LogLevel::Info => tracing::info!("{text}"),
                LogLevel::Debug => tracing::debug!("{text}"),
                LogLevel::Trace => tracing::trace!("{text}"),
            }
        }
    }
}
