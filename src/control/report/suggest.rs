//! What would bring every backend under a share of its capacity: `GET /plan?suggest=PERCENT`.

use serde::{Deserialize, Serialize};

use super::load::{Load, Loads};
use crate::config::BackendState;
use crate::control::pool_state::{PoolMember, PoolState};
use crate::route::{PlacementError, Room, shares, suggest_more, suggest_weights};

/// Ways to bring every backend under a share of its capacity, with what lives there now. Shares are
/// those that the placement gives, to the slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Suggestion {
    /// The share of its capacity that no backend is to use more of.
    pub percent: f64,
    /// Whether that is so already, when all sessions are where the map in force wants them.
    pub fits: bool,
    /// The active backends as they are.
    pub now: Vec<SuggestedBackend>,
    /// More backends that would do; `null` where no number of them would.
    pub more: Option<More>,
    /// Other weights of the present backends that would do, in their order; `null` where none would.
    pub weights: Option<Vec<SuggestedBackend>>,
}

/// More backends of a kind that is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct More {
    /// How many.
    pub backends: usize,
    /// The present backend whose weight and capacity each of them has.
    pub like: String,
    /// The share of its capacity that the fullest of all would use.
    pub highest_used_percent: f64,
}

/// A backend with a weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SuggestedBackend {
    /// Its name.
    pub name: String,
    /// The weight.
    pub weight: u32,
    /// The share of its capacity that it uses with that weight.
    pub used_percent: f64,
}

/// Why nothing can be suggested.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SuggestError {
    /// Nobody knows how many sessions there are.
    #[error("this proxy has counted no sessions yet, so there is nothing to go by")]
    NothingCounted,
    /// The map does not say how much a backend can hold.
    #[error("nothing is known of the capacity of {backend}: write it into the partition map")]
    NoCapacity {
        /// The backend.
        backend: String,
    },
    /// The map in force gives no placement.
    #[error(transparent)]
    Placement(#[from] PlacementError),
}

/// Ways to bring every backend of `pool_state` under `percent` of its capacity.
///
/// # Errors
/// [`SuggestError`].
pub fn suggest(
    pool_state: &PoolState,
    percent: f64,
    loads: &Loads,
) -> Result<Suggestion, SuggestError> {
    let key = pool_state.map().hash_key;
    let rooms = rooms(pool_state, percent, loads)?;
    let used = |room: &Room<'_>, share: f64| share / room.max_share * percent;
    let backend = |(room, (weight, share)): (&Room<'_>, (u32, f64))| SuggestedBackend {
        name: room.name.to_owned(),
        weight,
        used_percent: used(room, share),
    };
    let present = shares(key, &rooms)?;
    let present = rooms.iter().map(|room| room.weight).zip(present);
    let now: Vec<_> = rooms.iter().zip(present).map(backend).collect();
    let fits = now.iter().all(|backend| backend.used_percent <= percent);
    let mut suggestion = Suggestion {
        percent,
        fits,
        now,
        more: None,
        weights: None,
    };
    let smallest = rooms
        .iter()
        .min_by(|a, b| a.max_share.total_cmp(&b.max_share));
    if let Some(&like) = smallest.filter(|_| !fits) {
        let weights = suggest_weights(key, &rooms)?;
        let listed = |weights: Vec<(u32, f64)>| rooms.iter().zip(weights).map(backend).collect();
        suggestion.weights = weights.map(listed);
        let more = suggest_more(key, &rooms, like)?;
        suggestion.more = more.map(|(backends, shares)| {
            let all = rooms.iter().chain(std::iter::repeat(&like));
            let highest = all.zip(shares).map(|(room, share)| used(room, share));
            More {
                backends,
                like: like.name.to_owned(),
                highest_used_percent: highest.fold(0.0, f64::max),
            }
        });
    }
    Ok(suggestion)
}

/// The active backends, and the part of all sessions that `percent` of each one's capacity is.
fn rooms<'e>(
    pool_state: &'e PoolState,
    percent: f64,
    loads: &Loads,
) -> Result<Vec<Room<'e>>, SuggestError> {
    // Those that are drained hold sessions that will be at others.
    let all = pool_state.members().iter();
    let all = all.map(|member| loads.of(&member.spec.name));
    let sum = |of: fn(&Load) -> Option<u64>| all.clone().filter_map(|load| of(&load)).sum::<u64>();
    let (sessions, bytes) = (sum(|load| load.sessions), sum(|load| load.bytes));
    if sessions == 0 {
        return Err(SuggestError::NothingCounted);
    }
    // A backend keeps copies as it serves sessions: in proportion to its weight.
    let copies = u64::from(pool_state.map().replicas);
    let all_of_them = Load {
        sessions: Some(sessions),
        bytes: Some(bytes),
        copies: Some(copies * sessions),
        copy_bytes: Some(copies * bytes),
        room_bytes: None,
    };
    let members = pool_state.members().iter();
    let active =
        members.filter(|member| member.in_map && member.spec.state == BackendState::Active);
    let room = |member: &'e PoolMember| {
        let name = member.spec.name.as_str();
        let there = Load {
            room_bytes: loads.of(name).room_bytes,
            ..all_of_them
        };
        let used = there.used_percent(member.spec.capacity);
        let used = used.filter(|used| *used > 0.0);
        let used = used.ok_or_else(|| SuggestError::NoCapacity {
            backend: name.to_owned(),
        })?;
        Ok(Room {
            name,
            weight: member.spec.weight.into(),
            max_share: percent / used,
        })
    };
    active.map(room).collect()
}
