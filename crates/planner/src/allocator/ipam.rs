//! Which addresses of a network are taken, and which one is next.

use crate::Draft;
use crate::orchestrator::lingers;
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use store::View;
use types::{Network, NetworkId, Task, Timestamp};

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

/// The addresses of all networks. It reads them when the first one is asked for: most plans hand
/// out none.
#[derive(Debug)]
pub(super) struct Ledger {
    now: Timestamp,
    pools: Option<BTreeMap<NetworkId, Pool>>,
    /// What was taken, with the pool's state before.
    taken: Vec<(NetworkId, u32, Option<u32>)>,
}

/// A point to which a [`Ledger`] can be taken back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark(usize);

#[derive(Debug)]
struct Pool {
    name: String,
    net: Ipv4Net,
    /// The user's choice of where addresses come from.
    range: Option<Ipv4Net>,
    /// The first and the last address for services and tasks.
    first: u32,
    end: u32,
    used: BTreeSet<u32>,
    last: Option<u32>,
}

impl Ledger {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { now, pools: None, taken: Vec::new() }
    }

    /// Takes an address for a service or a task.
    pub(super) fn take(&mut self, view: &View, network: &NetworkId) -> Result<Ipv4Addr, Shortage> {
        let pool = self.pool(view, network)?;
        let (first, end) = (pool.first, pool.end);
        let start = pool.last.filter(|at| (first..end).contains(at)).map_or(first, |at| at + 1);
        // The next one after that handed out last: one that was just given back rests.
        let free = (start..=end).chain(first..start).find(|it| !pool.used.contains(it));
        let address = free.ok_or_else(|| pool.exhausted())?;
        pool.used.insert(address);
        let before = pool.last.replace(address);
        self.taken.push((network.clone(), address, before));
        Ok(address.into())
    }

    /// Takes an address of the ingress network for a node: the lowest one.
    pub(super) fn take_for_node(
        &mut self,
        view: &View,
        network: &NetworkId,
    ) -> Result<Ipv4Addr, Shortage> {
        let pool = self.pool(view, network)?;
        let mut range = u32::from(pool.net.network()) + 1..pool.first;
        let free = range.find(|address| !pool.used.contains(address));
        let address = free.ok_or_else(|| pool.exhausted())?;
        pool.used.insert(address);
        Ok(address.into())
    }

    /// The present point, for [`Ledger::undo`].
    pub(super) fn mark(&self) -> Mark {
        Mark(self.taken.len())
    }

    /// Gives back what services and tasks took since `mark`.
    pub(super) fn undo(&mut self, mark: Mark) {
        for (network, address, last) in self.taken.drain(mark.0..).rev() {
            if let Some(pool) = self.pools.as_mut().and_then(|pools| pools.get_mut(&network)) {
                pool.used.remove(&address);
                pool.last = last;
            }
        }
    }

    /// Writes which address was handed out last.
    pub(super) fn keep(self, draft: &mut Draft<'_>) {
        let last: BTreeMap<NetworkId, u32> =
            self.taken.into_iter().map(|(network, address, _)| (network, address)).collect();
        for (network, address) in last {
            draft.tx.edit_network(&network, |network| network.last_address = Some(address.into()));
        }
    }

    fn pool(&mut self, view: &View, id: &NetworkId) -> Result<&mut Pool, Shortage> {
        let pools = self.pools.get_or_insert_with(|| read(view, self.now));
        match pools.get_mut(id) {
            Some(pool) => Ok(pool),
            None => Err(match view.network(id).filter(|network| !network.removed) {
                Some(network) => Shortage::no_subnet(network),
                None => Shortage::NoNetwork(id.clone()),
            }),
        }
    }
}

/// Reads what is taken in every network that has a subnet.
fn read(view: &View, now: Timestamp) -> BTreeMap<NetworkId, Pool> {
    let mut pools: BTreeMap<NetworkId, Pool> = view
        .networks()
        .filter(|network| !network.removed)
        .filter_map(|network| Some((network.id.clone(), Pool::new(network)?)))
        .collect();
    let mut hold = |network: &NetworkId, address: Ipv4Addr| {
        if let Some(pool) = pools.get_mut(network) {
            pool.used.insert(address.into());
        }
    };
    let ingress = view.ingress_network().map(|network| &network.id);
    if let Some(ingress) = ingress {
        for address in view.nodes().filter_map(|node| node.ingress_address) {
            hold(ingress, address);
        }
    }
    for vip in view.services().flat_map(|service| &service.vips) {
        hold(&vip.network, vip.address);
    }
    let holds = |task: &&Arc<Task>| task.occupies() || lingers(view, now, task);
    for task in view.tasks().filter(holds) {
        for attachment in &task.attachments {
            hold(&attachment.network, attachment.address);
        }
        if let (Some(ingress), Some(address)) = (ingress, task.ingress_address) {
            hold(ingress, address);
        }
    }
    pools
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
        let mut used = BTreeSet::from([subnet.gateway.into()]);
        used.extend(network.spec.aux_addresses.values().map(|address| u32::from(*address)));
        let (mut first, mut end) = (base + 1, broadcast - 1);
        if let Some(range) = network.spec.ip_range {
            first = first.max(range.network().into());
            end = end.min(range.broadcast().into());
        }
        if network.spec.ingress {
            first = base + INGRESS_NODES.min((broadcast - base).div_ceil(2));
            // The next hop that the mesh's routes name; nobody has it.
            used.insert(broadcast - 1);
        }
        let last = network.last_address.map(u32::from);
        let (name, range) = (network.spec.name.clone(), network.spec.ip_range);
        Some(Self { name, net, range, first, end, used, last })
    }

    fn exhausted(&self) -> Shortage {
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
