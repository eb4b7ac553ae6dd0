//! Interfaces: bridges, veth pairs, VXLAN tunnels.

use super::message::{Attributes, CREATE, EXCLUSIVE, Message, Received, u16_at, u32_at};
use super::{Mac, Socket};
use crate::error::Error;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const SHOW_LINK: u16 = 18;
const SET_LINK: u16 = 19;

const FAMILY_BRIDGE: u8 = 7;
const UP: u32 = 1;
/// The length of the fixed part, `struct ifinfomsg`.
const FIXED: usize = 16;

const ADDRESS: u16 = 1;
const NAME: u16 = 3;
const MTU: u16 = 4;
const MASTER: u16 = 10;
const PORT: u16 = 12;
const INFO: u16 = 18;
const NAMESPACE: u16 = 28;

const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_PORT: u16 = 5;

const BRIDGE_SNOOPING: u16 = 23;
const BRIDGE_FILTER: u16 = 36;
const PORT_STATE: u16 = 1;
const FORWARDING: u8 = 3;
const PORT_HAIRPIN: u16 = 4;
const PORT_LEARNING: u16 = 8;
const PORT_FLOOD: u16 = 9;
const PORT_SUPPRESSION: u16 = 32;
const PORT_ISOLATED: u16 = 33;
const PORT_LOCKED: u16 = 39;
const VETH_PEER: u16 = 1;
const VXLAN_ID: u16 = 1;
const VXLAN_LOCAL: u16 = 4;
const VXLAN_LEARNING: u16 = 7;
const VXLAN_PORT: u16 = 15;

/// What an interface is, as far as we care.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LinkKind {
    Bridge,
    Veth,
    Vxlan { vni: u32, local: Option<Ipv4Addr>, port: u16 },
    Other,
}

/// An interface that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) up: bool,
    pub(crate) mtu: u32,
    pub(crate) mac: Option<Mac>,
    /// The index of the bridge that it is a port of.
    pub(crate) master: Option<u32>,
    /// It is a port, and its bridge lets frames through.
    pub(crate) forwarding: bool,
    pub(crate) kind: LinkKind,
}

/// All interfaces of a namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Links(pub(crate) Vec<Link>);

impl Links {
    /// Lists the interfaces of the socket's namespace.
    pub(crate) fn observe(socket: &mut Socket) -> Result<Self, Error> {
        let question = Message::new("list interfaces", SHOW_LINK, 0).fixed(&fixed(0, 0, 0, 0));
        let list = socket.dump(question)?;
        Ok(Self(list.iter().filter(|answer| answer.kind == NEW_LINK).map(read).collect()))
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Link> {
        self.0.iter().find(|link| link.name == name)
    }
}

/// Finds one interface of the socket's namespace by its name.
pub(crate) fn find_link(socket: &mut Socket, name: &str) -> Result<Option<Link>, Error> {
    let doing = format!("find the interface {name}");
    let question = Message::new(doing, SHOW_LINK, 0).fixed(&fixed(0, 0, 0, 0)).text(NAME, name);
    match socket.ask(question) {
        Ok(answer) => Ok(Some(read(&answer))),
        Err(error) if error.code() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A bridge to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bridge<'a> {
    pub(crate) name: &'a str,
    /// Fixed, because a bridge otherwise takes on the address of one of its ports.
    pub(crate) mac: Mac,
    pub(crate) mtu: u32,
}

/// A veth pair to be made. The near end is up and a port of `master`; the far end is down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Veth<'a> {
    pub(crate) name: &'a str,
    pub(crate) mtu: u32,
    pub(crate) master: Option<u32>,
    pub(crate) peer: &'a str,
    pub(crate) peer_mac: Option<Mac>,
    pub(crate) peer_namespace: BorrowedFd<'a>,
}

/// A VXLAN tunnel to be made. Its UDP socket stays in the namespace of the netlink socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vxlan<'a> {
    pub(crate) name: &'a str,
    pub(crate) vni: u32,
    pub(crate) local: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: u32,
}

/// `ip link add NAME address MAC mtu MTU type bridge mcast_snooping 0`, and up.
pub(crate) fn add_bridge(bridge: Bridge<'_>) -> Message {
    Message::new(format!("make the bridge {}", bridge.name), NEW_LINK, CREATE | EXCLUSIVE)
        .fixed(&fixed(0, 0, UP, UP))
        .text(NAME, bridge.name)
        .bytes(ADDRESS, &bridge.mac)
        .number(MTU, bridge.mtu)
        .nest(INFO, |info| {
            info.text(INFO_KIND, "bridge").nest(INFO_DATA, |data| data.byte(BRIDGE_SNOOPING, 0))
        })
}

/// `ip link add NAME mtu MTU master M type veth peer name PEER address MAC mtu MTU netns NS`
pub(crate) fn add_veth(veth: &Veth<'_>) -> Message {
    let doing = format!("make the interface pair {} and {}", veth.name, veth.peer);
    let message = Message::new(doing, NEW_LINK, CREATE | EXCLUSIVE)
        .fixed(&fixed(0, 0, UP, UP))
        .text(NAME, veth.name)
        .number(MTU, veth.mtu);
    let message = match veth.master {
        Some(master) => message.number(MASTER, master),
        None => message,
    };
    let peer = |data: Message| {
        // The far end may not be up here: it has not reached its namespace yet.
        data.nest(VETH_PEER, |peer| {
            let peer = peer.fixed(&fixed(0, 0, 0, 0)).text(NAME, veth.peer).number(MTU, veth.mtu);
            let peer = match veth.peer_mac {
                Some(mac) => peer.bytes(ADDRESS, &mac),
                None => peer,
            };
            peer.bytes(NAMESPACE, &veth.peer_namespace.as_raw_fd().to_ne_bytes())
        })
    };
    message.nest(INFO, |info| info.text(INFO_KIND, "veth").nest(INFO_DATA, peer))
}

/// `ip link add NAME mtu MTU type vxlan id VNI dstport PORT local LOCAL nolearning`
pub(crate) fn add_vxlan(vxlan: &Vxlan<'_>) -> Message {
    let doing = format!("make the tunnel {} with VNI {}", vxlan.name, vxlan.vni);
    let message = Message::new(doing, NEW_LINK, CREATE | EXCLUSIVE)
        .fixed(&fixed(0, 0, 0, 0))
        .text(NAME, vxlan.name)
        .number(MTU, vxlan.mtu);
    let message = match vxlan.mac {
        Some(mac) => message.bytes(ADDRESS, &mac),
        None => message,
    };
    message.nest(INFO, |info| {
        info.text(INFO_KIND, "vxlan").nest(INFO_DATA, |data| {
            data.number(VXLAN_ID, vxlan.vni)
                .address(VXLAN_LOCAL, vxlan.local)
                .byte(VXLAN_LEARNING, 0)
                .port(VXLAN_PORT, vxlan.port)
        })
    })
}

/// `ip link set INDEX netns NS name NAME`
pub(crate) fn move_link(index: u32, namespace: BorrowedFd<'_>, name: &str) -> Message {
    Message::new(format!("move the interface {name} to its namespace"), SET_LINK, 0)
        .fixed(&fixed(0, index, 0, 0))
        .bytes(NAMESPACE, &namespace.as_raw_fd().to_ne_bytes())
        .text(NAME, name)
}

/// `ip link del INDEX`; it is fine if it has gone.
pub(crate) fn delete_link(index: u32) -> Message {
    Message::new("remove an interface", DELETE_LINK, 0)
        .fixed(&fixed(0, index, 0, 0))
        .tolerating(&[libc::ENODEV])
}

/// `ip link set INDEX up` or `down`
pub(crate) fn set_up(index: u32, up: bool) -> Message {
    Message::new("switch an interface", SET_LINK, 0).fixed(&fixed(0, index, u32::from(up), UP))
}

/// `ip link set INDEX mtu MTU`
pub(crate) fn set_mtu(index: u32, mtu: u32) -> Message {
    Message::new("set an interface's MTU", SET_LINK, 0)
        .fixed(&fixed(0, index, 0, 0))
        .number(MTU, mtu)
}

/// `ip link set INDEX master BRIDGE`
pub(crate) fn set_master(index: u32, bridge: u32) -> Message {
    Message::new("make an interface a port of its bridge", SET_LINK, 0)
        .fixed(&fixed(0, index, 0, 0))
        .number(MASTER, bridge)
}

/// `ip link set INDEX type bridge nf_call_iptables FILTER`: frames between its ports pass the rules for
/// packets. Kernels without such rules for bridges pass over it.
pub(crate) fn set_bridge_filter(index: u32, filter: bool) -> Message {
    Message::new("set what passes a bridge", NEW_LINK, 0).fixed(&fixed(0, index, 0, 0)).nest(
        INFO,
        |info| {
            info.text(INFO_KIND, "bridge")
                .nest(INFO_DATA, |data| data.byte(BRIDGE_FILTER, u8::from(filter)))
        },
    )
}

/// `bridge link set dev INDEX learning off neigh_suppress on`
pub(crate) fn set_tunnel_port(index: u32) -> Message {
    Message::new("set the tunnel's bridge port", SET_LINK, 0)
        .fixed(&fixed(FAMILY_BRIDGE, index, 0, 0))
        .nest(PORT, |port| port.byte(PORT_LEARNING, 0).byte(PORT_SUPPRESSION, 1))
}

/// How a container's port deals with the other ports of its bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContainerPort {
    /// Frames go to other ports.
    Open,
    /// Frames go to other ports, and back by the same one.
    Hairpin,
    /// Frames go to the bridge itself alone.
    Isolated,
}

/// `bridge link set dev INDEX hairpin HAIRPIN learning off flood off locked on isolated
/// ISOLATED`: a port takes
/// frames from static stations alone, and gets what is for them. There is no bridging between
/// isolated ports; frames come back by a hairpin port. Kernels before 5.16 know no locked ports and pass over the word.
pub(crate) fn set_container_port(index: u32, kind: ContainerPort) -> Message {
    let isolated = kind == ContainerPort::Isolated;
    let hairpin = kind == ContainerPort::Hairpin;
    Message::new("guard a bridge port", SET_LINK, 0).fixed(&fixed(FAMILY_BRIDGE, index, 0, 0)).nest(
        PORT,
        |port| {
            port.byte(PORT_HAIRPIN, u8::from(hairpin))
                .byte(PORT_LEARNING, 0)
                .byte(PORT_FLOOD, 0)
                .byte(PORT_ISOLATED, u8::from(isolated))
                .byte(PORT_LOCKED, 1)
        },
    )
}

/// `struct ifinfomsg`
fn fixed(family: u8, index: u32, flags: u32, change: u32) -> [u8; FIXED] {
    let mut bytes = [0; FIXED];
    bytes[0] = family;
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

fn read(answer: &Received) -> Link {
    let attributes = answer.attributes(FIXED);
    let info = attributes.find_nested(INFO);
    let port = info.as_ref().and_then(|info| info.find_nested(INFO_PORT));
    Link {
        index: u32_at(&answer.body, 4),
        name: attributes.find_text(NAME).unwrap_or_default(),
        up: u32_at(&answer.body, 8) & UP != 0,
        mtu: attributes.find_number(MTU).unwrap_or_default(),
        mac: attributes.find(ADDRESS).and_then(|bytes| bytes.try_into().ok()),
        master: attributes.find_number(MASTER),
        forwarding: port.and_then(|port| port.find_byte(PORT_STATE)) == Some(FORWARDING),
        kind: info.map_or(LinkKind::Other, |info| read_kind(&info)),
    }
}

fn read_kind(info: &Attributes<'_>) -> LinkKind {
    match info.find_text(INFO_KIND).as_deref() {
        Some("bridge") => LinkKind::Bridge,
        Some("veth") => LinkKind::Veth,
        Some("vxlan") => {
            let data = info.find_nested(INFO_DATA).unwrap_or(Attributes(&[]));
            let port = data.find(VXLAN_PORT).map(|bytes| u16::from_be(u16_at(bytes, 0)));
            LinkKind::Vxlan {
                vni: data.find_number(VXLAN_ID).unwrap_or_default(),
                local: data.find_address(VXLAN_LOCAL),
                port: port.unwrap_or_default(),
            }
        }
        Some(_) | None => LinkKind::Other,
    }
}
