//! A container's interfaces and its balancer.

use super::OVERLAY_MTU;
use super::gateway::{self, Gateway};
use super::overlay::{self, Overlay};
use crate::error::Error;
use crate::namespace::Place;
use crate::netlink::{
    Addresses, Link, LinkKind, Links, Mac, Route, Routes, Socket, TABLE_MAIN, Veth, add_address,
    add_route, add_veth, delete_link, delete_route, mac_of, set_up,
};
use crate::nft::{Nftables, Rules};
use crate::render::sandbox as render;
use discovery::SandboxRules;
use ipnet::Ipv4Net;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::Duration;
use types::NetworkId;

const GATEWAY_MTU: u32 = 1500;

/// What sandboxes stand on.
pub(super) struct Ground<'a> {
    pub(super) nftables: &'a Nftables,
    pub(super) gateway: &'a Gateway,
    pub(super) overlays: &'a BTreeMap<NetworkId, Overlay>,
    /// Interfaces that were made just now.
    pub(super) fresh: RefCell<Vec<Near>>,
}

/// The near end of a container's interface: on an overlay, or (`None`) on the gateway bridge.
pub(super) type Near = (Option<NetworkId>, String);

/// How long a bridge may take until it lets frames through to a new port: the kernel notices that
/// both ends are up some milliseconds later.
const PORT_CHECKS: u32 = 250;
const PORT_PAUSE: Duration = Duration::from_millis(2);

/// A sandbox as it is there.
pub(super) struct Sandbox {
    place: Place,
    rules: SandboxRules,
    table: Rules,
}

/// An interface that a container shall have.
struct Interface<'a> {
    name: String,
    net: Ipv4Net,
    mac: Mac,
    /// `None`: the gateway bridge.
    network: Option<&'a NetworkId>,
}

impl Sandbox {
    /// Makes a sandbox be as wanted; `None` if its namespace has gone. Without `observe`, what is
    /// held is believed.
    pub(super) fn hold(
        ground: &Ground<'_>,
        wanted: &SandboxRules,
        held: Option<Self>,
        observe: bool,
    ) -> Result<Option<Self>, Error> {
        let Some(place) = Place::open(Path::new(&wanted.netns))? else { return Ok(None) };
        // Another namespace at the same path knows nothing of what was done in the former.
        let held = held.filter(|held| held.place.inode() == place.inode());
        let wired = held.as_ref().is_some_and(|held| !observe && same_wires(&held.rules, wanted));
        if !wired {
            wire(ground, &place, wanted)?;
        }
        match held {
            Some(mut held) => {
                held.balance(wanted, observe)?;
                Ok(Some(held))
            }
            None => place
                .visit(|| {
                    let mut table = ground.nftables.open()?;
                    table.apply(&render::whole(wanted))?;
                    Ok(table)
                })
                .map(|table| Some(Self { place, rules: wanted.clone(), table })),
        }
    }

    /// A socket to netfilter in its namespace.
    pub(super) fn socket(&mut self) -> Result<&mut Socket, Error> {
        self.table.socket()
    }

    /// Changes the table where it differs, or all of it where that is not known.
    fn balance(&mut self, wanted: &SandboxRules, observe: bool) -> Result<(), Error> {
        let Self { place, rules, table } = self;
        let change = if observe || !table.known() {
            if table.untouched()? {
                render::difference(rules, wanted)
            } else {
                Some(render::whole(wanted))
            }
        } else {
            render::difference(rules, wanted)
        };
        if let Some(text) = change {
            place.visit(|| {
                // A change can fail on a table that somebody else has emptied; the whole cannot.
                table.apply(&text).or_else(|_| table.apply(&render::whole(wanted)))
            })?;
        }
        *rules = wanted.clone();
        Ok(())
    }
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

/// Makes interfaces, addresses and routes be there.
fn wire(ground: &Ground<'_>, place: &Place, wanted: &SandboxRules) -> Result<(), Error> {
    let interfaces = interfaces(ground.gateway, wanted);
    let links = place.visit(|| remove_others(&interfaces))?;
    for interface in &interfaces {
        let far = links.named(&interface.name);
        if far.is_some() && near_is_there(ground, interface)? {
            continue;
        }
        // Its other end is in a namespace that is no more ours and about to end, and it with it.
        if let Some(link) = far {
            place.visit(|| Socket::route()?.send_one(delete_link(link.index)))?;
        }
        plug(ground, place, interface)?;
    }
    place.visit(|| address(ground.gateway, &interfaces, wanted.default_route))
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
fn plug(ground: &Ground<'_>, place: &Place, interface: &Interface<'_>) -> Result<(), Error> {
    let name = near_name(interface);
    if let Some(network) = interface.network {
        let Some(overlay) = ground.overlays.get(network) else {
            let doing = format!("attach a container to network {network}, which is not here");
            return Err(Error::system(&doing, std::io::ErrorKind::NotFound.into()));
        };
        let port = (name.as_str(), OVERLAY_MTU, overlay.bridge());
        overlay.place().visit(|| {
            let index = pair(place, interface, port)?;
            Socket::route()?.send(&overlay::guard(index, interface.mac))
        })?;
    } else {
        let index = pair(place, interface, (&name, GATEWAY_MTU, ground.gateway.index))?;
        Socket::route()?.send(&gateway::guard(index, interface.mac))?;
    }
    ground.fresh.borrow_mut().push((interface.network.cloned(), name));
    Ok(())
}

impl Ground<'_> {
    /// Waits until bridges let frames through to all interfaces that were made just now.
    pub(super) fn wait(&self) -> Result<(), Error> {
        let mut fresh = self.fresh.take();
        for _ in 0..PORT_CHECKS {
            let Some((network, _)) = fresh.first().cloned() else { return Ok(()) };
            let links = self.links(network.as_ref())?;
            fresh.retain(|(other, name)| {
                *other != network || links.named(name).is_some_and(|link| !link.forwarding)
            });
            if fresh.first().is_some_and(|(other, _)| *other == network) {
                thread::sleep(PORT_PAUSE);
            }
        }
        tracing::warn!(?fresh, "bridges do not let frames through to new interfaces yet");
        Ok(())
    }

    /// The interfaces where near ends are; none where the overlay is not here.
    fn links(&self, network: Option<&NetworkId>) -> Result<Links, Error> {
        let observe = || Links::observe(&mut Socket::route()?);
        let Some(network) = network else { return observe() };
        let overlay = self.overlays.get(network);
        overlay.map_or(Ok(Links::default()), |overlay| overlay.place().visit(observe))
    }
}

/// Says whether the near end of an interface is where it would be made now.
fn near_is_there(ground: &Ground<'_>, interface: &Interface<'_>) -> Result<bool, Error> {
    Ok(ground.links(interface.network)?.named(&near_name(interface)).is_some())
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
    place: &Place,
    interface: &Interface<'_>,
    (name, mtu, master): (&str, u32, u32),
) -> Result<u32, Error> {
    let veth = Veth {
        name,
        mtu,
        master: Some(master),
        peer: &interface.name,
        peer_mac: Some(interface.mac),
        peer_namespace: place.as_fd(),
    };
    let mut socket = Socket::route()?;
    if let Err(error) = socket.send_one(add_veth(&veth)) {
        // The end of an earlier container with this address, whose namespace has not ended yet.
        let links = Links::observe(&mut socket)?;
        let Some(link) = links.named(name).filter(|_| error.code() == Some(libc::EEXIST)) else {
            return Err(error);
        };
        socket.send(&[delete_link(link.index), add_veth(&veth)])?;
    }
    let links = Links::observe(&mut socket)?;
    links.named(name).map(|link| link.index).ok_or_else(|| {
        Error::system("find an interface that was just made", std::io::ErrorKind::NotFound.into())
    })
}

/// Gives interfaces their addresses, and sets the routes; in the container's namespace.
fn address(
    gateway: &Gateway,
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
        if !link.up {
            messages.push(set_up(index, true));
        }
        if !addresses.of(index).any(|net| net == interface.net) {
            messages.push(add_address(index, interface.net));
        }
        if interface.network.is_none() {
            let via = Some(gateway.net.addr());
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
