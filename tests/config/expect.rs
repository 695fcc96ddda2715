//! What the tests of faults expect.

use staterouter::config::{Config, Faults, PartitionMap};

/// Line, column, part of the problem, part of the help.
pub(crate) type Expected<'a> = (usize, usize, &'a str, &'a str);

#[track_caller]
pub(crate) fn assert_faults(faults: &Faults, expected: &[Expected<'_>]) {
    let places: Vec<(usize, usize)> = faults.iter().map(|f| (f.line(), f.column())).collect();
    let wanted: Vec<(usize, usize)> = expected.iter().map(|e| (e.0, e.1)).collect();
    assert_eq!(places, wanted, "\n{faults}");
    assert_eq!(faults.total(), expected.len());
    for (fault, (_, _, problem, help)) in faults.iter().zip(expected) {
        assert!(
            fault.problem().contains(problem),
            "{problem:?} not in\n{fault}"
        );
        assert!(fault.help().contains(help), "{help:?} not in\n{fault}");
    }
}

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
#[track_caller]
pub(crate) fn main_faults(text: &str, expected: &[Expected<'_>]) {
    assert_faults(&Config::parse(text, "main.yaml").unwrap_err(), expected);
}

/// One fault in the text below a sound `partition_map:` line, which is line 1.
#[track_caller]
pub(crate) fn main_fault(below: &str, expected: Expected<'_>) {
    main_faults(&format!("partition_map: map.yaml\n{below}"), &[expected]);
}

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
#[track_caller]
pub(crate) fn map_faults(text: &str, expected: &[Expected<'_>]) {
    assert_faults(
        &PartitionMap::parse(text, "map.yaml").unwrap_err(),
        expected,
    );
}
