//! Who may stay connected: of all that keep a place without using it, those go first whose address
//! has most of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The places for connections. Somebody who comes when all are taken gets the place of somebody
/// else, so connections that say nothing keep nobody out.
#[derive(Debug, Clone)]
pub(super) struct ConnectionPermits {
    free: Arc<Semaphore>,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    places: Vec<Held>,
}

/// One place that is taken.
#[derive(Debug)]
struct Held {
    number: u64,
    address: IpAddr,
    /// Whether a request is being answered.
    is_answering: bool,
    /// Counts up with all that happens: the lowest has waited longest.
    since: u64,
    /// Whether it has been told to go.
    is_leaving: bool,
    leave: Arc<Notify>,
}

/// A connection's own place, given back when dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    taken: Arc<Mutex<Taken>>,
    number: u64,
    leave: Arc<Notify>,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionPermits {
    pub(super) fn new(count: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(count)),
            taken: Arc::default(),
        }
    }

    /// A place for a connection from `address`, somebody else's if need be; `None` never comes.
    pub(super) async fn take(&self, address: IpAddr) -> Option<ConnectionPermit> {
        let permit = match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_none) => {
                lock(&self.taken).send_one_away();
                // It leaves as soon as its task runs. The semaphore is never closed.
                Arc::clone(&self.free).acquire_owned().await.ok()?
            }
        };
        let mut taken = lock(&self.taken);
        let number = taken.count_up();
        let leave = Arc::new(Notify::new());
        taken.places.push(Held {
            number,
            address: address.to_canonical(),
            is_answering: false,
            since: number,
            is_leaving: false,
            leave: Arc::clone(&leave),
        });
        Some(ConnectionPermit {
            taken: Arc::clone(&self.taken),
            number,
            leave,
            _permit: permit,
        })
    }
}

impl ConnectionPermit {
    /// Waits until somebody else is to have the place.
    pub(super) async fn must_leave(&self) {
        self.leave.notified().await;
    }

    /// Its head has come and is being answered, or the answer is there.
    pub(super) fn is_answering(&self, is_answering: bool) {
        let mut taken = lock(&self.taken);
        let since = taken.count_up();
        let mut places = taken.places.iter_mut();
        if let Some(held) = places.find(|held| held.number == self.number) {
            (held.is_answering, held.since) = (is_answering, since);
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let number = self.number;
        lock(&self.taken)
            .places
            .retain(|held| held.number != number);
    }
}

impl Taken {
    fn count_up(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Somebody who says nothing before somebody who is being answered, of these one from the
    /// address that has most, and of these the one that has been so for longest.
    fn send_one_away(&mut self) {
        let mut by_address: HashMap<IpAddr, usize> = HashMap::new();
        for held in &self.places {
            *by_address.entry(held.address).or_default() += 1;
        }
        let rank = |held: &&mut Held| {
            let of_address = by_address.get(&held.address).copied().unwrap_or(0);
            (held.is_answering, usize::MAX - of_address, held.since)
        };
        let staying = self.places.iter_mut().filter(|held| !held.is_leaving);
        if let Some(held) = staying.min_by_key(rank) {
            held.is_leaving = true;
            held.leave.notify_one();
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    // Each change is whole, whoever panics.
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::task::yield_now;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
    }

    async fn leaves(place: &ConnectionPermit) -> bool {
        tokio::select! {
            biased;
            () = place.must_leave() => true,
            () = yield_now() => false,
        }
    }

    #[tokio::test]
    async fn whoever_says_nothing_makes_room() {
        let places = ConnectionPermits::new(4);
        let flood = [
            places.take(address(1)).await.unwrap(),
            places.take(address(1)).await.unwrap(),
        ];
        let quiet = places.take(address(2)).await.unwrap();
        let busy = places.take(address(1)).await.unwrap();
        busy.is_answering(true);
        // Of those that wait, one of the address with most, the one that has waited longest.
        let mut newcomers = Vec::new();
        for gone in flood {
            let newcomer = tokio::spawn({
                let places = places.clone();
                async move { places.take(address(3)).await.unwrap() }
            });
            yield_now().await;
            assert!(leaves(&gone).await);
            assert!(!leaves(&quiet).await && !leaves(&busy).await);
            drop(gone);
            let newcomer = newcomer.await.unwrap();
            newcomer.is_answering(true);
            newcomers.push(newcomer);
        }
    }
}
