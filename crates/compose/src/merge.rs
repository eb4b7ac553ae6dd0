//! Several files as one: later ones override earlier ones.
//!
//! Mappings are merged key by key, lists are joined, everything else is replaced; a command is
//! replaced as a whole. Forms that may be a list or a mapping are made mappings before.

use crate::tree::{Entry, Node, Value};

/// What a place may be, besides what it is made of.
enum Form {
    /// A mapping that may be written as a list, each item split so.
    Mapping(fn(&str) -> (String, Value)),
    /// One thing, though it may be a list.
    Whole,
    Plain,
}

/// The form of the place that these keys lead to from the file's root. A name that a user chose
/// (a service called `labels`) is no such place.
fn form(keys: &[&str]) -> Form {
    match keys {
        ["services", _, "environment" | "labels" | "sysctls"]
        | ["services", _, "deploy", "labels"]
        | ["networks" | "volumes" | "configs" | "secrets", _, "labels"] => Form::Mapping(pair),
        ["services", _, "extra_hosts"] => Form::Mapping(host),
        ["services", _, "networks"] => Form::Mapping(bare),
        ["services", _, "command" | "entrypoint"] | ["services", _, "healthcheck", "test"] => {
            Form::Whole
        }
        _ => Form::Plain,
    }
}

/// Puts the file `over` over the file `base`.
pub(crate) fn merge(base: Node, over: Node) -> Node {
    merge_at(&[], base, over)
}

fn merge_at(keys: &[&str], base: Node, over: Node) -> Node {
    let form = form(keys);
    let (base, over) = match form {
        Form::Mapping(split) => (mapping(base, split), mapping(over, split)),
        _ => (base, over),
    };
    let (at, path) = (over.at, over.path);
    let value = match (base.value, over.value) {
        (Value::Map(base), Value::Map(over)) => Value::Map(merge_entries(keys, base, over)),
        (Value::List(mut base), Value::List(over)) if !matches!(form, Form::Whole) => {
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

fn merge_entries(keys: &[&str], mut base: Vec<Entry>, over: Vec<Entry>) -> Vec<Entry> {
    for entry in over {
        match base.iter_mut().find(|old| old.key == entry.key) {
            Some(old) => {
                let empty = Node {
                    value: Value::Null,
                    at: entry.node.at.clone(),
                    path: entry.node.path.clone(),
                };
                let before = std::mem::replace(&mut old.node, empty);
                old.node = merge_at(&[keys, &[entry.key.as_str()]].concat(), before, entry.node);
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
    // Of an item that stands twice, the last holds.
    let value = Value::Map(merge_entries(&[], Vec::new(), entries));
    Node { value, at: node.at, path: node.path }
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
