//! Names that are found by DNS.

use crate::Fault;

/// The longest label of a DNS name.
const MAX: usize = 63;

/// Says what is wrong with the name of a service or a network, in swarmkit's words: it has to be
/// one label of a DNS name: letters and digits, with `-` and `_` between them.
///
/// # Errors
/// [`Fault::invalid`] where nobody could find something by that name.
pub fn check_name(name: &str) -> Result<(), Fault> {
    if name.is_empty() {
        return Err(Fault::invalid("meta: name must be provided"));
    }
    let is_end = |c: char| c.is_ascii_alphanumeric();
    let inside = |c: char| is_end(c) || matches!(c, '_' | '-');
    if !name.starts_with(is_end) || !name.ends_with(is_end) || !name.chars().all(inside) {
        return Err(Fault::invalid("name must be valid as a DNS name component"));
    }
    if name.len() > MAX {
        return Err(Fault::invalid("name must be 63 characters or fewer"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_label_of_a_dns_name() {
        for name in ["a", "web", "Web-2", "under_score", "a-_-b", "0", &"x".repeat(63)] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["a.b.c", "x-", "x_", "-x", "_x", "a b", "grün", "a/b", "."] {
            let fault = check_name(name).unwrap_err();
            assert!(fault.message.contains("DNS name component"), "{name}: {fault}");
        }
        assert!(check_name(&"x".repeat(64)).unwrap_err().message.contains("63 characters"));
        assert!(check_name("").is_err());
    }
}
