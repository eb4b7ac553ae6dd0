//! Rules as a person would write them into a file for `nft -f`, or type them for `nft`. Pure: what is
//! rendered here is applied elsewhere, each text or list of requests as one transaction.
//!
//! Three sets of tables: `ip skep` in each container's namespace ([`sandbox`]), `bridge skep_overlay`
//! in each overlay's ([`overlay`]), `ip skep_mesh` with `bridge skep_mesh` and `netdev skep_mesh` in
//! the node's own ([`mesh`]).

pub(crate) mod mesh;
pub(crate) mod overlay;
pub(crate) mod sandbox;

use crate::netlink::{mac_of, mac_text};
use std::collections::BTreeSet;
use std::fmt::{Display, Write};
use std::net::Ipv4Addr;

/// Begins a transaction that replaces a table, whether it is there or not: in between there is no
/// moment without it, and established connections go on.
fn replacing(family: &str, name: &str) -> String {
    format!("table {family} {name} {{ }}\ndelete table {family} {name}\n")
}

/// A transaction that removes a table, whether it is there or not.
pub(crate) fn removal(family: &str, name: &str) -> String {
    replacing(family, name)
}

/// `elements = { A, B }` of a set or map; nothing where it is empty, since nft refuses `{ }`.
fn elements<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let list = list(items);
    if list.is_empty() { list } else { format!(" elements = {{ {list} }};") }
}

fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// A set of containers by [`sender`]s, and what lets through what they send from their own addresses.
const SENDERS: &str = "type ifname . ether_addr . ipv4_addr";
const FROM_SENDERS: &str = "		iifname . ether saddr . ip saddr @containers accept
		iifname . ether saddr . arp saddr ip @containers accept";

/// The port that a container is behind, and the addresses that it may send from there.
fn sender(port: &str, container: Ipv4Addr) -> String {
    format!("{port} . {} . {container}", mac_text(mac_of(container)))
}

/// Renders what leads a set from `old` to `new`, one command a line.
fn change_set<T: Ord + Copy>(
    text: &mut String,
    set: &str,
    (old, new): (&BTreeSet<T>, &BTreeSet<T>),
    element: impl Fn(T) -> String,
) {
    let changes = old.difference(new).map(|gone| ("delete", gone));
    for (verb, item) in changes.chain(new.difference(old).map(|come| ("add", come))) {
        let _ = writeln!(text, "{verb} element {set} {{ {} }}", element(*item));
    }
}

/// Takes turns over back ends: `numgen inc mod 2 map { 0 : A, 1 : B }`.
fn turns(backends: &[Ipv4Addr]) -> String {
    let slots = list(backends.iter().enumerate().map(|(slot, to)| format!("{slot} : {to}")));
    format!("numgen inc mod {} map {{ {slots} }}", backends.len())
}
