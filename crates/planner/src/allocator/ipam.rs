//! Which addresses of a network are taken, and which one is next.

use crate::Planning;
use crate::index::{self, Runs, address_of, number_of};
use ipnet::IpNet;
use std::collections::BTreeMap;
use store::View;
use types::{Addresses, Network, NetworkId, Subnet};

/// Where the addresses of tasks begin on the ingress network, counted from its first one. Those
/// before it are the last that they take, as nodes take the lowest: in a cluster of few nodes one
/// sees what an address belongs to.
const INGRESS_TASKS: u128 = 256;
/// The last four bytes of an address: those that are handed out on one network differ in them, as
/// hardware addresses follow from them ([`types::mac_of`]).
const TAIL: u128 = 0xffff_ffff;

/// Why there is no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shortage {
    NoNetwork(NetworkId),
    NoSubnet(String),
    /// A subnet that the user chose for a network is another one's.
    Held(String, Vec<IpNet>),
    Exhausted(String, IpNet),
}

impl Shortage {
    fn no_subnet(network: &Network) -> Self {
        let name = network.spec.name.clone();
        let asked: Vec<IpNet> = network.spec.subnets.iter().map(|subnet| subnet.net).collect();
        let has_ipv6 = asked.iter().any(|net| net.network().is_ipv6());
        let is_of_pools = asked.is_empty() || (network.spec.ipv6 && !has_ipv6);
        if is_of_pools { Self::NoSubnet(name) } else { Self::Held(name, asked) }
    }
}

impl std::fmt::Display for Shortage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoNetwork(id) => write!(f, "network {id} not found"),
            Self::NoSubnet(name) => write!(
                f,
                "network {name} has no subnet: no free subnet in the cluster's address pools"
            ),
            Self::Held(name, nets) => {
                let nets: Vec<String> = nets.iter().map(ToString::to_string).collect();
                let nets = nets.join(" or ");
                write!(
                    f,
                    "network {name} has no subnet: {nets} belongs to a network whose tasks still stop"
                )
            }
            Self::Exhausted(name, net) => write!(f, "no free address in {net} (network {name})"),
        }
    }
}

/// The addresses of all networks: those that are in use, and those that this plan takes. Whoever
/// takes some gets one of each subnet of the network, or none.
#[derive(Debug)]
pub(super) struct AddressPools<'a> {
    used: &'a index::Addresses,
    /// A pool for each subnet.
    pools: BTreeMap<NetworkId, Vec<Pool>>,
    /// What services and tasks took, with the pool's state before.
    taken: Vec<Allocation>,
}

/// An address that a service or a task took.
#[derive(Debug)]
struct Allocation {
    network: NetworkId,
    /// Of which of the network's pools.
    pool: usize,
    address: u128,
    /// What had been taken before it.
    last: Option<u128>,
}

/// The addresses of one subnet, as numbers.
#[derive(Debug)]
struct Pool {
    network: NetworkId,
    name: String,
    net: IpNet,
    /// The user's choice of where addresses come from.
    range: Option<IpNet>,
    /// The first and the last address.
    first: u128,
    end: u128,
    /// Where those of services and tasks begin; what is before it comes last.
    begin: u128,
    /// Says whether nodes have addresses here, too.
    is_mesh: bool,
    /// Nobody's, or taken by this plan.
    taken: Runs,
    last: Option<u128>,
}

impl<'a> AddressPools<'a> {
    pub(super) fn new(used: &'a index::Addresses) -> Self {
        Self { used, pools: BTreeMap::new(), taken: Vec::new() }
    }

    /// Takes addresses for a service or a task.
    pub(super) fn take(&mut self, view: &View, network: &NetworkId) -> Result<Addresses, Shortage> {
        let (used, before) = (self.used, self.taken.len());
        let mut addresses = Addresses::default();
        let (pools, taken) = self.pools(view, network)?;
        for (number, pool) in pools.iter_mut().enumerate() {
            let Some(address) = pool.next(used) else {
                let shortage = pool.shortage();
                self.undo(before);
                return Err(shortage);
            };
            pool.taken.insert(address);
            let last = pool.last.replace(address);
            taken.push(Allocation { network: network.clone(), pool: number, address, last });
            addresses.set(address_of(address));
        }
        Ok(addresses)
    }

    /// Takes addresses of the ingress network for a node: the lowest ones.
    pub(super) fn take_for_node(
        &mut self,
        view: &View,
        network: &NetworkId,
    ) -> Result<Addresses, Shortage> {
        let used = self.used;
        let (pools, _) = self.pools(view, network)?;
        let lowest = |pool: &Pool| pool.free(used, pool.first).ok_or_else(|| pool.shortage());
        let lowest = pools.iter().map(lowest).collect::<Result<Vec<u128>, Shortage>>()?;
        for (pool, address) in pools.iter_mut().zip(&lowest) {
            pool.taken.insert(*address);
        }
        Ok(lowest.into_iter().map(address_of).collect())
    }

    /// How much services and tasks have taken so far, for [`AddressPools::undo`].
    pub(super) fn taken(&self) -> usize {
        self.taken.len()
    }

    /// Gives back what services and tasks took since they had taken so much.
    pub(super) fn undo(&mut self, taken: usize) {
        for Allocation { network, pool, address, last } in self.taken.drain(taken..).rev() {
            let pool = self.pools.get_mut(&network).and_then(|pools| pools.get_mut(pool));
            if let Some(pool) = pool {
                pool.taken.remove(address);
                pool.last = last;
            }
        }
    }

    /// Writes which addresses were handed out last.
    pub(super) fn keep(self, planning: &mut Planning<'_>) {
        let mut last: BTreeMap<NetworkId, Addresses> = BTreeMap::new();
        for Allocation { network, address, .. } in self.taken {
            last.entry(network).or_default().set(address_of(address));
        }
        for (network, addresses) in last {
            planning.tx.edit_network(&network, |network| {
                addresses.iter().for_each(|address| network.last_addresses.set(address));
            });
        }
    }

    fn pools(
        &mut self,
        view: &View,
        id: &NetworkId,
    ) -> Result<(&mut Vec<Pool>, &mut Vec<Allocation>), Shortage> {
        if !self.pools.contains_key(id) {
            let Some(network) = view.network(id).filter(|network| !network.removed) else {
                return Err(Shortage::NoNetwork(id.clone()));
            };
            let pools = network.subnets.iter().map(|subnet| Pool::new(network, subnet));
            let pools: Option<Vec<Pool>> = pools.collect();
            let pools = pools.filter(|pools| !pools.is_empty());
            let pools = pools.ok_or_else(|| Shortage::no_subnet(network))?;
            self.pools.insert(id.clone(), pools);
        }
        let pools = self.pools.get_mut(id).ok_or_else(|| Shortage::NoNetwork(id.clone()))?;
        Ok((pools, &mut self.taken))
    }
}

impl Pool {
    fn new(network: &Network, subnet: &Subnet) -> Option<Self> {
        let net = subnet.net;
        // A subnet of one or two addresses has none for anybody.
        if net.prefix_len() + 2 > net.max_prefix_len() {
            return None;
        }
        let (base, top) = (number_of(net.network()), number_of(net.broadcast()));
        let (mut first, mut end) = (base + 1, top - 1);
        let range = network.spec.range_of(subnet);
        if let Some(range) = range {
            first = first.max(number_of(range.network()));
            end = end.min(number_of(range.broadcast()));
        }
        end = end.min(first | TAIL);
        let alike = |number: u128| (first & !TAIL) | (number & TAIL);
        let mut taken = Runs::default();
        taken.insert(alike(number_of(subnet.gateway)));
        taken.extend(network.spec.aux_of(subnet).map(|(_, address)| alike(number_of(address))));
        let is_mesh = network.spec.ingress;
        let mut begin = first;
        if is_mesh {
            begin = first.max(base + INGRESS_TASKS.min((top - base).div_ceil(2)));
            // The next hop that the mesh's routes name; nobody has it.
            taken.insert(alike(top - 1));
        }
        let last = network.last_addresses.of_family(subnet.gateway).map(number_of);
        let (network, name) = (network.id.clone(), network.spec.name.clone());
        Some(Self { network, name, net, range, first, end, begin, is_mesh, taken, last })
    }

    /// The next one after that handed out last: one that was just given back rests.
    fn next(&self, used: &index::Addresses) -> Option<u128> {
        let last = self.last.filter(|last| (self.first..self.end).contains(last));
        let next = last.map_or(self.begin, |last| last + 1);
        [next, self.begin, self.first].into_iter().find_map(|from| self.free(used, from))
    }

    /// The first free one from `number` on.
    fn free(&self, used: &index::Addresses, mut number: u128) -> Option<u128> {
        while number <= self.end {
            let next = self.taken.gap(used.gap(&self.network, self.is_mesh, number));
            if next == number {
                return Some(number);
            }
            number = next;
        }
        None
    }

    fn shortage(&self) -> Shortage {
        Shortage::Exhausted(self.name.clone(), self.range.unwrap_or(self.net))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::check;
    use expect_test::expect;

    #[test]
    fn a_service_and_its_tasks_get_addresses_in_order() {
        check(
            "
            node n1
            network front subnet=10.0.1.0/24
            service web replicas=2 networks=front
            ",
            &expect![[r#"
                + web.1 assigned running n1 front=10.0.1.3
                + web.2 assigned running n1 front=10.0.1.4
                ~ network front vni 4097 last 10.0.1.4
                ~ web vip front=10.0.1.2
            "#]],
        );
    }

    #[test]
    fn a_task_that_was_given_up_keeps_its_address_while_it_may_run() {
        let case = |node: &str| {
            format!(
                "
                node n1
                node n2 {node}
                network front subnet=10.0.1.0/29 vni=4097 last=10.0.1.2
                service web replicas=1 networks=front vip=front=10.0.1.2
                task web.1 orphaned n2 desired=shutdown address=front=10.0.1.3
                "
            )
        };
        check(
            &case("down"),
            &expect![[r#"
            + web.1 assigned running n1 front=10.0.1.4
            ~ network front last 10.0.1.4
        "#]],
        );
        check(
            &case("since=31"),
            &expect![[r#"
            + web.1 assigned running n1 front=10.0.1.4
            ~ network front last 10.0.1.4
            wake 101s
        "#]],
        );
        check(
            &case("since=30"),
            &expect![[r#"
            + web.1 assigned running n1 front=10.0.1.3
            ~ network front last 10.0.1.3
        "#]],
        );
    }

    #[test]
    fn an_address_that_was_given_back_rests_until_the_others_were_used() {
        check(
            "
            node n1
            network front subnet=10.0.1.0/29 vni=4097 last=10.0.1.5
            service web replicas=3 networks=front vip=front=10.0.1.2
            task web.1 running n1 address=front=10.0.1.3
            ",
            &expect![[r#"
                + web.2 assigned running n1 front=10.0.1.6
                + web.3 assigned running n1 front=10.0.1.4
                ~ network front last 10.0.1.4
            "#]],
        );
    }

    #[test]
    fn a_task_holds_its_address_until_it_has_ended() {
        check(
            "
            node n1
            network front subnet=10.0.1.0/29 vni=4097 last=10.0.1.5
            service web replicas=2 networks=front vip=front=10.0.1.2
            task web.1 running n1 address=front=10.0.1.3 desired=shutdown
            task web.1 failed n1 address=front=10.0.1.4 desired=shutdown
            task web.1 running n1 address=front=10.0.1.5
            task web.3 running n1 address=front=10.0.1.6 desired=remove
            ",
            &expect![[r#"
                + web.2 assigned running n1 front=10.0.1.4
                ~ network front last 10.0.1.4
            "#]],
        );
    }

    #[test]
    fn an_exhausted_subnet_is_named() {
        check(
            "
            node n1
            network front subnet=10.0.1.0/30 vni=4097
            service web replicas=1 networks=front
            ",
            &expect![[r#"
                + web.1 new running - error: no free address in 10.0.1.0/30 (network front)
                ~ network front last 10.0.1.2
                ~ web error: no free address in 10.0.1.0/30 (network front)
                ~ web vip front=10.0.1.2
            "#]],
        );
    }

    #[test]
    fn a_full_mesh_is_told_by_nodes_tasks_and_services() {
        check(
            "
            network ingress ingress subnet=10.255.0.0/29 vni=4096
            node n1 ingress=none
            node n2 ingress=none
            node n3 ingress=none
            node n4 ingress=none
            service web replicas=3 ports=8080:80
            service front replicas=1
            ",
            &expect![[r#"
                + front.1 assigned running n1
                + web.1 new running - error: no free address in 10.255.0.0/29 (network ingress)
                + web.2 new running - error: no free address in 10.255.0.0/29 (network ingress)
                + web.3 new running - error: no free address in 10.255.0.0/29 (network ingress)
                ~ node n1 ingress 10.255.0.2
                ~ node n2 ingress 10.255.0.3
                ~ node n3 ingress 10.255.0.4
                ~ node n4 ingress 10.255.0.5
                ~ web error: no free address in 10.255.0.0/29 (network ingress)
                ~ web ports 8080:80/tcp
            "#]],
        );
    }

    #[test]
    fn the_address_of_a_node_that_left_comes_back() {
        check(
            "
            network ingress ingress subnet=10.255.0.0/16 vni=4096
            node n1 down left ingress=10.255.0.2
            node n2 ingress=none
            node n3 down ingress=10.255.0.3
            ",
            &expect![[r#"
                ~ node n1 ingress none
                ~ node n2 ingress 10.255.0.2
            "#]],
        );
    }

    #[test]
    fn addresses_come_from_the_range_and_never_from_those_kept() {
        check(
            "
            node n1
            network front subnet=10.0.1.0/24 range=10.0.1.252/30 aux=10.0.1.253 vni=4097
            service web replicas=2 networks=front
            ",
            &expect![[r#"
                + web.1 assigned running n1 front=10.0.1.254
                + web.2 new running - error: no free address in 10.0.1.252/30 (network front)
                ~ network front last 10.0.1.254
                ~ web error: no free address in 10.0.1.252/30 (network front)
                ~ web vip front=10.0.1.252
            "#]],
        );
    }

    #[test]
    fn tasks_of_the_mesh_stay_in_the_range_that_was_chosen_for_it() {
        check(
            "
            node n1
            network ingress ingress subnet=10.255.0.0/16 range=10.255.0.8/30 vni=4096
            service web replicas=5 ports=8080:80
            ",
            &expect![[r#"
                + web.1 assigned running n1 mesh 10.255.0.8 ports 8080:80/tcp
                + web.2 assigned running n1 mesh 10.255.0.9 ports 8080:80/tcp
                + web.3 assigned running n1 mesh 10.255.0.10 ports 8080:80/tcp
                + web.4 assigned running n1 mesh 10.255.0.11 ports 8080:80/tcp
                + web.5 new running - error: no free address in 10.255.0.8/30 (network ingress)
                ~ network ingress last 10.255.0.11
                ~ web error: no free address in 10.255.0.8/30 (network ingress)
                ~ web ports 8080:80/tcp
            "#]],
        );
    }

    #[test]
    fn nodes_and_tasks_of_the_mesh_get_addresses_of_its_network() {
        check(
            "
            node n1 ingress=none
            node n2 ingress=none
            network ingress ingress subnet=10.255.0.0/16 vni=4096
            service web replicas=1 ports=8080:80
            ",
            &expect![[r#"
                + web.1 assigned running n1 mesh 10.255.1.0 ports 8080:80/tcp
                ~ network ingress last 10.255.1.1
                ~ node n1 ingress 10.255.0.2
                ~ node n2 ingress 10.255.0.3
                ~ web ports 8080:80/tcp
                ~ web vip ingress=10.255.1.1
            "#]],
        );
    }

    #[test]
    fn a_network_of_two_subnets_gives_an_address_of_each() {
        check(
            "
            node n1
            network both subnet=10.0.1.0/24,fd00:1::/64 vni=4097 last=10.0.1.9+fd00:1::1:0
            network six subnet=fd00:2::/64 vni=4098
            service web replicas=2 networks=both,six
            ",
            &expect![[r#"
                + web.1 assigned running n1 both=10.0.1.11+fd00:1::1:2 six=fd00:2::3
                + web.2 assigned running n1 both=10.0.1.12+fd00:1::1:3 six=fd00:2::4
                ~ network both last 10.0.1.12+fd00:1::1:3
                ~ network six last fd00:2::4
                ~ web vip both=10.0.1.10+fd00:1::1:1 six=fd00:2::2
            "#]],
        );
    }

    #[test]
    fn whoever_lacks_an_address_of_one_family_takes_none_of_the_other() {
        check(
            "
            node n1
            network both subnet=10.0.1.0/24,fd00:1::/125 vni=4097
            service web replicas=6 networks=both
            service other replicas=1
            ",
            &expect![[r#"
                + other.1 assigned running n1
                + web.1 assigned running n1 both=10.0.1.3+fd00:1::3
                + web.2 assigned running n1 both=10.0.1.4+fd00:1::4
                + web.3 assigned running n1 both=10.0.1.5+fd00:1::5
                + web.4 assigned running n1 both=10.0.1.6+fd00:1::6
                + web.5 new running - error: no free address in fd00:1::/125 (network both)
                + web.6 new running - error: no free address in fd00:1::/125 (network both)
                ~ network both last 10.0.1.6+fd00:1::6
                ~ web error: no free address in fd00:1::/125 (network both)
                ~ web vip both=10.0.1.2+fd00:1::2
            "#]],
        );
    }

    #[test]
    fn addresses_differ_in_their_last_four_bytes() {
        check(
            "
            node n1
            network six subnet=fd00:1::/64 vni=4097 last=fd00:1::ffff:fffd
            service web replicas=2 networks=six
            ",
            &expect![[r#"
                + web.1 assigned running n1 six=fd00:1::ffff:ffff
                + web.2 assigned running n1 six=fd00:1::2
                ~ network six last fd00:1::2
                ~ web vip six=fd00:1::ffff:fffe
            "#]],
        );
    }

    #[test]
    fn the_mesh_may_have_two_families() {
        check(
            "
            node n1 ingress=none
            node n2 ingress=10.255.0.9+fd00:255::9
            network ingress ingress subnet=10.255.0.0/16,fd00:255::/64 vni=4096
            service web replicas=1 ports=8080:80
            ",
            &expect![[r#"
                + web.1 assigned running n1 mesh 10.255.1.0+fd00:255::100 ports 8080:80/tcp
                ~ network ingress last 10.255.1.1+fd00:255::101
                ~ node n1 ingress 10.255.0.2+fd00:255::2
                ~ web ports 8080:80/tcp
                ~ web vip ingress=10.255.1.1+fd00:255::101
            "#]],
        );
    }
}
