//! The names of one network, indexed once and shared by all sandboxes that are on it.

use crate::model::{Endpoint, NetworkView, ServiceView};
use imbl::OrdSet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use types::{ServiceId, TaskId};

/// A network with the tasks that serve on it: the one source of balancers and names.
pub(crate) struct Served<'a> {
    pub(crate) view: &'a NetworkView,
    /// The addresses that serve. A service is there from its first endpoint on.
    services: BTreeMap<&'a ServiceId, BTreeSet<Ipv4Addr>>,
    serving: BTreeSet<&'a TaskId>,
}

impl<'a> Served<'a> {
    pub(crate) fn new(view: &'a NetworkView, hidden: &OrdSet<TaskId>) -> Self {
        let mut services: BTreeMap<&ServiceId, BTreeSet<Ipv4Addr>> = BTreeMap::new();
        let mut serving = BTreeSet::new();
        for (task, endpoint) in &view.endpoints {
            let members = services.entry(&endpoint.service).or_default();
            if endpoint.serving && !hidden.contains(task) {
                members.insert(endpoint.address);
                serving.insert(task);
            }
        }
        Self { view, services, serving }
    }

    /// Every VIP of the network with its back ends, also those that have none.
    pub(crate) fn vips(&self) -> BTreeMap<Ipv4Addr, Vec<Ipv4Addr>> {
        let vip =
            |(id, service): (&ServiceId, &ServiceView)| Some((service.vip?, self.members(id)));
        self.view.services.iter().filter_map(vip).collect()
    }

    fn members(&self, service: &ServiceId) -> Vec<Ipv4Addr> {
        self.services.get(service).into_iter().flatten().copied().collect()
    }
}

/// The names of one network: what they lead to, and what addresses are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The network's name in lower case: `web.<network>` is accepted for `web`.
    network: String,
    /// By name in lower case.
    addresses: BTreeMap<String, Vec<Ipv4Addr>>,
    /// By stack, the names of its services, also of those that nobody serves yet: these have no
    /// address.
    stacks: BTreeMap<String, BTreeMap<String, Vec<Ipv4Addr>>>,
    reverse: BTreeMap<Ipv4Addr, String>,
}

impl Names {
    pub(crate) fn new(served: &Served<'_>) -> Self {
        let mut draft = Draft::default();
        for (id, service) in &served.view.services {
            draft.service(id, service, served);
        }
        for (task, endpoint) in &served.view.endpoints {
            draft.endpoint(task, endpoint, served);
        }
        Self {
            network: served.view.name.to_lowercase(),
            addresses: draft.addresses.done(),
            stacks: draft.stacks.into_iter().map(|(stack, table)| (stack, table.done())).collect(),
            reverse: draft.reverse,
        }
    }

    /// The addresses of a name, which is in lower case and without a dot at its end; at least one.
    pub fn addresses(&self, name: &str) -> Option<&[Ipv4Addr]> {
        self.find(&self.addresses, name)
    }

    /// The same, of what a stack's own services are called; empty while nobody serves.
    pub(crate) fn in_stack(&self, stack: &str, name: &str) -> Option<&[Ipv4Addr]> {
        self.find(self.stacks.get(stack)?, name)
    }

    fn find<'n>(
        &self,
        table: &'n BTreeMap<String, Vec<Ipv4Addr>>,
        name: &str,
    ) -> Option<&'n [Ipv4Addr]> {
        let short = || name.strip_suffix(self.network.as_str())?.strip_suffix('.');
        let found = table.get(name).or_else(|| table.get(short()?));
        found.map(Vec::as_slice)
    }

    /// What an address is called, with the network's name at the end.
    pub fn name_of(&self, address: Ipv4Addr) -> Option<&str> {
        self.reverse.get(&address).map(String::as_str)
    }
}

/// Addresses by name, while they are collected. Whoever shares a name shares its addresses.
#[derive(Default)]
struct Table(BTreeMap<String, BTreeSet<Ipv4Addr>>);

impl Table {
    fn add(&mut self, name: &str, addresses: impl IntoIterator<Item = Ipv4Addr>) {
        if !name.is_empty() {
            self.0.entry(name.to_lowercase()).or_default().extend(addresses);
        }
    }

    fn done(self) -> BTreeMap<String, Vec<Ipv4Addr>> {
        self.0.into_iter().map(|(name, set)| (name, set.into_iter().collect())).collect()
    }
}

/// Names while they are collected.
#[derive(Default)]
struct Draft {
    addresses: Table,
    stacks: BTreeMap<String, Table>,
    reverse: BTreeMap<Ipv4Addr, String>,
}

impl Draft {
    fn service(&mut self, id: &ServiceId, service: &ServiceView, served: &Served<'_>) {
        let members = served.services.get(id);
        // Without any task nobody will serve soon: the name is not known yet.
        let vip = service.vip.filter(|_| members.is_some());
        let members: Vec<Ipv4Addr> = members.into_iter().flatten().copied().collect();
        for name in std::iter::once(&service.name).chain(&service.aliases) {
            let own = vip.map_or_else(|| members.clone(), |vip| vec![vip]);
            let names = [(name.clone(), own), (format!("tasks.{name}"), members.clone())];
            for (name, addresses) in names {
                if !service.stack.is_empty() {
                    let stack = self.stacks.entry(service.stack.clone()).or_default();
                    stack.add(&name, addresses.iter().copied());
                }
                self.add(&name, addresses);
            }
        }
        if let Some(vip) = vip {
            self.reverse.insert(vip, format!("{}.{}", service.name, served.view.name));
        }
    }

    fn endpoint(&mut self, task: &TaskId, endpoint: &Endpoint, served: &Served<'_>) {
        let name = format!("{}.{}", endpoint.name, served.view.name);
        self.reverse.insert(endpoint.address, name);
        if !served.serving.contains(task) {
            return;
        }
        self.add(&endpoint.name, vec![endpoint.address]);
        let slot =
            endpoint.name.strip_suffix(task.as_str()).and_then(|name| name.strip_suffix('.'));
        for name in endpoint.aliases.iter().map(String::as_str).chain(slot) {
            self.add(name, vec![endpoint.address]);
        }
    }

    /// A name without an address is not a name: it would be answered with nothing.
    fn add(&mut self, name: &str, addresses: Vec<Ipv4Addr>) {
        if !addresses.is_empty() {
            self.addresses.add(name, addresses);
        }
    }
}
