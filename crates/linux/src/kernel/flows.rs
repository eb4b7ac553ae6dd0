//! Which tracked connections must be forgotten after a change.
//!
//! A tracked connection keeps its back end. For UDP that is wrong as soon as the back end is taken
//! out: there is no end of a connection. For TCP it is right, a connection may drain, until the
//! back end is no more: then the client shall hear of it at once (its next packet goes to another
//! back end, which resets it) rather than wait.

use super::Config;
use super::mesh::Mesh;
use super::sandbox::Sandbox;
use crate::error::Error;
use crate::netlink::{Flow, delete_flows};
use discovery::{Desired, MeshRules, SandboxRules};
use ipnet::Ipv4Net;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use types::{NetworkId, Protocol};

/// A change of what is desired.
#[derive(Clone, Copy)]
pub(super) struct Change<'a> {
    /// `None` after a start.
    pub(super) before: Option<&'a Desired>,
    pub(super) after: &'a Desired,
}

impl Change<'_> {
    /// Forgets connections of a container, if the change took a back end from it.
    pub(super) fn forget_in_sandbox(&self, id: &str, sandbox: &mut Sandbox) -> Result<(), Error> {
        let Some(rules) = self.after.sandboxes.get(id) else { return Ok(()) };
        let needed = self.before.is_none_or(|before| {
            // A new container has no connections.
            before.sandboxes.get(id).is_some_and(|old| {
                lost_backend(old, rules) || !known(old, before).is_subset(&known(rules, self.after))
            })
        });
        if !needed {
            return Ok(());
        }
        let alive = known(rules, self.after);
        let socket = sandbox.socket()?;
        delete_flows(socket, |flow| stale_in_sandbox(flow, rules, &alive)).map(drop)
    }

    /// Forgets connections through this node's published ports, likewise.
    pub(super) fn forget_here(&self, config: &Config, mesh: &mut Mesh) -> Result<(), Error> {
        let rules = &self.after.mesh;
        let needed = self.before.is_none_or(|before| {
            !targets(before).is_subset(&targets(self.after)) || lost_port(&before.mesh, rules)
        });
        if !needed {
            return Ok(());
        }
        let alive = targets(self.after);
        let subnet = config.gateway_subnet.trunc();
        delete_flows(mesh.socket()?, |flow| stale_here(flow, rules, &alive, subnet)).map(drop)
    }
}

fn lost_backend(old: &SandboxRules, new: &SandboxRules) -> bool {
    old.vips.iter().any(|(vip, backends)| {
        let kept = new.vips.get(vip).map(Vec::as_slice).unwrap_or_default();
        backends.iter().any(|backend| !kept.contains(backend))
    })
}

fn lost_port(old: &MeshRules, new: &MeshRules) -> bool {
    let ports = old.ports.iter().any(|(key, port)| {
        let kept = new.ports.get(key).map(|port| port.backends.as_slice()).unwrap_or_default();
        port.backends.iter().any(|backend| !kept.contains(backend))
    });
    ports || old.host_ports.iter().any(|(key, to)| new.host_ports.get(key) != Some(to))
}

/// All endpoints on a container's networks.
fn known(rules: &SandboxRules, desired: &Desired) -> BTreeSet<Ipv4Addr> {
    let networks: BTreeSet<&NetworkId> =
        rules.attachments.iter().map(|attachment| &attachment.network).collect();
    let remote = networks
        .iter()
        .filter_map(|id| desired.overlays.get(*id))
        .flat_map(|overlay| overlay.remotes.keys().copied());
    let local = desired
        .sandboxes
        .values()
        .flat_map(|sandbox| &sandbox.attachments)
        .filter(|attachment| networks.contains(&attachment.network))
        .map(|attachment| attachment.address);
    remote.chain(local).collect()
}

/// All that published ports may lead to.
fn targets(desired: &Desired) -> BTreeSet<Ipv4Addr> {
    let here = desired.sandboxes.values().map(|sandbox| sandbox.gateway_address);
    here.chain(desired.mesh.remote_tasks.keys().copied()).collect()
}

fn stale_in_sandbox(flow: &Flow, rules: &SandboxRules, alive: &BTreeSet<Ipv4Addr>) -> bool {
    let ours = |address: Ipv4Addr| {
        rules.attachments.iter().any(|attachment| {
            Ipv4Net::new(attachment.address, attachment.prefix)
                .is_ok_and(|net| net.contains(&address))
        })
    };
    if !ours(flow.backend) || !ours(flow.destination) {
        return false;
    }
    let balanced = rules.vips.get(&flow.destination).is_some_and(|to| to.contains(&flow.backend));
    match flow.protocol {
        Protocol::Tcp => !alive.contains(&flow.backend),
        Protocol::Udp => !balanced,
    }
}

fn stale_here(flow: &Flow, rules: &MeshRules, alive: &BTreeSet<Ipv4Addr>, subnet: Ipv4Net) -> bool {
    let ingress = rules.ingress.and_then(|ingress| Ipv4Net::new(ingress, 16).ok());
    let elsewhere = ingress.is_some_and(|net| net.contains(&flow.backend));
    if !elsewhere && !subnet.contains(&flow.backend) {
        return false;
    }
    if flow.protocol == Protocol::Tcp {
        return !alive.contains(&flow.backend);
    }
    // From another node: the destination is a task's address on the ingress network.
    if ingress.is_some_and(|net| net.contains(&flow.destination)) {
        let task = (flow.destination, flow.protocol, flow.port);
        return rules.local_tasks.get(&task) != Some(&flow.backend);
    }
    let key = (flow.protocol, flow.port);
    let mesh = rules.ports.get(&key).is_some_and(|port| port.backends.contains(&flow.backend));
    let host = rules.host_ports.get(&key).is_some_and(|(address, _)| *address == flow.backend);
    !mesh && !host
}

#[cfg(test)]
mod tests {
    use super::*;
    use discovery::{PortRules, SandboxAttachment};

    const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 200);
    const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 12);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 13);
    const TASK: Ipv4Addr = Ipv4Addr::new(10, 255, 1, 2);
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 2);

    fn flow(protocol: Protocol, destination: Ipv4Addr, backend: Ipv4Addr) -> Flow {
        Flow { protocol, destination, port: 80, backend }
    }

    fn rules(backends: &[Ipv4Addr]) -> SandboxRules {
        SandboxRules {
            netns: String::new(),
            gateway_address: GATEWAY,
            default_route: true,
            attachments: vec![SandboxAttachment {
                network: "net".into(),
                address: [10, 0, 1, 11].into(),
                prefix: 24,
            }],
            dns_port: 0,
            vips: [(VIP, backends.to_vec())].into(),
        }
    }

    #[test]
    fn udp_leaves_a_back_end_that_is_taken_out_and_tcp_one_that_is_no_more() {
        let (udp, tcp) = (flow(Protocol::Udp, VIP, BACKEND), flow(Protocol::Tcp, VIP, BACKEND));
        let alive = BTreeSet::from([BACKEND, OTHER]);
        for (backends, alive, stale) in [
            (&[BACKEND, OTHER][..], &alive, (false, false)),
            (&[OTHER], &alive, (true, false)),
            (&[], &BTreeSet::from([OTHER]), (true, true)),
        ] {
            let rules = rules(backends);
            let found =
                (stale_in_sandbox(&udp, &rules, alive), stale_in_sandbox(&tcp, &rules, alive));
            assert_eq!(found, stale, "{backends:?}");
        }
    }

    #[test]
    fn connections_that_others_rewrite_are_left_alone() {
        let none = BTreeSet::new();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let dns = flow(protocol, [127, 0, 0, 11].into(), [127, 0, 0, 12].into());
            assert!(!stale_in_sandbox(&dns, &rules(&[]), &none));
            let elsewhere = flow(protocol, [192, 0, 2, 1].into(), [172, 17, 0, 2].into());
            let subnet = "172.30.0.0/16".parse().unwrap();
            assert!(!stale_here(&elsewhere, &MeshRules::default(), &none, subnet));
        }
    }

    #[test]
    fn udp_to_a_published_port_or_from_another_node_keeps_its_task_alone() {
        let port = PortRules { target: 80, backends: vec![GATEWAY] };
        let rules = MeshRules {
            ingress: Some([10, 255, 0, 1].into()),
            local_tasks: [((TASK, Protocol::Udp, 80), GATEWAY)].into(),
            ports: [((Protocol::Udp, 80), port)].into(),
            ..MeshRules::default()
        };
        let stale = |destination, backend| {
            let subnet = "172.30.0.0/16".parse().unwrap();
            let alive = BTreeSet::from([GATEWAY, TASK]);
            stale_here(&flow(Protocol::Udp, destination, backend), &rules, &alive, subnet)
        };
        let node = Ipv4Addr::new(192, 168, 100, 2);
        assert!(!stale(node, GATEWAY));
        assert!(stale(node, TASK));
        assert!(!stale(TASK, GATEWAY));
        assert!(stale(TASK, [172, 30, 0, 3].into()));
        assert!(stale([10, 255, 1, 3].into(), GATEWAY));
    }
}
