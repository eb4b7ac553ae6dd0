//! After the calm, whatever serves is found by everybody who may find it: by its names and virtual IPs
//! on its networks, by its published ports on every node.
//!
//! What follows is worked out here from the store alone, and not as managers and nodes do it: else a
//! manager that tells nobody of anything would be right.

use super::serves::{addresses, balanced};
use super::{Invariant, Verdict};
use crate::node::Node;
use crate::world::World;
use discovery::Here;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use store::View;
use types::{
    Addresses, DesiredState, EndpointMode, NetworkId, NodeState, PublishMode, Service, Task,
    TaskState,
};

#[derive(Debug)]
pub(super) struct SettledTraffic;

impl Invariant for SettledTraffic {
    fn name(&self) -> &'static str {
        "after the calm everybody finds what serves"
    }

    fn settled(&mut self, world: &World) -> Verdict {
        let view = world.view();
        let serving: Vec<Serving<'_>> =
            view.tasks().filter_map(|it| Serving::of(view, it)).collect();
        for node in &world.nodes {
            let is_there = !node.is_gone && !node.wants_to_leave && view.node(&node.id).is_some();
            if let Some((_, here)) = node.knows().filter(|_| is_there) {
                let checked = check(node, here, &serving);
                checked.map_err(|why| format!("node {}: {why}", node.number))?;
            }
        }
        Ok(())
    }
}

/// A task that serves, and its service.
struct Serving<'a> {
    task: &'a Arc<Task>,
    service: &'a Arc<Service>,
}

impl<'a> Serving<'a> {
    fn of(view: &'a View, task: &'a Arc<Task>) -> Option<Self> {
        let runs = task.status.state == TaskState::Running && !task.status.unhealthy;
        let stays = runs && task.desired == DesiredState::Running;
        let node = view.node(task.node.as_ref()?)?;
        let is_there = node.status.state == NodeState::Ready && !node.status.leaving;
        let service = view.service(&task.service)?;
        (stays && is_there).then_some(Self { task, service })
    }
}

fn check(node: &Node, here: &Here, serving: &[Serving<'_>]) -> Verdict {
    for (container, sandbox) in &here.sandboxes {
        let mut named: BTreeMap<&str, &NetworkId> = BTreeMap::new();
        for network in sandbox.attachments.iter().map(|attachment| &attachment.network) {
            for serving in serving {
                let Some(there) = serving.on(network) else { continue };
                check_balancer(node, container, (serving, network), there)?;
                // A name is that of the first network which has it.
                if *named.entry(&serving.service.spec.name).or_insert(network) == network {
                    check_names(node, container, (serving, network), there)?;
                }
            }
        }
    }
    for serving in serving {
        check_ports(node, here, serving)?;
    }
    Ok(())
}

impl Serving<'_> {
    /// The task's addresses on a network, if its service is on that: a task may stay from before, where
    /// its node takes no tasks at present.
    fn on(&self, network: &NetworkId) -> Option<Addresses> {
        let mut networks = self.service.spec.task.networks.iter();
        networks.find(|it| it.target == *network)?;
        let mut attachments = self.task.attachments.iter();
        attachments.find(|it| it.network == *network).map(|it| it.addresses)
    }

    /// Its service's virtual IPs on a network, if it has any.
    fn vips(&self, network: &NetworkId) -> Option<Addresses> {
        let is_balanced = self.service.spec.endpoint.mode == EndpointMode::Vip;
        let mut vips = self.service.vips.iter().filter(|_| is_balanced);
        vips.find(|vip| vip.network == *network).map(|vip| vip.addresses)
    }
}

/// On the network a container finds the task by the service's names.
fn check_names(
    node: &Node,
    container: &str,
    (serving, network): (&Serving<'_>, &NetworkId),
    there: Addresses,
) -> Verdict {
    let name = &serving.service.spec.name;
    let zone = node.kernel.zones.get(container).ok_or("a container has no names")?;
    let leads = |name: &str, to: Addresses| {
        let found = addresses(zone, name);
        match to.iter().find(|address| !found.contains(address)) {
            Some(address) => Err(format!("{name} is {found:?}, without {address}")),
            None => Ok(()),
        }
    };
    leads(&format!("tasks.{name}"), there)?;
    leads(name, serving.vips(network).unwrap_or(there))
}

/// On the network a container is led to the task by the service's virtual IP.
fn check_balancer(
    node: &Node,
    container: &str,
    (serving, network): (&Serving<'_>, &NetworkId),
    there: Addresses,
) -> Verdict {
    let rules = node.kernel.desired.sandboxes.get(container);
    let led: BTreeSet<(IpAddr, IpAddr)> = rules.into_iter().flat_map(balanced).collect();
    for vip in serving.vips(network).into_iter().flat_map(Addresses::iter) {
        let missing = there.of_family(vip).filter(|backend| !led.contains(&(vip, *backend)));
        if let Some(backend) = missing {
            return Err(format!("VIP {vip} does not lead to {backend}"));
        }
    }
    Ok(())
}

/// A port that the task's service publishes leads to it: directly on its own node, by the mesh on all
/// others. One that stays from before it was published, since its node takes no tasks at present or
/// the update ended early, has no address there.
fn check_ports(node: &Node, here: &Here, Serving { task, service }: &Serving<'_>) -> Verdict {
    if task.ingress_addresses.is_empty() && !task.spec.makes_same(&service.spec.task) {
        return Ok(());
    }
    let own = here.sandboxes.values().find(|sandbox| sandbox.task.as_ref() == Some(&task.id));
    let addresses = own.map_or(task.ingress_addresses, |sandbox| sandbox.gateway_addresses);
    let published = service.ports.iter().filter(|port| port.mode == PublishMode::Ingress);
    for port in published {
        let rules = node.kernel.desired.mesh.ports.get(&(port.protocol, port.published));
        let backends = rules.map(|rules| &*rules.backends).unwrap_or_default();
        if !addresses.iter().any(|address| backends.contains(&address)) {
            let number = port.published;
            return Err(format!("port {number} leads to {backends:?}, not to {}", task.id));
        }
    }
    Ok(())
}
