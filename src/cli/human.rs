//! Quantities as people read them.

/// Seconds in a minute, an hour, a day.
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A duration in its two greatest units, such as `3m 12s`.
pub(super) fn duration_ms(ms: u64) -> String {
    duration_s(ms / 1000)
}

/// The same of seconds.
pub(super) fn duration_s(seconds: u64) -> String {
    let two = |greater, less, (name, less_name)| {
        let count = seconds / greater;
        match seconds % greater / less {
            0 => format!("{count}{name}"),
            rest => format!("{count}{name} {rest}{less_name}"),
        }
    };
    match seconds {
        DAY.. => two(DAY, HOUR, ("d", "h")),
        HOUR.. => two(HOUR, MINUTE, ("h", "m")),
        MINUTE.. => two(MINUTE, 1, ("m", "s")),
        _ => format!("{seconds}s"),
    }
}

/// A size in its greatest unit, such as `1.5 GiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would be rounded to 1024 is the next unit.
    while size >= 1023.95 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// A share, such as `33.3 %`.
pub(super) fn percent(percent: f64) -> String {
    format!("{percent:.1} %")
}

/// `1 slot`, `2 slots`.
pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {many}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units_at_most() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (192, "3m 12s"),
            (3600, "1h"),
            (7199, "1h 59m"),
            (100_000, "1d 3h"),
        ] {
            assert_eq!(duration_s(seconds), text);
        }
        assert_eq!(duration_ms(192_999), "3m 12s");
    }

    #[test]
    fn sizes_are_rounded_within_their_unit() {
        for (size, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (3 << 40, "3.0 TiB"),
            (5000 << 40, "5000.0 TiB"),
        ] {
            assert_eq!(bytes(size), text);
        }
    }
}
