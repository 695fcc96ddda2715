//! What `GET /contents` answers.

use serde::{Deserialize, Serialize};

use crate::config;
use crate::contents::{AppTotal, ItemTotal, TableTotals};
use crate::metrics::PoolContents;

/// What the metrics show of it, at most: each is a series.
const MAX_APPS_IN_METRICS: usize = 10;
const MAX_ITEMS_IN_METRICS: usize = 10;
const MIN_PERCENT_IN_METRICS: f64 = 1.0;

/// What fills the servers, as far as this proxy has seen it stored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ContentsReport {
    /// Whether bodies are looked into.
    pub on: bool,
    /// One session in so many is looked at.
    pub one_in: u64,
    /// Sessions that the figures are of.
    pub sessions: u64,
    /// The applications with the most bytes, in that order.
    pub applications: Vec<AppContents>,
}

/// What the sessions of one application consist of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppContents {
    /// Its id, such as `/LM/W3SVC/2/ROOT/Shop`; empty where requests name none.
    pub name: String,
    /// Its part of the bytes of all that were looked at.
    pub percent: f64,
    /// Its sessions that were looked at.
    pub sessions: u64,
    /// Those of them that are compressed.
    pub compressed: u64,
    /// Those whose contents are not understood.
    pub not_understood: u64,
    /// Those of which names and lengths did not fit into the 16 KiB that are looked at.
    pub too_long: u64,
    /// Mean length of their bodies as they are stored.
    pub mean_bytes: u64,
    /// The items with the most bytes, in that order.
    pub items: Vec<ItemContents>,
    /// What the items that are not listed, names, and contents that are not understood take.
    pub rest_percent: f64,
}

/// One item of an application's sessions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ItemContents {
    /// Its name; empty for the one without a name.
    pub name: String,
    /// Its part of the bytes of the application.
    pub percent: f64,
    /// How many percent of the application's sessions have it.
    pub sessions_percent: f64,
    /// Its mean length where it is.
    pub mean_bytes: u64,
}

impl ContentsReport {
    pub(crate) fn new(on: bool, totals: TableTotals) -> Self {
        let bytes: u64 = totals.apps.iter().map(|app| app.body_bytes).sum();
        let app = |app: AppTotal| AppContents::new(app, bytes);
        Self {
            on,
            one_in: totals.one_in,
            sessions: totals.sessions,
            applications: totals.apps.into_iter().map(app).collect(),
        }
    }
}

impl From<&ContentsReport> for Vec<PoolContents> {
    /// What the metrics show of it.
    fn from(report: &ContentsReport) -> Self {
        let applications = report.applications.iter().take(MAX_APPS_IN_METRICS);
        let of_app = |app: &AppContents| {
            let items = app.items.iter().take(MAX_ITEMS_IN_METRICS);
            let items = items.filter(|item| item.percent >= MIN_PERCENT_IN_METRICS);
            PoolContents {
                application: app.name.clone(),
                ratio: app.percent / 100.0,
                items: items
                    .map(|item| (item.name.clone(), item.percent / 100.0))
                    .collect(),
            }
        };
        applications.map(of_app).collect()
    }
}

impl AppContents {
    fn new(app: AppTotal, all_bytes: u64) -> Self {
        let of_app = app.body_bytes;
        let listed: u64 = app.items.iter().map(|item| item.bytes).sum();
        let item = |item: ItemTotal| ItemContents {
            percent: percent(item.bytes, of_app),
            sessions_percent: percent(item.sessions, app.sessions),
            mean_bytes: item.bytes / item.sessions.max(1),
            name: config::shown(&item.name),
        };
        Self {
            percent: percent(of_app, all_bytes),
            sessions: app.sessions,
            compressed: app.compressed,
            not_understood: app.foreign,
            too_long: app.cut,
            mean_bytes: of_app / app.sessions.max(1),
            items: app.items.into_iter().map(item).collect(),
            rest_percent: percent(of_app.saturating_sub(listed), of_app),
            name: config::shown(&app.name),
        }
    }
}

/// With one digit behind the point.
fn percent(part: u64, all: u64) -> f64 {
    let percent = part as f64 * 100.0 / all.max(1) as f64;
    (percent * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names are what web servers send and users' pages store.
    #[test]
    fn names_steer_no_terminal() {
        let name = || "Cart\n\u{1b}[2J\u{202e}".to_owned();
        let item = ItemTotal {
            name: name(),
            sessions: 1,
            bytes: 5,
        };
        let app = AppTotal {
            name: name(),
            sessions: 1,
            foreign: 0,
            cut: 0,
            compressed: 0,
            body_bytes: 5,
            items: vec![item],
        };
        let totals = TableTotals {
            one_in: 1,
            sessions: 1,
            apps: vec![app],
        };
        let report = ContentsReport::new(true, totals);
        let app = &report.applications[0];
        let shown = "Cart\u{fffd}\u{fffd}[2J\u{fffd}";
        assert_eq!((&*app.name, &*app.items[0].name), (shown, shown));
    }
}
