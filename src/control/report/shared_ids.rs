//! Web servers that call one application by different ids, or send different hashes of one id: their
//! users lose their sessions with every change of the web server.
//!
//! Applications of one web site rightly share session ids, so two ids alone say nothing. They count
//! as one application's if they differ in the letter case alone, or in the number of the site, and no
//! web server uses both.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use super::finding::Finding;
use crate::proxy::ChangedId;

/// What is remembered at most.
const MAX_CHANGES: usize = 256;

/// For how long a change counts.
const KEEP_MS: u64 = 10 * 60 * 1000;

/// Findings of one kind, at most.
const MAX_FINDINGS: usize = 4;

/// The latest changes.
#[derive(Debug, Default)]
pub(crate) struct SharedIds {
    changes: VecDeque<(u64, ChangedId)>,
}

/// An id and the web servers that use it.
type Users<'a> = (&'a str, &'a BTreeSet<IpAddr>);

impl SharedIds {
    /// Takes note of a change at `now_ms`.
    pub(crate) fn saw(&mut self, change: ChangedId, now_ms: u64) {
        self.changes.retain(|(at_ms, known)| {
            let is_same = (known.session, &known.app, &known.hash, known.by)
                == (change.session, &change.app, &change.hash, change.by);
            !is_same && at_ms + KEEP_MS > now_ms
        });
        if self.changes.len() == MAX_CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back((now_ms, change));
    }

    /// What follows from those that count at `now_ms`.
    pub(crate) fn findings(&self, now_ms: u64) -> Vec<Finding> {
        let changes = || {
            let changes = self.changes.iter();
            changes.filter_map(|(at_ms, change)| (at_ms + KEEP_MS > now_ms).then_some(change))
        };
        let mut users: BTreeMap<&str, BTreeSet<IpAddr>> = BTreeMap::new();
        for change in changes() {
            users.entry(&change.app).or_default().insert(change.by);
        }
        let (mut ids, mut hashes) = (BTreeMap::new(), BTreeMap::new());
        for (number, one) in changes().enumerate() {
            for other in changes().skip(number + 1) {
                if one.session != other.session {
                    continue;
                }
                let session = one.session.to_string();
                if one.app == other.app && one.hash != other.hash && one.by != other.by {
                    let by = [one.by, other.by];
                    hashes.entry(one.app.as_str()).or_insert((by, session));
                } else if is_one_application(
                    (&one.app, &users[one.app.as_str()]),
                    (&other.app, &users[other.app.as_str()]),
                ) {
                    let (first, second) = (one.app.as_str(), other.app.as_str());
                    let pair = (first.min(second), first.max(second));
                    ids.entry(pair).or_insert(session);
                }
            }
        }
        let ids = ids.into_iter().map(|((first, second), session)| {
            let mut both = [first, second].map(|id| (id, list(&users[id]), users[id].len()));
            // Most sessions stay with the id that most web servers use.
            both.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
            let [known, also] = both.map(|(id, by, _)| (id, by));
            Finding::application_ids_differ(known, also, &session)
        });
        let hashes = hashes
            .into_iter()
            .map(|(app, (by, session))| Finding::application_hashes_differ(app, by, &session));
        let ids = ids.take(MAX_FINDINGS);
        ids.chain(hashes.take(MAX_FINDINGS)).collect()
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

    fn found(uses: &[(&str, &str, &str, &str)], now_ms: u64) -> Vec<(Code, String)> {
        let mut shared = SharedIds::default();
        for (session, app, hash, by) in uses {
            let change = ChangedId {
                session: HashKey::DEFAULT.locate(session.as_bytes()).fingerprint,
                app: (*app).to_owned(),
                hash: (*hash).to_owned(),
                by: by.parse().unwrap(),
            };
            shared.saw(change, MINUTE_MS);
        }
        let found = shared.findings(now_ms).into_iter();
        found
            .map(|one| (one.code, one.says + &one.action))
            .collect()
    }

    #[test]
    fn another_site_number_on_another_web_server_is_found_with_an_entry_that_cures_it() {
        let uses = [
            ("s", "/LM/W3SVC/3/ROOT/Shop", "h3", "10.0.0.3"),
            ("s", "/LM/W3SVC/2/ROOT/Shop", "h2", "10.0.0.2"),
            ("t", "/LM/W3SVC/2/ROOT/Shop", "h2", "10.0.0.4"),
        ];
        let found_now = found(&uses, MINUTE_MS);
        let [(Code::ApplicationIdsDiffer, text)] = found_now.as_slice() else {
            panic!("{found_now:?}")
        };
        let entry =
            "{name: Shop, id: \"/LM/W3SVC/2/ROOT/Shop\", also: [\"/LM/W3SVC/3/ROOT/Shop\"]}";
        for part in [entry, "10.0.0.2, 10.0.0.4", "10.0.0.3"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("/ROOT/Shop/s"));
        assert_eq!(found(&uses, MINUTE_MS + KEEP_MS), []);
    }

    #[test]
    fn letter_case_and_other_hashes_are_found_and_applications_of_one_site_are_not() {
        let shop = "/LM/W3SVC/2/ROOT/Shop";
        let case = found(
            &[
                ("s", shop, "h", "10.0.0.2"),
                ("s", "/LM/W3SVC/2/Root/shop", "i", "10.0.0.2"),
            ],
            MINUTE_MS,
        );
        assert!(
            matches!(case[..], [(Code::ApplicationIdsDiffer, _)]),
            "{case:?}"
        );
        let hash = found(
            &[("s", shop, "h", "10.0.0.2"), ("s", shop, "i", "10.0.0.3")],
            MINUTE_MS,
        );
        assert!(
            matches!(hash[..], [(Code::ApplicationHashesDiffer, _)]),
            "{hash:?}"
        );
        for other in ["/LM/W3SVC/2/ROOT/Admin", "/LM/W3SVC/3/ROOT/Shop"] {
            let uses = [("s", shop, "h", "10.0.0.2"), ("s", other, "i", "10.0.0.2")];
            assert_eq!(found(&uses, MINUTE_MS), [], "{other}");
        }
        let two = [("s", shop, "h", "10.0.0.2"), ("t", shop, "i", "10.0.0.3")];
        assert_eq!(found(&two, MINUTE_MS), []);
    }
}
