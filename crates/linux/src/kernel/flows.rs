//! Which tracked connections must be forgotten after a change.
//!
//! A tracked connection keeps its back end. For UDP that is wrong as soon as the back end is taken
//! out: there is no end of a connection. For TCP it is right, a connection may drain, until the
//! back end is no more: then the client shall hear of it at once (its next packet goes to another
//! back end, which resets it) rather than wait.

use crate::error::Error;
use crate::ipv4::{Desired, MeshRules, SandboxRules, Vips};
use crate::netlink::{Flow, Gone, Socket, Use, forget};
use crate::render::mesh::place;
use ipnet::Ipv4Net;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use types::{NetworkId, Protocol};

/// Who is there at all, whether it serves or not.
pub(super) struct Alive<'a> {
    desired: &'a Desired,
    local: BTreeSet<(&'a NetworkId, Ipv4Addr)>,
    gateways: BTreeSet<Ipv4Addr>,
}

impl<'a> Alive<'a> {
    pub(super) fn new(desired: &'a Desired) -> Self {
        let sandboxes = desired.sandboxes.values();
        let attachments = sandboxes.clone().flat_map(|sandbox| &sandbox.attachments);
        Self {
            desired,
            local: attachments.map(|to| (&to.network, to.address)).collect(),
            gateways: sandboxes.map(|sandbox| sandbox.gateway_address).collect(),
        }
    }

    /// Says whether a container can reach an endpoint of this address on its networks.
    pub(super) fn beside(&self, rules: &SandboxRules, address: Ipv4Addr) -> bool {
        rules.attachments.iter().any(|attachment| {
            let overlay = self.desired.overlays.get(&attachment.network);
            overlay.is_some_and(|overlay| overlay.remotes.contains_key(&address))
                || self.local.contains(&(&attachment.network, address))
        })
    }

    /// Says whether published ports may lead to this address.
    pub(super) fn published(&self, address: Ipv4Addr) -> bool {
        self.gateways.contains(&address) || self.desired.mesh.remote_tasks.contains_key(&address)
    }
}

/// What is still tracked of back ends that were taken out.
#[derive(Debug, Default)]
pub(super) struct DrainingFlows {
    /// To be forgotten now.
    due: BTreeSet<Gone>,
    /// Back ends that may still have TCP connections, with where clients sent to; `None`: anywhere.
    draining: BTreeSet<(Ipv4Addr, Option<Ipv4Addr>)>,
}

impl DrainingFlows {
    /// Notes which back ends a change takes from a container's VIPs.
    pub(super) fn note_vips(&mut self, old: &Vips, new: &Vips, changed: &[Ipv4Addr]) {
        for vip in changed {
            let [backends, kept] =
                [old, new].map(|vips| vips.get(vip).map(Vec::as_slice).unwrap_or_default());
            for backend in backends.iter().filter(|backend| !kept.contains(*backend)) {
                self.due.insert(udp(Some(*vip), None, *backend));
                self.draining.insert((*backend, Some(*vip)));
            }
            for backend in kept {
                self.draining.remove(&(*backend, Some(*vip)));
            }
        }
    }

    /// Notes which back ends a change takes from published ports, and which tasks here have moved.
    pub(super) fn note_ports(&mut self, old: &MeshRules, new: &MeshRules) {
        for ((protocol, port), rules) in &old.ports {
            let kept = new.ports.get(&(*protocol, *port));
            let kept = kept.map(|rules| rules.backends.as_slice()).unwrap_or_default();
            let lost = rules.backends.iter().filter(|backend| !kept.contains(*backend));
            lost.for_each(|backend| self.note(*protocol, None, Some(*port), *backend));
        }
        for ((protocol, port), to) in &old.host_ports {
            if new.host_ports.get(&(*protocol, *port)) != Some(to) {
                self.note(*protocol, None, Some(*port), to.0);
            }
        }
        for (key, gateway) in &old.local_tasks {
            if new.local_tasks.get(key) != Some(gateway) {
                let (task, protocol, port) = *key;
                self.note(protocol, Some(task), Some(port), *gateway);
            }
        }
    }

    fn note(
        &mut self,
        protocol: Protocol,
        to: Option<Ipv4Addr>,
        port: Option<u16>,
        backend: Ipv4Addr,
    ) {
        match protocol {
            Protocol::Udp => self.due.insert(udp(to, port, backend)),
            Protocol::Tcp => self.draining.insert((backend, None)),
        };
    }

    /// Says whether something is due, TCP connections to those who are no more among it.
    pub(super) fn are_due(&mut self, alive: impl Fn(Ipv4Addr) -> bool) -> bool {
        for (backend, destination) in self.draining.extract_if(.., |(backend, _)| !alive(*backend))
        {
            self.due.insert(Gone { protocol: Protocol::Tcp, destination, port: None, backend });
        }
        !self.due.is_empty()
    }

    /// Leaves out what nobody has ever used.
    pub(super) fn keep_used(&mut self, uses: &BTreeSet<Use>) {
        self.due
            .retain(|gone| gone.destination.is_none_or(|to| uses.contains(&(to, gone.protocol))));
    }

    /// Forgets what is due.
    pub(super) fn forget(&mut self, socket: &mut Socket) -> Result<(), Error> {
        let due: Vec<Gone> = self.due.iter().copied().collect();
        forget(socket, &due)?;
        self.due.clear();
        Ok(())
    }
}

fn udp(destination: Option<Ipv4Addr>, port: Option<u16>, backend: Ipv4Addr) -> Gone {
    Gone { protocol: Protocol::Udp, destination, port, backend }
}

/// Says whether a connection that is found in a container leads to where it shall not. For those of
/// former times, of which nobody noted what was taken out.
pub(super) fn stale_in_sandbox(flow: &Flow, rules: &SandboxRules, alive: &Alive<'_>) -> bool {
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
        Protocol::Tcp => !alive.beside(rules, flow.backend),
        Protocol::Udp => !balanced,
    }
}

/// The same for a connection through this node's published ports.
pub(super) fn stale_here(
    flow: &Flow,
    rules: &MeshRules,
    alive: &Alive<'_>,
    subnet: Ipv4Net,
) -> bool {
    let ingress = rules.ingress.map(|ingress| place(ingress, rules.prefix));
    let elsewhere = ingress.is_some_and(|net| net.contains(&flow.backend));
    if !elsewhere && !subnet.contains(&flow.backend) {
        return false;
    }
    if flow.protocol == Protocol::Tcp {
        return !alive.published(flow.backend);
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
    use crate::ipv4::{Attachment, Overlay, PortRules};
    use std::collections::BTreeMap;
    use std::sync::Arc;

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
            attachments: vec![Attachment {
                network: "net".into(),
                address: [10, 0, 1, 11].into(),
                prefix: 24,
            }],
            dns_port: 0,
            vips: Arc::new([(VIP, backends.to_vec())].into()),
            turn: 0,
        }
    }

    fn desired(remotes: &[Ipv4Addr]) -> Desired {
        let node = Ipv4Addr::new(192, 168, 100, 2);
        let overlay = Overlay {
            vni: 4097,
            local: node,
            port: 4789,
            gateway: [10, 0, 1, 1].into(),
            prefix: 24,
            mtu: 0,
            peers: BTreeSet::new(),
            remotes: remotes.iter().map(|remote| (*remote, node)).collect(),
        };
        Desired {
            overlays: BTreeMap::from([("net".into(), overlay)]),
            sandboxes: BTreeMap::from([("c".into(), rules(&[]))]),
            ..Desired::default()
        }
    }

    #[test]
    fn udp_leaves_a_back_end_that_is_taken_out_and_tcp_one_that_is_no_more() {
        let (both, one) = (desired(&[BACKEND, OTHER]), desired(&[OTHER]));
        let (udp, tcp) = (flow(Protocol::Udp, VIP, BACKEND), flow(Protocol::Tcp, VIP, BACKEND));
        for (backends, desired, stale) in [
            (&[BACKEND, OTHER][..], &both, (false, false)),
            (&[OTHER], &both, (true, false)),
            (&[], &one, (true, true)),
        ] {
            let (rules, alive) = (rules(backends), Alive::new(desired));
            let found =
                (stale_in_sandbox(&udp, &rules, &alive), stale_in_sandbox(&tcp, &rules, &alive));
            assert_eq!(found, stale, "{backends:?}");
        }
    }

    #[test]
    fn a_change_notes_what_it_takes_out_and_what_comes_back_drains_no_more() {
        let mut draining_flows = DrainingFlows::default();
        draining_flows.note_vips(&rules(&[BACKEND, OTHER]).vips, &rules(&[OTHER]).vips, &[VIP]);
        assert_eq!(draining_flows.due, BTreeSet::from([udp(Some(VIP), None, BACKEND)]));
        assert_eq!(draining_flows.draining, BTreeSet::from([(BACKEND, Some(VIP))]));
        draining_flows.note_vips(&rules(&[OTHER]).vips, &rules(&[OTHER, BACKEND]).vips, &[VIP]);
        assert!(draining_flows.draining.is_empty());
        let port = |backends: &[Ipv4Addr]| MeshRules {
            ports: [Protocol::Tcp, Protocol::Udp]
                .map(|protocol| {
                    ((protocol, 80), PortRules { target: 8, backends: backends.to_vec() })
                })
                .into(),
            ..MeshRules::default()
        };
        let mut draining_flows = DrainingFlows::default();
        draining_flows.note_ports(&port(&[GATEWAY, TASK]), &port(&[GATEWAY]));
        assert_eq!(draining_flows.due, BTreeSet::from([udp(None, Some(80), TASK)]));
        assert_eq!(draining_flows.draining, BTreeSet::from([(TASK, None)]));
    }

    #[test]
    fn what_was_never_used_is_looked_for_by_nobody() {
        let gone = |used: &[Use]| {
            let mut draining_flows = DrainingFlows::default();
            draining_flows.note_vips(&rules(&[BACKEND, OTHER]).vips, &rules(&[OTHER]).vips, &[VIP]);
            assert!(draining_flows.are_due(|_| false));
            draining_flows.keep_used(&used.iter().copied().collect());
            draining_flows.due.into_iter().map(|gone| gone.protocol).collect::<Vec<_>>()
        };
        assert_eq!(gone(&[]), []);
        assert_eq!(gone(&[(VIP, Protocol::Udp)]), [Protocol::Udp]);
        assert_eq!(gone(&[(VIP, Protocol::Tcp), (OTHER, Protocol::Udp)]), [Protocol::Tcp]);
    }

    #[test]
    fn connections_that_others_rewrite_are_left_alone() {
        let desired = Desired::default();
        let none = Alive::new(&desired);
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
        let desired = desired(&[]);
        let stale = |destination, backend| {
            let subnet = "172.30.0.0/16".parse().unwrap();
            let alive = Alive::new(&desired);
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
