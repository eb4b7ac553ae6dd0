//! What planning costs, and how that grows with the cluster: `cargo bench -p planner --bench plan`.
//!
//! Clusters of 50, 500 and 5,000 nodes with 1,000, 10,000 and 100,000 tasks, all in one thread. The
//! time is that of a processor for the planner alone: neither the rules are checked nor a log is written.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

#[path = "../tests/support/mod.rs"]
mod support;

use planner::Planner;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;
use store::{Tx, View};
use support::Count;
use types::{
    Cluster, DesiredState, Network, NetworkAttachment, Node, NodeState, Preference, Service,
    ServiceId, ServiceMode, Subnet, Task, TaskId, TaskState, TaskStatus, Timestamp, Version,
};

/// Tasks of a service, where the cluster is large.
const OF_SERVICE: usize = 1_000;

struct World {
    view: View,
    now: Timestamp,
    ids: Count,
    planner: Planner,
}

/// How long this thread has had a processor: on a machine that is busy others have it meanwhile.
fn on_cpu() -> Duration {
    // The kernel counts when it looks whose turn it is.
    std::thread::yield_now();
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts it");
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("a number"))
}

/// What planning until nothing changes took.
#[derive(Clone, Copy, Default)]
struct Cost {
    whole: Duration,
    longest: Duration,
    plans: usize,
    changes: usize,
}

impl World {
    /// Nodes of three zones, and services on a network, one after the other with a preference, a
    /// constraint and reservations, and without.
    fn new(nodes: usize, tasks: usize) -> Self {
        let (view, now, ids) = (View::default(), Timestamp(1_000_000_000), Count(0));
        let mut world = Self { view, now, ids, planner: Planner::default() };
        world.write(|tx, ids| {
            tx.put_cluster(Cluster { id: "c".into(), ..Cluster::default() });
            for (name, net, ingress) in
                [("ingress", "10.255.0.0/16", true), ("front", "10.64.0.0/12", false)]
            {
                let mut network = Network { id: name.into(), ..Network::default() };
                name.clone_into(&mut network.spec.name);
                network.spec.ingress = ingress;
                let subnet = Subnet::new(net.parse().expect("a subnet"));
                network.subnets = vec![subnet.expect("an address")];
                network.vni = if ingress { 4096 } else { 4097 };
                tx.put_network(network);
            }
            for index in 0..nodes {
                let mut node = Node { id: types::NodeId::draw(ids), ..Node::default() };
                node.status.state = NodeState::Ready;
                node.description.memory_bytes = 1 << 40;
                let zone = ["a", "b", "c"][index % 3].to_owned();
                node.spec.labels.insert("zone".to_owned(), zone);
                tx.put_node(node);
            }
            let each = OF_SERVICE.min(tasks / 10);
            for index in 0..tasks / each {
                tx.put_service(demanding(index, each, ids));
            }
        });
        world
    }

    fn write(&mut self, edit: impl FnOnce(&mut Tx, &mut Count)) {
        let mut tx = Tx::new(&self.view);
        edit(&mut tx, &mut self.ids);
        self.commit(&tx.finish());
    }

    fn commit(&mut self, changes: &store::Changes) {
        self.now = self.now.after(Duration::from_millis(1));
        let version = Version(self.view.version().0 + 1);
        self.view.apply(changes, version, self.now);
    }

    /// Plans until nothing changes.
    fn plan(&mut self) -> Cost {
        let mut cost = Cost::default();
        loop {
            let begin = on_cpu();
            let plan = black_box(self.planner.plan(&self.view, self.now, &mut self.ids));
            let took = on_cpu().saturating_sub(begin);
            cost.whole += took;
            cost.longest = cost.longest.max(took);
            cost.plans += 1;
            cost.changes += plan.changes.changes.len();
            if plan.changes.is_empty() {
                return cost;
            }
            self.commit(&plan.changes);
        }
    }

    /// All tasks come as far as they are wanted to.
    fn run(&mut self) -> Cost {
        let now = self.now;
        self.write(|tx, _| {
            let tasks: Vec<_> = tx.tasks().filter(|task| task.occupies()).cloned().collect();
            for task in tasks {
                tx.edit_task(&task.id, |task| {
                    task.status.state = match task.desired {
                        DesiredState::Ready | DesiredState::Running => TaskState::Running,
                        DesiredState::Shutdown | DesiredState::Remove => TaskState::Shutdown,
                    };
                    task.status.since = now;
                });
            }
        });
        self.plan()
    }

    /// A task reports.
    fn report(&mut self, task: &TaskId, report: impl FnOnce(&mut TaskStatus)) -> Cost {
        self.write(|tx, _| tx.edit_task(task, |task| report(&mut task.status)));
        self.plan()
    }

    fn small_changes(&mut self) -> Vec<(&'static str, Cost)> {
        let first = Task::clone(self.view.tasks().next().expect("a task"));
        let node = first.node.expect("a node");
        let status = self.report(&first.id, |status| status.message.push_str("news"));
        let failed = self.report(&first.id, |status| status.state = TaskState::Failed);
        self.write(|tx, _| tx.edit_node(&node, |node| node.status.state = NodeState::Down));
        let down = self.plan();
        vec![
            ("one task says something new", status),
            ("one task fails", failed),
            ("one node goes down", down),
        ]
    }

    /// A service of many tasks, of which one reports; it is updated, and goes.
    fn large_service(&mut self, replicas: usize) -> Vec<(&'static str, Cost)> {
        let service = service("large", replicas, &mut self.ids);
        let id = service.id.clone();
        self.write(|tx, _| tx.put_service(service));
        self.plan();
        self.run();
        let tasks =
            |view: &View| -> Vec<Arc<Task>> { view.tasks_of_service(&id).cloned().collect() };
        let one = tasks(&self.view).swap_remove(0);
        let status = self.report(&one.id, |status| status.message.push_str("news"));
        let before = self.view.clone();
        self.write(|tx, _| {
            tx.edit_service(&id, |it| "two".clone_into(&mut it.spec.task.container.image));
        });
        let begun = self.plan();
        let is_new = |task: &&Arc<Task>| before.task(&task.id).is_none();
        let new = tasks(&self.view).iter().find(is_new).cloned().expect("a task");
        let is_old = |task: &&Arc<Task>| !task.is_wanted();
        let old = tasks(&self.view).iter().find(is_old).cloned().expect("a task");
        let report = self.report(&new.id, |status| status.state = TaskState::Preparing);
        self.report(&old.id, |status| status.state = TaskState::Shutdown);
        let next = self.report(&new.id, |status| status.state = TaskState::Running);
        assert_eq!(next.changes, 3, "the next task is replaced, with another address");
        self.write(|tx, _| {
            tx.edit_service(&id, |it| it.spec.mode = ServiceMode::Replicated { replicas: 0 });
        });
        let gone = self.plan();
        vec![
            ("one task of a large service", status),
            ("an update of it begins", begun),
            ("a new task of it reports", report),
            ("a new task of it runs", next),
            ("a large service goes", gone),
        ]
    }

    /// A global service that fits on no node, and a task that leaves its place beside it.
    fn unplaceable_service(&mut self) -> Vec<(&'static str, Cost)> {
        let mut service = service("everywhere", 0, &mut self.ids);
        service.spec.mode = ServiceMode::Global;
        service.spec.task.resources.reserve_memory = 1 << 41;
        self.write(|tx, _| tx.put_service(service));
        let none = self.plan();
        let reserves = |task: &&Arc<Task>| {
            task.spec.resources.reserve_memory > 0 && task.status.state == TaskState::Running
        };
        let task = self.view.tasks().find(reserves).expect("a task").id.clone();
        let failed = self.report(&task, |status| status.state = TaskState::Failed);
        vec![("a global service fits nowhere", none), ("one task fails beside it", failed)]
    }
}

/// A service on a network.
fn service(name: &str, replicas: usize, ids: &mut Count) -> Service {
    let mut service = Service { id: ServiceId::draw(ids), ..Service::default() };
    name.clone_into(&mut service.spec.name);
    let replicas = u64::try_from(replicas).expect("few");
    service.spec.mode = ServiceMode::Replicated { replicas };
    service.spec.task.networks =
        vec![NetworkAttachment { target: "front".into(), ..NetworkAttachment::default() }];
    service
}

/// One that asks for something of its nodes, or not.
fn demanding(index: usize, replicas: usize, ids: &mut Count) -> Service {
    let mut service = service(&format!("s{index}"), replicas, ids);
    let task = &mut service.spec.task;
    match index % 3 {
        0 => {}
        1 => task.placement.constraints = vec!["node.labels.zone!=c".to_owned()],
        _ => {
            task.resources.reserve_memory = 1 << 20;
            let spread = "node.labels.zone".to_owned();
            task.placement.preferences = vec![Preference { spread }];
        }
    }
    service
}

/// What one cluster's plans took, in microseconds.
fn measure(nodes: usize, tasks: usize) -> Vec<(&'static str, f64)> {
    let mut world = World::new(nodes, tasks);
    let placed = world.plan();
    let count = world.view.tasks().filter(|it| it.status.state == TaskState::Assigned).count();
    assert_eq!(count, tasks, "all tasks are placed");
    let rate = f64::from(u32::try_from(tasks).expect("few")) / placed.whole.as_secs_f64();
    let settled = world.run();
    let mut lines =
        vec![("all tasks placed, from nothing", placed), ("all tasks run now", settled)];
    lines.extend(world.small_changes());
    lines.extend(world.large_service(tasks / 5));
    lines.extend(world.unplaceable_service());
    println!("{nodes} nodes, {tasks} tasks: {rate:.0} tasks placed per second");
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    for (what, Cost { whole, longest, plans, changes }) in &lines {
        let (whole, longest) = (micros(*whole) / 1e3, micros(*longest) / 1e3);
        println!(
            "  {what:32} {whole:9.2} ms in {plans:3} plans, longest {longest:8.2} ms, {changes} changes"
        );
    }
    lines.into_iter().map(|(what, cost)| (what, micros(cost.whole))).collect()
}

fn main() {
    let sizes = [(50, 1_000), (500, 10_000), (5_000, 100_000)];
    let costs: Vec<_> = sizes.into_iter().map(|(nodes, tasks)| measure(nodes, tasks)).collect();
    println!("growth for ten times as many nodes and tasks");
    for index in 0..costs[0].len() {
        let growth = costs.windows(2).map(|pair| pair[1][index].1 / pair[0][index].1);
        let growth: Vec<String> = growth.map(|times| format!("{times:6.1}")).collect();
        println!("  {:32} {}", costs[0][index].0, growth.join(" "));
    }
}
