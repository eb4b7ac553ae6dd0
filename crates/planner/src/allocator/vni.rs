//! Networks: an identifier on the wire and a subnet.

use crate::Planning;
use crate::index::Index;
use ipnet::Ipv4Net;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use store::View;
use types::{Network, Subnet};

/// 4096 is the ingress network's.
const FIRST_VNI: u32 = 4097;
/// A VNI has 24 bits.
const LAST_VNI: u32 = 0x00ff_ffff;

/// Where subnets come from if the cluster does not say.
const DEFAULT_POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8);
const DEFAULT_PREFIX: u8 = 24;

/// The name of a network whose subnet, given or asked for, overlaps with `subnet`.
pub fn overlapping_network(view: &View, subnet: Ipv4Net) -> Option<String> {
    // One that was removed will be gone; until then the new one waits for its subnet.
    let network = view
        .networks()
        .filter(|network| !network.removed)
        .find(|network| subnet_of(network).is_some_and(|other| overlaps(other.net, subnet)))?;
    Some(network.spec.name.clone())
}

fn subnet_of(network: &Network) -> Option<Subnet> {
    network.subnet.or(network.spec.subnet)
}

fn overlaps(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other) || other.contains(&one)
}

/// Lets go of networks that users removed and no node may carry any more.
pub(super) fn release(planning: &mut Planning<'_>, index: &Index) {
    for network in index.removed.iter().filter(|network| !index.addresses.has_tasks(network)) {
        planning.tx.remove_network(network);
    }
}

/// Gives each network a VNI and a subnet. One for which there is none stays without; the services
/// that want it say so.
pub(super) fn allocate(planning: &mut Planning<'_>, index: &Index) {
    let incomplete = index.incomplete.iter().filter_map(|id| planning.tx.network(id));
    let mut networks: Vec<Arc<Network>> = incomplete.cloned().collect();
    networks.sort_by_key(|network| network.meta.created_at);
    for network in networks {
        let mut vni = network.vni;
        if vni == 0 {
            vni = free_vni(&planning.tx).unwrap_or(0);
            if let Some(ingress) = planning.tx.ingress_network().map(|it| it.id.clone()) {
                planning.tx.edit_network(&ingress, |ingress| ingress.last_vni = vni);
            }
        }
        let subnet = network.subnet.or_else(|| match network.spec.subnet {
            Some(asked) => is_free(&planning.tx, &network, asked.net).then_some(asked),
            None => free_subnet(&planning.tx, &network),
        });
        planning.tx.edit_network(&network.id, |network| {
            network.vni = vni;
            network.subnet = subnet;
        });
    }
}

fn free_vni(view: &View) -> Option<u32> {
    let used: BTreeSet<u32> = view.networks().map(|network| network.vni).collect();
    let last = view.ingress_network().map_or(0, |ingress| ingress.last_vni);
    let next = if (FIRST_VNI..LAST_VNI).contains(&last) { last + 1 } else { FIRST_VNI };
    (next..=LAST_VNI).chain(FIRST_VNI..next).find(|vni| !used.contains(vni))
}

fn is_free(view: &View, network: &Network, subnet: Ipv4Net) -> bool {
    view.networks()
        .filter(|other| other.id != network.id)
        .filter_map(|other| other.subnet)
        .all(|other| !overlaps(other.net, subnet))
}

/// The first free subnet of the cluster's pools.
fn free_subnet(view: &View, network: &Network) -> Option<Subnet> {
    let cluster = view.cluster();
    let prefix = cluster.map(|it| it.subnet_prefix).filter(|it| *it > 0).unwrap_or(DEFAULT_PREFIX);
    let pools = cluster.map(|cluster| cluster.address_pools.clone()).unwrap_or_default();
    let pools = if pools.is_empty() { vec![DEFAULT_POOL] } else { pools };
    // A network that is still to get the subnet it asks for will not find it taken.
    let used: Vec<Ipv4Net> = view
        .networks()
        .filter(|other| other.id != network.id)
        .filter_map(|other| subnet_of(other).map(|subnet| subnet.net))
        .collect();
    // Docker's ingress network takes the first subnet of the first pool; users and their firewalls
    // expect the first network of their own in the second. It is used when there is no other one.
    let reserved = pools
        .first()
        .filter(|pool| pool.prefix_len() < prefix)
        .and_then(|pool| Ipv4Net::new(pool.network(), prefix).ok());
    let net = pools
        .iter()
        .filter_map(|pool| pool.subnets(prefix).ok())
        .flatten()
        .filter(|net| Some(*net) != reserved)
        .chain(reserved)
        .find(|net| used.iter().all(|used| !overlaps(*used, *net)))?;
    let gateway = net.hosts().next()?;
    Some(Subnet { net, gateway })
}

#[cfg(test)]
mod tests {
    use crate::testing::check;
    use expect_test::expect;

    #[test]
    fn the_first_networks_get_the_subnets_docker_users_know() {
        check(
            "
            network ingress ingress subnet=10.255.0.0/16 vni=4096
            network one
            network two
            ",
            &expect![[r#"
                ~ network ingress last vni 4098
                ~ network one vni 4097 subnet 10.0.1.0/24 gateway 10.0.1.1
                ~ network two vni 4098 subnet 10.0.2.0/24 gateway 10.0.2.1
            "#]],
        );
    }

    #[test]
    fn a_removed_network_stays_until_its_last_task_has_ended() {
        let case = |state: &str| {
            format!(
                "
                node n1
                node n2 down
                network old removed subnet=10.0.1.0/24 vni=4097
                network same spec-subnet=10.0.1.0/24
                network other
                task web.1 {state} n1 desired=remove address=old=10.0.1.3
                "
            )
        };
        check(
            &case("running"),
            &expect![[r#"
            ~ network other vni 4098 subnet 10.0.2.0/24 gateway 10.0.2.1
            ~ network same vni 4099
        "#]],
        );
        check(
            &case("shutdown"),
            &expect![[r#"
            - network old
            - web.1 shutdown remove n1 old=10.0.1.3
            ~ network other vni 4097 subnet 10.0.2.0/24 gateway 10.0.2.1
            ~ network same vni 4098 subnet 10.0.1.0/24 gateway 10.0.1.1
        "#]],
        );
    }

    #[test]
    fn a_removed_network_stays_while_a_node_that_is_away_may_carry_it() {
        let case = |node: &str| {
            format!(
                "
                node n1
                node n2 {node}
                network old removed subnet=10.0.1.0/24 vni=4097
                task web.1 orphaned n2 desired=remove address=old=10.0.1.3
                "
            )
        };
        check(&case("down"), &expect![""]);
        // It may not know yet that its task was given up.
        check(
            &case("since=31"),
            &expect![[r#"
            wake 101s
        "#]],
        );
        check(
            &case("down left"),
            &expect![[r#"
            - network old
            - web.1 orphaned remove n2 old=10.0.1.3
            ~ node n2 ingress none
        "#]],
        );
        check(
            &case("since=30"),
            &expect![[r#"
            - network old
            - web.1 orphaned remove n2 old=10.0.1.3
        "#]],
        );
    }

    #[test]
    fn identifiers_go_round() {
        check(
            "
            network ingress ingress subnet=10.255.0.0/16 vni=4096 last-vni=4103
            network one subnet=10.0.1.0/24 vni=4097
            network two
            network three
            ",
            &expect![[r#"
                ~ network ingress last vni 4105
                ~ network three vni 4104 subnet 10.0.2.0/24 gateway 10.0.2.1
                ~ network two vni 4105 subnet 10.0.3.0/24 gateway 10.0.3.1
            "#]],
        );
        check(
            "
            network ingress ingress subnet=10.255.0.0/16 vni=4096 last-vni=16777215
            network one subnet=10.0.1.0/24 vni=4097
            network two
            ",
            &expect![[r#"
                ~ network ingress last vni 4098
                ~ network two vni 4098 subnet 10.0.2.0/24 gateway 10.0.2.1
            "#]],
        );
    }

    #[test]
    fn subnets_and_identifiers_in_use_are_left_out() {
        check(
            "
            network big subnet=10.0.0.0/22 vni=4098
            network wanted spec-subnet=10.0.4.0/24
            network one
            ",
            &expect![[r#"
                ~ network one vni 4097 subnet 10.0.5.0/24 gateway 10.0.5.1
                ~ network wanted vni 4099 subnet 10.0.4.0/24 gateway 10.0.4.1
            "#]],
        );
    }

    #[test]
    fn a_service_on_a_network_without_a_subnet_says_why_it_waits() {
        check(
            "
            cluster pools=10.9.0.0/23
            network ingress ingress subnet=10.9.1.0/24 vni=4096
            node n1
            network one
            network two
            service web replicas=1 networks=two
            ",
            &expect![[r#"
                + web.1 new running - error: network two has no subnet: no free subnet in the cluster's address pools
                ~ network ingress last vni 4098
                ~ network one vni 4097 subnet 10.9.0.0/24 gateway 10.9.0.1
                ~ network two vni 4098
                ~ web error: network two has no subnet: no free subnet in the cluster's address pools
            "#]],
        );
    }
}
