//! Which releases understand each other.
//!
//! The first message of each side says its [`Release`]: what it speaks, and the oldest that it
//! understands. The rule: two understand each other where neither speaks what is older than the
//! other understands. So the newer of two decides, as it alone knows both; the older one speaks as
//! it always has, and refuses nobody for being newer. Who refuses says so in words, and which of the
//! two is to be updated.
//!
//! A cluster is updated one machine after the other, managers first. Each manager's machine is a
//! node, too, so for a while newer nodes speak with an older leader, and older nodes with a newer
//! one: a release that is to be updated to in this way understands the one before it. Where it does
//! not, the managers are updated at once, and then the nodes: a node that is refused keeps its
//! tasks running and asks again.

use serde::{Deserialize, Serialize};
use std::fmt;
use types::{Fault, FaultKind, NodeId};

/// The version of what nodes and managers say to each other. It rises with every change that a
/// neighbour would misunderstand; a field or a message that it may pass over is none.
const PROTOCOL: u32 = 2;
/// The oldest protocol that this release understands.
const OLDEST: u32 = 2;

/// What a node or a manager is, in its first message. Missing: the first release, which said
/// nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Release {
    pub protocol: u32,
    /// The oldest protocol that it understands.
    pub oldest: u32,
    /// As users know it.
    pub version: String,
}

impl Default for Release {
    fn default() -> Self {
        Self { protocol: 1, oldest: 1, version: "0.1.0".to_owned() }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skep {} with protocol {}", self.version, self.protocol)?;
        if self.oldest == self.protocol {
            return Ok(());
        }
        write!(f, " and understands protocols from {}", self.oldest)
    }
}

impl Release {
    /// This one.
    pub fn own() -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self { protocol: PROTOCOL, oldest: OLDEST, version }
    }

    /// Says why this manager does not speak with a node of release `node`; `None` is a machine that
    /// wants to become one.
    pub fn check_node(&self, node: &Self, id: Option<&NodeId>) -> Result<(), Fault> {
        let name = id.map_or("this machine".to_owned(), |id| format!("node {id}"));
        let advice = match self.older(node) {
            None => return Ok(()),
            Some(Older::Theirs) => format!("{name} is older: update it to skep {}", self.version),
            Some(Older::Ours) => update_managers(node),
        };
        Err(refused((&name, node), ("the manager", self), &advice))
    }

    /// Says why this node does not speak with a manager of release `manager`.
    pub fn check_manager(&self, manager: &Self) -> Result<(), Fault> {
        let advice = match self.older(manager) {
            None => return Ok(()),
            Some(Older::Theirs) => update_managers(self),
            Some(Older::Ours) => {
                format!("this node is older: update it to skep {}", manager.version)
            }
        };
        Err(refused(("the manager", manager), ("this node", self), &advice))
    }

    /// Which of both is too old for the other; `None`: they understand each other.
    fn older(&self, theirs: &Self) -> Option<Older> {
        if theirs.protocol < self.oldest {
            Some(Older::Theirs)
        } else if self.protocol < theirs.oldest {
            Some(Older::Ours)
        } else {
            None
        }
    }
}

enum Older {
    Theirs,
    Ours,
}

fn update_managers(to: &Release) -> String {
    format!("the manager is older: update the managers first, to skep {}", to.version)
}

fn refused(theirs: (&str, &Release), ours: (&str, &Release), advice: &str) -> Fault {
    let ((they, their_release), (we, our_release)) = (theirs, ours);
    let text = format!("{they} runs {their_release}, {we} runs {our_release}: {advice}");
    Fault::new(FaultKind::Incompatible, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn release(oldest: u32, protocol: u32) -> Release {
        Release { protocol, oldest, version: format!("0.{protocol}.0") }
    }

    /// What the node says of the manager, and the manager of the node.
    fn said(node: &Release, manager: &Release) -> [Result<(), Fault>; 2] {
        [node.check_manager(manager), manager.check_node(node, Some(&"n1".into()))]
    }

    #[test]
    fn two_agree_whether_they_understand_each_other_and_the_newer_one_decides() {
        for (older, newer) in
            [((1, 1), (1, 2)), ((2, 2), (1, 3)), ((2, 4), (2, 4)), ((1, 3), (3, 9))]
        {
            let (older, newer) = (release(older.0, older.1), release(newer.0, newer.1));
            assert_eq!(said(&older, &newer), [Ok(()), Ok(())], "{newer:?} is a manager");
            assert_eq!(said(&newer, &older), [Ok(()), Ok(())], "{newer:?} is a node");
        }
        let (older, newer) = (release(1, 3), release(4, 5));
        for both in [said(&older, &newer), said(&newer, &older)] {
            assert!(both.iter().all(Result::is_err), "{both:?}");
        }
    }

    #[test]
    fn who_is_older_is_said_with_both_releases_and_what_to_do() {
        let (first, second, fourth) = (Release::default(), release(2, 2), release(3, 4));
        let of_both = [said(&first, &second), said(&second, &first), said(&second, &fourth)];
        let of_machine = second.check_node(&first, None);
        let all = of_both.into_iter().flatten().chain([of_machine]);
        let all: Vec<_> = all.map(|refused| refused.unwrap_err().message).collect();
        expect![[r"
            the manager runs skep 0.2.0 with protocol 2, this node runs skep 0.1.0 with protocol 1: this node is older: update it to skep 0.2.0
            node n1 runs skep 0.1.0 with protocol 1, the manager runs skep 0.2.0 with protocol 2: node n1 is older: update it to skep 0.2.0
            the manager runs skep 0.1.0 with protocol 1, this node runs skep 0.2.0 with protocol 2: the manager is older: update the managers first, to skep 0.2.0
            node n1 runs skep 0.2.0 with protocol 2, the manager runs skep 0.1.0 with protocol 1: the manager is older: update the managers first, to skep 0.2.0
            the manager runs skep 0.4.0 with protocol 4 and understands protocols from 3, this node runs skep 0.2.0 with protocol 2: this node is older: update it to skep 0.4.0
            node n1 runs skep 0.2.0 with protocol 2, the manager runs skep 0.4.0 with protocol 4 and understands protocols from 3: node n1 is older: update it to skep 0.4.0
            this machine runs skep 0.1.0 with protocol 1, the manager runs skep 0.2.0 with protocol 2: this machine is older: update it to skep 0.2.0"]].assert_eq(&all.join("\n"));
    }
}
