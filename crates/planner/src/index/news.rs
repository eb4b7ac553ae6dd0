//! What a change may make necessary.

use super::Look;
use crate::orchestrator::slot::slot_of;
use std::collections::BTreeMap;
use store::View;
use types::{
    Addresses, Meta, Network, NetworkId, Node, NodeId, PublishedPort, Service, ServiceId, Slot,
    Task,
};

/// What changed since a planner looked last.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Services that something changed of which their tasks and addresses depend on, with what of
    /// each is to be looked at.
    pub(crate) looks: BTreeMap<ServiceId, Look>,
    /// Addresses were given or given back, or there may be others to give: whoever waits for one
    /// may get it, or lacks another one now.
    pub(crate) addresses: bool,
    /// Nodes have more or less to give than they had: whoever waits for one may get it, or is
    /// refused for another reason now.
    pub(crate) nodes: bool,
}

impl News {
    /// Says whether nothing has to be planned.
    pub(crate) fn is_empty(&self) -> bool {
        self.looks.is_empty() && !self.addresses && !self.nodes
    }

    /// Takes in what a step of the plan changed. That is no reason to look at a service: what the
    /// steps before looked at is not what changed.
    pub(crate) fn add(&mut self, more: &Self) {
        self.addresses |= more.addresses;
        self.nodes |= more.nodes;
    }

    /// Services as a whole are to be looked at.
    pub(crate) fn look_at_all(&mut self, services: impl IntoIterator<Item = ServiceId>) {
        self.looks.extend(services.into_iter().map(|service| (service, Look::All)));
    }

    /// What is busy of services is to be looked at.
    pub(crate) fn look_at_busy(&mut self, services: impl IntoIterator<Item = ServiceId>) {
        for service in services {
            self.looks.entry(service).or_default();
        }
    }

    /// A slot of each of these services is to be looked at.
    pub(super) fn look_at_slots<'a>(
        &mut self,
        services: impl IntoIterator<Item = &'a ServiceId>,
        slot: &Slot,
    ) {
        for service in services {
            self.looks.entry(service.clone()).or_default().at(slot.clone());
        }
    }

    /// The slot of a task is to be looked at.
    pub(super) fn look_at(&mut self, task: &Task) {
        self.looks.entry(task.service.clone()).or_default().at(slot_of(task));
    }

    /// Tokens, certificates and names are no planner's business.
    pub(super) fn cluster(&mut self, before: &View, view: &View) {
        let settings = |view: &View| {
            view.cluster()
                .map(|it| (it.spec.task_history_limit, it.address_pools.clone(), it.subnet_prefix))
        };
        if settings(before) != settings(view) {
            self.addresses = true;
            self.look_at_all(view.services().map(|service| service.id.clone()));
        }
    }

    /// Says whether anything changed of a node that a planner goes by. All there is to it decides
    /// where tasks may be, but for what it says of its troubles.
    pub(super) fn node(&mut self, (before, view): (&View, &View), id: &NodeId) -> bool {
        let known =
            |node: &Node| Node { meta: Meta::default(), trouble: String::new(), ..node.clone() };
        let of = |view: &View| view.node(id).map(|node| known(node));
        if of(before) == of(view) {
            return false;
        }
        (self.addresses, self.nodes) = (true, true);
        for view in [before, view] {
            for task in view.tasks_of_node(id) {
                self.look_at(task);
            }
        }
        true
    }

    /// Says whether anything changed of a network but which address was handed out last.
    pub(super) fn network(&mut self, (before, view): (&View, &View), id: &NetworkId) -> bool {
        let known = |network: &Network| Network {
            meta: Meta::default(),
            last_addresses: Addresses::default(),
            last_vni: 0,
            ..network.clone()
        };
        let of = |view: &View| view.network(id).map(|network| known(network));
        let (was, is) = (of(before), of(view));
        if was == is {
            return false;
        }
        self.addresses = true;
        let is_mesh = [was, is].iter().flatten().any(|network| network.spec.ingress);
        for view in [before, view] {
            let concerned = view.services().filter(|it| concerns(it, id, is_mesh));
            self.look_at_all(concerned.map(|service| service.id.clone()));
        }
        true
    }
}

/// Says whether a service has to do with a network.
fn concerns(service: &Service, id: &NetworkId, is_mesh: bool) -> bool {
    let ports = || service.ports.iter().chain(&service.spec.endpoint.ports);
    service.spec.task.networks.iter().any(|it| it.target == *id)
        || service.vips.iter().any(|vip| vip.network == *id)
        || (is_mesh && ports().any(PublishedPort::in_mesh))
}
