//! States only rise: a task that has ended has ended, and a stop that is wanted is wanted for good.
//! Whoever acts on a state may rely on it, whatever is late or comes twice.

use super::{Invariant, Verdict};
use crate::context::Happened;
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use types::{TaskId, TaskState};

#[derive(Debug, Default)]
pub(super) struct OnlyRise {
    reported: BTreeMap<(usize, TaskId), TaskState>,
    /// Their disks were full: what they said they may have forgotten.
    forgetful: BTreeSet<usize>,
}

impl Invariant for OnlyRise {
    fn name(&self) -> &'static str {
        "states only rise"
    }

    fn happened(&mut self, world: &World, what: &Happened) -> Verdict {
        match what {
            Happened::Stored { before } => {
                let after = world.view();
                for was in before.tasks() {
                    let Some(is) = after.task(&was.id).filter(|is| !Arc::ptr_eq(is, was)) else {
                        continue;
                    };
                    let falls = is.status.state < was.status.state || is.desired < was.desired;
                    if falls || (was.node.is_some() && is.node != was.node) {
                        return Err(format!("task {}: from {was:?} to {is:?}", was.id));
                    }
                }
            }
            Happened::Forgetful { node } => {
                self.forgetful.insert(*node);
            }
            Happened::Reported { node, task, state } if !self.forgetful.contains(node) => {
                let before = self.reported.insert((*node, task.clone()), *state);
                if before.is_some_and(|before| before > *state) {
                    return Err(format!("node {node} said {before:?} of {task}, now {state:?}"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
