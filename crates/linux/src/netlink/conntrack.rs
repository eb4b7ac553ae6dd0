//! Connection tracking: finding and deleting entries that lead to a back end which is no more.

use super::Socket;
use super::message::{Attributes, Message, Received};
use crate::error::Error;
use std::net::Ipv4Addr;
use types::Protocol;

const SUBSYSTEM: u16 = 1 << 8;
const SHOW: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const COUNT: u16 = SUBSYSTEM | 5;
const FAMILY_IPV4: u8 = 2;
/// `struct nfgenmsg`
const FIXED: [u8; 4] = [FAMILY_IPV4, 0, 0, 0];
const NESTED: u16 = 0x8000;

const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;

const FILTER: u16 = 25;
const FILTER_ORIGINAL: u16 = 1;
const FILTER_REPLY: u16 = 2;
const FILTER_SOURCE: u32 = 1;
const FILTER_DESTINATION: u32 = 1 << 1;
const FILTER_PROTOCOL: u32 = 1 << 3;
const FILTER_DESTINATION_PORT: u32 = 1 << 5;

const COUNT_ENTRIES: u16 = 1;

const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_SOURCE: u16 = 1;
const IP_DESTINATION: u16 = 2;
const PROTO_NUMBER: u16 = 1;
const PROTO_DESTINATION_PORT: u16 = 3;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A tracked connection whose destination was rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) protocol: Protocol,
    /// Where the client sent to.
    pub(crate) destination: Ipv4Addr,
    pub(crate) port: u16,
    /// Who answers.
    pub(crate) backend: Ipv4Addr,
}

/// Deletes the TCP and UDP entries with a rewritten destination for which `stale` says so, and
/// returns how many there were. As `conntrack -D` with a filter does, in the socket's namespace.
pub(crate) fn delete_flows(
    socket: &mut Socket,
    stale: impl Fn(&Flow) -> bool,
) -> Result<usize, Error> {
    if entries(socket)? == 0 {
        return Ok(0);
    }
    let question = Message::new("list tracked connections", SHOW, 0).fixed(&FIXED);
    let list = socket.dump(question)?;
    let deletions: Vec<Message> = list
        .iter()
        .filter(|entry| read(entry).is_some_and(|flow| stale(&flow)))
        .map(deletion)
        .collect();
    socket.send(&deletions)?;
    Ok(deletions.len())
}

/// Connections that lead to a back end which is no more, or takes no more of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Gone {
    pub(crate) protocol: Protocol,
    /// Where clients sent to; `None`: anywhere.
    pub(crate) destination: Option<Ipv4Addr>,
    pub(crate) port: Option<u16>,
    pub(crate) backend: Ipv4Addr,
}

impl Gone {
    fn covers(&self, flow: &Flow) -> bool {
        self.protocol == flow.protocol
            && self.backend == flow.backend
            && self.destination.is_none_or(|to| to == flow.destination)
            && self.port.is_none_or(|port| port == flow.port)
    }
}

/// Deletes entries: `conntrack -D -p PROTOCOL -d DESTINATION --dport PORT --reply-src BACKEND`. The
/// kernel, since 6.9 or so, finds those of one back end by itself; an older one is asked for the
/// list. So is any for several: each search goes through the one table of all namespaces, under a
/// lock of the whole machine.
pub(crate) fn forget(socket: &mut Socket, gone: &[Gone]) -> Result<(), Error> {
    if gone.is_empty() || entries(socket)? == 0 {
        return Ok(());
    }
    if let [one] = gone {
        match socket.send_one(filter(one)) {
            Err(error) if error.code().is_some_and(|code| FILTER_UNKNOWN.contains(&code)) => {}
            outcome => return outcome,
        }
    }
    delete_flows(socket, |flow| gone.iter().any(|gone| gone.covers(flow))).map(drop)
}

/// A kernel without filters for deletions takes the tuple for that of one entry, and finds it
/// incomplete.
const FILTER_UNKNOWN: [i32; 3] = [libc::EINVAL, libc::EOPNOTSUPP, libc::ENOENT];

fn filter(gone: &Gone) -> Message {
    let protocol = match gone.protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    };
    let mut flags = FILTER_PROTOCOL;
    if gone.destination.is_some() {
        flags |= FILTER_DESTINATION;
    }
    if gone.port.is_some() {
        flags |= FILTER_DESTINATION_PORT;
    }
    Message::new("forget tracked connections", DELETE, 0)
        .fixed(&FIXED)
        .nest(ORIGINAL, |tuple| {
            let tuple = match gone.destination {
                Some(to) => tuple.nest(TUPLE_IP, |ip| ip.address(IP_DESTINATION, to)),
                None => tuple,
            };
            tuple.nest(TUPLE_PROTO, |proto| {
                let proto = proto.byte(PROTO_NUMBER, protocol);
                match gone.port {
                    Some(port) => proto.port(PROTO_DESTINATION_PORT, port),
                    None => proto,
                }
            })
        })
        .nest(REPLY, |tuple| tuple.nest(TUPLE_IP, |ip| ip.address(IP_SOURCE, gone.backend)))
        .nest(FILTER, |filter| {
            filter.number(FILTER_ORIGINAL, flags).number(FILTER_REPLY, FILTER_SOURCE)
        })
}

/// Counts the entries of the socket's namespace. A list takes some 10 ms even if it is empty, since
/// the kernel goes through one table of all namespaces.
pub(crate) fn entries(socket: &mut Socket) -> Result<u32, Error> {
    let question = Message::new("count tracked connections", COUNT, 0).fixed(&FIXED);
    let answer = socket.ask(question)?;
    let count = answer.attributes(FIXED.len()).find(COUNT_ENTRIES);
    Ok(count.and_then(|bytes| bytes.try_into().ok()).map_or(u32::MAX, u32::from_be_bytes))
}

fn read(entry: &Received) -> Option<Flow> {
    let attributes = entry.attributes(FIXED.len());
    let original = attributes.find_nested(ORIGINAL)?;
    let proto = original.find_nested(TUPLE_PROTO)?;
    let protocol = match proto.find_byte(PROTO_NUMBER)? {
        TCP => Protocol::Tcp,
        UDP => Protocol::Udp,
        _ => return None,
    };
    let destination = original.find_nested(TUPLE_IP)?.find_address(IP_DESTINATION)?;
    let reply = attributes.find_nested(REPLY)?;
    let backend = reply.find_nested(TUPLE_IP)?.find_address(IP_SOURCE)?;
    let port = proto.find_port(PROTO_DESTINATION_PORT)?;
    (destination != backend).then_some(Flow { protocol, destination, port, backend })
}

/// The entry's own words name it: tuple (with its zone), zone, id.
fn deletion(entry: &Received) -> Message {
    let doing = "delete a tracked connection";
    let message = Message::new(doing, DELETE, 0).fixed(&FIXED).tolerating(&[libc::ENOENT]);
    let attributes: Attributes<'_> = entry.attributes(FIXED.len());
    [(ORIGINAL, ORIGINAL | NESTED), (ZONE, ZONE), (ID, ID)].into_iter().fold(
        message,
        |message, (kind, written)| match attributes.find(kind) {
            Some(value) => message.bytes(written, value),
            None => message,
        },
    )
}
