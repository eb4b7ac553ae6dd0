//! Nobody has what somebody else has: addresses on a network, in the mesh, VIPs, VNIs, published
//! ports, names of generic resources. Also nodes
//! that are away hold what they have, as their kernels carry on; only those that left or were
//! removed are forgotten.

use super::{Invariant, Verdict};
use crate::context::Happened;
use crate::node::Node;
use crate::world::World;
use std::collections::BTreeMap;
use store::View;
use types::{Task, TaskId};

#[derive(Debug)]
pub(super) struct Unique;

fn counts(world: &World, node: &Node) -> bool {
    world.view().node(&node.id).is_some_and(|node| !node.has_left())
}

impl Invariant for Unique {
    fn name(&self) -> &'static str {
        "nobody has the address of somebody else"
    }

    fn happened(&mut self, world: &World, what: &Happened) -> Verdict {
        match what {
            Happened::Began { node, task } if counts(world, &world.nodes[*node]) => {
                addresses(world, *node, task)
            }
            Happened::Stored { before } => {
                let view = world.view();
                let is_new = view.networks().any(|network| {
                    network.vni != before.network(&network.id).map_or(0, |was| was.vni)
                });
                if is_new {
                    identifiers(world)?;
                }
                stored(view)
            }
            _ => Ok(()),
        }
    }
}

/// What the store says of services and nodes.
fn stored(view: &View) -> Verdict {
    let (mut vips, mut ports, mut nodes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for service in view.services() {
        let held = service.vips.iter();
        let held = held.flat_map(|vip| vip.addresses.iter().map(move |it| (&vip.network, it)));
        for (network, address) in held {
            if let Some(other) = vips.insert((network, address), &service.id) {
                return Err(format!("{} and {other} have the VIP {address}", service.id));
            }
        }
        for port in service.ports.iter().filter(|port| port.in_mesh()) {
            if let Some(other) = ports.insert((port.protocol, port.published), &service.id) {
                return Err(format!("{} and {other} have port {}", service.id, port.published));
            }
        }
    }
    for node in view.nodes().filter(|node| !node.has_left()) {
        for address in node.ingress_addresses.iter() {
            if let Some(other) = nodes.insert(address, &node.id) {
                return Err(format!("{} and {other} have {address} in the mesh", node.id));
            }
        }
    }
    given(view)
}

/// What was given to tasks of the generic resources of their nodes.
fn given(view: &View) -> Verdict {
    let mut names = BTreeMap::new();
    for task in view.tasks().filter(|task| task.is_placed()) {
        let asked: u64 = task.spec.generic.values().sum();
        let given: u64 = task.generic.values().map(types::Amount::count).sum();
        if asked != given {
            return Err(format!("{} is given {given} of {asked}", task.id));
        }
        for (kind, amount) in &task.generic {
            let types::Amount::Names(given) = amount else { continue };
            for name in given {
                if let Some(other) = names.insert((&task.node, kind, name), &task.id) {
                    return Err(format!("{} and {other} have {kind} {name}", task.id));
                }
            }
        }
    }
    Ok(())
}

fn addresses(world: &World, node: usize, id: &TaskId) -> Verdict {
    let Some(task) = world.nodes[node].task(id) else { return Ok(()) };
    let others = world
        .nodes
        .iter()
        .filter(|other| counts(world, other))
        .flat_map(|other| other.tasks().filter(|it| it.id != *id && other.runs(&it.id)));
    for other in others {
        if let Some(address) = shared(task, other) {
            return Err(format!("{id} begins with {address}, which {} has", other.id));
        }
    }
    for service in world.view().services() {
        for vip in &service.vips {
            let has = |it: &types::Attachment| {
                it.network == vip.network && it.addresses.overlap(vip.addresses)
            };
            if task.attachments.iter().any(has) {
                return Err(format!(
                    "{id} begins with the VIP {} of {}",
                    vip.addresses, service.id
                ));
            }
        }
    }
    Ok(())
}

fn shared(one: &Task, other: &Task) -> Option<String> {
    let mesh = Some(one.ingress_addresses).filter(|it| it.overlap(other.ingress_addresses));
    let is_same = |a: &types::Attachment, b: &types::Attachment| {
        a.network == b.network && a.addresses.overlap(b.addresses)
    };
    let has = |a: &&types::Attachment| other.attachments.iter().any(|b| is_same(a, b));
    let address = one.attachments.iter().find(has).map(|it| it.addresses);
    mesh.or(address).map(|address| address.to_string())
}

fn identifiers(world: &World) -> Verdict {
    let view = world.view();
    let stored = view.networks().filter(|network| network.vni != 0);
    let stored: BTreeMap<u32, _> = stored.map(|network| (network.vni, &network.id)).collect();
    for node in world.nodes.iter().filter(|node| counts(world, node)) {
        for (id, overlay) in &node.kernel.desired.overlays {
            if let Some(other) = stored.get(&overlay.vni).filter(|other| **other != id) {
                let (node, vni) = (node.number, overlay.vni);
                return Err(format!("network {other} gets VNI {vni}, node {node} has it for {id}"));
            }
        }
    }
    Ok(())
}
