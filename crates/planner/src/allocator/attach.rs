//! Addresses of nodes and tasks.

use super::ipam::{Ledger, Shortage};
use crate::Draft;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use types::{
    Attachment, DesiredState, Node, NodeId, PublishMode, PublishedPort, Service, Task, TaskState,
};

/// Gives each node its address on the network of the routing mesh.
pub(super) fn allocate_nodes(draft: &mut Draft<'_>, ledger: &mut Ledger) {
    let Some(ingress) = draft.tx.ingress_network().map(|network| network.id.clone()) else {
        return;
    };
    let without =
        draft.tx.nodes().filter(|node| node.ingress_address.is_none() && !node.has_left());
    let without: Vec<NodeId> = without.map(|node| node.id.clone()).collect();
    for node in without {
        let taken = ledger.take_for_node(&draft.tx, &ingress);
        draft.tx.edit_node(&node, |node| match taken {
            Ok(address) => {
                node.ingress_address = Some(address);
                node.allocation_error.clear();
            }
            Err(shortage) => node.allocation_error = shortage.to_string(),
        });
    }
}

/// Takes the addresses of nodes that have left.
pub(super) fn release_nodes(draft: &mut Draft<'_>) {
    let holds = |node: &&Arc<Node>| {
        node.has_left() && (node.ingress_address.is_some() || !node.allocation_error.is_empty())
    };
    let left: Vec<NodeId> = draft.tx.nodes().filter(holds).map(|node| node.id.clone()).collect();
    for node in left {
        draft.tx.edit_node(&node, |node| {
            node.ingress_address = None;
            node.allocation_error.clear();
        });
    }
}

/// Gives new tasks their addresses; then they are pending. A task that does not get all of them
/// gets none, and says why.
pub(super) fn allocate_tasks(draft: &mut Draft<'_>, ledger: &mut Ledger) {
    let new = |task: &&Arc<Task>| {
        task.status.state == TaskState::New && task.desired <= DesiredState::Running
    };
    let mut tasks: Vec<Arc<Task>> = draft.tx.tasks().filter(new).cloned().collect();
    tasks.sort_by(|a, b| (&a.service, a.slot, &a.id).cmp(&(&b.service, b.slot, &b.id)));
    let mut waiting = Vec::new();
    for task in tasks {
        let Some(service) = draft.tx.service(&task.service).cloned() else {
            continue;
        };
        match take(draft, ledger, &service, &task) {
            Ok(addresses) => {
                draft.enter(&task.id, TaskState::Pending, "pending task scheduling");
                draft.tx.edit_task(&task.id, |task| {
                    task.attachments = addresses.attachments;
                    task.ingress_address = addresses.ingress;
                    task.ports.clone_from(&service.ports);
                });
            }
            Err(_) => waiting.push((task, service)),
        }
    }
    // What one of them lacks may be what another one has just got.
    for (task, service) in waiting {
        if let Err(reason) = take(draft, ledger, &service, &task) {
            draft.excuse(&task.id, &reason);
            draft.tx.edit_service(&service.id, |service| {
                if service.allocation_error.is_empty() {
                    service.allocation_error = reason;
                }
            });
        }
    }
}

#[derive(Default)]
struct Addresses {
    attachments: Vec<Attachment>,
    ingress: Option<Ipv4Addr>,
}

/// All addresses of a task, or none and the reason.
fn take(
    draft: &Draft<'_>,
    ledger: &mut Ledger,
    service: &Service,
    task: &Task,
) -> Result<Addresses, String> {
    if !service.allocation_error.is_empty() {
        return Err(service.allocation_error.clone());
    }
    let mark = ledger.mark();
    take_each(draft, ledger, service, task).map_err(|shortage| {
        ledger.undo(mark);
        shortage.to_string()
    })
}

fn take_each(
    draft: &Draft<'_>,
    ledger: &mut Ledger,
    service: &Service,
    task: &Task,
) -> Result<Addresses, Shortage> {
    let mut addresses = Addresses::default();
    let mut seen = BTreeSet::new();
    for wish in task.spec.networks.iter().filter(|wish| seen.insert(&wish.target)) {
        let address = ledger.take(&draft.tx, &wish.target)?;
        let subnet = draft.tx.network(&wish.target).and_then(|network| network.subnet);
        addresses.attachments.push(Attachment {
            network: wish.target.clone(),
            address,
            prefix: subnet.map_or(32, |subnet| subnet.net.prefix_len()),
            aliases: wish.aliases.clone(),
        });
    }
    if service.ports.iter().any(in_mesh)
        && let Some(ingress) = draft.tx.ingress_network()
    {
        addresses.ingress = Some(ledger.take(&draft.tx, &ingress.id)?);
    }
    Ok(addresses)
}

pub(super) fn in_mesh(port: &PublishedPort) -> bool {
    match port.mode {
        PublishMode::Ingress => true,
        PublishMode::Host => false,
    }
}
