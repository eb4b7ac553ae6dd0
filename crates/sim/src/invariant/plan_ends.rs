//! A plan is idempotent: planning until nothing changes ends, and soon. Otherwise the log fills
//! while nothing happens.

use super::{Invariant, Verdict};
use crate::random::Random;
use crate::world::World;
use types::{Timestamp, Version};

/// Every so many seconds, as it costs.
const EVERY: u64 = 5;
/// Plans until nothing changes.
const PLANS_MAX: usize = 8;

#[derive(Debug, Default)]
pub(super) struct PlanEnds {
    looks: u64,
}

impl Invariant for PlanEnds {
    fn name(&self) -> &'static str {
        "planning ends"
    }

    fn look(&mut self, world: &World) -> Verdict {
        self.looks += 1;
        if !self.looks.is_multiple_of(EVERY) {
            return Ok(());
        }
        let mut view = world.view().clone();
        let mut ids = Random::new(self.looks);
        let now = view.time().max(Timestamp(1));
        for _ in 0..PLANS_MAX {
            let changes = planner::plan(&view, now, &mut ids).changes;
            if changes.is_empty() {
                return Ok(());
            }
            view.apply(&changes, Version(view.version().0 + 1), now);
        }
        let changes = planner::plan(&view, now, &mut ids).changes;
        Err(format!("after {PLANS_MAX} plans there is still to change: {changes:?}"))
    }
}
