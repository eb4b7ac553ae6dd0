//! A plan that breaks a rule, service by service: what is fine is kept, the rest is named.
//!
//! A plan is one transaction. When a mistake in the planner or in what is stored makes one change
//! of it impossible, the others are not to wait for somebody to mend it.

use std::collections::{BTreeMap, BTreeSet};
use store::{Change, Changes, Object, Tx, View, rules};
use types::{Fault, Network, NetworkId, ServiceId};

/// A service whose part of a plan breaks a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// `None`: what belongs to no service, such as networks.
    pub service: Option<ServiceId>,
    pub fault: Fault,
}

/// What belongs to one service.
type Part = (Option<ServiceId>, Vec<Change>);

/// Splits `changes`, which break a rule as a whole, into those that can be made in `view` and the
/// services whose part cannot. A service that is refused says so in its `allocation_error`.
pub fn apart(view: &View, changes: &Changes) -> (Changes, Vec<Refused>) {
    let mut parts: BTreeMap<Option<ServiceId>, Vec<Change>> = BTreeMap::new();
    for change in &changes.changes {
        parts.entry(owner(view, change)).or_default().push(change.clone());
    }
    let parts: Vec<Part> = parts.into_iter().collect();
    let mut split = Split { view: view.clone(), made: Vec::new(), refused: Vec::new() };
    split.admit(&parts);
    let used = handed_out(view, &split.made);
    split.made.retain(|change| match change {
        Change::Put(Object::Network(network)) => {
            used.contains(&network.id) || !moves_only_cursor(view, network)
        }
        Change::Put(_) | Change::Remove(_) => true,
    });
    let mut tx = Tx::new(&split.view);
    for refused in &split.refused {
        if let Some(service) = &refused.service {
            let error = format!("cannot be planned: {}", refused.fault);
            tx.edit_service(service, |service| service.allocation_error = error);
        }
    }
    let notes = tx.finish();
    if rules::check(&split.view, &notes).is_ok() {
        split.made.extend(notes.changes);
    }
    (Changes { changes: split.made }, split.refused)
}

fn owner(view: &View, change: &Change) -> Option<ServiceId> {
    match change {
        Change::Put(Object::Task(task)) => Some(task.service.clone()),
        Change::Put(Object::Service(service)) => Some(service.id.clone()),
        Change::Remove(store::Key::Task(id)) => view.task(id).map(|task| task.service.clone()),
        Change::Remove(store::Key::Service(id)) => Some(id.clone()),
        Change::Put(
            Object::Cluster(_)
            | Object::Node(_)
            | Object::Network(_)
            | Object::Secret(_)
            | Object::Config(_),
        )
        | Change::Remove(
            store::Key::Cluster(_)
            | store::Key::Node(_)
            | store::Key::Network(_)
            | store::Key::Secret(_)
            | store::Key::Config(_),
        ) => None,
    }
}

/// Says whether a network's change only notes which address was handed out last. Where that address
/// was refused, the note would be another entry of the log for each try.
fn moves_only_cursor(view: &View, network: &Network) -> bool {
    view.network(&network.id).is_some_and(|was| {
        let last_addresses = network.last_addresses;
        Network { last_addresses, ..Network::clone(was) } == *network
    })
}

/// The networks on which `changes` hand out addresses.
fn handed_out(view: &View, changes: &[Change]) -> BTreeSet<NetworkId> {
    let mut networks = BTreeSet::new();
    for change in changes {
        match change {
            Change::Put(Object::Task(task)) => {
                let was = view.task(&task.id);
                if was.is_none_or(|was| was.attachments != task.attachments) {
                    networks.extend(task.attachments.iter().map(|it| it.network.clone()));
                }
                if task.ingress_addresses
                    != was.map(|was| was.ingress_addresses).unwrap_or_default()
                {
                    networks.extend(view.ingress_network().map(|ingress| ingress.id.clone()));
                }
            }
            Change::Put(Object::Service(service)) => {
                let was = view.service(&service.id).map(|was| was.vips.as_slice());
                if was.unwrap_or_default() != service.vips {
                    networks.extend(service.vips.iter().map(|vip| vip.network.clone()));
                }
            }
            Change::Put(
                Object::Cluster(_)
                | Object::Node(_)
                | Object::Network(_)
                | Object::Secret(_)
                | Object::Config(_),
            )
            | Change::Remove(_) => {}
        }
    }
    networks
}

struct Split {
    /// With what was made so far.
    view: View,
    made: Vec<Change>,
    refused: Vec<Refused>,
}

impl Split {
    /// Makes what can be made. Halves again and again what cannot: few parts are wrong.
    fn admit(&mut self, parts: &[Part]) {
        let changes = parts.iter().flat_map(|(_, changes)| changes).cloned();
        let changes = Changes { changes: changes.collect() };
        let (version, now) = (self.view.version(), types::Timestamp::default());
        match (rules::admit(&self.view, &changes, version, now), parts) {
            (Ok(after), _) => {
                self.view = after;
                self.made.extend(changes.changes);
            }
            (Err(fault), [(service, _)]) => {
                self.refused.push(Refused { service: service.clone(), fault });
            }
            (Err(_), parts) => {
                let (one, other) = parts.split_at(parts.len() / 2);
                self.admit(one);
                self.admit(other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::read;
    use types::{Attachment, TaskState, Vip};

    fn nine() -> Attachment {
        let (network, aliases) = ("front".into(), Vec::new());
        Attachment { network, addresses: [10, 0, 1, 9].into(), aliases }
    }

    #[test]
    fn one_service_that_breaks_a_rule_holds_up_no_other() {
        let view = read(
            "
            node n1
            network front subnet=10.0.1.0/24 vni=4097
            service api replicas=1
            service db replicas=1
            service web replicas=1
            task api.1 pending -
            task db.1 failed n1
            task web.1 pending -
            ",
        );
        let mut tx = Tx::new(&view);
        tx.edit_network(&"front".into(), |network| {
            network.last_addresses = [10, 0, 1, 9].into();
        });
        for task in ["api-1-1", "db-1-1", "web-1-1"] {
            tx.edit_task(&task.into(), |task| task.status.state = TaskState::Assigned);
        }
        tx.edit_task(&"web-1-1".into(), |task| task.attachments = vec![nine()]);
        let changes = tx.finish();
        assert!(rules::check(&view, &changes).is_err());
        let (made, refused) = apart(&view, &changes);
        assert_eq!(rules::check(&view, &made), Ok(()));
        let [Refused { service: Some(service), fault }] = refused.as_slice() else {
            panic!("{refused:?}")
        };
        let why = "task db-1-1 cannot go from failed to assigned";
        assert_eq!((service.as_str(), fault.message.as_str()), ("db", why));
        let mut after = view.clone();
        after.apply(&made, types::Version(2), types::Timestamp(2));
        let state = |id: &str| after.task(&id.into()).unwrap().status.state;
        assert_eq!(state("api-1-1"), TaskState::Assigned);
        assert_eq!(state("web-1-1"), TaskState::Assigned);
        assert_eq!(state("db-1-1"), TaskState::Failed);
        assert_eq!(
            after.service(&"db".into()).unwrap().allocation_error,
            format!("cannot be planned: {why}")
        );
        assert_eq!(after.network(&"front".into()).unwrap().last_addresses, [10, 0, 1, 9].into());
        // The same again changes nothing more, though another address would be next.
        let mut again = Tx::new(&after);
        again.edit_network(&"front".into(), |network| {
            network.last_addresses = [10, 0, 1, 10].into();
        });
        again.edit_task(&"db-1-1".into(), |task| task.status.state = TaskState::Assigned);
        assert!(apart(&after, &again.finish()).0.is_empty());
    }

    #[test]
    fn what_was_handed_out_beside_a_part_that_is_refused_is_noted() {
        let view = read(
            "
            node n1
            network front subnet=10.0.1.0/24 vni=4097
            network ingress ingress subnet=10.255.0.0/16 vni=4096
            network new
            service api replicas=0
            service db replicas=1
            service web replicas=1
            task db.1 failed n1
            task web.1 pending -
            ",
        );
        let mut tx = Tx::new(&view);
        tx.edit_task(&"db-1-1".into(), |task| task.status.state = TaskState::Assigned);
        // A virtual address, one in the mesh, and a number: each has its network's note.
        let nine = nine();
        let vip = Vip { network: "front".into(), addresses: nine.addresses };
        tx.edit_service(&"api".into(), |service| service.vips = vec![vip]);
        let mesh = types::Addresses::from([10, 255, 1, 1]);
        tx.edit_task(&"web-1-1".into(), |task| task.ingress_addresses = mesh);
        for (id, last) in [("front", nine.addresses), ("ingress", mesh)] {
            tx.edit_network(&id.into(), |network| network.last_addresses = last);
        }
        tx.edit_network(&"new".into(), |network| network.vni = 4098);
        let (made, refused) = apart(&view, &tx.finish());
        assert_eq!(refused.len(), 1, "{refused:?}");
        let mut after = view.clone();
        after.apply(&made, types::Version(2), types::Timestamp(2));
        let network = |id: &str| after.network(&id.into()).unwrap();
        assert_eq!(network("front").last_addresses, [10, 0, 1, 9].into());
        assert_eq!(network("ingress").last_addresses, mesh);
        assert_eq!(network("new").vni, 4098);
    }
}
