//! Names of containers and volumes.

use crate::clock;
use types::Fault;

const ADJECTIVES: [&str; 24] = [
    "amber", "brave", "bright", "calm", "clever", "cosy", "deep", "eager", "fair", "fleet",
    "gentle", "golden", "grand", "happy", "keen", "kind", "lively", "merry", "neat", "proud",
    "quick", "quiet", "sunny", "witty",
];

const NOUNS: [&str; 24] = [
    "anchor", "beacon", "bow", "buoy", "compass", "deck", "dinghy", "ferry", "fjord", "gull",
    "harbour", "hull", "keel", "lagoon", "mast", "oar", "quay", "reef", "rudder", "sail",
    "schooner", "sloop", "tide", "wharf",
];

/// Draws a name for what its user did not name, e.g. `brave_keel`; `taken` says whether one is in
/// use.
pub fn draw(taken: impl Fn(&str) -> bool) -> String {
    let mut name = format!("{}_{}", clock::draw(&ADJECTIVES), clock::draw(&NOUNS));
    while taken(&name) {
        name.push(char::from(b'0' + rand::random::<u8>() % 10));
    }
    name
}

/// Refuses what Docker refuses: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
pub(crate) fn check(kind: &str, name: &str) -> Result<(), Fault> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let further = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if first && 2 <= name.len() && name.len() <= 255 && bytes.all(further) {
        return Ok(());
    }
    Err(Fault::invalid(format!(
        "Invalid {kind} name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_paths_are_refused() {
        for good in ["web", "a.b-c_1", "9x"] {
            assert!(check("container", good).is_ok(), "{good}");
        }
        for bad in ["", "a", ".", "..", "a/b", "-a", "ü1"] {
            assert!(check("container", bad).is_err(), "{bad}");
        }
    }
}
