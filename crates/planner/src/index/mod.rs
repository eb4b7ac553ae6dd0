//! What a planner remembers of the view it saw last, so that it need not look through everything:
//! what waits for something, what nodes carry and which addresses are in use.
//!
//! All of it is derived. [`Index::follow`] is its one writer: it goes from the view that was seen
//! to another one by what differs between them, whether users, nodes or the plan in progress made
//! it so. From nothing (an empty view) that is everything. [`News`] says what that may make
//! necessary.

mod addresses;
mod loads;
mod news;
mod runs;
mod slots;
mod standing;

pub(crate) use addresses::{Addresses, address_of, number_of};
pub(crate) use loads::{Carried, Load, Loads, host_ports};
pub(crate) use news::News;
pub(crate) use runs::Runs;
pub(crate) use slots::{AllSlots, Basis, ServiceSlots};
pub(crate) use standing::{Standing, Standings};

use crate::allocator::port;
use crate::orchestrator::is_emptied;
use crate::orchestrator::slot::slot_of;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{Key, View};
use types::{Affinity, Network, NetworkId, Node, NodeId, ServiceId, Task, TaskId, TaskState};
use types::{STACK_LABEL, Service, Slot, Timestamp};

/// Tasks that wait for something, in the order in which they get it.
pub(crate) type Waiting = BTreeSet<(ServiceId, u64, TaskId)>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Index {
    seen: View,
    pub(crate) slots: AllSlots,
    /// Tasks that failed.
    failed: BTreeSet<(ServiceId, TaskId)>,
    /// Wanted tasks that wait for their addresses.
    pub(crate) new: Waiting,
    /// Wanted tasks that wait for a node, whichever it is.
    pub(crate) pending: Waiting,
    /// Wanted tasks that wait for a node of theirs, as those of global services do.
    bound: BTreeMap<NodeId, Waiting>,
    /// Those of them whose node or which changed since the scheduler looked at them.
    pub(crate) stirred: Waiting,
    pub(crate) loads: Loads,
    pub(crate) addresses: Addresses,
    /// Nodes that have no address in the routing mesh and should.
    pub(crate) without_address: BTreeSet<NodeId>,
    /// Nodes that left and still have something from the allocator.
    pub(crate) left: BTreeSet<NodeId>,
    /// Networks without a subnet or an identifier.
    pub(crate) incomplete: BTreeSet<NetworkId>,
    /// Networks that users removed.
    pub(crate) removed: BTreeSet<NetworkId>,
    /// Services that say they lack something.
    pub(crate) lacking: BTreeSet<ServiceId>,
    /// Services that do not have the ports of their specs.
    pub(crate) unsettled: BTreeSet<ServiceId>,
    global: BTreeSet<ServiceId>,
    /// Services that are spread anew where nodes have come.
    pub(crate) rebalanced: BTreeSet<ServiceId>,
    /// What services want of others on their nodes, where they want something.
    pub(crate) affine: BTreeMap<ServiceId, Vec<Affinity>>,
    /// Nodes that are drained with pace.
    emptied: BTreeSet<NodeId>,
}

impl Index {
    /// Goes from the view that was seen last to `view`, and says what changed.
    pub(crate) fn follow(&mut self, view: &View, now: Timestamp) -> News {
        let before = std::mem::replace(&mut self.seen, view.clone());
        let (before, mut news) = (&before, News::default());
        for key in view.changes_since(before) {
            match &key {
                Key::Cluster(_) => news.cluster((before, view), &mut self.slots),
                // Nothing is planned by what is in them.
                Key::Secret(_) | Key::Config(_) => {}
                Key::Node(id) => self.node((before, view), id, now, &mut news),
                Key::Network(id) => self.network((before, view), id, &mut news),
                Key::Service(id) => {
                    self.service((before.service(id), view.service(id)), id, &mut news);
                }
                Key::Task(id) => {
                    self.task((before.task(id), view.task(id)), view, now, &mut news);
                }
            }
        }
        news.addresses |= self.addresses.expire(view, now);
        news
    }

    /// Follows a single task that the scheduler places: the next one goes by what its node carries
    /// then. All of them are seen once the scheduler is done.
    pub(crate) fn place(&mut self, was: &Arc<Task>, is: &Arc<Task>) {
        self.loads.of_task((Some(was), Some(is)));
        self.pend((Some(was), Some(is)));
        self.slots.change((Some(was), Some(is)), false);
    }

    /// Follows a single task that the scheduler does not place, and that says why now.
    pub(crate) fn excuse(&mut self, was: &Arc<Task>, is: &Arc<Task>) {
        self.slots.change((Some(was), Some(is)), false);
    }

    /// `view` differs from the one that was seen by nothing but tasks that were placed, and others
    /// that say why not, of all of which this was told.
    pub(crate) fn have_placed(&mut self, view: &View) {
        self.seen = view.clone();
    }

    /// Says whether `waiting` has a task of a service.
    pub(crate) fn is_in(waiting: &Waiting, service: &ServiceId) -> bool {
        Self::of_service(waiting, service).next().is_some()
    }

    /// The services that have tasks in `waiting`.
    pub(crate) fn services(waiting: &Waiting) -> Vec<ServiceId> {
        let mut services: Vec<ServiceId> = Vec::new();
        let mut next = waiting.first();
        while let Some((service, _, _)) = next {
            services.push(service.clone());
            let last = (service.clone(), u64::MAX, TaskId::from("~"));
            next = waiting.range(last..).next();
        }
        services
    }

    /// The tasks of a service that failed.
    pub(crate) fn failed(&self, service: &ServiceId) -> impl Iterator<Item = &TaskId> {
        let first = (service.clone(), TaskId::default());
        let service = service.clone();
        self.failed.range(first..).take_while(move |it| it.0 == service).map(|(_, id)| id)
    }

    /// The tasks of a service that wait.
    pub(crate) fn of_service<'a>(
        waiting: &'a Waiting,
        service: &'a ServiceId,
    ) -> impl Iterator<Item = &'a TaskId> {
        let first = (service.clone(), 0, TaskId::default());
        waiting.range(first..).take_while(move |it| it.0 == *service).map(|(_, _, id)| id)
    }

    fn node(
        &mut self,
        (before, view): (&View, &View),
        id: &NodeId,
        now: Timestamp,
        news: &mut News,
    ) {
        let (was, is) = (before.node(id), view.node(id));
        if !news.node((before, view), id) {
            return;
        }
        for task in [before, view].into_iter().flat_map(|view| view.tasks_of_node(id)) {
            news.look_at(&task.service);
            self.slots.stir(&task.service, &slot_of(task));
        }
        keep(&mut self.emptied, id, is.is_some_and(|node| is_emptied(node)));
        self.stir_global(id, news);
        self.loads.of_node(id, is.map(AsRef::as_ref));
        self.stir(id);
        let of = |node: Option<&Arc<Node>>| node.map(|it| it.ingress_addresses).unwrap_or_default();
        let addresses = [was, is].map(of);
        self.addresses.of_node(addresses);
        let lacks = |it: &Node| it.ingress_addresses.is_empty() && !it.has_left();
        let holds = |it: &Node| !it.ingress_addresses.is_empty() || !it.allocation_error.is_empty();
        let left = |it: &Node| it.has_left() && holds(it);
        keep(&mut self.without_address, id, is.is_some_and(|node| lacks(node)));
        keep(&mut self.left, id, is.is_some_and(|node| left(node)));
        // Whether a task that was given up may still run is its node's business.
        for task in view.tasks_of_node(id) {
            if task.status.state == TaskState::Orphaned {
                self.addresses.linger(view, now, task);
            }
        }
    }

    /// The tasks of global services on a node are to be looked at.
    fn stir_global(&mut self, node: &NodeId, news: &mut News) {
        for service in &self.global {
            news.look_at(service);
            self.slots.stir(service, &Slot::Node(node.clone()));
        }
    }

    fn network(&mut self, (before, view): (&View, &View), id: &NetworkId, news: &mut News) {
        if !news.network((before, view), id, &mut self.slots) {
            return;
        }
        let network = view.network(id);
        let lacks = |it: &Network| !it.removed && (it.vni == 0 || it.subnets.is_empty());
        keep(&mut self.incomplete, id, network.is_some_and(|network| lacks(network)));
        keep(&mut self.removed, id, network.is_some_and(|network| network.removed));
    }

    fn service(
        &mut self,
        (was, is): (Option<&Arc<Service>>, Option<&Arc<Service>>),
        id: &ServiceId,
        news: &mut News,
    ) {
        if was
            .zip(is)
            .is_some_and(|(was, is)| Service { meta: is.meta, ..Service::clone(was) } == **is)
        {
            return;
        }
        news.look_at(id);
        let vips = [was, is].map(|it| it.map_or(&[][..], |service| service.vips.as_slice()));
        news.addresses |= self.addresses.of_service(vips);
        keep(&mut self.global, id, is.is_some_and(|service| service.spec.mode.is_global()));
        keep(&mut self.rebalanced, id, is.is_some_and(|it| it.is_rebalanced()));
        self.follow_affinities(id, [was, is].map(|it| it.map(AsRef::as_ref)), news);
        keep(&mut self.lacking, id, is.is_some_and(|it| !it.allocation_error.is_empty()));
        keep(&mut self.unsettled, id, is.is_some_and(|it| !port::is_settled(it)));
    }

    /// What a service wants of others decides where these may be, too, and so does how it is called.
    fn follow_affinities(
        &mut self,
        id: &ServiceId,
        [was, is]: [Option<&Service>; 2],
        news: &mut News,
    ) {
        let affinities = is.into_iter().flat_map(|it| it.spec.task.placement.affinities());
        let affinities: Vec<Affinity> = affinities.collect();
        let had = self.affine.remove(id).unwrap_or_default();
        let wants_other = had != affinities;
        if !affinities.is_empty() {
            self.affine.insert(id.clone(), affinities);
        }
        if wants_other || !self.affine.is_empty() && called(was) != called(is) {
            news.nodes = true;
            self.stir_bound();
        }
    }

    /// All that waits for a node of its own is to be looked at.
    fn stir_bound(&mut self) {
        self.stirred.extend(self.bound.values().flatten().cloned());
    }

    fn task(
        &mut self,
        (was, is): (Option<&Arc<Task>>, Option<&Arc<Task>>),
        view: &View,
        now: Timestamp,
        news: &mut News,
    ) {
        // What this planner made has come to be.
        let is_as_before = was.zip(is).is_some_and(|(was, is)| is_the_same(was, is));
        self.slots.change((was, is), is_as_before);
        if is_as_before {
            return;
        }
        let (was, is) = (was.map(AsRef::as_ref), is.map(AsRef::as_ref));
        let was_there = was.filter(|task| task.is_placed() && !is.is_some_and(Task::is_placed));
        if let Some(node) = was_there.and_then(|task| task.node.as_ref())
            && self.emptied.contains(node)
        {
            self.stir_global(node, news);
        }
        for task in [was, is].into_iter().flatten() {
            news.look_at(&task.service);
            if task.status.state.is_failure() {
                let key = (task.service.clone(), task.id.clone());
                keep(&mut self.failed, &key, is.is_some_and(|it| it.status.state.is_failure()));
            }
        }
        wait(&mut self.new, |task| task.status.state == TaskState::New, (was, is));
        self.pend((was, is));
        news.addresses |= self.addresses.of_task((was, is), view, now);
        news.nodes |= self.loads.of_task((was, is));
        let here = |task: Option<&Task>| task.filter(|it| it.is_placed()).map(Task::is_wanted);
        if !self.affine.is_empty() && here(was) != here(is) {
            news.nodes = true;
            self.stir_bound();
        }
    }

    /// Follows what a task waits for. Whatever happens on a node may be what others wait for there.
    fn pend(&mut self, (was, is): (Option<&Task>, Option<&Task>)) {
        let pends = |task: &Task| task.status.state == TaskState::Pending;
        wait(&mut self.pending, |task| pends(task) && task.node.is_none(), (was, is));
        for node in [was, is].into_iter().flatten().filter_map(|task| task.node.as_ref()) {
            let here = |task: &Task| pends(task) && task.node.as_ref() == Some(node);
            if [was, is].into_iter().flatten().any(here) {
                let bound = self.bound.entry(node.clone()).or_default();
                wait(bound, here, (was, is));
                if bound.is_empty() {
                    self.bound.remove(node);
                }
                wait(&mut self.stirred, here, (was, is));
            }
            self.stir(node);
        }
    }

    fn stir(&mut self, node: &NodeId) {
        self.stirred.extend(self.bound.get(node).into_iter().flatten().cloned());
    }
}

/// Says whether a task is as it was, but for when and at which version it was written.
fn is_the_same(was: &Task, is: &Task) -> bool {
    let Task {
        id,
        meta: _,
        service,
        service_name,
        service_labels,
        slot,
        iteration,
        node,
        spec,
        desired,
        status,
        running_since,
        not_before,
        trial,
        replaces,
        restarts,
        attachments,
        ingress_addresses,
        ports,
        default_log,
        generic,
        refresh,
    } = was;
    (id, service, service_name, service_labels)
        == (&is.id, &is.service, &is.service_name, &is.service_labels)
        && (slot, iteration, node, spec, desired, status)
            == (&is.slot, &is.iteration, &is.node, &is.spec, &is.desired, &is.status)
        && (running_since, not_before, trial, replaces, restarts)
            == (&is.running_since, &is.not_before, &is.trial, &is.replaces, &is.restarts)
        && (attachments, ingress_addresses, ports)
            == (&is.attachments, &is.ingress_addresses, &is.ports)
        && (default_log, generic, refresh) == (&is.default_log, &is.generic, &is.refresh)
}

/// By what others may mean a service.
fn called(service: Option<&Service>) -> Option<(&str, Option<&String>)> {
    service.map(|it| (it.spec.name.as_str(), it.spec.labels.get(STACK_LABEL)))
}

/// Makes a set have `id` or not.
fn keep<I: Ord + Clone>(set: &mut BTreeSet<I>, id: &I, has: bool) {
    if has {
        set.insert(id.clone());
    } else {
        set.remove(id);
    }
}

/// Keeps the wanted tasks that wait for something.
fn wait(
    waiting: &mut Waiting,
    waits: impl Fn(&Task) -> bool,
    (was, is): (Option<&Task>, Option<&Task>),
) {
    let waits = |task: &&Task| task.is_wanted() && waits(task);
    let key = |task: &Task| (task.service.clone(), task.slot, task.id.clone());
    if let Some(task) = was.filter(waits) {
        waiting.remove(&key(task));
    }
    if let Some(task) = is.filter(waits) {
        waiting.insert(key(task));
    }
}
