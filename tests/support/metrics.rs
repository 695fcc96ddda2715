//! A scrape as Prometheus reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::system::ask_page;

/// Values by series, which is written as in the text format: `name{label="value",...}`.
#[derive(Debug, Clone)]
pub struct Scrape {
    pub text: String,
    series: BTreeMap<String, f64>,
}

impl Scrape {
    /// Asks the admin server.
    pub fn of(admin: SocketAddr) -> Self {
        Self::read(ask_page(admin, "/metrics"))
    }

    /// Reads the text format.
    pub fn read(text: String) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        };
        let series = samples.map(sample).collect();
        Self { text, series }
    }

    /// The value of a series; 0 if it is not there.
    pub fn value(&self, series: &str) -> f64 {
        self.get(series).unwrap_or(0.0)
    }

    /// The value of a series, if it is there.
    pub fn get(&self, series: &str) -> Option<f64> {
        self.series.get(series).copied()
    }

    /// All series of a metric that are not 0, by their labels.
    pub fn non_zero(&self, name: &str) -> BTreeMap<&str, f64> {
        let of_metric = self.series.iter().filter_map(|(series, value)| {
            let labels = series.strip_prefix(name)?;
            let is_whole_name = labels.is_empty() || labels.starts_with('{');
            (is_whole_name && *value != 0.0).then_some((labels, *value))
        });
        of_metric.collect()
    }

    /// The sum over all series of a metric.
    pub fn sum(&self, name: &str) -> f64 {
        self.non_zero(name).values().sum()
    }

    /// The declared metrics: name and type.
    pub fn types(&self) -> BTreeMap<&str, &str> {
        let lines = self.text.lines();
        let types = lines.filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        types.collect()
    }

    /// The names of the labels of every series of a metric, but for that of a bucket.
    pub fn labels(&self, name: &str) -> BTreeSet<Vec<String>> {
        let of_metric = self.series.keys().filter_map(|series| {
            let rest = series.strip_prefix(name)?;
            let rest = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|ending| rest.strip_prefix(ending))
                .unwrap_or(rest);
            if !rest.is_empty() && !rest.starts_with('{') {
                return None;
            }
            let names = rest
                .split(['{', ','])
                .filter_map(|label| label.split_once('='));
            let names = names.map(|(name, _)| name.to_owned());
            Some(names.filter(|name| name != "le").collect())
        });
        of_metric.collect()
    }
}
