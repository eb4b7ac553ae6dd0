//! Open sessions: one for each node, each with what it was sent last.

use super::command::{Output, SessionId};
use crate::assign::{Picture, Share, difference};
use crate::clock::Uptime;
use crate::withdrawal::{Ceased, Seen};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use store::View;
use types::{Node, NodeId, NodeState, TaskId, Version};
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
    last: Share,
    /// When that was sent.
    sent: Uptime,
    seen: Seen,
    /// There is something that it was not told of, as it is busy with what came before.
    stale: bool,
}

impl Session {
    /// What tells the node what changed for it.
    fn update(&mut self, mut new: Share, view: Version, now: Uptime) -> Option<SessionMessage> {
        self.stale = false;
        new.version = self.last.version + 1;
        let Some(difference) = difference(&self.last, &new) else {
            self.seen.unchanged(view);
            new.version = self.last.version;
            self.last = new;
            return None;
        };
        self.seen.sent(new.version, view);
        self.last = new;
        self.sent = now;
        Some(SessionMessage::Difference(difference))
    }

    fn is_behind(&self) -> bool {
        self.seen.unacknowledged() >= BEHIND
    }

    fn is_due(&self, now: Uptime) -> bool {
        self.seen.unacknowledged() < FAR_BEHIND || now.since(self.sent) >= PATIENCE
    }
}

#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: BTreeMap<NodeId, Session>,
    ceased: Ceased,
    withdrawn: BTreeSet<TaskId>,
    /// The view that sessions are told of, and its picture.
    view: View,
    picture: Picture,
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
        let mut last = self.picture.share(&self.view, &node, &self.withdrawn);
        last.version = 1;
        let mut seen = Seen::default();
        seen.sent(last.version, self.view.version());
        let begin = [SessionMessage::Welcome(welcome), SessionMessage::Whole(last.assignments())];
        out.extend(begin.map(|message| send(&node, &id, message)));
        self.open.insert(node, Session { id, last, sent: now, seen, stale: false });
    }

    /// Sends every session what changed for it; those that are behind are told later.
    pub(crate) fn refresh(&mut self, view: &View, now: Uptime, out: &mut Vec<Output>) {
        let removed = self.open.extract_if(.., |node, _| view.node(node).is_none());
        out.extend(removed.map(|(node, open)| Output::Close { node, session: open.id }));
        self.picture = Picture::after(&self.picture, view);
        self.view = view.clone();
        self.ceased.observe(view);
        self.tell_all(now, out);
    }

    fn tell_all(&mut self, now: Uptime, out: &mut Vec<Output>) {
        self.withdrawn = self.withdrawn_now();
        for session in self.open.values_mut() {
            session.stale = true;
        }
        self.tell(|_, session| !session.is_behind(), now, out);
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
        self.away = away.map(|(node, _)| node.clone()).collect();
        if self.withdrawn_now() != self.withdrawn {
            self.tell_all(now, out);
        }
        self.tell(|_, session| session.is_due(now), now, out);
    }

    /// Tells sessions what changed for them, of those that were not told of everything.
    fn tell(
        &mut self,
        which: impl Fn(&NodeId, &Session) -> bool,
        now: Uptime,
        out: &mut Vec<Output>,
    ) {
        for (node, session) in &mut self.open {
            if session.stale && which(node, session) {
                let new = self.picture.share(&self.view, node, &self.withdrawn);
                let message = session.update(new, self.view.version(), now);
                out.extend(message.map(|message| send(node, &session.id, message)));
            }
        }
    }

    fn withdrawn_now(&self) -> BTreeSet<TaskId> {
        if self.ceased.is_empty() {
            return BTreeSet::new();
        }
        let there = self.view.nodes().filter(|node| is_ready(node));
        let there = there.map(|node| &node.id).filter(|node| !self.away.contains(*node));
        let seen = |node: &NodeId| self.open.get(node).and_then(|open| open.seen.seen());
        let mut withdrawn =
            self.ceased.withdrawn(&there.map(|node| (node.clone(), seen(node))).collect());
        // A node that comes back has seen it before, or was not waited for.
        let before = self.withdrawn.iter().filter(|task| self.ceased.holds(task));
        withdrawn.extend(before.cloned());
        withdrawn
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
        let Some(open) = self.open.get_mut(node).filter(|open| open.id == *id) else {
            return;
        };
        open.seen.acknowledged(version);
        self.tell(|id, session| id == node && !session.is_behind(), now, out);
        if self.withdrawn_now() != self.withdrawn {
            self.tell_all(now, out);
        }
    }

    /// Says whether there are tasks that nodes should stop to lead traffic to.
    pub(crate) fn is_withdrawing(&self) -> bool {
        !self.ceased.is_empty()
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
        }
    }

    /// The session's stream has gone; a newer one of the node has not.
    pub(crate) fn closed(&mut self, node: &NodeId, id: &SessionId) {
        if self.is_open(node, id) {
            tracing::info!(%node, session = %id, "session ended");
            self.open.remove(node);
        }
    }
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
