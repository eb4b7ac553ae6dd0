//! The topology that follows is the one that is made from nothing.

use super::*;
use crate::assign::topology::{
    endpoints, has_place, host, mesh_task, published, service_view, settings,
};
use discovery::{MeshNode, MeshPort, NetworkDifference};
use proptest::prelude::*;
use store::Tx;
use types::{
    Attachment, ContainerStatus, DesiredState, EndpointMode, Network, NetworkAttachment, Node,
    NodeState, PublishMode, PublishedPort, Service, Timestamp, Version, Vip,
};

/// The parts of a topology, made from nothing and without a thought of what was before.
#[derive(Debug, Default, PartialEq)]
struct Straightforward {
    networks: BTreeMap<NetworkId, NetworkView>,
    mesh: Mesh,
}

impl Straightforward {
    fn of(view: &View) -> Self {
        let mut all = Self::default();
        for network in view.networks() {
            all.add_network(network);
        }
        for node in view.nodes().filter(|node| has_place(node)) {
            let ingress = node.ingress_addresses;
            if ingress.is_empty() {
                continue;
            }
            let seen = MeshNode { address: node.status.vtep(), ingress };
            all.mesh.nodes.insert(node.id.clone(), seen);
        }
        for task in view.tasks() {
            let Some(node) = host(view, task) else { continue };
            for (network, endpoint) in endpoints(task, node) {
                if let Some(network) = all.networks.get_mut(network) {
                    network.endpoints.insert(task.id.clone(), endpoint);
                }
            }
            if let Some(seen) = mesh_task(task, node) {
                all.mesh.tasks.insert(task.id.clone(), seen);
            }
        }
        for service in view.services() {
            all.add_service(service, view);
        }
        // There is one; of several, which the rules refuse, it is the first.
        if let Some(ingress) = view.networks().find(|network| network.spec.ingress) {
            let prefix = |v4: bool| {
                let mut nets = ingress.subnets.iter().map(|subnet| subnet.net);
                nets.find(|net| net.network().is_ipv4() == v4).map_or(0, |net| net.prefix_len())
            };
            all.mesh.prefix = if prefix(true) == 16 { 0 } else { prefix(true) };
            all.mesh.prefix_v6 = prefix(false);
            all.mesh.mtu = ingress.spec.mtu();
        }
        all
    }

    fn add_network(&mut self, network: &Network) {
        if network.spec.ingress {
            return;
        }
        let mut seen = NetworkView::default();
        let settings = Some(settings(network));
        NetworkDifference { settings, ..NetworkDifference::default() }.apply(&mut seen);
        self.networks.insert(network.id.clone(), seen);
    }

    fn add_service(&mut self, service: &Service, view: &View) {
        for attachment in &service.spec.task.networks {
            if let Some(network) = self.networks.get_mut(&attachment.target) {
                let seen = service_view(service, &attachment.target, &attachment.aliases);
                network.services.insert(service.id.clone(), seen);
            }
        }
        for port in &service.ports {
            let Some(key) = published(port) else { continue };
            let tasks = view.tasks_of_service(&service.id).map(|task| &task.id);
            let tasks = tasks.filter(|id| self.mesh.tasks.contains_key(*id)).cloned().collect();
            let seen = MeshPort { service: service.id.clone(), target: port.target, tasks };
            self.mesh.ports.insert(key, seen);
        }
    }
}

/// One object is written.
#[derive(Clone, Debug)]
enum Write {
    Node {
        node: u8,
        address: u8,
        state: u8,
        in_mesh: bool,
    },
    Network {
        network: u8,
        ingress: bool,
        settings: u8,
    },
    Service {
        service: u8,
        networks: u8,
        round_robin: bool,
        stack: bool,
    },
    /// A published port goes to a service; whoever had it has it no more.
    Port {
        port: u16,
        service: Option<u8>,
        target: u16,
        host: bool,
    },
    Task {
        task: u8,
        node: Option<u8>,
        networks: u8,
        in_mesh: bool,
        state: usize,
        stops: bool,
        container: bool,
    },
    RemoveNode(u8),
    RemoveNetwork(u8),
    RemoveService(u8),
    RemoveTask(u8),
}

fn write() -> impl Strategy<Value = Write> {
    let (one, bits) = (0..3_u8, 0..8_u8);
    prop_oneof![
        2 => (one.clone(), 0..3_u8, 0..4_u8, any::<bool>())
            .prop_map(|(node, address, state, in_mesh)| Write::Node { node, address, state, in_mesh }),
        2 => (one.clone(), prop::bool::weighted(0.2), 0..4_u8)
            .prop_map(|(network, ingress, settings)| Write::Network { network, ingress, settings }),
        2 => (one.clone(), bits.clone(), any::<bool>(), any::<bool>()).prop_map(
            |(service, networks, round_robin, stack)| Write::Service { service, networks, round_robin, stack }
        ),
        3 => (0..3_u16, prop::option::of(one.clone()), 80..82_u16, prop::bool::weighted(0.2)).prop_map(
            |(port, service, target, host)| Write::Port { port, service, target, host }
        ),
        8 => (
            (0..9_u8, prop::option::weighted(0.9, one.clone()), bits),
            (any::<bool>(), 0..TaskState::ALL.len(), any::<bool>(), any::<bool>())
        ).prop_map(|((task, node, networks), (in_mesh, state, stops, container))| {
            Write::Task { task, node, networks, in_mesh, state, stops, container }
        }),
        1 => one.clone().prop_map(Write::RemoveNode),
        1 => one.clone().prop_map(Write::RemoveNetwork),
        1 => one.prop_map(Write::RemoveService),
        1 => (0..9_u8).prop_map(Write::RemoveTask),
    ]
}

fn id<I: From<String>>(kind: &str, number: u8) -> I {
    format!("{kind}{number}").into()
}

fn networks(bits: u8) -> impl Iterator<Item = NetworkId> {
    (0..3).filter(move |bit| bits >> bit & 1 == 1).map(|bit| id("net", bit))
}

fn carry_out(tx: &mut Tx, write: &Write) {
    match write.clone() {
        Write::Node { node, address, state, in_mesh } => {
            let mut it = Node { id: id("n", node), ..Node::default() };
            it.status.state = if state < 2 { NodeState::Ready } else { NodeState::Down };
            if state == 3 {
                Node::LEFT.clone_into(&mut it.status.message);
            }
            if address > 0 {
                it.status.address = [192, 168, node, address].into();
            }
            it.ingress_addresses =
                if in_mesh { [10, 255, 0, node].into() } else { types::Addresses::default() };
            tx.put_node(it);
        }
        Write::Network { network, ingress, settings } => {
            let mut it = Network { id: id("net", network), ..Network::default() };
            it.spec.ingress = ingress;
            it.vni = u32::from(settings);
            let prefix = 16 + settings;
            let nets = [format!("10.{network}.0.0/{prefix}"), format!("fd00:{network}::/64")];
            let nets = nets.iter().take(settings.into()).map(|net| net.parse().unwrap());
            it.subnets = nets.filter_map(types::Subnet::new).collect();
            tx.put_network(it);
        }
        Write::Service { service, networks: bits, round_robin, stack } => {
            let known = tx.service(&id("s", service)).map(|it| it.ports.clone());
            let mut it = Service { id: id("s", service), ..Service::default() };
            it.ports = known.unwrap_or_default();
            it.spec.task.networks = networks(bits)
                .map(|target| NetworkAttachment { target, aliases: vec!["www".to_owned()] })
                .collect();
            if round_robin {
                it.spec.endpoint.mode = EndpointMode::Dnsrr;
            }
            if stack {
                it.spec.labels.insert(STACK_LABEL.to_owned(), "shop".to_owned());
            }
            it.vips = networks(bits)
                .map(|network| Vip { network, addresses: [10, 0, 0, service].into() })
                .collect();
            tx.put_service(it);
        }
        Write::Port { port, service, target, host } => {
            let published = 8000 + port;
            for number in 0..3 {
                tx.edit_service(&id("s", number), |it| {
                    it.ports.retain(|it| it.published != published);
                });
            }
            let mode = if host { PublishMode::Host } else { PublishMode::Ingress };
            let port = PublishedPort { published, target, mode, ..PublishedPort::default() };
            if let Some(service) = service {
                tx.edit_service(&id("s", service), |it| it.ports.push(port));
            }
        }
        Write::Task { .. } => tx.put_task(task(write)),
        Write::RemoveNode(number) => tx.remove_node(&id("n", number)),
        Write::RemoveNetwork(number) => tx.remove_network(&id("net", number)),
        Write::RemoveService(number) => tx.remove_service(&id("s", number)),
        Write::RemoveTask(number) => tx.remove_task(&id("t", number)),
    }
}

fn task(write: &Write) -> Task {
    let Write::Task { task, node, networks: bits, in_mesh, state, stops, container } = write else {
        return Task::default();
    };
    let mut it = Task { id: id("t", *task), service: id("s", task % 3), ..Task::default() };
    it.spec.container.image = format!("image {}", task % 3);
    it.node = node.map(|node| id("n", node));
    it.status.state = TaskState::ALL[*state];
    let addresses = [10, 0, 1, *task].into();
    let attachment = |network| Attachment { network, addresses, aliases: Vec::new() };
    it.attachments = networks(*bits).map(attachment).collect();
    it.ingress_addresses =
        if *in_mesh { [10, 255, 1, *task].into() } else { types::Addresses::default() };
    if *stops {
        it.desired = DesiredState::Shutdown;
    }
    if *container {
        let id = "c0ffee".repeat(8);
        it.status.container = Some(ContainerStatus { id, ..ContainerStatus::default() });
    }
    it
}

/// What a node has after it has applied a difference.
fn applied(mut has: wire::Assignments, difference: Option<wire::Difference>) -> wire::Assignments {
    let Some(difference) = difference else { return has };
    assert_eq!(difference.from, has.version);
    difference.apply(&mut has);
    has
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn following_is_the_same_as_making_it_from_nothing(
        history in prop::collection::vec(prop::collection::vec(write(), 1..6), 1..25)
    ) {
        let (mut view, mut topology) = (View::default(), Topology::default());
        for writes in history {
            let (before, earlier) = (view.clone(), topology.clone());
            let mut tx = Tx::new(&view);
            for write in &writes {
                carry_out(&mut tx, write);
            }
            view.apply(&tx.finish(), Version(view.version().0 + 1), Timestamp(1));
            let touched = topology.follow(&Step::between(&before, &view));

            let networks = topology.networks.iter();
            let networks = networks.map(|(id, it)| (id.clone(), NetworkView::clone(it))).collect();
            let all = Straightforward { networks, mesh: Mesh::clone(&topology.mesh) };
            prop_assert_eq!(&all, &Straightforward::of(&view));
            prop_assert_eq!(&topology, &Topology::of(&view), "who is on which network");
            // What is not said to be touched is the same object.
            for (id, network) in earlier.networks.iter().filter(|(id, _)| !touched.networks.contains(*id)) {
                prop_assert!(Arc::ptr_eq(network, &topology.networks[id]));
            }
            prop_assert!(touched.mesh || Arc::ptr_eq(&earlier.mesh, &topology.mesh));
            // And what is, differs.
            prop_assert!(!touched.mesh || earlier.mesh != topology.mesh);

            let mut alike = Alike::default();
            for node in (0..3).map(|number| id("n", number)) {
                let mut old = earlier.assignments(&before, (&node, &Files::default()), |_| false);
                let mut new = topology.assignments(&view, (&node, &old.files), |task| task.as_str() == "t1");
                (old.version, new.version) = (1, 2);
                let difference = crate::assign::difference(&old, &new, &mut alike);
                let (got, wanted) = (applied(old.whole(), difference), new.whole());
                prop_assert_eq!(got.knowledge, wanted.knowledge);
                prop_assert_eq!(got.withdrawn, wanted.withdrawn);
                prop_assert!(got.tasks.keys().eq(wanted.tasks.keys()));
                prop_assert_eq!(got.specs, wanted.specs);
            }
        }
    }
}
