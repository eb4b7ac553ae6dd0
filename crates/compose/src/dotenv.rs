//! Variables in a file beside a stack file: `.env`, as the Compose Specification has it.
//!
//! A line is `NAME=VALUE`, with `export` before it or not. What stands between `'` is taken as it
//! is; between `"` a backslash has a meaning, and there and without quotes variables are replaced.
//! Quoted values may go over several lines. After a blank, `#` begins a comment.

use crate::interpolate;
use std::collections::BTreeMap;

/// Reads variables, in which those of `env` and of earlier lines may stand.
///
/// # Errors
/// Says which line is wrong, and why.
pub fn variables(
    text: &str,
    env: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, String> {
    let mut known = env.clone();
    let mut found = BTreeMap::new();
    let mut rest = text.trim_start_matches('\u{feff}');
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(found);
        }
        let number = 1 + text[..text.len() - rest.len()].matches('\n').count();
        let wrong = |what: &str| format!("line {number}: {what}");
        let line = rest.lines().next().unwrap_or_default();
        if line.starts_with('#') {
            rest = &rest[line.len()..];
            continue;
        }
        let Some((name, _)) = line.split_once('=') else {
            let name = line.trim();
            // A name alone hands on a variable that there is.
            if !is_name(name) {
                return Err(wrong("should be written like NAME=VALUE"));
            }
            if let Some(value) = env.get(name) {
                found.insert(name.to_owned(), value.clone());
            }
            rest = &rest[line.len()..];
            continue;
        };
        let after = rest[name.len() + 1..].trim_start_matches([' ', '\t']);
        let name = name.trim().strip_prefix("export ").unwrap_or(name.trim()).trim();
        if !is_name(name) {
            return Err(wrong(&format!("{name:?} is no name of a variable")));
        }
        let (value, left) = value(after, &known).map_err(|why| wrong(&why))?;
        // What is in the environment goes over what is in the file.
        if !env.contains_key(name) {
            known.insert(name.to_owned(), value.clone());
        }
        found.insert(name.to_owned(), value);
        rest = left;
    }
}

fn is_name(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    !name.is_empty() && name.bytes().all(known)
}

/// A value at the beginning of `text`, and what follows its line.
fn value<'a>(text: &'a str, env: &BTreeMap<String, String>) -> Result<(String, &'a str), String> {
    let (raw, left) = match text.as_bytes().first() {
        Some(b'\'') => {
            let end = text[1..].find('\'').ok_or("a quote has no end")?;
            return Ok((text[1..=end].to_owned(), past(&text[end + 2..])?));
        }
        Some(b'"') => {
            let (raw, left) = quoted(&text[1..])?;
            (raw, past(left)?)
        }
        _ => {
            let line = text.lines().next().unwrap_or_default();
            let comment = line.find(" #").or_else(|| line.starts_with('#').then_some(0));
            (line[..comment.unwrap_or(line.len())].trim_end().to_owned(), &text[line.len()..])
        }
    };
    Ok((interpolate::text(&raw, env)?, left))
}

/// What stands before the second `"`, and what follows it.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut raw = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((raw, &text[at + 1..])),
            '\\' => match letters.next() {
                Some((_, 'n')) => raw.push('\n'),
                Some((_, 'r')) => raw.push('\r'),
                Some((_, 't')) => raw.push('\t'),
                // A dollar that is meant as such.
                Some((_, '$')) => raw.push_str("$$"),
                Some((_, other @ ('"' | '\\'))) => raw.push(other),
                Some((_, other)) => raw.extend(['\\', other]),
                None => {}
            },
            other => raw.push(other),
        }
    }
    Err("a quote has no end".to_owned())
}

/// What follows the line on which a quoted value ends; nothing but a comment may be left on it.
fn past(text: &str) -> Result<&str, String> {
    let line = text.lines().next().unwrap_or_default();
    if line.trim().is_empty() || line.trim_start().starts_with('#') {
        return Ok(&text[line.len()..]);
    }
    Err(format!("{:?} stands after the value", line.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BTreeMap<String, String>, String> {
        variables(text, &[("HOST".to_owned(), "h".to_owned())].into())
    }

    #[test]
    fn each_form_of_a_variable_is_read() {
        let text = "\u{feff}# of the stack\nA=1\nexport B = two words # said\nC='$A \"x\"'\n\
             D=\"a\\tb \\$A ${A} \\\"q\\\"\" # c\nE=${HOST}-${A}-${NO:-n}\nHOST\nUNKNOWN\nF=\n\
             G='two\nlines'\r\nH=a#b\nI=#c\nJ=1\nJ=2\nK=$J\n";
        let read = read(text).unwrap();
        let pairs: Vec<(&str, &str)> =
            read.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            pairs,
            [
                ("A", "1"),
                ("B", "two words"),
                ("C", "$A \"x\""),
                ("D", "a\tb $A 1 \"q\""),
                ("E", "h-1-n"),
                ("F", ""),
                ("G", "two\nlines"),
                ("H", "a#b"),
                ("HOST", "h"),
                ("I", ""),
                ("J", "2"),
                ("K", "2"),
            ]
        );
    }

    #[test]
    fn what_is_no_variable_is_said_with_its_line() {
        for (text, why) in [
            ("A=1\nb c\n", "line 2: should be written like NAME=VALUE"),
            ("A B=1", "line 1: \"A B\" is no name of a variable"),
            ("\n\nA='x\n", "line 3: a quote has no end"),
            ("A=\"x\" y", "line 1: \"y\" stands after the value"),
            (
                "A=a\nB=$A$A$A$A$A$A$A$A$A$A$A$A$A$A$A$A\nC=$B$B$B$B$B$B$B$B$B$B$B$B$B$B$B$B\n\
              D=$C$C$C$C$C$C$C$C$C$C$C$C$C$C$C$C\nE=$D$D$D$D$D$D$D$D$D$D$D$D$D$D$D$D\n\
              F=$E$E$E$E$E$E$E$E$E$E$E$E$E$E$E$E\nG=$F$F\n",
                "line 7: its variables make too long a text",
            ),
            ("A=${NO:?must be}", "line 1: required variable NO is missing a value: must be"),
        ] {
            assert_eq!(read(text).unwrap_err(), why);
        }
    }
}
