//! What only one object can have at a time: a name, an address, a port of the mesh.

use crate::{Key, Object};
use imbl::OrdSet;
use std::net::IpAddr;
use types::{Addresses, ClusterId, NetworkId, Node, Protocol, Service, Task};

/// Something that only one object can have at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Claim {
    /// In lower case, as all names: swarmkit compares them without case.
    ServiceName(String),
    NetworkName(String),
    SecretName(String),
    ConfigName(String),
    Address {
        network: NetworkId,
        address: IpAddr,
    },
    /// An address on the network of the routing mesh, whichever that is.
    MeshAddress(IpAddr),
    MeshPort {
        protocol: Protocol,
        port: u16,
    },
}

impl Claim {
    /// All that an object claims.
    pub(crate) fn all_of(object: &Object) -> Vec<Self> {
        match object {
            Object::Cluster(_) => Vec::new(),
            Object::Node(node) => node_claims(node),
            // The name of one that was removed is free.
            Object::Network(network) if network.removed => Vec::new(),
            Object::Network(network) => vec![Self::network_name(&network.spec.name)],
            Object::Service(service) => service_claims(service),
            Object::Task(task) => task_claims(task),
            // The name is that of the last one alone.
            Object::Secret(secret) if secret.spec.former => Vec::new(),
            Object::Config(config) if config.spec.former => Vec::new(),
            Object::Secret(secret) => vec![Self::secret_name(&secret.spec.name)],
            Object::Config(config) => vec![Self::config_name(&config.spec.name)],
        }
    }

    pub(crate) fn service_name(name: &str) -> Self {
        Self::ServiceName(name.to_lowercase())
    }

    pub(crate) fn network_name(name: &str) -> Self {
        Self::NetworkName(name.to_lowercase())
    }

    pub(crate) fn secret_name(name: &str) -> Self {
        Self::SecretName(name.to_lowercase())
    }

    pub(crate) fn config_name(name: &str) -> Self {
        Self::ConfigName(name.to_lowercase())
    }
}

/// Says whether an object claims what it did before, without a list of that.
pub(crate) fn claim_the_same(was: &Object, is: &Object) -> bool {
    match (was, is) {
        (Object::Node(was), Object::Node(is)) => was.ingress_addresses == is.ingress_addresses,
        (Object::Task(was), Object::Task(is)) => {
            was.occupies() == is.occupies()
                && was.attachments == is.attachments
                && was.ingress_addresses == is.ingress_addresses
        }
        (
            Object::Cluster(_)
            | Object::Node(_)
            | Object::Network(_)
            | Object::Service(_)
            | Object::Task(_)
            | Object::Secret(_)
            | Object::Config(_),
            _,
        ) => Claim::all_of(was) == Claim::all_of(is),
    }
}

fn node_claims(node: &Node) -> Vec<Claim> {
    node.ingress_addresses.iter().map(Claim::MeshAddress).collect()
}

fn service_claims(service: &Service) -> Vec<Claim> {
    let name = Claim::service_name(&service.spec.name);
    let vips = service.vips.iter().flat_map(|vip| on_network(&vip.network, vip.addresses));
    let ports = service.ports.iter().filter(|port| port.in_mesh());
    let ports = ports.map(|port| Claim::MeshPort { protocol: port.protocol, port: port.published });
    std::iter::once(name).chain(vips).chain(ports).collect()
}

/// A task that ended has no address.
fn task_claims(task: &Task) -> Vec<Claim> {
    if !task.occupies() {
        return Vec::new();
    }
    let attachments = task.attachments.iter();
    let addresses = attachments.flat_map(|it| on_network(&it.network, it.addresses));
    addresses.chain(task.ingress_addresses.iter().map(Claim::MeshAddress)).collect()
}

fn on_network(network: &NetworkId, addresses: Addresses) -> impl Iterator<Item = Claim> {
    addresses.iter().map(|address| Claim::Address { network: network.clone(), address })
}

/// Who has what. A wrong state is held as it is: a claim may have several holders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    held: OrdSet<Held>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    claim: Claim,
    by: Key,
}

impl Claims {
    /// Notes that `by` claims `now` instead of what it claimed before.
    pub(crate) fn replace(&mut self, by: &Key, before: Vec<Claim>, now: Vec<Claim>) {
        for claim in before {
            self.held.remove(&Held { claim, by: by.clone() });
        }
        for claim in now {
            self.held.insert(Held { claim, by: by.clone() });
        }
    }

    /// Who has it, in the order of keys.
    pub(crate) fn holders(&self, claim: Claim) -> impl Iterator<Item = &Key> {
        // No key comes before this one.
        let from = Held { claim: claim.clone(), by: Key::Cluster(ClusterId::default()) };
        self.held.range(from..).take_while(move |held| held.claim == claim).map(|held| &held.by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Changes, Tx, View, rules};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use types::{
        Attachment, Config, Network, PublishMode, PublishedPort, Secret, TaskState, Timestamp,
        Version, Vip,
    };

    /// One write: of which kind, with which number, and what it claims.
    type Write = (u8, u8, u8, u8, bool);

    fn write(tx: &mut Tx, (kind, number, one, two, flag): Write) {
        let id = format!("{kind}{number}");
        // Some are of both families.
        let address = |last: u8| Addresses {
            v4: Some([10, 0, 0, last].into()),
            v6: (last == 2).then(|| [0xfd00, 0, 0, 0, 0, 0, 0, 2].into()),
        };
        let given = |last: u8, has: bool| if has { address(last) } else { Addresses::default() };
        let network = |number: u8| format!("1{number}").as_str().into();
        match (kind, flag) {
            (0, true) => tx.put(Node {
                id: id.as_str().into(),
                ingress_addresses: given(one, one > 0),
                ..Node::default()
            }),
            (1, true) => {
                let mut network = Network { id: id.as_str().into(), ..Network::default() };
                network.spec.name = ["a", "A", "b"][usize::from(one % 3)].into();
                network.spec.ingress = number == 0 && two > 0;
                network.removed = two == 2;
                tx.put(network);
            }
            (2, true) => {
                let mut service = Service { id: id.as_str().into(), ..Service::default() };
                service.spec.name = ["a", "A", "b"][usize::from(one % 3)].into();
                let mode = if two == 0 { PublishMode::Host } else { PublishMode::Ingress };
                let published = u16::from(one);
                service.ports = vec![PublishedPort { published, mode, ..Default::default() }];
                let vip = Vip { network: network(two), addresses: address(one) };
                service.vips = vec![vip];
                tx.put(service);
            }
            (3, true) => {
                let mut task = Task { id: id.as_str().into(), ..Task::default() };
                task.attachments = vec![Attachment {
                    network: network(two),
                    addresses: address(one),
                    aliases: Vec::new(),
                }];
                task.ingress_addresses = given(two, two > 0);
                // It stays ended.
                let ended = |task: &Arc<Task>| !task.occupies();
                let was = [tx.task(&task.id), tx.before().task(&task.id)];
                if (number == 2 && one == 2) || was.into_iter().flatten().any(ended) {
                    task.status.state = TaskState::Failed;
                }
                tx.put(task);
            }
            // They keep their names.
            (4, true) => {
                let mut secret = Secret { id: id.as_str().into(), ..Secret::default() };
                secret.spec.name = ["a", "A", "b"][usize::from(number % 3)].into();
                tx.put(secret);
            }
            (5, true) => {
                let mut config = Config { id: id.as_str().into(), ..Config::default() };
                config.spec.name = ["a", "A", "b"][usize::from(number % 3)].into();
                tx.put(config);
            }
            (0, false) => tx.remove::<Node>(&id.into()),
            (1, false) => tx.remove::<Network>(&id.into()),
            (2, false) => tx.remove::<Service>(&id.into()),
            (3, false) => tx.remove::<Task>(&id.into()),
            (4, false) => tx.remove::<Secret>(&id.into()),
            (_, _) => tx.remove::<Config>(&id.into()),
        }
    }

    fn changes(view: &View, writes: &[Write]) -> Changes {
        let mut tx = Tx::new(view);
        for one in writes {
            write(&mut tx, *one);
        }
        tx.finish()
    }

    /// All claims, found by looking through everything; those of the mesh by one name.
    fn look_through(view: &View) -> BTreeMap<Claim, Vec<(Key, Claim)>> {
        let mut all: BTreeMap<Claim, Vec<(Key, Claim)>> = BTreeMap::new();
        for object in view.tables.objects() {
            for claim in Claim::all_of(&object) {
                let ingress = view.networks().find(|network| network.spec.ingress);
                let name = match &claim {
                    Claim::Address { network, address }
                        if ingress.is_some_and(|it| it.id == *network) =>
                    {
                        Claim::MeshAddress(*address)
                    }
                    other => other.clone(),
                };
                all.entry(name).or_default().push((object.key(), claim));
            }
        }
        all
    }

    proptest! {
        /// The index says what looking through everything says, in wrong states too; and a change is
        /// refused if and only if it makes a claim that is another's.
        #[test]
        fn claims_are_what_looking_through_everything_finds(
            history in prop::collection::vec(
                prop::collection::vec((0..6u8, 0..3u8, 0..3u8, 0..3u8, any::<bool>()), 1..4),
                0..20,
            )
        ) {
            let mut view = View::default();
            for writes in history {
                let changes = changes(&view, &writes);
                let before = view.clone();
                view.apply(&changes, Version(1), Timestamp(1));
                let all = look_through(&view);
                for (claim, holders) in &all {
                    let mut found: Vec<&Key> = view.holders(claim.clone()).collect();
                    let mut expected: Vec<&Key> = holders.iter().map(|(key, _)| key).collect();
                    found.sort();
                    found.dedup();
                    expected.dedup();
                    prop_assert_eq!(found, expected, "{:?}", claim);
                }
                let made = |(key, claim): &(Key, Claim)| {
                    let had = before.object(key).map(|was| Claim::all_of(&was));
                    !had.unwrap_or_default().contains(claim)
                };
                let mut all = all.values();
                let clash = all.any(|holders| holders.len() > 1 && holders.iter().any(made));
                let refused = rules::check(&before, &changes);
                prop_assert_eq!(clash, refused.is_err(), "{:?}", refused);
            }
        }
    }
}
