//! Web servers that call one application by different ids, or send different hashes of one id: their
//! users lose their sessions with every change of the web server.
//!
//! Applications of one web site rightly share session ids, so two ids alone say nothing. They count
//! as one application's if they differ in the letter case alone, or in the number of the site, and no
//! web server uses both. A session that goes there and back shows it. One that goes there and stays,
//! as behind a balancer that keeps users at a web server, may be a cookie that somebody has copied:
//! it takes several of these.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use super::finding::Finding;
use crate::proxy::{IdUse, StartId};
use crate::route::Fingerprint;

/// Changes that are remembered at most.
const MAX_CHANGES: usize = 256;

/// For how long a change counts.
const KEEP_MS: u64 = 10 * 60 * 1000;

/// Ids, each with its hash, whose users are remembered at most. One that comes later takes the place
/// of the one that was not heard of for longest, and so it is with users.
const MAX_KNOWN: usize = 128;

/// Users of an id that are remembered at most.
const MAX_USERS: usize = 64;

/// For how long a web server counts as a user of an id. Only new sessions show it, and at night few
/// come: a user that is forgotten too early makes applications that share cookies look like one.
const KEEP_USERS_MS: u64 = 60 * 60 * 1000;

/// So many sessions that went from one id to another, and not back, are no accident.
const MIN_MOVED: usize = 3;

/// Findings of one kind, at most.
const MAX_FINDINGS: usize = 4;

/// The latest changes, and who uses which id.
#[derive(Debug, Default)]
pub(crate) struct SharedIds {
    changes: VecDeque<(u64, IdUse)>,
    known: BTreeMap<StartId, Known>,
}

/// An id with its hash, and when which web server was last seen to use it.
#[derive(Debug)]
struct Known {
    app: String,
    hash: String,
    users: BTreeMap<IpAddr, u64>,
}

/// An id and the web servers that use it.
type Users<'a> = (&'a str, &'a BTreeSet<IpAddr>);

/// What is found: pairs of ids, or ids with two hashes, each with a session that shows it.
#[derive(Default)]
struct Found<'a> {
    ids: BTreeMap<(&'a str, &'a str), Fingerprint>,
    hashes: BTreeMap<&'a str, ([IpAddr; 2], Fingerprint)>,
}

impl SharedIds {
    /// Takes note of a use at `now_ms`.
    pub(crate) fn saw(&mut self, seen: IdUse, now_ms: u64) {
        self.note_user(&seen, now_ms);
        if seen.before.is_none() {
            return;
        }
        self.changes.retain(|(at_ms, known)| {
            let is_same =
                (known.session, known.start, known.by) == (seen.session, seen.start, seen.by);
            !is_same && at_ms + KEEP_MS > now_ms
        });
        if self.changes.len() == MAX_CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back((now_ms, seen));
    }

    fn note_user(&mut self, seen: &IdUse, now_ms: u64) {
        self.known.retain(|_, known| {
            known
                .users
                .retain(|_, at_ms| *at_ms + KEEP_USERS_MS > now_ms);
            !known.users.is_empty()
        });
        if self.known.len() >= MAX_KNOWN && !self.known.contains_key(&seen.start) {
            let last = |known: &Known| known.users.values().copied().max();
            let oldest = self.known.iter().min_by_key(|(_, known)| last(known));
            if let Some(start) = oldest.map(|(start, _)| *start) {
                self.known.remove(&start);
            }
        }
        let known = self.known.entry(seen.start).or_insert_with(|| Known {
            app: seen.app.clone(),
            hash: seen.hash.clone(),
            users: BTreeMap::new(),
        });
        if known.users.len() >= MAX_USERS && !known.users.contains_key(&seen.by) {
            let oldest = known.users.iter().min_by_key(|(_, at_ms)| **at_ms);
            if let Some(by) = oldest.map(|(by, _)| *by) {
                known.users.remove(&by);
            }
        }
        known.users.insert(seen.by, now_ms);
    }

    /// What follows from those that count at `now_ms`.
    pub(crate) fn findings(&self, now_ms: u64) -> Vec<Finding> {
        let changes = self.changes.iter();
        let changes: Vec<_> = changes
            .filter_map(|(at_ms, change)| (at_ms + KEEP_MS > now_ms).then_some(change))
            .collect();
        let users = self.users(&changes, now_ms);
        let mut found = Found::default();
        there_and_back(&changes, &users, &mut found);
        self.moved(&changes, &users, now_ms, &mut found);
        let ids = found.ids.into_iter().map(|((first, second), session)| {
            let mut both = [first, second].map(|id| (id, list(&users[id]), users[id].len()));
            // Most sessions stay with the id that most web servers use.
            both.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
            let [known, also] = both.map(|(id, by, _)| (id, by));
            Finding::application_ids_differ(known, also, &session.to_string())
        });
        let hashes = found.hashes.into_iter().map(|(app, (by, session))| {
            Finding::application_hashes_differ(app, by, &session.to_string())
        });
        let ids = ids.take(MAX_FINDINGS);
        ids.chain(hashes.take(MAX_FINDINGS)).collect()
    }

    /// The users of each id, whatever its hash.
    fn users<'a>(
        &'a self,
        changes: &[&'a IdUse],
        now_ms: u64,
    ) -> BTreeMap<&'a str, BTreeSet<IpAddr>> {
        let mut users: BTreeMap<&str, BTreeSet<IpAddr>> = BTreeMap::new();
        for known in self.known.values() {
            users
                .entry(&known.app)
                .or_default()
                .extend(known.users_at(now_ms));
        }
        for change in changes {
            users.entry(&change.app).or_default().insert(change.by);
        }
        users
    }

    /// What sessions show that went from one id to another and were not seen to go back.
    fn moved<'a>(
        &'a self,
        changes: &[&'a IdUse],
        users: &BTreeMap<&'a str, BTreeSet<IpAddr>>,
        now_ms: u64,
        found: &mut Found<'a>,
    ) {
        let mut moved: BTreeMap<(StartId, StartId), BTreeSet<Fingerprint>> = BTreeMap::new();
        for change in changes {
            let Some(before) = change.before else {
                continue;
            };
            let pair = (before.min(change.start), before.max(change.start));
            moved.entry(pair).or_default().insert(change.session);
        }
        for ((one, other), sessions) in moved {
            // An id that nobody uses any more is none that web servers disagree about.
            let (Some(one), Some(other)) = (self.known.get(&one), self.known.get(&other)) else {
                continue;
            };
            let by: [BTreeSet<IpAddr>; 2] =
                [one, other].map(|known| known.users_at(now_ms).collect());
            let ([Some(first_by), Some(other_by)], Some(session)) =
                (by.each_ref().map(BTreeSet::first), sessions.first())
            else {
                continue;
            };
            if sessions.len() < MIN_MOVED {
                continue;
            }
            let (first, second) = (one.app.as_str(), other.app.as_str());
            if first == second && one.hash != other.hash && by[0].is_disjoint(&by[1]) {
                let by = [*first_by, *other_by];
                found.hashes.entry(first).or_insert((by, *session));
            } else if is_one_application((first, &users[first]), (second, &users[second])) {
                let pair = (first.min(second), first.max(second));
                found.ids.entry(pair).or_insert(*session);
            }
        }
    }
}

impl Known {
    fn users_at(&self, now_ms: u64) -> impl Iterator<Item = IpAddr> {
        let users = self.users.iter();
        users.filter_map(move |(by, at_ms)| (at_ms + KEEP_USERS_MS > now_ms).then_some(*by))
    }
}

/// What sessions show that were seen to change to both ids.
fn there_and_back<'a>(
    changes: &[&'a IdUse],
    users: &BTreeMap<&'a str, BTreeSet<IpAddr>>,
    found: &mut Found<'a>,
) {
    for (number, one) in changes.iter().enumerate() {
        for other in &changes[number + 1..] {
            if one.session != other.session {
                continue;
            }
            let (first, second) = (one.app.as_str(), other.app.as_str());
            if first == second && one.hash != other.hash && one.by != other.by {
                let by = [one.by, other.by];
                found.hashes.entry(first).or_insert((by, one.session));
            } else if is_one_application((first, &users[first]), (second, &users[second])) {
                let pair = (first.min(second), first.max(second));
                found.ids.entry(pair).or_insert(one.session);
            }
        }
    }
}

fn is_one_application(one: Users<'_>, other: Users<'_>) -> bool {
    if one.0 == other.0 {
        return false;
    }
    let [first, second] = [one.0, other.0].map(str::to_ascii_lowercase);
    if first.trim_start_matches('/') == second.trim_start_matches('/') {
        return true;
    }
    without_site(&first) == without_site(&second) && one.1.is_disjoint(other.1)
}

/// An id in lower case without the number of the site.
fn without_site(id: &str) -> String {
    let mut parts: Vec<&str> = id.trim_start_matches('/').split('/').collect();
    if let ["lm", "w3svc", site, ..] = parts.as_mut_slice() {
        *site = "*";
    }
    parts.join("/")
}

fn list(addresses: &BTreeSet<IpAddr>) -> String {
    const MAX_SHOWN: usize = 4;
    let shown = addresses.iter().take(MAX_SHOWN).map(IpAddr::to_string);
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if addresses.len() > MAX_SHOWN {
        text += &format!(" and {} more", addresses.len() - MAX_SHOWN);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::finding::Code;
    use super::*;
    use crate::route::HashKey;

    const MINUTE_MS: u64 = 60_000;
    const SHOP: &str = "/LM/W3SVC/2/ROOT/Shop";
    const THIRD: &str = "/LM/W3SVC/3/ROOT/Shop";

    /// Sessions, and the latest id of each.
    #[derive(Default)]
    struct Farm {
        shared: SharedIds,
        last: BTreeMap<String, StartId>,
    }

    impl Farm {
        /// The session comes as the data path tells it.
        fn saw(&mut self, session: &str, app: &str, hash: &str, by: &str, now_ms: u64) {
            let start = HashKey::DEFAULT.locate(format!("{app}({hash})").as_bytes());
            let start = StartId::of(start.hash);
            let last = self.last.insert(session.to_owned(), start);
            let seen = IdUse {
                session: HashKey::DEFAULT.locate(session.as_bytes()).fingerprint,
                start,
                before: last.filter(|before| *before != start),
                app: app.to_owned(),
                hash: hash.to_owned(),
                by: by.parse().unwrap(),
            };
            self.shared.saw(seen, now_ms);
        }

        fn found(&self, now_ms: u64) -> Vec<(Code, String)> {
            let found = self.shared.findings(now_ms).into_iter();
            found
                .map(|one| (one.code, one.says + &one.action))
                .collect()
        }
    }

    fn farm(uses: &[(&str, &str, &str, &str)]) -> Farm {
        let mut farm = Farm::default();
        for (session, app, hash, by) in uses {
            farm.saw(session, app, hash, by, MINUTE_MS);
        }
        farm
    }

    fn found(uses: &[(&str, &str, &str, &str)]) -> Vec<(Code, String)> {
        farm(uses).found(MINUTE_MS)
    }

    fn codes(found: &[(Code, String)]) -> Vec<Code> {
        found.iter().map(|(code, _)| *code).collect()
    }

    #[test]
    fn another_site_number_on_another_web_server_is_found_with_an_entry_that_cures_it() {
        let farm = farm(&[
            ("s", SHOP, "h2", "10.0.0.2"),
            ("s", THIRD, "h3", "10.0.0.3"),
            ("s", SHOP, "h2", "10.0.0.2"),
            ("t", SHOP, "h2", "10.0.0.4"),
        ]);
        let found_now = farm.found(MINUTE_MS);
        let [(Code::ApplicationIdsDiffer, text)] = found_now.as_slice() else {
            panic!("{found_now:?}")
        };
        let entry =
            "{name: Shop, id: \"/LM/W3SVC/2/ROOT/Shop\", also: [\"/LM/W3SVC/3/ROOT/Shop\"]}";
        for part in [entry, "10.0.0.2, 10.0.0.4", "10.0.0.3"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("/ROOT/Shop/s"));
        assert_eq!(farm.found(MINUTE_MS + KEEP_MS), []);
    }

    #[test]
    fn letter_case_and_other_hashes_are_found_and_applications_of_one_site_are_not() {
        let case = found(&[
            ("s", SHOP, "h", "10.0.0.2"),
            ("s", "/LM/W3SVC/2/Root/shop", "i", "10.0.0.2"),
            ("s", SHOP, "h", "10.0.0.2"),
        ]);
        assert_eq!(codes(&case), [Code::ApplicationIdsDiffer]);
        let hash = found(&[
            ("s", SHOP, "h", "10.0.0.2"),
            ("s", SHOP, "i", "10.0.0.3"),
            ("s", SHOP, "h", "10.0.0.2"),
        ]);
        assert_eq!(codes(&hash), [Code::ApplicationHashesDiffer]);
        for other in ["/LM/W3SVC/2/ROOT/Admin", THIRD] {
            let uses = [
                ("s", SHOP, "h", "10.0.0.2"),
                ("s", other, "i", "10.0.0.2"),
                ("s", SHOP, "h", "10.0.0.2"),
            ];
            assert_eq!(found(&uses), [], "{other}");
        }
        let two = [("s", SHOP, "h", "10.0.0.2"), ("t", SHOP, "i", "10.0.0.3")];
        assert_eq!(found(&two), []);
    }

    /// As behind a balancer that keeps users at a web server until it leaves.
    #[test]
    fn sessions_that_go_there_and_stay_are_found_once_there_are_a_few() {
        let case = "/LM/W3SVC/2/Root/shop";
        for (app, hash, code) in [
            (THIRD, "i", Code::ApplicationIdsDiffer),
            (case, "i", Code::ApplicationIdsDiffer),
            (SHOP, "i", Code::ApplicationHashesDiffer),
        ] {
            let mut farm = Farm::default();
            let sessions = ["s", "t", "u"];
            for session in sessions {
                farm.saw(session, SHOP, "h", "10.0.0.2", MINUTE_MS);
            }
            for (moved, session) in sessions.iter().enumerate() {
                assert_eq!(farm.found(2 * MINUTE_MS), [], "{moved} {app} {hash}");
                farm.saw(session, app, hash, "10.0.0.3", 2 * MINUTE_MS);
            }
            let found_now = farm.found(2 * MINUTE_MS);
            assert_eq!(codes(&found_now), [code]);
            for part in ["10.0.0.2", "10.0.0.3"] {
                assert!(found_now[0].1.contains(part), "{found_now:?}");
            }
            assert_eq!(farm.found(2 * MINUTE_MS + KEEP_MS), []);
        }
    }

    /// Two sites behind one host name share its cookies, and a new site number that has reached every
    /// web server is none that they disagree about.
    #[test]
    fn sessions_that_go_there_and_stay_say_nothing_if_a_web_server_uses_both() {
        for (app, hash) in [(THIRD, "i"), (SHOP, "i")] {
            for new in [("10.0.0.2", app, hash), ("10.0.0.3", SHOP, "h")] {
                let mut farm = Farm::default();
                for session in ["s", "t", "u"] {
                    farm.saw(session, SHOP, "h", "10.0.0.2", MINUTE_MS);
                    farm.saw(session, app, hash, "10.0.0.3", MINUTE_MS);
                }
                assert_eq!(farm.found(MINUTE_MS).len(), 1);
                let (by, app, hash) = new;
                farm.saw("new", app, hash, by, 2 * MINUTE_MS);
                assert_eq!(farm.found(2 * MINUTE_MS), []);
            }
        }
        // Nobody has used the id for an hour that these sessions had.
        let mut farm = Farm::default();
        let later_ms = MINUTE_MS + KEEP_USERS_MS;
        for session in ["s", "t", "u"] {
            farm.saw(session, SHOP, "h", "10.0.0.2", MINUTE_MS);
        }
        for session in ["s", "t", "u"] {
            farm.saw(session, THIRD, "i", "10.0.0.3", later_ms);
        }
        assert_eq!(farm.found(later_ms), []);
    }

    #[test]
    fn nothing_grows_without_bound() {
        let mut farm = Farm::default();
        for number in 0..2 * MAX_KNOWN {
            let by = format!("10.0.1.{number}");
            for app in [SHOP.to_owned(), format!("/LM/W3SVC/{number}/ROOT")] {
                farm.saw("s", &app, "h", &by, number as u64);
            }
        }
        let known = &farm.shared.known;
        assert_eq!(
            (known.len(), farm.shared.changes.len()),
            (MAX_KNOWN, MAX_CHANGES)
        );
        let shop = known.values().find(|known| known.app == SHOP).unwrap();
        assert_eq!(shop.users.len(), MAX_USERS);
        assert!(shop.users.contains_key(&"10.0.1.255".parse().unwrap()));
    }
}
