//! The gateway bridge: the way out of containers, and the way in from the routing mesh.

use super::Config;
use crate::error::Error;
use crate::namespace;
use crate::netlink::{
    Addresses, Bridge, LinkKind, Links, Socket, add_address, add_bridge, mac_of, set_isolated,
    set_master, set_up,
};
use ipnet::Ipv4Net;
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
}

/// The name of the node's end of a container's interface on the gateway bridge.
pub(super) fn port_name(container: Ipv4Addr) -> String {
    format!("skep{:08x}", u32::from(container))
}

/// Says whether an interface is such an end.
pub(super) fn is_port(name: &str) -> bool {
    name.strip_prefix("skep")
        .is_some_and(|rest| rest.len() == 8 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
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
        let mut messages = vec![set_up(index, true)];
        if !Addresses::observe(&mut socket)?.of(index).any(|found| found == net) {
            messages.push(add_address(index, net));
        }
        // Containers that were there before the bridge (was made anew) lost it.
        let lost = links.0.iter().filter(|link| {
            link.kind == LinkKind::Veth && is_port(&link.name) && link.master != Some(index)
        });
        for link in lost {
            messages.extend([
                set_master(link.index, index),
                set_isolated(link.index),
                set_up(link.index, true),
            ]);
        }
        socket.send(&messages)?;
        // From the last on: each must not be lower than the one before it.
        NEIGHBOURS.iter().rev().try_for_each(|(name, least)| namespace::raise(name, *least))?;
        namespace::set("ipv4/ip_forward", "1")?;
        // Else bridged frames between the bridge's ports pass through the rules, and what a task
        // sends to itself by a published port does not come back.
        namespace::set("bridge/bridge-nf-call-iptables", "0")?;
        namespace::set(&format!("ipv4/conf/{}/route_localnet", config.bridge), "1")?;
        // The rules know IPv4 only; by a link-local address containers would reach the node past
        // them.
        namespace::set(&format!("ipv6/conf/{}/disable_ipv6", config.bridge), "1")?;
        Ok(Self { index, net })
    }
}
