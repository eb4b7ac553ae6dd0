//! What this crate carries of what is wanted: IPv4. At this border the rest is told, and no other
//! module of this crate knows that there is any.

use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use types::{Addresses, NetworkId, Protocol};

/// As [`discovery::Desired`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Desired {
    pub(crate) overlays: BTreeMap<NetworkId, Overlay>,
    pub(crate) sandboxes: BTreeMap<String, SandboxRules>,
    pub(crate) mesh: MeshRules,
}

/// As [`discovery::Overlay`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overlay {
    pub(crate) vni: u32,
    pub(crate) local: Ipv4Addr,
    pub(crate) port: u16,
    /// The bridge's own address.
    pub(crate) gateway: Ipv4Addr,
    pub(crate) prefix: u8,
    pub(crate) mtu: u32,
    pub(crate) peers: BTreeSet<Ipv4Addr>,
    pub(crate) remotes: BTreeMap<Ipv4Addr, Ipv4Addr>,
}

/// As [`discovery::SandboxRules`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SandboxRules {
    pub(crate) netns: String,
    pub(crate) gateway_address: Ipv4Addr,
    pub(crate) default_route: bool,
    pub(crate) attachments: Vec<Attachment>,
    pub(crate) dns_port: u16,
    pub(crate) vips: Arc<Vips>,
    pub(crate) turn: u64,
}

/// A container's address on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) network: NetworkId,
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: u8,
}

/// VIP -> back ends.
pub(crate) type Vips = BTreeMap<Ipv4Addr, Vec<Ipv4Addr>>;

/// As [`discovery::MeshRules`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MeshRules {
    pub(crate) ingress: Option<Ipv4Addr>,
    pub(crate) local: Option<Ipv4Addr>,
    pub(crate) port: u16,
    pub(crate) mtu: u32,
    pub(crate) prefix: u8,
    pub(crate) peers: BTreeMap<Ipv4Addr, Ipv4Addr>,
    pub(crate) remote_tasks: BTreeMap<Ipv4Addr, Ipv4Addr>,
    pub(crate) local_tasks: BTreeMap<(Ipv4Addr, Protocol, u16), Ipv4Addr>,
    pub(crate) ports: BTreeMap<(Protocol, u16), PortRules>,
    pub(crate) host_ports: BTreeMap<(Protocol, u16), (Ipv4Addr, u16)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortRules {
    pub(crate) target: u16,
    pub(crate) backends: Vec<Ipv4Addr>,
}

/// The IPv4 part of what is wanted, and what is left out, in words.
pub(crate) fn part(wanted: &discovery::Desired) -> (Desired, discovery::Outcome) {
    let mut left_out = discovery::Outcome::default();
    let mut desired = Desired::default();
    for (id, wanted) in &wanted.overlays {
        let (overlay, reason) = overlay(wanted);
        desired.overlays.extend(overlay.map(|overlay| (id.clone(), overlay)));
        left_out.networks.extend(reason.map(|reason| (id.clone(), reason)));
    }
    for (id, wanted) in &wanted.sandboxes {
        let lacks = |it: &&discovery::Interface| !desired.overlays.contains_key(&it.network);
        let mut lacking = wanted.interfaces.iter().filter(lacks);
        let reason = lacking.find_map(|it| left_out.networks.get(&it.network));
        left_out.sandboxes.extend(reason.map(|reason| (id.clone(), reason.clone())));
        let Some(gateway) = wanted.gateway_addresses.v4 else {
            let reason = "IPv6 is not carried yet: it has no IPv4 address on the node's bridge";
            left_out.sandboxes.insert(id.clone(), reason.to_owned());
            continue;
        };
        let rules = sandbox(wanted, gateway, &desired.overlays);
        desired.sandboxes.insert(id.clone(), rules);
    }
    (desired.mesh, left_out.mesh) = mesh(&wanted.mesh);
    (desired, left_out)
}

/// An outcome with what was left out.
pub(crate) fn with(
    mut outcome: discovery::Outcome,
    left_out: discovery::Outcome,
) -> discovery::Outcome {
    outcome.mesh = outcome.mesh.or(left_out.mesh);
    for (id, reason) in left_out.networks {
        outcome.networks.entry(id).or_insert(reason);
    }
    for (id, reason) in left_out.sandboxes {
        outcome.sandboxes.entry(id).or_insert(reason);
    }
    outcome
}

fn overlay(wanted: &discovery::Overlay) -> (Option<Overlay>, Option<String>) {
    let IpAddr::V4(local) = wanted.local else {
        return (None, Some(format!("tunnels over IPv6 are not carried yet ({})", wanted.local)));
    };
    let mut subnets = wanted.subnets.iter().map(|subnet| (subnet.net, subnet.gateway));
    let v4 = subnets.clone().find_map(|subnet| match subnet {
        (IpNet::V4(net), IpAddr::V4(gateway)) => Some((net, gateway)),
        _ => None,
    });
    let v6 = subnets.find(|(net, _)| net.network().is_ipv6());
    let v6 = v6.map(|(net, _)| format!("IPv6 is not carried yet: nobody reaches {net}"));
    let Some((net, gateway)) = v4 else { return (None, v6) };
    let (remotes, far) = tunnels(&wanted.remotes);
    let overlay = Overlay {
        vni: wanted.vni,
        local,
        port: wanted.port,
        gateway,
        prefix: net.prefix_len(),
        mtu: wanted.mtu,
        peers: wanted.peers.iter().filter_map(|peer| v4_of(*peer)).collect(),
        remotes,
    };
    (Some(overlay), far.or(v6))
}

/// IPv4 addresses behind IPv4 tunnels, and what is said where somebody is behind one over IPv6.
fn tunnels(
    remotes: &BTreeMap<Addresses, IpAddr>,
) -> (BTreeMap<Ipv4Addr, Ipv4Addr>, Option<String>) {
    let near = remotes.iter().filter_map(|(addresses, to)| Some((addresses.v4?, v4_of(*to)?)));
    let far = remotes.values().find(|to| to.is_ipv6());
    let far = far.map(|to| format!("tunnels over IPv6 are not carried yet (to {to})"));
    (near.collect(), far)
}

fn v4_of(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn sandbox(
    wanted: &discovery::SandboxRules,
    gateway_address: Ipv4Addr,
    overlays: &BTreeMap<NetworkId, Overlay>,
) -> SandboxRules {
    let attachment = |interface: &discovery::Interface| {
        let net = interface.addresses.iter().find_map(|net| match net {
            IpNet::V4(net) => Some(*net),
            IpNet::V6(_) => None,
        })?;
        let (network, address) = (interface.network.clone(), net.addr());
        Some(Attachment { network, address, prefix: net.prefix_len() })
    };
    SandboxRules {
        netns: wanted.netns.clone(),
        gateway_address,
        default_route: wanted.default_route,
        attachments: wanted
            .interfaces
            .iter()
            .filter(|interface| overlays.contains_key(&interface.network))
            .filter_map(attachment)
            .collect(),
        dns_port: wanted.dns_port,
        vips: Arc::clone(&wanted.vips.v4),
        turn: wanted.turn,
    }
}

fn mesh(wanted: &discovery::MeshRules) -> (MeshRules, Option<String>) {
    let v6 = wanted.ingress.v6.map(|_| "IPv6 is not carried yet in the routing mesh".to_owned());
    let over_v6 = wanted.local.filter(IpAddr::is_ipv6);
    let over_v6 = over_v6.map(|local| format!("tunnels over IPv6 are not carried yet ({local})"));
    let (peers, far) = tunnels(&wanted.peers);
    let local = wanted.local.and_then(v4_of);
    let of_host = |(key, (addresses, target)): (&(Protocol, u16), &(Addresses, u16))| {
        Some((*key, (addresses.v4?, *target)))
    };
    let backends = |rules: &discovery::PortRules| PortRules {
        target: rules.target,
        backends: rules.backends.iter().filter_map(|backend| v4_of(*backend)).collect(),
    };
    let rules = MeshRules {
        // Without a tunnel only ports in host mode are left.
        ingress: wanted.ingress.v4.filter(|_| local.is_some()),
        local,
        port: wanted.port,
        mtu: wanted.mtu,
        prefix: wanted.prefix,
        peers,
        remote_tasks: wanted
            .remote_tasks
            .iter()
            .filter_map(|(task, node)| Some((task.v4?, node.v4?)))
            .collect(),
        local_tasks: wanted
            .local_tasks
            .iter()
            .filter_map(|((task, protocol, port), to)| {
                Some(((v4_of(*task)?, *protocol, *port), v4_of(*to)?))
            })
            .collect(),
        ports: wanted.ports.iter().map(|(key, rules)| (*key, backends(rules))).collect(),
        host_ports: wanted.host_ports.iter().filter_map(of_host).collect(),
    };
    (rules, over_v6.or(far).or(v6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Subnet;

    fn addresses(texts: &[&str]) -> Addresses {
        texts.iter().map(|text| -> IpAddr { text.parse().unwrap() }).collect()
    }

    fn wanted(subnets: &[&str], local: &str) -> discovery::Desired {
        let nets: Vec<IpNet> = subnets.iter().map(|net| net.parse().unwrap()).collect();
        let mut desired = discovery::Desired::default();
        let remotes = BTreeMap::from([
            (addresses(&["10.0.1.3", "fd00:1::3"]), "192.168.0.2".parse().unwrap()),
            (addresses(&["fd00:1::4"]), "192.168.0.3".parse().unwrap()),
        ]);
        let overlay = discovery::Overlay {
            vni: 4097,
            local: local.parse().unwrap(),
            port: 4789,
            subnets: nets.iter().copied().filter_map(Subnet::new).collect(),
            mtu: 0,
            peers: remotes.values().copied().collect(),
            remotes,
        };
        desired.overlays.insert("net".into(), overlay);
        let rules = discovery::SandboxRules {
            netns: "/run/netns/c1".to_owned(),
            gateway_addresses: [172, 30, 0, 2].into(),
            default_route: true,
            interfaces: vec![discovery::Interface { network: "net".into(), addresses: nets }],
            dns_port: 0,
            vips: discovery::Vips::default(),
            turn: 0,
        };
        desired.sandboxes.insert("c1".to_owned(), rules);
        desired
    }

    #[test]
    fn what_has_ipv4_alone_is_carried_whole() {
        let (desired, left_out) = part(&wanted(&["10.0.1.0/24"], "192.168.0.1"));
        assert!(left_out.is_whole(), "{left_out:?}");
        let remotes = &desired.overlays[&"net".into()].remotes;
        assert_eq!(*remotes, [([10, 0, 1, 3].into(), [192, 168, 0, 2].into())].into());
        assert_eq!(desired.sandboxes["c1"].attachments.len(), 1);
    }

    #[test]
    fn ipv6_is_left_out_and_told() {
        let (desired, left_out) = part(&wanted(&["fd00:1::/64", "10.0.1.0/24"], "192.168.0.1"));
        assert_eq!(
            left_out.networks[&"net".into()],
            "IPv6 is not carried yet: nobody reaches fd00:1::/64"
        );
        // Its containers run, with IPv4.
        assert!(left_out.sandboxes.is_empty());
        assert_eq!(desired.sandboxes["c1"].attachments.len(), 1);
        for (subnets, local, why) in [
            (&["fd00:1::/64"], "192.168.0.1", "nobody reaches fd00:1::/64"),
            (&["10.0.1.0/24"], "2001:db8::1", "tunnels over IPv6 are not carried yet"),
        ] {
            let (desired, left_out) = part(&wanted(subnets, local));
            assert!(desired.overlays.is_empty());
            assert!(left_out.networks[&"net".into()].contains(why), "{left_out:?}");
            assert!(left_out.sandboxes["c1"].contains(why), "{left_out:?}");
        }
    }

    #[test]
    fn a_mesh_of_two_families_has_its_ipv4_part() {
        let mut desired = discovery::Desired::default();
        desired.mesh.ingress = addresses(&["10.255.0.1", "fd00:255::1"]);
        desired.mesh.local = Some("192.168.0.1".parse().unwrap());
        let other = addresses(&["10.255.0.2", "fd00:255::2"]);
        desired.mesh.peers.insert(other, "192.168.0.2".parse().unwrap());
        desired.mesh.remote_tasks.insert(addresses(&["10.255.1.2", "fd00:255::102"]), other);
        let backends = vec!["10.255.1.2".parse().unwrap(), "fd00:255::102".parse().unwrap()];
        let rules = discovery::PortRules { target: 80, backends };
        desired.mesh.ports.insert((Protocol::Tcp, 8080), rules);
        let (held, left_out) = part(&desired);
        assert_eq!(left_out.mesh.unwrap(), "IPv6 is not carried yet in the routing mesh");
        assert_eq!(held.mesh.peers, [([10, 255, 0, 2].into(), [192, 168, 0, 2].into())].into());
        let backends = &held.mesh.ports[&(Protocol::Tcp, 8080)].backends;
        assert_eq!(*backends, [Ipv4Addr::new(10, 255, 1, 2)]);
        desired.mesh.local = Some("2001:db8::1".parse().unwrap());
        let (held, left_out) = part(&desired);
        assert_eq!(held.mesh.ingress, None);
        assert!(left_out.mesh.unwrap().starts_with("tunnels over IPv6"));
    }
}
