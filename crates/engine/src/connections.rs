//! Connections that clients have open to a container: what is waited for before it is stopped.

use std::collections::BTreeSet;

const ESTABLISHED: &str = "01";
const LISTEN: &str = "0A";

/// Counts established connections to ports that are listened on, from /proc/PID/net/tcp and tcp6.
pub(crate) fn count(tables: &[String]) -> usize {
    let sockets = || tables.iter().flat_map(|table| table.lines()).filter_map(socket);
    let listening: BTreeSet<&str> =
        sockets().filter(|(_, state)| *state == LISTEN).map(|(port, _)| port).collect();
    sockets().filter(|(port, state)| *state == ESTABLISHED && listening.contains(port)).count()
}

/// The local port and the state of `sl local_address rem_address st …`, all in hex.
fn socket(line: &str) -> Option<(&str, &str)> {
    let mut fields = line.split_whitespace();
    let (_, port) = fields.nth(1)?.rsplit_once(':')?;
    Some((port, fields.nth(1)?))
}

/// Reads the tables of a process's network namespace.
pub(crate) fn read(pid: u32) -> Vec<String> {
    let table = |name| std::fs::read_to_string(format!("/proc/{pid}/net/{name}"));
    ["tcp", "tcp6"].into_iter().filter_map(|name| table(name).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt";

    #[test]
    fn only_connections_to_listening_ports_count() {
        let tcp = format!(
            "{HEAD}\n\
             0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000\n\
             1: 0301000A:0050 0401000A:D431 01 00000000:00000000 00:00000000\n\
             2: 0301000A:0050 0401000A:D433 06 00000000:00000000 00:00000000\n\
             3: 0301000A:D000 0501000A:0CEA 01 00000000:00000000 00:00000000\n"
        );
        let tcp6 = format!(
            "{HEAD}\n\
             0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0:0\n\
             1: 0000000000000000FFFF00000301000A:1F90 0000000000000000FFFF00000401000A:D431 01 0:0\n"
        );
        assert_eq!(count(&[tcp, tcp6]), 2);
        assert_eq!(count(&[String::new(), "nonsense".to_owned()]), 0);
    }
}
