//! Command lines: `--NAME VALUE` pairs. Only `run.py` writes them, so they need no more.

use std::collections::HashMap;
use std::str::FromStr;

use crate::Error;

pub(crate) struct Args(HashMap<String, String>);

impl Args {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Error> {
        let mut pairs = HashMap::new();
        while let Some(word) = words.next() {
            match (word.strip_prefix("--"), words.next()) {
                (Some(name), Some(value)) => pairs.insert(name.to_owned(), value),
                _ => return Err(Error::Usage(format!("`{word}` is no --NAME VALUE"))),
            };
        }
        Ok(Self(pairs))
    }

    /// The value of `--name`, or `default` without it.
    pub(crate) fn get<T: FromStr>(&self, name: &str, default: T) -> Result<T, Error> {
        match self.0.get(name) {
            None => Ok(default),
            Some(text) => text
                .parse()
                .map_err(|_| Error::Usage(format!("--{name} cannot be `{text}`"))),
        }
    }

    /// The values of `--name`, separated by commas; none without it.
    pub(crate) fn list<T: FromStr>(&self, name: &str) -> Result<Vec<T>, Error> {
        let Some(text) = self.0.get(name) else {
            return Ok(Vec::new());
        };
        text.split(',')
            .map(|part| {
                part.parse()
                    .map_err(|_| Error::Usage(format!("--{name} cannot hold `{part}`")))
            })
            .collect()
    }
}
