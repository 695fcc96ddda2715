//! The applications of the partition map on the data path, with what is counted of them.

use std::sync::Arc;

use crate::config::ApplicationSpec;
use crate::metrics::ApplicationMetrics;
use crate::route::Application;

/// The label of what belongs to no application of the map.
const OTHER: &str = "other";

/// The applications of a partition map that has any.
#[derive(Debug)]
pub struct ApplicationSet {
    pub(super) applications: Vec<Application>,
    /// One for each of them, and the last for all others.
    metrics: Vec<Arc<ApplicationMetrics>>,
}

impl ApplicationSet {
    /// Those of the map; `None` if it has none. What was counted `before` under their names stays, and
    /// so do their numbers.
    pub fn new(specs: &[ApplicationSpec], before: Option<&Self>) -> Option<Arc<Self>> {
        if specs.is_empty() {
            return None;
        }
        let known = before.map_or(&[][..], |before| before.metrics.as_slice());
        let mut metrics: Vec<Arc<ApplicationMetrics>> = Vec::with_capacity(specs.len() + 1);
        for name in specs.iter().map(|spec| spec.name.as_str()).chain([OTHER]) {
            let same = known.iter().find(|known| known.name == name).cloned();
            let metrics_of = same.unwrap_or_else(|| {
                let number = match name {
                    OTHER => 0,
                    _ => free_number(known.iter().chain(&metrics)),
                };
                Arc::new(ApplicationMetrics::new(name, number))
            });
            metrics.push(metrics_of);
        }
        Some(Arc::new(Self {
            applications: specs.iter().map(|spec| spec.application.clone()).collect(),
            metrics,
        }))
    }

    /// What is counted, in the order of the map, and behind it of all others.
    pub fn metrics(&self) -> &[Arc<ApplicationMetrics>] {
        &self.metrics
    }
}

/// A number that no application has. Those of applications that have left the map come back last:
/// their sessions are still counted under them.
fn free_number<'a>(taken: impl Iterator<Item = &'a Arc<ApplicationMetrics>>) -> u8 {
    let taken: Vec<u8> = taken.map(|metrics| metrics.number).collect();
    let last = taken.iter().copied().max().unwrap_or(0);
    let numbers = (last..u8::MAX).map(|number| number + 1).chain(1..=last);
    // A map has fewer applications than there are numbers.
    numbers
        .into_iter()
        .find(|number| !taken.contains(number))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PartitionMap;

    fn set(names: &[&str], before: Option<&ApplicationSet>) -> Arc<ApplicationSet> {
        let mut map = "version: 1\nbackends: [{name: a, address: '10.0.0.1:1'}]\n".to_owned();
        map += "applications:\n";
        for name in names {
            map += &format!("  - {{name: {name}, id: /LM/{name}}}\n");
        }
        let map = PartitionMap::parse(map, "map.yaml").unwrap();
        ApplicationSet::new(&map.applications, before).unwrap()
    }

    fn numbers(set: &ApplicationSet) -> Vec<(&str, u8)> {
        let metrics = set.metrics().iter();
        metrics.map(|of| (of.name.as_str(), of.number)).collect()
    }

    #[test]
    fn an_application_keeps_its_number_and_a_new_one_gets_none_that_was_just_given_up() {
        let first = set(&["shop", "blog"], None);
        assert_eq!(numbers(&first), [("shop", 1), ("blog", 2), ("other", 0)]);
        let second = set(&["admin", "shop"], Some(&first));
        assert_eq!(numbers(&second), [("admin", 3), ("shop", 1), ("other", 0)]);
        let mut before = second;
        for round in 0..300 {
            let name = format!("app-{round}");
            before = set(&["shop", &name], Some(&before));
            let [(_, 1), (_, number), (_, 0)] = numbers(&before)[..] else {
                panic!("{:?}", numbers(&before))
            };
            assert!(number > 1, "{round}");
        }
    }
}
