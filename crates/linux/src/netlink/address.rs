//! IPv4 addresses of interfaces.

use super::Socket;
use super::message::{CREATE, Message, REPLACE, u32_at};
use crate::error::Error;
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const SHOW_ADDRESS: u16 = 22;

const FAMILY_IPV4: u8 = 2;
/// The length of the fixed part, `struct ifaddrmsg`.
const FIXED: usize = 8;

const PEER: u16 = 1;
const LOCAL: u16 = 2;
const BROADCAST: u16 = 4;

/// All IPv4 addresses of a namespace: (index of the interface, address with prefix).
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses(Vec<(u32, Ipv4Net)>);

impl Addresses {
    /// Lists the addresses of the socket's namespace.
    pub(crate) fn observe(socket: &mut Socket) -> Result<Self, Error> {
        let question = Message::new("list addresses", SHOW_ADDRESS, 0).fixed(&[
            FAMILY_IPV4,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        ]);
        let mut list = Vec::new();
        for answer in socket.dump(question)? {
            let address = answer.attributes(FIXED).find_address(LOCAL);
            let prefix = answer.body.get(1).copied().unwrap_or(32);
            if let Some(net) = address.and_then(|address| Ipv4Net::new(address, prefix).ok()) {
                list.push((u32_at(&answer.body, 4), net));
            }
        }
        Ok(Self(list))
    }

    /// The index of the interface that has this address.
    pub(crate) fn applier(&self, address: Ipv4Addr) -> Option<u32> {
        self.0.iter().find(|(_, net)| net.addr() == address).map(|(index, _)| *index)
    }

    /// The addresses of one interface.
    pub(crate) fn of(&self, index: u32) -> impl Iterator<Item = Ipv4Net> {
        self.0.iter().filter(move |(at, _)| *at == index).map(|(_, net)| *net)
    }
}

/// `ip addr replace ADDRESS/PREFIX brd + dev INDEX`
pub(crate) fn add_address(index: u32, address: Ipv4Net) -> Message {
    let doing = format!("give an interface the address {address}");
    let broadcast: Ipv4Addr = address.broadcast();
    render(doing, NEW_ADDRESS, index, address)
        .address(BROADCAST, broadcast)
        .with_flags(CREATE | REPLACE)
}

/// `ip addr del ADDRESS/PREFIX dev INDEX`
pub(crate) fn delete_address(index: u32, address: Ipv4Net) -> Message {
    let doing = format!("take the address {address} from an interface");
    render(doing, DELETE_ADDRESS, index, address).tolerating(&[libc::EADDRNOTAVAIL])
}

fn render(doing: String, kind: u16, index: u32, address: Ipv4Net) -> Message {
    let mut fixed = [FAMILY_IPV4, address.prefix_len(), 0, 0, 0, 0, 0, 0];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    Message::new(doing, kind, 0)
        .fixed(&fixed)
        .address(LOCAL, address.addr())
        .address(PEER, address.addr())
}
