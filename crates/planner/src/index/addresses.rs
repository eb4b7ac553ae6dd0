//! Which addresses are in use.

use super::Runs;
use crate::orchestrator::lingers_until;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use store::View;
use types::{NetworkId, Task, TaskId, Timestamp, Vip};

/// An address of either family as a number: those of IPv4 are as IPv6 writes them (RFC 4291, 2.5.5.2).
pub(crate) fn number_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        IpAddr::V6(address) => address.into(),
    }
}

pub(crate) fn address_of(number: u128) -> IpAddr {
    Ipv6Addr::from(number).to_canonical()
}

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
    numbers: Runs,
    /// How many others have the same one: a mistake, or a former release, may have given it twice.
    others: BTreeMap<u128, usize>,
    /// How many of the users are tasks.
    tasks: usize,
}

impl Addresses {
    /// Up to which address all are in use from this one on: on a network, or in the mesh where that
    /// is its network.
    pub(crate) fn gap(&self, network: &NetworkId, is_mesh: bool, number: u128) -> u128 {
        let on_it = self.networks.get(network).map_or(number, |used| used.numbers.gap(number));
        if is_mesh { self.mesh.numbers.gap(on_it) } else { on_it }
    }

    /// Says whether a task has an address of a network.
    pub(crate) fn has_tasks(&self, network: &NetworkId) -> bool {
        self.networks.get(network).is_some_and(|it| it.tasks > 0)
    }

    /// Follows a node. `was` and `is` are its addresses in the mesh.
    pub(super) fn of_node(&mut self, [was, is]: [types::Addresses; 2]) {
        self.mesh.release(was);
        self.mesh.hold(is);
    }

    /// Follows a service; says whether that made a difference.
    pub(super) fn of_service(&mut self, [was, is]: [&[Vip]; 2]) -> bool {
        if was == is {
            return false;
        }
        for vip in was {
            self.change(&vip.network, |used| used.release(vip.addresses));
        }
        for vip in is {
            self.change(&vip.network, |used| used.hold(vip.addresses));
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
        let both = was.zip(is).filter(|(was, is)| was.occupies() && is.occupies());
        let same = |(was, is): (&Task, &Task)| {
            was.attachments == is.attachments && was.ingress_addresses == is.ingress_addresses
        };
        if both.is_some_and(same) || ![was, is].into_iter().flatten().any(Task::has_addresses) {
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
                used.hold(attachment.addresses);
            });
        }
        self.mesh.hold(task.ingress_addresses);
    }

    fn release(&mut self, task: &Task) {
        for attachment in &task.attachments {
            self.change(&attachment.network, |used| {
                used.tasks -= 1;
                used.release(attachment.addresses);
            });
        }
        self.mesh.release(task.ingress_addresses);
    }

    fn change(&mut self, network: &NetworkId, change: impl FnOnce(&mut Used)) {
        let used = self.networks.entry(network.clone()).or_default();
        change(used);
        if used.numbers.is_empty() && used.tasks == 0 {
            self.networks.remove(network);
        }
    }
}

impl Used {
    fn hold(&mut self, addresses: types::Addresses) {
        for number in addresses.iter().map(number_of) {
            if !self.numbers.insert(number) {
                *self.others.entry(number).or_default() += 1;
            }
        }
    }

    fn release(&mut self, addresses: types::Addresses) {
        for number in addresses.iter().map(number_of) {
            match self.others.get_mut(&number) {
                None => self.numbers.remove(number),
                Some(1) => drop(self.others.remove(&number)),
                Some(others) => *others -= 1,
            }
        }
    }
}
