//! The table in an overlay's namespace: a container sends from its own addresses alone.
//!
//! Ports let through the container's hardware address and no other. Without this table it could
//! still say by ARP that another one's address is at its own, and read what is meant for that one.
//! What comes by the tunnel was judged on its own node.

use super::{FROM_SENDERS, SENDERS, change_set, elements, replacing, sender};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// The tunnel's interface in the overlay's namespace.
pub(crate) const TUNNEL: &str = "vx0";
const TABLE: &str = "skep_overlay";

/// The name of the near end of a container's interface.
pub(crate) fn port_name(container: Ipv4Addr) -> String {
    format!("v{:08x}", u32::from(container))
}

/// Renders the table, replacing what is there.
pub(crate) fn whole(containers: &BTreeSet<Ipv4Addr>) -> String {
    format!(
        "{}table bridge {TABLE} {{
	set containers {{ {SENDERS};{} }}
	chain gate {{
		type filter hook prerouting priority -300; policy drop;
		iifname \"{TUNNEL}\" accept
{FROM_SENDERS}
	}}
}}
",
        replacing("bridge", TABLE),
        elements(containers.iter().copied().map(element)),
    )
}

/// Renders what leads from `old` to `new`, which differ.
pub(crate) fn difference(old: &BTreeSet<Ipv4Addr>, new: &BTreeSet<Ipv4Addr>) -> String {
    let mut text = String::new();
    change_set(&mut text, &format!("bridge {TABLE} containers"), (old, new), element);
    text
}

fn element(container: Ipv4Addr) -> String {
    sender(&port_name(container), container)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn containers_send_from_their_own_addresses() {
        let old = BTreeSet::from([[10, 0, 1, 3].into(), [10, 0, 1, 4].into()]);
        let new = BTreeSet::from([[10, 0, 1, 4].into(), [10, 0, 1, 5].into()]);
        expect![[r#"
            table bridge skep_overlay { }
            delete table bridge skep_overlay
            table bridge skep_overlay {
            	set containers { type ifname . ether_addr . ipv4_addr; elements = { v0a000103 . 02:42:0a:00:01:03 . 10.0.1.3, v0a000104 . 02:42:0a:00:01:04 . 10.0.1.4 }; }
            	chain gate {
            		type filter hook prerouting priority -300; policy drop;
            		iifname "vx0" accept
            		iifname . ether saddr . ip saddr @containers accept
            		iifname . ether saddr . arp saddr ip @containers accept
            	}
            }
        "#]]
        .assert_eq(&whole(&old));
        expect![[r"
            delete element bridge skep_overlay containers { v0a000103 . 02:42:0a:00:01:03 . 10.0.1.3 }
            add element bridge skep_overlay containers { v0a000105 . 02:42:0a:00:01:05 . 10.0.1.5 }
        "]]
        .assert_eq(&difference(&old, &new));
    }
}
