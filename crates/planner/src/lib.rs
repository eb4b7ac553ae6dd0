//! From what users want and what was observed to what shall be: which tasks exist, what addresses
//! and ports they get, and on which node they run.
//!
//! A [`Planner`] looks at what changed since it looked last and writes what has to change now, in one
//! transaction. It knows nothing of logs, sessions or containers, waits for nothing and never fails:
//! a task that fits on no node is a result, with the reason in its status.
//!
//! Start with [`Planner`] and [`plan`], its first look; then `orchestrator` (which tasks),
//! `allocator` (addresses and ports), `scheduler` (nodes), and `index` (what is remembered).
//!
//! Invariants: applying plans and asking again comes to an end, after which there are no changes; a
//! plan keeps the rules of `store::rules`. What is remembered is derived: a planner that knows
//! nothing makes the same plan. Restart delays, the progress of an update and the history of
//! restarts are in the stored objects.
//!
//! What others have to know: a new spec of a service is written with `update: None` (that is what
//! continues a paused update) and with the spec before it in `previous_spec`. A task belongs to its
//! node from state *assigned* on: the task of a global service names its node before.

#![cfg_attr(
    test,
    allow(clippy::needless_raw_string_hashes, reason = "expect-test writes expectations that way")
)]

pub mod allocator;
mod apart;
mod former;
mod index;
mod orchestrator;
mod planner;
mod planning;
mod schedule;
mod scheduler;
#[cfg(test)]
mod testing;

pub use apart::{Refused, apart};
pub use former::forget_former_files;
pub use orchestrator::{REPLICAS_MAX, is_current};
pub use planner::{Planner, TASKS_MAX};
pub use schedule::Schedule;

use planning::Planning;
use store::{Changes, View};
use types::{IdSource, Timestamp};

/// What has to change now, and when to ask again at the latest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub changes: Changes,
    /// The next deadline; `None`: nothing happens by time alone.
    pub wake: Option<Timestamp>,
}

/// Decides what has to change for `view` to become what users want, by a look at everything.
pub fn plan(view: &View, now: Timestamp, ids: &mut dyn IdSource) -> Plan {
    Planner::default().plan(view, now, ids)
}
