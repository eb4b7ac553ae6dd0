//! A plan breaks no rule of the store. There is a way out for one that does (`planner::apart`), but
//! whoever needs it has a mistake.

use super::{Invariant, Verdict};
use crate::context::Happened;
use crate::world::World;

#[derive(Debug)]
pub(super) struct PlanKeepsRules;

impl Invariant for PlanKeepsRules {
    fn name(&self) -> &'static str {
        "a plan keeps the rules"
    }

    fn happened(&mut self, _: &World, what: &Happened) -> Verdict {
        match what {
            Happened::Refused(fault) => Err(fault.message.clone()),
            _ => Ok(()),
        }
    }
}
