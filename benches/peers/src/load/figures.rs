//! What is measured: requests, latencies, and the CPU time of the processes under test.

use std::fs;
use std::time::{Duration, Instant};

use crate::Error;

pub(super) struct Figures {
    pids: Vec<u32>,
    start: Instant,
    elapsed: Duration,
    cpu_ns: u64,
    latencies_ns: Vec<u32>,
}

impl Figures {
    pub(super) fn new(pids: Vec<u32>) -> Self {
        Self {
            pids,
            start: Instant::now(),
            elapsed: Duration::ZERO,
            cpu_ns: 0,
            latencies_ns: Vec::with_capacity(1 << 20),
        }
    }

    pub(super) fn start(&mut self) -> Result<(), Error> {
        self.cpu_ns = self.cpu_so_far_ns()?;
        self.start = Instant::now();
        Ok(())
    }

    pub(super) fn stop(&mut self) -> Result<(), Error> {
        self.elapsed = self.start.elapsed();
        self.cpu_ns = self.cpu_so_far_ns()? - self.cpu_ns;
        Ok(())
    }

    pub(super) fn record(&mut self, latency: Duration) {
        let ns = u32::try_from(latency.as_nanos()).unwrap_or(u32::MAX);
        self.latencies_ns.push(ns);
    }

    pub(super) fn requests(&self) -> u64 {
        self.latencies_ns.len() as u64
    }

    /// One line: `requests`, `seconds`, `cpu_us` and the latencies `p50_us`, `p99_us`, `p999_us` and
    /// `max_us`.
    pub(super) fn json(&mut self) -> String {
        self.latencies_ns.sort_unstable();
        let at = |per_mille: usize| {
            let count = self.latencies_ns.len();
            let index = (count * per_mille / 1000).min(count.saturating_sub(1));
            f64::from(self.latencies_ns.get(index).copied().unwrap_or(0)) / 1e3
        };
        format!(
            "{{\"requests\": {}, \"seconds\": {}, \"cpu_us\": {}, \
             \"p50_us\": {}, \"p99_us\": {}, \"p999_us\": {}, \"max_us\": {}}}",
            self.requests(),
            self.elapsed.as_secs_f64(),
            self.cpu_ns as f64 / 1e3,
            at(500),
            at(990),
            at(999),
            at(1000)
        )
    }

    /// Of all threads of the processes; a thread that ends in between would be missing, but none of
    /// the subjects ends any.
    fn cpu_so_far_ns(&self) -> Result<u64, Error> {
        let fault = |e| Error::Io("reading the CPU time of a proxy", e);
        let mut sum = 0;
        for pid in &self.pids {
            for task in fs::read_dir(format!("/proc/{pid}/task")).map_err(fault)? {
                let path = task.map_err(fault)?.path().join("schedstat");
                let text = fs::read_to_string(path).map_err(fault)?;
                let ns = text.split(' ').next().and_then(|first| first.parse().ok());
                sum += ns.unwrap_or(0_u64);
            }
        }
        Ok(sum)
    }
}
