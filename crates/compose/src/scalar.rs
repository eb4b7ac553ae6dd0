//! Single values and small collections of them, read with some patience: a number may be quoted,
//! for variables always give strings.

use crate::fields::entries;
use crate::remark::Log;
use crate::tree::{Node, Value};
use std::time::Duration;
use types::{parse_duration, parse_size};

/// A string. Numbers and booleans are taken as they are written.
pub(crate) fn text(node: &Node, log: &mut Log) -> String {
    if let Some(text) = scalar(node) {
        return text;
    }
    log.error(node, format!("this is {}, and should be a string", node.kind()));
    String::new()
}

/// The text of a value that is no collection.
pub(crate) fn scalar(node: &Node) -> Option<String> {
    match &node.value {
        Value::Bool(value) => Some(value.to_string()),
        Value::Int(value) => Some(value.to_string()),
        Value::Float(value) => Some(value.to_string()),
        Value::Text(text) => Some(text.clone()),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    }
}

pub(crate) fn boolean(node: &Node, log: &mut Log) -> bool {
    match &node.value {
        Value::Bool(value) => return *value,
        Value::Text(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "y" | "yes" | "on" | "1" => return true,
            "false" | "n" | "no" | "off" | "0" | "" => return false,
            _ => {}
        },
        Value::Null | Value::Int(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => {}
    }
    log.error(node, "should be true or false");
    false
}

/// An integer that fits.
pub(crate) fn integer<T: TryFrom<i128> + Default>(node: &Node, log: &mut Log) -> T {
    let number = match &node.value {
        Value::Int(number) => Some(*number),
        Value::Text(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => None,
    };
    match number.map(T::try_from) {
        Some(Ok(number)) => number,
        Some(Err(_)) => {
            log.error(node, "this number is out of range");
            T::default()
        }
        None => {
            log.error(node, format!("this is {}, and should be a whole number", node.kind()));
            T::default()
        }
    }
}

/// A number that may have a fraction.
pub(crate) fn fraction(node: &Node, log: &mut Log) -> f64 {
    let number = scalar(node).and_then(|text| text.trim().parse::<f64>().ok());
    if let Some(number) = number.filter(|number| number.is_finite() && *number >= 0.0) {
        return number;
    }
    log.error(node, "should be a number that is not negative");
    0.0
}

/// Whole CPUs, e.g. `0.5`, as billionths.
pub(crate) fn nano_cpus(node: &Node, log: &mut Log) -> i64 {
    let cpus = fraction(node, log);
    if cpus > 1e6 {
        log.error(node, "so many CPUs there are not");
        return 0;
    }
    #[expect(clippy::cast_possible_truncation, reason = "a million CPUs fit")]
    let nanos = (cpus * 1e9).round() as i64;
    nanos
}

/// A duration such as `1m30s`.
pub(crate) fn duration(node: &Node, log: &mut Log) -> Duration {
    if let Some(duration) = scalar(node).as_deref().and_then(parse_duration) {
        return duration;
    }
    log.error(node, "should be a duration such as 1m30s, 500ms or 2h");
    Duration::ZERO
}

/// An amount of bytes such as `50M`.
pub(crate) fn size(node: &Node, log: &mut Log) -> i64 {
    if let Some(size) = scalar(node).as_deref().and_then(parse_size) {
        return size;
    }
    log.error(node, "should be an amount of bytes such as 512k, 50M or 2g");
    0
}

/// A list of strings; a lone string is a list of one.
pub(crate) fn strings(node: &Node, log: &mut Log) -> Vec<String> {
    match &node.value {
        Value::List(items) => items.iter().map(|item| text(item, log)).collect(),
        Value::Text(text) => vec![text.clone()],
        Value::Null => Vec::new(),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Map(_) => {
            log.error(node, format!("this is {}, and should be a list of strings", node.kind()));
            Vec::new()
        }
    }
}

/// The kernel's name of a capability, e.g. `CAP_NET_ADMIN` for `net_admin`.
pub fn capability(name: &str) -> String {
    let name = name.trim().to_ascii_uppercase();
    if name == "ALL" || name.starts_with("CAP_") { name } else { format!("CAP_{name}") }
}

/// A command: a list, or a string that is split as a shell does.
pub(crate) fn command(node: &Node, log: &mut Log) -> Vec<String> {
    let Value::Text(line) = &node.value else { return strings(node, log) };
    crate::shell::split(line).unwrap_or_else(|| {
        log.error(node, "a quote is not closed");
        Vec::new()
    })
}

/// Names with values: a mapping, or a list of `NAME=VALUE`. The value is `None` where there is
/// none.
pub(crate) fn pairs<'a>(node: &'a Node, log: &mut Log) -> Vec<(String, Option<String>, &'a Node)> {
    if let Value::List(items) = &node.value {
        return items
            .iter()
            .map(|item| {
                let text = text(item, log);
                match text.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned()), item),
                    None => (text, None, item),
                }
            })
            .collect();
    }
    let mut pairs = Vec::new();
    for entry in entries(node, log) {
        let value = match &entry.node.value {
            Value::Null => None,
            Value::List(_) | Value::Map(_) => {
                log.error(&entry.node, "should be a string or a number");
                None
            }
            Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => {
                scalar(&entry.node)
            }
        };
        pairs.push((entry.key.clone(), value, &entry.node));
    }
    pairs
}

/// Labels: names with values, where no value is an empty one.
pub(crate) fn labels(node: &Node, log: &mut Log) -> types::Labels {
    pairs(node, log).into_iter().map(|(key, value, _)| (key, value.unwrap_or_default())).collect()
}

/// One of several words.
pub(crate) fn word<T: Copy + Default>(node: &Node, words: &[(&str, T)], log: &mut Log) -> T {
    let text = text(node, log);
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return *value;
    }
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    log.error(node, format!("{text:?} is none of {}", known.join(", ")));
    T::default()
}
