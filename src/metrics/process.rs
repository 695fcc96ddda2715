//! What the system says about this process.

use std::fs;

use super::exposition::Exposition;
use super::table;

/// The kernel counts CPU time in hundredths of a second for whoever reads it here.
const TICKS_PER_S: f64 = 100.0;

/// Adds what can be read; the rest is left out.
pub(super) fn expose(out: &mut Exposition, started_ms: u64) {
    out.value(&table::PROCESS_START, [], started_ms as f64 / 1e3);
    let read = |file: &str| fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    if let Some(ticks) = cpu_ticks(&read("stat")) {
        out.value(&table::PROCESS_CPU, [], ticks as f64 / TICKS_PER_S);
    }
    let status = read("status");
    for (family, key, unit) in [
        (&table::PROCESS_THREADS, "Threads:", 1),
        (&table::PROCESS_VIRTUAL_MEMORY, "VmSize:", 1024),
        (&table::PROCESS_RESIDENT_MEMORY, "VmRSS:", 1024),
    ] {
        if let Some(count) = number_after(&status, key) {
            out.count(family, [], count * unit);
        }
    }
    if let Some(max) = number_after(&read("limits"), "Max open files") {
        out.count(&table::PROCESS_MAX_FDS, [], max);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        out.count(&table::PROCESS_OPEN_FDS, [], open.count() as u64);
    }
}

/// Memory of this process that is in RAM, if the system says.
pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    number_after(&status, "VmRSS:").map(|kib| kib * 1024)
}

/// User and system time, fields 14 and 15; the name of the program, field 2, may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The first word behind `key` at the start of a line.
fn number_after(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "7 (a) b) c) S 1 7 7 0 -1 4194560 1 2 3 4 120 34 0 0 20 0 5 0 99 1 2";
        assert_eq!(cpu_ticks(stat), Some(154));
        assert_eq!(cpu_ticks(""), None);
    }

    #[test]
    fn numbers_are_found_by_the_start_of_their_line() {
        let limits =
            "Limit  Soft Limit  Hard Limit\nMax open files            1024    4096  files\n";
        assert_eq!(number_after(limits, "Max open files"), Some(1024));
        assert_eq!(number_after("VmRSS:\t  12 kB\n", "VmRSS:"), Some(12));
        assert_eq!(
            number_after("Max open files  unlimited", "Max open files"),
            None
        );
    }
}
