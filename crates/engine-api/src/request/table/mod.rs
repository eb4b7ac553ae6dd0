//! The table of what Docker's API has and Skep does not do.
//!
//! One row a field, by Docker's name of the object that has it: it is *refused*, or *of no effect*
//! by design. A field that a struct of ours reads is honoured and has no row; one that is unknown
//! to Docker has none either, and is ignored as Docker ignores it. Whoever honours a field gives
//! it to the struct and takes its row away. `docs/api.md` is printed from here.

mod cluster;
mod containers;
pub(crate) mod filters;
pub(crate) mod operations;
mod queries;
mod services;

use super::tree::Json;
use types::Fault;

/// What becomes of a field that is not honoured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// 501, with what to do instead where there is something.
    Refused(&'static str),
    /// A warning, with the reason.
    NoEffect(&'static str),
}

/// A field that is not honoured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Docker's name of the object; the operation or the name of its query, for a parameter.
    pub(crate) owner: &'static str,
    pub(crate) field: &'static str,
    pub(crate) class: Class,
    /// Values that ask for what is so in any case.
    pub(crate) but: &'static [&'static str],
    /// Says whether a zero value means something, too.
    pub(crate) zero_counts: bool,
    /// Says whether clients send it always, so that a warning would be noise.
    pub(crate) quiet: bool,
}

/// A field that is refused, with what to do instead.
const fn refused(owner: &'static str, field: &'static str, advice: &'static str) -> Row {
    let class = Class::Refused(advice);
    Row { owner, field, class, but: &[], zero_counts: false, quiet: false }
}

/// A field that has no effect, with the reason.
const fn idle(owner: &'static str, field: &'static str, reason: &'static str) -> Row {
    let class = Class::NoEffect(reason);
    Row { owner, field, class, but: &[], zero_counts: false, quiet: false }
}

impl Row {
    /// The row, with values that pass.
    const fn but(mut self, values: &'static [&'static str]) -> Self {
        self.but = values;
        self
    }

    /// The row, for a field whose zero value means something.
    const fn when_given(mut self) -> Self {
        self.zero_counts = true;
        self
    }

    /// The row, without a warning.
    const fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Says whether a value asks for nothing, or for what is so in any case.
    pub(crate) fn passes(&self, value: &Json) -> bool {
        let plain = match value {
            Json::Null => return true,
            Json::Text(text) => text.clone(),
            other => other.to_string(),
        };
        self.but.contains(&plain.as_str()) || (value.is_zero() && !self.zero_counts)
    }
}

/// Every row, by area.
pub(crate) fn rows() -> impl Iterator<Item = &'static Row> {
    [services::ROWS, containers::ROWS, cluster::ROWS, queries::ROWS].into_iter().flatten()
}

/// The row of a field, found as Go finds fields.
pub(crate) fn find(owner: &str, field: &str) -> Option<&'static Row> {
    rows().find(|row| row.owner == owner && row.field.eq_ignore_ascii_case(field))
}

/// How much of a value is told: it may be long, or a key.
const VALUE_SHOWN: usize = 32;

/// Refuses a field by name.
pub(crate) fn refusal(path: &str, value: &str, advice: &str) -> Fault {
    let mut shown: String = value.chars().take(VALUE_SHOWN).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    let advice = if advice.is_empty() { String::new() } else { format!(" ({advice})") };
    Fault::not_implemented(&format!("{path}={shown}{advice}"))
}
