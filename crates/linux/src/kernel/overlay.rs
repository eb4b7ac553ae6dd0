//! An overlay on this node: a namespace with a bridge and a VXLAN tunnel, and what they know of
//! endpoints on other nodes.

use super::gate::Gate;
use super::{Config, mtu, tunnel};
use crate::error::Error;
use crate::ipv4::Overlay as Wanted;
use crate::namespace::{self, Namespace, Purpose};
use crate::netlink::{
    Addresses, Bridge, ContainerPort, LinkKind, Links, Mac, Message, Neighbours, Socket, Vxlan,
    add_address, add_bridge, add_flood, add_forward, add_neighbour, add_station, delete_address,
    delete_flood, delete_forward, delete_link, delete_neighbour, mac_of, move_link,
    set_container_port, set_master, set_mtu, set_tunnel_port, set_up,
};
use crate::nft::Nftables;
use crate::render::overlay::TUNNEL;
pub(super) use crate::render::overlay::port_name;
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use types::NetworkId;

const PREFIX: &str = "overlay-";
const BRIDGE: &str = "br0";

/// How an overlay shall be.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) rules: &'a Wanted,
    /// Those on it here.
    pub(super) containers: &'a BTreeSet<Ipv4Addr>,
    /// Look at everything: what was applied is not believed.
    pub(super) repair: bool,
}

/// An overlay as it is there.
pub(super) struct AppliedOverlay {
    namespace: Namespace,
    gate: Gate,
    wanted: Wanted,
    bridge: u32,
    tunnel: u32,
    mtu: u32,
}

/// Where an overlay's namespace is mounted.
pub(super) fn path(config: &Config, id: &NetworkId) -> PathBuf {
    config.overlays.join(format!("{PREFIX}{id}"))
}

/// The hardware address of the container behind such an end.
fn mac_behind(name: &str) -> Option<Mac> {
    let digits = name.strip_prefix('v').filter(|digits| digits.len() == 8)?;
    u32::from_str_radix(digits, 16).ok().map(|address| mac_of(address.into()))
}

/// What makes an interface the port of the container with this hardware address: else a container
/// could take over what is for another one, here or elsewhere, by sending from its address.
pub(super) fn guard(index: u32, mac: Mac) -> [Message; 2] {
    [set_container_port(index, ContainerPort::Open), add_station(index, mac)]
}

impl AppliedOverlay {
    /// Makes the overlay be as wanted.
    pub(super) fn apply(
        nftables: &Nftables,
        path: &Path,
        target: Target<'_>,
        applied: Option<Self>,
    ) -> Result<Self, Error> {
        match applied {
            Some(applied) if !target.repair && applied.same_links(target.rules) => {
                applied.change(nftables, target)
            }
            applied => Self::build(nftables, path, target, applied),
        }
    }

    /// The overlay's namespace, for the near ends of containers' interfaces.
    pub(super) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(super) fn bridge(&self) -> u32 {
        self.bridge
    }

    /// The MTU of interfaces on it.
    pub(super) fn mtu(&self) -> u32 {
        self.mtu
    }

    /// Says whether only what it knows of others differs.
    pub(super) fn same_links(&self, wanted: &Wanted) -> bool {
        same_links(&self.wanted, wanted)
    }

    /// Changes what differs from what is remembered.
    fn change(mut self, nftables: &Nftables, target: Target<'_>) -> Result<Self, Error> {
        let Target { rules: wanted, containers, .. } = target;
        if self.wanted != *wanted {
            let messages = difference(&expected(&self.wanted), wanted, (self.bridge, self.tunnel));
            self.namespace.visit(|| Socket::route()?.send(&messages))?;
            self.wanted = wanted.clone();
        }
        self.gate = Gate::apply(nftables, &self.namespace, containers, Some(self.gate), false)?;
        Ok(self)
    }

    /// Changes what differs from what is there.
    fn build(
        nftables: &Nftables,
        path: &Path,
        target: Target<'_>,
        applied: Option<Self>,
    ) -> Result<Self, Error> {
        let wanted = target.rules;
        namespace::create(path, Purpose::Switch)?;
        let namespace = Namespace::require(path)?;
        // Another namespace at the same path knows nothing of what was done in the former.
        let applied = applied.filter(|applied| applied.namespace.inode() == namespace.inode());
        let gate = applied.map(|applied| applied.gate);
        let gate = Gate::apply(nftables, &namespace, target.containers, gate, true)?;
        let mtu = mtu::of_overlay(&mut Socket::route()?, wanted.local, wanted.mtu)?;
        let fits = namespace.visit(|| links(wanted, mtu))?;
        if !fits {
            make_tunnel(&namespace, wanted, mtu)?;
        }
        let (bridge, tunnel) = namespace.visit(|| {
            let mut socket = Socket::route()?;
            let (bridge, tunnel) = connect(&mut socket, mtu)?;
            let seen = Neighbours::observe(&mut socket, bridge, tunnel)?;
            socket.send(&difference(&seen, wanted, (bridge, tunnel)))?;
            Ok((bridge, tunnel))
        })?;
        Ok(Self { namespace, gate, wanted: wanted.clone(), bridge, tunnel, mtu })
    }
}

/// Says whether two differ only in what they know of others.
pub(super) fn same_links(one: &Wanted, other: &Wanted) -> bool {
    let links = |overlay: &Wanted| {
        (overlay.vni, overlay.local, overlay.port, overlay.gateway, overlay.prefix, overlay.mtu)
    };
    links(one) == links(other)
}

/// Makes the bridge, in the overlay's namespace. Says whether there is a tunnel that fits, and
/// removes one that does not.
fn links(wanted: &Wanted, mtu: u32) -> Result<bool, Error> {
    let mut socket = Socket::route()?;
    let mut links = Links::observe(&mut socket)?;
    if links.named(BRIDGE).is_none() {
        let mac = mac_of(wanted.gateway);
        socket.send_one(add_bridge(Bridge { name: BRIDGE, mac, mtu }))?;
        links = Links::observe(&mut socket)?;
    }
    let mut messages = Vec::new();
    if let Some(bridge) = links.named(BRIDGE) {
        // Given once more, the MTU does not follow that of the ports.
        messages.extend([set_mtu(bridge.index, mtu), set_up(bridge.index, true)]);
        messages.extend(address(&mut socket, bridge.index, wanted)?);
    }
    let kind = LinkKind::Vxlan { vni: wanted.vni, local: Some(wanted.local), port: wanted.port };
    let tunnel = links.named(TUNNEL);
    let fits = tunnel.is_some_and(|link| link.kind == kind);
    messages.extend(tunnel.filter(|_| !fits).map(|link| delete_link(link.index)));
    socket.send(&messages)?;
    Ok(fits)
}

/// The bridge has the gateway's address, and no other.
fn address(socket: &mut Socket, bridge: u32, wanted: &Wanted) -> Result<Vec<Message>, Error> {
    let Ok(net) = Ipv4Net::new(wanted.gateway, wanted.prefix) else {
        let why = "a prefix has at most 32 bits";
        return Err(Error::Value { path: wanted.prefix.to_string(), why });
    };
    let seen: Vec<Ipv4Net> = Addresses::observe(socket)?.of(bridge).collect();
    let mut messages: Vec<Message> =
        seen.iter().filter(|old| **old != net).map(|old| delete_address(bridge, *old)).collect();
    if !seen.contains(&net) {
        messages.push(add_address(bridge, net));
    }
    Ok(messages)
}

/// Makes the tunnel in the node's namespace, where its UDP socket stays, and moves it.
fn make_tunnel(namespace: &Namespace, wanted: &Wanted, mtu: u32) -> Result<(), Error> {
    let mut socket = Socket::route()?;
    let vxlan = Vxlan {
        name: &format!("skep{}", wanted.vni),
        vni: wanted.vni,
        local: wanted.local,
        port: wanted.port,
        mac: None,
        mtu,
    };
    let index = tunnel::make(&mut socket, &vxlan)?;
    let moved = socket.send_one(move_link(index, namespace.as_fd(), TUNNEL));
    if moved.is_err() {
        socket.send_one(delete_link(index))?;
    }
    moved
}

/// Makes the tunnel and containers' interfaces ports of the bridge; all are up. Returns the indexes
/// of bridge and tunnel.
fn connect(socket: &mut Socket, mtu: u32) -> Result<(u32, u32), Error> {
    let links = Links::observe(socket)?;
    let index = |name: &str| {
        let missing = || {
            Error::system(
                &format!("find the interface {name} of an overlay"),
                std::io::ErrorKind::NotFound.into(),
            )
        };
        links.named(name).map(|link| link.index).ok_or_else(missing)
    };
    let (bridge, tunnel) = (index(BRIDGE)?, index(TUNNEL)?);
    let mut messages = Vec::new();
    for link in &links.0 {
        let port = link.kind == LinkKind::Veth || link.index == tunnel;
        if port && link.mtu != mtu {
            messages.push(set_mtu(link.index, mtu));
        }
        if port && link.master != Some(bridge) {
            messages.push(set_master(link.index, bridge));
        }
        if port && !link.up {
            messages.push(set_up(link.index, true));
        }
        if let Some(mac) = mac_behind(&link.name).filter(|_| port) {
            messages.extend(guard(link.index, mac));
        }
    }
    // Nothing is learnt from the tunnel: managers say who is behind it. The bridge answers ARP for
    // neighbours that it knows, and floods for others, so an endpoint that is not known here yet
    // can be reached.
    messages.push(set_tunnel_port(tunnel));
    socket.send(&messages)?;
    Ok((bridge, tunnel))
}

/// What bridge and tunnel know once `wanted` is applied.
fn expected(wanted: &Wanted) -> Neighbours {
    let macs: BTreeMap<Ipv4Addr, Mac> =
        wanted.remotes.keys().map(|address| (*address, mac_of(*address))).collect();
    Neighbours {
        forwards: wanted.remotes.iter().map(|(to, node)| (mac_of(*to), *node)).collect(),
        behind: macs.values().copied().collect(),
        hosts: macs,
        flooded: wanted.peers.clone(),
    }
}

/// Requests that lead from `seen` to `wanted`.
fn difference(seen: &Neighbours, wanted: &Wanted, (bridge, tunnel): (u32, u32)) -> Vec<Message> {
    let target = expected(wanted);
    let mut messages = Vec::new();
    for mac in seen.forwards.keys().chain(&seen.behind) {
        if !target.forwards.contains_key(mac) {
            messages.extend(delete_forward(tunnel, *mac));
        }
    }
    for address in seen.hosts.keys() {
        if !target.hosts.contains_key(address) {
            messages.push(delete_neighbour(bridge, *address));
        }
    }
    messages
        .extend(seen.flooded.difference(&target.flooded).map(|node| delete_flood(tunnel, *node)));
    messages.extend(target.flooded.difference(&seen.flooded).map(|node| add_flood(tunnel, *node)));
    for (mac, node) in &target.forwards {
        if seen.forwards.get(mac) != Some(node) || !seen.behind.contains(mac) {
            messages.push(add_forward(tunnel, *mac, *node));
        }
    }
    for (address, mac) in &target.hosts {
        if seen.hosts.get(address) != Some(mac) {
            messages.push(add_neighbour(bridge, *address, *mac));
        }
    }
    messages
}

/// Removes an overlay. First the tunnel, which frees its VNI at once; the namespace itself ends
/// some time later.
pub(super) fn dismantle(path: &Path) -> Result<(), Error> {
    if let Some(namespace) = Namespace::open(path)? {
        namespace.visit(|| {
            let mut socket = Socket::route()?;
            let links = Links::observe(&mut socket)?;
            links.named(TUNNEL).map_or(Ok(()), |link| socket.send_one(delete_link(link.index)))
        })?;
    }
    namespace::remove(path)
}

/// Removes overlays that are there but not wanted, e.g. of an earlier daemon. One that stays keeps
/// none of the others.
pub(super) fn dismantle_others(
    config: &Config,
    wanted: &BTreeMap<NetworkId, Wanted>,
) -> Result<(), Error> {
    let found = namespace::list(&config.overlays, PREFIX)?.into_iter();
    let others = found.filter(|found| !wanted.keys().any(|id| path(config, id) == *found));
    let failures: Vec<Error> = others.filter_map(|found| dismantle(&found).err()).collect();
    failures.into_iter().next().map_or(Ok(()), Err)
}
