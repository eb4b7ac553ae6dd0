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

/// Counts the entries of the socket's namespace. A list takes some 10 ms even if it is empty, since
/// the kernel goes through one table of all namespaces.
fn entries(socket: &mut Socket) -> Result<u32, Error> {
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
