//! Which releases understand each other.
//!
//! The first message of each side says its [`Release`]; who cannot speak with the other says so in
//! words, and which of the two is to be updated. Managers are updated first: a manager understands
//! nodes of [`OLDEST`] on, a node no manager that is older than that.

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;
use types::{Fault, NodeId};

/// The version of what nodes and managers say to each other. It rises with every change that a
/// neighbour would misunderstand; a field or a message that it may pass over is none.
pub const PROTOCOL: u32 = 2;
/// The oldest protocol that this release understands.
pub const OLDEST: u32 = 2;

/// What a node or a manager is, in its first message. Missing: the first release, which said
/// nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Release {
    pub protocol: u32,
    /// As users know it.
    pub version: String,
}

impl Default for Release {
    fn default() -> Self {
        Self { protocol: 1, version: "0.1.0".to_owned() }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skep {} with protocol {}", self.version, self.protocol)
    }
}

impl Release {
    /// This one.
    pub fn own() -> Self {
        Self { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned() }
    }

    /// Says whether this is older than what we understand, or newer.
    fn compare(&self) -> Ordering {
        match self.protocol {
            ..OLDEST => Ordering::Less,
            OLDEST..=PROTOCOL => Ordering::Equal,
            _ => Ordering::Greater,
        }
    }

    /// Says why this manager does not speak with a node of this release; `None` is a machine that
    /// wants to become one.
    pub fn check_node(&self, node: Option<&NodeId>) -> Result<(), Fault> {
        let name = node.map_or("this machine".to_owned(), |node| format!("node {node}"));
        let advice = match self.compare() {
            Ordering::Equal => return Ok(()),
            Ordering::Less => {
                format!("{name} is older: update it to skep {}", env!("CARGO_PKG_VERSION"))
            }
            Ordering::Greater => {
                format!("the manager is older: update the managers first, to skep {}", self.version)
            }
        };
        Err(self.refused(&name, "the manager", &advice))
    }

    /// Says why this node does not speak with a manager of this release.
    pub fn check_manager(&self) -> Result<(), Fault> {
        let advice = match self.compare() {
            Ordering::Equal => return Ok(()),
            Ordering::Less => format!(
                "the manager is older: update the managers first, to skep {}",
                env!("CARGO_PKG_VERSION")
            ),
            Ordering::Greater => {
                format!("this node is older: update it to skep {}", self.version)
            }
        };
        Err(self.refused("the manager", "this node", &advice))
    }

    fn refused(&self, theirs: &str, ours: &str, advice: &str) -> Fault {
        let own = Self::own();
        let range = if OLDEST == PROTOCOL {
            String::new()
        } else {
            format!(" and understands protocols from {OLDEST}")
        };
        let text = format!("{theirs} runs {self}, {ours} runs {own}{range}: {advice}");
        Fault::new(types::FaultKind::NotImplemented, text)
    }
}

/// Says whether a fault says that two releases do not understand each other: trying again soon is
/// of no use.
pub fn is_of_releases(fault: &Fault) -> bool {
    fault.kind == types::FaultKind::NotImplemented
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn release(protocol: u32) -> Release {
        Release { protocol, version: format!("0.{protocol}.0") }
    }

    #[test]
    fn who_is_older_is_said_with_both_releases_and_what_to_do() {
        let node = |release: &Release| {
            release.check_node(Some(&"n1".into())).map_err(|fault| fault.message)
        };
        let manager = |release: &Release| release.check_manager().map_err(|fault| fault.message);
        for known in OLDEST..=PROTOCOL {
            assert_eq!((node(&release(known)), manager(&release(known))), (Ok(()), Ok(())));
        }
        let said = [
            node(&Release::default()),
            node(&release(PROTOCOL + 1)),
            manager(&Release::default()),
            manager(&release(PROTOCOL + 1)),
            Release::default().check_node(None).map_err(|fault| fault.message),
        ];
        let said = said.map(Result::unwrap_err).join("\n");
        expect![[r"
            node n1 runs skep 0.1.0 with protocol 1, the manager runs skep 0.1.0 with protocol 2: node n1 is older: update it to skep 0.1.0
            node n1 runs skep 0.3.0 with protocol 3, the manager runs skep 0.1.0 with protocol 2: the manager is older: update the managers first, to skep 0.3.0
            the manager runs skep 0.1.0 with protocol 1, this node runs skep 0.1.0 with protocol 2: the manager is older: update the managers first, to skep 0.1.0
            the manager runs skep 0.3.0 with protocol 3, this node runs skep 0.1.0 with protocol 2: this node is older: update it to skep 0.3.0
            this machine runs skep 0.1.0 with protocol 1, the manager runs skep 0.1.0 with protocol 2: this machine is older: update it to skep 0.1.0"]].assert_eq(&said);
    }
}
