//! What may be written at all, whoever writes it.
//!
//! Writers keep these rules themselves; this is the one place that asserts them, so that a mistake
//! in a writer is refused before it reaches the log.

use crate::{Change, Changes, Key, Object, View};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use types::{
    Cluster, Fault, Network, NetworkId, PublishMode, PublishedPort, Service, Task, TaskState,
    Writer,
};

/// Says whether `changes` may be made in `before`, and if not why.
pub fn check(before: &View, changes: &Changes) -> Result<(), Fault> {
    let mut after = before.clone();
    let (mut addresses, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for change in &changes.changes {
        match change {
            Change::Put(object) => {
                check_object(before, object)?;
                if new_addresses(before, object) {
                    addresses.insert(object.key());
                }
                if new_ports(before, object) {
                    ports.insert(object.key());
                }
                after.insert(object.clone());
            }
            Change::Remove(Key::Cluster(_)) => {
                return Err(Fault::invalid("the cluster object cannot be removed"));
            }
            Change::Remove(key) => after.remove(key),
        }
    }
    for change in &changes.changes {
        match change {
            Change::Put(Object::Service(service)) => check_service_name(before, &after, service)?,
            Change::Put(Object::Network(network)) => {
                check_network_name(before, &after, network)?;
                check_subnet(&after, network)?;
            }
            Change::Put(Object::Cluster(_) | Object::Node(_) | Object::Task(_))
            | Change::Remove(_) => {}
        }
    }
    // Looking through everything is only needed when something was handed out. What was wrong
    // before is no fault of these changes: others must not be held up by it.
    if !addresses.is_empty() {
        check_addresses(&after, &addresses)?;
    }
    if !ports.is_empty() {
        check_ports(&after, &ports)?;
    }
    Ok(())
}

fn check_object(before: &View, object: &Object) -> Result<(), Fault> {
    match object {
        Object::Cluster(cluster) => check_cluster(before, cluster),
        Object::Task(task) => match before.task(&task.id) {
            Some(was) => check_task(was, task),
            None => Ok(()),
        },
        Object::Node(_) | Object::Network(_) | Object::Service(_) => Ok(()),
    }
}

fn check_cluster(before: &View, cluster: &Cluster) -> Result<(), Fault> {
    match before.cluster() {
        Some(was) if was.id != cluster.id => {
            Err(Fault::conflict(format!("the cluster {} exists already", was.id)))
        }
        Some(_) | None => Ok(()),
    }
}

/// A task stays what and where it is, and only gets older.
fn check_task(was: &Task, task: &Task) -> Result<(), Fault> {
    let (from, to) = (was.status.state, task.status.state);
    if !may_rise(from, to) {
        let (from, to) = (from.as_str(), to.as_str());
        return Err(Fault::conflict(format!("task {} cannot go from {from} to {to}", task.id)));
    }
    if task.desired < was.desired {
        let (from, to) = (was.desired.as_str(), task.desired.as_str());
        return Err(Fault::conflict(format!(
            "task {} is wanted {from} and cannot be wanted {to} again",
            task.id
        )));
    }
    if was.node.is_some() && task.node != was.node {
        return Err(Fault::conflict(format!("task {} cannot move to another node", task.id)));
    }
    if was.service != task.service || was.slot != task.slot {
        return Err(Fault::conflict(format!("task {} cannot change its slot", task.id)));
    }
    Ok(())
}

/// Says whether a task in state `from` can come to be in state `to`, by steps each of which some
/// writer may take. (One transaction allocates and places.)
fn may_rise(from: TaskState, to: TaskState) -> bool {
    const WRITERS: [Writer; 4] =
        [Writer::Allocator, Writer::Scheduler, Writer::Agent, Writer::Dispatcher];
    let step = |next: TaskState| WRITERS.into_iter().any(|by| from.may_become(next, by));
    from == to
        || step(to)
        || TaskState::ALL.into_iter().any(|next| next < to && step(next) && may_rise(next, to))
}

fn check_service_name(before: &View, after: &View, service: &Service) -> Result<(), Fault> {
    let name = &service.spec.name;
    // A view's index holds one object for a name. Whoever had the name before may have lost it in
    // the same transaction; whoever took it in the same transaction shows in the view after it.
    let had = before.service_named(name).and_then(|had| after.service(&had.id));
    let has = after.service_named(name);
    let taken = [had, has].into_iter().flatten().any(|other| {
        other.id != service.id && other.spec.name.to_lowercase() == name.to_lowercase()
    });
    if !taken {
        return Ok(());
    }
    Err(Fault::conflict(format!(
        "name conflicts with an existing object: service {name} already exists"
    )))
}

fn check_network_name(before: &View, after: &View, network: &Network) -> Result<(), Fault> {
    if network.removed {
        return Ok(());
    }
    let name = &network.spec.name;
    let had = before.network_named(name).and_then(|had| after.network(&had.id));
    let has = after.network_named(name);
    let taken = [had, has].into_iter().flatten().any(|other| {
        other.id != network.id && other.spec.name.to_lowercase() == name.to_lowercase()
    });
    if !taken {
        return Ok(());
    }
    Err(Fault::conflict(format!("network with name {name} already exists")))
}

fn check_subnet(after: &View, network: &Network) -> Result<(), Fault> {
    let Some(subnet) = network.subnet.map(|subnet| subnet.net) else {
        return Ok(());
    };
    for other in after.networks().filter(|other| other.id != network.id) {
        let overlaps = other
            .subnet
            .is_some_and(|other| other.net.contains(&subnet) || subnet.contains(&other.net));
        if overlaps {
            return Err(Fault::conflict(format!(
                "subnet {subnet} overlaps with network {}",
                other.spec.name
            )));
        }
        if network.vni != 0 && network.vni == other.vni {
            return Err(Fault::conflict(format!(
                "vni {} is already in use by network {}",
                network.vni, other.spec.name
            )));
        }
    }
    Ok(())
}

/// Says whether `object` holds an address that it did not hold before.
fn new_addresses(before: &View, object: &Object) -> bool {
    match object {
        Object::Node(node) => {
            let was = before.node(&node.id).and_then(|was| was.ingress_address);
            node.ingress_address != was
        }
        Object::Service(service) => {
            let was = before.service(&service.id).map(|was| was.vips.as_slice());
            service.vips != was.unwrap_or_default()
        }
        Object::Task(task) => before.task(&task.id).is_none_or(|was| {
            was.attachments != task.attachments || was.ingress_address != task.ingress_address
        }),
        Object::Cluster(_) | Object::Network(_) => false,
    }
}

fn new_ports(before: &View, object: &Object) -> bool {
    match object {
        Object::Service(service) => {
            let was = before.service(&service.id).map(|was| was.ports.as_slice());
            service.ports != was.unwrap_or_default()
        }
        Object::Cluster(_) | Object::Node(_) | Object::Network(_) | Object::Task(_) => false,
    }
}

/// No address of a network that one of `new` holds belongs to another one, too. A task that ended
/// holds none.
fn check_addresses(view: &View, new: &BTreeSet<Key>) -> Result<(), Fault> {
    let ingress = view.ingress_network().map(|network| &network.id);
    let mut holders: BTreeMap<(Option<&NetworkId>, Ipv4Addr), Key> = BTreeMap::new();
    let mut hold = |network, address, holder: Key| {
        let Some(other) = holders.insert((network, address), holder.clone()) else {
            return Ok(());
        };
        if !new.contains(&holder) && !new.contains(&other) {
            return Ok(());
        }
        let (one, other) = (holder.name(), other.name());
        Err(Fault::conflict(format!("address {address} is given to {one} and to {other}")))
    };
    for node in view.nodes() {
        if let Some(address) = node.ingress_address {
            hold(ingress, address, Key::Node(node.id.clone()))?;
        }
    }
    for service in view.services() {
        for vip in &service.vips {
            hold(Some(&vip.network), vip.address, Key::Service(service.id.clone()))?;
        }
    }
    for task in view.tasks().filter(|task| task.occupies()) {
        for attachment in &task.attachments {
            hold(Some(&attachment.network), attachment.address, Key::Task(task.id.clone()))?;
        }
        if let Some(address) = task.ingress_address {
            hold(ingress, address, Key::Task(task.id.clone()))?;
        }
    }
    Ok(())
}

/// No port of the routing mesh that one of `new` has belongs to another service, too.
fn check_ports(view: &View, new: &BTreeSet<Key>) -> Result<(), Fault> {
    let is_new = |service: &Service| new.contains(&Key::Service(service.id.clone()));
    let mut holders: BTreeMap<_, &Arc<Service>> = BTreeMap::new();
    for service in view.services() {
        for port in service.ports.iter().filter(|port| in_mesh(port)) {
            let other = holders.insert((port.protocol, port.published), service);
            if let Some(other) = other.filter(|other| is_new(service) || is_new(other)) {
                return Err(port_taken(port.published, other));
            }
        }
    }
    Ok(())
}

fn in_mesh(port: &PublishedPort) -> bool {
    match port.mode {
        PublishMode::Ingress => true,
        PublishMode::Host => false,
    }
}

/// What a user is told whose port belongs to the mesh port of another service.
pub fn port_taken(port: u16, holder: &Service) -> Fault {
    let (name, id) = (&holder.spec.name, &holder.id);
    Fault::conflict(format!(
        "port '{port}' is already in use by service '{name}' ({id}) as an ingress port"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tx;
    use types::{Attachment, DesiredState, ServiceSpec, Timestamp, Version, Vip};

    fn service(id: &str, name: &str) -> Service {
        let spec = ServiceSpec { name: name.to_owned(), ..ServiceSpec::default() };
        Service { id: id.into(), spec, ..Service::default() }
    }

    fn task(id: &str, address: [u8; 4]) -> Task {
        let attachment = Attachment {
            network: "net".into(),
            address: address.into(),
            prefix: 24,
            aliases: Vec::new(),
        };
        Task { id: id.into(), attachments: vec![attachment], ..Task::default() }
    }

    /// Writes what `first` and `second` write, one after the other.
    fn check_after(first: impl FnOnce(&mut Tx), second: impl FnOnce(&mut Tx)) -> String {
        let mut view = View::default();
        let mut tx = Tx::new(&view);
        first(&mut tx);
        let changes = tx.finish();
        check(&view, &changes).expect("the first transaction keeps the rules");
        view.apply(&changes, Version(1), Timestamp(1));
        let mut tx = Tx::new(&view);
        second(&mut tx);
        check(&view, &tx.finish()).map_or_else(|fault| fault.message, |()| "ok".to_owned())
    }

    #[test]
    fn two_services_cannot_have_one_name() {
        let taken = "name conflicts with an existing object: service WEB already exists";
        assert_eq!(
            check_after(
                |tx| tx.put_service(service("s1", "web")),
                |tx| tx.put_service(service("s2", "WEB"))
            ),
            taken
        );
        let both = |tx: &mut Tx| {
            tx.put_service(service("s1", "WEB"));
            tx.put_service(service("s2", "WEB"));
        };
        assert_eq!(check_after(|_| {}, both), taken);
    }

    #[test]
    fn a_name_is_free_when_its_holder_goes_in_the_same_transaction() {
        let exchange = |tx: &mut Tx| {
            tx.put_service(service("s2", "web"));
            tx.remove_service(&"s1".into());
        };
        assert_eq!(check_after(|tx| tx.put_service(service("s1", "web")), exchange), "ok");
        let swap = |tx: &mut Tx| {
            tx.put_service(service("s1", "db"));
            tx.put_service(service("s2", "web"));
        };
        let pair = |tx: &mut Tx| {
            tx.put_service(service("s1", "web"));
            tx.put_service(service("s2", "db"));
        };
        assert_eq!(check_after(pair, swap), "ok");
    }

    #[test]
    fn two_networks_cannot_have_one_name_nor_overlap() {
        let network = |id: &str, name: &str, net: &str| {
            let net: ipnet::Ipv4Net = net.parse().expect("a network");
            let mut network = Network { id: id.into(), ..Network::default() };
            network.spec.name = name.to_owned();
            network.subnet = Some(types::Subnet { net, gateway: net.network() });
            network
        };
        let first = |tx: &mut Tx| tx.put_network(network("n1", "front", "10.0.0.0/16"));
        assert_eq!(
            check_after(first, |tx| tx.put_network(network("n2", "front", "10.9.0.0/24"))),
            "network with name front already exists"
        );
        assert_eq!(
            check_after(first, |tx| tx.put_network(network("n2", "back", "10.0.3.0/24"))),
            "subnet 10.0.3.0/24 overlaps with network front"
        );
    }

    #[test]
    fn an_address_has_one_holder_until_its_task_has_ended() {
        let first = |tx: &mut Tx| tx.put_task(task("t1", [10, 0, 1, 3]));
        assert_eq!(
            check_after(first, |tx| tx.put_task(task("t2", [10, 0, 1, 3]))),
            "address 10.0.1.3 is given to task t2 and to task t1"
        );
        let vip = |tx: &mut Tx| {
            let vip = Vip { network: "net".into(), address: [10, 0, 1, 3].into(), prefix: 24 };
            tx.put_service(Service { vips: vec![vip], ..service("s1", "web") });
        };
        assert_eq!(
            check_after(first, vip),
            "address 10.0.1.3 is given to task t1 and to service s1"
        );
        let ended = |tx: &mut Tx| {
            let mut ended = task("t1", [10, 0, 1, 3]);
            ended.status.state = TaskState::Failed;
            tx.put_task(ended);
        };
        assert_eq!(check_after(ended, |tx| tx.put_task(task("t2", [10, 0, 1, 3]))), "ok");
    }

    #[test]
    fn what_was_wrong_before_holds_up_nobody_else() {
        let mut view = View::default();
        let mut tx = Tx::new(&view);
        tx.put_task(task("t1", [10, 0, 1, 3]));
        tx.put_task(task("t2", [10, 0, 1, 3]));
        view.apply(&tx.finish(), Version(1), Timestamp(1));
        let after = |address| {
            let mut tx = Tx::new(&view);
            tx.put_task(task("t3", address));
            check(&view, &tx.finish()).map_err(|fault| fault.message)
        };
        assert_eq!(after([10, 0, 1, 4]), Ok(()));
        let clash = "address 10.0.1.3 is given to task t3 and to task t2";
        assert_eq!(after([10, 0, 1, 3]), Err(clash.to_owned()));
    }

    #[test]
    fn a_port_of_the_mesh_has_one_service() {
        let publish = |id: &str, name: &str, mode| {
            let port = PublishedPort { published: 8080, target: 80, mode, ..Default::default() };
            Service { ports: vec![port], ..service(id, name) }
        };
        let first = |tx: &mut Tx| tx.put_service(publish("s1", "web", PublishMode::Ingress));
        assert_eq!(
            check_after(first, |tx| tx.put_service(publish("s2", "api", PublishMode::Ingress))),
            "port '8080' is already in use by service 'web' (s1) as an ingress port"
        );
        assert_eq!(
            check_after(first, |tx| tx.put_service(publish("s2", "api", PublishMode::Host))),
            "ok"
        );
    }

    #[test]
    fn a_task_only_gets_older_and_stays_where_it_is() {
        let at = |state, node: &str, desired| {
            let mut task = task("t1", [10, 0, 1, 3]);
            task.status.state = state;
            task.node = Some(node.into()).filter(|_| !node.is_empty());
            task.desired = desired;
            move |tx: &mut Tx| tx.put_task(task)
        };
        let running = |state, node| at(state, node, DesiredState::Running);
        let new = running(TaskState::New, "");
        assert_eq!(check_after(new, running(TaskState::Assigned, "n1")), "ok");
        let failed = running(TaskState::Failed, "n1");
        assert_eq!(
            check_after(failed, running(TaskState::Running, "n1")),
            "task t1 cannot go from failed to running"
        );
        let assigned = running(TaskState::Assigned, "n1");
        assert_eq!(
            check_after(assigned, running(TaskState::Running, "n2")),
            "task t1 cannot move to another node"
        );
        let stopped = at(TaskState::Running, "n1", DesiredState::Shutdown);
        assert_eq!(
            check_after(stopped, running(TaskState::Running, "n1")),
            "task t1 is wanted shutdown and cannot be wanted running again"
        );
    }

    #[test]
    fn there_is_one_cluster() {
        let cluster = |id: &str| {
            let cluster = Cluster { id: id.into(), ..Cluster::default() };
            move |tx: &mut Tx| tx.put_cluster(cluster)
        };
        assert_eq!(check_after(cluster("c1"), cluster("c1")), "ok");
        assert_eq!(check_after(cluster("c1"), cluster("c2")), "the cluster c1 exists already");
    }
}
