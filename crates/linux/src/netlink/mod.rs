//! A small netlink: messages are built and read as bytes, requests are answered in the same thread.
//!
//! A socket belongs to the network namespace that its thread was in when it was opened, and keeps
//! that namespace alive. Start with [`Socket::send`] and [`Message::new`].

mod address;
mod conntrack;
mod expression;
mod generation;
mod link;
mod message;
mod neighbour;
mod route;
mod socket;
mod transaction;
mod watch;

pub(crate) use address::{Addresses, add_address, delete_address};
pub(crate) use conntrack::{Flow, Gone, delete_flows, entries, forget};
pub(crate) use generation::generation;
pub(crate) use link::{
    Bridge, ContainerPort, Link, LinkKind, Links, Veth, Vxlan, add_bridge, add_veth, add_vxlan,
    delete_link, find_link, move_link, set_bridge_filter, set_container_port, set_master, set_mtu,
    set_tunnel_port, set_up,
};
pub(crate) use message::Message;
pub(crate) use neighbour::{
    Neighbours, add_flood, add_forward, add_neighbour, add_station, add_tunnel, delete_flood,
    delete_forward, delete_neighbour, delete_tunnel,
};
pub(crate) use route::{
    Route, Routes, Steering, TABLE_MAIN, add_route, add_steering, delete_route, delete_steering,
    steering_present,
};
pub(crate) use socket::Socket;
pub(crate) use transaction::{Transaction, Use, comment, uses};
pub(crate) use watch::{News, Watch};

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// The hardware address that belongs to an address on a cluster network.
pub(crate) fn mac_of(address: std::net::Ipv4Addr) -> Mac {
    types::mac_of(address.into())
}

/// A hardware address as text.
pub(crate) fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
