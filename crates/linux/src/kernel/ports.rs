//! Published ports on this node: each is bound, so that no process of the node takes it later, and
//! one that a process has already is left to it.

use socket2::{Domain, Protocol as Transport, Socket, Type};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use types::Protocol;

/// A protocol and a published port.
pub(super) type Key = (Protocol, u16);

/// `TCP_LISTEN`, and for UDP what is not connected (`TCP_CLOSE`), as /proc/net writes them.
const LISTENING: &str = "0A";
const UNCONNECTED: &str = "07";

/// The published ports of this node.
#[derive(Debug, Default)]
pub(super) struct Ports {
    /// `None`: nobody listens there, but it cannot be bound yet, since a connection of former times
    /// has it.
    sockets: BTreeMap<Key, Option<Socket>>,
    /// Those that somebody else has, and who.
    pub(super) refused: BTreeMap<Key, String>,
}

impl Ports {
    /// Takes what is wanted as far as nobody else has it, and gives back the rest. The thread must
    /// be in the node's namespace.
    pub(super) fn hold(&mut self, wanted: impl Iterator<Item = Key> + Clone) {
        let wanted: std::collections::BTreeSet<Key> = wanted.collect();
        self.sockets.retain(|key, _| wanted.contains(key));
        self.refused.retain(|key, _| wanted.contains(key));
        for key in wanted {
            if self.sockets.get(&key).is_some_and(Option::is_some) {
                continue;
            }
            match bind(key) {
                Ok(socket) => {
                    self.refused.remove(&key);
                    self.sockets.insert(key, Some(socket));
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => self.miss(key),
                // Without descriptors, say. The port is published all the same.
                Err(error) => {
                    tracing::warn!(port = text(key), %error, "cannot keep the port from others");
                    self.sockets.insert(key, None);
                }
            }
        }
    }

    fn miss(&mut self, key: Key) {
        let Some(inode) = listener(key) else {
            self.refused.remove(&key);
            self.sockets.insert(key, None);
            return;
        };
        self.sockets.remove(&key);
        self.refused.entry(key).or_insert_with(|| {
            let who = owner(inode).unwrap_or_else(|| "a process".to_owned());
            format!("port {} is in use on this node by {who}", text(key))
        });
    }
}

fn text((protocol, port): Key) -> String {
    format!("{port}/{}", protocol.as_str())
}

/// Binds without listening: nothing is ever received here, since rules lead elsewhere.
fn bind((protocol, port): Key) -> io::Result<Socket> {
    let (kind, transport) = match protocol {
        Protocol::Tcp => (Type::STREAM, Transport::TCP),
        Protocol::Udp => (Type::DGRAM, Transport::UDP),
    };
    let socket = Socket::new(Domain::IPV4, kind, Some(transport))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    if protocol == Protocol::Udp {
        // What comes in while rules are away is not kept.
        socket.shutdown(std::net::Shutdown::Read).or_else(|error| match error.kind() {
            io::ErrorKind::NotConnected => Ok(()),
            _ => Err(error),
        })?;
    }
    Ok(socket)
}

/// Finds the socket that listens at a port, by the number of its inode.
fn listener((protocol, port): Key) -> Option<u64> {
    let (files, state) = match protocol {
        Protocol::Tcp => (["tcp", "tcp6"], LISTENING),
        Protocol::Udp => (["udp", "udp6"], UNCONNECTED),
    };
    files.into_iter().find_map(|file| {
        let table = fs::read_to_string(format!("/proc/thread-self/net/{file}")).ok()?;
        find(&table, port, state)
    })
}

/// Reads the kernel's table of sockets: address:port in hexadecimal digits, state, inode.
fn find(table: &str, port: u16, state: &str) -> Option<u64> {
    let end = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let here = fields.get(1)?.ends_with(&end) && *fields.get(3)? == state;
        fields.get(9)?.parse().ok().filter(|_| here)
    })
}

/// The process that has a socket open, as far as it can be seen.
fn owner(inode: u64) -> Option<String> {
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.into_iter().find_map(|pid| {
        let mut open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        open.find(|file| fs::read_link(file.path()).is_ok_and(|to| to == Path::new(&wanted)))?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(format!("{} (process {pid})", name.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_who_listen_hold_a_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n\
            \x20  1: 0100007F:1F91 0100007F:C000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1\n";
        assert_eq!(find(table, 8080, LISTENING), Some(4711));
        assert_eq!(find(table, 8081, LISTENING), None);
        assert_eq!(find(table, 808, LISTENING), None);
    }
}
