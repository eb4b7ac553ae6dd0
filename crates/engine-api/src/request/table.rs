//! The table of what Docker's API has and Skep does not do.
//!
//! One row a field, by Docker's name of the object that has it: it is *refused*, or *of no effect*
//! by design. A field that a struct of ours reads is honoured and has no row; one that is unknown
//! to Docker has none either, and is ignored as Docker ignores it.

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

/// A field that is not honoured. Its zero value always passes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Docker's name of the object, or of the operation where it is a parameter of a query.
    pub(crate) owner: &'static str,
    pub(crate) field: &'static str,
    pub(crate) class: Class,
    /// Values that say what is so in any case.
    pub(crate) but: &'static [&'static str],
}

impl Row {
    /// Says whether a value asks for what is so in any case.
    pub(crate) fn passes(&self, value: &Json) -> bool {
        match value {
            Json::Text(text) => self.but.contains(&text.as_str()),
            other => !self.but.is_empty() && self.but.contains(&other.to_string().as_str()),
        }
    }
}

/// A field that is refused, with what to do instead.
const fn refused(owner: &'static str, field: &'static str, advice: &'static str) -> Row {
    Row { owner, field, class: Class::Refused(advice), but: &[] }
}

/// A field that has no effect, with the reason.
const fn idle(owner: &'static str, field: &'static str, reason: &'static str) -> Row {
    Row { owner, field, class: Class::NoEffect(reason), but: &[] }
}

impl Row {
    /// The row, with values that pass.
    const fn but(mut self, values: &'static [&'static str]) -> Self {
        self.but = values;
        self
    }
}

const ROWS: &[Row] = &[
    refused("ContainerSpec", "Privileges", ""),
    refused("ResourceRequirements", "SwapBytes", ""),
    refused("ResourceRequirements", "MemorySwappiness", "").but(&["-1"]),
    idle("Mount", "Consistency", "only Docker Desktop knows it").but(&["default"]),
];

/// The row of a field, found as Go finds fields.
pub(crate) fn find(owner: &str, field: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.owner == owner && row.field.eq_ignore_ascii_case(field))
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
