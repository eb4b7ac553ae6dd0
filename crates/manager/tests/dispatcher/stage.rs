//! A store, a dispatcher and nodes that do what a test says. The nodes hold the dispatcher to what a
//! session is: it begins with `Welcome` and `Whole`, and every difference fits what came before.

use manager::Uptime;
use manager::dispatch::{
    Command, Dispatcher, LogOutput, Now, Observation, Output, SessionId, report,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use store::{Changes, Tx, View};
use types::{
    Attachment, Cluster, DesiredState, Fault, Network, Node, NodeDescription, NodeId, Task, TaskId,
    TaskState, Timestamp, Version,
};
use wire::{Assignments, Difference, LogRequest, SessionMessage, SessionRequest};

/// The cluster's heartbeat period here.
pub(crate) const PERIOD: Duration = Duration::from_secs(4);
/// More than the pause between two refreshes.
pub(crate) const MOMENT: Duration = Duration::from_millis(20);

/// A node as it sees itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) session: Option<SessionId>,
    began: bool,
    /// What it was sent.
    pub(crate) has: Assignments,
    /// What it has acknowledged, in whatever session: its kernel goes on with it.
    pub(crate) applied: Assignments,
    /// It has done so in this session.
    pub(crate) has_applied: bool,
    /// Messages with assignments in this session, and versions that were not acknowledged.
    pub(crate) messages: usize,
    unacknowledged: Vec<(u64, Assignments)>,
    pub(crate) logs: Vec<LogRequest>,
    pub(crate) logs_done: Vec<String>,
    /// Tasks that became withdrawn with the last messages.
    pub(crate) withdrawn: BTreeSet<TaskId>,
}

pub(crate) struct Stage {
    pub(crate) view: View,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) now: Now,
    pub(crate) nodes: BTreeMap<NodeId, Seen>,
    /// Observations that were not written yet.
    pub(crate) unwritten: Vec<Observation>,
    /// They are written at once.
    pub(crate) writes: bool,
    pub(crate) logs: Vec<LogOutput>,
    pub(crate) sessions: u64,
    /// Tasks that were removed.
    pub(crate) forgotten: BTreeSet<TaskId>,
}

impl Seen {
    fn receive(&mut self, message: SessionMessage) {
        match message {
            SessionMessage::Welcome(_) => assert!(!self.began, "a second welcome"),
            SessionMessage::Whole(whole) => {
                assert!(self.began && self.messages == 0, "not the second message");
                self.take(whole);
            }
            SessionMessage::Difference(difference) => {
                assert!(self.messages > 0, "a difference to nothing");
                let has = with(self.has.clone(), difference);
                self.take(has);
            }
            SessionMessage::Logs(request) => self.logs.push(request),
            SessionMessage::LogsDone(name) => self.logs_done.push(name),
        }
        self.began = true;
    }

    fn take(&mut self, has: Assignments) {
        let new = has.withdrawn.iter().filter(|task| !self.has.withdrawn.contains(*task));
        self.withdrawn.extend(new.cloned());
        self.messages += 1;
        self.unacknowledged.push((has.version, has.clone()));
        self.has = has;
    }

    pub(crate) fn behind(&self) -> usize {
        self.unacknowledged.len()
    }
}

/// What a node has once it has applied a difference.
fn with(mut has: Assignments, difference: Difference) -> Assignments {
    assert_eq!(difference.from, has.version, "a difference to something else");
    assert!(difference.version > has.version, "versions only rise");
    difference.apply(&mut has);
    has
}

impl Stage {
    /// A cluster without nodes.
    pub(crate) fn new() -> Self {
        let now = Now {
            uptime: Uptime(Duration::from_secs(1000)),
            time: Timestamp(0).after(Duration::from_secs(1_000_000)),
            day: Timestamp(0).after(Duration::from_secs(1_000_000)),
        };
        let view = View::default();
        let mut stage = Self {
            dispatcher: Dispatcher::new(view.clone(), now),
            view,
            now,
            nodes: BTreeMap::new(),
            unwritten: Vec::new(),
            writes: true,
            logs: Vec::new(),
            sessions: 0,
            forgotten: BTreeSet::new(),
        };
        stage.change(|tx| {
            let mut cluster = Cluster { id: "c".into(), ..Cluster::default() };
            cluster.spec.heartbeat = PERIOD;
            tx.put_cluster(cluster);
            for name in ["front", "back"] {
                tx.put_network(Network { id: name.into(), vni: 4097, ..Network::default() });
            }
        });
        stage
    }

    /// With nodes that have applied what they should have.
    pub(crate) fn with_nodes(nodes: &[&str]) -> Self {
        let mut stage = Self::new();
        for node in nodes {
            stage.open(node);
        }
        stage.settle();
        stage
    }

    /// The manager starts anew: it forgets everything that is not stored.
    pub(crate) fn restart(&mut self) {
        self.dispatcher = Dispatcher::new(self.view.clone(), self.now);
        self.unwritten.clear();
        for node in self.nodes.values_mut() {
            node.session = None;
        }
    }

    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Tx)) {
        let mut tx = Tx::new(&self.view);
        change(&mut tx);
        self.apply(&tx.finish());
    }

    /// What the log would do: an entry, even where it changes nothing.
    fn apply(&mut self, changes: &Changes) {
        let version = Version(self.view.version().0 + 1);
        self.view.apply(changes, version, self.now.time);
        self.handle(Command::View(self.view.clone().into()));
    }

    pub(crate) fn handle(&mut self, command: Command) {
        let outputs = self.dispatcher.handle(command, self.now);
        for output in outputs {
            match output {
                Output::Send { node, session, message } => {
                    let node = self.nodes.get_mut(&node).unwrap();
                    assert_eq!(node.session, Some(session), "to a session that is over");
                    node.receive(message);
                }
                Output::Close { node, session } => {
                    let node = self.nodes.get_mut(&node).unwrap();
                    node.session.take_if(|it| *it == session);
                }
                Output::Write(observation) => self.unwritten.push(observation),
                Output::Beat { .. } => panic!("an answer without a heartbeat"),
                Output::Logs(output) => self.logs.push(output),
            }
        }
        if self.writes {
            self.write();
        }
    }

    /// Writes what was observed.
    pub(crate) fn write(&mut self) {
        for observation in std::mem::take(&mut self.unwritten) {
            let changes = observation.changes(&self.view, self.now.time);
            self.apply(&changes);
            self.handle(Command::Written);
        }
    }

    /// Registers a node and opens a session, which takes the place of an older one.
    pub(crate) fn open(&mut self, id: &str) -> SessionId {
        self.nodes.entry(id.into()).or_default();
        if self.view.node(&id.into()).is_none() {
            let number = u8::try_from(self.nodes.len()).unwrap();
            let ingress_addresses = [10, 255, 0, number].into();
            self.change(|tx| {
                tx.put_node(Node { id: id.into(), ingress_addresses, ..Node::default() });
            });
        }
        self.handle(Command::Attempt { node: id.into() });
        let number = id.bytes().last().unwrap_or_default();
        let request = SessionRequest {
            release: wire::Release::own(),
            description: NodeDescription::default(),
            address: [192, 168, 0, number].into(),
            data_path_address: None,
            leaving: false,
        };
        if let Ok(changes) = report::registered(&self.view, &id.into(), &request, self.now.time)
            && !changes.is_empty()
        {
            self.apply(&changes);
        }
        self.sessions += 1;
        let session = SessionId::from(format!("session-{}", self.sessions));
        let node = self.nodes.get_mut(&id.into()).unwrap();
        node.session = Some(session.clone());
        (node.began, node.messages, node.has_applied) = (false, 0, false);
        node.unacknowledged.clear();
        node.has = Assignments::default();
        self.handle(Command::Open { node: id.into(), session: session.clone() });
        session
    }

    /// The node's stream has gone, or is full.
    pub(crate) fn close(&mut self, id: &str) {
        if let Some(session) = self.node_mut(id).session.take() {
            self.handle(Command::Closed { node: id.into(), session });
        }
    }

    /// Acknowledges the first `count` versions that were not.
    pub(crate) fn acknowledge_some(&mut self, id: &str, count: usize) {
        let node = self.node_mut(id);
        let count = count.min(node.unacknowledged.len());
        let last = node.unacknowledged.drain(..count).next_back();
        if let (Some((version, applied)), Some(session)) = (last, node.session.clone()) {
            (node.applied, node.has_applied) = (applied, true);
            self.handle(Command::Acknowledge { node: id.into(), session, version });
        }
    }

    /// Acknowledges all that there is by now.
    pub(crate) fn acknowledge(&mut self, id: &str) {
        self.acknowledge_some(id, usize::MAX);
    }

    pub(crate) fn beat(&mut self, id: &str) -> Result<Duration, Fault> {
        let session = self.node(id).session.clone();
        self.beat_on(id, &session.unwrap_or_else(|| SessionId::from("none")))
    }

    pub(crate) fn beat_on(&mut self, id: &str, session: &SessionId) -> Result<Duration, Fault> {
        let command = Command::Heartbeat { node: id.into(), session: session.clone() };
        let outputs = self.dispatcher.handle(command, self.now);
        match <[Output; 1]>::try_from(outputs).unwrap() {
            [Output::Beat { reply, .. }] => {
                reply.map(|reply| Duration::from_millis(reply.next_millis))
            }
            [other] => panic!("no answer: {other:?}"),
        }
    }

    /// Lets time pass, with a tick whenever one is due.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now.uptime.after(time);
        loop {
            let next = self.dispatcher.wake().max(self.now.uptime).min(end);
            let step = next.since(self.now.uptime);
            self.now.uptime = next;
            self.now.time = self.now.time.after(step);
            self.now.day = self.now.day.after(step);
            if self.dispatcher.wake() > next {
                return;
            }
            self.handle(Command::Tick);
        }
    }

    /// Lets time pass in which all nodes with a session say that they are there.
    pub(crate) fn pass_with_beats(&mut self, time: Duration) {
        let steps = u32::try_from(time.as_millis() / 500).unwrap();
        for _ in 0..steps {
            let nodes = self.nodes.iter().filter(|(_, node)| node.session.is_some());
            for id in nodes.map(|(id, _)| id.to_string()).collect::<Vec<_>>() {
                drop(self.beat(&id));
            }
            self.pass(Duration::from_millis(500));
        }
    }

    /// All nodes acknowledge until there is nothing new.
    pub(crate) fn settle(&mut self) {
        loop {
            self.pass_with_beats(PERIOD);
            let behind = self.nodes.iter().filter(|(_, node)| node.behind() > 0);
            let behind: Vec<String> = behind.map(|(id, _)| id.to_string()).collect();
            if behind.is_empty() {
                return;
            }
            for id in behind {
                self.acknowledge(&id);
            }
        }
    }

    pub(crate) fn node(&self, id: &str) -> &Seen {
        &self.nodes[&id.into()]
    }

    fn node_mut(&mut self, id: &str) -> &mut Seen {
        self.nodes.get_mut(&id.into()).unwrap()
    }

    pub(crate) fn task(&self, id: &str) -> &Task {
        self.view.task(&id.into()).unwrap()
    }

    /// A running task on the network `front`, in the mesh or not.
    pub(crate) fn run(&mut self, id: &str, node: &str, in_mesh: bool) {
        let number = u8::try_from(self.view.tasks().len()).unwrap() + 2;
        let mut task = Task { id: id.into(), node: Some(node.into()), ..Task::default() };
        task.status.state = TaskState::Running;
        task.attachments = vec![Attachment {
            network: "front".into(),
            addresses: [10, 0, 1, number].into(),
            aliases: Vec::new(),
        }];
        task.ingress_addresses =
            if in_mesh { [10, 255, 1, number].into() } else { types::Addresses::default() };
        self.change(|tx| tx.put_task(task));
        self.pass(MOMENT);
    }

    pub(crate) fn stop(&mut self, id: &str) {
        self.change(|tx| tx.edit_task(&id.into(), |task| task.desired = DesiredState::Shutdown));
    }

    pub(crate) fn is_withdrawn(&self, id: &str) -> bool {
        let node = self.task(id).node.clone().unwrap();
        self.nodes[&node].has.withdrawn.contains(&id.into())
    }
}
