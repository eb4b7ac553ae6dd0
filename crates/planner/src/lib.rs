//! From what users want and what was observed to what shall be: which tasks exist, what addresses
//! and ports they get, and on which node they run.
//!
//! [`plan`] looks at everything and writes what has to change, in one transaction. It knows nothing
//! of logs, sessions or containers, waits for nothing and never fails: a task that fits on no node
//! is a result, with the reason in its status.
//!
//! Start with [`plan`], then `orchestrator` (which tasks), `allocator` (addresses and ports) and
//! `scheduler` (nodes).
//!
//! Invariants: applying a plan and asking again gives no changes; a plan keeps the rules of
//! `store::rules`. Nothing is remembered between two plans: restart delays, the progress of an
//! update and the history of restarts are in the stored objects.
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
mod draft;
mod orchestrator;
mod scheduler;
#[cfg(test)]
mod testing;

pub use apart::{Refused, apart};
pub use orchestrator::REPLICAS_MAX;

use draft::Draft;
use store::{Changes, View};
use types::{IdSource, Timestamp};

/// What has to change now, and when to ask again at the latest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub changes: Changes,
    /// The next deadline; `None`: nothing happens by time alone.
    pub wake: Option<Timestamp>,
}

/// Decides what has to change for `view` to become what users want.
pub fn plan(view: &View, now: Timestamp, ids: &mut dyn IdSource) -> Plan {
    let mut draft = Draft::new(view, now, ids);
    // A failed update may bring back the old spec; ports are given first because changed ports may
    // replace tasks; tasks that go give back addresses before new ones are taken.
    orchestrator::update::judge(&mut draft);
    allocator::port::allocate(&mut draft);
    orchestrator::orchestrate(&mut draft);
    allocator::allocate(&mut draft);
    scheduler::schedule(&mut draft);
    orchestrator::update::watch(&mut draft);
    draft.finish()
}
