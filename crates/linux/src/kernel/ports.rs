//! Published ports on this node: each is bound, so that no process of the node takes it later, and
//! one that a process has already is left to it.

use socket2::{Domain, Protocol as Transport, Socket, Type};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
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
    /// Takes what is wanted as far as nobody else has it, and gives back the rest. What could not be
    /// taken before is tried again only where `tries`. The thread must be in the node's namespace.
    pub(super) fn hold(&mut self, wanted: impl Iterator<Item = Key> + Clone, tries: bool) {
        let wanted: BTreeSet<Key> = wanted.collect();
        self.sockets.retain(|key, _| wanted.contains(key));
        self.refused.retain(|key, _| wanted.contains(key));
        let mut missed = BTreeSet::new();
        for key in wanted {
            let is_done = match self.sockets.get(&key) {
                Some(Some(_)) => true,
                Some(None) => !tries,
                None => !tries && self.refused.contains_key(&key),
            };
            if is_done {
                continue;
            }
            match bind(key) {
                Ok(socket) => {
                    self.refused.remove(&key);
                    self.sockets.insert(key, Some(socket));
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    missed.insert(key);
                }
                // Without descriptors, say. The port is published all the same.
                Err(error) => {
                    tracing::warn!(port = text(key), %error, "cannot keep the port from others");
                    self.sockets.insert(key, None);
                }
            }
        }
        self.miss(missed);
    }

    /// Finds out who has these. The kernel's tables, with a line for each connection of the node, are
    /// read once for all of them.
    fn miss(&mut self, keys: BTreeSet<Key>) {
        let found = listeners(&keys);
        for key in keys {
            let Some(inode) = found.get(&key) else {
                self.refused.remove(&key);
                self.sockets.insert(key, None);
                continue;
            };
            self.sockets.remove(&key);
            self.refused.entry(key).or_insert_with(|| {
                let who = owner(*inode).unwrap_or_else(|| "a process".to_owned());
                format!("port {} is in use on this node by {who}", text(key))
            });
        }
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

/// Finds the sockets that listen at ports, by the numbers of their inodes.
fn listeners(keys: &BTreeSet<Key>) -> BTreeMap<Key, u64> {
    let mut found = BTreeMap::new();
    for (protocol, files, state) in
        [(Protocol::Tcp, ["tcp", "tcp6"], LISTENING), (Protocol::Udp, ["udp", "udp6"], UNCONNECTED)]
    {
        let ports: BTreeSet<u16> =
            keys.iter().filter(|key| key.0 == protocol).map(|key| key.1).collect();
        for file in files.into_iter().filter(|_| !ports.is_empty()) {
            let Ok(table) = File::open(format!("/proc/thread-self/net/{file}")) else { continue };
            for (port, inode) in find(BufReader::new(table), &ports, state) {
                found.entry((protocol, port)).or_insert(inode);
            }
        }
    }
    found
}

/// Reads the kernel's table of sockets: address:port in hexadecimal digits, state, inode. Of several
/// at a port, the first counts.
fn find(mut table: impl BufRead, ports: &BTreeSet<u16>, state: &str) -> BTreeMap<u16, u64> {
    let mut found = BTreeMap::new();
    let mut line = String::new();
    while table.read_line(&mut line).is_ok_and(|length| length != 0) {
        if let Some((port, inode)) = listener(&line, state).filter(|(port, _)| ports.contains(port))
        {
            found.entry(port).or_insert(inode);
        }
        line.clear();
    }
    found
}

fn listener(line: &str, state: &str) -> Option<(u16, u64)> {
    let mut fields = line.split_whitespace();
    let (_, port) = fields.nth(1)?.rsplit_once(':')?;
    // After the other end.
    if fields.nth(1)? != state {
        return None;
    }
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((port, fields.nth(5)?.parse().ok()?))
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
            \x20  1: 0100007F:1F91 0100007F:C000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1\n\
            \x20  2: 0200007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1\n\
            \x20  3: 0100007F:1F92 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4714 1\n";
        let found = |ports: &[u16]| {
            let ports = ports.iter().copied().collect();
            find(table.as_bytes(), &ports, LISTENING).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(found(&[8080]), [(8080, 4711)]);
        assert_eq!(found(&[8082, 8081, 808]), [(8082, 4714)]);
        assert_eq!(found(&[8080, 8082]), [(8080, 4711), (8082, 4714)]);
    }

    #[test]
    fn a_port_that_somebody_else_has_is_looked_at_again_only_where_that_is_asked_for() {
        let others = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let key = (Protocol::Tcp, others.local_addr().unwrap().port());
        let mut ports = Ports::default();
        ports.hold([key].into_iter(), false);
        assert!(ports.refused[&key].contains("is in use on this node by"), "{:?}", ports.refused);
        drop(others);
        ports.hold([key].into_iter(), false);
        assert!(ports.refused.contains_key(&key), "nothing says that it may be free");
        ports.hold([key].into_iter(), true);
        assert!(ports.refused.is_empty() && ports.sockets[&key].is_some());
        // One that is wanted for the first time is always tried.
        ports.hold([].into_iter(), false);
        ports.hold([key].into_iter(), false);
        assert!(ports.sockets[&key].is_some());
    }
}
