//! The fields of a mapping: every key is asked for, or it is unknown.

use crate::remark::Log;
use crate::tree::{Entry, Node, Value};
use std::collections::BTreeSet;

/// A mapping whose keys are asked for one by one. What nobody asked for is unknown.
pub(crate) struct Fields<'a> {
    node: &'a Node,
    entries: &'a [Entry],
    asked: BTreeSet<&'static str>,
}

impl<'a> Fields<'a> {
    /// The fields of `node`, which may be nothing at all.
    pub(crate) fn of(node: &'a Node, log: &mut Log) -> Self {
        Self { node, entries: entries(node, log), asked: BTreeSet::new() }
    }

    /// The value of a key. A key without a value is as if it were not there.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<&'a Node> {
        self.take_even_null(key).filter(|node| node.value != Value::Null)
    }

    /// The value of a key, which may be `null`.
    pub(crate) fn take_even_null(&mut self, key: &'static str) -> Option<&'a Node> {
        self.asked.insert(key);
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// Keys that are valid and have no effect; each comes with why.
    pub(crate) fn ignore(&mut self, keys: &[(&'static str, &str)], log: &mut Log) {
        for (key, why) in keys {
            self.asked.insert(key);
            if let Some(entry) = self.entries.iter().find(|entry| entry.key == *key) {
                log.warn_at(&entry.at, &entry.node.path, format!("ignored: {why}"));
            }
        }
    }

    /// Keys that are valid and cannot be honoured; each comes with why.
    pub(crate) fn refuse(&mut self, keys: &[(&'static str, &str)], log: &mut Log) {
        for (key, why) in keys {
            self.asked.insert(key);
            if let Some(entry) = self.entries.iter().find(|entry| entry.key == *key)
                && !empty(&entry.node)
            {
                log.error_at(&entry.at, &entry.node.path, *why);
            }
        }
    }

    /// Reports what nobody asked for. Keys that begin with `x-` are the user's own.
    pub(crate) fn finish(self, log: &mut Log) {
        for entry in self.entries {
            if self.asked.contains(entry.key.as_str()) || entry.key.starts_with("x-") {
                continue;
            }
            let near = nearest(&entry.key, self.asked.iter().copied());
            let hint = near.map(|near| format!(" (did you mean {near:?}?)")).unwrap_or_default();
            let text = format!("unknown key {:?}{hint}", entry.key);
            log.error_at(&entry.at, &self.node.path, text);
        }
    }
}

fn empty(node: &Node) -> bool {
    match &node.value {
        Value::Null => true,
        Value::List(items) => items.is_empty(),
        Value::Map(entries) => entries.is_empty(),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => false,
    }
}

/// The entries of a mapping; none where it is nothing, an error where it is something else.
pub(crate) fn entries<'a>(node: &'a Node, log: &mut Log) -> &'a [Entry] {
    match &node.value {
        Value::Map(entries) => entries,
        Value::Null => &[],
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) | Value::List(_) => {
            log.error(node, format!("this is {}, and should be a mapping", node.kind()));
            &[]
        }
    }
}

/// The items of a list; none where it is nothing, an error where it is something else.
pub(crate) fn items<'a>(node: &'a Node, log: &mut Log) -> &'a [Node] {
    match &node.value {
        Value::List(items) => items,
        Value::Null => &[],
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) | Value::Map(_) => {
            log.error(node, format!("this is {}, and should be a list", node.kind()));
            &[]
        }
    }
}

/// The known key that a person most likely meant.
fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Longer words may have more slips in them.
    let limit = 1 + wrong.chars().count() / 4;
    known
        .map(|word| (distance(wrong, word), word))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, word)| word)
}

/// How many characters must be added, dropped or exchanged to turn one word into the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, letter) in from.chars().take(64).enumerate() {
        let mut corner = row[0];
        row[0] = index + 1;
        for (column, other) in to.iter().enumerate() {
            let exchanged = corner + usize::from(letter != *other);
            corner = row[column + 1];
            row[column + 1] = exchanged.min(corner + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_the_word_that_was_meant() {
        let known = ["image", "init", "ports", "environment"];
        for (wrong, right) in [
            ("imagee", Some("image")),
            ("port", Some("ports")),
            ("enviroment", Some("environment")),
            ("colour", None),
        ] {
            assert_eq!(nearest(wrong, known.into_iter()), right, "{wrong}");
        }
    }
}
