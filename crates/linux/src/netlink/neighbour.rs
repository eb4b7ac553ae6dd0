//! Neighbours (address -> MAC) and forwarding entries (MAC -> remote node).

use super::message::{APPEND, CREATE, Message, REPLACE, Received, u16_at, u32_at};
use super::{Mac, Socket};
use crate::error::Error;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

const NEW_NEIGHBOUR: u16 = 28;
const DELETE_NEIGHBOUR: u16 = 29;
const SHOW_NEIGHBOUR: u16 = 30;

const FAMILY_IPV4: u8 = 2;
const FAMILY_BRIDGE: u8 = 7;
/// The length of the fixed part, `struct ndmsg`.
const FIXED: usize = 12;

const STATE_REACHABLE: u16 = 0x02;
const STATE_NO_ARP: u16 = 0x40;
const STATE_PERMANENT: u16 = 0x80;
const FLAG_SELF: u8 = 0x02;
const FLAG_MASTER: u8 = 0x04;

const DESTINATION: u16 = 1;
const ADDRESS: u16 = 2;
const MASTER: u16 = 9;

/// Broadcast, multicast and unknown frames: a tunnel copies them to each of these entries.
const FLOOD: Mac = [0; 6];

/// What a tunnel and its bridge know of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Neighbours {
    /// Permanent neighbours of the bridge: address -> MAC.
    pub(crate) hosts: BTreeMap<Ipv4Addr, Mac>,
    /// The tunnel's forwarding entries: MAC -> remote node.
    pub(crate) forwards: BTreeMap<Mac, Ipv4Addr>,
    /// MACs of which the bridge knows that they are behind the tunnel.
    pub(crate) behind: BTreeSet<Mac>,
    /// Remote nodes that get what is flooded.
    pub(crate) flooded: BTreeSet<Ipv4Addr>,
}

impl Neighbours {
    /// Lists what the interface `applier` (neighbours) and `tunnel` (forwarding entries) know.
    pub(crate) fn observe(socket: &mut Socket, applier: u32, tunnel: u32) -> Result<Self, Error> {
        let mut seen = Self::default();
        let question =
            Message::new("list neighbours", SHOW_NEIGHBOUR, 0).fixed(&fixed(FAMILY_IPV4, 0, 0, 0));
        for answer in socket.dump(question)? {
            let attributes = answer.attributes(FIXED);
            let permanent = u16_at(&answer.body, 8) & STATE_PERMANENT != 0;
            if permanent
                && u32_at(&answer.body, 4) == applier
                && let Some(address) = attributes.find_address(DESTINATION)
                && let Some(mac) = mac(&answer)
            {
                seen.hosts.insert(address, mac);
            }
        }
        let question = Message::new("list forwarding entries", SHOW_NEIGHBOUR, 0).fixed(&fixed(
            FAMILY_BRIDGE,
            0,
            0,
            0,
        ));
        for answer in socket.dump(question)? {
            if u32_at(&answer.body, 4) != tunnel {
                continue;
            }
            let Some(mac) = mac(&answer) else { continue };
            let attributes = answer.attributes(FIXED);
            match attributes.find_address(DESTINATION) {
                Some(remote) if mac == FLOOD => {
                    seen.flooded.insert(remote);
                }
                Some(remote) => {
                    seen.forwards.insert(mac, remote);
                }
                // The bridge's half names no remote node, but the bridge. What is not "no ARP" is
                // the tunnel's own address.
                None if attributes.find(MASTER).is_some()
                    && u16_at(&answer.body, 8) & STATE_NO_ARP != 0 =>
                {
                    seen.behind.insert(mac);
                }
                None => {}
            }
        }
        Ok(seen)
    }
}

/// `ip neigh replace ADDRESS lladdr MAC dev INDEX nud permanent`
pub(crate) fn add_neighbour(index: u32, address: Ipv4Addr, mac: Mac) -> Message {
    Message::new(format!("add the neighbour {address}"), NEW_NEIGHBOUR, CREATE | REPLACE)
        .fixed(&fixed(FAMILY_IPV4, index, STATE_PERMANENT, 0))
        .address(DESTINATION, address)
        .bytes(ADDRESS, &mac)
}

/// `ip neigh del ADDRESS dev INDEX`
pub(crate) fn delete_neighbour(index: u32, address: Ipv4Addr) -> Message {
    Message::new(format!("remove the neighbour {address}"), DELETE_NEIGHBOUR, 0)
        .fixed(&fixed(FAMILY_IPV4, index, 0, 0))
        .address(DESTINATION, address)
        .tolerating(&[libc::ENOENT])
}

/// `bridge fdb replace MAC dev INDEX dst NODE self master static`: both tables, or the bridge would
/// flood every frame for it to all ports.
pub(crate) fn add_forward(index: u32, mac: Mac, node: Ipv4Addr) -> Message {
    Message::new(format!("add a forwarding entry to {node}"), NEW_NEIGHBOUR, CREATE | REPLACE)
        .fixed(&fixed(
            FAMILY_BRIDGE,
            index,
            STATE_NO_ARP | STATE_REACHABLE,
            FLAG_SELF | FLAG_MASTER,
        ))
        .bytes(ADDRESS, &mac)
        .address(DESTINATION, node)
}

/// `bridge fdb replace MAC dev INDEX master static`: who is behind a port of a bridge.
pub(crate) fn add_station(index: u32, mac: Mac) -> Message {
    Message::new("add a station to a bridge", NEW_NEIGHBOUR, CREATE | REPLACE)
        .fixed(&fixed(FAMILY_BRIDGE, index, STATE_NO_ARP | STATE_REACHABLE, FLAG_MASTER))
        .bytes(ADDRESS, &mac)
}

/// `bridge fdb del MAC dev INDEX self`, and the same with `master`: if one half has gone, a single
/// request would leave the other.
pub(crate) fn delete_forward(index: u32, mac: Mac) -> [Message; 2] {
    [FLAG_MASTER, FLAG_SELF].map(|flag| {
        Message::new("remove a forwarding entry", DELETE_NEIGHBOUR, 0)
            .fixed(&fixed(FAMILY_BRIDGE, index, 0, flag))
            .bytes(ADDRESS, &mac)
            .tolerating(&[libc::ENOENT])
    })
}

/// `bridge fdb replace MAC dev INDEX dst NODE self permanent`: a tunnel without a bridge.
pub(crate) fn add_tunnel(index: u32, mac: Mac, node: Ipv4Addr) -> Message {
    Message::new(format!("add a forwarding entry to {node}"), NEW_NEIGHBOUR, CREATE | REPLACE)
        .fixed(&fixed(FAMILY_BRIDGE, index, STATE_NO_ARP | STATE_PERMANENT, FLAG_SELF))
        .bytes(ADDRESS, &mac)
        .address(DESTINATION, node)
}

/// `bridge fdb del MAC dev INDEX self`
pub(crate) fn delete_tunnel(index: u32, mac: Mac) -> Message {
    Message::new("remove a forwarding entry", DELETE_NEIGHBOUR, 0)
        .fixed(&fixed(FAMILY_BRIDGE, index, 0, FLAG_SELF))
        .bytes(ADDRESS, &mac)
        .tolerating(&[libc::ENOENT])
}

/// `bridge fdb append 00:00:00:00:00:00 dev INDEX dst NODE self permanent`
pub(crate) fn add_flood(index: u32, node: Ipv4Addr) -> Message {
    Message::new(format!("flood to {node}"), NEW_NEIGHBOUR, CREATE | APPEND)
        .fixed(&fixed(FAMILY_BRIDGE, index, STATE_NO_ARP | STATE_PERMANENT, FLAG_SELF))
        .bytes(ADDRESS, &FLOOD)
        .address(DESTINATION, node)
        .tolerating(&[libc::EEXIST])
}

/// `bridge fdb del 00:00:00:00:00:00 dev INDEX dst NODE self`
pub(crate) fn delete_flood(index: u32, node: Ipv4Addr) -> Message {
    Message::new(format!("stop flooding to {node}"), DELETE_NEIGHBOUR, 0)
        .fixed(&fixed(FAMILY_BRIDGE, index, 0, FLAG_SELF))
        .bytes(ADDRESS, &FLOOD)
        .address(DESTINATION, node)
        .tolerating(&[libc::ENOENT])
}

/// `struct ndmsg`
fn fixed(family: u8, index: u32, state: u16, flags: u8) -> [u8; FIXED] {
    let mut bytes = [0; FIXED];
    bytes[0] = family;
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..10].copy_from_slice(&state.to_ne_bytes());
    bytes[10] = flags;
    bytes
}

fn mac(answer: &Received) -> Option<Mac> {
    answer.attributes(FIXED).find(ADDRESS)?.try_into().ok()
}
