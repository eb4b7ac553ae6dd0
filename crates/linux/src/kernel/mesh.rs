//! The routing mesh on this node: its tunnel, what it knows of other nodes and tasks, the rules.

use super::flows::{self, Alive, DrainingFlows};
use super::watch::ChangeListener;
use super::{Config, beside, firewall, mtu, tunnel};
use crate::error::Error;
use crate::ipv4::{Desired, MeshRules};
use crate::namespace;
use crate::netlink::{
    Addresses, LinkKind, Links, Mac, Message, Neighbours, Route, Socket, Steering, Vxlan,
    add_address, add_neighbour, add_route, add_steering, add_tunnel, delete_flows, delete_link,
    delete_neighbour, delete_steering, delete_tunnel, mac_of, set_mtu, set_up, steering_present,
};
use crate::nft::{Nftables, Rules};
use crate::render::mesh::{self as render, Surroundings};
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// The tunnel's interface.
pub(super) const TUNNEL: &str = "skep_mesh";
const VNI: u32 = 4096;
/// A number that nobody chooses by chance ("skep"): small ones are in use by administrators.
const REPLY_TABLE: u32 = 0x736b_6570;
const REPLY_PRIORITY: u32 = 90;

/// The mesh as it shall be.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) rules: MeshRules,
    pub(super) surroundings: Surroundings,
}

impl Wanted {
    /// What remains where the tunnel cannot be made.
    pub(super) fn without_tunnel(self) -> Self {
        let MeshRules { host_ports, port, .. } = self.rules;
        let rules = MeshRules { port, host_ports, ..MeshRules::default() };
        Self { rules, surroundings: self.surroundings }
    }
}

/// What the mesh stands on, and who hears of our own changes.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) config: &'a Config,
    pub(super) nftables: &'a Nftables,
    pub(super) listener: &'a ChangeListener,
}

/// The mesh as it is there.
pub(super) struct AppliedMesh {
    is: Wanted,
    /// The index of the tunnel, where there is a mesh.
    tunnel: Option<u32>,
    table: Rules,
    draining_flows: DrainingFlows,
    /// Nobody has looked at the tracked connections since this daemon started.
    unseen: bool,
}

/// `ip rule add iif BRIDGE fwmark 0x736b0000/0xffff0000 lookup 1936418160 priority 90`
pub(super) fn steering(config: &Config) -> Steering<'_> {
    Steering {
        input: &config.bridge,
        mark: render::MARK,
        mask: render::MASK,
        table: REPLY_TABLE,
        priority: REPLY_PRIORITY,
    }
}

impl AppliedMesh {
    /// Makes the mesh be as wanted. Without `repair`, what was applied is believed.
    pub(super) fn apply(
        context: Context<'_>,
        wanted: Wanted,
        applied: Option<Self>,
        repair: bool,
    ) -> Result<Self, Error> {
        let applied = applied.filter(|applied| !repair || applied.tunnel_is_there());
        match applied {
            Some(mut applied) if applied.same_links(&wanted.rules) => {
                applied.change(context.config, wanted, repair)?;
                Ok(applied)
            }
            Some(_) | None => Self::build(context, wanted),
        }
    }

    /// Lets others' firewalls pass what our own rules let pass. Only a repair, and news of their
    /// rules, look for that.
    pub(super) fn admit(&mut self, config: &Config) -> Result<(), Error> {
        firewall::admit(&mut self.table, config)
    }

    /// Forgets connections to back ends that were taken out.
    pub(super) fn forget(&mut self, alive: &Alive<'_>) -> Result<(), Error> {
        let Self { table, draining_flows, .. } = self;
        if !draining_flows.are_due(|address| alive.published(address)) {
            return Ok(());
        }
        draining_flows.forget(table.socket()?)
    }

    pub(super) fn is_unseen(&self) -> bool {
        self.unseen
    }

    /// Forgets connections of former times that lead to where they shall not.
    pub(super) fn look(&mut self, alive: &Alive<'_>, subnet: Ipv4Net) -> Result<(), Error> {
        self.unseen = false;
        let Self { is, table, .. } = self;
        let stale = |flow: &_| flows::stale_here(flow, &is.rules, alive, subnet);
        delete_flows(table.socket()?, stale).map(drop)
    }

    pub(super) fn same_links(&self, wanted: &MeshRules) -> bool {
        same_links(&self.is.rules, wanted)
    }

    /// Says whether the tunnel has not been removed by others; the rules at its exit go with it.
    fn tunnel_is_there(&self) -> bool {
        let links = Socket::route().and_then(|mut socket| Links::observe(&mut socket));
        let found = links.ok().and_then(|links| Some(links.named(TUNNEL)?.index));
        found == self.tunnel
    }

    fn change(&mut self, config: &Config, wanted: Wanted, repair: bool) -> Result<(), Error> {
        if let Some(tunnel) = self.tunnel {
            let mut socket = Socket::route()?;
            let seen = if repair {
                settle(&mut socket, config, &wanted.rules, tunnel)?;
                Neighbours::observe(&mut socket, tunnel, tunnel)?
            } else {
                expected(&self.is.rules)
            };
            socket.send(&difference(&seen, &wanted.rules, tunnel))?;
        }
        let applied = tables(config, &self.is);
        let mesh = tables(config, &wanted);
        if !self.table.known() || repair && !self.table.untouched()? {
            self.table.replace(&render::whole(&mesh))?;
        } else if let Some(text) = render::difference(&applied, &mesh) {
            // It can fail on a table that somebody else has emptied; the whole cannot.
            self.table.apply(&text).or_else(|_| self.table.replace(&render::whole(&mesh)))?;
        }
        self.draining_flows.note_ports(&self.is.rules, &wanted.rules);
        self.is = wanted;
        Ok(())
    }

    /// Makes the tunnel fit, keeps one that does, and replaces the tables.
    fn build(context: Context<'_>, wanted: Wanted) -> Result<Self, Error> {
        let Context { config, nftables, listener } = context;
        let mut socket = Socket::route()?;
        let ends = wanted.rules.ingress.zip(wanted.rules.local);
        let tunnel = ends.map(|ends| links(&mut socket, &wanted.rules, ends)).transpose()?;
        if let Some(tunnel) = tunnel {
            settle(&mut socket, config, &wanted.rules, tunnel)?;
            let seen = Neighbours::observe(&mut socket, tunnel, tunnel)?;
            socket.send(&difference(&seen, &wanted.rules, tunnel))?;
        } else {
            remove(&mut socket, config)?;
        }
        let mut table = nftables.open()?.heard_by(listener.clone());
        table.replace(&render::whole(&tables(config, &wanted)))?;
        let draining_flows = DrainingFlows::default();
        Ok(Self { is: wanted, tunnel, table, draining_flows, unseen: true })
    }
}

/// Says whether two want the same of the tunnel itself.
pub(super) fn same_links(one: &MeshRules, other: &MeshRules) -> bool {
    let links =
        |rules: &MeshRules| (rules.ingress, rules.prefix, rules.local, rules.port, rules.mtu);
    links(one) == links(other)
}

/// Containers with no default route are on internal networks alone. A node is an end of the tunnels of
/// networks that it has a part in, and of the mesh's.
pub(super) fn surroundings(wanted: &Desired, closed: BTreeSet<String>) -> Surroundings {
    let sandboxes = wanted.sandboxes.values();
    let overlays = wanted.overlays.values();
    let mesh = wanted.mesh.ingress.map(|_| VNI);
    let parts = overlays.clone().flat_map(|it| it.peers.iter().map(|peer| (it.vni, *peer)));
    Surroundings {
        closed,
        containers: sandboxes.clone().map(|sandbox| sandbox.gateway_address).collect(),
        inside: sandboxes
            .filter(|sandbox| !sandbox.default_route)
            .map(|sandbox| sandbox.gateway_address)
            .collect(),
        vnis: overlays.map(|overlay| overlay.vni).chain(mesh).collect(),
        ends: parts.chain(wanted.mesh.peers.values().map(|peer| (VNI, *peer))).collect(),
    }
}

fn tables<'a>(config: &'a Config, wanted: &'a Wanted) -> render::Mesh<'a> {
    let Wanted { rules, surroundings } = wanted;
    let Config { bridge, gateway_subnet, .. } = config;
    render::Mesh { rules, surroundings, bridge, subnet: *gateway_subnet, tunnel: TUNNEL }
}

/// Makes the tunnel, or keeps one that fits, and returns its index.
fn links(
    socket: &mut Socket,
    rules: &MeshRules,
    (ingress, local): (Ipv4Addr, Ipv4Addr),
) -> Result<u32, Error> {
    let (mac, port) = (mac_of(ingress), rules.port);
    let links = Links::observe(socket)?;
    if let Some(link) = links.named(TUNNEL) {
        let kind = LinkKind::Vxlan { vni: VNI, local: Some(local), port };
        if link.kind == kind && link.mac == Some(mac) {
            return Ok(link.index);
        }
        socket.send_one(delete_link(link.index))?;
    }
    let mtu = mtu::of_overlay(socket, local, rules.mtu)?;
    let vxlan = Vxlan { name: TUNNEL, vni: VNI, local, port, mac: Some(mac), mtu };
    tunnel::make(socket, &vxlan)
}

/// Gives the tunnel its address, routes and settings.
fn settle(
    socket: &mut Socket,
    config: &Config,
    wanted: &MeshRules,
    tunnel: u32,
) -> Result<(), Error> {
    let Some((ingress, local)) = wanted.ingress.zip(wanted.local) else { return Ok(()) };
    let net = render::place(ingress, wanted.prefix);
    let mtu = mtu::of_overlay(socket, local, wanted.mtu)?;
    let mut messages = vec![set_mtu(tunnel, mtu), set_up(tunnel, true)];
    if !Addresses::observe(socket)?.of(tunnel).any(|found| found == net) {
        let links = Links::observe(socket)?;
        beside::is_free(socket, &links, net, &[TUNNEL])?;
        messages.push(add_address(tunnel, net));
    }
    messages.push(add_route(&Route {
        destination: Ipv4Net::default(),
        gateway: Some(render::next_hop(net)),
        out: tunnel,
        table: REPLY_TABLE,
    }));
    let steering = steering(config);
    if !steering_present(socket, &steering)? {
        messages.push(add_steering(&steering));
    }
    socket.send(&messages)?;
    // Connections come from clients' own addresses, which are not behind the tunnel.
    namespace::set(&format!("ipv4/conf/{TUNNEL}/rp_filter"), "2")?;
    // From 127.0.0.1 of the node to a task elsewhere; the rules drop what others send.
    namespace::set(&format!("ipv4/conf/{TUNNEL}/route_localnet"), "1")
}

/// What the tunnel knows once `wanted` is applied.
fn expected(wanted: &MeshRules) -> Neighbours {
    let tasks = wanted.remote_tasks.iter().map(|(task, node)| (*task, mac_of(*node)));
    let place = wanted.ingress.map(|ingress| render::place(ingress, wanted.prefix));
    let hop = place.map(render::next_hop);
    let hosts: BTreeMap<Ipv4Addr, Mac> = tasks.chain(hop.map(|hop| (hop, mac_of(hop)))).collect();
    let forwards = wanted.peers.iter().map(|(peer, node)| (mac_of(*peer), *node)).collect();
    Neighbours { hosts, forwards, ..Neighbours::default() }
}

/// Requests that lead from `seen` to `wanted`.
fn difference(seen: &Neighbours, wanted: &MeshRules, tunnel: u32) -> Vec<Message> {
    let target = expected(wanted);
    let mut messages = Vec::new();
    for mac in seen.forwards.keys().filter(|mac| !target.forwards.contains_key(*mac)) {
        messages.push(delete_tunnel(tunnel, *mac));
    }
    for address in seen.hosts.keys().filter(|to| !target.hosts.contains_key(*to)) {
        messages.push(delete_neighbour(tunnel, *address));
    }
    for (mac, node) in &target.forwards {
        if seen.forwards.get(mac) != Some(node) {
            messages.push(add_tunnel(tunnel, *mac, *node));
        }
    }
    for (address, mac) in &target.hosts {
        if seen.hosts.get(address) != Some(mac) {
            messages.push(add_neighbour(tunnel, *address, *mac));
        }
    }
    messages
}

/// Removes tunnel and rule; the tables are not touched.
pub(super) fn remove(socket: &mut Socket, config: &Config) -> Result<(), Error> {
    let links = Links::observe(socket)?;
    if let Some(link) = links.named(TUNNEL) {
        socket.send_one(delete_link(link.index))?;
    }
    let steering = steering(config);
    if steering_present(socket, &steering)? {
        socket.send_one(delete_steering(&steering))?;
    }
    Ok(())
}
