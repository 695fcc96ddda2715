//! What follows what in control. The control thread takes these steps with files, sockets and tasks
//! around them, the simulation with virtual time and messages.
//!
//! Every step is tried on a copy of the pool state. It counts once it is on disk; only then the data
//! path goes by it, and once that is certain the peers are told.

use std::ptr;

use super::pool_state::{Notice, PoolState};
use crate::health::{Change, HealthState};
use crate::route::Slot;

/// Something that decides about a pool.
pub trait ControlSteps {
    /// Why a state cannot be put in force.
    type Error;

    /// Unix time in milliseconds, never decreasing.
    fn now_ms(&self) -> u64;

    /// What is in force.
    fn pool_state(&mut self) -> &mut PoolState;

    /// Nothing is decided by what peers said too long ago, however long control was held up.
    fn forget_silent_peers(&mut self, now_ms: u64);

    /// Learns what it goes by besides: how long sessions live.
    fn learn(&mut self, now_ms: u64);

    /// Whether every worker goes by all that is in force, and no copy is under way of what is at a
    /// backend that is left ([`PoolState::copies_have_ended`]). From then on the peers are told of it.
    fn look_whether_followed(&mut self) -> bool;

    /// Whether clients may be served from now on, who were not before.
    fn meets_peers(&mut self, now_ms: u64) -> bool;

    /// Tells `next` which replicas have missed something; those slots, and what there is to say.
    fn look_at_copies(&mut self, next: &mut PoolState, now_ms: u64) -> (Vec<Slot>, Vec<Notice>);

    /// The data path may store anew from copies what a place has lost, until this time
    /// ([`PoolState::restores_until_ms`]).
    fn allow_restores(&mut self, until_ms: Option<u64>);

    /// What was missed could not be written down: it counts until it is.
    fn keep_missed(&mut self, missed: &[Slot]);

    /// Takes the slots of `next` on to where they are now, if anybody is served.
    fn take_on(&self, next: &mut PoolState, now_ms: u64) -> Vec<Notice>;

    /// Whether a state in which stages go on is to be written down although nothing has changed.
    fn is_due(&self, now_ms: u64) -> bool;

    /// Writes `next` down, then shows it to the data path.
    ///
    /// # Errors
    /// The state before stays in force.
    fn write_and_show(&mut self, next: &PoolState) -> Result<(), Self::Error>;

    /// Whether a state is in force; says why not.
    fn is_written(&mut self, put: Result<(), Self::Error>) -> bool;

    /// Shows the data path what has changed of a state that is in force: who is up, and where.
    fn show(&mut self);

    /// Probes the backends that are in use.
    fn follow_backends(&mut self);

    /// Forgets the pending deletes of backends that get none any more
    /// ([`PoolState::keeps_pending_deletes`]).
    fn forget_pending_deletes(&mut self);

    /// Tells backends what they have missed ([`PoolState::gets_pending_deletes`]).
    fn replay_pending_deletes(&mut self, now_ms: u64);

    /// There is something to say.
    fn tell(&mut self, notices: &[Notice], now_ms: u64);

    /// Everything else that is done with each tick.
    fn look_around(&mut self, now_ms: u64);

    /// A backend went down, or is up again: an outage may be shorter than the time between two ticks.
    fn see_outage(&mut self, now_ms: u64);

    /// Shows everybody else what is in force.
    fn publish(&mut self);

    /// Lets the clients in.
    fn serve(&mut self);

    /// Looks what the time has changed.
    fn tick(&mut self) {
        let now_ms = self.now_ms();
        self.forget_silent_peers(now_ms);
        self.learn(now_ms);
        let is_followed = self.look_whether_followed();
        self.pool_state().set_followed(is_followed);
        if is_followed {
            // No worker goes by slots from before what the peers have said.
            let until_ms = self.pool_state().restores_until_ms();
            self.allow_restores(until_ms);
        }
        let may_serve = self.meets_peers(now_ms);
        self.advance();
        self.look_around(now_ms);
        self.replay_pending_deletes(now_ms);
        self.publish();
        // What the peers said until now is in force.
        if may_serve {
            self.serve();
        }
    }

    /// Takes the slots on to where they are now.
    fn advance(&mut self) {
        let now_ms = self.now_ms();
        self.forget_silent_peers(now_ms);
        self.pool_state().look_for_failed_moves(now_ms);
        let mut next = self.pool_state().clone();
        let (missed, mut notices) = self.look_at_copies(&mut next, now_ms);
        notices.extend(self.take_on(&mut next, now_ms));
        // They are copied when one changes.
        let has_moved = !ptr::eq(next.slots(), self.pool_state().slots());
        // One that only another proxy still needed goes while no slot changes here. What is pending
        // for it goes with it.
        let has_forgotten = next.members().len() != self.pool_state().members().len();
        let is_due = next.is_under_way() && self.is_due(now_ms);
        if notices.is_empty() && !has_moved && !has_forgotten && !is_due {
            // What has been said of it may be over, and is news when it comes again.
            *self.pool_state() = next;
        } else if self.try_to_put_in_force(next) {
            self.tell(&notices, now_ms);
        } else {
            self.keep_missed(&missed);
        }
    }

    /// The health of a backend has changed.
    fn follow_health(&mut self, change: &Change) {
        if change.from == HealthState::Down || change.to == HealthState::Down {
            let now_ms = self.now_ms();
            self.see_outage(now_ms);
            self.advance();
            self.show();
            self.pool_state().set_followed(false);
            self.follow_backends();
        }
        self.publish();
    }

    /// Puts a state in force that was changed by other files or an order; what there is to say of it.
    ///
    /// # Errors
    /// The state before stays in force.
    fn put_changed(&mut self, mut next: PoolState) -> Result<Vec<Notice>, Self::Error> {
        let now_ms = self.now_ms();
        let notices = self.take_on(&mut next, now_ms);
        self.put_in_force(next)?;
        Ok(notices)
    }

    /// Puts a state in force.
    ///
    /// # Errors
    /// The state before stays in force.
    fn put_in_force(&mut self, next: PoolState) -> Result<(), Self::Error> {
        self.write_and_show(&next)?;
        *self.pool_state() = next;
        self.pool_state().set_followed(false);
        self.follow_backends();
        self.forget_pending_deletes();
        Ok(())
    }

    /// The same; whether it is in force.
    fn try_to_put_in_force(&mut self, next: PoolState) -> bool {
        let put = self.put_in_force(next);
        self.is_written(put)
    }
}
