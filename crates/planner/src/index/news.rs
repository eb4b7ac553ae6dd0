//! What a change may make necessary.

use super::AllSlots;
use std::collections::BTreeSet;
use std::sync::Arc;
use store::View;
use types::{Addresses, Meta, Network, NetworkId, Node, NodeId, PublishedPort, Service, ServiceId};

/// What changed since a planner looked last.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Services of which something changed that their tasks and addresses depend on. Which of their
    /// slots are to be looked at those say.
    pub(crate) services: BTreeSet<ServiceId>,
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
        self.services.is_empty() && !self.addresses && !self.nodes
    }

    /// Takes in what a step of the plan changed. That is no reason to look at a service: what the
    /// steps before looked at is not what changed.
    pub(crate) fn add(&mut self, more: &Self) {
        self.addresses |= more.addresses;
        self.nodes |= more.nodes;
    }

    /// A service is to be looked at.
    pub(crate) fn look_at(&mut self, service: &ServiceId) {
        if !self.services.contains(service) {
            self.services.insert(service.clone());
        }
    }

    /// Services are to be looked at.
    pub(crate) fn look_at_all(&mut self, services: impl IntoIterator<Item = ServiceId>) {
        self.services.extend(services);
    }

    /// Tokens, certificates and names are no planner's business.
    pub(super) fn cluster(&mut self, (before, view): (&View, &View), slots: &mut AllSlots) {
        let settings = |view: &View| {
            view.cluster()
                .map(|it| (it.spec.task_history_limit, it.address_pools.clone(), it.subnet_prefix))
        };
        if settings(before) != settings(view) {
            self.addresses = true;
            self.look_at_whole(view.services(), slots);
        }
    }

    /// All slots of services are to be looked at.
    fn look_at_whole<'a>(
        &mut self,
        services: impl Iterator<Item = &'a Arc<Service>>,
        slots: &mut AllSlots,
    ) {
        for service in services {
            self.look_at(&service.id);
            slots.stir_all(&service.id);
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
        true
    }

    /// Says whether anything changed of a network but which address was handed out last.
    pub(super) fn network(
        &mut self,
        (before, view): (&View, &View),
        id: &NetworkId,
        slots: &mut AllSlots,
    ) -> bool {
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
            self.look_at_whole(concerned, slots);
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
