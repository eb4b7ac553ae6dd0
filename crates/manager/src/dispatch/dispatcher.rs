//! Decides what nodes are told, who of them is there, and what is written of that.
//!
//! Pure: it has neither channels nor clocks nor chance. Whoever drives it hands in commands and what
//! the clocks say, and carries out what comes back, in order. It remembers nothing that a manager
//! which starts anew would miss: nodes open their sessions again, and get everything again.
//!
//! Invariants: messages of a session begin with `Welcome` and `Whole`, and their versions only rise;
//! what a session was sent leads to exactly what its node should have; what a node has not
//! acknowledged is bounded; a task is said to be withdrawn only when every node that may lead
//! traffic to it has acknowledged otherwise, or is not waited for.

use super::command::{Command, Now, Output, SessionId};
use super::observation::Observation;
use super::sessions::Sessions;
use super::subscriptions::Subscriptions;
use crate::clock::Uptime;
use crate::control::node::has_tasks;
use crate::find;
use crate::liveness::{Liveness, Lost};
use crate::managers::rotation::Wanted;
use std::time::Duration;
use store::View;
use types::{Fault, NodeId};
use wire::{HeartbeatReply, Release, Welcome};

/// The least time between two refreshes of all sessions while nothing is being withdrawn: a node
/// that reports on many tasks is not worth a message to everybody for each of them.
const REFRESH_PAUSE: Duration = Duration::from_millis(20);
/// Heartbeats after which nobody waits any more for a ready node without a session to stop leading
/// traffic to a task.
const ABSENCE: u32 = 2;

/// The dispatcher of one manager.
#[derive(Debug)]
pub struct Dispatcher {
    /// The addresses that nodes are told to find managers at, as of the last look.
    managers: Vec<String>,
    /// What they are to trust, as of the last look.
    wanted: Wanted,
    /// The newest view, which sessions may not have been told of yet.
    view: View,
    liveness: Liveness,
    sessions: Sessions,
    subscriptions: Subscriptions,
    /// When sessions were told the last time of what changed.
    refreshed: Uptime,
    /// There is something that sessions were not told of.
    stale: bool,
    /// When it is looked again who is there.
    next_look: Uptime,
    /// There may be logs that nodes were not asked for.
    asks_for_logs: bool,
    /// An observation is being written. At most one, so that a slow disk does not pile them up.
    writing: bool,
    outputs: Vec<Output>,
}

impl Dispatcher {
    /// A dispatcher without sessions. Every node has its full time to open one.
    pub fn new(view: View, now: Now) -> Self {
        Self {
            managers: find::addresses(&view),
            wanted: Wanted::of(&view),
            liveness: Liveness::new(heartbeat(&view), now.uptime, now.time),
            sessions: Sessions::default(),
            subscriptions: Subscriptions::default(),
            refreshed: now.uptime,
            stale: true,
            next_look: now.uptime,
            asks_for_logs: false,
            writing: false,
            outputs: Vec::new(),
            view,
        }
    }

    /// Takes one command; says what is to be done.
    pub fn handle(&mut self, command: Command, now: Now) -> Vec<Output> {
        match command {
            Command::View(view) => self.take(*view, now),
            Command::Attempt { node } => self.liveness.hear(&node, now.uptime),
            Command::Open { node, session } => self.open(node, session, now),
            Command::Heartbeat { node, session } => self.heartbeat(node, session, now),
            Command::Acknowledge { node, session, version } => {
                let from = (&node, &session);
                self.sessions.acknowledged(from, version, now.uptime, &mut self.outputs);
            }
            Command::Closed { node, session } => self.sessions.closed(&node, &session),
            Command::Left { node } => self.sessions.close(&node, &mut self.outputs),
            Command::Written => self.writing = false,
            Command::Subscribe { subscription, selector, options } => {
                self.subscriptions.add((subscription, selector, options), &mut self.outputs);
                self.asks_for_logs = true;
            }
            Command::Unsubscribe { subscription } => {
                self.subscriptions.remove(subscription, &self.sessions, &mut self.outputs);
            }
            Command::LogsEnded { part } => self.subscriptions.ended(&part, &mut self.outputs),
            Command::LogsBroken { part } => {
                self.subscriptions.broken(&part, now.day, &mut self.outputs);
                self.asks_for_logs = true;
            }
            Command::Tick => self.tick(now),
        }
        if std::mem::take(&mut self.asks_for_logs) {
            let sources = (&self.view, &self.sessions);
            self.subscriptions.refresh(sources, now.day, &mut self.outputs);
        }
        std::mem::take(&mut self.outputs)
    }

    /// When [`Command::Tick`] is due, whatever happens before.
    pub fn wake(&self) -> Uptime {
        if self.stale { self.next_look.min(self.next_refresh()) } else { self.next_look }
    }

    fn take(&mut self, view: View, now: Now) {
        self.stale |= view.version() != self.view.version();
        self.view = view;
        self.liveness.set_period(heartbeat(&self.view));
        self.next_look = self.next_look.min(now.uptime.after(self.liveness.interval()));
        self.refresh_in_time(now);
    }

    fn next_refresh(&self) -> Uptime {
        let pause = if self.sessions.is_withdrawing() { Duration::ZERO } else { REFRESH_PAUSE };
        self.refreshed.after(pause)
    }

    fn refresh_in_time(&mut self, now: Now) {
        if self.stale && self.next_refresh() <= now.uptime {
            self.refresh(now);
        }
    }

    /// Tells every session what follows for it from the newest view.
    fn refresh(&mut self, now: Now) {
        self.stale = false;
        self.refreshed = now.uptime;
        self.sessions.refresh(&self.view, now.uptime, &mut self.outputs);
        self.asks_for_logs = true;
    }

    fn open(&mut self, node: NodeId, session: SessionId, now: Now) {
        // Whatever is told from here on is for the new one.
        self.sessions.close(&node, &mut self.outputs);
        if self.stale {
            self.refresh(now);
        }
        if self.view.node(&node).is_none_or(|node| node.has_left()) {
            self.outputs.push(Output::Close { node, session });
            return;
        }
        self.liveness.hear(&node, now.uptime);
        let welcome = Welcome {
            release: Release::own(),
            session: session.to_string(),
            node: node.clone(),
            heartbeat_millis: millis(session.pause(heartbeat(&self.view))),
            managers: self.managers.clone(),
            data_path_port: self.view.cluster().map_or(0, |cluster| cluster.data_path_port),
            role: self.view.node(&node).map(|node| node.role),
        };
        self.sessions.open((node, session), welcome, now.uptime, &mut self.outputs);
        self.asks_for_logs = true;
    }

    fn heartbeat(&mut self, node: NodeId, session: SessionId, now: Now) {
        let reply = if self.sessions.is_open(&node, &session) {
            self.liveness.hear(&node, now.uptime);
            let next_millis = millis(session.pause(heartbeat(&self.view)));
            let trust = self.view.node(&node).and_then(|node| self.wanted.tell(node));
            Ok(HeartbeatReply { next_millis, managers: self.managers.clone(), trust })
        } else {
            Err(Fault::not_found(format!("session {session} is over: open another")))
        };
        self.outputs.push(Output::Beat { node, session, reply });
    }

    fn tick(&mut self, now: Now) {
        self.refresh_in_time(now);
        if self.next_look <= now.uptime {
            self.next_look = now.uptime.after(self.liveness.interval());
            self.look(now);
        }
    }

    /// Looks who is there, and who does not catch up.
    fn look(&mut self, now: Now) {
        self.managers = find::addresses(&self.view);
        self.wanted = Wanted::of(&self.view);
        let absence = self.liveness.period() * ABSENCE;
        self.sessions.catch_up(now.uptime, absence, &mut self.outputs);
        self.asks_for_logs = true;
        let mut lost = self.liveness.check(&self.view, now.uptime, now.time);
        for node in &lost.down {
            // If it is there after all, it opens another one.
            self.sessions.close(node, &mut self.outputs);
        }
        lost.back.retain(|id| self.sessions.has(id));
        lost.given_up.retain(|id| has_tasks(&self.view, id));
        if !self.writing && lost != Lost::default() {
            self.writing = true;
            self.outputs.push(Output::Write(Observation::new(lost, &self.view)));
        }
    }
}

fn heartbeat(view: &View) -> Duration {
    let period = view.cluster().map(|cluster| cluster.spec.heartbeat);
    period.filter(|period| !period.is_zero()).unwrap_or(Duration::from_secs(5))
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
