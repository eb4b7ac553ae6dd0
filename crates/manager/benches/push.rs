//! What it costs a manager to tell 5,000 nodes of one change, by how many tasks there are: until it
//! is decided what each is sent, one node's message, an acknowledgement.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints, or fails")]

use manager::Uptime;
use manager::dispatch::{Command, Dispatcher, Now, Output, SessionId};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use store::{Tx, View};
use types::{
    Attachment, Cluster, DesiredState, Network, NetworkAttachment, NetworkId, Node, NodeId,
    NodeState, PublishedPort, Service, ServiceId, Task, TaskId, TaskState, Timestamp, Version, Vip,
};
use wire::SessionMessage;

const NODES: u32 = 5_000;
/// Each has a network of its own; every tenth publishes a port, so that all nodes know its tasks.
const TASKS_OF_A_SERVICE: u32 = 20;
const ROUNDS: u32 = 21;

fn main() {
    println!("{NODES} nodes with sessions, medians of {ROUNDS} changes");
    for tasks in [1_000, 10_000, 100_000] {
        let mut stage = Stage::new(tasks);
        println!("{tasks} tasks");
        println!("  a session opens, everything sent: {:?}", stage.open_all());
        // A service that only those on its network know, and one that every node carries.
        for (what, service) in [("on one network", 3), ("in the routing mesh", 10)] {
            let rounds = (0..ROUNDS).map(|round| {
                let service = service + 20 * (round / TASKS_OF_A_SERVICE);
                stage.stop(service * TASKS_OF_A_SERVICE + round % TASKS_OF_A_SERVICE)
            });
            let rounds: Vec<Round> = rounds.collect();
            let median = |figure: fn(&Round) -> Duration| {
                let mut all: Vec<Duration> = rounds.iter().map(figure).collect();
                all.sort();
                all[all.len() / 2]
            };
            let (messages, decided) = (rounds[0].messages, median(|it| it.decided));
            println!("  a task {what} stops: decided for {messages} nodes in {decided:?}");
            let (bytes, pushed) = (rounds[0].bytes, median(|it| it.pushed));
            println!("    for one node: {bytes} bytes, decided and encoded in {pushed:?}");
            println!("    an acknowledgement: {:?}", median(|it| it.acknowledged));
        }
    }
}

/// What one change has cost.
struct Round {
    decided: Duration,
    messages: u32,
    /// Of one message, and all that was done for it.
    bytes: usize,
    pushed: Duration,
    acknowledged: Duration,
}

struct Stage {
    view: View,
    dispatcher: Dispatcher,
    uptime: Duration,
    /// What each node has acknowledged is what it was sent, by number.
    versions: Vec<u64>,
}

impl Stage {
    fn new(tasks: u32) -> Self {
        let view = view(tasks);
        let uptime = Duration::from_secs(1000);
        let dispatcher = Dispatcher::new(View::default(), at(uptime));
        Self { view, dispatcher, uptime, versions: vec![1; usize::try_from(NODES).unwrap()] }
    }

    fn handle(&mut self, command: Command) -> Vec<Output> {
        self.dispatcher.handle(command, at(self.uptime))
    }

    /// What one session costs.
    fn open_all(&mut self) -> Duration {
        self.handle(Command::View(self.view.clone().into()));
        let start = now();
        for number in 0..NODES {
            self.handle(Command::Open { node: node(number), session: session(number) });
        }
        let taken = start.elapsed();
        for number in 0..NODES {
            self.acknowledge(number);
        }
        taken / NODES
    }

    fn acknowledge(&mut self, number: u32) -> Vec<Output> {
        let version = self.versions[usize::try_from(number).unwrap()];
        self.handle(Command::Acknowledge { node: node(number), session: session(number), version })
    }

    /// A task is to be stopped; it ends once all have acknowledged that.
    fn stop(&mut self, number: u32) -> Round {
        self.change(|tx| tx.edit_task(&task(number), |it| it.desired = DesiredState::Shutdown));
        let start = now();
        let outputs = self.handle(Command::View(self.view.clone().into()));
        let decided = start.elapsed();
        let told = self.told(&outputs);
        let messages = u32::try_from(told.len()).unwrap();
        let start = now();
        let bytes = wire::encode(&told.last().unwrap().1).unwrap().len();
        let pushed = decided / messages + start.elapsed();
        let start = now();
        for (node, _) in &told {
            let outputs = self.acknowledge(*node);
            self.told(&outputs);
        }
        let acknowledged = start.elapsed() / messages;
        let ended = |it: &mut Task| it.status.state = TaskState::Shutdown;
        self.change(|tx| tx.edit_task(&task(number), ended));
        let outputs = self.handle(Command::View(self.view.clone().into()));
        for (node, _) in self.told(&outputs) {
            self.acknowledge(node);
        }
        Round { decided, messages, bytes, pushed, acknowledged }
    }

    fn change(&mut self, change: impl FnOnce(&mut Tx)) {
        self.uptime += Duration::from_secs(1);
        let mut tx = Tx::new(&self.view);
        change(&mut tx);
        self.view.apply(&tx.finish(), Version(self.view.version().0 + 1), Timestamp(1));
    }

    /// Takes note of who was sent what.
    fn told(&mut self, outputs: &[Output]) -> Vec<(u32, SessionMessage)> {
        let mut told = Vec::new();
        for output in outputs {
            if let Output::Send { node, message, .. } = output
                && let SessionMessage::Difference(difference) = message
            {
                let number: u32 = node.as_str()[5..].parse().unwrap();
                self.versions[usize::try_from(number).unwrap()] = difference.version;
                told.push((number, message.clone()));
            }
        }
        told
    }
}

fn at(uptime: Duration) -> Now {
    Now { uptime: Uptime(uptime), time: Timestamp(1), day: Timestamp(1) }
}

fn session(number: u32) -> SessionId {
    SessionId::from(format!("session-{number}"))
}

/// Ids have 25 characters, as those that are drawn.
fn node(number: u32) -> NodeId {
    format!("node-{number:020}").into()
}

fn task(number: u32) -> TaskId {
    // Neighbours in a service are none in order.
    format!("{:09}-task-{number:010}", number.wrapping_mul(2_654_435_761) % 1_000_000_000).into()
}

fn service(number: u32) -> ServiceId {
    format!("service-{number:017}").into()
}

fn network(number: u32) -> NetworkId {
    format!("network-{number:017}").into()
}

fn address(first: u8, number: u32) -> Ipv4Addr {
    let [_, b, c, d] = number.to_be_bytes();
    [first, b, c, d].into()
}

fn view(tasks: u32) -> View {
    let mut tx = Tx::new(&View::default());
    tx.put_cluster(Cluster { id: "c".into(), ..Cluster::default() });
    for number in 0..NODES {
        let mut it = Node { id: node(number), ..Node::default() };
        it.status.state = NodeState::Ready;
        it.status.address = address(11, number).into();
        it.ingress_addresses = address(12, number).into();
        tx.put_node(it);
    }
    for number in 0..tasks / TASKS_OF_A_SERVICE {
        tx.put_network(Network { id: network(number), vni: number, ..Network::default() });
        let mut it = Service { id: service(number), ..Service::default() };
        it.spec.name = format!("service-{number}");
        it.spec.task.networks =
            vec![NetworkAttachment { target: network(number), aliases: Vec::new() }];
        it.vips = vec![Vip { network: network(number), addresses: address(13, number).into() }];
        if number.is_multiple_of(10) {
            let published = u16::try_from(number % 50_000 + 1).unwrap();
            it.ports = vec![PublishedPort { published, target: 80, ..PublishedPort::default() }];
        }
        tx.put_service(it);
    }
    for number in 0..tasks {
        let group = number / TASKS_OF_A_SERVICE;
        let mut it = Task { id: task(number), service: service(group), ..Task::default() };
        it.service_name = format!("service-{group}");
        it.slot = u64::from(number % TASKS_OF_A_SERVICE + 1);
        it.node = Some(node(number % NODES));
        it.status.state = TaskState::Running;
        let (network, addresses) = (network(group), address(14, number).into());
        it.attachments = vec![Attachment { network, addresses, aliases: Vec::new() }];
        if group.is_multiple_of(10) {
            it.ingress_addresses = address(15, number).into();
        }
        tx.put_task(it);
    }
    let mut view = View::default();
    view.apply(&tx.finish(), Version(1), Timestamp(1));
    view
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}
