//! The names of applications, by the hash of what stands in front of their session ids: what tells of
//! a request afterwards need not keep its target.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config;
use crate::route::SessionKey;

/// Applications whose names are kept.
const MAX_APPS: usize = 256;

/// Longest name that is kept, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// Hashes that a worker knows to be known. Two that share a place cost a lookup.
const PLACES: usize = 16;

/// The names that all workers have met.
#[derive(Debug, Default)]
pub struct AppNames(Mutex<HashMap<u64, Arc<str>>>);

/// What one worker has told of already.
#[derive(Debug, Default)]
pub(super) struct ToldApps([Cell<u64>; PLACES]);

impl AppNames {
    /// The application's id, such as `/LM/W3SVC/2/ROOT/Shop`; `None` if there are too many, or if the
    /// request named none.
    pub fn name(&self, start_hash: u64) -> Option<Arc<str>> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.get(&start_hash).cloned()
    }

    fn learn(&self, key: &SessionKey<'_>) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() < MAX_APPS || names.contains_key(&key.start_hash()) {
            let app = key.app().get(..MAX_NAME_BYTES).unwrap_or(key.app());
            let name = || Arc::from(config::shown(&String::from_utf8_lossy(app)));
            names.entry(key.start_hash()).or_insert_with(name);
        }
    }
}

impl ToldApps {
    /// A request with this key has come.
    #[inline]
    pub(super) fn note(&self, key: &SessionKey<'_>, names: &AppNames) {
        let place = &self.0[key.start_hash() as usize % PLACES];
        if place.get() != key.start_hash() {
            tell(place, key, names);
        }
    }
}

#[cold]
fn tell(place: &Cell<u64>, key: &SessionKey<'_>, names: &AppNames) {
    place.set(key.start_hash());
    if key.is_usual() {
        names.learn(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{KeyBuffer, extract};

    fn note(told: &ToldApps, names: &AppNames, target: &str) -> u64 {
        let mut buffer = KeyBuffer::new();
        let key = extract(target.as_bytes(), &mut buffer).unwrap();
        told.note(&key, names);
        key.start_hash()
    }

    #[test]
    fn an_application_has_its_name_however_many_there_are() {
        let (told, names) = (ToldApps::default(), AppNames::default());
        let target = |number: usize| {
            format!("/LM/W3SVC/{number}/ROOT(Jm6ty1cajOuzgqZzg9R7dzIu2QqSsb6LymzfuVMEdFI=)/abc")
        };
        let hashes: Vec<_> = (0..MAX_APPS + 5)
            .map(|number| note(&told, &names, &target(number)))
            .collect();
        assert_eq!(&*names.name(hashes[3]).unwrap(), "/LM/W3SVC/3/ROOT");
        assert_eq!(names.name(hashes[MAX_APPS]), None);
        assert_eq!(names.0.lock().unwrap().len(), MAX_APPS);
        // It is logged and shown on terminals, whoever has sent it.
        let (told, names) = (ToldApps::default(), AppNames::default());
        let target = "%2fLM%0aSTOPPING=1%1b%5b2J(Jm6ty1cajOuzgqZzg9R7dzIu2QqSsb6LymzfuVMEdFI=)/abc";
        let hash = note(&told, &names, target);
        assert_eq!(
            &*names.name(hash).unwrap(),
            "/LM\u{fffd}STOPPING=1\u{fffd}[2J"
        );
        // What names no application has no hash.
        assert_eq!(names.name(note(&told, &names, "/abc")), None);
    }
}
