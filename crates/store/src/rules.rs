//! What may be written at all, whoever writes it.
//!
//! Writers keep these rules themselves; this is the one place that asserts them, so that a mistake
//! in a writer is refused before it reaches the log. A check costs what the changes are, not what
//! is stored.

use crate::claim::{Claim, claim_the_same};
use crate::{Change, Changes, Key, Object, Record, View, readers};
use ipnet::IpNet;
use std::sync::Arc;
use types::{
    Cluster, Config, Fault, GivenFile, Network, Secret, Service, Task, TaskState, Timestamp,
    Version, Writer, overlap,
};

/// What `before` becomes by `changes`, which the log entry `index` of time `now` holds; or why they
/// may not be made.
///
/// What was wrong before is no fault of these changes: others must not be held up by it.
pub fn admit(
    before: &View,
    changes: &Changes,
    index: Version,
    now: Timestamp,
) -> Result<View, Fault> {
    let mut after = before.clone();
    after.apply(changes, index, now);
    readers::check(before, &after)?;
    for change in &changes.changes {
        match change {
            Change::Put(object) => check_object(before, object)?,
            Change::Remove(Key::Cluster(_)) => {
                return Err(Fault::invalid("the cluster object cannot be removed"));
            }
            Change::Remove(
                Key::Node(_)
                | Key::Network(_)
                | Key::Service(_)
                | Key::Task(_)
                | Key::Secret(_)
                | Key::Config(_),
            ) => {}
        }
    }
    for change in &changes.changes {
        // One that goes again in the same changes claims nothing.
        if let Change::Put(object) = change
            && let Some(object) = after.object(&object.key())
        {
            check_claims(before, &after, &object)?;
            if let Object::Network(network) = &object {
                check_subnet(before, &after, network)?;
            }
        }
    }
    Ok(after)
}

/// Says whether `changes` may be made in `before`, and if not why.
pub fn check(before: &View, changes: &Changes) -> Result<(), Fault> {
    admit(before, changes, before.version(), before.time()).map(drop)
}

fn check_object(before: &View, object: &Object) -> Result<(), Fault> {
    match object {
        Object::Cluster(cluster) => check_cluster(before, cluster),
        Object::Task(task) => match before.task(&task.id) {
            Some(was) => check_task(was, task),
            None => Ok(()),
        },
        Object::Secret(secret) => check_file(before.get::<Secret>(&secret.id), secret.as_ref()),
        Object::Config(config) => check_file(before.get::<Config>(&config.id), config.as_ref()),
        Object::Node(_) | Object::Network(_) | Object::Service(_) => Ok(()),
    }
}

/// What is in a secret or a config stays, as does its name: tasks are made from it. Another one may come
/// to have the name, and does not give it back.
fn check_file<T: GivenFile>(was: Option<&Arc<T>>, is: &T) -> Result<(), Fault> {
    let kept = |was: &Arc<T>| {
        let (was, is) = (was.spec(), is.spec());
        let (was_one, is_one) = ((&was.name, was.revision), (&is.name, is.revision));
        was_one == is_one && was.content == is.content && was.former <= is.former
    };
    if was.is_none_or(kept) {
        return Ok(());
    }
    Err(Fault::conflict(format!("{} {} cannot become another one", T::WORD, is.spec().name)))
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

/// Nothing that an object claims and did not claim before is another's, too.
fn check_claims(before: &View, after: &View, object: &Object) -> Result<(), Fault> {
    let key = object.key();
    let was = before.object(&key);
    if was.as_ref().is_some_and(|was| claim_the_same(was, object)) {
        return Ok(());
    }
    let had = was.as_ref().map(Claim::all_of).unwrap_or_default();
    let has = Claim::all_of(object);
    for (index, claim) in has.iter().enumerate().filter(|(_, claim)| !had.contains(claim)) {
        let alias = after.alias(claim);
        let twice = has[..index].iter().any(|it| it == claim || Some(it) == alias.as_ref());
        let own = twice.then(|| key.clone());
        if let Some(other) = own.or_else(|| nearest_holder(after, claim, &key)) {
            return Err(taken(after, claim, object, &other));
        }
    }
    Ok(())
}

/// Who else has what the object of `key` claims: the last one before it, or else the first after it.
fn nearest_holder(view: &View, claim: &Claim, key: &Key) -> Option<Key> {
    let (mut below, mut above) = (None, None);
    for holder in view.holders(claim.clone()) {
        if holder < key {
            below = below.max(Some(holder));
        } else if holder > key {
            above = Some(above.map_or(holder, |it: &Key| it.min(holder)));
        }
    }
    below.or(above).cloned()
}

/// What is told when `object` claims what `other` has.
fn taken(view: &View, claim: &Claim, object: &Object, other: &Key) -> Fault {
    match claim {
        Claim::ServiceName(_) => Fault::conflict(format!(
            "name conflicts with an existing object: service {} already exists",
            called(object)
        )),
        Claim::NetworkName(_) => {
            Fault::conflict(format!("network with name {} already exists", called(object)))
        }
        Claim::SecretName(_) => name_taken::<Secret>(called(object)),
        Claim::ConfigName(_) => name_taken::<Config>(called(object)),
        Claim::Address { address, .. } | Claim::MeshAddress(address) => {
            let key = object.key();
            let (first, last) = if key < *other { (&key, other) } else { (other, &key) };
            let (first, last) = (first.name(), last.name());
            Fault::conflict(format!("address {address} is given to {last} and to {first}"))
        }
        Claim::MeshPort { port, .. } => {
            // Nobody but services publishes ports.
            let holder = Service::id_in(other).and_then(|id| view.service(id));
            port_taken(*port, &holder.cloned().unwrap_or_default())
        }
    }
}

/// The name that a user gave.
fn called(object: &Object) -> &str {
    match object {
        Object::Network(network) => &network.spec.name,
        Object::Service(service) => &service.spec.name,
        Object::Secret(secret) => &secret.spec.name,
        Object::Config(config) => &config.spec.name,
        Object::Cluster(_) | Object::Node(_) | Object::Task(_) => "",
    }
}

/// What a user is told who wants a secret or a config by a name that there is.
pub fn name_taken<T: GivenFile>(name: &str) -> Fault {
    let word = T::WORD;
    Fault::conflict(format!("{word} {name} already exists"))
}

/// What a user is told whose port belongs to the mesh port of another service. As with Docker it is
/// no conflict, which scripts take for a name that is taken.
pub fn port_taken(port: u16, holder: &Service) -> Fault {
    let (name, id) = (&holder.spec.name, &holder.id);
    Fault::invalid(format!(
        "port '{port}' is already in use by service '{name}' ({id}) as an ingress port"
    ))
}

/// What a network was given anew overlaps with no other, not even with one that is only carried.
fn check_subnet(before: &View, after: &View, network: &Network) -> Result<(), Fault> {
    let is_as_before = |was: &Network| was.subnets == network.subnets && was.vni == network.vni;
    let known = before.network(&network.id).is_some_and(|was| is_as_before(was));
    if network.subnets.is_empty() || known {
        return Ok(());
    }
    for other in after.networks().filter(|other| other.id != network.id) {
        let taken = |net: IpNet| other.subnets.iter().any(|other| overlap(other.net, net));
        if let Some(subnet) = network.subnets.iter().find(|subnet| taken(subnet.net)) {
            return Err(Fault::conflict(format!(
                "subnet {} overlaps with network {}",
                subnet.net, other.spec.name
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tx;
    use types::{
        Attachment, DesiredState, FaultKind, PublishMode, PublishedPort, ServiceSpec, Subnet, Vip,
    };

    fn service(id: &str, name: &str) -> Service {
        let spec = ServiceSpec { name: name.to_owned(), ..ServiceSpec::default() };
        Service { id: id.into(), spec, ..Service::default() }
    }

    fn task(id: &str, address: [u8; 4]) -> Task {
        let attachment =
            Attachment { network: "net".into(), addresses: address.into(), aliases: Vec::new() };
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
            let mut network = Network { id: id.into(), ..Network::default() };
            network.spec.name = name.to_owned();
            let nets = net.split(' ').map(|net| net.parse().expect("a network"));
            network.subnets = nets.filter_map(Subnet::new).collect();
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
        let both = |tx: &mut Tx| tx.put_network(network("n1", "front", "10.0.0.0/16 fd00::/48"));
        assert_eq!(
            check_after(both, |tx| tx.put_network(network("n2", "back", "10.1.0.0/24 fd00::/64"))),
            "subnet fd00::/64 overlaps with network front"
        );
        assert_eq!(
            check_after(both, |tx| tx.put_network(network("n2", "back", "10.1.0.0/24 fd01::/64"))),
            "ok"
        );
    }

    #[test]
    fn names_of_secrets_are_single_and_what_is_in_one_stays() {
        let secret = |id: &str, name: &str, data: &[u8]| {
            let mut secret = Secret { id: id.into(), ..Secret::default() };
            name.clone_into(&mut secret.spec.name);
            secret.spec.content.data = data.to_vec().into();
            secret
        };
        let first = |tx: &mut Tx| tx.put(secret("x1", "key", b"one"));
        assert_eq!(
            check_after(first, |tx| tx.put(secret("x2", "KEY", b"two"))),
            "secret KEY already exists"
        );
        let config = |tx: &mut Tx| tx.put(Config::new("x3".into(), secret("", "key", b"").spec));
        assert_eq!(check_after(first, config), "ok", "configs have names of their own");
        let labels = |tx: &mut Tx| {
            tx.edit::<Secret>(&"x1".into(), |it| {
                it.spec.labels = [("a".into(), "b".into())].into();
            });
        };
        assert_eq!(check_after(first, labels), "ok");
        let other = "secret key cannot become another one";
        assert_eq!(check_after(first, |tx| tx.put(secret("x1", "key", b"two"))), other);
    }

    #[test]
    fn an_address_has_one_holder_until_its_task_has_ended() {
        let first = |tx: &mut Tx| tx.put_task(task("t1", [10, 0, 1, 3]));
        assert_eq!(
            check_after(first, |tx| tx.put_task(task("t2", [10, 0, 1, 3]))),
            "address 10.0.1.3 is given to task t2 and to task t1"
        );
        let vip = |tx: &mut Tx| {
            let vip = Vip { network: "net".into(), addresses: [10, 0, 1, 3].into() };
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
    fn networks_that_overlapped_before_hold_up_nobody() {
        let mut view = View::default();
        let mut tx = Tx::new(&view);
        for (id, vni) in [("n1", 4097), ("n2", 4098)] {
            let mut network = Network { id: id.into(), vni, ..Network::default() };
            id.clone_into(&mut network.spec.name);
            network.subnets = vec![Subnet::new("10.0.0.0/16".parse().unwrap()).unwrap()];
            tx.put(network);
        }
        view.apply(&tx.finish(), Version(1), Timestamp(1));
        let edited = |edit: fn(&mut Network)| {
            let mut tx = Tx::new(&view);
            tx.edit(&"n1".into(), edit);
            check(&view, &tx.finish()).map_err(|fault| fault.message)
        };
        assert_eq!(edited(|network| network.last_addresses = [10, 0, 0, 7].into()), Ok(()));
        let clash = "subnet 10.0.0.0/16 overlaps with network n2";
        assert_eq!(edited(|network| network.vni = 4099), Err(clash.to_owned()));
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
        assert_eq!(port_taken(80, &Service::default()).kind, FaultKind::Invalid);
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
