//! Which addresses are in use.

use crate::orchestrator::lingers_until;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use store::View;
use types::{NetworkId, Task, TaskId, Timestamp, Vip};

/// The addresses in use: of services on their networks, of nodes in the routing mesh, and of tasks
/// until they have ended and, where they were given up, do not linger any more.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    networks: BTreeMap<NetworkId, Used>,
    mesh: Used,
    /// Tasks that were given up and may still run, and until when.
    lingering: BTreeMap<TaskId, Timestamp>,
    ends: BTreeSet<(Timestamp, TaskId)>,
}

/// Addresses of one network in use.
#[derive(Debug, Default)]
struct Used {
    /// How many use each: a mistake, or a former release, may have given one twice.
    addresses: BTreeMap<IpAddr, usize>,
    /// How many of the users are tasks.
    tasks: usize,
}

impl Addresses {
    pub(crate) fn is_used(&self, network: &NetworkId, address: IpAddr) -> bool {
        self.networks.get(network).is_some_and(|it| it.addresses.contains_key(&address))
    }

    pub(crate) fn is_used_in_mesh(&self, address: IpAddr) -> bool {
        self.mesh.addresses.contains_key(&address)
    }

    /// Says whether a task has an address of a network.
    pub(crate) fn has_tasks(&self, network: &NetworkId) -> bool {
        self.networks.get(network).is_some_and(|it| it.tasks > 0)
    }

    /// Follows a node. `was` and `is` are its addresses in the mesh.
    pub(super) fn of_node<A: Into<IpAddr>>(&mut self, [was, is]: [Option<A>; 2]) {
        if let Some(address) = was {
            self.mesh.release(address.into());
        }
        if let Some(address) = is {
            self.mesh.hold(address.into());
        }
    }

    /// Follows a service; says whether that made a difference.
    pub(super) fn of_service(&mut self, [was, is]: [&[Vip]; 2]) -> bool {
        if was == is {
            return false;
        }
        for vip in was {
            self.change(&vip.network, |used| used.release(vip.address.into()));
        }
        for vip in is {
            self.change(&vip.network, |used| used.hold(vip.address.into()));
        }
        true
    }

    /// Follows a task; says whether that made a difference.
    pub(super) fn of_task(
        &mut self,
        (was, is): (Option<&Task>, Option<&Task>),
        view: &View,
        now: Timestamp,
    ) -> bool {
        let has = |task: &Task| !task.attachments.is_empty() || task.ingress_address.is_some();
        let both = was.zip(is).filter(|(was, is)| was.occupies() && is.occupies());
        let same = |(was, is): (&Task, &Task)| {
            was.attachments == is.attachments && was.ingress_address == is.ingress_address
        };
        if both.is_some_and(same) || ![was, is].into_iter().flatten().any(has) {
            return false;
        }
        if let Some(task) = was {
            if task.occupies() {
                self.release(task);
            } else {
                self.forget(task);
            }
        }
        match is {
            Some(task) if task.occupies() => self.hold(task),
            Some(task) => self.linger(view, now, task),
            None => {}
        }
        true
    }

    /// Follows a task that ended: it has its addresses for as long as it may still run.
    pub(super) fn linger(&mut self, view: &View, now: Timestamp, task: &Task) {
        self.forget(task);
        if let Some(end) = lingers_until(view, task).filter(|end| now < *end) {
            self.lingering.insert(task.id.clone(), end);
            self.ends.insert((end, task.id.clone()));
            self.hold(task);
        }
    }

    /// Lets go of tasks whose time is over; says whether there was one.
    pub(super) fn expire(&mut self, view: &View, now: Timestamp) -> bool {
        let mut any = false;
        while let Some((_, id)) = self.ends.first().filter(|(end, _)| *end <= now).cloned() {
            if let Some(task) = view.task(&id) {
                self.forget(task);
            }
            any = true;
        }
        any
    }

    /// Lets go of a task that was given up.
    fn forget(&mut self, task: &Task) {
        if let Some(end) = self.lingering.remove(&task.id) {
            self.ends.remove(&(end, task.id.clone()));
            self.release(task);
        }
    }

    fn hold(&mut self, task: &Task) {
        for attachment in &task.attachments {
            self.change(&attachment.network, |used| {
                used.tasks += 1;
                used.hold(attachment.address.into());
            });
        }
        if let Some(address) = task.ingress_address {
            self.mesh.hold(address.into());
        }
    }

    fn release(&mut self, task: &Task) {
        for attachment in &task.attachments {
            self.change(&attachment.network, |used| {
                used.tasks -= 1;
                used.release(attachment.address.into());
            });
        }
        if let Some(address) = task.ingress_address {
            self.mesh.release(address.into());
        }
    }

    fn change(&mut self, network: &NetworkId, change: impl FnOnce(&mut Used)) {
        let used = self.networks.entry(network.clone()).or_default();
        change(used);
        if used.addresses.is_empty() {
            self.networks.remove(network);
        }
    }
}

impl Used {
    fn hold(&mut self, address: IpAddr) {
        *self.addresses.entry(address).or_default() += 1;
    }

    fn release(&mut self, address: IpAddr) {
        if let Some(users) = self.addresses.get_mut(&address) {
            *users -= 1;
            if *users == 0 {
                self.addresses.remove(&address);
            }
        }
    }
}
