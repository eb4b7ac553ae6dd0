//! Addresses, ports and network identifiers.
//!
//! Start with `allocate`. What is taken is read from the objects themselves: a task holds its
//! addresses until it has ended or is forgotten, a service for as long as its spec asks for them.
//!
//! For user operations: [`overlapping_network`] and [`port_conflict`] say beforehand what could not
//! be allocated.

mod attach;
mod ipam;
pub(crate) mod port;
mod vip;
mod vni;

pub use port::port_conflict;
pub use vni::overlapping_network;

use crate::Draft;
use ipam::Ledger;

/// Gives networks their subnets, and nodes, services and tasks their addresses. Tasks that have all
/// they need become pending.
pub(crate) fn allocate(draft: &mut Draft<'_>) {
    vni::release(draft);
    vni::allocate(draft);
    vip::release(draft);
    attach::release_nodes(draft);
    let mut ledger = Ledger::new(draft.now);
    attach::allocate_nodes(draft, &mut ledger);
    vip::allocate(draft, &mut ledger);
    attach::allocate_tasks(draft, &mut ledger);
    vip::allocate_in_mesh(draft, &mut ledger);
    ledger.keep(draft);
}
