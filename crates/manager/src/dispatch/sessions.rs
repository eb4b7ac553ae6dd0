//! Open sessions: one for each node, each with what it was sent last.

use super::command::{Output, SessionId};
use crate::assign::{Alike, Assignments, Files, Step, Topology, difference};
use crate::clock::Uptime;
use crate::withdrawal::{Progress, Withdrawal};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use store::View;
use types::{Node, NodeId, NodeState, Version};
use wire::{SessionMessage, Welcome};

/// Versions that a node has not acknowledged, from which on it gets no further one before it has
/// caught up, or before the next tick.
const BEHIND: usize = 8;
/// As many, from which on it gets a further one only after [`PATIENCE`]: what waits to be sent to a
/// node that reads nothing is bounded, and a node whose kernel fails is still told what to do.
const FAR_BEHIND: usize = 32;
const PATIENCE: Duration = Duration::from_mins(1);

#[derive(Debug)]
struct Session {
    id: SessionId,
    /// What the node has once it has read everything.
    last: Assignments,
    /// When that was sent.
    sent: Uptime,
    progress: Progress,
}

impl Session {
    fn is_behind(&self) -> bool {
        self.progress.unacknowledged() >= BEHIND
    }

    fn is_due(&self, now: Uptime) -> bool {
        self.progress.unacknowledged() < FAR_BEHIND || now.since(self.sent) >= PATIENCE
    }

    /// What tells the node what changed for it.
    fn update(
        &mut self,
        mut new: Assignments,
        now: Uptime,
        alike: &mut Alike,
    ) -> Option<SessionMessage> {
        new.version = self.last.version + 1;
        let difference = difference(&self.last, &new, alike);
        if difference.is_some() {
            self.progress.told(new.version);
            self.sent = now;
        } else {
            self.progress.had_nothing();
            new.version = self.last.version;
        }
        self.last = new;
        difference.map(SessionMessage::Difference)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: BTreeMap<NodeId, Session>,
    withdrawal: Withdrawal,
    /// The view that sessions are told of, and its topology.
    view: View,
    topology: Topology,
    /// Since when ready nodes have no session, and how long they are waited for.
    absent: BTreeMap<NodeId, Uptime>,
    /// Absent nodes that nobody waits for any more.
    away: BTreeSet<NodeId>,
}

impl Sessions {
    /// Opens a session and sends all that the node should have. It has no other.
    pub(crate) fn open(
        &mut self,
        (node, id): (NodeId, SessionId),
        welcome: Welcome,
        now: Uptime,
        out: &mut Vec<Output>,
    ) {
        self.absent.remove(&node);
        self.away.remove(&node);
        let mut last = self.assignments(&node, &Files::default());
        last.version = 1;
        let begin = [SessionMessage::Welcome(welcome), SessionMessage::Whole(last.whole())];
        out.extend(begin.map(|message| send(&node, &id, message)));
        let progress = Progress::beginning(last.version);
        self.open.insert(node.clone(), Session { id, last, sent: now, progress });
        self.wait_for(&node);
    }

    fn assignments(&self, node: &NodeId, given: &Files) -> Assignments {
        let is_withdrawn = |task: &_| self.withdrawal.is_withdrawn(task);
        self.topology.assignments(&self.view, (node, given), is_withdrawn)
    }

    /// Sends every session what changed for it; those that are behind are told later.
    pub(crate) fn refresh(&mut self, view: &View, now: Uptime, out: &mut Vec<Output>) {
        let before = std::mem::replace(&mut self.view, view.clone());
        let step = Step::between(&before, view);
        let touched = self.topology.follow(&step);
        for node in &step.nodes {
            let role = |view: &View| view.node(node).map(|node| node.role);
            // What the node is, is said at the beginning of a session.
            if role(view).is_none() || role(&before) != role(view) {
                self.close(node, out);
            }
            self.wait_for(node);
        }
        let concerned: Vec<NodeId> = if touched.mesh {
            self.open.keys().cloned().collect()
        } else {
            let on_it = touched.networks.iter().flat_map(|id| self.topology.hosts().of(id));
            let nodes: BTreeSet<&NodeId> = step.nodes_of_tasks().chain(on_it).collect();
            nodes.into_iter().cloned().collect()
        };
        for node in &concerned {
            self.concerns(node);
        }
        let (open, hosts) = (&self.open, self.topology.hosts());
        self.withdrawal.observe(view, &step.tasks, hosts, |node| lacks(open, node));
        self.tell(concerned, |session, _| !session.is_behind(), now, out);
    }

    fn concerns(&mut self, node: &NodeId) {
        if let Some(session) = self.open.get_mut(node) {
            session.progress.concerns(self.view.version());
        }
    }

    /// To be called at every tick. Tells also those nodes what changed that do not catch up, and
    /// notes which ready nodes have had no session for longer than `absence`.
    pub(crate) fn catch_up(&mut self, now: Uptime, absence: Duration, out: &mut Vec<Output>) {
        let absent = self.view.nodes().filter(|node| is_ready(node) && !self.has(&node.id));
        let absent: BTreeSet<NodeId> = absent.map(|node| node.id.clone()).collect();
        self.absent.retain(|node, _| absent.contains(node));
        for node in absent {
            self.absent.entry(node).or_insert(now);
        }
        let away = self.absent.iter().filter(|(_, since)| now.since(**since) > absence);
        let away: BTreeSet<NodeId> = away.map(|(node, _)| node.clone()).collect();
        let before = std::mem::replace(&mut self.away, away.clone());
        for node in before.symmetric_difference(&away) {
            self.wait_for(node);
        }
        let stale = self.open.iter().filter(|(_, session)| session.progress.is_stale());
        let stale = stale.map(|(node, _)| node.clone()).collect();
        self.tell(stale, Session::is_due, now, out);
    }

    /// Tells these nodes what changed for them, as far as they may be told now, and those whose
    /// tasks have been withdrawn.
    fn tell(
        &mut self,
        nodes: Vec<NodeId>,
        may: fn(&Session, Uptime) -> bool,
        now: Uptime,
        out: &mut Vec<Output>,
    ) {
        let (mut nodes, mut alike) = (VecDeque::from(nodes), Alike::default());
        loop {
            for node in self.newly_withdrawn() {
                self.concerns(&node);
                nodes.push_back(node);
            }
            let Some(node) = nodes.pop_front() else { return };
            let session = self.open.get(&node);
            if session.is_some_and(|session| session.progress.is_stale() && may(session, now)) {
                self.update(&node, now, &mut alike, out);
            }
        }
    }

    /// The nodes of the tasks that were withdrawn since this was asked last.
    fn newly_withdrawn(&mut self) -> BTreeSet<NodeId> {
        let tasks = self.withdrawal.news();
        tasks.iter().filter_map(|task| self.view.task(task)?.node.clone()).collect()
    }

    fn update(&mut self, node: &NodeId, now: Uptime, alike: &mut Alike, out: &mut Vec<Output>) {
        let Some(session) = self.open.get(node) else { return };
        let new = self.assignments(node, &session.last.files);
        let Some(session) = self.open.get_mut(node) else { return };
        match session.update(new, now, alike) {
            Some(message) => out.push(send(node, &session.id, message)),
            None => self.withdrawal.applied(node, session.progress.lacks()),
        }
    }

    /// Notes what a node has applied, tells it what came up meanwhile, and tells those whose tasks
    /// are withdrawn by that.
    pub(crate) fn acknowledged(
        &mut self,
        (node, id): (&NodeId, &SessionId),
        version: u64,
        now: Uptime,
        out: &mut Vec<Output>,
    ) {
        let Some(session) = self.open.get_mut(node).filter(|session| session.id == *id) else {
            return;
        };
        session.progress.acknowledged(version);
        self.withdrawal.applied(node, session.progress.lacks());
        self.tell(vec![node.clone()], |session, _| !session.is_behind(), now, out);
    }

    /// Decides anew whether a node is waited for, and what it has not seen.
    fn wait_for(&mut self, node: &NodeId) {
        if self.view.node(node).is_some_and(|node| is_ready(node)) && !self.away.contains(node) {
            self.withdrawal.wait_for(node, lacks(&self.open, node));
        } else {
            self.withdrawal.wait_no_more(node);
        }
    }

    /// Says whether there are tasks that nodes should stop to lead traffic to.
    pub(crate) fn is_withdrawing(&self) -> bool {
        self.withdrawal.is_waiting()
    }

    pub(crate) fn is_open(&self, node: &NodeId, id: &SessionId) -> bool {
        self.session_of(node) == Some(id)
    }

    /// Says whether the node has a session.
    pub(crate) fn has(&self, node: &NodeId) -> bool {
        self.open.contains_key(node)
    }

    /// The id of the node's session, which is another one after the node came back.
    pub(crate) fn session_of(&self, node: &NodeId) -> Option<&SessionId> {
        self.open.get(node).map(|open| &open.id)
    }

    /// Ends the node's session, if it has one.
    pub(crate) fn close(&mut self, node: &NodeId, out: &mut Vec<Output>) {
        if let Some(Session { id: session, .. }) = self.open.remove(node) {
            out.push(Output::Close { node: node.clone(), session });
            self.wait_for(node);
        }
    }

    /// The session's stream has gone; a newer one of the node has not.
    pub(crate) fn closed(&mut self, node: &NodeId, id: &SessionId) {
        if self.is_open(node, id) {
            tracing::info!(%node, session = %id, "session ended");
            self.open.remove(node);
            self.wait_for(node);
        }
    }
}

/// From which view on a node lacks something. What one without a session has is not known.
fn lacks(open: &BTreeMap<NodeId, Session>, node: &NodeId) -> Option<Version> {
    open.get(node).map_or(Some(Version(0)), |session| session.progress.lacks())
}

fn send(node: &NodeId, session: &SessionId, message: SessionMessage) -> Output {
    Output::Send { node: node.clone(), session: session.clone(), message }
}

fn is_ready(node: &Node) -> bool {
    match node.status.state {
        NodeState::Ready => true,
        NodeState::Unknown | NodeState::Down | NodeState::Disconnected => false,
    }
}
