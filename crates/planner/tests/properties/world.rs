//! The cluster of the properties, and what always holds in it.

use crate::steps::{Step, Wish};
use crate::support::Count;
use crate::{beside, jobs};
use planner::{Plan, Planner};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use store::{Change, Changes, Tx, View, rules};
use types::{
    Addresses, Attachment, Availability, Cluster, DRAIN_LABEL, DRAIN_PACED, DesiredState, Network,
    NetworkAttachment, Node, NodeState, Preference, PublishMode, PublishedPort, REBALANCE_LABEL,
    REBALANCE_ON, Service, ServiceMode, Slot, Subnet, Task, TaskState, Timestamp, UpdateOrder,
    Version,
};

/// A cluster that users, nodes and time do something to.
pub(super) struct World {
    pub(super) view: View,
    pub(super) now: Timestamp,
    pub(super) ids: Count,
    pub(super) planner: Planner,
    pub(super) tasks_max: usize,
    /// The highest state each task was seen in.
    pub(super) states: BTreeMap<types::TaskId, (TaskState, DesiredState)>,
}

impl World {
    pub(super) fn new() -> Self {
        let mut world = Self {
            view: View::default(),
            now: Timestamp(1_000_000_000),
            ids: Count(0),
            planner: Planner::default(),
            tasks_max: planner::TASKS_MAX,
            states: BTreeMap::new(),
        };
        world.write(|tx, _| {
            tx.put_cluster(Cluster { id: "c".into(), ..Cluster::default() });
            let mut ingress = Network { id: "ingress".into(), vni: 4096, ..Network::default() };
            "ingress".clone_into(&mut ingress.spec.name);
            ingress.spec.ingress = true;
            ingress.subnets = subnets("10.255.0.0/16 fd00:255::/64");
            tx.put_network(ingress);
        });
        world
    }

    /// One of so many nodes, which all take tasks.
    pub(super) fn with_nodes(count: u8) -> Self {
        let mut world = Self::new();
        world.ready_nodes(count);
        world
    }

    pub(super) fn ready_nodes(&mut self, count: u8) {
        for node in 0..count {
            let availability = Availability::Active;
            self.take(Step::Node { node, down: false, availability, ssd: true, paced: false });
        }
    }

    pub(super) fn write(&mut self, edit: impl FnOnce(&mut Tx, Timestamp)) {
        let mut tx = Tx::new(&self.view);
        edit(&mut tx, self.now);
        self.commit(&tx.finish());
    }

    pub(super) fn commit(&mut self, changes: &Changes) {
        rules::check(&self.view, changes).expect("the rules are kept");
        let version = Version(self.view.version().0 + 1);
        let before = self.view.clone();
        self.view.apply(changes, version, self.now);
        for service in self.view.services() {
            check_completed(before.service(&service.id), service, &self.view);
        }
    }

    /// Makes a plan come to be.
    fn carry_out(&mut self, changes: &Changes) {
        let before = self.view.clone();
        self.commit(changes);
        beside::check(&before, &self.view);
    }

    pub(super) fn take(&mut self, step: Step) {
        self.now = self.now.after(Duration::from_millis(1));
        match step {
            Step::Node { node, down, availability, ssd, paced } => self.write(|tx, now| {
                let id = format!("n{node}").as_str().into();
                let mut node = tx.node(&id).map_or_else(
                    || Node { id: id.clone(), ..Node::default() },
                    |node| Node::clone(node),
                );
                let state = if down { NodeState::Down } else { NodeState::Ready };
                node.status.enter(state, "", now);
                node.spec.availability = availability;
                node.description.memory_bytes = 4;
                // It may come back with one less, or with what it only counts.
                let gpus = if ssd {
                    &["gpu=a", "gpu=b", "gpu=c", "seat=4"][..]
                } else {
                    &["gpu=a", "gpu=b", "seat=2"]
                };
                node.description.generic = types::generic::parse(gpus).expect("resources");
                let disk = if ssd { "ssd" } else { "hdd" };
                node.spec.labels.insert("disk".to_owned(), disk.to_owned());
                let how = if paced { DRAIN_PACED } else { "at once" };
                node.spec.labels.insert(DRAIN_LABEL.to_owned(), how.to_owned());
                tx.put_node(node);
            }),
            Step::RemoveNode(node) => {
                self.write(|tx, _| tx.remove_node(&format!("n{node}").as_str().into()));
            }
            Step::Service { service, wish } => self.wish(service, &wish),
            Step::RemoveService(service) => {
                self.write(|tx, _| tx.remove_service(&format!("s{service}").as_str().into()));
            }
            Step::Network { network, prefix } => self.write(|tx, _| {
                let id = format!("net{network}").as_str().into();
                if tx.network(&id).is_none() {
                    let mut new = Network { id, ..Network::default() };
                    new.spec.name = format!("net{network}");
                    // One has IPv4, one both, one IPv6 alone.
                    let v4 = format!("10.1.{network}.0/{prefix}");
                    let v6 = format!("fd00:{network}::/{}", prefix + 96);
                    new.spec.subnets = match network {
                        0 => subnets(&v4),
                        1 => subnets(&format!("{v4} {v6}")),
                        _ => subnets(&v6),
                    };
                    tx.put_network(new);
                }
            }),
            Step::RemoveNetwork(network) => self.write(|tx, _| {
                let id = format!("net{network}").as_str().into();
                tx.edit_network(&id, |network| network.removed = true);
            }),
            Step::Work { seed } => self.write(|tx, now| work(tx, now, seed)),
            Step::Leave { node, for_good } => self.write(|tx, now| {
                let id = format!("n{node}").as_str().into();
                let message = if for_good { Node::LEFT } else { "heartbeat failure" };
                tx.edit_node(&id, |node| node.status.enter(NodeState::Down, message, now));
                let tasks: Vec<Arc<Task>> = tx.tasks_of_node(&id).cloned().collect();
                for task in tasks.iter().filter(|it| it.occupies() && it.node.is_some()) {
                    if TaskState::Assigned <= task.status.state {
                        tx.edit_task(&task.id, |task| task.status.state = TaskState::Orphaned);
                    }
                }
            }),
            Step::History(limit) => self.write(|tx, _| {
                tx.edit_cluster(|cluster| cluster.spec.task_history_limit = limit.into());
            }),
            Step::Wait { seconds } => {
                self.now = self.now.after(Duration::from_secs(u64::from(seconds)));
            }
        }
    }

    /// What a user does with `service create` and `service update`.
    fn wish(&mut self, service: u8, wish: &Wish) {
        let id: types::ServiceId = format!("s{service}").as_str().into();
        let before = self.view.service(&id).cloned();
        let mut new = before.as_deref().cloned().unwrap_or_default();
        new.id = id.clone();
        new.previous_spec = before.as_ref().map(|before| before.spec.clone());
        new.update = None;
        let spec = &mut new.spec;
        spec.name = format!("s{service}");
        let replicas = u64::from(wish.replicas);
        // Users cannot change what it is.
        let (global, job) = match &before {
            Some(before) => (before.spec.mode.is_global(), before.spec.mode.is_job()),
            None => (wish.global, wish.job),
        };
        spec.mode = match (global, job) {
            (true, false) => ServiceMode::Global,
            (true, true) => ServiceMode::GlobalJob,
            (false, false) => ServiceMode::Replicated { replicas },
            (false, true) => {
                let max_concurrent = u64::from(wish.parallelism);
                ServiceMode::ReplicatedJob { max_concurrent, total_completions: replicas }
            }
        };
        let rebalance = if wish.rebalance { REBALANCE_ON } else { "off" };
        spec.labels.insert(REBALANCE_LABEL.to_owned(), rebalance.to_owned());
        spec.task.container.image = format!("image{}", wish.image);
        let constraint = wish.ssd.then(|| "node.labels.disk==ssd".to_owned());
        let beside = wish.beside.map(|sign| format!("service{sign}s{}", (service + 1) % 3));
        spec.task.placement.constraints = constraint.into_iter().chain(beside).collect();
        let generic = [("gpu", wish.gpus), ("seat", wish.seats)].into_iter();
        let asked = generic.filter(|(_, count)| *count > 0);
        spec.task.generic = asked.map(|(kind, count)| (kind.to_owned(), count.into())).collect();
        let attachment = |network: &u8| NetworkAttachment {
            target: format!("net{network}").as_str().into(),
            aliases: Vec::new(),
        };
        spec.task.placement.max_replicas_per_node = wish.max_per_node.into();
        let spread = wish.spread.then(|| Preference { spread: "node.labels.disk".to_owned() });
        spec.task.placement.preferences = spread.into_iter().collect();
        spec.task.networks = wish.networks.iter().map(attachment).collect();
        spec.task.restart.condition = wish.restart;
        spec.task.restart.delay = Duration::from_secs(wish.delay.into());
        spec.task.restart.max_attempts = u64::from(wish.replicas % 3);
        spec.task.resources.reserve_memory = wish.memory.into();
        spec.update.parallelism = wish.parallelism.into();
        spec.update.order = wish.order;
        spec.update.failure_action = wish.failure;
        let port = |(number, host): (u8, bool)| PublishedPort {
            target: 80,
            published: if number == 0 { 0 } else { 8000 + u16::from(number) },
            mode: if host { PublishMode::Host } else { PublishMode::Ingress },
            ..PublishedPort::default()
        };
        spec.endpoint.ports = wish.port.map(port).into_iter().collect();
        if job {
            jobs::run_anew(&mut new, self.now);
        }
        self.write(|tx, _| tx.put_service(new));
    }

    /// Plans as one does who knows nothing of before.
    pub(super) fn make_plan(&mut self) -> Plan {
        let fresh = self.planner.forgetful().plan(&self.view, self.now, &mut self.ids.clone());
        let plan = self.planner.plan(&self.view, self.now, &mut self.ids);
        assert_eq!(plan.changes, fresh.changes, "what is remembered makes another plan");
        // Where there is no room, whoever looks at more may find more to look at again.
        let at_once = self.tasks_max < planner::TASKS_MAX && fresh.wake == Some(self.now);
        assert!(plan.wake == fresh.wake || at_once, "what is remembered wakes at another time");
        plan
    }

    /// Plans, checks the plan and commits it.
    pub(super) fn plan(&mut self) {
        let planned = self.make_plan();
        self.carry_out(&planned.changes);
        let again = self.make_plan();
        assert_eq!(again.changes.changes, [], "planning again changes something");
        assert_eq!(again.wake, planned.wake);
        assert!(planned.wake.is_none_or(|wake| self.now < wake), "it wakes in the past");
        self.check();
    }

    /// Plans a few tasks at a time, until nothing changes. Others write between; a plan may be lost.
    pub(super) fn plan_by_parts(&mut self, mut seed: u64) {
        for _ in 0..1000 {
            let Plan { changes, wake } = self.make_plan();
            if changes.is_empty() {
                assert!(wake.is_none_or(|wake| self.now < wake), "it wakes in the past");
                return self.check();
            }
            let is_task = |it: &&Change| matches!(it.key(), store::Key::Task(_));
            let tasks = changes.changes.iter().filter(is_task).count();
            assert!(tasks <= 2 * self.tasks_max + 2 * 3, "{tasks} tasks in one plan");
            match seed & 3 {
                0 => {}
                1 => self.carry_out(&planner::apart(&self.view, &changes).0),
                _ => self.carry_out(&changes),
            }
            seed >>= 2;
            if seed & 1 == 1 {
                self.write(|tx, now| work(tx, now, seed));
                self.now = self.now.after(Duration::from_secs(1));
            }
            seed >>= 1;
            seed |= 2 << 60;
        }
        panic!("planning has no end");
    }

    pub(super) fn check(&mut self) {
        self.check_states();
        check_addresses(&self.view);
        check_loads(&self.view);
        for service in self.view.services() {
            check_slots(&self.view, service);
            jobs::check(&self.view, service);
        }
        for task in self.view.tasks() {
            assert!(task.desired != DesiredState::Ready || task.occupies() || task.node.is_some());
            let lost = task.node.as_ref().is_some_and(|node| self.view.node(node).is_none());
            // What a job has done there counts.
            let is_done = task.iteration.is_some() && !task.occupies();
            assert!(!lost || is_done, "{} is on a removed node", task.name());
            let placed = TaskState::Assigned <= task.status.state;
            assert!(!placed || task.node.is_some(), "{} is placed nowhere", task.name());
            let known = |it: &Attachment| self.view.network(&it.network).is_some();
            let carried = !task.occupies() || task.attachments.iter().all(known);
            assert!(carried, "{} is on a network that is gone", task.name());
            let ownerless = self.view.service(&task.service).is_none();
            assert!(!ownerless || task.desired == DesiredState::Remove);
        }
    }

    fn check_states(&mut self) {
        for task in self.view.tasks() {
            let now = (task.status.state, task.desired);
            let was = self.states.insert(task.id.clone(), now).unwrap_or(now);
            assert!(was.0 <= now.0 && was.1 <= now.1, "{} falls", task.name());
        }
    }
}

fn subnets(text: &str) -> Vec<Subnet> {
    let nets = text.split(' ').map(|net| net.parse().expect("a subnet"));
    nets.map(|net| Subnet::new(net).expect("an address")).collect()
}

/// Moves tasks on as nodes would: none starts that is not wanted to run.
pub(super) fn work(tx: &mut Tx, now: Timestamp, mut seed: u64) {
    let mut dice = |sides: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % sides
    };
    let tasks: Vec<Arc<Task>> = tx.tasks().cloned().collect();
    for task in tasks {
        let state = task.status.state;
        let node = task.node.as_ref().and_then(|node| tx.node(node));
        let up = node.is_some_and(|node| node.status.state == NodeState::Ready);
        if !up || !task.occupies() || state < TaskState::Assigned {
            continue;
        }
        let next = match (task.desired, dice(8)) {
            (DesiredState::Shutdown | DesiredState::Remove, 0..4) => TaskState::Shutdown,
            (DesiredState::Shutdown | DesiredState::Remove, _) => continue,
            (_, 0) if state == TaskState::Running => TaskState::Complete,
            (_, 1) => TaskState::Failed,
            (_, 2) if state < TaskState::Ready => TaskState::Rejected,
            (DesiredState::Ready, _) => TaskState::Ready,
            (DesiredState::Running, 3) if state < TaskState::Starting => TaskState::Starting,
            (DesiredState::Running, _) => TaskState::Running,
        };
        if next != state {
            tx.edit_task(&task.id, |task| {
                task.status.state = next;
                task.status.since = now;
            });
        }
    }
}

fn check_addresses(view: &View) {
    let mut seen = BTreeSet::new();
    let mut hardware = BTreeSet::new();
    for network in view.networks() {
        for subnet in &network.subnets {
            seen.insert((network.id.clone(), subnet.gateway));
            hardware.insert((network.id.clone(), types::mac_of(subnet.gateway)));
        }
    }
    // One of each subnet, all of them different, and so are the hardware addresses.
    let mut hold = |network: &types::NetworkId, addresses: Addresses| {
        let mac = addresses.mac().expect("an address");
        assert!(hardware.insert((network.clone(), mac)), "the mac of {addresses} is held twice");
        let subnets = &view.network(network).expect("a network").subnets;
        assert_eq!(addresses.iter().count(), subnets.len(), "{addresses} on {network}");
        for Subnet { net, gateway } in subnets {
            let address = addresses.of_family(*gateway).expect("an address of each family");
            assert!(seen.insert((network.clone(), address)), "{address} is held twice");
            assert!(net.contains(&address));
            assert!(address != net.broadcast() && address != net.network());
        }
    };
    let ingress = "ingress".into();
    for node in view.nodes().filter(|node| !node.ingress_addresses.is_empty()) {
        hold(&ingress, node.ingress_addresses);
    }
    for vip in view.services().flat_map(|service| &service.vips) {
        hold(&vip.network, vip.addresses);
    }
    for task in view.tasks().filter(|task| task.occupies()) {
        for Attachment { network, addresses, .. } in &task.attachments {
            hold(network, *addresses);
        }
        if !task.ingress_addresses.is_empty() {
            hold(&ingress, task.ingress_addresses);
        }
    }
}

/// An update that is over waits for none of its tasks, but for those that it gave up on.
fn check_completed(before: Option<&Arc<Service>>, service: &Service, view: &View) {
    let is_over =
        |service: &Service| service.update.as_ref().filter(|it| it.completed_at.is_some()).cloned();
    let Some(update) = is_over(service) else { return };
    if before.is_some_and(|before| is_over(before).is_some()) {
        return;
    }
    for task in view.tasks_of_service(&service.id) {
        let slot = match (service.spec.mode, &task.node) {
            (ServiceMode::Global, Some(node)) => Slot::Node(node.clone()),
            _ => Slot::Number(task.slot),
        };
        let is_beside = |other: &&Arc<Task>| {
            other.is_wanted()
                && other.slot == task.slot
                && (other.slot > 0 || other.node == task.node)
        };
        let beside: Vec<_> = view.tasks_of_service(&service.id).filter(is_beside).collect();
        // One that is beside another one of the same spec is there because its slot moves.
        let moves = beside.iter().any(|it| it.id != task.id && is_equal(it, task));
        let is_of_update =
            !moves && (update.started_at <= task.meta.created_at || beside.len() > 1);
        let is_new = is_of_update && task.spec.makes_same(&service.spec.task);
        let on_its_way =
            task.is_wanted() && task.occupies() && task.status.state < TaskState::Running;
        assert!(
            !(is_new && on_its_way) || update.failed.contains_key(&slot),
            "{} is {:?} where the update is over",
            task.name(),
            task.status.state
        );
    }
}

/// No node is asked for more than it has.
fn check_loads(view: &View) {
    for node in view.nodes() {
        let placed =
            |task: &&Arc<Task>| TaskState::Assigned <= task.status.state && task.occupies();
        let tasks: Vec<&Arc<Task>> = view.tasks_of_node(&node.id).filter(placed).collect();
        let memory: i64 = tasks.iter().map(|task| task.spec.resources.reserve_memory).sum();
        assert!(memory <= node.description.memory_bytes, "{} has too little memory", node.id);
        check_given(node, &tasks);
        let ports = tasks.iter().flat_map(|task| &task.ports);
        let host: Vec<u16> = ports
            .filter(|port| port.mode == PublishMode::Host)
            .map(|port| port.published)
            .collect();
        let distinct: BTreeSet<&u16> = host.iter().collect();
        assert_eq!(host.len(), distinct.len(), "a port of {} is used twice", node.id);
    }
}

/// A name is given once, and what is given is what was asked for and is there.
fn check_given(node: &Node, tasks: &[&Arc<Task>]) {
    let mut names = BTreeSet::new();
    let mut seats = 0;
    for task in tasks {
        let given: BTreeMap<&String, u64> =
            task.generic.iter().map(|(kind, amount)| (kind, amount.count())).collect();
        assert!(given.into_iter().eq(task.spec.generic.iter().map(|(kind, count)| (kind, *count))));
        for (kind, amount) in &task.generic {
            match (amount, node.description.generic.get(kind)) {
                (types::Amount::Names(given), Some(types::Amount::Names(has))) => {
                    assert!(
                        given.iter().all(|name| names.insert(name)),
                        "{} is given twice",
                        node.id
                    );
                    let keeps = !task.is_wanted() || node.is_down() || given.is_subset(has);
                    assert!(keeps, "{} has no {given:?}", node.id);
                }
                (types::Amount::Count(count), Some(types::Amount::Count(has))) => {
                    seats += if task.is_wanted() { *count } else { 0 };
                    assert!(seats <= *has || node.is_down(), "{} has too few", node.id);
                }
                (_, None) | (types::Amount::Names(_) | types::Amount::Count(_), Some(_)) => {
                    panic!("{} has nothing of {kind}", node.id)
                }
            }
        }
    }
}

fn is_equal(one: &Task, two: &Task) -> bool {
    let made_of =
        |task: &Task| (task.spec.clone(), task.ports.clone(), task.ingress_addresses.is_empty());
    made_of(one) == made_of(two)
}

/// Says whether a task is on a node that is drained with pace.
fn leaves(view: &View, task: &Task) -> bool {
    let node = task.node.as_ref().and_then(|node| view.node(node));
    task.occupies() && node.is_some_and(|node| node.is_drained_with_pace())
}

/// A slot has one task that is wanted; two while an update overlaps them.
fn check_slots(view: &View, service: &Service) {
    let mut slots: BTreeMap<(u64, Option<&types::NodeId>), Vec<&Arc<Task>>> = BTreeMap::new();
    let mut history: BTreeMap<(u64, Option<&types::NodeId>), usize> = BTreeMap::new();
    for task in view.tasks_of_service(&service.id) {
        let node = task.node.as_ref().filter(|_| task.slot == 0);
        if task.desired <= DesiredState::Running {
            slots.entry((task.slot, node)).or_default().push(task);
        } else if !task.occupies() && task.status.state != TaskState::Orphaned {
            // (One that was given up may be remembered for longer, for its addresses.)
            *history.entry((task.slot, node)).or_default() += 1;
        }
    }
    let limit = view.cluster().expect("a cluster").spec.task_history_limit;
    for count in history.into_values() {
        assert!(u64::try_from(count).expect("few") <= limit, "{count} ended tasks of {limit}");
    }
    if let ServiceMode::Replicated { replicas } = service.spec.mode {
        assert_eq!(u64::try_from(slots.len()), Ok(replicas), "slots of {}", service.spec.name);
    }
    for tasks in slots.values() {
        assert!(tasks.len() <= 2, "a slot with {} tasks", tasks.len());
        if let [old, new] = tasks.as_slice() {
            let made = TaskState::New < new.status.state;
            let replaces = |one: &Task, other: &Task| one.replaces.as_ref() == Some(&other.id);
            let moves = leaves(view, old) != leaves(view, new)
                || (service.is_rebalanced() && (replaces(old, new) || replaces(new, old)));
            assert!(!made || moves || !is_equal(old, new), "two equal tasks in a slot");
        }
    }
}

/// Every task comes as far as it is wanted to.
pub(super) fn healthy(tx: &mut Tx, now: Timestamp) {
    some_healthy(tx, now, u64::MAX);
}

/// Some tasks come as far as they are wanted to.
pub(super) fn some_healthy(tx: &mut Tx, now: Timestamp, mut chosen: u64) {
    let tasks: Vec<Arc<Task>> = tx.tasks().cloned().collect();
    for task in tasks {
        chosen = chosen.rotate_left(1);
        if chosen & 1 == 0 {
            continue;
        }
        if !task.occupies() || task.status.state < TaskState::Assigned {
            continue;
        }
        let next = match task.desired {
            DesiredState::Ready => TaskState::Ready,
            DesiredState::Running => TaskState::Running,
            DesiredState::Shutdown | DesiredState::Remove => TaskState::Shutdown,
        };
        if task.status.state < next {
            tx.edit_task(&task.id, |task| {
                task.status.state = next;
                task.status.since = now;
            });
        }
    }
}

/// A service that loses so many tasks at once where it is updated, or its tasks move.
pub(super) fn web(
    (replicas, parallelism, delay): (usize, usize, u64),
    start_first: bool,
) -> Service {
    let mut web = named("web");
    let wanted = u64::try_from(replicas).expect("few");
    web.spec.mode = ServiceMode::Replicated { replicas: wanted };
    web.spec.update.parallelism = u64::try_from(parallelism).expect("few");
    web.spec.update.delay = Duration::from_secs(delay);
    if start_first {
        web.spec.update.order = UpdateOrder::StartFirst;
    }
    web
}

pub(super) fn named(name: &str) -> Service {
    let mut service = Service { id: name.into(), ..Service::default() };
    name.clone_into(&mut service.spec.name);
    service
}
