//! A container's interfaces and its balancer.

use super::flows::{self, Alive, DrainingFlows};
use super::gateway::{self, Gateway};
use super::overlay::{self, AppliedOverlay};
use super::parallel::lock;
use crate::error::Error;
use crate::ipv4::{SandboxRules, Vips};
use crate::namespace::Namespace;
use crate::netlink::{
    Addresses, Link, LinkKind, Links, Mac, Route, Routes, Socket, TABLE_MAIN, Use, Veth,
    add_address, add_route, add_veth, comment, delete_flows, delete_link, delete_route, entries,
    find_link, mac_of, set_mtu, set_up, uses,
};
use crate::nft::{Nftables, Rules};
use crate::render::sandbox as render;
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use types::{NetworkId, Protocol};

const GATEWAY_MTU: u32 = 1500;
/// How often a table is replaced while others change rules in the namespace.
const TRIES: usize = 3;

/// What sandboxes stand on.
pub(super) struct Context<'a> {
    nftables: &'a Nftables,
    gateway: &'a Gateway,
    overlays: &'a BTreeMap<NetworkId, AppliedOverlay>,
    /// Interfaces that were made just now.
    fresh: Mutex<Vec<NearEnd>>,
    /// The near ends that were there when this began, once somebody has asked.
    seen: Mutex<BTreeMap<Option<NetworkId>, BTreeSet<String>>>,
}

/// The near end of a container's interface: on an overlay, or (`None`) on the gateway bridge.
type NearEnd = (Option<NetworkId>, String);

/// How long a bridge may take until it lets frames through to a new port: the kernel notices that
/// both ends are up some milliseconds later.
const PORT_CHECKS: u32 = 250;
const PORT_PAUSE: Duration = Duration::from_millis(2);

/// A sandbox as it is there.
pub(super) struct AppliedSandbox {
    namespace: Namespace,
    rules: SandboxRules,
    table: Rules,
    /// All interfaces, addresses and routes are there.
    wired: bool,
    draining_flows: DrainingFlows,
}

/// How a sandbox shall be.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) rules: &'a SandboxRules,
    /// From the VIPs that it has.
    pub(super) step: &'a render::Step,
    /// Look at everything: what was applied is not believed.
    pub(super) repair: bool,
}

/// An interface that a container shall have.
struct Interface<'a> {
    name: String,
    net: Ipv4Net,
    mac: Mac,
    /// `None`: the gateway bridge.
    network: Option<&'a NetworkId>,
}

impl AppliedSandbox {
    /// Makes a sandbox be as wanted; there is none if its namespace has gone. What fails keeps nothing
    /// else from being made.
    pub(super) fn apply(
        context: &Context<'_>,
        target: &Target<'_>,
        applied: Option<Self>,
    ) -> (Option<Self>, Result<(), Error>) {
        let Target { rules: wanted, repair, .. } = *target;
        let namespace = match Namespace::open(Path::new(&wanted.netns)) {
            Ok(Some(namespace)) => namespace,
            Ok(None) => return (None, Ok(())),
            Err(error) => return (applied, Err(error)),
        };
        // Another namespace at the same path knows nothing of what was done in the former.
        let applied = applied.filter(|applied| applied.namespace.inode() == namespace.inode());
        let same = |applied: &Self| applied.wired && !repair && same_wires(&applied.rules, wanted);
        let wired = if applied.as_ref().is_some_and(same) {
            Ok(())
        } else {
            wire(context, &namespace, wanted)
        };
        let balanced = match applied {
            Some(mut applied) => {
                let balanced = applied.balance(target);
                (Some(applied), balanced)
            }
            None => Self::begin(context, namespace, target),
        };
        let (mut applied, balanced) = balanced;
        if let Some(applied) = &mut applied {
            applied.wired = wired.is_ok();
            // Also what is not there yet is what is wanted now.
            applied.rules.attachments.clone_from(&wanted.attachments);
            applied.rules.gateway_address = wanted.gateway_address;
            applied.rules.default_route = wanted.default_route;
        }
        (applied, wired.and(balanced))
    }

    fn begin(
        context: &Context<'_>,
        namespace: Namespace,
        target: &Target<'_>,
    ) -> (Option<Self>, Result<(), Error>) {
        let table = namespace.visit(|| context.nftables.open()).and_then(|mut table| {
            if !is_stamped(&mut table, target)? {
                renew(&mut table, target)?;
            }
            Ok(table)
        });
        let draining_flows = DrainingFlows::default();
        match table {
            Ok(table) => {
                let rules = target.rules.clone();
                (Some(Self { namespace, rules, table, wired: false, draining_flows }), Ok(()))
            }
            Err(error) => (None, Err(error)),
        }
    }

    /// The VIPs that its table has.
    pub(super) fn vips(&self) -> &Arc<Vips> {
        &self.rules.vips
    }

    /// Says whether it is known to be as wanted.
    pub(super) fn is(&self, target: &Target<'_>) -> bool {
        let Self { rules, .. } = self;
        let wanted = target.rules;
        let known = self.wired && self.table.known() && target.step.vips.is_empty();
        known
            && (&rules.netns, rules.dns_port, rules.turn)
                == (&wanted.netns, wanted.dns_port, wanted.turn)
            && same_wires(rules, wanted)
    }

    /// Says whether its balancer leads where it is wanted.
    pub(super) fn leads(&self, wanted: &SandboxRules) -> bool {
        self.table.known() && self.rules.vips == wanted.vips
    }

    /// Forgets connections to back ends that were taken out.
    pub(super) fn forget(&mut self, alive: &Alive<'_>) -> Result<(), Error> {
        let Self { rules, table, draining_flows, .. } = self;
        if !draining_flows.are_due(|address| alive.beside(rules, address)) {
            return Ok(());
        }
        let socket = table.socket()?;
        // Looking for connections takes the kernel far longer, even if there is none.
        if let Some(uses) = uses(socket, render::TABLE, render::USES)? {
            draining_flows.keep_used(&uses);
        }
        draining_flows.forget(socket)
    }

    /// Forgets connections of former times that lead to where they shall not.
    pub(super) fn look(&mut self, alive: &Alive<'_>) -> Result<(), Error> {
        let Self { rules, table, .. } = self;
        let stale = |flow: &_| flows::stale_in_sandbox(flow, rules, alive);
        delete_flows(table.socket()?, stale).map(drop)
    }

    /// Changes the table where it differs, or all of it where that is not known.
    fn balance(&mut self, target: &Target<'_>) -> Result<(), Error> {
        let Self { rules, table, draining_flows, .. } = self;
        let Target { rules: wanted, repair, step } = *target;
        let whole = !table.known() || repair && !table.untouched()?;
        let next = table.next().filter(|_| !whole);
        let change = next.and_then(|next| render::difference(rules, wanted, step, next));
        let done = match change {
            None => renew(table, target),
            Some(change) if change.is_empty() => Ok(()),
            // It can fail on a table that somebody else has touched; the whole cannot.
            Some(change) => table.change(change).or_else(|_| renew(table, target)),
        };
        done?;
        draining_flows.note_vips(&rules.vips, &wanted.vips, &step.vips);
        *rules = wanted.clone();
        Ok(())
    }
}

/// Says whether the table is as wanted, from a former daemon.
fn is_stamped(table: &mut Rules, target: &Target<'_>) -> Result<bool, Error> {
    let generation = table.believe()?;
    let stamp = comment(table.socket()?, render::TABLE, render::STAMP)?;
    Ok(stamp
        .is_some_and(|stamp| stamp == render::stamp(target.rules, target.step.digest, generation)))
}

/// Replaces the table, and keeps in it what was used.
fn renew(table: &mut Rules, target: &Target<'_>) -> Result<(), Error> {
    let mut done = Ok(());
    for _ in 0..TRIES {
        let uses = used(table.socket()?, target.rules)?;
        table.believe()?;
        let next = table.next().unwrap_or_default();
        done = table.change(render::whole(target.rules, &uses, (target.step.digest, next)));
        // Somebody else changed rules in between.
        if !matches!(&done, Err(error) if error.code() == Some(libc::ERESTART)) {
            break;
        }
    }
    done
}

/// What was used until now.
fn used(socket: &mut Socket, wanted: &SandboxRules) -> Result<BTreeSet<Use>, Error> {
    if let Some(uses) = uses(socket, render::TABLE, render::USES)? {
        return Ok(uses);
    }
    if entries(socket)? == 0 {
        return Ok(BTreeSet::new());
    }
    // There are connections, and nobody noted which.
    let protocols = [Protocol::Tcp, Protocol::Udp];
    Ok(wanted.vips.keys().flat_map(|vip| protocols.map(|protocol| (*vip, protocol))).collect())
}

fn same_wires(old: &SandboxRules, new: &SandboxRules) -> bool {
    old.gateway_address == new.gateway_address
        && old.default_route == new.default_route
        && old.attachments == new.attachments
}

/// Overlays come first, in the order of attachments; the last is the way out.
fn interfaces<'a>(gateway: &Gateway, wanted: &'a SandboxRules) -> Vec<Interface<'a>> {
    let overlays = wanted
        .attachments
        .iter()
        .map(|attachment| (attachment.address, attachment.prefix, Some(&attachment.network)));
    let way_out = (wanted.gateway_address, gateway.net.prefix_len(), None);
    let all = overlays.chain([way_out]).enumerate();
    all.filter_map(|(number, (address, prefix, network))| {
        let net = Ipv4Net::new(address, prefix).ok()?;
        Some(Interface { name: format!("eth{number}"), net, mac: mac_of(address), network })
    })
    .collect()
}

/// Makes interfaces, addresses and routes be there. One that cannot be made keeps no other away.
fn wire(context: &Context<'_>, namespace: &Namespace, wanted: &SandboxRules) -> Result<(), Error> {
    let interfaces = interfaces(context.gateway, wanted);
    let links = namespace.visit(|| remove_others(&interfaces))?;
    let mut outcome = Ok(());
    for interface in &interfaces {
        let done = connect(context, namespace, interface, links.named(&interface.name));
        outcome = outcome.and(done);
    }
    outcome.and(namespace.visit(|| address(context, &interfaces, wanted.default_route)))
}

/// Makes an interface, or keeps the one that is there.
fn connect(
    context: &Context<'_>,
    namespace: &Namespace,
    interface: &Interface<'_>,
    far: Option<&Link>,
) -> Result<(), Error> {
    if far.is_some() && near_is_there(context, interface)? {
        return Ok(());
    }
    // Its other end is in a namespace that is no more ours and about to end, and it with it.
    if let Some(link) = far {
        namespace.visit(|| Socket::route()?.send_one(delete_link(link.index)))?;
    }
    plug(context, namespace, interface)
}

/// Removes interfaces that we made for something else, and says what is left.
fn remove_others(interfaces: &[Interface<'_>]) -> Result<Links, Error> {
    let mut socket = Socket::route()?;
    let mut links = Links::observe(&mut socket)?;
    let (others, kept): (Vec<Link>, Vec<Link>) = links.0.drain(..).partition(|link| {
        let ours = link.kind == LinkKind::Veth
            && link.name.starts_with("eth")
            && link.mac.is_some_and(|mac| mac.starts_with(&[0x02, 0x42]));
        ours && !interfaces.iter().any(|wanted| fits(link, wanted))
    });
    let deletions: Vec<_> = others.iter().map(|link| delete_link(link.index)).collect();
    socket.send(&deletions)?;
    Ok(Links(kept))
}

fn fits(link: &Link, wanted: &Interface<'_>) -> bool {
    link.name == wanted.name && link.mac == Some(wanted.mac)
}

/// Makes an interface with its near end on the overlay's or the gateway's bridge.
fn plug(
    context: &Context<'_>,
    namespace: &Namespace,
    interface: &Interface<'_>,
) -> Result<(), Error> {
    let name = near_name(interface);
    if let Some(network) = interface.network {
        let Some(overlay) = context.overlays.get(network) else {
            let doing = format!("attach a container to network {network}, which is not here");
            return Err(Error::system(&doing, std::io::ErrorKind::NotFound.into()));
        };
        let port = (name.as_str(), overlay.mtu(), overlay.bridge());
        overlay.namespace().visit(|| {
            let index = pair(namespace, interface, port)?;
            Socket::route()?.send(&overlay::guard(index, interface.mac))
        })?;
    } else {
        let index = pair(namespace, interface, (&name, GATEWAY_MTU, context.gateway.index))?;
        Socket::route()?.send(&gateway::guard(index, interface.mac, context.gateway.ports))?;
    }
    lock(&context.fresh).push((interface.network.cloned(), name));
    Ok(())
}

impl<'a> Context<'a> {
    pub(super) fn new(
        nftables: &'a Nftables,
        gateway: &'a Gateway,
        overlays: &'a BTreeMap<NetworkId, AppliedOverlay>,
    ) -> Self {
        let (fresh, seen) = (Mutex::default(), Mutex::default());
        Self { nftables, gateway, overlays, fresh, seen }
    }

    /// Waits until bridges let frames through to all interfaces that were made just now.
    pub(super) fn wait(&self) {
        let mut fresh = std::mem::take(&mut *lock(&self.fresh));
        for _ in 0..PORT_CHECKS {
            // One that cannot be found is waited for by nobody.
            fresh.retain(|near| {
                let found = self.at(near.0.as_ref(), |socket| find_link(socket, &near.1));
                matches!(found, Ok(Some(link)) if !link.forwarding)
            });
            if fresh.is_empty() {
                return;
            }
            thread::sleep(PORT_PAUSE);
        }
        tracing::warn!(?fresh, "bridges do not let frames through to new interfaces yet");
    }

    /// Asks where near ends are.
    fn at<T: Default>(
        &self,
        network: Option<&NetworkId>,
        ask: impl FnOnce(&mut Socket) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Some(network) = network else { return ask(&mut Socket::route()?) };
        match self.overlays.get(network) {
            Some(overlay) => overlay.namespace().visit(|| ask(&mut Socket::route()?)),
            // The overlay is not here.
            None => Ok(T::default()),
        }
    }
}

/// Says whether the near end of an interface is where it would be made now.
fn near_is_there(context: &Context<'_>, interface: &Interface<'_>) -> Result<bool, Error> {
    let mut seen = lock(&context.seen);
    let network = interface.network.cloned();
    if !seen.contains_key(&network) {
        let links = context.at(interface.network, Links::observe)?;
        let names = links.0.into_iter().map(|link| link.name).collect();
        seen.insert(network.clone(), names);
    }
    Ok(seen.get(&network).is_some_and(|names| names.contains(&near_name(interface))))
}

/// The name of the near end of a container's interface.
fn near_name(interface: &Interface<'_>) -> String {
    let address = interface.net.addr();
    match interface.network {
        Some(_) => overlay::port_name(address),
        None => gateway::port_name(address),
    }
}

/// Makes the pair and returns the index of its near end.
fn pair(
    namespace: &Namespace,
    interface: &Interface<'_>,
    (name, mtu, master): (&str, u32, u32),
) -> Result<u32, Error> {
    let veth = Veth {
        name,
        mtu,
        master: Some(master),
        peer: &interface.name,
        peer_mac: Some(interface.mac),
        peer_namespace: namespace.as_fd(),
    };
    let mut socket = Socket::route()?;
    if let Err(error) = socket.send_one(add_veth(&veth)) {
        // The end of an earlier container with this address, whose namespace has not ended yet.
        let taken = error.code() == Some(libc::EEXIST);
        let Some(link) = find_link(&mut socket, name)?.filter(|_| taken) else {
            return Err(error);
        };
        socket.send(&[delete_link(link.index), add_veth(&veth)])?;
    }
    find_link(&mut socket, name)?.map(|link| link.index).ok_or_else(|| {
        Error::system("find an interface that was just made", std::io::ErrorKind::NotFound.into())
    })
}

/// Gives interfaces their addresses, and sets the routes; in the container's namespace.
fn address(
    context: &Context<'_>,
    interfaces: &[Interface<'_>],
    default_route: bool,
) -> Result<(), Error> {
    let mut socket = Socket::route()?;
    let links = Links::observe(&mut socket)?;
    let addresses = Addresses::observe(&mut socket)?;
    let mut messages = Vec::new();
    let mut routes = Vec::new();
    for interface in interfaces {
        let Some(link) = links.named(&interface.name) else { continue };
        let index = link.index;
        let overlay = interface.network.and_then(|network| context.overlays.get(network));
        if let Some(mtu) = overlay.map(AppliedOverlay::mtu).filter(|mtu| *mtu != link.mtu) {
            messages.push(set_mtu(index, mtu));
        }
        if !link.up {
            messages.push(set_up(index, true));
        }
        if !addresses.of(index).any(|net| net == interface.net) {
            messages.push(add_address(index, interface.net));
        }
        if interface.network.is_none() {
            let via = Some(context.gateway.net.addr());
            routes.push((to(Ipv4Addr::UNSPECIFIED, 0, via, index), default_route));
        } else if routes.is_empty() {
            // Groups are on the first network; else they would leave by the default route.
            routes.push((to(Ipv4Addr::new(224, 0, 0, 0), 4, None, index), true));
        }
    }
    socket.send(&messages)?;
    // An interface that has just come up brought routes of its own.
    let seen = Routes::observe(&mut socket)?;
    let changes: Vec<_> = routes
        .iter()
        .filter(|(route, wanted)| seen.contains(route) != *wanted)
        .map(|(route, wanted)| if *wanted { add_route(route) } else { delete_route(route) })
        .collect();
    socket.send(&changes)
}

fn to(destination: Ipv4Addr, prefix: u8, gateway: Option<Ipv4Addr>, out: u32) -> Route {
    let destination = Ipv4Net::new(destination, prefix).unwrap_or_default();
    Route { destination, gateway, out, table: TABLE_MAIN }
}
