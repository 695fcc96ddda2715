//! Durations and sizes as they are written in the files: a whole number and its unit, `2s`,
//! `64MiB`.

/// The units of one dimension, smallest first, each with its worth in the smallest.
pub(crate) type Units = &'static [(&'static str, u64)];

/// Units of time; the smallest is the millisecond.
pub(crate) const TIME: Units = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// Units of size; the smallest is the byte.
pub(crate) const SIZE: Units = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// Why a text is not a quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnitError {
    /// Digits alone.
    NoUnit,
    /// Not digits followed by one of the units.
    Malformed,
    /// More than 64 bits can count.
    TooLarge,
}

/// The quantity `text` stands for, in the smallest unit.
pub(crate) fn parse(text: &str, units: Units) -> Result<u64, UnitError> {
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    if digits.is_empty() {
        return Err(UnitError::Malformed);
    }
    if unit.is_empty() {
        return Err(UnitError::NoUnit);
    }
    let Some((_, worth)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(UnitError::Malformed);
    };
    let number: Option<u64> = digits.parse().ok();
    number
        .and_then(|number| number.checked_mul(*worth))
        .ok_or(UnitError::TooLarge)
}

/// `quantity` in the largest unit that divides it.
pub(crate) fn format(quantity: u64, units: Units) -> String {
    let fits = |(_, worth): &&(&str, u64)| quantity.is_multiple_of(*worth);
    match units.iter().rev().find(fits) {
        Some((name, worth)) if quantity > 0 => format!("{}{name}", quantity / worth),
        _ => format!("{quantity}{}", units.first().map_or("", |(name, _)| name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantities_need_exactly_a_number_and_a_unit() {
        assert_eq!(parse("500ms", TIME), Ok(500));
        assert_eq!(parse("1h", TIME), Ok(3_600_000));
        assert_eq!(parse("16KiB", SIZE), Ok(16_384));
        assert_eq!(parse("7B", SIZE), Ok(7));
        assert_eq!(parse("2", TIME), Err(UnitError::NoUnit));
        for text in [
            "", "s", "-1s", "1.5s", "1 s", "1m30s", "1S", "1d", "1MiB", "١s",
        ] {
            assert_eq!(parse(text, TIME), Err(UnitError::Malformed), "{text}");
        }
        assert_eq!(parse("18446744073709551615B", SIZE), Ok(u64::MAX));
        assert_eq!(
            parse("18446744073709551616B", SIZE),
            Err(UnitError::TooLarge)
        );
        assert_eq!(parse("17179869184GiB", SIZE), Err(UnitError::TooLarge));
    }

    #[test]
    fn quantities_are_written_in_the_largest_unit_that_divides_them() {
        assert_eq!(format(0, TIME), "0ms");
        assert_eq!(format(90_000, TIME), "90s");
        assert_eq!(format(120_000, TIME), "2m");
        assert_eq!(format(2047 << 20, SIZE), "2047MiB");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(quantity: u64) {
            for units in [TIME, SIZE] {
                prop_assert_eq!(parse(&format(quantity, units), units), Ok(quantity));
            }
        }
    }
}
