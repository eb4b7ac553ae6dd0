//! The names of one network, indexed once and shared by all sandboxes that are on it.

use crate::model::{Endpoint, NetworkView, ServiceView};
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
    pub(crate) fn new(view: &'a NetworkView, withdrawn: &BTreeSet<TaskId>) -> Self {
        let mut services: BTreeMap<&ServiceId, BTreeSet<Ipv4Addr>> = BTreeMap::new();
        let mut serving = BTreeSet::new();
        for (task, endpoint) in &view.endpoints {
            let members = services.entry(&endpoint.service).or_default();
            if endpoint.serving && !withdrawn.contains(task) {
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
        let addresses = draft.addresses.into_iter();
        Self {
            network: served.view.name.to_lowercase(),
            addresses: addresses.map(|(name, set)| (name, set.into_iter().collect())).collect(),
            reverse: draft.reverse,
        }
    }

    /// The addresses of a name, which is in lower case and without a dot at its end.
    pub fn addresses(&self, name: &str) -> Option<&[Ipv4Addr]> {
        let short = || name.strip_suffix(self.network.as_str())?.strip_suffix('.');
        let found = self.addresses.get(name).or_else(|| self.addresses.get(short()?));
        found.map(Vec::as_slice)
    }

    /// What an address is called, with the network's name at the end.
    pub fn name_of(&self, address: Ipv4Addr) -> Option<&str> {
        self.reverse.get(&address).map(String::as_str)
    }
}

/// Names while they are collected. Whoever shares a name shares its addresses.
#[derive(Default)]
struct Draft {
    addresses: BTreeMap<String, BTreeSet<Ipv4Addr>>,
    reverse: BTreeMap<Ipv4Addr, String>,
}

impl Draft {
    fn service(&mut self, id: &ServiceId, service: &ServiceView, served: &Served<'_>) {
        // Without any task nobody will serve soon: the name is not known yet.
        let Some(members) = served.services.get(id) else { return };
        for name in std::iter::once(&service.name).chain(&service.aliases) {
            match service.vip {
                Some(vip) => self.add(name, [vip]),
                None => self.add(name, members.iter().copied()),
            }
            self.add(&format!("tasks.{name}"), members.iter().copied());
        }
        if let Some(vip) = service.vip {
            self.reverse.insert(vip, format!("{}.{}", service.name, served.view.name));
        }
    }

    fn endpoint(&mut self, task: &TaskId, endpoint: &Endpoint, served: &Served<'_>) {
        let name = format!("{}.{}", endpoint.name, served.view.name);
        self.reverse.insert(endpoint.address, name);
        if !served.serving.contains(task) {
            return;
        }
        self.add(&endpoint.name, [endpoint.address]);
        let slot =
            endpoint.name.strip_suffix(task.as_str()).and_then(|name| name.strip_suffix('.'));
        for name in endpoint.aliases.iter().map(String::as_str).chain(slot) {
            self.add(name, [endpoint.address]);
        }
    }

    /// A name without an address is not a name: it would be answered with nothing.
    fn add(&mut self, name: &str, addresses: impl IntoIterator<Item = Ipv4Addr>) {
        let mut addresses = addresses.into_iter().peekable();
        if !name.is_empty() && addresses.peek().is_some() {
            self.addresses.entry(name.to_lowercase()).or_default().extend(addresses);
        }
    }
}
