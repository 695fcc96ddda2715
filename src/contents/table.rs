//! What the sessions that are followed consist of, and what that adds up to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::decode::{BodyContents, NotUnderstood, cut, decode};

/// Sessions that are followed at most. With more, every second one is let go.
const MAX_SESSIONS: usize = 4096;

/// With fewer, twice as many are followed.
const FEW_SESSIONS: usize = MAX_SESSIONS / 4;

/// The level at which one session in a million is followed: no pool has more.
const MAX_LEVEL: u32 = 20;

/// Names of applications and items that are kept at most.
const MAX_NAMES: usize = 8192;

/// Items of one session that are told apart: its largest.
const MAX_ITEMS_PER_SESSION: usize = 64;

/// Longest name of an application that is kept.
const MAX_APP_BYTES: usize = 256;

/// Applications, and items of each, in the totals.
const MAX_APPS_SHOWN: usize = 50;
const MAX_ITEMS_SHOWN: usize = 100;

const MINUTE_MS: u64 = 60_000;

/// The beginning of a body that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSample {
    /// The hash of the session id.
    pub hash: u64,
    /// The application's id, decoded.
    pub app: Vec<u8>,
    /// The session's timeout.
    pub timeout_minutes: u32,
    /// The length of the whole body.
    pub body_bytes: u64,
    /// Its beginning.
    pub beginning: Vec<u8>,
}

/// The sessions that are followed: those whose hash ends in as many zero bits as the level says.
#[derive(Debug, Default)]
pub struct ContentsTable {
    level: u32,
    sessions: HashMap<u64, FollowedSession>,
    names: HashSet<Arc<str>>,
}

#[derive(Debug)]
struct FollowedSession {
    expires_ms: u64,
    timeout_ms: u64,
    app: Arc<str>,
    body_bytes: u64,
    contents: Result<Box<[KnownItem]>, NotUnderstood>,
    compressed: bool,
}

#[derive(Debug)]
struct KnownItem {
    name: Arc<str>,
    /// What it takes of the body as it was stored.
    bytes: u64,
}

/// What the followed sessions add up to.
#[derive(Debug, Clone, PartialEq)]
pub struct TableTotals {
    /// One session in so many is followed.
    pub one_in: u64,
    /// Sessions that are followed.
    pub sessions: u64,
    /// The applications with the most bytes, in that order.
    pub apps: Vec<AppTotal>,
}

/// What the sessions of one application add up to.
#[derive(Debug, Clone, PartialEq)]
pub struct AppTotal {
    /// Its id; empty where requests name none.
    pub name: String,
    /// Its sessions.
    pub sessions: u64,
    /// Those whose bodies are not what .NET's collection writes.
    pub foreign: u64,
    /// Those whose names and lengths did not fit into what is looked at.
    pub cut: u64,
    /// Those that are compressed.
    pub compressed: u64,
    /// Their bodies as they are stored, all of them.
    pub body_bytes: u64,
    /// The items with the most bytes, in that order. Not of all bodies together: there are names, and
    /// contents that are not understood.
    pub items: Vec<ItemTotal>,
}

/// What one item adds up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemTotal {
    /// Its name; empty for the one without a name.
    pub name: String,
    /// Sessions that have it.
    pub sessions: u64,
    /// What it takes of the bodies as they are stored.
    pub bytes: u64,
}

impl ContentsTable {
    /// The bits of a hash that are clear if its session is followed.
    #[must_use]
    pub fn mask(&self) -> u64 {
        (1 << self.level) - 1
    }

    /// A session was stored.
    pub fn stored(&mut self, sample: &StoredSample, now_ms: u64) {
        if sample.hash & self.mask() != 0 {
            return;
        }
        let decoded = decode(&sample.beginning);
        let app = String::from_utf8_lossy(&sample.app);
        let app = self.name(cut(&app, MAX_APP_BYTES));
        let compressed = decoded.as_ref().is_ok_and(|contents| contents.compressed);
        let contents = decoded.map(|contents| self.known_items(contents, sample.body_bytes));
        let timeout_ms = u64::from(sample.timeout_minutes) * MINUTE_MS;
        let followed = FollowedSession {
            expires_ms: now_ms + timeout_ms,
            timeout_ms,
            app: app.unwrap_or_else(|| Arc::from("(others)")),
            body_bytes: sample.body_bytes,
            contents,
            compressed,
        };
        self.sessions.insert(sample.hash, followed);
        if self.sessions.len() > MAX_SESSIONS {
            self.coarsen(now_ms);
        }
    }

    /// A session was used.
    pub fn touched(&mut self, hash: u64, now_ms: u64) {
        if let Some(session) = self.sessions.get_mut(&hash) {
            session.expires_ms = now_ms + session.timeout_ms;
        }
    }

    /// A session has ended.
    pub fn gone(&mut self, hash: u64) {
        self.sessions.remove(&hash);
    }

    /// Lets go of sessions that have expired, and of names that nobody has any more; follows more
    /// sessions if there are few.
    pub fn sweep(&mut self, now_ms: u64) {
        self.drop_expired(now_ms);
        self.names.retain(|name| Arc::strong_count(name) > 1);
        if self.level > 0 && self.sessions.len() < FEW_SESSIONS {
            self.level -= 1;
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// What the followed sessions add up to.
    #[must_use]
    pub fn totals(&self, now_ms: u64) -> TableTotals {
        let mut apps: HashMap<&str, AppSum<'_>> = HashMap::new();
        let living = self.sessions.values();
        let living = living.filter(|session| session.expires_ms > now_ms);
        let mut sessions = 0;
        for session in living {
            sessions += 1;
            apps.entry(&session.app).or_default().add(session);
        }
        let mut apps: Vec<AppTotal> = apps.into_iter().map(AppSum::total).collect();
        apps.sort_by(|one, other| {
            let by_bytes = other.body_bytes.cmp(&one.body_bytes);
            by_bytes.then_with(|| one.name.cmp(&other.name))
        });
        apps.truncate(MAX_APPS_SHOWN);
        TableTotals {
            one_in: 1 << self.level,
            sessions,
            apps,
        }
    }

    /// Makes room: those that have expired go, and with that not enough, half of all.
    fn coarsen(&mut self, now_ms: u64) {
        self.drop_expired(now_ms);
        while self.sessions.len() > MAX_SESSIONS && self.level < MAX_LEVEL {
            self.level += 1;
            let mask = self.mask();
            self.sessions.retain(|hash, _| hash & mask == 0);
        }
    }

    fn drop_expired(&mut self, now_ms: u64) {
        self.sessions
            .retain(|_, session| session.expires_ms > now_ms);
    }

    /// The items of a body, each with what it takes of it: of a compressed one in proportion.
    fn known_items(&mut self, contents: BodyContents, body_bytes: u64) -> Box<[KnownItem]> {
        let BodyContents {
            mut items,
            values_bytes,
            compressed,
        } = contents;
        items.sort_by_key(|item| std::cmp::Reverse(item.bytes));
        let stored = |bytes: u64| match compressed {
            true => (bytes as f64 * body_bytes as f64 / values_bytes.max(1) as f64) as u64,
            false => bytes.min(body_bytes),
        };
        let largest = items.iter().take(MAX_ITEMS_PER_SESSION);
        let known = largest.filter_map(|item| {
            let name = self.name(&item.name)?;
            let bytes = stored(item.bytes);
            Some(KnownItem { name, bytes })
        });
        known.collect()
    }

    /// The one copy of a name; `None` if there is no room for another.
    fn name(&mut self, name: &str) -> Option<Arc<str>> {
        if let Some(known) = self.names.get(name) {
            return Some(Arc::clone(known));
        }
        if self.names.len() >= MAX_NAMES {
            return None;
        }
        let name: Arc<str> = Arc::from(name);
        self.names.insert(Arc::clone(&name));
        Some(name)
    }
}

/// One application while it is added up.
#[derive(Default)]
struct AppSum<'t> {
    sessions: u64,
    foreign: u64,
    cut: u64,
    compressed: u64,
    body_bytes: u64,
    /// Sessions and bytes by item.
    items: HashMap<&'t str, (u64, u64)>,
}

impl<'t> AppSum<'t> {
    fn add(&mut self, session: &'t FollowedSession) {
        self.sessions += 1;
        self.body_bytes += session.body_bytes;
        self.compressed += u64::from(session.compressed);
        let items = match &session.contents {
            Ok(items) => items,
            Err(NotUnderstood::Foreign) => return self.foreign += 1,
            Err(NotUnderstood::Cut) => return self.cut += 1,
        };
        for item in items {
            let (sessions, bytes) = self.items.entry(&item.name).or_default();
            *sessions += 1;
            *bytes += item.bytes;
        }
    }

    fn total((name, sum): (&str, Self)) -> AppTotal {
        let items = sum.items.into_iter();
        let mut items: Vec<ItemTotal> = items
            .map(|(name, (sessions, bytes))| ItemTotal {
                name: name.to_owned(),
                sessions,
                bytes,
            })
            .collect();
        items.sort_by(|one, other| {
            let by_bytes = other.bytes.cmp(&one.bytes);
            by_bytes.then_with(|| one.name.cmp(&other.name))
        });
        items.truncate(MAX_ITEMS_SHOWN);
        AppTotal {
            name: name.to_owned(),
            sessions: sum.sessions,
            foreign: sum.foreign,
            cut: sum.cut,
            compressed: sum.compressed,
            body_bytes: sum.body_bytes,
            items,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::decode::BodyItem;
    use super::super::encode::{compress, encode};
    use super::*;

    /// A well mixed hash for each number.
    fn hash(number: u64) -> u64 {
        let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ mixed >> 17
    }

    fn sample(number: u64, app: &str, body: Vec<u8>) -> StoredSample {
        StoredSample {
            hash: hash(number),
            app: app.into(),
            timeout_minutes: 20,
            body_bytes: body.len() as u64,
            beginning: body,
        }
    }

    fn item(name: &str, bytes: u64) -> BodyItem {
        let name = name.to_owned();
        BodyItem { name, bytes }
    }

    #[test]
    fn ten_thousand_sessions_add_up_within_five_percent_compressed_or_not() {
        let mut table = ContentsTable::default();
        let mut carts = [0, 0];
        let mut all = [0, 0];
        for number in 0..10_000 {
            let compressed = number % 2 == 1;
            let cart = 100 + number * 7919 % 3000;
            let results = if number % 3 == 0 { 4000 } else { 0 };
            let mut items = vec![item("Cart", cart), item("User", 200)];
            items.extend((results > 0).then(|| item("SearchResults", results)));
            let body = encode(20, &items);
            let which = usize::from(compressed);
            let app = ["/LM/W3SVC/1/ROOT", "/LM/W3SVC/1/ROOT/Shop"][which];
            let body = if compressed { compress(&body) } else { body };
            carts[which] += body.len() as u64 * cart / (cart + 200 + results);
            all[which] += body.len() as u64;
            table.stored(&sample(number, app, body), 0);
        }
        let totals = table.totals(1);
        assert_eq!((totals.one_in, totals.apps.len()), (4, 2));
        assert!(
            (2300..2700).contains(&totals.sessions),
            "{}",
            totals.sessions
        );
        for app in &totals.apps {
            let which = usize::from(app.name.ends_with("Shop"));
            let cart = app.items.iter().find(|item| item.name == "Cart").unwrap();
            let found = cart.bytes as f64 / app.body_bytes as f64;
            let wanted = carts[which] as f64 / all[which] as f64;
            assert!(
                (found - wanted).abs() < 0.05,
                "{}: {found} {wanted}",
                app.name
            );
            assert_eq!(app.compressed, if which == 1 { app.sessions } else { 0 });
            assert_eq!((app.foreign, app.cut), (0, 0));
        }
    }

    #[test]
    fn sessions_end_and_bodies_that_are_not_understood_are_counted() {
        let mut table = ContentsTable::default();
        table.stored(&sample(1, "a", encode(20, &[item("x", 10)])), 0);
        table.stored(&sample(2, "a", b"json".to_vec()), 0);
        let mut long = sample(3, "a", encode(20, &[item("x", 10)]));
        long.beginning.truncate(16);
        table.stored(&long, 0);
        let app = &table.totals(1).apps[0];
        assert_eq!((app.sessions, app.foreign, app.cut), (3, 1, 1));
        assert_eq!(app.items[0].sessions, 1);
        table.gone(hash(2));
        table.touched(hash(3), 10 * MINUTE_MS);
        assert_eq!(table.totals(21 * MINUTE_MS).sessions, 1);
        table.sweep(31 * MINUTE_MS);
        assert!(table.sessions.is_empty() && table.names.is_empty());
    }

    #[test]
    fn nothing_grows_without_bound() {
        let mut table = ContentsTable::default();
        for number in 0..40_000 {
            let items: Vec<_> = (0..3)
                .map(|n| item(&format!("item-{number}-{n}"), 10))
                .collect();
            let app = format!("/LM/W3SVC/{number}/ROOT");
            table.stored(&sample(number, &app, encode(20, &items)), 0);
            assert!(table.sessions.len() <= MAX_SESSIONS && table.names.len() <= MAX_NAMES);
        }
        let totals = table.totals(1);
        assert_eq!(totals.apps.len(), MAX_APPS_SHOWN);
        let many: Vec<_> = (0..500).map(|n| item(&format!("n{n}"), 10)).collect();
        let mut table = ContentsTable::default();
        table.stored(&sample(0, "a", encode(20, &many)), 0);
        let app = &table.totals(1).apps[0];
        assert_eq!(app.items.len(), MAX_ITEMS_PER_SESSION);
        assert!(app.items.iter().all(|item| item.bytes == 10));
        // As many are let go as it takes, and taken in again when there are few.
        let level = |table: &ContentsTable| table.mask().count_ones();
        table.level = 3;
        table.sweep(1);
        assert_eq!(level(&table), 2);
    }
}
