//! Beside which services tasks run.
//!
//! Skep's own, and written among the constraints, where Docker knows no such key: `service==web` (only
//! where a task of `web` runs), `service!=db` (never where one of `db` is). With `~` before the value it is
//! better so and need not be: `service==~web`. Several services stand in braces, `service!={db,cache}`: one
//! of them is enough to be with, and none may be there to be apart.

use crate::{ConstraintError, check_name};
use std::fmt;

const KEY: &str = "service";

/// What a service wants of others on its nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// Names; in a stack those of its own services go first.
    pub services: Vec<String>,
    /// To be where they are, or else not to be there.
    pub with: bool,
    /// It runs elsewhere, too, where there is no such place.
    pub soft: bool,
}

impl Affinity {
    /// Reads a text among the constraints; `None`: it is about nodes alone.
    pub fn parse(text: &str) -> Option<Result<Self, ConstraintError>> {
        let (at, with) = [("==", true), ("!=", false)]
            .into_iter()
            .filter_map(|(operator, with)| Some((text.find(operator)?, with)))
            .min()?;
        let (key, value) = (text[..at].trim(), text[at + 2..].trim());
        key.eq_ignore_ascii_case(KEY).then(|| Self::of(value, with))
    }

    fn of(value: &str, with: bool) -> Result<Self, ConstraintError> {
        let (soft, names) = match value.strip_prefix('~') {
            Some(names) => (true, names.trim()),
            None => (false, value),
        };
        let set = names.strip_prefix('{').and_then(|names| names.strip_suffix('}'));
        let names = set.map_or_else(|| vec![names], |set| set.split(',').map(str::trim).collect());
        if let Some(wrong) = names.iter().find(|name| check_name(name).is_err()) {
            return Err(ConstraintError::Service((*wrong).to_owned()));
        }
        Ok(Self { services: names.into_iter().map(str::to_owned).collect(), with, soft })
    }
}

impl fmt::Display for Affinity {
    /// The services alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.services.join(" or "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_with_others_or_apart_from_them_and_need_not() {
        for (text, services, with, soft) in [
            ("service==web", &["web"][..], true, false),
            ("Service != db", &["db"], false, false),
            ("service==~web", &["web"], true, true),
            ("service != ~ {db, cache}", &["db", "cache"], false, true),
            ("service=={a,b}", &["a", "b"], true, false),
        ] {
            let read = Affinity::parse(text).unwrap().unwrap();
            assert_eq!((read.with, read.soft), (with, soft), "{text}");
            assert_eq!(read.services, services, "{text}");
        }
        for text in ["node.role==worker", "service", "node.labels.service==a", "services==a"] {
            assert_eq!(Affinity::parse(text), None, "{text}");
        }
        for (text, wrong) in [
            ("service==", ""),
            ("service=={}", ""),
            ("service=={a,}", ""),
            ("service==-web", "-web"),
            ("service==a || node.role==worker", "a || node.role==worker"),
            ("service!=a==b", "a==b"),
        ] {
            let said = Affinity::parse(text).unwrap().unwrap_err().to_string();
            assert!(said.starts_with(&format!("'{wrong}' names no service")), "{text}: {said}");
        }
    }
}
