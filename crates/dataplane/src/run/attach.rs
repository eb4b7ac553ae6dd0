//! Containers come and go: namespace, gateway address, ports.

use super::{NAMESPACE, Run, flatten};
use crate::error::Error;
use crate::gateway;
use crate::handle::Wanted;
use crate::port::Namespaces;
use discovery::{Depth, Kernel, Sandbox};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use tokio::time::timeout;
use types::Protocol;

impl<K: Kernel, N: Namespaces> Run<K, N> {
    pub(super) async fn attach(&mut self, id: &str, wanted: Wanted) -> Result<(), Error> {
        for attachment in &wanted.attachments {
            let known = self.known.networks.get(&attachment.network);
            if known.is_none_or(|view| view.subnets.is_empty() || view.vni == 0) {
                return Err(Error::UnknownNetwork(attachment.network.clone()));
            }
        }
        self.check_ports(id, &wanted)?;
        let netns = self.netns(id);
        let mut sandbox = match self.here.sandboxes.get(id) {
            Some(sandbox) => sandbox.clone(),
            None => self.fresh(&netns)?,
        };
        if !self.namespaces.exists(&netns).await {
            // What is open in its name, is in one that has gone. The new one looks the same to the
            // rules.
            sandbox.dns_port = 0;
            if self.here.sandboxes.contains_key(id) {
                self.depth = Depth::Repair;
            }
        }
        let created = flatten(timeout(NAMESPACE, self.namespaces.create(&netns)).await);
        if let Err(source) = created {
            // Not to be left half made; what is here already stays and is tried again.
            if !self.here.sandboxes.contains_key(id) {
                self.leaving.push((id.to_owned(), None));
            }
            return Err(Error::Namespace { path: netns, source });
        }
        if let Some(task) = &wanted.task {
            // A container of the task is here again.
            self.here.hidden.remove(task);
        }
        sandbox.task = wanted.task;
        sandbox.attachments = wanted.attachments;
        sandbox.host_ports = wanted.host_ports;
        sandbox.nameservers = wanted.nameservers;
        self.here.sandboxes.insert(id.to_owned(), sandbox);
        Ok(())
    }

    /// Refuses a port of the node that leads to another container. One that a service publishes on
    /// every node leads to its tasks; whether a task may have it beside that is the cluster's.
    fn check_ports(&self, id: &str, wanted: &Wanted) -> Result<(), Error> {
        let others = self.here.sandboxes.iter().filter(|(other, _)| *other != id);
        let mut taken: BTreeSet<(Protocol, u16)> = others
            .flat_map(|(_, sandbox)| &sandbox.host_ports)
            .map(|(protocol, published, _)| (*protocol, *published))
            .collect();
        if wanted.task.is_none() {
            taken.extend(self.known.mesh.ports.keys());
        }
        let mut ports = wanted.host_ports.iter();
        match ports.find(|(protocol, published, _)| taken.contains(&(*protocol, *published))) {
            Some((_, published, _)) => Err(Error::PortAllocated(*published)),
            None => Ok(()),
        }
    }

    fn fresh(&mut self, netns: &Path) -> Result<Sandbox, Error> {
        let sandboxes = self.here.sandboxes.values();
        let used: BTreeSet<Ipv4Addr> =
            sandboxes.filter_map(|sandbox| sandbox.gateway_addresses.v4).collect();
        let subnet = self.config.gateway_subnet;
        let gateway_address = gateway::choose(subnet, &used, self.last_gateway)
            .ok_or(Error::GatewayExhausted(subnet))?;
        self.last_gateway = Some(gateway_address);
        Ok(Sandbox {
            task: None,
            netns: netns.display().to_string(),
            gateway_addresses: gateway_address.into(),
            attachments: Vec::new(),
            dns_port: 0,
            host_ports: Vec::new(),
            nameservers: Vec::new(),
        })
    }

    /// Takes a container out of what is here.
    pub(super) fn part(&mut self, id: &str) {
        let task = self.here.sandboxes.remove(id).and_then(|sandbox| sandbox.task);
        if let Some(task) = task.filter(|task| self.known.has_task(task)) {
            self.withdraw(task);
        }
    }

    /// Removes namespaces that nobody knows: a crash has left them in the middle of an attach.
    pub(super) async fn clear_away(&self) {
        let folder = &self.config.netns_dir;
        let found = match self.namespaces.list(folder).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "cannot list namespaces");
                return;
            }
        };
        let known: BTreeSet<&Path> =
            self.here.sandboxes.values().map(|sandbox| Path::new(&sandbox.netns)).collect();
        for path in found.iter().filter(|path| !known.contains(path.as_path())) {
            let removed = flatten(timeout(NAMESPACE, self.namespaces.remove(path)).await);
            let error = removed.err().map(|error| error.to_string());
            tracing::info!(path = %path.display(), error, "clears a namespace away");
        }
    }
}
