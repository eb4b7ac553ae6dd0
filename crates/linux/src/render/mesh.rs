//! The tables in the node's own namespace: published ports, the routing mesh, the way out.
//!
//! A connection that enters by any node goes to a task here (its address on the gateway bridge) or,
//! through the tunnel, to a task elsewhere (its address on the ingress network). The client's
//! address is kept: the node of the task remembers by zone from which node a connection came, and
//! marks the replies, which sends them back there.
//!
//! Forwarding is on for containers. Interfaces of others lead to each other only where it was on before
//! (`kernel::router`). There is no other way in: what is forwarded to a container, here or through the tunnel, is a
//! connection to a published port, or an answer; and the tunnel leads nowhere else. Frames for a tunnel
//! of ours are taken from the nodes that have a part in its network alone, to whichever address of this
//! machine they come. A container sends by the gateway from its own address
//! alone, and containers on internal networks alone answer, and begin nothing. These tables are
//! there without a mesh, too.

use super::{FROM_SENDERS, SENDERS, change_set, elements, list, replacing, sender, turns};
use crate::ipv4::MeshRules;
use crate::netlink::{mac_of, mac_text};
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::Ipv4Addr;
use types::Protocol;

pub(crate) const TABLE: &str = "skep_mesh";
/// The set of the interfaces of others that do not lead to each other.
pub(crate) const CLOSED: &str = "closed";
/// What the names of containers' ports of the gateway bridge begin with; their address follows.
pub(crate) const PORT: &str = "skep";
/// What marks a reply to another node of the mesh: the upper half, whole, so that marks of others
/// are none of ours. The lower half says which node.
pub(crate) const MARK: u32 = 0x736b_0000;
pub(crate) const MASK: u32 = 0xffff_0000;

/// What the tables depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mesh<'a> {
    pub(crate) rules: &'a MeshRules,
    pub(crate) surroundings: &'a Surroundings,
    /// The gateway bridge and its subnet.
    pub(crate) bridge: &'a str,
    pub(crate) subnet: Ipv4Net,
    /// The tunnel of the mesh.
    pub(crate) tunnel: &'a str,
}

/// What is around the mesh on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// Interfaces of others that do not lead to each other.
    pub(crate) closed: BTreeSet<String>,
    /// Gateway addresses of all containers here.
    pub(crate) containers: BTreeSet<Ipv4Addr>,
    /// Those of them that are on internal networks alone.
    pub(crate) inside: BTreeSet<Ipv4Addr>,
    /// The networks that tunnels here carry, and with each the nodes that they carry it to.
    pub(crate) vnis: BTreeSet<u32>,
    pub(crate) ends: BTreeSet<(u32, Ipv4Addr)>,
}

/// A node's address on the ingress network, with the network's prefix.
pub(crate) fn place(ingress: Ipv4Addr, prefix: u8) -> Ipv4Net {
    let prefix = if prefix == 0 { 16 } else { prefix };
    Ipv4Net::new(ingress, prefix).unwrap_or_default()
}

/// The next hop of replies: the last address of the ingress network, which no node has
/// (10.255.255.254). The tunnel's egress rules put the right node's hardware address in its place.
pub(crate) fn next_hop(place: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(place.broadcast()).saturating_sub(1))
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

/// Renders all tables, replacing what is there.
pub(crate) fn whole(mesh: &Mesh<'_>) -> String {
    [packets(mesh), interfaces(mesh), egress(mesh)].concat()
}

/// What keeps interfaces apart before there are tables.
pub(crate) fn closing(closed: &BTreeSet<String>) -> String {
    let names = list(closed.iter().map(|name| format!("\"{name}\"")));
    format!(
        "add table ip {TABLE}
add set ip {TABLE} {CLOSED} {{ type ifname; }}
add element ip {TABLE} {CLOSED} {{ {names} }}
add chain ip {TABLE} closing {{ type filter hook forward priority 0; policy accept; }}
add rule ip {TABLE} closing iifname @{CLOSED} oifname @{CLOSED} drop
"
    )
}

/// The table of packets.
pub(crate) fn packets(mesh: &Mesh<'_>) -> String {
    let mut text = replacing("ip", TABLE);
    let ports = ports(mesh.rules);
    let _ = writeln!(text, "table ip {TABLE} {{");
    sets(&mut text, mesh, &ports);
    for (key, port) in ports.iter().filter(|(_, port)| !port.backends.is_empty()) {
        let _ = writeln!(text, "\tchain {} {{ {}; }}", chain(*key), rule(*key, port));
    }
    filters(&mut text, mesh);
    gates(&mut text, mesh);
    translations(&mut text, mesh);
    text.push_str("}\n");
    text
}

fn sets(text: &mut String, mesh: &Mesh<'_>, ports: &BTreeMap<(Protocol, u16), Port>) {
    let rules = mesh.rules;
    let nodes = rules.local.iter().chain(rules.peers.values());
    let nodes: BTreeSet<_> = nodes.collect();
    let open = ports.iter().filter(|(_, port)| !port.backends.is_empty());
    let refused = ports.iter().filter(|(_, port)| port.backends.is_empty());
    let _ = writeln!(
        text,
        "	set {CLOSED} {{ type ifname;{} }}
	map tasks {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr;{} }}
	set nodes {{ type ipv4_addr;{} }}
	set ends {{ typeof @th,96,24 . ip saddr;{} }}
	set inside {{ type ipv4_addr;{} }}
	map ports {{ type inet_proto . inet_service : verdict;{} }}
	set refused {{ type inet_proto . inet_service;{} }}",
        elements(mesh.surroundings.closed.iter().map(|name| format!("\"{name}\""))),
        elements(rules.local_tasks.iter().map(|(task, to)| format!("{} : {to}", task_text(*task)))),
        elements(nodes),
        elements(mesh.surroundings.ends.iter().map(|part| end(*part))),
        elements(&mesh.surroundings.inside),
        elements(open.map(|(key, _)| element(*key))),
        elements(refused.map(|(key, _)| key_text(*key))),
    );
}

fn filters(text: &mut String, mesh: &Mesh<'_>) {
    let Mesh { rules, bridge, tunnel, .. } = mesh;
    // Port 0: there is no tunnel yet.
    let port = if rules.port == 0 { 4789 } else { rules.port };
    let tunnels = strangers(mesh.surroundings).map(|rule| format!(" {rule};")).unwrap_or_default();
    // Whose frames are not ours may share the port. What a container sends there would leave with
    // this node's address. `route_localnet` is on for connections from the node itself; nobody else
    // may use it.
    let _ = writeln!(
        text,
        "	chain tunnels {{{tunnels} }}
	chain raw {{
		type filter hook prerouting priority -300; policy accept;
		iifname \"{bridge}\" udp dport {port} drop
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
    // The zone, and not a mark of the connection: others may mark all connections.
    let marks = rules.peers.keys().map(|peer| format!("{} : {:#x}", zone(*peer), mark(*peer)));
    let replies = match list(marks) {
        marks if marks.is_empty() => marks,
        marks => format!(
            "\t\tiifname \"{bridge}\" ct direction reply meta mark set ct original zone map {{ {marks} }}\n"
        ),
    };
    let _ = writeln!(
        text,
        "	}}
	chain delivered {{
		type filter hook input priority -300; policy accept;
		udp dport {port} jump tunnels
	}}
	chain rawout {{
		type filter hook output priority -300; policy accept;
		udp dport {port} notrack
	}}
	chain mangle {{
		type filter hook prerouting priority -150; policy accept;
{replies}	}}
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

/// Who may begin a connection. A connection to a published port is known by its translation; what
/// is not tracked is neither that nor a reply, so it does not pass.
fn gates(text: &mut String, mesh: &Mesh<'_>) {
    let Mesh { bridge, tunnel, .. } = mesh;
    let _ = writeln!(
        text,
        "	chain inner {{
		type filter hook prerouting priority -150; policy accept;
		iifname != \"{bridge}\" accept
		ip saddr != @inside accept
		ct direction reply accept
		drop
	}}
	chain entry {{
		type filter hook forward priority 0; policy accept;
		iifname @{CLOSED} oifname @{CLOSED} drop
		iifname != \"{tunnel}\" oifname != {{ \"{tunnel}\", \"{bridge}\" }} accept
		ct direction reply accept
		ct status dnat accept
		drop
	}}
	chain here {{
		type filter hook input priority 0; policy accept;
		iifname != \"{tunnel}\" accept
		ct direction reply accept
		drop
	}}"
    );
}

/// Frames of our networks that no node has sent which has a part in the same one. The number of the network is the fourth word of
/// what UDP carries (RFC 7348, 5).
fn strangers(surroundings: &Surroundings) -> Option<String> {
    let vnis = list(&surroundings.vnis);
    (!vnis.is_empty()).then(|| format!("@th,96,24 {{ {vnis} }} @th,96,24 . ip saddr != @ends drop"))
}

/// A network, and a node that has a part in it.
fn end((vni, node): (u32, Ipv4Addr)) -> String {
    format!("{vni} . {node}")
}

/// The client's address is not kept where the container has no route to answer it by: on internal
/// networks alone.
fn translations(text: &mut String, mesh: &Mesh<'_>) {
    let Mesh { bridge, tunnel, subnet, .. } = mesh;
    let _ = writeln!(
        text,
        "	chain pre {{
		type nat hook prerouting priority -100; policy accept;
		iifname \"{tunnel}\" dnat to ip daddr . meta l4proto . th dport map @tasks
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
		oifname \"{bridge}\" ip daddr @inside masquerade
		oifname \"{tunnel}\" ip saddr @nodes masquerade
		oifname != \"{bridge}\" ip saddr {subnet} ct direction original masquerade
	}}",
        subnet = subnet.trunc(),
    );
}

/// The table at containers' ports of the gateway bridge: a port takes frames from its own container's
/// addresses alone, before anything else sees them. Where frames pass from port to port at all, they
/// are packets, which the rules for packets judge ([`gates`]); nobody is asked who has an address.
pub(crate) fn interfaces(mesh: &Mesh<'_>) -> String {
    let ports = port_names(mesh.subnet);
    format!(
        "{}table bridge {TABLE} {{
	set containers {{ {SENDERS};{} }}
	chain gate {{
		type filter hook prerouting priority -300; policy accept;
		iifname != \"{ports}\" accept
{FROM_SENDERS}
		drop
	}}
	chain between {{
		type filter hook forward priority -200; policy accept;
		iifname \"{ports}\" ether type != ip drop
		oifname \"{ports}\" ether type != ip drop
	}}
}}
",
        replacing("bridge", TABLE),
        elements(mesh.surroundings.containers.iter().map(|address| container(*address))),
    )
}

/// The table at the tunnel's exit. Replies carry the mark of the node that they go back to; it
/// becomes the hardware address.
pub(crate) fn egress(mesh: &Mesh<'_>) -> String {
    let Mesh { rules, tunnel, .. } = mesh;
    let mut text = format!("{}table netdev {TABLE} {{\n", replacing("netdev", TABLE));
    if let Some(ingress) = rules.ingress {
        let macs = rules.peers.keys().map(|peer| format!("{:#x} : {}", mark(*peer), mac(*peer)));
        let _ = write!(
            text,
            "	map macs {{ type mark : ether_addr;{} }}
	chain egress {{
		type filter hook egress device \"{tunnel}\" priority 0; policy accept;
		ether daddr {fake} ether daddr set meta mark map @macs
	}}
",
            elements(macs),
            fake = mac(next_hop(place(ingress, mesh.rules.prefix))),
        );
    }
    text.push_str("}\n");
    text
}

/// Renders what leads from `old` to `new`; `None` where the tables are the same. Tasks and ports
/// change one by one, other nodes with the whole tables.
pub(crate) fn difference(before: &Mesh<'_>, new: &Mesh<'_>) -> Option<String> {
    let old = before.rules;
    let same_nodes = old.ingress == new.rules.ingress
        && old.prefix == new.rules.prefix
        && old.local == new.rules.local
        && old.port == new.rules.port
        && old.peers == new.rules.peers
        && before.surroundings.closed == new.surroundings.closed;
    if !same_nodes {
        return Some(whole(new));
    }
    let mut text = String::new();
    for (task, to) in &old.local_tasks {
        if new.rules.local_tasks.get(task) != Some(to) {
            let _ = writeln!(text, "delete element ip {TABLE} tasks {{ {} }}", task_text(*task));
        }
    }
    for (task, to) in &new.rules.local_tasks {
        if old.local_tasks.get(task) != Some(to) {
            let task = task_text(*task);
            let _ = writeln!(text, "add element ip {TABLE} tasks {{ {task} : {to} }}");
        }
    }
    change_surroundings(&mut text, before.surroundings, new.surroundings);
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

fn change_surroundings(text: &mut String, old: &Surroundings, new: &Surroundings) {
    let addresses: fn(Ipv4Addr) -> String = |address| address.to_string();
    change_set(text, &format!("ip {TABLE} ends"), (&old.ends, &new.ends), end);
    for (set, change, element) in [
        (format!("ip {TABLE} inside"), (&old.inside, &new.inside), addresses),
        (format!("bridge {TABLE} containers"), (&old.containers, &new.containers), container),
    ] {
        change_set(text, &set, change, element);
    }
    if old.vnis != new.vnis {
        let _ = writeln!(text, "flush chain ip {TABLE} tunnels");
        if let Some(rule) = strangers(new) {
            let _ = writeln!(text, "add rule ip {TABLE} tunnels {rule}");
        }
    }
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

/// `10.255.1.11 . tcp . 80`
fn task_text((task, protocol, port): (Ipv4Addr, Protocol, u16)) -> String {
    format!("{task} . {} . {port}", protocol.as_str())
}

fn container(gateway_address: Ipv4Addr) -> String {
    sender(&port_name(gateway_address), gateway_address)
}

/// The name of the node's end of a container's interface on the gateway bridge.
pub(crate) fn port_name(gateway_address: Ipv4Addr) -> String {
    format!("{PORT}{:08x}", u32::from(gateway_address))
}

/// What the names of all ports begin with, with nft's `*`: the digits that a subnet fixes.
fn port_names(subnet: Ipv4Net) -> String {
    let digits = usize::from(subnet.prefix_len() / 4);
    let name = port_name(subnet.network());
    format!("{}*", &name[..PORT.len() + digits])
}

fn mac(address: Ipv4Addr) -> String {
    mac_text(mac_of(address))
}

fn zone(ingress: Ipv4Addr) -> u16 {
    let [_, _, c, d] = ingress.octets();
    u16::from_be_bytes([c, d])
}

fn mark(ingress: Ipv4Addr) -> u32 {
    MARK | u32::from(zone(ingress))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipv4::PortRules;
    use expect_test::{Expect, expect};

    const HERE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 11);
    const THERE: Ipv4Addr = Ipv4Addr::new(10, 255, 1, 21);

    fn rules(ports: &[(u16, &[Ipv4Addr])]) -> MeshRules {
        let ports = ports.iter().map(|(published, backends)| {
            ((Protocol::Tcp, *published), PortRules { target: 80, backends: backends.to_vec() })
        });
        MeshRules {
            ingress: Some([10, 255, 0, 1].into()),
            local: Some([192, 168, 100, 2].into()),
            port: 4789,
            peers: [([10, 255, 0, 2].into(), [192, 168, 100, 3].into())].into(),
            local_tasks: [(([10, 255, 1, 11].into(), Protocol::Tcp, 80), HERE)].into(),
            remote_tasks: [(THERE, [10, 255, 0, 2].into())].into(),
            ports: ports.collect(),
            ..MeshRules::default()
        }
    }

    fn mesh(rules: &MeshRules) -> Mesh<'_> {
        static NOTHING: Surroundings = Surroundings {
            closed: BTreeSet::new(),
            containers: BTreeSet::new(),
            inside: BTreeSet::new(),
            vnis: BTreeSet::new(),
            ends: BTreeSet::new(),
        };
        let subnet = "172.30.0.0/16".parse().unwrap();
        Mesh { rules, surroundings: &NOTHING, bridge: "gw", subnet, tunnel: "mesh" }
    }

    fn check(old: &MeshRules, new: &MeshRules, expected: &Expect) {
        expected.assert_eq(&difference(&mesh(old), &mesh(new)).unwrap_or_default());
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "it shows all of the tables as they are")]
    fn the_tables_of_a_node_with_a_task_here_and_one_there() {
        let mut rules = rules(&[(8080, &[HERE, THERE]), (8081, &[])]);
        rules.host_ports.insert((Protocol::Udp, 53), (HERE, 5353));
        expect![[r#"
            table ip skep_mesh { }
            delete table ip skep_mesh
            table ip skep_mesh {
            	set closed { type ifname; }
            	map tasks { type ipv4_addr . inet_proto . inet_service : ipv4_addr; elements = { 10.255.1.11 . tcp . 80 : 172.30.0.11 }; }
            	set nodes { type ipv4_addr; elements = { 192.168.100.2, 192.168.100.3 }; }
            	set ends { typeof @th,96,24 . ip saddr; }
            	set inside { type ipv4_addr; }
            	map ports { type inet_proto . inet_service : verdict; elements = { tcp . 8080 : jump port_tcp_8080, udp . 53 : jump port_udp_53 }; }
            	set refused { type inet_proto . inet_service; elements = { tcp . 8081 }; }
            	chain port_tcp_8080 { meta l4proto tcp dnat to numgen inc mod 2 map { 0 : 172.30.0.11, 1 : 10.255.1.21 } : 80; }
            	chain port_udp_53 { meta l4proto udp dnat to numgen inc mod 1 map { 0 : 172.30.0.11 } : 5353; }
            	chain tunnels { }
            	chain raw {
            		type filter hook prerouting priority -300; policy accept;
            		iifname "gw" udp dport 4789 drop
            		udp dport 4789 notrack
            		iifname { "mesh", "gw" } ip daddr 127.0.0.0/8 drop
            		iifname "mesh" ct original zone set ether saddr map { 02:42:0a:ff:00:02 : 2 }
            	}
            	chain delivered {
            		type filter hook input priority -300; policy accept;
            		udp dport 4789 jump tunnels
            	}
            	chain rawout {
            		type filter hook output priority -300; policy accept;
            		udp dport 4789 notrack
            	}
            	chain mangle {
            		type filter hook prerouting priority -150; policy accept;
            		iifname "gw" ct direction reply meta mark set ct original zone map { 2 : 0x736b0002 }
            	}
            	chain mss {
            		type filter hook forward priority -150; policy accept;
            		oifname "mesh" tcp flags syn tcp option maxseg size set rt mtu
            	}
            	chain refuse {
            		type filter hook input priority 0; policy accept;
            		ct state new fib daddr type local meta l4proto . th dport @refused jump reject_new
            	}
            	chain reject_new {
            		meta l4proto tcp reject with tcp reset
            		reject with icmp port-unreachable
            	}
            	chain inner {
            		type filter hook prerouting priority -150; policy accept;
            		iifname != "gw" accept
            		ip saddr != @inside accept
            		ct direction reply accept
            		drop
            	}
            	chain entry {
            		type filter hook forward priority 0; policy accept;
            		iifname @closed oifname @closed drop
            		iifname != "mesh" oifname != { "mesh", "gw" } accept
            		ct direction reply accept
            		ct status dnat accept
            		drop
            	}
            	chain here {
            		type filter hook input priority 0; policy accept;
            		iifname != "mesh" accept
            		ct direction reply accept
            		drop
            	}
            	chain pre {
            		type nat hook prerouting priority -100; policy accept;
            		iifname "mesh" dnat to ip daddr . meta l4proto . th dport map @tasks
            		fib daddr type local meta l4proto . th dport vmap @ports
            	}
            	chain out {
            		type nat hook output priority -100; policy accept;
            		fib daddr type local meta l4proto . th dport vmap @ports
            	}
            	chain post {
            		type nat hook postrouting priority 100; policy accept;
            		oifname { "mesh", "gw" } ip saddr 127.0.0.0/8 masquerade
            		oifname "gw" ip saddr 172.30.0.0/16 ct status dnat masquerade
            		oifname "gw" ip daddr @inside masquerade
            		oifname "mesh" ip saddr @nodes masquerade
            		oifname != "gw" ip saddr 172.30.0.0/16 ct direction original masquerade
            	}
            }
            table bridge skep_mesh { }
            delete table bridge skep_mesh
            table bridge skep_mesh {
            	set containers { type ifname . ether_addr . ipv4_addr; }
            	chain gate {
            		type filter hook prerouting priority -300; policy accept;
            		iifname != "skepac1e*" accept
            		iifname . ether saddr . ip saddr @containers accept
            		iifname . ether saddr . arp saddr ip @containers accept
            		drop
            	}
            	chain between {
            		type filter hook forward priority -200; policy accept;
            		iifname "skepac1e*" ether type != ip drop
            		oifname "skepac1e*" ether type != ip drop
            	}
            }
            table netdev skep_mesh { }
            delete table netdev skep_mesh
            table netdev skep_mesh {
            	map macs { type mark : ether_addr; elements = { 0x736b0002 : 02:42:0a:ff:00:02 }; }
            	chain egress {
            		type filter hook egress device "mesh" priority 0; policy accept;
            		ether daddr 02:42:0a:ff:ff:fe ether daddr set meta mark map @macs
            	}
            }
        "#]].assert_eq(&whole(&mesh(&rules)));
    }

    #[test]
    fn without_a_mesh_ports_in_host_mode_and_the_way_out_remain() {
        let host_ports = [((Protocol::Tcp, 8080), (HERE, 80))].into();
        let rules = MeshRules { host_ports, ..MeshRules::default() };
        let text = whole(&mesh(&rules));
        assert!(text.contains("chain port_tcp_8080 { meta l4proto tcp dnat to numgen inc mod 1 map { 0 : 172.30.0.11 } : 80; }"));
        assert!(
            text.contains(
                "oifname != \"gw\" ip saddr 172.30.0.0/16 ct direction original masquerade"
            )
        );
        assert!(!text.contains("zone"));
        assert!(!text.contains("egress"));
    }

    #[test]
    fn other_back_ends_touch_only_the_chain_of_their_port() {
        check(
            &rules(&[(8080, &[HERE]), (8081, &[HERE])]),
            &rules(&[(8080, &[THERE]), (8081, &[HERE])]),
            &expect![[r"
                flush chain ip skep_mesh port_tcp_8080
                add rule ip skep_mesh port_tcp_8080 meta l4proto tcp dnat to numgen inc mod 1 map { 0 : 10.255.1.21 } : 80
            "]],
        );
    }

    #[test]
    fn ports_come_and_go_lose_their_last_back_end_and_have_a_first() {
        check(
            &rules(&[(1, &[HERE]), (2, &[]), (3, &[HERE]), (4, &[])]),
            &rules(&[(3, &[]), (4, &[HERE]), (5, &[HERE]), (6, &[])]),
            &expect![[r"
                delete element ip skep_mesh ports { tcp . 3 }
                flush chain ip skep_mesh port_tcp_3
                delete chain ip skep_mesh port_tcp_3
                add element ip skep_mesh refused { tcp . 3 }
                delete element ip skep_mesh refused { tcp . 4 }
                add chain ip skep_mesh port_tcp_4
                add rule ip skep_mesh port_tcp_4 meta l4proto tcp dnat to numgen inc mod 1 map { 0 : 172.30.0.11 } : 80
                add element ip skep_mesh ports { tcp . 4 : jump port_tcp_4 }
                add chain ip skep_mesh port_tcp_5
                add rule ip skep_mesh port_tcp_5 meta l4proto tcp dnat to numgen inc mod 1 map { 0 : 172.30.0.11 } : 80
                add element ip skep_mesh ports { tcp . 5 : jump port_tcp_5 }
                add element ip skep_mesh refused { tcp . 6 }
                delete element ip skep_mesh ports { tcp . 1 }
                flush chain ip skep_mesh port_tcp_1
                delete chain ip skep_mesh port_tcp_1
                delete element ip skep_mesh refused { tcp . 2 }
            "]],
        );
    }

    #[test]
    fn a_task_moves_within_its_node_and_another_comes() {
        let mut after = rules(&[]);
        let task = |host| (Ipv4Addr::new(10, 255, 1, host), Protocol::Tcp, 80);
        after.local_tasks.insert(task(11), [172, 30, 0, 99].into());
        after.local_tasks.insert(task(12), [172, 30, 0, 12].into());
        check(
            &rules(&[]),
            &after,
            &expect![[r"
                delete element ip skep_mesh tasks { 10.255.1.11 . tcp . 80 }
                add element ip skep_mesh tasks { 10.255.1.11 . tcp . 80 : 172.30.0.99 }
                add element ip skep_mesh tasks { 10.255.1.12 . tcp . 80 : 172.30.0.12 }
            "]],
        );
    }

    #[test]
    fn containers_networks_and_nodes_come_and_go() {
        let rules = rules(&[]);
        let surroundings = |host: u8| Surroundings {
            closed: ["eth0".to_owned(), "lo".to_owned()].into(),
            containers: [[172, 30, 0, host].into()].into(),
            inside: [[172, 30, 0, host].into()].into(),
            vnis: [4096, 4100 + u32::from(host)].into(),
            ends: [(4096, [192, 168, 100, host].into())].into(),
        };
        let (before, after) = (surroundings(1), surroundings(2));
        let before = Mesh { surroundings: &before, ..mesh(&rules) };
        let after = Mesh { surroundings: &after, ..mesh(&rules) };
        let text = whole(&after);
        for line in [
            "set closed { type ifname; elements = { \"eth0\", \"lo\" }; }",
            "set ends { typeof @th,96,24 . ip saddr; elements = { 4096 . 192.168.100.2 }; }",
            "set inside { type ipv4_addr; elements = { 172.30.0.2 }; }",
            "set containers { type ifname . ether_addr . ipv4_addr; elements = { skepac1e0002 . 02:42:ac:1e:00:02 . 172.30.0.2 }; }",
            "chain tunnels { @th,96,24 { 4096, 4102 } @th,96,24 . ip saddr != @ends drop; }",
        ] {
            assert!(text.contains(line), "{text}");
        }
        expect![[r"
            delete element ip skep_mesh ends { 4096 . 192.168.100.1 }
            add element ip skep_mesh ends { 4096 . 192.168.100.2 }
            delete element ip skep_mesh inside { 172.30.0.1 }
            add element ip skep_mesh inside { 172.30.0.2 }
            delete element bridge skep_mesh containers { skepac1e0001 . 02:42:ac:1e:00:01 . 172.30.0.1 }
            add element bridge skep_mesh containers { skepac1e0002 . 02:42:ac:1e:00:02 . 172.30.0.2 }
            flush chain ip skep_mesh tunnels
            add rule ip skep_mesh tunnels @th,96,24 { 4096, 4102 } @th,96,24 . ip saddr != @ends drop
        "]]
        .assert_eq(&difference(&before, &after).unwrap_or_default());
    }

    #[test]
    fn another_node_changes_the_whole_tables_and_equal_rules_nothing() {
        let before = rules(&[(8080, &[HERE])]);
        let mut after = before.clone();
        assert_eq!(difference(&mesh(&before), &mesh(&after)), None);
        after.peers.insert([10, 255, 0, 3].into(), [192, 168, 100, 4].into());
        assert_eq!(difference(&mesh(&before), &mesh(&after)), Some(whole(&mesh(&after))));
    }

    #[test]
    fn marks_and_zones_tell_nodes_apart_and_no_node_is_the_next_hop() {
        let node = Ipv4Addr::new(10, 255, 3, 7);
        assert_eq!((mark(node), zone(node)), (0x736b_0307, 0x0307));
        assert_eq!(next_hop(place(node, 0)), Ipv4Addr::new(10, 255, 255, 254));
        assert_eq!(next_hop(place([10, 9, 1, 7].into(), 24)), Ipv4Addr::new(10, 9, 1, 254));
    }
}
