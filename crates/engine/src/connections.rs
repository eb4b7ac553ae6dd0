//! Clients that are connected to a container: what is waited for before it is stopped.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ESTABLISHED: &str = "01";
const LISTEN: &str = "0A";

/// Says whether somebody from elsewhere is connected to one of these ports or, where none is named,
/// to any that a process with this network listens on. Reads as far as the first that is found.
pub(crate) fn has_client(pid: u32, ports: &BTreeSet<u16>) -> bool {
    ["tcp", "tcp6"].into_iter().any(|name| {
        let table = File::open(format!("/proc/{pid}/net/{name}"));
        table.is_ok_and(|table| finds_client(BufReader::new(table), ports))
    })
}

/// Looks through a table of /proc/net, where sockets that listen come first.
fn finds_client(mut table: impl BufRead, ports: &BTreeSet<u16>) -> bool {
    let mut listening = BTreeSet::new();
    let mut line = String::new();
    while table.read_line(&mut line).is_ok_and(|length| length != 0) {
        if let Some(socket) = read(&line) {
            let counts = if ports.is_empty() { &listening } else { ports };
            if socket.state == ESTABLISHED && counts.contains(&socket.port) && socket.is_elsewhere {
                return true;
            }
            if socket.state == LISTEN {
                listening.insert(socket.port);
            }
        }
        line.clear();
    }
    false
}

struct Socket<'a> {
    port: u16,
    state: &'a str,
    /// The other end is in another network.
    is_elsewhere: bool,
}

/// Reads `sl local_address rem_address st …`, all in hex.
fn read(line: &str) -> Option<Socket<'_>> {
    let mut fields = line.split_whitespace().skip(1);
    let ((local, port), (remote, _)) = (end(fields.next()?)?, end(fields.next()?)?);
    let is_elsewhere = local != remote && !remote.is_loopback();
    Some(Socket { port, state: fields.next()?, is_elsewhere })
}

/// Reads an address, words of the host's byte order, with a port.
fn end(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok();
    let word = |at: usize| word(at).map(u32::to_ne_bytes);
    let address = if address.len() == 8 {
        Ipv4Addr::from(word(0)?).into()
    } else {
        let words = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
        IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?)).to_canonical()
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a client is found among these sockets: local end, remote end, state.
    fn check(sockets: &[&str], ports: &[u16], found: bool) {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n";
        let lines = sockets.iter().map(|socket| format!("   0: {socket} 00000000:00000000\n"));
        let table = format!("{head}{}", lines.collect::<String>());
        let ports = ports.iter().copied().collect();
        assert_eq!(finds_client(table.as_bytes(), &ports), found, "{sockets:?} {ports:?}");
    }

    #[test]
    fn clients_from_elsewhere_at_ports_that_count_are_found() {
        let client = "0301000A:0050 0401000A:D431 01";
        check(&[client], &[80], true);
        check(&[client], &[81, 80], true);
        check(&[client], &[443], false);
        // It ends already.
        check(&["0301000A:0050 0401000A:D433 06"], &[80], false);
        // The container itself is a client.
        check(&["0301000A:D431 0401000A:0050 01"], &[80], false);
        let mapped =
            "0000000000000000FFFF00000301000A:0050 0000000000000000FFFF00000401000A:D431 01";
        check(&[mapped], &[80], true);
    }

    #[test]
    fn who_talks_to_himself_is_no_client() {
        check(&["0301000A:0050 0301000A:D431 01"], &[80], false);
        check(&["0100007F:0050 0100007F:D431 01"], &[80], false);
        let loopback =
            "00000000000000000000000001000000:0050 00000000000000000000000001000000:D431";
        check(&[&format!("{loopback} 01")], &[80], false);
        let mapped = "0000000000000000FFFF00000100007F:0050 0000000000000000FFFF00000100007F:D431";
        check(&[&format!("{mapped} 01")], &[80], false);
    }

    #[test]
    fn where_no_port_is_named_those_that_are_listened_on_count() {
        let (listener, client) =
            ("00000000:0050 00000000:0000 0A", "0301000A:0050 0401000A:D431 01");
        check(&[listener, client], &[], true);
        check(&[client], &[], false);
        check(&["nonsense", ":", listener], &[], false);
    }
}
