//! Several files as one: later ones override earlier ones.
//!
//! Mappings are merged key by key, lists are joined, everything else is replaced; a command is
//! replaced as a whole. Forms that may be a list or a mapping are made mappings before. What is
//! tagged `!override` is replaced, and what is tagged `!reset` is there no more.

use crate::tree::{Entry, Node, Tag, Value};

/// What a place may be, besides what it is made of.
enum Form {
    /// A mapping that may be written as a list, each item split so.
    Mapping(fn(&str) -> (String, Value)),
    /// One thing, though it may be a list.
    Whole,
    /// A list in which each source stands once.
    Sources,
    /// A driver with its options, which are no other driver's.
    Driver,
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
        ["services", _, "secrets" | "configs"] => Form::Sources,
        ["services", _, "logging"] => Form::Driver,
        ["services", _, "command" | "entrypoint"]
        | ["services", _, "healthcheck", "test"]
        | ["services", _, "networks", _, "aliases"] => Form::Whole,
        _ => Form::Plain,
    }
}

/// Puts the file `over` over the file `base`.
pub(crate) fn merge(base: Node, over: Node) -> Node {
    merge_at(&[], base, over, Tags::Settle)
}

/// Puts a service over the one that it extends. What is tagged stays so, for the files before.
pub(crate) fn services(base: Node, over: Node) -> Node {
    merge_at(&["services", ""], base, over, Tags::Keep)
}

/// What becomes of tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tags {
    Settle,
    Keep,
}

/// Takes out what is tagged: there is nothing below.
pub(crate) fn settled(mut node: Node) -> Node {
    node.tag = None;
    let is_there = |node: &Node| node.tag != Some(Tag::Reset);
    node.value = match node.value {
        Value::Map(entries) => Value::Map(
            entries
                .into_iter()
                .filter(|entry| is_there(&entry.node))
                .map(|entry| Entry { node: settled(entry.node), ..entry })
                .collect(),
        ),
        Value::List(items) => {
            Value::List(items.into_iter().filter(is_there).map(settled).collect())
        }
        value => value,
    };
    node
}

fn merge_at(keys: &[&str], base: Node, over: Node, tags: Tags) -> Node {
    let form = form(keys);
    let (base, over) = match form {
        Form::Mapping(split) => (mapping(base, split), mapping(over, split)),
        _ => (base, over),
    };
    let (at, path, tag) = (over.at, over.path, base.tag);
    let value = match (base.value, over.value) {
        (Value::Map(base), Value::Map(over))
            if matches!(form, Form::Driver) && differ(driver(&base), driver(&over)) =>
        {
            Value::Map(over)
        }
        (Value::Map(base), Value::Map(over)) => Value::Map(merge_entries(keys, base, over, tags)),
        (Value::List(mut base), Value::List(over)) if !matches!(form, Form::Whole) => {
            if matches!(form, Form::Sources) {
                base.retain(|item| over.iter().all(|other| differ(source(item), source(other))));
            }
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
    Node { value, at, path, tag }
}

fn merge_entries(keys: &[&str], mut base: Vec<Entry>, over: Vec<Entry>, tags: Tags) -> Vec<Entry> {
    let keeps = tags == Tags::Keep;
    for entry in over {
        let at = base.iter().position(|old| old.key == entry.key);
        let old = at.map(|at| base.remove(at).node);
        let node = match (entry.node.tag, old) {
            (Some(Tag::Reset), _) if !keeps => continue,
            (None, Some(old)) => {
                merge_at(&[keys, &[entry.key.as_str()]].concat(), old, entry.node, tags)
            }
            (_, _) if keeps => entry.node,
            (_, _) => settled(entry.node),
        };
        base.insert(at.unwrap_or(base.len()), Entry { node, ..entry });
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
        let path = format!("{}.{key}", node.path);
        let inner = Node { value, at: item.at.clone(), path, tag: None };
        entries.push(Entry { key, at: item.at.clone(), node: inner });
    }
    // Of an item that stands twice, the last holds.
    let value = Value::Map(merge_entries(&[], Vec::new(), entries, Tags::Keep));
    Node { value, at: node.at, path: node.path, tag: node.tag }
}

/// Which secret or config an item is about.
fn source(item: &Node) -> Option<&str> {
    word(item.child("source").unwrap_or(item))
}

fn driver(logging: &[Entry]) -> Option<&str> {
    word(&logging.iter().find(|entry| entry.key == "driver")?.node)
}

fn word(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Text(text) => Some(text),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Float(_)
        | Value::List(_)
        | Value::Map(_) => None,
    }
}

/// Says whether both are said, and not alike.
fn differ(one: Option<&str>, other: Option<&str>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one != other)
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
