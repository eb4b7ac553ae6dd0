//! The lab's network: several nodes on one machine, joined by a switch.
//!
//! Each node is a network namespace with one interface, `eth0`; the switch is a bridge in a
//! namespace of its own; the machine itself has an interface on it, too. Nothing leads further out:
//! nodes have no default route. All is named after the lab, and nothing else is touched. Whatever
//! is there already is kept, whatever has gone already is fine.

use crate::error::Error;
use crate::namespace::{self, Namespace, Purpose};
use crate::netlink::{
    Addresses, Bridge, Link, Links, Socket, Veth, add_address, add_bridge, add_veth, delete_link,
    set_up,
};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::PathBuf;

const BRIDGE: &str = "br0";
/// Locally administered, and no address of ours begins like this.
const BRIDGE_MAC: [u8; 6] = [0x06, 0x42, 0, 0, 0, 1];
const MTU: u32 = 1500;
const NODE_INTERFACE: &str = "eth0";
/// The switch's end of the machine's interface.
const MACHINE_PORT: &str = "machine";
/// Nodes of a lab; it also keeps addresses within a /24.
const NODES_MAX: u32 = 200;

/// Where a lab's network is, and what it is called.
#[derive(Clone, Debug)]
pub struct Underlay {
    /// Where namespaces are mounted; `/run/netns` shows them to `ip netns`.
    pub folder: PathBuf,
    /// The switch's namespace; the machine's interface is called so, too, with a 0 at the end.
    pub name: String,
    /// Nodes' namespaces are called so, with their number at the end.
    pub node: String,
    /// The machine has the first address, node 1 the second, and so on.
    pub subnet: Ipv4Net,
}

impl Underlay {
    /// Makes the switch, and the machine's interface on it in the caller's namespace.
    pub fn up(&self) -> Result<(), Error> {
        let switch = self.switch_path();
        namespace::create(&switch, Purpose::Switch)?;
        namespace::run_in(&switch, || {
            let mut socket = Socket::route()?;
            if Links::observe(&mut socket)?.named(BRIDGE).is_some() {
                return Ok(());
            }
            socket.send_one(add_bridge(Bridge { name: BRIDGE, mac: BRIDGE_MAC, mtu: MTU }))
        })??;
        let machine = Namespace::own()?;
        self.plug(&machine, &self.machine_interface(), MACHINE_PORT)?;
        give_address(&self.machine_interface(), self.net(0))
    }

    /// Makes a node; numbers begin with 1. Returns where its namespace is mounted.
    pub fn add_node(&self, number: u32) -> Result<PathBuf, Error> {
        if !(1..=NODES_MAX).contains(&number) {
            let why = "nodes have numbers from 1 to 200";
            return Err(Error::Value { path: number.to_string(), why });
        }
        let path = self.node_path(number);
        namespace::create(&path, Purpose::Node)?;
        self.plug(&Namespace::require(&path)?, NODE_INTERFACE, &port(number))?;
        namespace::run_in(&path, || give_address(NODE_INTERFACE, self.net(number)))??;
        Ok(path)
    }

    /// Removes a node. What its daemon made there has to be removed before ([`crate::Kernel::clean`]).
    pub fn remove_node(&self, number: u32) -> Result<(), Error> {
        self.at_port(&port(number), |socket, link| socket.send_one(delete_link(link.index)))?;
        namespace::remove(&self.node_path(number))
    }

    /// Removes all nodes, the switch and the machine's interface.
    pub fn down(&self) -> Result<(), Error> {
        for number in self.nodes()? {
            self.remove_node(number)?;
        }
        let mut socket = Socket::route()?;
        if let Some(link) = Links::observe(&mut socket)?.named(&self.machine_interface()) {
            socket.send_one(delete_link(link.index))?;
        }
        namespace::remove(&self.switch_path())
    }

    /// Pulls a node's plug: it runs on, and reaches nobody.
    pub fn cut(&self, number: u32) -> Result<(), Error> {
        self.at_port(&port(number), |socket, link| socket.send_one(set_up(link.index, false)))
    }

    /// Puts the plug in again.
    pub fn heal(&self, number: u32) -> Result<(), Error> {
        self.at_port(&port(number), |socket, link| socket.send_one(set_up(link.index, true)))
    }

    /// The numbers of the nodes that are there.
    pub fn nodes(&self) -> Result<Vec<u32>, Error> {
        let files = namespace::list(&self.folder, &self.node)?;
        let number = |file: &PathBuf| {
            file.file_name()?.to_str()?.strip_prefix(self.node.as_str())?.parse().ok()
        };
        let mut numbers: Vec<u32> = files.iter().filter_map(number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Where a node's namespace is mounted.
    pub fn node_path(&self, number: u32) -> PathBuf {
        self.folder.join(format!("{}{number}", self.node))
    }

    /// The address of a node; of the machine for number 0.
    pub fn address(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.subnet.network()).saturating_add(number).saturating_add(1))
    }

    fn net(&self, number: u32) -> Ipv4Net {
        Ipv4Net::new(self.address(number), self.subnet.prefix_len()).unwrap_or(self.subnet)
    }

    fn switch_path(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    fn machine_interface(&self) -> String {
        format!("{}0", self.name)
    }

    /// Joins `namespace` to the switch, where that is not done yet.
    fn plug(&self, namespace: &Namespace, interface: &str, port: &str) -> Result<(), Error> {
        let there = namespace::run_in(&self.switch_path(), || {
            let mut socket = Socket::route()?;
            let links = Links::observe(&mut socket)?;
            if links.named(port).is_some() {
                return Ok(());
            }
            let bridge = links.named(BRIDGE).map(|link| link.index);
            let veth = Veth {
                name: port,
                mtu: MTU,
                master: bridge,
                peer: interface,
                peer_mac: None,
                peer_namespace: namespace.as_fd(),
            };
            socket.send_one(add_veth(&veth))
        });
        there?
    }

    /// Does something to a port of the switch, if both are there.
    fn at_port(
        &self,
        port: &str,
        work: impl FnOnce(&mut Socket, &Link) -> Result<(), Error> + Send,
    ) -> Result<(), Error> {
        if Namespace::open(&self.switch_path())?.is_none() {
            return Ok(());
        }
        namespace::run_in(&self.switch_path(), || {
            let mut socket = Socket::route()?;
            let links = Links::observe(&mut socket)?;
            links.named(port).map_or(Ok(()), |link| work(&mut socket, link))
        })?
    }
}

fn port(number: u32) -> String {
    format!("node{number}")
}

/// Gives an interface of the thread's namespace its address, and switches it on.
fn give_address(interface: &str, net: Ipv4Net) -> Result<(), Error> {
    let mut socket = Socket::route()?;
    let links = Links::observe(&mut socket)?;
    let Some(link) = links.named(interface) else {
        let doing = format!("find the interface {interface}");
        return Err(Error::system(&doing, std::io::ErrorKind::NotFound.into()));
    };
    let mut messages = vec![set_up(link.index, true)];
    if !Addresses::observe(&mut socket)?.of(link.index).any(|found| found == net) {
        messages.push(add_address(link.index, net));
    }
    socket.send(&messages)
}
