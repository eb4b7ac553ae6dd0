//! Variables in values: `${NAME}`, with defaults, alternatives and errors.
//!
//! Keys are left alone, and so are values that are no strings. The forms are those of a shell:
//! `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`, `${NAME:?error}`, `${NAME?error}`,
//! `${NAME:+other}`, `${NAME+other}`, and `$$` for a dollar. With the colon an empty variable is
//! as good as none. Words after the sign may hold variables again.

use crate::remark::Log;
use crate::tree::{Node, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Variables inside defaults inside defaults.
const DEPTH_MAX: usize = 8;
/// Bytes that the variables of one value, and those of a whole file, may come to.
const VALUE_MAX: usize = 1 << 20;
const FILE_MAX: usize = 8 << 20;

type Env = BTreeMap<String, String>;

/// Replaces the variables in a file. What the user keeps aside under `x-` is left alone: it is
/// replaced where it is used.
pub(crate) fn file(root: &mut Node, env: &Env, log: &mut Log) {
    let Value::Map(entries) = &mut root.value else { return };
    let mut left = FILE_MAX;
    for entry in entries.iter_mut().filter(|entry| !entry.key.starts_with("x-")) {
        interpolate(&mut entry.node, (env, &mut left), log);
    }
}

/// Replaces the variables in a text; those that are not set are empty.
pub(crate) fn text(text: &str, env: &Env) -> Result<String, String> {
    substitute(text, env, &mut BTreeSet::new(), 0).map_err(Problem::text)
}

/// Replaces the variables in every string below `node`, as long as so many bytes are left for them.
fn interpolate(node: &mut Node, (env, left): (&Env, &mut usize), log: &mut Log) {
    match &mut node.value {
        Value::Text(text) if text.contains('$') => {
            let mut unset = BTreeSet::new();
            match substitute(text, env, &mut unset, 0) {
                Ok(new) if new.len() <= *left => {
                    *left -= new.len();
                    *text = new;
                }
                Ok(_) => return log.error(node, Problem::Long.text()),
                Err(problem) => {
                    log.error(node, problem.text());
                    return;
                }
            }
            for name in unset {
                let text = format!("the variable {name:?} is not set; it is taken as empty");
                log.warn(node, text);
            }
        }
        Value::List(items) => {
            for item in items {
                interpolate(item, (env, &mut *left), log);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                interpolate(&mut entry.node, (env, &mut *left), log);
            }
        }
        Value::Text(_) | Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {}
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Problem {
    Form,
    Long,
    Required { name: String, text: String },
}

impl Problem {
    fn text(self) -> String {
        match self {
            Self::Form => {
                "invalid interpolation format: write $$ for a dollar that is meant as such".into()
            }
            Self::Long => "its variables make too long a text".into(),
            Self::Required { name, text } if text.is_empty() => {
                format!("required variable {name} is missing a value")
            }
            Self::Required { name, text } => {
                format!("required variable {name} is missing a value: {text}")
            }
        }
    }
}

fn substitute(
    text: &str,
    env: &Env,
    unset: &mut BTreeSet<String>,
    depth: usize,
) -> Result<String, Problem> {
    if depth > DEPTH_MAX {
        return Err(Problem::Form);
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let end = closing(after).ok_or(Problem::Form)?;
            out.push_str(&braced(&after[..end], env, unset, depth)?);
            rest = &after[end + 1..];
        } else {
            let (name, after) = name(after).ok_or(Problem::Form)?;
            out.push_str(&plain(name, env, unset));
            rest = after;
        }
        if VALUE_MAX < out.len() {
            return Err(Problem::Long);
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Where the brace that is open ends.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    let mut last = ' ';
    for (index, letter) in text.char_indices() {
        match letter {
            '{' if last == '$' => open += 1,
            '}' if open == 0 => return Some(index),
            '}' => open -= 1,
            _ => {}
        }
        last = letter;
    }
    None
}

/// The name at the start of a text, and the rest.
fn name(text: &str) -> Option<(&str, &str)> {
    let end = text
        .find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .unwrap_or(text.len());
    let name = &text[..end];
    let first = name.bytes().next()?;
    (!first.is_ascii_digit()).then(|| (name, &text[end..]))
}

fn plain(name: &str, env: &Env, unset: &mut BTreeSet<String>) -> String {
    env.get(name).cloned().unwrap_or_else(|| {
        unset.insert(name.to_owned());
        String::new()
    })
}

fn braced(
    text: &str,
    env: &Env,
    unset: &mut BTreeSet<String>,
    depth: usize,
) -> Result<String, Problem> {
    let (name, rest) = name(text).ok_or(Problem::Form)?;
    if rest.is_empty() {
        return Ok(plain(name, env, unset));
    }
    let (full, rest) = match rest.strip_prefix(':') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let value = env.get(name).filter(|value| !full || !value.is_empty());
    let mut letters = rest.chars();
    let sign = letters.next();
    let word = letters.as_str();
    match (sign, value) {
        (Some('-' | '?'), Some(value)) => Ok(value.clone()),
        (Some('-'), None) | (Some('+'), Some(_)) => substitute(word, env, unset, depth + 1),
        (Some('+'), None) => Ok(String::new()),
        (Some('?'), None) => {
            let text = substitute(word, env, unset, depth + 1)?;
            Err(Problem::Required { name: name.to_owned(), text })
        }
        (_, _) => Err(Problem::Form),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Result<String, Problem> {
        let env = [("A", "1"), ("EMPTY", "")].map(|(key, value)| (key.into(), value.into()));
        substitute(text, &env.into(), &mut BTreeSet::new(), 0)
    }

    #[test]
    fn every_form_gives_what_a_shell_gives() {
        for (text, wanted) in [
            ("$A-${A}", "1-1"),
            ("${NO:-x}${EMPTY:-y}${EMPTY-z}", "xy"),
            ("${NO-x}", "x"),
            ("${A:?e}${A?e}${EMPTY?e}", "11"),
            ("${A:+x}${NO:+x}${EMPTY:+x}${EMPTY+y}", "xy"),
            ("$$A $${A}", "$A ${A}"),
            ("${NO:-${A}2}", "12"),
            ("${NO:-a:b-c}", "a:b-c"),
            ("$NO.", "."),
        ] {
            assert_eq!(run(text).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn wrong_forms_and_missing_variables_are_errors() {
        for text in ["$", "a$ b", "${A", "${}", "${1}", "$(date)", "${A:x}", "${A!}"] {
            assert_eq!(run(text), Err(Problem::Form), "{text}");
        }
        let problem = run("${NO:?set it}").unwrap_err();
        assert_eq!(problem.text(), "required variable NO is missing a value: set it");
    }
}
