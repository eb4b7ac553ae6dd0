//! Addresses, ports and network identifiers.
//!
//! Start with `allocate`. What is taken is read from the objects themselves (`index` has it): a
//! task holds its addresses until it has ended or is forgotten, a service for as long as its spec
//! asks for them.
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

use crate::Planning;
use crate::index::{Index, News};
use ipam::AddressPools;
use std::collections::BTreeSet;
use types::{ServiceId, TaskId};

/// Gives networks their subnets, and nodes, services and tasks their addresses. Tasks that have all
/// they need become pending. `news` says what changed before; `services` are those that were looked
/// at, and afterwards also those that something was done for.
pub(crate) fn allocate(
    planning: &mut Planning<'_>,
    index: &mut Index,
    (news, services): (&mut News, &mut BTreeSet<ServiceId>),
) {
    news.add(&index.follow(&planning.tx, planning.now));
    vni::release(planning, index);
    vni::allocate(planning, index);
    vip::release(planning, services);
    attach::release_nodes(planning, index);
    news.add(&index.follow(&planning.tx, planning.now));
    // Whoever gets an address now may take it from those that wait: they are asked, too.
    let lacks = |service| Index::is_in(&index.new, service) || vip::lacks(&planning.tx, service);
    let waiting = news.addresses || services.iter().any(lacks);
    if waiting {
        services.extend(index.lacking.iter().cloned());
        services.extend(Index::services(&index.new));
    }
    let mut pools = AddressPools::new(&index.addresses);
    if waiting {
        attach::allocate_nodes(planning, &mut pools, &index.without_address);
    }
    vip::allocate(planning, &mut pools, services);
    attach::allocate_tasks(planning, &mut pools, tasks(index, services));
    vip::allocate_in_mesh(planning, &mut pools, services);
    pools.keep(planning);
}

/// The tasks of `services` that wait for addresses.
fn tasks(index: &Index, services: &BTreeSet<ServiceId>) -> Vec<TaskId> {
    let tasks = services.iter().flat_map(|service| Index::of_service(&index.new, service));
    tasks.cloned().collect()
}
