//! Lines of logs on their way from nodes to clients.
//!
//! They go from the RPC handler straight to the client, so that a client that does not read holds up
//! only its own nodes' log calls. Who is asked for what is decided in `dispatch`.

use crate::dispatch::{Ask, SubscriptionId};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use types::{Fault, NodeId, TaskId};
use wire::{LogLine, LogOptions, LogSelector};

/// Lines that wait for the client. A node is held up when it is full.
const QUEUE: usize = 256;

/// Lines as they come, in order for each task. A fault says that a node's part is missing; the
/// stream goes on.
pub type LogStream = BoxStream<'static, Result<LogLine, Fault>>;

/// Where lines go.
pub(crate) type LogSink = mpsc::Sender<Result<LogLine, Fault>>;

pub(crate) async fn subscribe(
    requests: &mpsc::Sender<Ask>,
    selector: LogSelector,
    options: LogOptions,
) -> Result<LogStream, Fault> {
    let (sink, lines) = mpsc::channel(QUEUE);
    requests
        .send(Ask::Subscribe { selector, options, sink })
        .await
        .map_err(|_closed| Fault::unavailable("this manager is stopping"))?;
    Ok(ReceiverStream::new(lines).boxed())
}

/// What a node may send under one name, and where it goes.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    node: NodeId,
    tasks: BTreeSet<TaskId>,
    pub(crate) sink: LogSink,
    /// The node's call broke off before its end.
    broken: bool,
}

/// The parts that nodes may send to, shared between the loop and the RPC handlers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sinks(Arc<Mutex<BTreeMap<String, Part>>>);

impl Sinks {
    /// The node will send lines of these tasks under this name.
    pub(crate) fn expect(
        &self,
        name: String,
        (node, tasks): (NodeId, BTreeSet<TaskId>),
        sink: LogSink,
    ) {
        let part = Part { node, tasks, sink, broken: false };
        self.with(|parts| parts.insert(name, part));
    }

    pub(crate) fn forget(&self, name: &str) {
        self.with(|parts| parts.remove(name));
    }

    /// The part of this name, if it is this node's.
    pub(crate) fn part(&self, name: &str, node: &NodeId) -> Option<Part> {
        self.with(|parts| parts.get(name).filter(|part| part.node == *node).cloned())
    }

    /// Takes out the parts whose call broke off.
    pub(crate) fn broken(&self) -> Vec<String> {
        self.with(|parts| {
            parts.extract_if(.., |_, part| part.broken).map(|(name, _)| name).collect()
        })
    }

    /// Nobody is asked for any any more.
    pub(crate) fn clear(&self) {
        self.with(BTreeMap::clear);
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

/// Keeps of a chunk what the part may carry.
pub(crate) fn admitted(part: &Part, lines: Vec<LogLine>) -> impl Iterator<Item = LogLine> {
    let lines = lines.into_iter().filter(|line| part.tasks.contains(&line.task));
    lines.map(|line| LogLine { node: part.node.clone(), ..line })
}

/// Those who read logs.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    sinks: BTreeMap<SubscriptionId, LogSink>,
    count: u64,
}

impl Clients {
    pub(crate) fn add(&mut self, sink: LogSink) -> SubscriptionId {
        self.count += 1;
        self.sinks.insert(SubscriptionId(self.count), sink);
        SubscriptionId(self.count)
    }

    pub(crate) fn sink(&self, id: SubscriptionId) -> Option<&LogSink> {
        self.sinks.get(&id)
    }

    /// Tells a client that something is missing. Whoever does not read has lines enough before it.
    pub(crate) fn tell(&self, id: SubscriptionId, fault: Fault) {
        if let Some(sink) = self.sinks.get(&id) {
            drop(sink.try_send(Err(fault)));
        }
    }

    /// Lines that are on their way still arrive.
    pub(crate) fn remove(&mut self, id: SubscriptionId) {
        self.sinks.remove(&id);
    }

    /// Takes out those who have gone.
    pub(crate) fn gone(&mut self) -> Vec<SubscriptionId> {
        self.sinks.extract_if(.., |_, sink| sink.is_closed()).map(|(id, _)| id).collect()
    }
}
