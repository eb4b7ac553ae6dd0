//! Several files as one: later ones override earlier ones.
//!
//! Mappings are merged key by key, lists are joined, everything else is replaced; a command is
//! replaced as a whole. Forms that may be a list or a mapping are made mappings before.

use crate::tree::{Entry, Node, Value};

/// Lists of `NAME=VALUE` that may be mappings too.
const PAIRS: [&str; 3] = ["environment", "labels", "sysctls"];
/// What is one thing though it may be a list.
const WHOLE: [&str; 3] = ["command", "entrypoint", "test"];

/// Puts `over` over `base`.
pub(crate) fn merge(base: Node, over: Node) -> Node {
    let key = over.path.rsplit('.').next().unwrap_or_default().to_owned();
    let (base, over) = if PAIRS.contains(&key.as_str()) {
        (mapping(base, pair), mapping(over, pair))
    } else if key == "extra_hosts" {
        (mapping(base, host), mapping(over, host))
    } else if key == "networks" {
        (mapping(base, bare), mapping(over, bare))
    } else {
        (base, over)
    };
    let (at, path) = (over.at, over.path);
    let value = match (base.value, over.value) {
        (Value::Map(base), Value::Map(over)) => Value::Map(merge_entries(base, over)),
        (Value::List(mut base), Value::List(over)) if !WHOLE.contains(&key.as_str()) => {
            for item in over {
                if !base.contains(&item) {
                    base.push(item);
                }
            }
            Value::List(base)
        }
        (base, Value::Null) => base,
        (_, over) => over,
    };
    Node { value, at, path }
}

fn merge_entries(mut base: Vec<Entry>, over: Vec<Entry>) -> Vec<Entry> {
    for entry in over {
        match base.iter_mut().find(|old| old.key == entry.key) {
            Some(old) => {
                let empty = Node {
                    value: Value::Null,
                    at: entry.node.at.clone(),
                    path: entry.node.path.clone(),
                };
                let before = std::mem::replace(&mut old.node, empty);
                old.node = merge(before, entry.node);
                old.at = entry.at;
            }
            None => base.push(entry),
        }
    }
    base
}

/// Makes a list of strings a mapping by `split`; leaves anything else as it is.
fn mapping(node: Node, split: fn(&str) -> (String, Value)) -> Node {
    let Value::List(items) = &node.value else { return node };
    let mut entries = Vec::new();
    for item in items {
        let Value::Text(text) = &item.value else { return node };
        let (key, value) = split(text);
        let inner = Node { value, at: item.at.clone(), path: format!("{}.{key}", node.path) };
        entries.push(Entry { key, at: item.at.clone(), node: inner });
    }
    Node { value: Value::Map(merge_entries(Vec::new(), entries)), at: node.at, path: node.path }
}

fn pair(text: &str) -> (String, Value) {
    named(text, text.split_once('='))
}

fn host(text: &str) -> (String, Value) {
    named(text, text.split_once(['=', ':']))
}

fn named(text: &str, split: Option<(&str, &str)>) -> (String, Value) {
    match split {
        Some((key, value)) => (key.to_owned(), Value::Text(value.to_owned())),
        None => (text.to_owned(), Value::Null),
    }
}

fn bare(text: &str) -> (String, Value) {
    (text.to_owned(), Value::Null)
}
