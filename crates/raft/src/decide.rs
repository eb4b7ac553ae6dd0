//! What a batch of closures comes to. Pure.

use store::{Changes, View, rules};
use types::{Fault, Timestamp, Version};

/// Says what shall change in a view, at the time of the record.
pub type Decide = Box<dyn FnOnce(&View, Timestamp) -> Result<Changes, Fault> + Send>;

/// What a batch changes together, and what came of each closure, in their order.
#[derive(Debug, Default)]
pub struct Decisions {
    pub changes: Changes,
    pub decided: Vec<Decided>,
}

/// What came of one closure.
#[derive(Clone, Debug, PartialEq)]
pub enum Decided {
    /// It has nothing to change in the view itself: that is answered without an entry.
    AsItIs,
    /// Its part is in the changes of the batch.
    Changes,
    /// It failed, or its changes are against a rule.
    Refused(Fault),
}

/// Runs the closures one after the other on what those before them made of `view`. One that is
/// refused changes nothing and fails no other.
pub fn decide(
    closures: impl IntoIterator<Item = Decide>,
    mut view: View,
    time: Timestamp,
) -> Decisions {
    let next = Version(view.version().0.saturating_add(1));
    let mut decisions = Decisions::default();
    for closure in closures {
        let decided = closure(&view, time).and_then(|changes| {
            // The version is the one the entry will have, unless a blank entry comes between;
            // whoever reads it here only compares it with older ones.
            let after = rules::admit(&view, &changes, next, time)?;
            Ok((changes, after))
        });
        decisions.decided.push(match decided {
            Ok((changes, _)) if changes.is_empty() && decisions.changes.is_empty() => {
                Decided::AsItIs
            }
            Ok((changes, after)) => {
                view = after;
                decisions.changes.changes.extend(changes.changes);
                Decided::Changes
            }
            Err(fault) => Decided::Refused(fault),
        });
    }
    decisions
}
