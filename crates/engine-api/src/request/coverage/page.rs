//! `docs/api.md`, printed from the code.

use super::super::table::filters::FILTERS;
use super::super::table::operations::REFUSED;
use super::{Class, Names, Served, Standing, docker, served, stands};
use expect_test::expect_file;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What an operation is called in its refusal; `None` where Skep has it.
pub(super) fn refusal(operation: &str) -> Option<&'static str> {
    let (method, path) = operation.split_once(' ')?;
    REFUSED.iter().find(|row| (row.0, row.1) == (method, path)).map(|row| row.2)
}

/// Says whether a filter is honoured; `None` where it is unknown.
pub(super) fn filter(operation: &str, name: &str) -> Option<bool> {
    let (_, honoured, refused) = FILTERS.iter().find(|row| row.0 == operation)?;
    let has = |list: &[&str]| list.contains(&name);
    if has(honoured) { Some(true) } else { has(refused).then_some(false) }
}

const HEAD: &str = "\
# What Skep honours of Docker's API

This page is printed from the code (`crates/engine-api/src/request`); a test fails when it is not current.
It has every operation, parameter, filter and field of Docker's Engine API from version 1.24 on.

- **Honoured**: Skep does what the field asks for.
- **Refused**: Skep answers 501 with a message that names the field and its value, and says what to do
  instead where there is something. A value that asks for nothing (`null`, `0`, `false`, an empty text, list
  or object) is not refused, nor is one that asks for what is so in any case; the table names those.
- **No effect**: there is nothing to do, for the reason in the table. Where the answer has a place for
  warnings, it has one, unless clients send the field with every request.

A field that Docker does not know is ignored, as Docker does. Names of fields match without regard to case;
`null` means that a field is not given. Beyond the classes here, a value that Skep cannot do is refused by its
own message: a driver, a mode or a type of mount.
";

/// One line of the page: what becomes of a name.
fn told(standing: Standing) -> String {
    let Standing::Row(row) = standing else { return "honoured".to_owned() };
    let but: Vec<String> = row.but.iter().map(|value| format!("`{value}`")).collect();
    let mut text = match row.class {
        Class::Refused("") => "refused".to_owned(),
        Class::Refused(advice) => format!("refused: {advice}"),
        Class::NoEffect(reason) => format!("no effect: {reason}"),
    };
    if !but.is_empty() {
        write!(text, "; passes: {}", but.join(", ")).expect("writing to a string");
    }
    text
}

/// The names of an operation by what becomes of them, without those below one that is not honoured.
fn grouped(served: &Served, names: &Names) -> BTreeMap<String, Vec<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut above: Vec<String> = Vec::new();
    for (kind, name) in &names.names {
        if above.iter().any(|path| name.starts_with(path.as_str())) {
            continue;
        }
        let text = match *kind {
            "filter" if filter(names.operation, name) == Some(true) => "honoured".to_owned(),
            "filter" => "refused".to_owned(),
            _ => {
                let Some(standing) = stands(served, kind, name) else { continue };
                if matches!(standing, Standing::Row(_)) {
                    above.extend(
                        ["{name}.", "{name}[", "{name}{"].map(|it| it.replace("{name}", name)),
                    );
                }
                told(standing)
            }
        };
        let shown = match *kind {
            "query" => format!("`?{name}`"),
            "filter" => format!("`?filters={name}`"),
            _ => format!("`{name}`"),
        };
        groups.entry(text).or_default().push(shown);
    }
    groups
}

fn print() -> String {
    let served = served();
    let mut page = HEAD.to_owned();
    page.push_str("\n## Operations that Skep does not have\n\nThey answer 501 with the name of the feature.\n\n| operation | feature |\n|---|---|\n");
    for (method, path, feature) in REFUSED {
        writeln!(page, "| {method} {path} | {feature} |").expect("writing to a string");
    }
    page.push_str("\n## Operations that Skep has\n");
    let all = docker();
    for names in &all {
        let Some(served) = served.iter().find(|it| it.name == names.operation) else { continue };
        // The update of a service takes what its creation takes.
        writeln!(page, "\n### {}\n", names.operation).expect("writing to a string");
        let groups = grouped(served, names);
        if groups.is_empty() {
            page.push_str("No parameters.\n");
            continue;
        }
        page.push_str("| | |\n|---|---|\n");
        for (text, names) in groups {
            writeln!(page, "| {text} | {} |", names.join(" ")).expect("writing to a string");
        }
    }
    page.push_str(&crate::answers::print());
    page
}

#[test]
fn the_page_in_docs_is_current() {
    // UPDATE_EXPECT=1 writes it.
    expect_file!["../../../../../docs/api.md"].assert_eq(&print());
}
