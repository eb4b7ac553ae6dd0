//! The line to nodes: sessions, signs of life, what they should have, what they report.
//!
//! One loop (here) owns all sessions; the RPC handlers (`rpc`) send it commands and write what
//! nodes report. Nothing in the loop waits for a node or for the disk.

pub(crate) mod report;
mod rpc;
pub(crate) mod sessions;

pub(crate) use rpc::{Attempts, authenticated};

use crate::clock::uptime;
use crate::control::node::give_up_tasks;
use crate::liveness::{Liveness, Lost};
use crate::logs::{Sinks, Subscription, Subscriptions};
use crate::{Config, Error};
use ca::Identity;
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
use types::{Fault, NodeId, NodeState};

/// Commands that wait for the loop. Handlers wait when it is full, and nodes with them.
const COMMANDS: usize = 256;

/// Everything that can be asked of the loop.
#[derive(Debug)]
pub(crate) enum Command {
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
    let server = rpc::serve(rpc, listener, &identity, token.clone())?;
    scope.spawn("dispatch server", server);
    let desk = Desk::new(config, sequencer, sinks);
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
    subscriptions: Subscriptions,
    /// At most one, so that a slow disk does not pile them up.
    writes: JoinSet<Result<types::Version, Fault>>,
}

impl Desk {
    fn new(config: Config, sequencer: Sequencer, sinks: Sinks) -> Self {
        let views = sequencer.watch();
        let view = views.borrow().clone();
        Self {
            liveness: Liveness::new(heartbeat(&view), uptime()),
            sessions: Sessions::default(),
            subscriptions: Subscriptions::new(sinks),
            writes: JoinSet::new(),
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
        let mut tick = tokio::time::interval(self.liveness.interval());
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = token.cancelled() => return Ok(()),
                changed = self.views.changed() => {
                    if changed.is_err() {
                        return if token.is_cancelled() { Ok(()) } else { Err(Ended) };
                    }
                    self.see();
                }
                Some(command) = inbox.recv() => self.handle(command),
                Some(written) = self.writes.join_next() => note(written),
                _ = tick.tick() => self.tick(),
            }
        }
    }

    /// Takes the newest view; those between are skipped.
    fn see(&mut self) {
        self.view = self.views.borrow_and_update().clone();
        self.liveness.set_period(heartbeat(&self.view));
        self.sessions.refresh(&self.view);
        self.subscriptions.refresh(&self.view, &mut self.sessions);
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Open { node, session, sink } => self.open(&node, session, sink),
            Command::Heartbeat { node, session, reply } => {
                let answer = self.heartbeat(&node, &session);
                // The node may have gone meanwhile.
                drop(reply.send(answer));
            }
            Command::Acknowledge { node, session, version } => {
                self.sessions.acknowledged(&node, &session, version, &self.view);
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
        self.liveness.hear(node, uptime());
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
        self.liveness.hear(node, uptime());
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
        self.subscriptions.refresh(&self.view, &mut self.sessions);
        let lost = self.liveness.check(&self.view, uptime());
        let back = self.view.nodes().filter(|node| is_down(node) && self.sessions.has(&node.id));
        let back: Vec<NodeId> = back.map(|node| node.id.clone()).collect();
        if !self.writes.is_empty() || (lost == Lost::default() && back.is_empty()) {
            return;
        }
        let sequencer = self.sequencer.clone();
        self.writes.spawn(async move {
            sequencer.sequence(move |view: &View| Ok(noted(view, &lost, &back))).await
        });
    }
}

fn is_down(node: &types::Node) -> bool {
    match node.status.state {
        NodeState::Down => true,
        NodeState::Unknown | NodeState::Ready | NodeState::Disconnected => false,
    }
}

/// Writes down who is lost and who is there after all.
fn noted(view: &View, lost: &Lost, back: &[NodeId]) -> Changes {
    let mut tx = Tx::new(view);
    for id in &lost.down {
        tracing::warn!(node = %id, "node is down: three heartbeats missed");
        tx.edit_node(id, |node| {
            node.status.state = NodeState::Down;
            "heartbeat failure".clone_into(&mut node.status.message);
        });
    }
    for id in back {
        tx.edit_node(id, |node| {
            node.status.state = NodeState::Ready;
            node.status.message.clear();
        });
    }
    for id in &lost.given_up {
        give_up_tasks(&mut tx, view, id, "node is lost");
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
