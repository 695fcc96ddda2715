//! The part of a request target behind its `?`.

/// Parameters as they came, none of them decoded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query<'q>(&'q str);

impl<'q> Query<'q> {
    /// The parameters in `text`, what stands behind the `?`.
    pub(super) fn new(text: Option<&'q str>) -> Self {
        Self(text.unwrap_or_default())
    }

    /// The first value of this name.
    pub(super) fn get(&self, name: &str) -> Option<&'q str> {
        self.pairs()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    /// # Errors
    /// Names the first parameter that is none of these, or that is there twice.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), String> {
        for (index, (name, _)) in self.pairs().enumerate() {
            if !known.contains(&name) {
                return match known {
                    [] => Err("there are no parameters here".to_owned()),
                    _ => Err(format!("the parameters here are {}", known.join(", "))),
                };
            }
            if self.pairs().take(index).any(|(before, _)| before == name) {
                return Err(format!("{name} is there twice"));
            }
        }
        Ok(())
    }

    fn pairs(&self) -> impl Iterator<Item = (&'q str, &'q str)> + use<'q> {
        let pairs = self.0.split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_by_name() {
        let query = Query::new(Some("a=1&b=&&c&d=x=y"));
        for (name, value) in [
            ("a", Some("1")),
            ("b", Some("")),
            ("c", Some("")),
            ("d", Some("x=y")),
            ("e", None),
        ] {
            assert_eq!(query.get(name), value, "{name}");
        }
        assert_eq!(Query::new(None).get("a"), None);
    }

    #[test]
    fn what_is_unknown_or_doubled_is_told() {
        assert_eq!(Query::new(None).only(&[]), Ok(()));
        assert_eq!(Query::new(Some("a=1")).only(&["b", "a"]), Ok(()));
        for text in ["A=1", "a=1&c", "a=1&a=1"] {
            assert!(Query::new(Some(text)).only(&["a"]).is_err(), "{text}");
        }
        assert!(Query::new(Some("a")).only(&[]).is_err());
    }
}
