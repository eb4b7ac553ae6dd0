//! The gateway bridge: the way out of containers, and the way in from the routing mesh.
//!
//! Invariant: which container is behind which port, and where its address leads, follows from the
//! port's name alone. Nothing is learnt from what containers send; a port takes frames from its own
//! container's addresses alone (`render::mesh`).

use super::{Config, beside, router};
use crate::error::Error;
use crate::namespace;
use crate::netlink::{
    Addresses, Bridge, ContainerPort, LinkKind, Links, Mac, Message, Neighbours, Socket,
    add_address, add_bridge, add_neighbour, add_station, delete_neighbour, mac_of,
    set_bridge_filter, set_container_port, set_master, set_up,
};
use crate::render::mesh as render;
pub(super) use crate::render::mesh::port_name;
use ipnet::Ipv4Net;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

const MTU: u32 = 1500;
/// The longest name of an interface.
const NAME_MAX: usize = 15;
/// A bridge, one container and the broadcast address.
const PREFIX_MAX: u8 = 29;

/// Addresses whose MAC the machine may remember, of all namespaces together: the kernel's own limit
/// of 1024 is too low for many containers.
const NEIGHBOURS: [(&str, u64); 3] = [
    ("ipv4/neigh/default/gc_thresh1", 8192),
    ("ipv4/neigh/default/gc_thresh2", 49152),
    ("ipv4/neigh/default/gc_thresh3", 65536),
];

/// The bridge as it is there.
#[derive(Clone, Debug)]
pub(super) struct Gateway {
    pub(super) index: u32,
    /// The bridge's own address with the subnet's prefix.
    pub(super) net: Ipv4Net,
    /// How its ports deal with each other.
    pub(super) ports: ContainerPort,
    /// The containers that it knows.
    hosts: BTreeSet<Ipv4Addr>,
}

/// The container behind such an end; `None` where an interface is none.
pub(super) fn container_of(name: &str) -> Option<Ipv4Addr> {
    let digits = name.strip_prefix(render::PORT).filter(|digits| digits.len() == 8)?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(digits, 16).ok()).flatten().map(Ipv4Addr::from)
}

/// Says whether an interface is such an end.
pub(super) fn is_port(name: &str) -> bool {
    container_of(name).is_some()
}

/// What makes an interface the port of the container with this hardware address, and of nobody
/// else. Containers meet on their networks, not here: ports are isolated, unless bridged frames pass
/// through the rules, which then keep them apart, and must lead back what a task sends to itself by
/// a published port.
pub(super) fn guard(index: u32, mac: Mac, kind: ContainerPort) -> [Message; 2] {
    [set_container_port(index, kind), add_station(index, mac)]
}

/// Looks for mistakes in the configuration.
pub(super) fn check(config: &Config) -> Result<(), Error> {
    let wrong = |path: &str, why| Err(Error::Value { path: path.to_owned(), why });
    let name = &config.bridge;
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    if name.is_empty() || NAME_MAX < name.len() || !plain {
        return wrong(name, "a bridge's name has 1 to 15 letters, digits, '_', '-' or '.'");
    }
    if config.gateway_subnet.prefix_len() > PREFIX_MAX {
        return wrong(&config.gateway_subnet.to_string(), "the gateway subnet is /29 or larger");
    }
    Ok(())
}

/// Says whether bridged frames pass through the rules for routed packets. That is switched off,
/// since it costs time, unless there are bridges of others: they may rely on it.
fn bridged_frames_are_filtered(links: &Links, bridge: &str) -> Result<bool, Error> {
    if !beside::has_foreign_bridge(links, bridge) {
        namespace::set(beside::BRIDGED_FRAMES, "0")?;
    }
    Ok(namespace::get(beside::BRIDGED_FRAMES).is_some_and(|value| value != "0"))
}

impl Gateway {
    /// Makes the bridge be there, with its address, its ports and the settings that routing needs.
    pub(super) fn hold(config: &Config) -> Result<Self, Error> {
        let subnet = config.gateway_subnet.trunc();
        let address = Ipv4Addr::from(u32::from(subnet.network()).saturating_add(1));
        let net = Ipv4Net::new(address, subnet.prefix_len()).unwrap_or(subnet);
        let mut socket = Socket::route()?;
        let mut links = Links::observe(&mut socket)?;
        if links.named(&config.bridge).is_none() {
            let bridge = Bridge { name: &config.bridge, mac: mac_of(address), mtu: MTU };
            socket.send_one(add_bridge(bridge))?;
            links = Links::observe(&mut socket)?;
        }
        let index = match links.named(&config.bridge) {
            Some(link) if link.kind == LinkKind::Bridge => link.index,
            Some(_) | None => {
                let why = "there is an interface of that name which is no bridge";
                return Err(Error::Value { path: config.bridge.clone(), why });
            }
        };
        let ports = if bridged_frames_are_filtered(&links, &config.bridge)? {
            ContainerPort::Hairpin
        } else {
            ContainerPort::Isolated
        };
        // By hairpin ports frames reach each other, so they stay under the rules whatever others
        // make of the setting for all bridges.
        let filter = set_bridge_filter(index, ports == ContainerPort::Hairpin);
        let mut messages = vec![filter, set_up(index, true)];
        if !Addresses::observe(&mut socket)?.of(index).any(|found| found == net) {
            beside::is_free(&mut socket, &links, net, &[&config.bridge])?;
            messages.push(add_address(index, net));
        }
        for link in links.0.iter().filter(|link| link.kind == LinkKind::Veth) {
            let Some(container) = container_of(&link.name) else { continue };
            // Containers that were there before the bridge (was made anew) lost it.
            if link.master != Some(index) {
                messages.extend([set_master(link.index, index), set_up(link.index, true)]);
            }
            messages.extend(guard(link.index, mac_of(container), ports));
        }
        socket.send(&messages)?;
        let hosts = Neighbours::observe(&mut socket, index, index)?.hosts.into_iter();
        let hosts = hosts.filter(|(address, mac)| *mac == mac_of(*address));
        let hosts = hosts.map(|(address, _)| address).collect();
        // From the last on: each must not be lower than the one before it.
        NEIGHBOURS.iter().rev().try_for_each(|(name, least)| namespace::raise(name, *least))?;
        router::switch_on()?;
        namespace::set(&format!("ipv4/conf/{}/route_localnet", config.bridge), "1")?;
        // The rules know IPv4 only; by a link-local address containers would reach the node past
        // them.
        namespace::set(&format!("ipv6/conf/{}/disable_ipv6", config.bridge), "1")?;
        Ok(Self { index, net, ports, hosts })
    }

    /// Lets the bridge know these containers, and no others: it asks none of them who it is.
    pub(super) fn know(&mut self, containers: impl Iterator<Item = Ipv4Addr>) -> Result<(), Error> {
        let wanted: BTreeSet<Ipv4Addr> = containers.collect();
        if wanted == self.hosts {
            return Ok(());
        }
        let come = wanted.difference(&self.hosts);
        let gone = self.hosts.difference(&wanted);
        let messages: Vec<Message> = come
            .map(|address| add_neighbour(self.index, *address, mac_of(*address)))
            .chain(gone.map(|address| delete_neighbour(self.index, *address)))
            .collect();
        Socket::route()?.send(&messages)?;
        self.hosts = wanted;
        Ok(())
    }
}
