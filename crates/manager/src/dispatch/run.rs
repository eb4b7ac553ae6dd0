//! The loop around the dispatcher: it has the channels, the clocks and the connections, and decides
//! nothing. Nothing in it waits for a node or for the disk.

use super::command::{Command, LogOutput, Now, Output, SessionId};
use super::dispatcher::Dispatcher;
use super::observation::Observation;
use super::stream::Sink;
use crate::clock::{self, Uptime};
use crate::logs::{Clients, LogSink, Sinks};
use raft::Sequencer;
use std::collections::{BTreeMap, VecDeque};
use store::View;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use types::{Fault, NodeId, Version};
use wire::{HeartbeatReply, LogOptions, LogSelector, SessionMessage};

/// What RPC handlers and the API ask of the loop.
#[derive(Debug)]
pub(crate) enum Ask {
    /// What needs no answer.
    Tell(Command),
    Open {
        node: NodeId,
        session: SessionId,
        sink: Sink,
    },
    Heartbeat {
        node: NodeId,
        session: SessionId,
        reply: Reply,
    },
    Subscribe {
        selector: LogSelector,
        options: LogOptions,
        sink: LogSink,
    },
}

type Reply = oneshot::Sender<Result<HeartbeatReply, Fault>>;

/// Why the loop ended by itself.
#[derive(Debug, thiserror::Error)]
#[error("the log has ended")]
pub(crate) struct Ended;

/// The stream of a node's session.
#[derive(Debug)]
struct Stream {
    session: SessionId,
    sink: Sink,
}

pub(crate) struct Loop {
    dispatcher: Dispatcher,
    sequencer: Sequencer,
    views: watch::Receiver<View>,
    streams: BTreeMap<NodeId, Stream>,
    clients: Clients,
    parts: Sinks,
    /// Whoever waits for the answer to the heartbeat that is being handled.
    reply: Option<Reply>,
    writes: JoinSet<Result<Version, Fault>>,
}

impl Loop {
    pub(crate) fn new(sequencer: Sequencer, parts: Sinks) -> Self {
        let mut views = sequencer.watch();
        let view = views.borrow_and_update().clone();
        Self {
            dispatcher: Dispatcher::new(view, now(&sequencer)),
            views,
            sequencer,
            streams: BTreeMap::new(),
            clients: Clients::default(),
            parts,
            reply: None,
            writes: JoinSet::new(),
        }
    }

    pub(crate) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Ask>,
        token: CancellationToken,
    ) -> Result<(), Ended> {
        loop {
            let pause = self.dispatcher.wake().since(Uptime::now());
            if pause.is_zero() {
                // Before anything else, whatever nodes send.
                self.tick();
                continue;
            }
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                Some(request) = inbox.recv() => self.take(request),
                changed = self.views.changed() => {
                    if changed.is_err() {
                        return if token.is_cancelled() { Ok(()) } else { Err(Ended) };
                    }
                    self.view();
                }
                () = tokio::time::sleep(pause) => {}
                Some(written) = self.writes.join_next() => {
                    note(written);
                    self.handle(Command::Written);
                }
            }
        }
    }

    fn tick(&mut self) {
        if self.views.has_changed().unwrap_or(false) {
            self.view();
        }
        let gone = self.streams.extract_if(.., |_, stream| stream.sink.is_closed());
        let closed = gone.map(|(node, Stream { session, .. })| Command::Closed { node, session });
        let gone = self.clients.gone().into_iter();
        let unsubscribed = gone.map(|subscription| Command::Unsubscribe { subscription });
        let broken = self.parts.broken().into_iter().map(|part| Command::LogsBroken { part });
        for command in closed.chain(unsubscribed).chain(broken).collect::<Vec<_>>() {
            self.handle(command);
        }
        self.handle(Command::Tick);
    }

    /// Hands in the newest view; those between are skipped.
    fn view(&mut self) {
        let view = self.views.borrow_and_update().clone();
        self.handle(Command::View(view.into()));
    }

    fn take(&mut self, request: Ask) {
        match request {
            Ask::Tell(command) => self.handle(command),
            Ask::Open { node, session, sink } => {
                // The node's registration must be in the view.
                self.view();
                self.streams.insert(node.clone(), Stream { session: session.clone(), sink });
                self.handle(Command::Open { node, session });
            }
            Ask::Heartbeat { node, session, reply } => {
                self.check_stream(&node);
                self.reply = Some(reply);
                self.handle(Command::Heartbeat { node, session });
            }
            Ask::Subscribe { selector, options, sink } => {
                let subscription = self.clients.add(sink);
                self.handle(Command::Subscribe { subscription, selector, options });
            }
        }
    }

    /// A heartbeat does not count for a stream that has gone.
    fn check_stream(&mut self, node: &NodeId) {
        if self.streams.get(node).is_some_and(|stream| stream.sink.is_closed())
            && let Some(Stream { session, .. }) = self.streams.remove(node)
        {
            self.handle(Command::Closed { node: node.clone(), session });
        }
    }

    fn handle(&mut self, command: Command) {
        let mut commands = VecDeque::from([command]);
        while let Some(command) = commands.pop_front() {
            for output in self.dispatcher.handle(command, now(&self.sequencer)) {
                commands.extend(self.carry_out(output));
            }
        }
    }

    /// Does what the dispatcher wants; says what it has to know of that.
    fn carry_out(&mut self, output: Output) -> Option<Command> {
        match output {
            Output::Send { node, session, message } => return self.send(node, session, message),
            Output::Close { node, session } => {
                if self.stream(&node, &session).is_some() {
                    self.streams.remove(&node);
                }
            }
            Output::Beat { reply: answer, .. } => {
                if let Some(reply) = self.reply.take() {
                    // The node may have gone meanwhile.
                    drop(reply.send(answer));
                }
            }
            Output::Write(observation) => self.write(observation),
            Output::Logs(output) => self.carry_out_logs(output),
        }
        None
    }

    fn carry_out_logs(&mut self, output: LogOutput) {
        match output {
            LogOutput::Expect { part, subscription, node, tasks } => {
                if let Some(sink) = self.clients.sink(subscription) {
                    self.parts.expect(part, (node, tasks), sink.clone());
                }
            }
            LogOutput::Forget { part } => self.parts.forget(&part),
            LogOutput::Missing { subscription, fault } => self.clients.tell(subscription, fault),
            LogOutput::Over { subscription } => self.clients.remove(subscription),
        }
    }

    fn stream(&self, node: &NodeId, session: &SessionId) -> Option<&Stream> {
        self.streams.get(node).filter(|stream| stream.session == *session)
    }

    fn send(
        &mut self,
        node: NodeId,
        session: SessionId,
        message: SessionMessage,
    ) -> Option<Command> {
        if self.stream(&node, &session)?.sink.put(message) {
            return None;
        }
        tracing::warn!(%node, "node is too slow or gone, its session ends");
        self.streams.remove(&node);
        Some(Command::Closed { node, session })
    }

    fn write(&mut self, observation: Observation) {
        let sequencer = self.sequencer.clone();
        self.writes.spawn(async move {
            let decide = move |view: &View, now| Ok(observation.changes(view, now));
            sequencer.sequence_own(decide).await
        });
    }
}

fn now(sequencer: &Sequencer) -> Now {
    Now { uptime: Uptime::now(), time: sequencer.now(), day: clock::now() }
}

fn note(written: Result<Result<Version, Fault>, tokio::task::JoinError>) {
    match written {
        Ok(Ok(_)) => {}
        Ok(Err(fault)) => tracing::warn!(%fault, "cannot write which nodes are lost"),
        Err(error) => tracing::error!(%error, "writing which nodes are lost panicked"),
    }
}
