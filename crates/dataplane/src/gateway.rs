//! Addresses on the gateway bridge.

use ipnet::Ipv4Net;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Chooses a free address after `last`, so that one just given back is not used again soon: its
/// connections may still be remembered. The first address is the bridge's own.
pub(crate) fn choose(
    subnet: Ipv4Net,
    used: &BTreeSet<Ipv4Addr>,
    last: Option<Ipv4Addr>,
) -> Option<Ipv4Addr> {
    let (network, broadcast) = (u32::from(subnet.network()), u32::from(subnet.broadcast()));
    let first = network.checked_add(2).filter(|first| *first < broadcast)?;
    let after = last.filter(|last| subnet.contains(last)).map_or(first, |last| {
        let next = u32::from(last).saturating_add(1);
        if next < broadcast { next.max(first) } else { first }
    });
    (after..broadcast).chain(first..after).map(Ipv4Addr::from).find(|free| !used.contains(free))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_given_in_turn_without_network_bridge_and_broadcast() {
        let subnet: Ipv4Net = "172.30.0.0/29".parse().unwrap();
        let mut used = BTreeSet::new();
        let mut last = None;
        for host in 2..7 {
            last = choose(subnet, &used, last);
            assert_eq!(last, Some([172, 30, 0, host].into()));
            used.extend(last);
        }
        assert_eq!(choose(subnet, &used, last), None);
        used.remove(&Ipv4Addr::new(172, 30, 0, 3));
        assert_eq!(choose(subnet, &used, last), Some([172, 30, 0, 3].into()));
    }

    #[test]
    fn an_address_given_back_is_not_the_next_one() {
        let subnet: Ipv4Net = "172.30.0.0/24".parse().unwrap();
        let last = Some([172, 30, 0, 2].into());
        assert_eq!(choose(subnet, &BTreeSet::new(), last), Some([172, 30, 0, 3].into()));
    }

    #[test]
    fn a_subnet_without_room_has_no_address() {
        for subnet in ["172.30.0.0/31", "172.30.0.0/32", "172.30.0.0/30"] {
            let used = BTreeSet::from([[172, 30, 0, 2].into()]);
            assert_eq!(choose(subnet.parse().unwrap(), &used, None), None, "{subnet}");
        }
    }
}
