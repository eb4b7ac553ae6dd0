//! Which addresses of a network are taken, and which one is next.

use crate::Planning;
use crate::index::Addresses;
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use store::View;
use types::{Network, NetworkId};

/// The addresses of the ingress network from .0.1 to .0.255 are for nodes, the others for tasks.
const INGRESS_NODES: u32 = 256;

/// Why there is no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shortage {
    NoNetwork(NetworkId),
    NoSubnet(String),
    /// The subnet that the user chose for a network is another one's.
    Held(String, Ipv4Net),
    Exhausted(String, Ipv4Net),
}

impl Shortage {
    fn no_subnet(network: &Network) -> Self {
        let name = network.spec.name.clone();
        match network.spec.subnet {
            Some(asked) => Self::Held(name, asked.net),
            None => Self::NoSubnet(name),
        }
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
            Self::Held(name, net) => write!(
                f,
                "network {name} has no subnet: {net} belongs to a network whose tasks still stop"
            ),
            Self::Exhausted(name, net) => write!(f, "no free address in {net} (network {name})"),
        }
    }
}

/// The addresses of all networks: those that are in use, and those that this plan takes.
#[derive(Debug)]
pub(super) struct AddressPools<'a> {
    used: &'a Addresses,
    pools: BTreeMap<NetworkId, Pool>,
    /// What services and tasks took, with the pool's state before.
    taken: Vec<Allocation>,
}

/// An address that a service or a task took.
#[derive(Debug)]
struct Allocation {
    network: NetworkId,
    address: u32,
    /// What had been taken before it.
    last: Option<u32>,
}

/// The addresses of one network.
#[derive(Debug)]
struct Pool {
    name: String,
    net: Ipv4Net,
    /// The user's choice of where addresses come from.
    range: Option<Ipv4Net>,
    /// The first and the last address for services and tasks.
    first: u32,
    end: u32,
    /// Says whether nodes have addresses here, too.
    is_mesh: bool,
    /// Nobody's, or taken by this plan.
    taken: BTreeSet<u32>,
    last: Option<u32>,
    /// No lower one is free for a node, where one was looked for.
    next_node: Option<u32>,
    /// None is left for services and tasks.
    is_exhausted: bool,
}

impl<'a> AddressPools<'a> {
    pub(super) fn new(used: &'a Addresses) -> Self {
        Self { used, pools: BTreeMap::new(), taken: Vec::new() }
    }

    /// Takes an address for a service or a task.
    pub(super) fn take(&mut self, view: &View, network: &NetworkId) -> Result<Ipv4Addr, Shortage> {
        let used = self.used;
        let pool = self.pool(view, network)?;
        if pool.is_exhausted {
            return Err(pool.shortage());
        }
        let (first, end) = (pool.first, pool.end);
        let start = pool.last.filter(|at| (first..end).contains(at)).map_or(first, |at| at + 1);
        // The next one after that handed out last: one that was just given back rests.
        let mut range = (start..=end).chain(first..start);
        let Some(address) = range.find(|it| pool.is_free(used, network, *it)) else {
            pool.is_exhausted = true;
            return Err(pool.shortage());
        };
        pool.taken.insert(address);
        let last = pool.last.replace(address);
        self.taken.push(Allocation { network: network.clone(), address, last });
        Ok(address.into())
    }

    /// Takes an address of the ingress network for a node: the lowest one.
    pub(super) fn take_for_node(
        &mut self,
        view: &View,
        network: &NetworkId,
    ) -> Result<Ipv4Addr, Shortage> {
        let used = self.used;
        let pool = self.pool(view, network)?;
        let first = pool.next_node.unwrap_or(u32::from(pool.net.network()) + 1);
        let free = (first..pool.first).find(|address| pool.is_free(used, network, *address));
        pool.next_node = Some(free.unwrap_or(pool.first));
        let address = free.ok_or_else(|| pool.shortage())?;
        pool.taken.insert(address);
        Ok(address.into())
    }

    /// How much services and tasks have taken so far, for [`AddressPools::undo`].
    pub(super) fn taken(&self) -> usize {
        self.taken.len()
    }

    /// Gives back what services and tasks took since they had taken so much.
    pub(super) fn undo(&mut self, taken: usize) {
        for Allocation { network, address, last } in self.taken.drain(taken..).rev() {
            if let Some(pool) = self.pools.get_mut(&network) {
                pool.taken.remove(&address);
                pool.last = last;
                pool.is_exhausted = false;
            }
        }
    }

    /// Writes which address was handed out last.
    pub(super) fn keep(self, planning: &mut Planning<'_>) {
        let last: BTreeMap<NetworkId, u32> =
            self.taken.into_iter().map(|it| (it.network, it.address)).collect();
        for (network, address) in last {
            let address = Some(address.into());
            planning.tx.edit_network(&network, |network| network.last_address = address);
        }
    }

    fn pool(&mut self, view: &View, id: &NetworkId) -> Result<&mut Pool, Shortage> {
        if !self.pools.contains_key(id) {
            let Some(network) = view.network(id).filter(|network| !network.removed) else {
                return Err(Shortage::NoNetwork(id.clone()));
            };
            let pool = Pool::new(network).ok_or_else(|| Shortage::no_subnet(network))?;
            self.pools.insert(id.clone(), pool);
        }
        self.pools.get_mut(id).ok_or_else(|| Shortage::NoNetwork(id.clone()))
    }
}

impl Pool {
    fn new(network: &Network) -> Option<Self> {
        let subnet = network.subnet?;
        let net = subnet.net;
        // A subnet of one or two addresses has none for anybody.
        if net.prefix_len() > 30 {
            return None;
        }
        let (base, broadcast) = (u32::from(net.network()), u32::from(net.broadcast()));
        let mut taken = BTreeSet::from([subnet.gateway.into()]);
        taken.extend(network.spec.aux_addresses.values().map(|address| u32::from(*address)));
        let (mut first, mut end) = (base + 1, broadcast - 1);
        if let Some(range) = network.spec.ip_range {
            first = first.max(range.network().into());
            end = end.min(range.broadcast().into());
        }
        if network.spec.ingress {
            first = base + INGRESS_NODES.min((broadcast - base).div_ceil(2));
            // The next hop that the mesh's routes name; nobody has it.
            taken.insert(broadcast - 1);
        }
        let last = network.last_address.map(u32::from);
        let (name, range) = (network.spec.name.clone(), network.spec.ip_range);
        let is_mesh = network.spec.ingress;
        let (next_node, is_exhausted) = (None, false);
        Some(Self { name, net, range, first, end, is_mesh, taken, last, next_node, is_exhausted })
    }

    fn is_free(&self, used: &Addresses, network: &NetworkId, address: u32) -> bool {
        let ip = IpAddr::V4(address.into());
        let is_used = used.is_used(network, ip) || (self.is_mesh && used.is_used_in_mesh(ip));
        !is_used && !self.taken.contains(&address)
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
                + web.1 assigned running n2 mesh 10.255.0.4 ports 8080:80/tcp
                + web.2 assigned running n1 mesh 10.255.0.5 ports 8080:80/tcp
                + web.3 new running - error: no free address in 10.255.0.0/29 (network ingress)
                ~ network ingress last 10.255.0.5
                ~ node n1 ingress 10.255.0.2
                ~ node n2 ingress 10.255.0.3
                ~ node n3 ingress none error: no free address in 10.255.0.0/29 (network ingress)
                ~ node n4 ingress none error: no free address in 10.255.0.0/29 (network ingress)
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
}
