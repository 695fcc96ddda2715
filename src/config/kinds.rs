//! The kinds of scalar a key can hold. Each says in one place how a value is read, how it is
//! written, and how it is described to a person and to an editor.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::outline::{Shape, TextShape};
use super::printable::quoted;
use super::raw::{Resolved, Scalar};
use super::units::{self, UnitError, Units};

/// Why a scalar is not a value of the kind.
#[derive(Debug)]
pub(crate) struct Mistake {
    pub(crate) problem: String,
    /// What to write instead, where more can be said than the kind's [`ValueKind::wanted`].
    pub(crate) help: Option<String>,
}

impl Mistake {
    pub(crate) fn new(problem: impl Into<String>) -> Self {
        Mistake {
            problem: problem.into(),
            help: None,
        }
    }

    pub(crate) fn with_help(problem: impl Into<String>, help: impl Into<String>) -> Self {
        Mistake {
            problem: problem.into(),
            help: Some(help.into()),
        }
    }
}

/// How the scalar of a key is read and described.
pub(crate) trait ValueKind {
    /// What a scalar of this kind becomes.
    type Value;

    /// A noun phrase for "write ...".
    fn wanted(&self) -> String;

    /// The form for the JSON Schema.
    fn shape(&self) -> Shape;

    /// The value of a scalar that is not null.
    fn read(&self, scalar: &Scalar) -> Result<Self::Value, Mistake>;

    /// The value as it would stand in the file.
    fn write(&self, value: &Self::Value) -> serde_json::Value;

    /// Whether the value must not be shown anywhere.
    fn is_secret(&self) -> bool {
        false
    }
}

/// A whole number in decimal digits.
pub(crate) struct Integer(pub(crate) RangeInclusive<u64>);

impl ValueKind for Integer {
    type Value = u64;

    fn wanted(&self) -> String {
        format!(
            "a whole number {}",
            bounds(self.0.start(), self.0.end(), &u64::MAX)
        )
    }

    fn shape(&self) -> Shape {
        Shape::Integer {
            min: *self.0.start(),
            max: *self.0.end(),
        }
    }

    fn read(&self, scalar: &Scalar) -> Result<u64, Mistake> {
        let text = scalar.text.as_str();
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Mistake::new(format!(
                "{} is not a whole number",
                quoted(text)
            )));
        }
        if digits.len() > 1 && digits.starts_with('0') {
            return Err(Mistake::with_help(
                format!(
                    "{} begins with a zero, which some readers take for octal",
                    quoted(text)
                ),
                "write the number without leading zeros",
            ));
        }
        if scalar.resolved == Resolved::Text {
            return Err(Mistake::with_help(
                format!("{} is text because of its quotes", quoted(text)),
                "write the number without quotes",
            ));
        }
        match text.parse() {
            Ok(number) if self.0.contains(&number) => Ok(number),
            _ => Err(out_of_range(text)),
        }
    }

    fn write(&self, value: &u64) -> serde_json::Value {
        (*value).into()
    }
}

/// A whole number with a unit, in its smallest unit.
struct Quantity<'r> {
    noun: &'static str,
    range: &'r RangeInclusive<u64>,
    units: Units,
}

impl Quantity<'_> {
    fn wanted(&self) -> String {
        let [min, max] =
            [self.range.start(), self.range.end()].map(|end| units::format(*end, self.units));
        let names: Vec<&str> = self.units.iter().map(|(name, _)| *name).collect();
        format!(
            "a {} from {min} to {max} with its unit ({})",
            self.noun,
            names.join(", ")
        )
    }

    fn shape(&self) -> Shape {
        let names: Vec<&str> = self.units.iter().map(|(name, _)| *name).collect();
        let pattern = Some(format!("^[0-9]+({})$", names.join("|")));
        Shape::Text(TextShape {
            wanted: self.wanted(),
            pattern,
        })
    }

    fn read(&self, scalar: &Scalar) -> Result<u64, Mistake> {
        let text = scalar.text.as_str();
        match units::parse(text, self.units) {
            Ok(quantity) if self.range.contains(&quantity) => Ok(quantity),
            Ok(_) | Err(UnitError::TooLarge) => Err(out_of_range(text)),
            Err(UnitError::NoUnit) => {
                let forms: Vec<String> = self
                    .units
                    .iter()
                    .map(|(name, _)| quoted(&format!("{text}{name}")))
                    .collect();
                Err(Mistake::with_help(
                    format!("{} has no unit", quoted(text)),
                    format!("write the unit as well: {}", forms.join(", ")),
                ))
            }
            Err(UnitError::Malformed) => Err(Mistake::new(format!(
                "{} is not a {}",
                quoted(text),
                self.noun
            ))),
        }
    }

    fn write(&self, quantity: u64) -> serde_json::Value {
        units::format(quantity, self.units).into()
    }
}

/// A duration such as `2s`; the range is in milliseconds.
pub(crate) struct Durations(pub(crate) RangeInclusive<u64>);

impl Durations {
    fn quantity(&self) -> Quantity<'_> {
        Quantity {
            noun: "duration",
            range: &self.0,
            units: units::TIME,
        }
    }
}

impl ValueKind for Durations {
    type Value = Duration;

    fn wanted(&self) -> String {
        self.quantity().wanted()
    }

    fn shape(&self) -> Shape {
        self.quantity().shape()
    }

    fn read(&self, scalar: &Scalar) -> Result<Duration, Mistake> {
        self.quantity().read(scalar).map(Duration::from_millis)
    }

    fn write(&self, value: &Duration) -> serde_json::Value {
        self.quantity()
            .write(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A size such as `64MiB`, in bytes.
pub(crate) struct Sizes(pub(crate) RangeInclusive<u64>);

impl Sizes {
    fn quantity(&self) -> Quantity<'_> {
        Quantity {
            noun: "size",
            range: &self.0,
            units: units::SIZE,
        }
    }
}

impl ValueKind for Sizes {
    type Value = u64;

    fn wanted(&self) -> String {
        self.quantity().wanted()
    }

    fn shape(&self) -> Shape {
        self.quantity().shape()
    }

    fn read(&self, scalar: &Scalar) -> Result<u64, Mistake> {
        self.quantity().read(scalar)
    }

    fn write(&self, value: &u64) -> serde_json::Value {
        self.quantity().write(*value)
    }
}

/// One of a few words.
pub(crate) struct Choice<T: 'static>(pub(crate) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> ValueKind for Choice<T> {
    type Value = T;

    fn wanted(&self) -> String {
        let words: Vec<String> = self.0.iter().map(|(word, _)| format!("`{word}`")).collect();
        format!("one of {}", words.join(", "))
    }

    fn shape(&self) -> Shape {
        Shape::Choice(self.0.iter().map(|(word, _)| *word).collect())
    }

    fn read(&self, scalar: &Scalar) -> Result<T, Mistake> {
        let found = self.0.iter().find(|(word, _)| *word == scalar.text);
        found
            .map(|(_, value)| *value)
            .ok_or_else(|| Mistake::new(format!("{} is not known here", quoted(&scalar.text))))
    }

    fn write(&self, value: &T) -> serde_json::Value {
        self.0
            .iter()
            .find(|(_, each)| each == value)
            .map(|(word, _)| *word)
            .into()
    }
}

/// Text of a certain form.
pub(crate) struct Text<T> {
    /// A noun phrase for "write ...".
    pub(crate) wanted: &'static str,
    /// Regular expression for editors; it may let through more than `parse`, never less.
    pub(crate) pattern: Option<&'static str>,
    pub(crate) parse: fn(&str) -> Result<T, Mistake>,
    pub(crate) write: fn(&T) -> String,
    pub(crate) secret: bool,
}

impl<T> ValueKind for Text<T> {
    type Value = T;

    fn wanted(&self) -> String {
        self.wanted.to_owned()
    }

    fn shape(&self) -> Shape {
        let pattern = self.pattern.map(str::to_owned);
        Shape::Text(TextShape {
            wanted: self.wanted(),
            pattern,
        })
    }

    fn read(&self, scalar: &Scalar) -> Result<T, Mistake> {
        let type_name = match scalar.resolved {
            Resolved::Text => return (self.parse)(&scalar.text),
            Resolved::Number => "a number",
            Resolved::Bool => "a truth value",
            Resolved::Null => "nothing",
        };
        let shown = if self.is_secret() {
            "this".to_owned()
        } else {
            quoted(&scalar.text)
        };
        let problem = format!(
            "YAML takes {shown} for {type_name}, but this is {}",
            self.wanted
        );
        Err(Mistake::with_help(problem, "put the value in quotes"))
    }

    fn write(&self, value: &T) -> serde_json::Value {
        (self.write)(value).into()
    }

    fn is_secret(&self) -> bool {
        self.secret
    }
}

fn out_of_range(text: &str) -> Mistake {
    Mistake::new(format!("{} is out of range", quoted(text)))
}

/// "from 1 to 9", or "of 1 or more" where the upper end is just the type's.
fn bounds<T: PartialEq + std::fmt::Display>(min: &T, max: &T, unbounded: &T) -> String {
    if max == unbounded {
        format!("of {min} or more")
    } else {
        format!("from {min} to {max}")
    }
}
