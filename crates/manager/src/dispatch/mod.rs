//! The line to nodes: sessions, signs of life, what they should have, what they report.
//!
//! One loop (here) owns all sessions; the RPC handlers (`rpc`) send it commands and write what
//! nodes report. Nothing in the loop waits for a node or for the disk.

pub(crate) mod limits;
pub(crate) mod report;
mod room;
mod rpc;
pub(crate) mod sessions;

pub(crate) use rpc::authenticated;

use crate::clock::Uptime;
use crate::control::node::{give_up_tasks, has_tasks};
use crate::liveness::{Liveness, Lost};
use crate::logs::{Sinks, Subscription, Subscriptions};
use crate::{Config, Error};
use ca::{Connections, Identity, Peer};
use raft::Sequencer;
use rand::RngExt;
use scope::Scope;
use sessions::{Sessions, Sink};
use std::sync::Arc;
use std::time::Duration;
use store::{Changes, Tx, View};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use types::{Fault, NodeId, NodeState, Timestamp};

/// Commands that wait for the loop. Handlers wait when it is full, and nodes with them.
const COMMANDS: usize = 256;

/// The least time between two refreshes of all sessions while nothing is being withdrawn: a node
/// that reports on many tasks is not worth a message to everybody for each of them.
const REFRESH_PAUSE: Duration = Duration::from_millis(20);
/// Heartbeats after which nobody waits any more for a ready node without a session to stop leading
/// traffic to a task.
const ABSENCE: u32 = 2;
/// For a node that leaves to be answered.
const FAREWELL: Duration = Duration::from_secs(2);

/// Everything that can be asked of the loop.
#[derive(Debug)]
pub(crate) enum Command {
    /// The node wants a session, whether or not it gets one.
    Attempt {
        node: NodeId,
    },
    /// The node is registered and wants its assignments.
    Open {
        node: NodeId,
        session: String,
        sink: Sink,
    },
    Heartbeat {
        node: NodeId,
        session: String,
        reply: oneshot::Sender<Result<Duration, Fault>>,
    },
    Acknowledge {
        node: NodeId,
        session: String,
        version: u64,
    },
    /// The node leaves for good.
    Left {
        node: NodeId,
    },
    Subscribe(Subscription),
    /// A node has no more for this part of a subscription.
    LogsEnded {
        part: String,
    },
}

/// Starts the loop and the server that nodes talk to.
pub(crate) fn start(
    config: Config,
    sequencer: Sequencer,
    (listener, identity): (TcpListener, Arc<Identity>),
    scope: &mut Scope,
) -> Result<mpsc::Sender<Command>, Error> {
    let (commands, inbox) = mpsc::channel(COMMANDS);
    let sinks = Sinks::default();
    let token = scope.token();
    let rpc = rpc::Rpc::new(sequencer.clone(), commands.clone(), sinks.clone());
    let connections = rpc::start(rpc, listener, &identity, scope)?;
    let desk = Desk::new(config, sequencer, sinks, connections);
    scope.spawn("dispatch", desk.run(inbox, token));
    Ok(commands)
}

/// Why the loop ended by itself.
#[derive(Debug, thiserror::Error)]
#[error("the log has ended")]
struct Ended;

/// The loop's state.
struct Desk {
    config: Config,
    sequencer: Sequencer,
    views: watch::Receiver<View>,
    view: View,
    liveness: Liveness,
    sessions: Sessions,
    connections: Connections,
    subscriptions: Subscriptions,
    /// When sessions were told the last time of what changed.
    refreshed: Uptime,
    /// There is something that sessions were not told of.
    stale: bool,
    /// At most one, so that a slow disk does not pile them up.
    writes: JoinSet<Result<types::Version, Fault>>,
}

impl Desk {
    fn new(config: Config, sequencer: Sequencer, sinks: Sinks, connections: Connections) -> Self {
        let views = sequencer.watch();
        let view = views.borrow().clone();
        Self {
            liveness: Liveness::new(heartbeat(&view), Uptime::now(), sequencer.now()),
            sessions: Sessions::default(),
            subscriptions: Subscriptions::new(sinks),
            refreshed: Uptime::now(),
            stale: false,
            writes: JoinSet::new(),
            connections,
            config,
            sequencer,
            views,
            view,
        }
    }

    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Command>,
        token: CancellationToken,
    ) -> Result<(), Ended> {
        let mut tick = ticks(self.liveness.interval());
        loop {
            if tick.period() != self.liveness.interval() {
                tick = ticks(self.liveness.interval());
            }
            let pause = self.pause();
            // In no order: whatever nodes send, ticks come as well.
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                Some(command) = inbox.recv() => self.handle(command),
                changed = self.views.changed() => {
                    if changed.is_err() {
                        return if token.is_cancelled() { Ok(()) } else { Err(Ended) };
                    }
                    self.take();
                    if self.pause().is_zero() {
                        self.see();
                    }
                }
                () = tokio::time::sleep(pause), if self.stale => self.see(),
                Some(written) = self.writes.join_next() => note(written),
                _ = tick.tick() => self.tick(),
            }
        }
    }

    /// Takes the newest view; those between are skipped.
    fn take(&mut self) {
        self.view = self.views.borrow_and_update().clone();
        self.liveness.set_period(heartbeat(&self.view));
        self.stale = true;
    }

    /// How long the next refresh waits.
    fn pause(&self) -> Duration {
        if self.sessions.is_withdrawing() {
            return Duration::ZERO;
        }
        REFRESH_PAUSE.saturating_sub(Uptime::now().since(self.refreshed))
    }

    /// Tells every session what follows for it from the newest view.
    fn see(&mut self) {
        self.take();
        self.stale = false;
        self.refreshed = Uptime::now();
        self.sessions.refresh(&self.view);
        self.subscriptions.refresh(&self.view, &mut self.sessions);
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Attempt { node } => self.liveness.hear(&node, Uptime::now()),
            Command::Open { node, session, sink } => self.open(&node, session, sink),
            Command::Heartbeat { node, session, reply } => {
                let answer = self.heartbeat(&node, &session);
                // The node may have gone meanwhile.
                drop(reply.send(answer));
            }
            Command::Acknowledge { node, session, version } => {
                self.sessions.acknowledged(&node, &session, version);
            }
            Command::Left { node } => self.sessions.close(&node),
            Command::Subscribe(subscription) => {
                self.subscriptions.add(subscription, &self.view, &mut self.sessions);
            }
            Command::LogsEnded { part } => self.subscriptions.ended(&part),
        }
    }

    fn open(&mut self, node: &NodeId, session: String, sink: Sink) {
        // The registration that came before must be in the view.
        self.see();
        if self.view.node(node).is_none_or(|node| node.has_left()) {
            return;
        }
        self.liveness.hear(node, Uptime::now());
        let welcome = wire::Welcome {
            session,
            node: node.clone(),
            heartbeat_millis: millis(self.next_heartbeat()),
            managers: self.config.managers.clone(),
            data_path_port: self.view.cluster().map_or(0, |cluster| cluster.data_path_port),
        };
        self.sessions.open(node, welcome, sink, &self.view);
        self.subscriptions.refresh(&self.view, &mut self.sessions);
    }

    fn heartbeat(&mut self, node: &NodeId, session: &str) -> Result<Duration, Fault> {
        if !self.sessions.is_open(node, session) {
            return Err(Fault::not_found(format!("session {session} is over: open another")));
        }
        self.liveness.hear(node, Uptime::now());
        Ok(self.next_heartbeat())
    }

    /// A little early and never all nodes at once.
    fn next_heartbeat(&self) -> Duration {
        heartbeat(&self.view).mul_f64(rand::rng().random_range(0.8..1.0))
    }

    fn tick(&mut self) {
        for node in self.sessions.prune() {
            tracing::info!(%node, "session ended");
        }
        self.take();
        self.part();
        let absence = self.liveness.period() * ABSENCE;
        self.sessions.catch_up(Uptime::now(), absence);
        self.subscriptions.refresh(&self.view, &mut self.sessions);
        let mut lost = self.liveness.check(&self.view, Uptime::now(), self.sequencer.now());
        for node in &lost.down {
            // If it is there after all, it opens another one.
            self.sessions.close(node);
        }
        lost.back.retain(|id| self.sessions.has(id));
        lost.given_up.retain(|id| has_tasks(&self.view, id));
        if !self.writes.is_empty() || lost == Lost::default() {
            return;
        }
        let (sequencer, checked) = (self.sequencer.clone(), self.view.clone());
        self.writes.spawn(async move {
            sequencer
                .sequence(move |view: &View, now| Ok(noted((view, &checked), &lost, now)))
                .await
        });
    }

    /// Ends the connections of nodes that are none any more. One that has just left still gets its
    /// answer.
    fn part(&self) {
        let now = self.sequencer.now();
        let stays = |peer: &Peer| match self.view.node(&peer.node) {
            Some(node) if node.has_left() => now.since(node.status.since) < FAREWELL,
            Some(_) => rpc::check(peer, &self.view).is_ok(),
            None => false,
        };
        self.connections.retain(stays);
    }
}

fn ticks(interval: Duration) -> tokio::time::Interval {
    let mut tick = tokio::time::interval(interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tick
}

/// Writes down who is lost and who is there after all, as it was when it was `checked`: of a node
/// that changed since, something newer is known.
fn noted((view, checked): (&View, &View), lost: &Lost, now: Timestamp) -> Changes {
    let version = |view: &View, id: &NodeId| view.node(id).map(|node| node.meta.version);
    let same = |id: &&NodeId| version(view, id) == version(checked, id);
    let mut tx = Tx::new(view);
    for id in lost.down.iter().filter(same) {
        tracing::warn!(node = %id, "node is down: three heartbeats missed");
        tx.edit_node(id, |node| node.status.enter(NodeState::Down, "heartbeat failure", now));
    }
    for id in lost.back.iter().filter(same) {
        tx.edit_node(id, |node| node.status.enter(NodeState::Ready, "", now));
    }
    for id in lost.given_up.iter().filter(same) {
        give_up_tasks(&mut tx, id, ("node is lost", now));
    }
    tx.finish()
}

fn note(written: Result<Result<types::Version, Fault>, tokio::task::JoinError>) {
    match written {
        Ok(Ok(_)) => {}
        Ok(Err(fault)) => tracing::warn!(%fault, "cannot write which nodes are lost"),
        Err(error) => tracing::error!(%error, "writing which nodes are lost panicked"),
    }
}

fn heartbeat(view: &View) -> Duration {
    let period = view.cluster().map(|cluster| cluster.spec.heartbeat);
    period.filter(|period| !period.is_zero()).unwrap_or(Duration::from_secs(5))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
