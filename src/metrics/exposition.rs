//! Samples on their way into the text format.

use std::collections::HashMap;

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric};
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{Error, TextEncoder};

use super::counter::{Bounds, HistogramTotals};
use super::table::{self, Family, MetricKind};

/// Samples by the name of their metric.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    samples: HashMap<&'static str, Vec<Metric>>,
}

impl Exposition {
    /// Adds a count to a counter or a gauge.
    pub(super) fn count<const N: usize>(
        &mut self,
        family: &'static Family,
        labels: [&str; N],
        count: u64,
    ) {
        self.value(family, labels, count as f64);
    }

    /// Adds a value to a counter or a gauge. `labels` are the values of its labels, in its order.
    pub(super) fn value<const N: usize>(
        &mut self,
        family: &'static Family,
        labels: [&str; N],
        value: f64,
    ) {
        let mut metric = metric(family, &labels);
        if family.kind == MetricKind::Counter {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.push(family, metric);
    }

    /// Adds a histogram.
    pub(super) fn histogram<const N: usize>(
        &mut self,
        family: &'static Family,
        labels: [&str; N],
        bounds: &Bounds,
        durations: &HistogramTotals,
    ) {
        let bucket = |(bound, count): (&u64, &u64)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(seconds(*bound));
            bucket.set_cumulative_count(*count);
            bucket
        };
        let mut histogram = Histogram::default();
        histogram.set_bucket(
            bounds
                .iter()
                .zip(&durations.cumulative)
                .map(bucket)
                .collect(),
        );
        histogram.set_sample_count(durations.count);
        histogram.set_sample_sum(seconds(durations.sum_ns));
        let mut metric = metric(family, &labels);
        metric.set_histogram(histogram);
        self.push(family, metric);
    }

    /// All of it in the text format, in the order of the table. A metric without a sample is left
    /// out.
    pub(super) fn encode(mut self) -> Result<String, Error> {
        let mut families = Vec::with_capacity(self.samples.len());
        for family in table::OF_STATE_SERVER.iter().chain(table::ALL) {
            let Some(samples) = self.samples.remove(family.name) else {
                continue;
            };
            let mut encoded = MetricFamily::default();
            encoded.set_name(family.name.to_owned());
            encoded.set_help(family.help.to_owned());
            encoded.set_field_type(match family.kind {
                MetricKind::Counter => MetricType::COUNTER,
                MetricKind::Gauge => MetricType::GAUGE,
                MetricKind::Histogram => MetricType::HISTOGRAM,
            });
            encoded.set_metric(samples);
            families.push(encoded);
        }
        TextEncoder::new().encode_to_string(&families)
    }

    fn push(&mut self, family: &'static Family, metric: Metric) {
        self.samples.entry(family.name).or_default().push(metric);
    }
}

fn metric(family: &Family, values: &[&str]) -> Metric {
    let label = |(name, value): (&&str, &&str)| {
        let mut label = LabelPair::default();
        label.set_name((*name).to_owned());
        label.set_value((*value).to_owned());
        label
    };
    Metric::from_label(family.labels.iter().zip(values).map(label).collect())
}

/// Exact for the bounds, which a label shows.
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
