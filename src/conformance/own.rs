//! Session ids of its own in place of those in the fixtures, and the lock cookies that the server gives
//! out in place of the numbers there.

use std::collections::BTreeMap;

use super::fixtures::{FIXTURE_IDS, encoded};
use super::line::TargetAnswer;
use super::message::{lock_in, replace_all, with_lock};

/// Length of a session id of ASP.NET's default manager (protocol 2.1).
pub(super) const ID_BYTES: usize = FIXTURE_IDS[0].len();

/// Two sessions. ASP.NET hands lock cookies back and does not calculate with them, so a server may count
/// as it likes: what matters is that it knows its locks again.
#[derive(Debug)]
pub(super) struct OwnIds([OwnSession; 2]);

#[derive(Debug)]
struct OwnSession {
    id: [u8; ID_BYTES],
    /// The server's lock for each number in the fixture.
    locks: BTreeMap<u32, u32>,
}

impl OwnIds {
    pub(super) fn new(ids: [[u8; ID_BYTES]; 2]) -> Self {
        Self(ids.map(|id| OwnSession {
            id,
            locks: BTreeMap::new(),
        }))
    }

    /// A fixture's request as a client sends it that has its locks from this server.
    pub(super) fn request(&self, fixture: &[u8]) -> Vec<u8> {
        let session = &self.0[which(fixture)];
        let request = self.renamed(fixture);
        with_lock(&request, |number| session.lock(number))
    }

    /// What the server should have answered to a fixture's request, given that it did answer `answer`: a
    /// lock that it has not given before may have any number.
    pub(super) fn expected(
        &mut self,
        fixture_request: &[u8],
        fixture_answer: &[u8],
        answer: &TargetAnswer,
    ) -> Vec<u8> {
        let session = &mut self.0[which(fixture_request)];
        if let (Some(number), Some(lock)) = (lock_in(fixture_answer), answer.lock()) {
            session.note(number, lock);
        }
        let expected = with_lock(fixture_answer, |number| session.lock(number));
        if fixture_request.starts_with(b"DELETE ") && answer.head.status == 200 {
            // Another item may count anew.
            session.locks.clear();
        }
        expected
    }

    /// The target of a fixture's key, every byte encoded.
    pub(super) fn target(&self, key: &[u8]) -> Vec<u8> {
        encoded(&self.renamed(key))
    }

    /// The server's lock for a number of the item with this key.
    pub(super) fn lock(&self, key: &[u8], number: u32) -> u32 {
        self.0[which(key)].lock(number)
    }

    /// The server has given this lock for a number of the item with this key.
    pub(super) fn note(&mut self, key: &[u8], number: u32, lock: u32) {
        self.0[which(key)].note(number, lock);
    }

    fn renamed(&self, fixture: &[u8]) -> Vec<u8> {
        let mut bytes = fixture.to_vec();
        for (fixture, own) in FIXTURE_IDS.iter().zip(&self.0) {
            replace_all(&mut bytes, fixture.as_bytes(), &own.id);
        }
        bytes
    }
}

impl OwnSession {
    /// One that it never gave is as far from the others as in the fixture.
    fn lock(&self, number: u32) -> u32 {
        let known = self.locks.get(&number).copied();
        let shifted = || {
            let (first, lock) = self.locks.first_key_value()?;
            number.checked_add(lock.checked_sub(*first)?)
        };
        match number {
            0 => 0,
            _ => known.or_else(shifted).unwrap_or(number),
        }
    }

    /// The first lock for a number counts. One that was given for another number is no lock of its own.
    fn note(&mut self, number: u32, lock: u32) {
        if !self.locks.values().any(|given| *given == lock) {
            self.locks.entry(number).or_insert(lock);
        }
    }
}

/// Which of the two sessions a fixture's bytes name.
fn which(fixture: &[u8]) -> usize {
    let second = FIXTURE_IDS[1].as_bytes();
    usize::from(fixture.windows(second.len()).any(|part| part == second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_known_again_whatever_its_number() {
        let [first, second] = [*b"aaaaaaaaaaaaaaaaaaaaaaaa", *b"bbbbbbbbbbbbbbbbbbbbbbbb"];
        let mut own = OwnIds::new([first, second]);
        let key = FIXTURE_IDS[0].as_bytes();
        assert_eq!(own.lock(key, 3), 3);
        own.note(key, 2, 1000);
        own.note(key, 3, 1017);
        // The same lock twice is none for the second.
        own.note(key, 4, 1017);
        let locks = [0, 2, 3, 4, 9].map(|number| own.lock(key, number));
        assert_eq!(locks, [0, 1000, 1017, 1002, 1007]);
        assert_eq!(own.lock(FIXTURE_IDS[1].as_bytes(), 2), 2);
        let request = format!("GET {} HTTP/1.1\r\nLockCookie:3\r\n\r\n", FIXTURE_IDS[0]);
        let own_request = format!("GET {} HTTP/1.1\r\nLockCookie:1017\r\n\r\n", "a".repeat(24));
        assert_eq!(own.request(request.as_bytes()), own_request.as_bytes());
    }
}
