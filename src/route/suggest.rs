//! Pools in which nobody has too much: other weights, or more backends.

use super::hash::{HashKey, SLOT_COUNT};
use super::member::{BackendIndex, MAX_WEIGHT, Member};
use super::placement::{MAX_MEMBERS, Placement, PlacementError};

/// Rounds in which weights are brought closer to what they should be: the ring gives shares that
/// are a few percent off.
const MAX_ROUNDS: usize = 32;

/// A backend, and how much it may have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Room<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its weight, 1 to [`MAX_WEIGHT`].
    pub weight: u32,
    /// The largest part of all sessions that it has room for, more than 0.0; 1.0 for all of them.
    pub max_share: f64,
}

/// Weights under which nobody has more than there is room for, each with the share that it brings;
/// in the order of `rooms`. `None` where there are none, or none are found.
///
/// # Errors
/// When `rooms` make no placement.
pub fn suggest_weights(
    key: HashKey,
    rooms: &[Room<'_>],
) -> Result<Option<Vec<(u32, f64)>>, PlacementError> {
    let total: f64 = rooms.iter().map(|room| room.max_share).sum();
    let largest = rooms.iter().map(|room| room.max_share).fold(0.0, f64::max);
    if total < 1.0 || largest <= 0.0 {
        return Ok(None);
    }
    // The largest gets the usual weight, unless the others were too small to be told apart.
    let mut exact: Vec<f64> = rooms
        .iter()
        .map(|room| room.max_share / largest * 100.0)
        .collect();
    for _ in 0..MAX_ROUNDS {
        let weights: Vec<u32> = exact.iter().map(|weight| rounded(*weight)).collect();
        let weighted = rooms.iter().zip(&weights);
        let weighted: Vec<_> = weighted
            .map(|(room, &weight)| Room { weight, ..*room })
            .collect();
        let shares = shares(key, &weighted)?;
        if fit(&weighted, &shares) {
            return Ok(Some(weights.into_iter().zip(shares).collect()));
        }
        for ((weight, share), room) in exact.iter_mut().zip(&shares).zip(rooms) {
            let wanted = room.max_share / total;
            *weight = (*weight * wanted / share.max(f64::EPSILON)).clamp(1.0, MAX_WEIGHT.into());
        }
    }
    Ok(None)
}

/// How many more backends like `like` are needed so that nobody has more than there is room for,
/// and the shares of all, those of `rooms` first; `None` if as many as a placement holds are too few.
///
/// # Errors
/// When `rooms` make no placement.
pub fn suggest_more(
    key: HashKey,
    rooms: &[Room<'_>],
    like: Room<'_>,
) -> Result<Option<(usize, Vec<f64>)>, PlacementError> {
    let names: Vec<String> = (1..=MAX_MEMBERS.saturating_sub(rooms.len()))
        .map(|number| format!("{}+{number}", like.name))
        .collect();
    let mut all = rooms.to_vec();
    for count in 0..=names.len() {
        if let Some(name) = count.checked_sub(1).and_then(|last| names.get(last)) {
            all.push(Room { name, ..like });
        }
        let total: f64 = all.iter().map(|room| f64::from(room.weight)).sum();
        let is_near = |room: &Room<'_>| f64::from(room.weight) / total <= room.max_share;
        // A placement takes time to build.
        if !all.iter().all(is_near) {
            continue;
        }
        let shares = shares(key, &all)?;
        if fit(&all, &shares) {
            return Ok(Some((count, shares)));
        }
    }
    Ok(None)
}

/// The part of all slots that each of them has.
///
/// # Errors
/// When they make no placement.
pub fn shares(key: HashKey, rooms: &[Room<'_>]) -> Result<Vec<f64>, PlacementError> {
    let member = |(room, index): (&Room<'_>, u8)| (room.name.to_owned(), room.weight, index);
    let members: Vec<_> = rooms.iter().zip(0..=u8::MAX).map(member).collect();
    let members: Vec<_> = members
        .iter()
        .map(|(name, weight, index)| Member {
            name,
            weight: *weight,
            backend: BackendIndex::new(*index),
        })
        .collect();
    let placement = Placement::build(key, &members)?;
    let mut shares = vec![0.0; rooms.len()];
    for share in placement.shares() {
        shares[share.backend.index()] = share.slots as f64 / SLOT_COUNT as f64;
    }
    Ok(shares)
}

fn fit(rooms: &[Room<'_>], shares: &[f64]) -> bool {
    let mut pairs = rooms.iter().zip(shares);
    pairs.all(|(room, share)| *share <= room.max_share)
}

fn rounded(weight: f64) -> u32 {
    (weight.round() as u32).clamp(1, MAX_WEIGHT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(name: &str, max_share: f64) -> Room<'_> {
        Room {
            name,
            weight: 100,
            max_share,
        }
    }

    #[test]
    fn weights_follow_the_room_there_is() {
        let rooms = [room("a", 0.15), room("b", 0.4), room("c", 0.6)];
        let weights = suggest_weights(HashKey::DEFAULT, &rooms).unwrap().unwrap();
        for ((weight, share), room) in weights.iter().zip(&rooms) {
            assert!((1..=MAX_WEIGHT).contains(weight), "{weights:?}");
            assert!(*share <= room.max_share, "{weights:?}");
        }
        assert!(weights[0].0 < weights[1].0 && weights[1].0 < weights[2].0);
        let again = weights.iter().zip(&rooms);
        let again: Vec<_> = again
            .map(|((weight, _), room)| Room {
                weight: *weight,
                ..*room
            })
            .collect();
        let told: Vec<f64> = weights.iter().map(|(_, share)| *share).collect();
        assert_eq!(shares(HashKey::DEFAULT, &again).unwrap(), told);
    }

    #[test]
    fn no_weights_help_a_pool_that_is_too_small() {
        let rooms = [room("a", 0.4), room("b", 0.5)];
        assert_eq!(suggest_weights(HashKey::DEFAULT, &rooms), Ok(None));
    }

    #[test]
    fn as_many_are_added_as_it_takes_and_no_more() {
        let rooms = [room("a", 0.3), room("b", 0.3)];
        let (count, all) = suggest_more(HashKey::DEFAULT, &rooms, rooms[0])
            .unwrap()
            .unwrap();
        assert_eq!(count, 2);
        assert_eq!(all.len(), 4);
        assert!(all.iter().all(|share| *share <= 0.3), "{all:?}");
        let roomy = [room("a", 0.9), room("b", 0.9)];
        let none = suggest_more(HashKey::DEFAULT, &roomy, roomy[0]).unwrap();
        assert_eq!(none.unwrap().0, 0);
    }

    #[test]
    fn a_pool_that_cannot_grow_enough_is_told_so() {
        let rooms = [room("a", 0.001)];
        assert_eq!(suggest_more(HashKey::DEFAULT, &rooms, rooms[0]), Ok(None));
    }
}
