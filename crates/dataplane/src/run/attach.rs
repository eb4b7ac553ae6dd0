//! Containers come and go: namespace, gateway address, name server.

use super::{NAMESPACE, Run, flatten, is_known};
use crate::error::Error;
use crate::gateway;
use crate::handle::Wanted;
use crate::port::Namespaces;
use crate::resolver::{self, Server};
use discovery::{Kernel, Sandbox, Zone, project};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use tokio::time::timeout;

impl<K: Kernel, N: Namespaces> Run<K, N> {
    pub(super) async fn attach(&mut self, wanted: Wanted) -> Result<(), Error> {
        for attachment in &wanted.attachments {
            let known = self.known.networks.get(&attachment.network);
            if known.is_none_or(|view| view.subnet.is_none() || view.vni == 0) {
                return Err(Error::UnknownNetwork(attachment.network.clone()));
            }
        }
        let netns = self.netns(&wanted.id);
        let mut sandbox = match self.here.sandboxes.get(&wanted.id) {
            Some(sandbox) => sandbox.clone(),
            None => self.fresh(&netns)?,
        };
        let created = timeout(NAMESPACE, self.namespaces.create(&netns)).await;
        flatten(created).map_err(|source| Error::Namespace { path: netns.clone(), source })?;
        if self.servers.get(&wanted.id).is_none_or(Server::has_ended) {
            match self.serve(&wanted.id, &netns, sandbox.dns_port, Zone::default()).await {
                Ok(port) => sandbox.dns_port = port,
                Err(source) => {
                    // Not to be left behind; what is here already stays and is tried again.
                    if !self.here.sandboxes.contains_key(&wanted.id) {
                        self.leaving.push((wanted.id, None));
                    }
                    return Err(Error::Resolver { path: netns, source });
                }
            }
        }
        if let Some(task) = &wanted.task {
            // A container of the task is here again.
            self.here.withdrawn.remove(task);
        }
        sandbox.task = wanted.task;
        sandbox.attachments = wanted.attachments;
        sandbox.host_ports = wanted.host_ports;
        self.here.sandboxes.insert(wanted.id, sandbox);
        self.local_is_saved = false;
        // The namespace may be new although the rules look the same.
        self.held = None;
        Ok(())
    }

    fn fresh(&mut self, netns: &Path) -> Result<Sandbox, Error> {
        let used: BTreeSet<Ipv4Addr> =
            self.here.sandboxes.values().map(|sandbox| sandbox.gateway_address).collect();
        let subnet = self.config.gateway_subnet;
        let gateway_address = gateway::choose(subnet, &used, self.last_gateway)
            .ok_or(Error::GatewayExhausted(subnet))?;
        self.last_gateway = Some(gateway_address);
        Ok(Sandbox {
            task: None,
            netns: netns.display().to_string(),
            gateway_address,
            attachments: Vec::new(),
            dns_port: 0,
            host_ports: Vec::new(),
        })
    }

    /// Opens a container's name server and returns its port.
    async fn serve(
        &mut self,
        id: &str,
        netns: &Path,
        wanted: u16,
        zone: Zone,
    ) -> std::io::Result<u16> {
        if let Some(ended) = self.servers.remove(id) {
            ended.close().await;
        }
        let sockets = resolver::open(&self.namespaces, netns, wanted);
        let sockets = flatten(timeout(NAMESPACE, sockets).await)?;
        let port = sockets.port;
        let server = Server::start(sockets, zone, &self.upstreams, &self.token)?;
        self.servers.insert(id.to_owned(), server);
        Ok(port)
    }

    /// Opens every name server that is not running: all after a start, later those that failed.
    pub(super) async fn open_servers(&mut self) {
        let ended = |id: &String| self.servers.get(id).is_none_or(Server::has_ended);
        let missing: Vec<String> =
            self.here.sandboxes.keys().filter(|id| ended(id)).cloned().collect();
        if missing.is_empty() {
            return;
        }
        let mut zones = project(&self.known, &self.here).zones;
        for id in missing {
            let Some(sandbox) = self.here.sandboxes.get(&id) else { continue };
            let (netns, wanted) = (PathBuf::from(&sandbox.netns), sandbox.dns_port);
            let zone = zones.remove(&id).unwrap_or_default();
            match self.serve(&id, &netns, wanted, zone).await {
                Ok(port) => {
                    self.local_is_saved &= port == wanted;
                    if let Some(sandbox) = self.here.sandboxes.get_mut(&id) {
                        sandbox.dns_port = port;
                    }
                }
                Err(error) => {
                    tracing::warn!(container = id, %error, "cannot open its name server");
                }
            }
        }
    }

    /// Takes a container out of what is here. Its sockets keep the namespace alive: they go first.
    pub(super) async fn part(&mut self, id: &str) {
        if let Some(server) = self.servers.remove(id) {
            server.close().await;
        }
        if let Some(sandbox) = self.here.sandboxes.remove(id) {
            self.local_is_saved = false;
            if let Some(task) = sandbox.task.filter(|task| is_known(&self.known, task)) {
                self.withdraw(task);
            }
        }
    }
}
