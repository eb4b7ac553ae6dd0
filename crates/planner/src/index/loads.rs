//! What nodes carry.

use super::keep;
use crate::orchestrator::slot::takes_tasks;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use store::View;
use types::{Amount, Node, NodeId, Protocol, PublishedPort, ServiceId, Task};

/// What all nodes carry.
#[derive(Debug, Default)]
pub(crate) struct Loads {
    /// One that carries nothing is not here.
    of_node: BTreeMap<NodeId, Load>,
    /// The tasks of each service on each node.
    of_service: BTreeMap<(ServiceId, NodeId), Count>,
    /// Nodes that may get new tasks: first those with the fewest tasks that are wanted.
    idlest: BTreeSet<(usize, NodeId)>,
}

/// What a node carries: tasks that were placed there and have not ended.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Load {
    /// All of them, wanted or not.
    placed: usize,
    /// Reserved by all of them.
    pub(crate) nano_cpus: i128,
    pub(crate) memory: i128,
    /// What they were given of generic resources, by kinds.
    generic: BTreeMap<String, Given>,
    /// Ports of the host that belong to one of them.
    host_ports: BTreeMap<(Protocol, u16), usize>,
    /// Those that are wanted.
    pub(crate) tasks: usize,
}

/// Tasks of a service on a node.
#[derive(Debug, Default)]
struct Count {
    placed: usize,
    /// Those of them that are wanted.
    wanted: usize,
}

/// What a node carries, and how many of it are wanted tasks of a certain service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Carried<'a> {
    pub(crate) load: &'a Load,
    pub(crate) count: usize,
}

/// The ports of its host that a task asks for.
pub(crate) fn host_ports(task: &Task) -> impl Iterator<Item = (Protocol, u16)> {
    let host = |port: &&PublishedPort| !port.in_mesh();
    task.ports.iter().filter(host).map(|port| (port.protocol, port.published))
}

static IDLE: Load = Load {
    placed: 0,
    nano_cpus: 0,
    memory: 0,
    generic: BTreeMap::new(),
    host_ports: BTreeMap::new(),
    tasks: 0,
};

/// What tasks on a node have of a kind of generic resources.
#[derive(Debug, Default, PartialEq)]
struct Given {
    counted: u64,
    names: BTreeMap<String, usize>,
}

impl Loads {
    /// What a node carries.
    pub(crate) fn on(&self, node: &NodeId, service: &ServiceId) -> Carried<'_> {
        let load = self.of_node.get(node).unwrap_or(&IDLE);
        let count = self.of_service.get(&(service.clone(), node.clone()));
        Carried { load, count: count.map_or(0, |count| count.wanted) }
    }

    /// The nodes that have tasks of a service; where it `wants` them, those alone that are wanted.
    pub(crate) fn nodes_of(
        &self,
        service: &ServiceId,
        wants: bool,
    ) -> impl Iterator<Item = &NodeId> {
        let first = (service.clone(), NodeId::default());
        let service = service.clone();
        let all = self.of_service.range(first..).take_while(move |(it, _)| it.0 == service);
        all.filter(move |(_, count)| !wants || count.wanted > 0).map(|((_, node), _)| node)
    }

    /// All nodes with what they carry.
    pub(crate) fn on_all<'a, 'v>(
        &'a self,
        view: &'v View,
        service: &'a ServiceId,
    ) -> impl Iterator<Item = (&'v Node, Carried<'a>)> {
        // All three are in the order of ids.
        let first = (service.clone(), NodeId::default());
        let counts = self.of_service.range(first..).take_while(move |(it, _)| it.0 == *service);
        let mut counts = counts.map(|((_, node), count)| (node, count)).peekable();
        let mut loads = self.of_node.iter().peekable();
        view.nodes().map(move |node| {
            let load = next_of(&mut loads, &node.id).unwrap_or(&IDLE);
            let count = next_of(&mut counts, &node.id).map_or(0, |count| count.wanted);
            (&**node, Carried { load, count })
        })
    }

    /// Nodes that may get new tasks: first those with the fewest tasks that are wanted.
    pub(crate) fn idlest(&self) -> impl Iterator<Item = &NodeId> {
        self.idlest.iter().map(|(_, node)| node)
    }

    /// Follows a node.
    pub(super) fn of_node(&mut self, id: &NodeId, node: Option<&Node>) {
        let tasks = self.tasks_on(id);
        keep(&mut self.idlest, &(tasks, id.clone()), node.is_some_and(takes_tasks));
    }

    /// Follows a task; says whether its node has more or less to give to others than before.
    pub(super) fn of_task(&mut self, (was, is): (Option<&Task>, Option<&Task>)) -> bool {
        let node = |task: Option<&Task>| task.and_then(carrier).cloned();
        let wanted = |task: Option<&Task>| task.is_some_and(Task::is_wanted);
        let moves = node(was) != node(is);
        let same = |(was, is): (&Task, &Task)| {
            was.spec.resources == is.spec.resources
                && was.ports == is.ports
                && was.generic == is.generic
        };
        let asks_the_same = !moves && was.zip(is).is_none_or(same);
        if asks_the_same && wanted(was) == wanted(is) {
            return false;
        }
        if let Some((task, node)) = was.and_then(|task| Some((task, carrier(task)?))) {
            self.change(node, |load| load.take(task));
            let key = (task.service.clone(), node.clone());
            if let Some(count) = self.of_service.get_mut(&key) {
                count.placed -= 1;
                count.wanted -= usize::from(task.is_wanted());
                if count.placed == 0 {
                    self.of_service.remove(&key);
                }
            }
        }
        if let Some((task, node)) = is.and_then(|task| Some((task, carrier(task)?))) {
            self.change(node, |load| load.add(task));
            let count = self.of_service.entry((task.service.clone(), node.clone())).or_default();
            count.placed += 1;
            count.wanted += usize::from(task.is_wanted());
        }
        let reserves = |task: &Task| {
            let resources = &task.spec.resources;
            resources.reserve_nano_cpus > 0
                || resources.reserve_memory > 0
                || !task.generic.is_empty()
                || host_ports(task).next().is_some()
        };
        !asks_the_same && [was, is].into_iter().flatten().any(reserves)
    }

    fn change(&mut self, node: &NodeId, change: impl FnOnce(&mut Load)) {
        let before = (self.tasks_on(node), node.clone());
        let load = self.of_node.entry(node.clone()).or_default();
        change(load);
        if load.placed == 0 {
            self.of_node.remove(node);
        }
        if self.idlest.remove(&before) {
            self.idlest.insert((self.tasks_on(node), before.1));
        }
    }

    /// How many tasks a node carries that are wanted.
    fn tasks_on(&self, node: &NodeId) -> usize {
        self.of_node.get(node).map_or(0, |load| load.tasks)
    }
}

impl Load {
    pub(crate) fn has_port(&self, port: (Protocol, u16)) -> bool {
        self.host_ports.contains_key(&port)
    }

    /// What of a kind that a node has is nobody's. Where a node names what it only counted before, as
    /// many names are held back.
    pub(crate) fn free(&self, kind: &str, has: &Amount) -> Amount {
        let Some(Given { counted, names: taken }) = self.generic.get(kind) else {
            return has.clone();
        };
        match has {
            Amount::Count(count) => {
                let named = u64::try_from(taken.len()).unwrap_or(u64::MAX);
                Amount::Count(count.saturating_sub(*counted).saturating_sub(named))
            }
            Amount::Names(names) => {
                let free = names.iter().filter(|name| !taken.contains_key(*name));
                let counted = usize::try_from(*counted).unwrap_or(usize::MAX);
                Amount::Names(free.skip(counted).cloned().collect())
            }
        }
    }

    fn add(&mut self, task: &Task) {
        self.placed += 1;
        self.nano_cpus += i128::from(task.spec.resources.reserve_nano_cpus);
        self.memory += i128::from(task.spec.resources.reserve_memory);
        for (kind, amount) in &task.generic {
            let given = self.generic.entry(kind.clone()).or_default();
            match amount {
                Amount::Count(count) => given.counted += count,
                Amount::Names(names) => {
                    for name in names {
                        *given.names.entry(name.clone()).or_default() += 1;
                    }
                }
            }
        }
        for port in host_ports(task) {
            *self.host_ports.entry(port).or_default() += 1;
        }
        self.tasks += usize::from(task.is_wanted());
    }

    fn take(&mut self, task: &Task) {
        self.placed -= 1;
        self.nano_cpus -= i128::from(task.spec.resources.reserve_nano_cpus);
        self.memory -= i128::from(task.spec.resources.reserve_memory);
        for (kind, amount) in &task.generic {
            let Some(given) = self.generic.get_mut(kind) else { continue };
            match amount {
                Amount::Count(count) => given.counted -= count,
                Amount::Names(names) => {
                    for name in names {
                        decrease(&mut given.names, name);
                    }
                }
            }
            if *given == Given::default() {
                self.generic.remove(kind);
            }
        }
        for port in host_ports(task) {
            decrease(&mut self.host_ports, &port);
        }
        self.tasks -= usize::from(task.is_wanted());
    }
}

fn decrease<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// What `rows`, which are in order, have for a node; leaves out those of nodes before it.
fn next_of<'a, T>(
    rows: &mut Peekable<impl Iterator<Item = (&'a NodeId, &'a T)>>,
    node: &NodeId,
) -> Option<&'a T> {
    loop {
        match rows.peek()?.0.cmp(node) {
            Ordering::Less => rows.next(),
            Ordering::Equal => return rows.next().map(|(_, row)| row),
            Ordering::Greater => return None,
        };
    }
}

/// The node that carries a task. (One of a global service names its node before it is placed.)
fn carrier(task: &Task) -> Option<&NodeId> {
    task.node.as_ref().filter(|_| task.is_placed())
}
