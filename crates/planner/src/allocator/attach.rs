//! Addresses of nodes and tasks.

use super::ipam::{AddressPools, Shortage};
use crate::Planning;
use crate::index::Index;
use std::collections::BTreeSet;
use types::{Addresses, Attachment, NodeId, PublishedPort, Service, Task, TaskId, TaskState};

/// Gives nodes that have none their address on the network of the routing mesh.
pub(super) fn allocate_nodes(
    planning: &mut Planning<'_>,
    pools: &mut AddressPools<'_>,
    without: &BTreeSet<NodeId>,
) {
    let Some(ingress) = planning.tx.ingress_network().map(|network| network.id.clone()) else {
        return;
    };
    for node in without {
        let taken = pools.take_for_node(&planning.tx, &ingress);
        let error = taken.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let says = planning.tx.node(node).map(|node| &node.allocation_error);
        if taken.is_ok() || says != Some(&error) {
            planning.tx.edit_node(node, |node| {
                node.ingress_addresses = taken.unwrap_or_default();
                node.allocation_error = error;
            });
        }
    }
}

/// Takes the addresses of nodes that have left.
pub(super) fn release_nodes(planning: &mut Planning<'_>, index: &Index) {
    for node in &index.left {
        planning.tx.edit_node(node, |node| {
            node.ingress_addresses = Addresses::default();
            node.allocation_error.clear();
        });
    }
}

/// Gives new tasks their addresses; then they are pending. A task that does not get all of them
/// gets none, and says why.
pub(super) fn allocate_tasks(
    planning: &mut Planning<'_>,
    pools: &mut AddressPools<'_>,
    tasks: Vec<TaskId>,
) {
    let mut waiting = Vec::new();
    for id in tasks {
        let Some(task) = planning.tx.task(&id).cloned() else { continue };
        let Some(service) = planning.tx.service(&task.service).cloned() else { continue };
        if !planning.admits(&id) {
            continue;
        }
        match take(planning, pools, &service, &task) {
            Ok(given) => {
                let pending = (TaskState::Pending, "pending task scheduling");
                planning.enter(&id, pending, |task| {
                    task.attachments = given.attachments;
                    task.ingress_addresses = given.ingress;
                    task.ports.clone_from(&service.ports);
                });
            }
            Err(_) => waiting.push((task, service)),
        }
    }
    // What one of them lacks may be what another one has just got.
    for (task, service) in waiting {
        if let Err(reason) = take(planning, pools, &service, &task) {
            planning.excuse(&task.id, &reason);
            planning.tx.edit_service(&service.id, |service| {
                if service.allocation_error.is_empty() {
                    service.allocation_error = reason;
                }
            });
        }
    }
}

#[derive(Default)]
struct Given {
    attachments: Vec<Attachment>,
    ingress: Addresses,
}

/// All addresses of a task, or none and the reason.
fn take(
    planning: &Planning<'_>,
    pools: &mut AddressPools<'_>,
    service: &Service,
    task: &Task,
) -> Result<Given, String> {
    if !service.allocation_error.is_empty() {
        return Err(service.allocation_error.clone());
    }
    let taken = pools.taken();
    take_each(planning, pools, service, task).map_err(|shortage| {
        pools.undo(taken);
        shortage.to_string()
    })
}

fn take_each(
    planning: &Planning<'_>,
    pools: &mut AddressPools<'_>,
    service: &Service,
    task: &Task,
) -> Result<Given, Shortage> {
    let mut given = Given::default();
    let mut seen = BTreeSet::new();
    for wish in task.spec.overlays().filter(|wish| seen.insert(&wish.target)) {
        let addresses = pools.take(&planning.tx, &wish.target)?;
        given.attachments.push(Attachment {
            network: wish.target.clone(),
            addresses,
            aliases: wish.aliases.clone(),
        });
    }
    if service.ports.iter().any(PublishedPort::in_mesh)
        && let Some(ingress) = planning.tx.ingress_network()
    {
        given.ingress = pools.take(&planning.tx, &ingress.id)?;
    }
    Ok(given)
}
