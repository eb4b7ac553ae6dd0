//! Stories that tests tell: one event a line; the trace says what follows from each.

use std::fmt::Write as _;

/// What `follows` says of each line, beside it.
pub(crate) fn trace(lines: &str, mut follows: impl FnMut(&str) -> Vec<String>) -> String {
    let mut trace = String::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        writeln!(trace, "{line}: {}", follows(line).join(", ")).unwrap();
    }
    trace
}
