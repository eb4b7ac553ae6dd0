//! What nodes carry.

use std::collections::BTreeMap;
use types::{NodeId, Protocol, PublishedPort, ServiceId, Task};

/// What a node carries: tasks that were placed there and have not ended.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Load {
    /// All of them, wanted or not.
    placed: usize,
    /// Reserved by all of them.
    pub(crate) nano_cpus: i128,
    pub(crate) memory: i128,
    /// Ports of the host that belong to one of them.
    host_ports: BTreeMap<(Protocol, u16), usize>,
    /// Those that are wanted, in all and of each service.
    pub(crate) tasks: usize,
    of_service: BTreeMap<ServiceId, usize>,
}

/// The ports of its host that a task asks for.
pub(crate) fn host_ports(task: &Task) -> impl Iterator<Item = (Protocol, u16)> {
    let host = |port: &&PublishedPort| !port.in_mesh();
    task.ports.iter().filter(host).map(|port| (port.protocol, port.published))
}

impl Load {
    /// Carries nothing.
    pub(crate) const NONE: Self = Self {
        placed: 0,
        nano_cpus: 0,
        memory: 0,
        host_ports: BTreeMap::new(),
        tasks: 0,
        of_service: BTreeMap::new(),
    };

    /// The wanted tasks of a service.
    pub(crate) fn count(&self, service: &ServiceId) -> usize {
        self.of_service.get(service).copied().unwrap_or(0)
    }

    pub(crate) fn has_port(&self, port: (Protocol, u16)) -> bool {
        self.host_ports.contains_key(&port)
    }

    fn add(&mut self, task: &Task) {
        self.placed += 1;
        self.nano_cpus += i128::from(task.spec.resources.reserve_nano_cpus);
        self.memory += i128::from(task.spec.resources.reserve_memory);
        for port in host_ports(task) {
            *self.host_ports.entry(port).or_default() += 1;
        }
        if task.is_wanted() {
            self.tasks += 1;
            *self.of_service.entry(task.service.clone()).or_default() += 1;
        }
    }

    fn take(&mut self, task: &Task) {
        self.placed -= 1;
        self.nano_cpus -= i128::from(task.spec.resources.reserve_nano_cpus);
        self.memory -= i128::from(task.spec.resources.reserve_memory);
        for port in host_ports(task) {
            decrease(&mut self.host_ports, &port);
        }
        if task.is_wanted() {
            self.tasks -= 1;
            decrease(&mut self.of_service, &task.service);
        }
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

/// The node that carries a task. (One of a global service names its node before it is placed.)
fn carrier(task: &Task) -> Option<&NodeId> {
    task.node.as_ref().filter(|_| task.is_placed())
}

/// Follows a task; says whether its node has more or less to give to others than before.
pub(super) fn change(
    loads: &mut BTreeMap<NodeId, Load>,
    (was, is): (Option<&Task>, Option<&Task>),
) -> bool {
    let node = |task: Option<&Task>| task.and_then(carrier).cloned();
    let wanted = |task: Option<&Task>| task.is_some_and(Task::is_wanted);
    let moves = node(was) != node(is);
    let same = |(was, is): (&Task, &Task)| {
        was.spec.resources == is.spec.resources && was.ports == is.ports
    };
    let asks_the_same = !moves && was.zip(is).is_none_or(same);
    if asks_the_same && wanted(was) == wanted(is) {
        return false;
    }
    if let Some((task, node)) = was.and_then(|task| Some((task, carrier(task)?)))
        && let Some(load) = loads.get_mut(node)
    {
        load.take(task);
        if load.placed == 0 {
            loads.remove(node);
        }
    }
    if let Some((task, node)) = is.and_then(|task| Some((task, carrier(task)?))) {
        loads.entry(node.clone()).or_default().add(task);
    }
    let reserves = |task: &Task| {
        let resources = &task.spec.resources;
        resources.reserve_nano_cpus > 0
            || resources.reserve_memory > 0
            || host_ports(task).next().is_some()
    };
    !asks_the_same && [was, is].into_iter().flatten().any(reserves)
}
