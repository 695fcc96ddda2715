//! What peers are told of the backends, and what control looks at for their sake.

use super::{PoolMember, PoolState};
use crate::handover::BackendId;

/// What peers are told of the backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldBackends {
    /// Those that it reaches.
    pub up: Vec<BackendId>,
    /// Those that hold what must not be served: removals that they missed, or what was given up with
    /// them.
    pub pending: Vec<BackendId>,
    /// Those that its map or its operators have given up, by name.
    pub off: Vec<String>,
    /// Those that it serves from no more before what they held has died.
    pub gone: Vec<BackendId>,
}

impl PoolState {
    /// What peers are told of the backends.
    pub fn told_backends(&self) -> ToldBackends {
        let members = || self.members.iter();
        let up = members().filter(|member| member.is_up() && !member.is_off());
        let behind =
            members().filter(|member| member.pending_deletes > 0 || self.is_given_up(member));
        let off = members().filter(|member| member.is_off());
        ToldBackends {
            up: up.map(|member| member.backend_id).collect(),
            pending: behind.map(|member| member.backend_id).collect(),
            off: off.map(|member| member.spec.name.clone()).collect(),
            gone: self.gone(),
        }
    }

    /// Whether no copy is under way any more of what is at a backend that is served from no more.
    pub fn copies_have_ended(&self, is_under_way: impl Fn(BackendId) -> bool) -> bool {
        self.members.iter().all(|member| {
            let is_served = member.is_up() && !member.is_off();
            is_served || !is_under_way(member.backend_id)
        })
    }

    /// Whether a backend still gets the deletes that it has missed. Nothing is pending for one that no
    /// slot needs, that was given up, or whose id another one has now.
    pub fn keeps_pending_deletes(&self, backend_id: BackendId) -> bool {
        self.member(backend_id)
            .is_some_and(|member| !member.is_off())
    }

    /// The backends that can be told of the deletes that they have missed.
    pub fn gets_pending_deletes(&self) -> impl Iterator<Item = &PoolMember> {
        let members = self.members.iter();
        members.filter(|member| {
            member.pending_deletes > 0 && member.is_up() && member.address().is_some()
        })
    }
}
