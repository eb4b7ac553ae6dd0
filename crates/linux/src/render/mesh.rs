//! The tables in the node's own namespace: published ports, the routing mesh, the way out.
//!
//! A connection that enters by any node goes to a task here (its address on the gateway bridge) or,
//! through the tunnel, to a task elsewhere (its address on the ingress network). The client's
//! address is kept: the node of the task remembers by mark from which node a connection came, and
//! sends the replies back there.

use super::{elements, list, removal, replacing, turns};
use crate::netlink::{mac_of, mac_text};
use discovery::MeshRules;
use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;
use types::Protocol;

pub(crate) const TABLE: &str = "skep_mesh";
/// The bit that marks a connection from another node of the mesh.
pub(crate) const MARK: u32 = 0x1_0000;

/// What the tables depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mesh<'a> {
    pub(crate) rules: &'a MeshRules,
    /// The gateway bridge and its subnet.
    pub(crate) bridge: &'a str,
    pub(crate) subnet: Ipv4Net,
    /// The tunnel of the mesh.
    pub(crate) tunnel: &'a str,
}

/// The next hop of replies: an address that no node has, in the ingress network (10.255.255.254).
/// The tunnel's egress rules put the right node's hardware address in its place.
pub(crate) fn next_hop(ingress: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(ingress) & 0xffff_0000 | 0xfffe)
}

/// Where a published port leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Port {
    target: u16,
    backends: Vec<Ipv4Addr>,
}

/// All published ports. One that is published in host mode here belongs to its container.
fn ports(rules: &MeshRules) -> BTreeMap<(Protocol, u16), Port> {
    let mesh = rules
        .ports
        .iter()
        .map(|(key, port)| (*key, Port { target: port.target, backends: port.backends.clone() }));
    let host = rules
        .host_ports
        .iter()
        .map(|(key, (address, target))| (*key, Port { target: *target, backends: vec![*address] }));
    mesh.chain(host).collect()
}

/// Renders both tables, replacing what is there.
pub(crate) fn whole(mesh: &Mesh<'_>) -> String {
    let mut text = replacing("ip", TABLE);
    let ports = ports(mesh.rules);
    let _ = writeln!(text, "table ip {TABLE} {{");
    sets(&mut text, mesh, &ports);
    for (key, port) in ports.iter().filter(|(_, port)| !port.backends.is_empty()) {
        let _ = writeln!(text, "\tchain {} {{ {}; }}", chain(*key), rule(*key, port));
    }
    filters(&mut text, mesh);
    translations(&mut text, mesh);
    text.push_str("}\n");
    egress(&mut text, mesh);
    text
}

fn sets(text: &mut String, mesh: &Mesh<'_>, ports: &BTreeMap<(Protocol, u16), Port>) {
    let rules = mesh.rules;
    let nodes = rules.local.iter().chain(rules.peers.values());
    let nodes: std::collections::BTreeSet<_> = nodes.collect();
    let open = ports.iter().filter(|(_, port)| !port.backends.is_empty());
    let refused = ports.iter().filter(|(_, port)| port.backends.is_empty());
    let _ = writeln!(
        text,
        "	map peers {{ type ether_addr : mark;{} }}
	map tasks {{ type ipv4_addr : ipv4_addr;{} }}
	set nodes {{ type ipv4_addr;{} }}
	map ports {{ type inet_proto . inet_service : verdict;{} }}
	set refused {{ type inet_proto . inet_service;{} }}",
        elements(rules.peers.keys().map(|peer| format!("{} : {:#x}", mac(*peer), mark(*peer)))),
        elements(rules.local_tasks.iter().map(|(task, to)| format!("{task} : {to}"))),
        elements(nodes),
        elements(open.map(|(key, _)| element(*key))),
        elements(refused.map(|(key, _)| key_text(*key))),
    );
}

fn filters(text: &mut String, mesh: &Mesh<'_>) {
    let Mesh { rules, bridge, tunnel, .. } = mesh;
    // Port 0: there is no tunnel yet.
    let port = if rules.port == 0 { 4789 } else { rules.port };
    // `route_localnet` is on for connections from the node itself; nobody else may use it.
    let _ = writeln!(
        text,
        "	chain raw {{
		type filter hook prerouting priority -300; policy accept;
		udp dport {port} notrack
		iifname {{ \"{tunnel}\", \"{bridge}\" }} ip daddr 127.0.0.0/8 drop"
    );
    if !rules.peers.is_empty() {
        // One client port by way of two nodes to one task is two connections with the same five
        // numbers; the zone keeps them apart.
        let zones =
            list(rules.peers.keys().map(|peer| format!("{} : {}", mac(*peer), zone(*peer))));
        let _ = writeln!(
            text,
            "\t\tiifname \"{tunnel}\" ct original zone set ether saddr map {{ {zones} }}"
        );
    }
    let _ = writeln!(
        text,
        "	}}
	chain rawout {{
		type filter hook output priority -300; policy accept;
		udp dport {port} notrack
	}}
	chain mangle {{
		type filter hook prerouting priority -150; policy accept;
		iifname \"{tunnel}\" ct state new ct mark set ether saddr map @peers
		iifname \"{bridge}\" ct direction reply ct mark and {MARK:#x} == {MARK:#x} meta mark set ct mark
	}}
	chain mss {{
		type filter hook forward priority -150; policy accept;
		oifname \"{tunnel}\" tcp flags syn tcp option maxseg size set rt mtu
	}}
	chain refuse {{
		type filter hook input priority 0; policy accept;
		ct state new fib daddr type local meta l4proto . th dport @refused jump reject_new
	}}
	chain reject_new {{
		meta l4proto tcp reject with tcp reset
		reject with icmp port-unreachable
	}}"
    );
}

fn translations(text: &mut String, mesh: &Mesh<'_>) {
    let Mesh { bridge, tunnel, subnet, .. } = mesh;
    let _ = writeln!(
        text,
        "	chain pre {{
		type nat hook prerouting priority -100; policy accept;
		iifname \"{tunnel}\" dnat to ip daddr map @tasks
		fib daddr type local meta l4proto . th dport vmap @ports
	}}
	chain out {{
		type nat hook output priority -100; policy accept;
		fib daddr type local meta l4proto . th dport vmap @ports
	}}
	chain post {{
		type nat hook postrouting priority 100; policy accept;
		oifname {{ \"{tunnel}\", \"{bridge}\" }} ip saddr 127.0.0.0/8 masquerade
		oifname \"{bridge}\" ip saddr {subnet} ct status dnat masquerade
		oifname \"{tunnel}\" ip saddr @nodes masquerade
		oifname != \"{bridge}\" ip saddr {subnet} ct direction original masquerade
	}}",
        subnet = subnet.trunc(),
    );
}

/// Replies carry the mark of the node that they go back to; it becomes the hardware address.
fn egress(text: &mut String, mesh: &Mesh<'_>) {
    let Some(ingress) = mesh.rules.ingress else {
        text.push_str(&removal("netdev", TABLE));
        return;
    };
    let peers = mesh.rules.peers.keys();
    let fake = mac(next_hop(ingress));
    let _ = write!(
        text,
        "{}table netdev {TABLE} {{
	map macs {{ type mark : ether_addr;{} }}
	chain egress {{
		type filter hook egress device \"{}\" priority 0; policy accept;
		ether daddr {fake} ether daddr set meta mark map @macs
	}}
}}
",
        replacing("netdev", TABLE),
        elements(peers.map(|peer| format!("{:#x} : {}", mark(*peer), mac(*peer)))),
        mesh.tunnel,
    );
}

/// Renders what leads from `old` to `new`; `None` where the tables are the same. Tasks and ports
/// change one by one, other nodes with the whole tables.
pub(crate) fn difference(old: &MeshRules, new: &Mesh<'_>) -> Option<String> {
    let same_nodes = old.ingress == new.rules.ingress
        && old.local == new.rules.local
        && old.port == new.rules.port
        && old.peers == new.rules.peers;
    if !same_nodes {
        return Some(whole(new));
    }
    let mut text = String::new();
    for (task, to) in &old.local_tasks {
        if new.rules.local_tasks.get(task) != Some(to) {
            let _ = writeln!(text, "delete element ip {TABLE} tasks {{ {task} }}");
        }
    }
    for (task, to) in &new.rules.local_tasks {
        if old.local_tasks.get(task) != Some(to) {
            let _ = writeln!(text, "add element ip {TABLE} tasks {{ {task} : {to} }}");
        }
    }
    let (before, after) = (ports(old), ports(new.rules));
    for (key, port) in &after {
        if before.get(key) != Some(port) {
            change(&mut text, *key, before.get(key), port);
        }
    }
    for (key, port) in &before {
        if !after.contains_key(key) {
            forget(&mut text, *key, port);
        }
    }
    (!text.is_empty()).then_some(text)
}

fn change(text: &mut String, key: (Protocol, u16), before: Option<&Port>, after: &Port) {
    if let Some(before) = before {
        if !before.backends.is_empty() && !after.backends.is_empty() {
            let chain = chain(key);
            let _ = writeln!(text, "flush chain ip {TABLE} {chain}");
            let _ = writeln!(text, "add rule ip {TABLE} {chain} {}", rule(key, after));
            return;
        }
        forget(text, key, before);
    }
    if after.backends.is_empty() {
        let _ = writeln!(text, "add element ip {TABLE} refused {{ {} }}", key_text(key));
        return;
    }
    let chain = chain(key);
    let _ = writeln!(text, "add chain ip {TABLE} {chain}");
    let _ = writeln!(text, "add rule ip {TABLE} {chain} {}", rule(key, after));
    let _ = writeln!(text, "add element ip {TABLE} ports {{ {} }}", element(key));
}

fn forget(text: &mut String, key: (Protocol, u16), before: &Port) {
    let name = key_text(key);
    if before.backends.is_empty() {
        let _ = writeln!(text, "delete element ip {TABLE} refused {{ {name} }}");
        return;
    }
    let chain = chain(key);
    let _ = writeln!(text, "delete element ip {TABLE} ports {{ {name} }}");
    let _ = writeln!(text, "flush chain ip {TABLE} {chain}");
    let _ = writeln!(text, "delete chain ip {TABLE} {chain}");
}

/// nft wants the protocol in the same rule as a port to translate to.
fn rule((protocol, _): (Protocol, u16), port: &Port) -> String {
    let turns = turns(&port.backends);
    format!("meta l4proto {} dnat to {turns} : {}", protocol.as_str(), port.target)
}

fn chain((protocol, port): (Protocol, u16)) -> String {
    format!("port_{}_{port}", protocol.as_str())
}

fn key_text((protocol, port): (Protocol, u16)) -> String {
    format!("{} . {port}", protocol.as_str())
}

fn element(key: (Protocol, u16)) -> String {
    format!("{} : jump {}", key_text(key), chain(key))
}

fn mac(ingress: Ipv4Addr) -> String {
    mac_text(mac_of(ingress))
}

fn zone(ingress: Ipv4Addr) -> u16 {
    let [_, _, c, d] = ingress.octets();
    u16::from_be_bytes([c, d])
}

fn mark(ingress: Ipv4Addr) -> u32 {
    MARK | u32::from(zone(ingress))
}
