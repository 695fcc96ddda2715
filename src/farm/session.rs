//! The farm's users: their session ids, and who is where in a session's life.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::checker::{Rules, SessionLedger};
use super::random::{Random, mix};

/// Length of a session id of ASP.NET's default manager (protocol 2.1).
pub(crate) const ID_BYTES: usize = 24;

/// Removed or replaced sessions that are looked at once more at the end of a run.
const MAX_RETIRED: usize = 10_000;
/// Application and hash of every simulated web server, in .NET 4.x spelling (protocol 2.1).
const TARGET_PREFIX: &[u8] =
    b"%2fLM%2fW3SVC%2f1%2fROOT(cAHkmVhipCLv%2fQnONQmPsKL%2bq%2fAjnK%2fnYS9aV3Zlad8%3d)%2f";

/// One session: its id on the wire and its ledger.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: [u8; ID_BYTES],
    /// The request target.
    pub(crate) target: Vec<u8>,
    ledger: Mutex<SessionLedger>,
    /// Pages that want its lock or hold it.
    contenders: AtomicUsize,
    /// Pages that hold it, and requests for it that have no answer yet.
    taken_or_asked: AtomicUsize,
}

/// A page that wants the lock of a session, and then holds it.
#[derive(Debug)]
pub(crate) struct Contender<'a> {
    session: &'a Session,
    /// How many wanted or held it before.
    pub(crate) ahead: usize,
    /// Whether another page held it then, or had asked for it and had no answer. Of pages that ask at the
    /// same moment one gets the lock, and the others meet it.
    pub(crate) meets_another: bool,
    holds: bool,
}

/// A request for the lock of a session that has no answer yet.
#[derive(Debug)]
pub(crate) struct Asking<'a>(&'a Session);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.taken_or_asked.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Contender<'_> {
    /// The page has the lock.
    pub(crate) fn holds(&mut self) {
        self.holds = true;
        self.session.taken_or_asked.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Contender<'_> {
    fn drop(&mut self) {
        self.session.contenders.fetch_sub(1, Ordering::Relaxed);
        if self.holds {
            self.session.taken_or_asked.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Session {
    /// The session with this number in the run of this seed.
    pub(crate) fn new(seed: u64, number: u64, rules: Rules) -> Self {
        let id = session_id(seed, number);
        Self {
            target: [TARGET_PREFIX, &id].concat(),
            id,
            ledger: Mutex::new(SessionLedger::new(rules)),
            contenders: AtomicUsize::new(0),
            taken_or_asked: AtomicUsize::new(0),
        }
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, SessionLedger> {
        lock(&self.ledger)
    }

    /// Counts a page that wants the lock, until what is returned is dropped.
    pub(crate) fn contend(&self) -> Contender<'_> {
        Contender {
            ahead: self.contenders.fetch_add(1, Ordering::Relaxed),
            meets_another: self.taken_or_asked.load(Ordering::Relaxed) > 0,
            holds: false,
            session: self,
        }
    }

    /// Counts a request for the lock, until what is returned is dropped.
    pub(crate) fn ask(&self) -> Asking<'_> {
        self.taken_or_asked.fetch_add(1, Ordering::Relaxed);
        Asking(self)
    }

    /// What may be printed of an id, which is a bearer secret: 32 bits of a hash.
    pub(crate) fn fingerprint(&self) -> String {
        let fold = |hash, part: &[u8]| {
            let bytes = part.first_chunk().copied().unwrap_or([0; 8]);
            mix(hash ^ u64::from_le_bytes(bytes))
        };
        let hash = self.id.chunks_exact(8).fold(0, fold);
        format!("{:08x}", hash >> 32)
    }
}

/// All sessions of a run.
#[derive(Debug)]
pub(crate) struct Population {
    seed: u64,
    rules: Rules,
    places: Vec<Mutex<Option<Arc<Session>>>>,
    created: AtomicU64,
    filled: AtomicU64,
    retired: Mutex<VecDeque<Arc<Session>>>,
}

/// The user a page is for.
#[derive(Debug)]
pub(crate) enum Visitor {
    /// The user of a place sends a session cookie; the session may or may not exist.
    WithCookie(usize, Arc<Session>),
    /// Sends none: gets a new id, and this place once the session is stored.
    WithoutCookie(usize),
}

impl Population {
    /// Places for `sessions` users, none of whom has come yet.
    pub(crate) fn new(seed: u64, sessions: usize, rules: Rules) -> Self {
        Self {
            seed,
            rules,
            places: (0..sessions).map(|_| Mutex::new(None)).collect(),
            created: AtomicU64::new(0),
            filled: AtomicU64::new(0),
            retired: Mutex::new(VecDeque::new()),
        }
    }

    pub(crate) fn new_session(&self) -> Arc<Session> {
        let number = self.created.fetch_add(1, Ordering::Relaxed);
        Arc::new(Session::new(self.seed, number, self.rules))
    }

    /// The next user: everybody comes once, then at random. Every second user's first request
    /// carries a cookie from an earlier life.
    pub(crate) fn next_visitor(&self, random: &mut Random) -> Visitor {
        let places = self.places.len() as u64;
        if self.filled.load(Ordering::Relaxed) < places {
            let place = self.filled.fetch_add(1, Ordering::Relaxed);
            if place < places {
                return self.first_visit(place as usize);
            }
        }
        self.visitor_of(random.below(places) as usize)
    }

    /// The user of whom so many pages in a row come at once.
    pub(crate) fn next_of_burst(&self, burst: u64) -> Visitor {
        let places = self.places.len() as u64;
        self.visitor_of(Random::new(!self.seed, burst).below(places) as usize)
    }

    fn visitor_of(&self, place: usize) -> Visitor {
        match &*lock(&self.places[place]) {
            Some(session) => Visitor::WithCookie(place, Arc::clone(session)),
            None => Visitor::WithoutCookie(place),
        }
    }

    /// The user of `place` has `session` from now on, unless it got another one meanwhile.
    pub(crate) fn settle(&self, place: usize, session: Arc<Session>) {
        let Some(place) = self.places.get(place) else {
            return;
        };
        let mut place = lock(place);
        if place.is_none() {
            *place = Some(session);
        } else {
            drop(place);
            self.retire(session);
        }
    }

    /// The user of `place` forgets the cookie of `session`; the next visit is without.
    pub(crate) fn forget(&self, place: usize, session: &Arc<Session>) {
        let Some(place) = self.places.get(place) else {
            return;
        };
        let left = lock(place).take_if(|held| Arc::ptr_eq(held, session));
        if let Some(left) = left {
            self.retire(left);
        }
    }

    /// Every session worth a last look: the living, and the latest of the retired.
    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        let living = self.places.iter().filter_map(|place| lock(place).clone());
        let mut all: Vec<_> = living.collect();
        all.extend(lock(&self.retired).iter().cloned());
        all
    }

    fn first_visit(&self, place: usize) -> Visitor {
        if place.is_multiple_of(2) {
            return Visitor::WithoutCookie(place);
        }
        let session = self.new_session();
        self.settle(place, Arc::clone(&session));
        Visitor::WithCookie(place, session)
    }

    fn retire(&self, session: Arc<Session>) {
        let mut retired = lock(&self.retired);
        if retired.len() == MAX_RETIRED {
            retired.pop_front();
        }
        retired.push_back(session);
    }
}

/// What a panicking thread left is still the best there is.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// 24 characters of `a-z0-5`, 5 bits each (protocol 2.1).
fn session_id(seed: u64, number: u64) -> [u8; ID_BYTES] {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz012345";
    let mut random = Random::new(mix(seed), number);
    std::array::from_fn(|_| ALPHABET[(random.next() >> 59) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        idle_limit_ns: u64::MAX,
        late_effect_ns: 0,
    };

    #[test]
    fn ids_have_the_default_managers_shape_and_belong_to_their_seed() {
        let id = session_id(1, 2);
        assert!(
            id.iter()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'5'))
        );
        assert_eq!(id, session_id(1, 2));
        assert_ne!(id, session_id(1, 3));
        assert_ne!(id, session_id(2, 2));
    }

    #[test]
    fn a_page_meets_those_that_hold_the_lock_or_ask_for_it_and_not_those_that_poll() {
        let session = Session::new(1, 1, RULES);
        let mut first = session.contend();
        assert!(!first.meets_another);
        let asking = session.ask();
        assert!(session.contend().meets_another, "it asks");
        drop(asking);
        let next = session.contend();
        assert_eq!((next.meets_another, next.ahead), (false, 1), "it polls");
        first.holds();
        assert!(session.contend().meets_another, "it holds it");
        drop(first);
        assert!(!session.contend().meets_another);
    }

    #[test]
    fn a_fingerprint_shows_nothing_of_the_id() {
        let session = Session::new(1, 1, RULES);
        let fingerprint = session.fingerprint();
        assert_eq!(fingerprint.len(), 8);
        assert!(!String::from_utf8_lossy(&session.id).contains(&fingerprint));
    }

    #[test]
    fn everybody_comes_once_before_anybody_comes_twice() {
        let population = Population::new(5, 10, RULES);
        let mut random = Random::new(5, 0);
        for place in 0..10 {
            match population.next_visitor(&mut random) {
                Visitor::WithoutCookie(at) => {
                    assert_eq!((at, at % 2), (place, 0));
                    population.settle(at, population.new_session());
                }
                Visitor::WithCookie(..) => assert_eq!(place % 2, 1),
            }
        }
        assert_eq!(population.all().len(), 10);
        let again = population.next_visitor(&mut random);
        assert!(matches!(again, Visitor::WithCookie(..)));
    }

    #[test]
    fn a_forgotten_session_is_looked_at_once_more_and_its_user_comes_without_cookie() {
        let population = Population::new(5, 1, RULES);
        let mut random = Random::new(5, 0);
        let session = population.new_session();
        population.settle(0, Arc::clone(&session));
        population.filled.store(1, Ordering::Relaxed);
        population.forget(0, &session);
        let visitor = population.next_visitor(&mut random);
        assert!(matches!(visitor, Visitor::WithoutCookie(0)));
        assert!(Arc::ptr_eq(&population.all()[0], &session));
    }
}
