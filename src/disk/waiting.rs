//! Those who wait for the writer.
//!
//! Waking a task of another thread takes a system call each. So one of a thread waits for the writer,
//! and wakes those of the same thread that wait for the same. It has to be polled when it is woken, as
//! a task is.

use std::cell::Cell;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use tokio::sync::watch;

/// More threads than this share a lane.
const LANES: usize = 64;

/// How far the writer is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    /// What was promised for tickets up to here holds.
    pub(super) committed: u64,
    /// Tickets from there up to here were refused.
    pub(super) refused: u64,
}

/// All who wait, by thread.
#[derive(Debug)]
pub(super) struct Waiting {
    progress: watch::Sender<Progress>,
    lanes: Box<[Lane]>,
}

/// Those of one thread.
#[derive(Debug, Default)]
struct Lane(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    /// One of them waits for the writer.
    has_leader: bool,
    followers: Vec<Follower>,
    last_id: u64,
}

/// One that waits for the leader.
#[derive(Debug)]
struct Follower {
    id: u64,
    ticket: u64,
    waker: Waker,
}

/// The place of a follower among the others. It is given up when the follower waits no more.
struct Place<'a> {
    lane: &'a Lane,
    id: u64,
}

/// Whoever waits for the writer. Another one takes its place when it ends, however it ends.
struct Leader<'a> {
    waiting: &'a Waiting,
    lane: &'a Lane,
}

impl Progress {
    fn is_settled(&self, ticket: u64) -> bool {
        self.committed.max(self.refused) >= ticket
    }
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self {
            progress: watch::Sender::new(Progress::default()),
            lanes: (0..LANES).map(|_| Lane::default()).collect(),
        }
    }

    /// The writer is further.
    pub(super) fn go_on(&self, change: impl FnOnce(&mut Progress)) {
        self.progress.send_modify(change);
    }

    /// Waits until a ticket is committed or refused. False if it was refused.
    pub(super) async fn settled(&self, ticket: u64) -> bool {
        let lane = &self.lanes[lane_of_thread()];
        if self.is_to_lead(lane, ticket).await {
            let waiting = self;
            Leader { waiting, lane }.waits_for(ticket).await;
        }
        self.progress.borrow().committed >= ticket
    }

    /// Waits until the ticket is settled, or until nobody else of this thread waits for the writer:
    /// then true.
    async fn is_to_lead(&self, lane: &Lane, ticket: u64) -> bool {
        let place = Place::new(lane);
        poll_fn(|cx| {
            if self.progress.borrow().is_settled(ticket) {
                return Poll::Ready(false);
            }
            let mut queue = lane.queue();
            if !queue.has_leader {
                queue.has_leader = true;
                return Poll::Ready(true);
            }
            queue.remove(place.id);
            queue.followers.push(Follower {
                id: place.id,
                ticket,
                waker: cx.waker().clone(),
            });
            Poll::Pending
        })
        .await
    }
}

impl Leader<'_> {
    /// Until the ticket is settled; wakes those whose tickets are before.
    async fn waits_for(&self, ticket: u64) {
        let mut progress = self.waiting.progress.subscribe();
        while !progress.borrow_and_update().is_settled(ticket) {
            // The sender lives as long as this.
            if progress.changed().await.is_err() {
                return;
            }
            self.lane.wake_settled(&progress.borrow());
        }
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        let progress = *self.waiting.progress.borrow();
        self.lane.wake_settled(&progress);
        self.lane.queue().has_leader = false;
        self.lane.find_leader();
    }
}

impl<'a> Place<'a> {
    fn new(lane: &'a Lane) -> Self {
        let mut queue = lane.queue();
        queue.last_id += 1;
        let id = queue.last_id;
        Self { lane, id }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.lane.queue().remove(self.id);
        // It may have been woken to lead.
        self.lane.find_leader();
    }
}

impl Queue {
    fn remove(&mut self, id: u64) {
        self.followers.retain(|follower| follower.id != id);
    }
}

impl Lane {
    fn wake_settled(&self, progress: &Progress) {
        let mut queue = self.queue();
        let is_settled = |follower: &mut Follower| progress.is_settled(follower.ticket);
        let settled: Vec<_> = queue.followers.extract_if(.., is_settled).collect();
        drop(queue);
        for follower in settled {
            follower.waker.wake();
        }
    }

    /// Wakes one that may lead, if nobody does.
    fn find_leader(&self) {
        let mut queue = self.queue();
        let next = match queue.has_leader {
            true => None,
            false => queue.followers.pop(),
        };
        drop(queue);
        if let Some(next) = next {
            next.waker.wake();
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lane_of_thread() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static LANE: Cell<Option<usize>> = const { Cell::new(None) };
    }
    LANE.with(|lane| {
        let known = lane.get();
        let known = known.unwrap_or_else(|| THREADS.fetch_add(1, Ordering::Relaxed) % LANES);
        lane.set(Some(known));
        known
    })
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Context, Wake};

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One that waits, and how often it was woken.
    struct Waiter<'a> {
        future: Pin<Box<dyn Future<Output = bool> + 'a>>,
        wakes: Arc<Wakes>,
    }

    impl<'a> Waiter<'a> {
        fn new(waiting: &'a Waiting, ticket: u64) -> Self {
            let mut waiter = Self {
                future: Box::pin(waiting.settled(ticket)),
                wakes: Arc::default(),
            };
            assert_eq!(waiter.poll(), Poll::Pending);
            waiter
        }

        fn poll(&mut self) -> Poll<bool> {
            let waker = Waker::from(Arc::clone(&self.wakes));
            self.future.as_mut().poll(&mut Context::from_waker(&waker))
        }

        fn wakes(&self) -> usize {
            self.wakes.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn the_writer_wakes_one_and_that_one_the_others_whose_tickets_are_settled() {
        let waiting = Waiting::new();
        let mut waiters = [2, 1, 3, 9].map(|ticket| Waiter::new(&waiting, ticket));
        waiting.go_on(|progress| progress.committed = 3);
        assert_eq!(waiters.each_ref().map(Waiter::wakes), [1, 0, 0, 0]);
        assert_eq!(waiters[0].poll(), Poll::Ready(true));
        // The last one is to wait for the writer from now on.
        assert_eq!(waiters.each_ref().map(Waiter::wakes), [1, 1, 1, 1]);
        assert_eq!(waiters[1].poll(), Poll::Ready(true));
        assert_eq!(waiters[2].poll(), Poll::Ready(true));
        assert_eq!(waiters[3].poll(), Poll::Pending);
        waiting.go_on(|progress| progress.refused = 9);
        assert_eq!(waiters[3].wakes(), 2);
        assert_eq!(waiters[3].poll(), Poll::Ready(false));
    }

    #[test]
    fn who_waits_no_more_leaves_its_place_to_another() {
        let waiting = Waiting::new();
        let [first, mut second] = [5, 5].map(|ticket| Waiter::new(&waiting, ticket));
        drop(first);
        assert_eq!(second.wakes(), 1);
        assert_eq!(second.poll(), Poll::Pending);
        waiting.go_on(|progress| progress.committed = 5);
        assert_eq!(second.wakes(), 2);
        assert_eq!(second.poll(), Poll::Ready(true));
    }

    /// Those that are to lead may leave, too.
    #[test]
    fn who_was_to_wait_for_the_writer_and_is_dropped_loses_nobody() {
        let waiting = Waiting::new();
        let [first, second, mut third] = [1, 5, 6].map(|ticket| Waiter::new(&waiting, ticket));
        let fourth = Waiter::new(&waiting, 7);
        drop(first);
        assert_eq!(fourth.wakes(), 1);
        drop(fourth);
        assert_eq!(third.wakes(), 1);
        drop(second);
        assert_eq!(third.poll(), Poll::Pending);
        waiting.go_on(|progress| progress.committed = 6);
        assert_eq!(third.wakes(), 2);
        assert_eq!(third.poll(), Poll::Ready(true));
    }
}
