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
    /// Those of the map; `None` if it has none. What was counted `before` under their names stays.
    pub fn new(specs: &[ApplicationSpec], before: Option<&Self>) -> Option<Arc<Self>> {
        if specs.is_empty() {
            return None;
        }
        let counted = |name: &str| {
            let known = before.and_then(|before| {
                let mut metrics = before.metrics.iter();
                metrics.find(|known| known.name == name).cloned()
            });
            known.unwrap_or_else(|| Arc::new(ApplicationMetrics::new(name)))
        };
        let names = specs.iter().map(|spec| spec.name.as_str());
        Some(Arc::new(Self {
            applications: specs.iter().map(|spec| spec.application.clone()).collect(),
            metrics: names.chain([OTHER]).map(counted).collect(),
        }))
    }

    /// What is counted, in the order of the map, and behind it of all others.
    pub fn metrics(&self) -> &[Arc<ApplicationMetrics>] {
        &self.metrics
    }
}
