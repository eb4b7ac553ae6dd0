//! Logs of tasks, gathered from the nodes that hold them.
//!
//! A subscription is split into parts, one for each node and time that tasks turn up. Lines go
//! from the RPC handler straight to the client, so that a client that does not read holds up only
//! its own nodes' log calls.

use crate::clock::RandomIds;
use crate::dispatch::Command;
use crate::dispatch::sessions::Sessions;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use store::View;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use types::{Fault, IdSource, NodeId, ServiceId, Task, TaskId};
use wire::{LogLine, LogOptions, LogRequest, SessionMessage};

/// Lines that wait for the client. A node is held up when it is full.
const QUEUE: usize = 256;
/// Subscriptions at a time.
const SUBSCRIPTIONS: usize = 512;

/// Whose logs are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogSelector {
    Task(TaskId),
    /// All tasks of a service, also those that come later.
    Service(ServiceId),
}

/// Lines as they come, in order for each task. A fault says that a node's part is missing; the
/// stream goes on.
pub type LogStream = ReceiverStream<Result<LogLine, Fault>>;

/// Where lines go.
type Sink = mpsc::Sender<Result<LogLine, Fault>>;

/// Someone who wants logs.
#[derive(Debug)]
pub(crate) struct Subscription {
    selector: LogSelector,
    options: LogOptions,
    sink: Sink,
}

pub(crate) async fn subscribe(
    commands: &mpsc::Sender<Command>,
    selector: LogSelector,
    options: LogOptions,
) -> Result<LogStream, Fault> {
    let (sink, lines) = mpsc::channel(QUEUE);
    let subscription = Subscription { selector, options, sink };
    commands
        .send(Command::Subscribe(subscription))
        .await
        .map_err(|_closed| Fault::unavailable("this manager is stopping"))?;
    Ok(ReceiverStream::new(lines))
}

/// What a node was asked for: where it goes, and what it may send.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) node: NodeId,
    pub(crate) tasks: BTreeSet<TaskId>,
    pub(crate) sink: Sink,
    /// The node's call broke off before its end.
    broken: bool,
}

/// The parts that nodes may send to, shared between the loop and the RPC handlers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sinks(Arc<Mutex<BTreeMap<String, Part>>>);

impl Sinks {
    /// The part of this name, if it is this node's.
    pub(crate) fn part(&self, name: &str, node: &NodeId) -> Option<Part> {
        self.with(|parts| parts.get(name).filter(|part| part.node == *node).cloned())
    }

    fn with<R>(&self, run: impl FnOnce(&mut BTreeMap<String, Part>) -> R) -> R {
        run(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A part that is being read from its node's call; dropped before its end, it is broken.
#[derive(Debug)]
pub(crate) struct Reading {
    sinks: Sinks,
    name: String,
    node: NodeId,
    ended: bool,
}

impl Reading {
    pub(crate) fn new(sinks: &Sinks, name: &str, node: &NodeId) -> Self {
        Self { sinks: sinks.clone(), name: name.to_owned(), node: node.clone(), ended: false }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn end(mut self) -> String {
        self.ended = true;
        self.name.clone()
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.sinks.with(|parts| {
            if let Some(part) = parts.get_mut(&self.name).filter(|part| part.node == self.node) {
                part.broken = true;
            }
        });
    }
}

/// A subscription that is being served.
#[derive(Debug)]
struct Served {
    subscription: Subscription,
    /// Tasks that were asked for.
    asked: BTreeSet<TaskId>,
    /// Parts that have not ended, and the session each was sent on.
    parts: BTreeMap<String, (NodeId, String)>,
    /// Nodes whose absence was told.
    told: BTreeSet<NodeId>,
}

#[derive(Debug)]
pub(crate) struct Subscriptions {
    sinks: Sinks,
    served: Vec<Served>,
}

impl Subscriptions {
    pub(crate) fn new(sinks: Sinks) -> Self {
        Self { sinks, served: Vec::new() }
    }

    pub(crate) fn add(&mut self, subscription: Subscription, view: &View, sessions: &mut Sessions) {
        if self.served.len() >= SUBSCRIPTIONS {
            let fault = Fault::unavailable("too many logs are being followed on this manager");
            // The channel is new, so there is room; the client may have gone already.
            drop(subscription.sink.try_send(Err(fault)));
            return;
        }
        let (asked, parts, told) = Default::default();
        self.served.push(Served { subscription, asked, parts, told });
        self.refresh(view, sessions);
    }

    /// Asks nodes for tasks that were not asked for yet; ends what is over.
    pub(crate) fn refresh(&mut self, view: &View, sessions: &mut Sessions) {
        for served in &mut self.served {
            served.lose_parts(&self.sinks, sessions);
            if !served.subscription.sink.is_closed() {
                served.ask(view, sessions, &self.sinks);
            }
        }
        let over = |served: &Served| {
            let follows = served.subscription.options.follow;
            served.subscription.sink.is_closed() || (!follows && served.parts.is_empty())
        };
        for served in self.served.extract_if(.., |served| over(served)) {
            for (name, (node, _)) in served.parts {
                self.sinks.with(|parts| parts.remove(&name));
                if sessions.has(&node) {
                    sessions.send(&node, SessionMessage::LogsDone(name));
                }
            }
        }
    }

    /// A node has no more for a part.
    pub(crate) fn ended(&mut self, part: &str) {
        self.sinks.with(|parts| parts.remove(part));
        for served in &mut self.served {
            served.parts.remove(part);
        }
        // The next refresh ends those that have nothing left; a client should not wait for it.
        self.served.retain(|served| served.subscription.options.follow || !served.parts.is_empty());
    }
}

impl Served {
    /// Parts of sessions that are over will not come, nor will the rest of those whose call broke
    /// off. What follows is asked for again.
    fn lose_parts(&mut self, sinks: &Sinks, sessions: &Sessions) {
        let broken =
            |name: &str| sinks.with(|parts| parts.get(name).is_some_and(|part| part.broken));
        let lost = self.parts.extract_if(.., |name, (node, session)| {
            sessions.session_of(node) != Some(session.as_str()) || broken(name)
        });
        for (name, (node, _)) in lost {
            let part = sinks.with(|parts| parts.remove(&name));
            if self.subscription.options.follow {
                for task in part.into_iter().flat_map(|part| part.tasks) {
                    self.asked.remove(&task);
                }
                self.subscription.options.since =
                    self.subscription.options.since.max(Some(crate::clock::now()));
            } else {
                tell_absence(&self.subscription.sink, &node);
            }
        }
    }

    fn ask(&mut self, view: &View, sessions: &mut Sessions, sinks: &Sinks) {
        let mut wanted: BTreeMap<NodeId, BTreeSet<TaskId>> = BTreeMap::new();
        for task in self.selected(view) {
            if let Some(node) = task.node.clone().filter(|_| !self.asked.contains(&task.id)) {
                wanted.entry(node).or_default().insert(task.id.clone());
            }
        }
        for (node, tasks) in wanted {
            let Some(session) = sessions.session_of(&node).map(str::to_owned) else {
                if self.told.insert(node.clone()) {
                    tell_absence(&self.subscription.sink, &node);
                }
                continue;
            };
            self.told.remove(&node);
            let name = format!("{:032x}", RandomIds.next_bits());
            let sink = self.subscription.sink.clone();
            let part = Part { node: node.clone(), tasks: tasks.clone(), sink, broken: false };
            sinks.with(|parts| parts.insert(name.clone(), part));
            self.asked.extend(tasks.iter().cloned());
            let options = self.subscription.options.clone();
            let request = LogRequest { subscription: name.clone(), tasks, options };
            self.parts.insert(name, (node.clone(), session));
            sessions.send(&node, SessionMessage::Logs(request));
        }
    }

    /// The tasks that have, or had, a container.
    fn selected<'a>(&self, view: &'a View) -> Vec<&'a Task> {
        let tasks: Vec<&Task> = match &self.subscription.selector {
            LogSelector::Task(id) => view.task(id).into_iter().map(AsRef::as_ref).collect(),
            LogSelector::Service(id) => view.tasks_of_service(id).map(AsRef::as_ref).collect(),
        };
        let with_container = |task: &&Task| {
            task.status.container.as_ref().is_some_and(|container| !container.id.is_empty())
        };
        tasks.into_iter().filter(with_container).collect()
    }
}

fn tell_absence(sink: &Sink, node: &NodeId) {
    let fault = Fault::unavailable(format!(
        "warning: incomplete log stream. some logs could not be retrieved for the following \
         reasons: node {node} is not available"
    ));
    // Whoever does not read has lines enough before it.
    drop(sink.try_send(Err(fault)));
}

/// Keeps of a chunk what the part may carry.
pub(crate) fn admitted(part: &Part, lines: Vec<LogLine>) -> impl Iterator<Item = LogLine> {
    let lines = lines.into_iter().filter(|line| part.tasks.contains(&line.task));
    lines.map(|line| LogLine { node: part.node.clone(), ..line })
}
