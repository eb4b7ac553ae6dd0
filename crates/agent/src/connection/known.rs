//! Where managers are, as far as this node knows.

/// A manager that does not lead says where it knows others. It may be behind: what is known stays
/// until the one that leads has said what is so.
pub fn hear_of(known: &mut Vec<String>, told: Vec<String>) {
    for address in told {
        if !known.contains(&address) {
            known.push(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_stays_and_what_is_new_comes_last() {
        let texts = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let mut known = texts(&["c:1", "a:1"]);
        hear_of(&mut known, texts(&["a:1", "b:1", "c:1", "d:1"]));
        assert_eq!(known, texts(&["c:1", "a:1", "b:1", "d:1"]));
        hear_of(&mut known, Vec::new());
        assert_eq!(known.len(), 4);
    }
}
