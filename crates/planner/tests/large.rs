//! A mesh and a network of 5,000 nodes: all of them have addresses, and no two the same one.

mod support;

use planner::Planner;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;
use store::{Tx, View, rules};
use support::Count;
use types::{
    Addresses, Cluster, Network, NetworkAttachment, NetworkId, Node, NodeId, NodeState,
    PublishedPort, Service, ServiceMode, Subnet, TaskState, Timestamp, Version,
};

const NODES: usize = 5_000;

struct World {
    view: View,
    now: Timestamp,
    ids: Count,
    planner: Planner,
}

impl World {
    fn new() -> Self {
        let (view, now, ids) = (View::default(), Timestamp(1_000_000_000), Count(0));
        let mut world = Self { view, now, ids, planner: Planner::default() };
        world.write(|tx, _| {
            tx.put_cluster(Cluster { id: "c".into(), ..Cluster::default() });
            tx.put_network(network("ingress", 4096, "10.255.0.0/16"));
            tx.put_network(network("front", 0, "10.64.0.0/16"));
        });
        world
    }

    fn write(&mut self, edit: impl FnOnce(&mut Tx, &mut Count)) {
        let mut tx = Tx::new(&self.view);
        edit(&mut tx, &mut self.ids);
        self.commit(&tx.finish());
    }

    fn commit(&mut self, changes: &store::Changes) {
        rules::check(&self.view, changes).expect("the rules are kept");
        self.now = self.now.after(Duration::from_millis(1));
        let version = Version(self.view.version().0 + 1);
        self.view.apply(changes, version, self.now);
    }

    fn plan(&mut self) {
        loop {
            let plan = self.planner.plan(&self.view, self.now, &mut self.ids);
            if plan.changes.is_empty() {
                return;
            }
            self.commit(&plan.changes);
        }
    }

    /// Addresses on the ingress network and on the other one.
    fn addresses(&self) -> (Vec<IpAddr>, Vec<IpAddr>) {
        let nodes = self.view.nodes().map(|node| node.ingress_addresses);
        let tasks = self.view.tasks().map(|task| task.ingress_addresses);
        let vips = |network: &'static str| {
            let vips = self.view.services().flat_map(|service| &service.vips);
            vips.filter(move |vip| vip.network == NetworkId::from(network)).map(|vip| vip.addresses)
        };
        let attached = self.view.tasks().flat_map(|task| &task.attachments).map(|it| it.addresses);
        let mesh = nodes.chain(tasks).chain(vips("ingress")).flat_map(Addresses::iter).collect();
        (mesh, attached.chain(vips("front")).flat_map(Addresses::iter).collect())
    }
}

fn network(name: &str, vni: u32, net: &str) -> Network {
    let mut network = Network { id: name.into(), vni, ..Network::default() };
    name.clone_into(&mut network.spec.name);
    network.spec.ingress = name == "ingress";
    let subnet = Subnet::new(net.parse().expect("a subnet"));
    network.spec.subnets = vec![subnet.expect("an address")];
    if network.spec.ingress {
        network.subnets.clone_from(&network.spec.subnets);
    }
    network
}

fn node(id: NodeId) -> Node {
    let mut node = Node { id, ..Node::default() };
    node.status.state = NodeState::Ready;
    node
}

/// On every node, published in the routing mesh.
fn service() -> Service {
    let mut service = Service { id: "web".into(), ..Service::default() };
    "web".clone_into(&mut service.spec.name);
    service.spec.mode = ServiceMode::Global;
    let port = PublishedPort { published: 8080, target: 80, ..PublishedPort::default() };
    service.spec.endpoint.ports = vec![port];
    service.spec.task.networks =
        vec![NetworkAttachment { target: "front".into(), ..NetworkAttachment::default() }];
    service
}

#[test]
fn five_thousand_nodes_and_their_tasks_have_addresses_of_their_own() {
    let mut world = World::new();
    world.write(|tx, ids| (0..NODES).for_each(|_| tx.put_node(node(NodeId::draw(ids)))));
    world.write(|tx, _| tx.put_service(service()));
    world.plan();
    let placed = world.view.tasks().filter(|it| it.status.state == TaskState::Assigned).count();
    assert_eq!(placed, NODES);
    let (mesh, front) = world.addresses();
    // One for each node, each task and the service.
    assert_eq!((mesh.len(), front.len()), (2 * NODES + 1, NODES + 1));
    // Whoever comes later finds one, too: the lowest that is left.
    let late = NodeId::draw(&mut world.ids);
    world.write(|tx, _| tx.put_node(node(late.clone())));
    world.plan();
    assert!(world.view.node(&late).is_some_and(|node| !node.ingress_addresses.is_empty()));
    let (mesh, front) = world.addresses();
    assert_eq!((mesh.len(), front.len()), (2 * NODES + 3, NODES + 2));
    let differ = |addresses: &[IpAddr]| addresses.iter().collect::<BTreeSet<_>>().len();
    assert_eq!((differ(&mesh), differ(&front)), (mesh.len(), front.len()));
}
