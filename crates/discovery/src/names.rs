//! The names of one network, indexed once and shared by all sandboxes that are on it.

use crate::model::{Endpoint, NetworkView, ServiceView};
use imbl::OrdSet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use types::{Addresses, ServiceId, TaskId};

/// A network with the tasks that serve on it: the one source of balancers and names.
pub(crate) struct Served<'a> {
    pub(crate) view: &'a NetworkView,
    /// The addresses that serve. A service is there from its first endpoint on.
    services: BTreeMap<&'a ServiceId, BTreeSet<IpAddr>>,
    serving: BTreeSet<&'a TaskId>,
}

impl<'a> Served<'a> {
    pub(crate) fn new(view: &'a NetworkView, hidden: &OrdSet<TaskId>) -> Self {
        let mut services: BTreeMap<&ServiceId, BTreeSet<IpAddr>> = BTreeMap::new();
        let mut serving = BTreeSet::new();
        for (task, endpoint) in &view.endpoints {
            let members = services.entry(&endpoint.service).or_default();
            if endpoint.serving && !hidden.contains(task) {
                members.extend(endpoint.addresses.iter());
                serving.insert(task);
            }
        }
        Self { view, services, serving }
    }

    /// Every IPv4 VIP of the network with its back ends, also those that have none.
    pub(crate) fn vips_v4(&self) -> impl Iterator<Item = (Ipv4Addr, Vec<Ipv4Addr>)> {
        let services = self.view.services.iter();
        services.filter_map(|(id, service)| Some((service.vips.v4?, self.members(id).v4)))
    }

    pub(crate) fn vips_v6(&self) -> impl Iterator<Item = (Ipv6Addr, Vec<Ipv6Addr>)> {
        let services = self.view.services.iter();
        services.filter_map(|(id, service)| Some((service.vips.v6?, self.members(id).v6)))
    }

    fn members(&self, service: &ServiceId) -> Records {
        self.services.get(service).into_iter().flatten().copied().collect()
    }
}

/// The addresses of a name, those of each family in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    pub v4: Vec<Ipv4Addr>,
    pub v6: Vec<Ipv6Addr>,
}

impl Records {
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

impl FromIterator<IpAddr> for Records {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        let mut records = Self::default();
        for address in addresses {
            match address {
                IpAddr::V4(address) => records.v4.push(address),
                IpAddr::V6(address) => records.v6.push(address),
            }
        }
        records
    }
}

/// The names of one network: what they lead to, and what addresses are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The network's name in lower case: `web.<network>` is accepted for `web`.
    network: String,
    /// By name in lower case.
    addresses: BTreeMap<String, Records>,
    /// By stack, the names of its services, also of those that nobody serves yet: these have no
    /// address.
    stacks: BTreeMap<String, BTreeMap<String, Records>>,
    reverse: BTreeMap<IpAddr, String>,
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
    pub fn addresses(&self, name: &str) -> Option<&Records> {
        self.find(&self.addresses, name)
    }

    /// The same, of what a stack's own services are called; empty while nobody serves.
    pub(crate) fn in_stack(&self, stack: &str, name: &str) -> Option<&Records> {
        self.find(self.stacks.get(stack)?, name)
    }

    fn find<'n>(&self, table: &'n BTreeMap<String, Records>, name: &str) -> Option<&'n Records> {
        let short = || name.strip_suffix(self.network.as_str())?.strip_suffix('.');
        table.get(name).or_else(|| table.get(short()?))
    }

    /// What an address is called, with the network's name at the end.
    pub fn name_of(&self, address: IpAddr) -> Option<&str> {
        self.reverse.get(&address).map(String::as_str)
    }
}

/// Addresses by name, while they are collected. Whoever shares a name shares its addresses.
#[derive(Default)]
struct Table(BTreeMap<String, BTreeSet<IpAddr>>);

impl Table {
    fn add(&mut self, name: &str, addresses: impl IntoIterator<Item = IpAddr>) {
        if !name.is_empty() {
            self.0.entry(name.to_lowercase()).or_default().extend(addresses);
        }
    }

    fn done(self) -> BTreeMap<String, Records> {
        self.0.into_iter().map(|(name, set)| (name, set.into_iter().collect())).collect()
    }
}

/// Names while they are collected.
#[derive(Default)]
struct Draft {
    addresses: Table,
    stacks: BTreeMap<String, Table>,
    reverse: BTreeMap<IpAddr, String>,
    /// The names of services, in lower case.
    services: BTreeSet<String>,
}

impl Draft {
    fn service(&mut self, id: &ServiceId, service: &ServiceView, served: &Served<'_>) {
        let members = served.services.get(id);
        // Without any task nobody will serve soon: the name is not known yet.
        let vips = if members.is_some() { service.vips } else { Addresses::default() };
        let members: Vec<IpAddr> = members.into_iter().flatten().copied().collect();
        for name in std::iter::once(&service.name).chain(&service.aliases) {
            let own = if vips.is_empty() { members.clone() } else { vips.iter().collect() };
            let names = [(name.clone(), own), (format!("tasks.{name}"), members.clone())];
            for (name, addresses) in names {
                self.services.insert(name.to_lowercase());
                if !service.stack.is_empty() {
                    let stack = self.stacks.entry(service.stack.clone()).or_default();
                    stack.add(&name, addresses.iter().copied());
                }
                self.add(&name, addresses);
            }
        }
        for vip in vips.iter() {
            self.reverse.insert(vip, format!("{}.{}", service.name, served.view.name));
        }
    }

    fn endpoint(&mut self, task: &TaskId, endpoint: &Endpoint, served: &Served<'_>) {
        let name = format!("{}.{}", endpoint.name, served.view.name);
        let addresses = endpoint.addresses;
        self.reverse.extend(addresses.iter().map(|address| (address, name.clone())));
        if !served.serving.contains(task) {
            return;
        }
        self.add(&endpoint.name, addresses.iter());
        let slot =
            endpoint.name.strip_suffix(task.as_str()).and_then(|name| name.strip_suffix('.'));
        for name in endpoint.aliases.iter().map(String::as_str).chain(slot) {
            // The name of a service leads to the service alone.
            if !self.services.contains(&name.to_lowercase()) {
                self.add(name, addresses.iter());
            }
        }
    }

    /// A name without an address is not a name: it would be answered with nothing.
    fn add(&mut self, name: &str, addresses: impl IntoIterator<Item = IpAddr>) {
        let mut addresses = addresses.into_iter().peekable();
        if addresses.peek().is_some() {
            self.addresses.add(name, addresses);
        }
    }
}
