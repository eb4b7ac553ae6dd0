//! Generic resources: what nodes have some of and tasks are given, and only users know what it is:
//! GPUs, licences, seats.
//!
//! A node says of each kind how many it has (`seat=4`), or names them (`gpu=UUID1`, `gpu=UUID2`). A task
//! asks for a number of each kind; where they have names it is told which ones are its own. As in Docker.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What a node has, or what a task was given, by kinds.
pub type GenericResources = BTreeMap<String, Amount>;

/// How many of each kind a task asks for.
pub type GenericReservations = BTreeMap<String, u64>;

/// How much there is of a kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Amount {
    /// Nothing tells one from another.
    Count(u64),
    /// Each has a name.
    Names(BTreeSet<String>),
}

impl Amount {
    /// How many there are.
    pub fn count(&self) -> u64 {
        match self {
            Self::Count(count) => *count,
            Self::Names(names) => u64::try_from(names.len()).unwrap_or(u64::MAX),
        }
    }
}

/// Why texts name no generic resources, in swarmkit's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongResource {
    #[error(
        "could not parse GenericResource: incorrect term {0}, missing '=' or malformed expression"
    )]
    Term(String),
    #[error("could not parse GenericResource: cannot ask for negative resource {0}")]
    Negative(String),
    #[error(
        "could not parse GenericResource: mixed discrete and named resources in expression '{0}=[{1}]'"
    )]
    Mixed(String, String),
}

/// Reads `KIND=VALUE`, each. One number alone says how many there are of a kind; all else are names.
pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<GenericResources, WrongResource> {
    let mut values: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for term in texts.iter().map(AsRef::as_ref) {
        let wrong = || WrongResource::Term(term.to_owned());
        let (kind, value) = term.split_once('=').ok_or_else(wrong)?;
        let (kind, value) = (kind.trim(), value.trim());
        let is_word = |text: &str| !text.is_empty() && !text.contains(['=', '\n', '\0']);
        if !is_word(kind) || !is_word(value) {
            return Err(wrong());
        }
        values.entry(kind).or_default().push(value);
    }
    let amounts =
        values.into_iter().map(|(kind, values)| Ok((kind.to_owned(), amount(kind, &values)?)));
    amounts.collect()
}

fn amount(kind: &str, values: &[&str]) -> Result<Amount, WrongResource> {
    let number = |value: &&str| value.parse::<i64>().ok();
    match values {
        [one] if number(one).is_some() => {
            let count = number(one).and_then(|count| u64::try_from(count).ok());
            count.map(Amount::Count).ok_or_else(|| WrongResource::Negative(kind.to_owned()))
        }
        several if several.iter().any(|value| number(value).is_some()) => {
            Err(WrongResource::Mixed(kind.to_owned(), several.join(" ")))
        }
        names => Ok(Amount::Names(names.iter().map(|&name| name.to_owned()).collect())),
    }
}

/// So many of what is free: the first names of it. `None`: there are fewer.
pub fn claim(free: &Amount, wanted: u64) -> Option<Amount> {
    if free.count() < wanted {
        return None;
    }
    Some(match free {
        Amount::Count(_) => Amount::Count(wanted),
        Amount::Names(names) => {
            let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
            Amount::Names(names.iter().take(wanted).cloned().collect())
        }
    })
}

/// The variables by which a container is told what it was given: `DOCKER_RESOURCE_GPU=UUID1,UUID2`.
pub fn environment(given: &GenericResources) -> impl Iterator<Item = String> {
    given.iter().map(|(kind, amount)| {
        let value = match amount {
            Amount::Count(count) => count.to_string(),
            Amount::Names(names) => names.iter().map(String::as_str).collect::<Vec<_>>().join(","),
        };
        format!("DOCKER_RESOURCE_{}={value}", kind.to_uppercase())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Amount {
        Amount::Names(names.iter().map(|&name| name.to_owned()).collect())
    }

    #[test]
    fn one_number_counts_and_all_else_names() {
        let read = parse(&["seat=4", "gpu=a", "gpu=c", "gpu=b", " x = y "]).unwrap();
        let expected =
            [("seat", Amount::Count(4)), ("gpu", names(&["a", "b", "c"])), ("x", names(&["y"]))];
        assert_eq!(read, expected.map(|(kind, amount)| (kind.to_owned(), amount)).into());
        let said = |texts: &[&str]| parse(texts).unwrap_err().to_string();
        for wrong in ["gpu", "=a", "gpu=", "a=b=c", "", "g\0=1"] {
            let term = format!("incorrect term {wrong}, missing '='");
            assert!(said(&[wrong]).contains(&term), "{wrong:?}");
        }
        assert!(said(&["seat=-1"]).ends_with("cannot ask for negative resource seat"));
        assert!(said(&["foo=bar", "foo=1"]).ends_with("in expression 'foo=[bar 1]'"));
    }

    #[test]
    fn what_is_claimed_is_free_and_as_many_as_asked_for() {
        let free = names(&["b", "c"]);
        assert_eq!(claim(&free, 1), Some(names(&["b"])));
        assert_eq!(claim(&free, 2), Some(names(&["b", "c"])));
        assert_eq!(claim(&free, 3), None);
        assert_eq!(claim(&Amount::Count(1), 1), Some(Amount::Count(1)));
        assert_eq!(claim(&Amount::Count(1), 2), None);
    }

    #[test]
    fn a_container_is_told_in_dockers_variables() {
        let given = parse(&["gpu=b", "gpu=a", "seat=2", "nvidia-gpu=x"]).unwrap();
        let told: Vec<String> = environment(&given).collect();
        assert_eq!(
            told,
            ["DOCKER_RESOURCE_GPU=a,b", "DOCKER_RESOURCE_NVIDIA-GPU=x", "DOCKER_RESOURCE_SEAT=2"]
        );
    }
}
