//! Networks: an identifier on the wire and a subnet.

use crate::Planning;
use crate::index::Index;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::sync::Arc;
use store::View;
use types::{DEFAULT_POOL, Network, Subnet, overlap};

/// 4096 is the ingress network's.
const FIRST_VNI: u32 = 4097;
/// A VNI has 24 bits.
const LAST_VNI: u32 = 0x00ff_ffff;

const DEFAULT_PREFIX: u8 = 24;
/// The length of the prefix of every IPv6 subnet.
const PREFIX_V6: u8 = 64;

/// The name of a network whose subnet, given or asked for, overlaps with `subnet`.
pub fn overlapping_network(view: &View, subnet: IpNet) -> Option<String> {
    // One that was removed will be gone; until then the new one waits for its subnet.
    let network = view
        .networks()
        .filter(|network| !network.removed)
        .find(|network| network.subnets_or_asked().iter().any(|it| overlap(it.net, subnet)))?;
    Some(network.spec.name.clone())
}

/// Lets go of networks that users removed and no node may carry any more.
pub(super) fn release(planning: &mut Planning<'_>, index: &Index) {
    for network in index.removed.iter().filter(|network| !index.addresses.has_tasks(network)) {
        planning.tx.remove_network(network);
    }
}

/// Gives each network a VNI and its subnets. One for which there is not each of them stays without;
/// the services that want it say so.
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
        let subnets = match network.subnets.as_slice() {
            [] => free_subnets(&planning.tx, &network).unwrap_or_default(),
            given => given.to_vec(),
        };
        planning.tx.edit_network(&network.id, |network| {
            network.vni = vni;
            network.subnets = subnets;
        });
    }
}

/// All subnets that a network is to have: those that it asks for, and others of the pools.
fn free_subnets(view: &View, network: &Network) -> Option<Vec<Subnet>> {
    let asked = &network.spec.subnets;
    let mut subnets = asked.clone();
    if asked.is_empty() {
        subnets.push(free_subnet(view, network, true)?);
    }
    if network.spec.ipv6 && asked.iter().all(|subnet| is_v4(&subnet.net)) {
        subnets.push(free_subnet(view, network, false)?);
    }
    asked.iter().all(|subnet| is_free(view, network, subnet.net)).then_some(subnets)
}

fn free_vni(view: &View) -> Option<u32> {
    let used: BTreeSet<u32> = view.networks().map(|network| network.vni).collect();
    let last = view.ingress_network().map_or(0, |ingress| ingress.last_vni);
    let next = if (FIRST_VNI..LAST_VNI).contains(&last) { last + 1 } else { FIRST_VNI };
    (next..=LAST_VNI).chain(FIRST_VNI..next).find(|vni| !used.contains(vni))
}

fn is_v4(net: &IpNet) -> bool {
    net.network().is_ipv4()
}

fn is_free(view: &View, network: &Network, net: IpNet) -> bool {
    view.networks()
        .filter(|other| other.id != network.id)
        .flat_map(|other| &other.subnets)
        .all(|other| !overlap(other.net, net))
}

/// The first free IPv4 or IPv6 subnet of the cluster's pools.
fn free_subnet(view: &View, network: &Network, v4: bool) -> Option<Subnet> {
    let cluster = view.cluster();
    let prefix = cluster.map(|it| it.subnet_prefix).filter(|it| *it > 0).unwrap_or(DEFAULT_PREFIX);
    let prefix = if v4 { prefix } else { PREFIX_V6 };
    let pools = cluster.map(|cluster| cluster.address_pools.clone()).unwrap_or_default();
    let pools = if pools.is_empty() { vec![DEFAULT_POOL.into()] } else { pools };
    let pools: Vec<IpNet> = pools.into_iter().filter(|pool| is_v4(pool) == v4).collect();
    // A network that is still to get the subnet it asks for will not find it taken.
    let used: Vec<IpNet> = view
        .networks()
        .filter(|other| other.id != network.id)
        .flat_map(|other| other.subnets_or_asked())
        .map(|subnet| subnet.net)
        .collect();
    // Docker's ingress network takes the first subnet of the first pool; users and their firewalls
    // expect the first network of their own in the second. It is used when there is no other one.
    let reserved = pools
        .first()
        .filter(|pool| pool.prefix_len() < prefix)
        .and_then(|pool| IpNet::new(pool.network(), prefix).ok());
    let net = pools
        .iter()
        .filter_map(|pool| pool.subnets(prefix).ok())
        .flatten()
        .filter(|net| Some(*net) != reserved)
        .chain(reserved)
        .find(|net| used.iter().all(|used| !overlap(*used, *net)))?;
    Subnet::new(net)
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

    #[test]
    fn a_network_gets_all_subnets_that_it_is_to_have_or_none() {
        let case = |pools: &str| {
            format!(
                "
                cluster pools={pools}
                network one ipv6
                network two ipv6 spec-subnet=10.1.0.0/24
                network three spec-subnet=10.2.0.0/24,fd00:7::/64
                network four ipv6 spec-subnet=fd00:8::/64
                "
            )
        };
        check(
            &case("10.9.0.0/16,fd00::/48"),
            &expect![[r#"
                ~ network four vni 4097 subnet fd00:8::/64 gateway fd00:8::1
                ~ network one vni 4098 subnet 10.9.1.0/24 gateway 10.9.1.1 subnet fd00:0:0:1::/64 gateway fd00:0:0:1::1
                ~ network three vni 4099 subnet 10.2.0.0/24 gateway 10.2.0.1 subnet fd00:7::/64 gateway fd00:7::1
                ~ network two vni 4100 subnet 10.1.0.0/24 gateway 10.1.0.1 subnet fd00:0:0:2::/64 gateway fd00:0:0:2::1
            "#]],
        );
        check(
            &case("10.9.0.0/16"),
            &expect![[r#"
                ~ network four vni 4097 subnet fd00:8::/64 gateway fd00:8::1
                ~ network one vni 4098
                ~ network three vni 4099 subnet 10.2.0.0/24 gateway 10.2.0.1 subnet fd00:7::/64 gateway fd00:7::1
                ~ network two vni 4100
            "#]],
        );
    }
}
