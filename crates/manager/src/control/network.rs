//! Networks.

use super::specs_in_use;
use crate::clock::RandomIds;
use raft::Sequencer;
use store::{Changes, Tx, View};
use types::{Fault, Network, NetworkId, NetworkSpec, Service, Subnet, Task, TaskSpec, check_name};

/// Names that Docker keeps for networks of a node.
const PREDEFINED: [&str; 5] = ["bridge", "host", "none", "default", "ingress"];
/// The bits of an address that leave room for a gateway and two tasks.
const HOST_BITS: u8 = 3;

pub(crate) async fn create(sequencer: &Sequencer, spec: NetworkSpec) -> Result<NetworkId, Fault> {
    let id = NetworkId::draw(&mut RandomIds);
    let created = id.clone();
    sequencer.sequence(move |view: &View, _| with_new(view, id, spec)).await?;
    Ok(created)
}

pub(crate) async fn remove(sequencer: &Sequencer, id: NetworkId) -> Result<(), Fault> {
    sequencer.sequence(move |view: &View, _| without(view, &id)).await?;
    Ok(())
}

/// A network that is made.
pub fn with_new(view: &View, id: NetworkId, mut spec: NetworkSpec) -> Result<Changes, Fault> {
    check(view, &spec)?;
    for subnet in &mut spec.subnets {
        check_subnet(view, subnet)?;
    }
    spec.check_ipam()?;
    "overlay".clone_into(&mut spec.driver);
    let mut tx = Tx::new(view);
    tx.put_network(Network { id, spec, ..Network::default() });
    Ok(tx.finish())
}

fn check(view: &View, spec: &NetworkSpec) -> Result<(), Fault> {
    let name = &spec.name;
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(inside) {
        return Err(Fault::invalid(format!(
            "invalid network name \"{name}\": only [a-zA-Z0-9][a-zA-Z0-9_.-]* are allowed"
        )));
    }
    check_name(name)?;
    match spec.driver.as_str() {
        "" | "overlay" => {}
        other => {
            return Err(Fault::not_implemented(&format!("a swarm network with driver {other}")));
        }
    }
    if spec.ingress {
        return match view.ingress_network() {
            Some(network) => {
                Err(Fault::conflict(format!("ingress network ({}) is already present", network.id)))
            }
            None => Err(Fault::not_implemented("making the ingress network anew")),
        };
    }
    if PREDEFINED.contains(&name.as_str()) {
        return Err(Fault::forbidden(format!(
            "operation is not permitted on predefined {name} network"
        )));
    }
    if view.network_named(name).is_some() {
        return Err(Fault::conflict(format!("network with name {name} already exists")));
    }
    spec.check_options()
}

/// Also puts the subnet in its usual form.
fn check_subnet(view: &View, subnet: &mut Subnet) -> Result<(), Fault> {
    subnet.net = subnet.net.trunc();
    let net = subnet.net;
    let longest = net.max_prefix_len() - HOST_BITS;
    if net.prefix_len() > longest {
        return Err(Fault::invalid(format!(
            "invalid subnet {net}: a prefix of at most /{longest} leaves room for tasks"
        )));
    }
    let edge = [net.network(), net.broadcast()];
    if !net.contains(&subnet.gateway) || edge.contains(&subnet.gateway) {
        let gateway = subnet.gateway;
        return Err(Fault::invalid(format!("no matching subnet for gateway {gateway}")));
    }
    if planner::allocator::overlapping_network(view, net).is_some() {
        return Err(Fault::forbidden(
            "invalid pool request: Pool overlaps with other one on this address space",
        ));
    }
    Ok(())
}

/// A network that is removed: at once where no task is on it.
pub fn without(view: &View, id: &NetworkId) -> Result<Changes, Fault> {
    let Some(network) = view.network(id).filter(|network| !network.removed) else {
        return Err(Fault::not_found(format!("network {id} not found")));
    };
    if network.spec.ingress {
        return Err(Fault::not_implemented("removing the ingress network"));
    }
    // As in Docker, tasks of services that were removed do not count: `docker stack rm` removes
    // networks while tasks still stop. The planner lets the network go when all have ended.
    if let Some(service) = view.services().find(|service| may_use(service, id)) {
        let service = &service.id;
        return Err(Fault::invalid(format!("network {id} is in use by service {service}")));
    }
    let is_user = |task: &Task| {
        let may_run = task.is_wanted() && !task.status.state.is_terminal();
        may_run && view.service(&task.service).is_some() && is_on(&task.spec, id)
    };
    if let Some(task) = view.tasks().find(|task| is_user(task)) {
        return Err(Fault::invalid(format!("network {id} is in use by task {}", task.id)));
    }
    let mut tx = Tx::new(view);
    if view.tasks().any(|task| task.attachments.iter().any(|it| it.network == *id)) {
        tx.edit_network(id, |network| network.removed = true);
    } else {
        tx.remove_network(id);
    }
    Ok(tx.finish())
}

/// Says whether a service's tasks are made on a network, or will be if its update is rolled back.
fn may_use(service: &Service, id: &NetworkId) -> bool {
    specs_in_use(service).any(|spec| is_on(&spec.task, id))
}

fn is_on(spec: &TaskSpec, id: &NetworkId) -> bool {
    spec.networks.iter().any(|attachment| attachment.target == *id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{
        Attachment, DesiredState, FailureAction, NetworkAttachment, ServiceSpec, Timestamp,
        UpdateState, UpdateStatus, Version,
    };

    fn spec(name: &str, subnet: Option<&str>) -> NetworkSpec {
        let nets = subnet.iter().flat_map(|text| text.split(' ')).map(|net| net.parse().unwrap());
        let subnets = nets.filter_map(Subnet::new).collect();
        NetworkSpec { name: name.into(), subnets, ..NetworkSpec::default() }
    }

    fn with_front() -> View {
        let mut view = View::default();
        let changes = with_new(&view, "front-id".into(), spec("front", Some("10.5.0.0/24")));
        view.apply(&changes.unwrap(), Version(1), Timestamp(1));
        view
    }

    fn refused(spec: NetworkSpec) -> Fault {
        with_new(&with_front(), "x".into(), spec).unwrap_err()
    }

    #[test]
    fn a_taken_name_or_range_is_refused() {
        assert_eq!(
            refused(spec("front", None)),
            Fault::conflict("network with name front already exists")
        );
        assert_eq!(
            refused(spec("back", Some("10.5.0.0/16"))),
            Fault::forbidden(
                "invalid pool request: Pool overlaps with other one on this address space"
            )
        );
    }

    #[test]
    fn names_drivers_and_gateways_must_be_possible() {
        assert!(refused(spec("a b", None)).message.starts_with("invalid network name"));
        for name in ["a.b", "a-", &"a".repeat(64)] {
            assert!(refused(spec(name, None)).message.starts_with("name must be"), "{name}");
        }
        assert_eq!(
            refused(spec("host", None)).message,
            "operation is not permitted on predefined host network"
        );
        let bridge = NetworkSpec { driver: "bridge".into(), ..spec("x", None) };
        assert_eq!(refused(bridge).kind, types::FaultKind::NotImplemented);
        let mut outside = spec("x", Some("10.6.0.0/24"));
        outside.subnets[0].gateway = [10, 7, 0, 1].into();
        assert_eq!(refused(outside).message, "no matching subnet for gateway 10.7.0.1");
        let small = refused(spec("x", Some("10.6.0.0/24 fd00:6::/126"))).message;
        assert!(small.contains("a prefix of at most /125"), "{small}");
        let two = spec("x", Some("fd00:6::/64 10.6.0.0/24 fd00:7::/64"));
        assert!(refused(two).message.contains("more than one subnet of a family"));
        let both = spec("x", Some("fd00:6::/64 10.6.0.0/24"));
        assert!(with_new(&with_front(), "x".into(), both).is_ok());
    }

    #[test]
    fn a_network_is_kept_while_a_service_uses_it() {
        let mut view = with_front();
        let mut service = Service { id: "web-id".into(), ..Service::default() };
        let attachment =
            NetworkAttachment { target: "front-id".into(), ..NetworkAttachment::default() };
        service.spec.task.networks = vec![attachment];
        let mut tx = Tx::new(&view);
        tx.put_service(service);
        view.apply(&tx.finish(), Version(2), Timestamp(2));
        assert_eq!(
            without(&view, &"front-id".into()).unwrap_err(),
            Fault::invalid("network front-id is in use by service web-id")
        );
    }

    /// A service that was on `front` and goes to no network.
    fn with_update(edit: impl FnOnce(&mut Service), desired: DesiredState) -> View {
        let mut view = with_front();
        let target = "front-id".into();
        let attachment = NetworkAttachment { target, ..NetworkAttachment::default() };
        let mut before = ServiceSpec::default();
        before.task.networks = vec![attachment];
        let mut service = Service { id: "web-id".into(), ..Service::default() };
        let update = UpdateStatus::begun(UpdateState::Updating, Timestamp(1), "");
        service.update = Some(update);
        service.previous_spec = Some(before.clone());
        edit(&mut service);
        let mut tx = Tx::new(&view);
        let mut task = Task { id: "t".into(), service: service.id.clone(), ..Task::default() };
        (task.spec, task.desired) = (before.task, desired);
        tx.put_service(service);
        tx.put_task(task);
        view.apply(&tx.finish(), Version(2), Timestamp(2));
        view
    }

    #[test]
    fn a_network_is_kept_while_an_update_that_leaves_it_may_come_back() {
        let rolls_back =
            |service: &mut Service| service.spec.update.failure_action = FailureAction::Rollback;
        let is_over = |service: &mut Service| {
            rolls_back(service);
            service.update.as_mut().unwrap().state = UpdateState::Completed;
        };
        let without = |view: View| without(&view, &"front-id".into()).map(drop);
        let by = |what| Err(Fault::invalid(format!("network front-id is in use by {what}")));
        let gone = DesiredState::Shutdown;
        assert_eq!(without(with_update(rolls_back, gone)), by("service web-id"));
        assert_eq!(without(with_update(is_over, gone)), Ok(()));
        assert_eq!(without(with_update(|_| {}, gone)), Ok(()), "its update only pauses");
        // Tasks that are not replaced yet are on it.
        assert_eq!(without(with_update(|_| {}, DesiredState::Running)), by("task t"));
    }

    #[test]
    fn a_removed_network_is_not_there_for_users_and_its_name_and_subnet_can_be_asked_for() {
        let mut view = with_front();
        let id = NetworkId::from("front-id");
        let mut tx = Tx::new(&view);
        let (network, addresses) = (id.clone(), [10, 5, 0, 3].into());
        let on_it = Attachment { network, addresses, aliases: Vec::new() };
        tx.put_task(Task { attachments: vec![on_it], ..Task::default() });
        view.apply(&tx.finish(), Version(2), Timestamp(2));
        view.apply(&without(&view, &id).unwrap(), Version(2), Timestamp(2));
        assert!(view.network(&id).is_some(), "its tasks may still stop");
        assert!(crate::find::network(&view, "front-id").is_err());
        assert!(crate::find::network(&view, "front").is_err());
        assert_eq!(without(&view, &id).unwrap_err().message, "network front-id not found");
        let attachment = NetworkAttachment { target: id, ..NetworkAttachment::default() };
        assert!(super::super::spec::check_networks(&view, &[attachment]).is_err());
        let again = with_new(&view, "new-id".into(), spec("front", Some("10.5.0.0/24"))).unwrap();
        assert_eq!(store::rules::check(&view, &again), Ok(()));
        view.apply(&again, Version(3), Timestamp(3));
        assert_eq!(crate::find::network(&view, "front").unwrap().id, "new-id".into());
    }
}
