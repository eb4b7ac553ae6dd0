//! Name spaces of other containers.

use crate::config::{ContainerConfig, NetworkMode};
use crate::container::Container;
use crate::engine::Engine;
use crate::info::Status;
use crate::memory;
use crate::spec::Netns;
use std::path::PathBuf;
use std::sync::Arc;
use types::Fault;

/// Nobody has more containers on the network of each other.
const CHAIN: usize = 16;

/// Where a container finds what it has of others; nothing: its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Borrowed {
    /// Files that stand for name spaces.
    pub(crate) pid: Option<PathBuf>,
    pub(crate) ipc: Option<PathBuf>,
    /// The folder on the node that is its /dev/shm.
    pub(crate) shm: Option<PathBuf>,
}

/// Of whom it has its network.
pub(crate) struct Host {
    pub(crate) netns: Netns,
    /// Whose own it is.
    pub(crate) container: Arc<Container>,
}

fn name_space(pid: u32, kind: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/{kind}"))
}

/// Refuses what has no meaning on another container's network, in Docker's words.
pub(crate) fn check(config: &ContainerConfig) -> Result<(), Fault> {
    if config.node.joined.network.is_empty() {
        return Ok(());
    }
    let spec = &config.spec;
    let dns = &spec.dns;
    let conflicts = [
        (!spec.hostname.is_empty(), "hostname and the network mode"),
        (
            !dns.nameservers.is_empty() || !dns.search.is_empty() || !dns.options.is_empty(),
            "dns and the network mode",
        ),
        (!spec.hosts.is_empty(), "custom host-to-IP mapping and the network mode"),
        (!config.host_ports.is_empty(), "port publishing and the container type network mode"),
        (
            !config.asked.exposed_ports.is_empty(),
            "port exposing and the container type network mode",
        ),
        (config.node.uts, "UTS mode and the network mode"),
    ];
    match conflicts.into_iter().find(|(is_so, _)| *is_so) {
        Some((_, what)) => Err(Fault::invalid(format!("conflicting options: {what}"))),
        None => Ok(()),
    }
}

impl Engine {
    /// Knows the containers whose name spaces one is to have by their ids from now on. One that is not
    /// there yet is looked for when it starts, as with Docker.
    pub(crate) fn join(&self, config: &mut ContainerConfig) {
        let joined = &mut config.node.joined;
        for one in [&mut joined.network, &mut joined.pid, &mut joined.ipc] {
            if !one.is_empty()
                && let Ok(found) = self.find(one)
            {
                found.id().clone_into(one);
            }
        }
    }

    /// The network of the container whose one it has.
    pub(crate) fn joined_network(&self, own: &Container) -> Result<Option<Host>, Fault> {
        let id = &own.fixed.config.node.joined.network;
        if id.is_empty() {
            return Ok(None);
        }
        let (container, pid) = self.running_one(id, "network")?;
        let container = self.owner(container)?;
        let netns = match container.fixed.config.network {
            NetworkMode::Host => Netns::Host,
            NetworkMode::Bridge | NetworkMode::Attached | NetworkMode::None => {
                Netns::Path(name_space(pid, "net"))
            }
        };
        Ok(Some(Host { netns, container }))
    }

    /// Whose network it is that a container has: its files are beside that one's record.
    fn owner(&self, mut container: Arc<Container>) -> Result<Arc<Container>, Fault> {
        for _ in 0..CHAIN {
            let next = &container.fixed.config.node.joined.network;
            if next.is_empty() {
                return Ok(container);
            }
            container = self.find(next)?;
        }
        Err(Fault::conflict("too many containers have the network of each other"))
    }

    /// What else it has of others.
    pub(crate) fn borrowed(&self, own: &Container) -> Result<Borrowed, Fault> {
        let node = &own.fixed.config.node;
        let mut borrowed = Borrowed::default();
        if node.shareable {
            borrowed.shm = Some(memory::shm(&own.run));
        }
        if !node.joined.pid.is_empty() {
            let (_, pid) = self.running_one(&node.joined.pid, "PID namespace")?;
            borrowed.pid = Some(name_space(pid, "pid"));
        }
        if !node.joined.ipc.is_empty() {
            let (other, pid) = self.running_one(&node.joined.ipc, "IPC namespace")?;
            let theirs = &other.fixed.config.node;
            if !theirs.shareable && !theirs.ipc {
                return Err(Fault::conflict(format!(
                    "can't join IPC of container {}: non-shareable IPC (hint: use \
                     IpcMode:shareable for the donor container)",
                    other.id()
                )));
            }
            borrowed.ipc = Some(name_space(pid, "ipc"));
            let nodes = || PathBuf::from("/dev/shm");
            borrowed.shm = Some(if theirs.ipc { nodes() } else { memory::shm(&other.run) });
        }
        Ok(borrowed)
    }

    fn running_one(&self, id: &str, what: &str) -> Result<(Arc<Container>, u32), Fault> {
        let container = self.find(id)?;
        let (status, pid) = {
            let state = container.state.borrow();
            (state.status, state.pid)
        };
        if status != Status::Running || pid == 0 {
            return Err(Fault::conflict(format!(
                "cannot join {what} of a non running container: {id}"
            )));
        }
        Ok((container, pid))
    }
}
