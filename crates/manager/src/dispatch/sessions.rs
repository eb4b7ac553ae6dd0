//! Open sessions: one for each node, each with what it was sent last.

use crate::assign::{Picture, Share, difference};
use crate::clock::Uptime;
use crate::withdrawal::{Ceased, Seen};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use store::View;
use tokio::sync::mpsc;
use tonic::Status;
use types::{Node, NodeId, NodeState, TaskId, Version};
use wire::{SessionMessage, Welcome};

/// Messages that wait to be sent to a node. A node that lets it fill up is cut off; it comes back
/// and gets everything anew.
pub(crate) const QUEUE: usize = 64;
/// Versions that a node has not acknowledged, from which on it gets no further one before it has
/// caught up, or before the next tick.
const BEHIND: usize = 8;

/// Where a session's messages go.
pub(crate) type Sink = mpsc::Sender<Result<SessionMessage, Status>>;

#[derive(Debug)]
struct Session {
    id: String,
    sink: Sink,
    /// What the node has once it has read everything.
    last: Share,
    seen: Seen,
    /// There is something that it was not told of, as it is busy with what came before.
    stale: bool,
}

impl Session {
    /// Tells the node what changed for it; says whether that was possible.
    fn update(&mut self, mut new: Share, view: Version) -> bool {
        self.stale = false;
        new.version = self.last.version + 1;
        let Some(difference) = difference(&self.last, &new) else {
            self.seen.unchanged(view);
            new.version = self.last.version;
            self.last = new;
            return true;
        };
        self.seen.sent(new.version, view);
        self.last = new;
        self.send(SessionMessage::Difference(difference))
    }

    fn is_behind(&self) -> bool {
        self.seen.unacknowledged() >= BEHIND
    }

    fn send(&self, message: SessionMessage) -> bool {
        self.sink.try_send(Ok(message)).is_ok()
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
    /// Opens a session and sends all that the node should have. An older session of the node ends.
    pub(crate) fn open(&mut self, node: &NodeId, welcome: Welcome, sink: Sink, view: &View) {
        self.picture(view);
        let mut last = self.picture.share(view, node, &self.withdrawn);
        last.version = 1;
        let mut seen = Seen::default();
        seen.sent(last.version, view.version());
        self.absent.remove(node);
        self.away.remove(node);
        let session = Session { id: welcome.session.clone(), sink, last, seen, stale: false };
        let sent = session.send(SessionMessage::Welcome(welcome))
            && session.send(SessionMessage::Whole(session.last.assignments()));
        if sent {
            self.open.insert(node.clone(), session);
        }
    }

    /// Sends every session what changed for it; those that are behind are told later.
    pub(crate) fn refresh(&mut self, view: &View) {
        self.open.retain(|node, _| view.node(node).is_some());
        self.picture(view);
        self.tell_all();
    }

    fn tell_all(&mut self) {
        self.withdrawn = self.withdrawn_now();
        for session in self.open.values_mut() {
            session.stale = true;
        }
        self.tell(|_, session| !session.is_behind());
    }

    /// To be called at every tick. Tells also those nodes what changed that do not catch up, and
    /// notes which ready nodes have had no session for longer than `absence`.
    pub(crate) fn catch_up(&mut self, now: Uptime, absence: Duration) {
        let absent = self.view.nodes().filter(|node| is_ready(node) && !self.has(&node.id));
        let absent: BTreeSet<NodeId> = absent.map(|node| node.id.clone()).collect();
        self.absent.retain(|node, _| absent.contains(node));
        for node in absent {
            self.absent.entry(node).or_insert(now);
        }
        let away = self.absent.iter().filter(|(_, since)| now.since(**since) > absence);
        self.away = away.map(|(node, _)| node.clone()).collect();
        if self.withdrawn_now() != self.withdrawn {
            self.tell_all();
        }
        self.tell(|_, session| session.sink.capacity() > QUEUE / 2);
    }

    /// Tells sessions what changed for them, of those that were not told of everything.
    fn tell(&mut self, which: impl Fn(&NodeId, &Session) -> bool) {
        let mut cut_off = Vec::new();
        for (node, session) in &mut self.open {
            if !session.stale || !which(node, session) {
                continue;
            }
            let new = self.picture.share(&self.view, node, &self.withdrawn);
            if !session.update(new, self.view.version()) {
                tracing::warn!(%node, "node is too slow or gone, its session ends");
                cut_off.push(node.clone());
            }
        }
        for node in cut_off {
            self.open.remove(&node);
        }
    }

    fn picture(&mut self, view: &View) {
        // While there is no session, there may be no view yet.
        if self.view.version() != view.version() || self.open.is_empty() {
            self.picture = Picture::after(&self.picture, view);
            self.view = view.clone();
            self.ceased.observe(view);
        }
        self.withdrawn = self.withdrawn_now();
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
    pub(crate) fn acknowledged(&mut self, node: &NodeId, session: &str, version: u64) {
        let Some(open) = self.open.get_mut(node).filter(|open| open.id == session) else {
            return;
        };
        open.seen.acknowledged(version);
        self.tell(|id, session| id == node && !session.is_behind());
        if self.withdrawn_now() != self.withdrawn {
            self.tell_all();
        }
    }

    /// Says whether there are tasks that nodes should stop to lead traffic to.
    pub(crate) fn is_withdrawing(&self) -> bool {
        !self.ceased.is_empty()
    }

    pub(crate) fn is_open(&self, node: &NodeId, session: &str) -> bool {
        self.open.get(node).is_some_and(|open| open.id == session && !open.sink.is_closed())
    }

    /// Says whether the node has a session.
    pub(crate) fn has(&self, node: &NodeId) -> bool {
        self.open.get(node).is_some_and(|open| !open.sink.is_closed())
    }

    /// The id of the node's session, which is another one after the node came back.
    pub(crate) fn session_of(&self, node: &NodeId) -> Option<&str> {
        self.open.get(node).filter(|open| !open.sink.is_closed()).map(|open| open.id.as_str())
    }

    /// Sends one node a message besides its assignments; says whether that was possible.
    pub(crate) fn send(&mut self, node: &NodeId, message: SessionMessage) -> bool {
        let sent = self.open.get(node).is_some_and(|open| open.send(message));
        if !sent {
            self.open.remove(node);
        }
        sent
    }

    pub(crate) fn close(&mut self, node: &NodeId) {
        self.open.remove(node);
    }

    /// Forgets the sessions whose nodes have gone; says which.
    pub(crate) fn prune(&mut self) -> Vec<NodeId> {
        let gone = self.open.iter().filter(|(_, open)| open.sink.is_closed());
        let gone: Vec<NodeId> = gone.map(|(node, _)| node.clone()).collect();
        for node in &gone {
            self.open.remove(node);
        }
        gone
    }
}

fn is_ready(node: &Node) -> bool {
    match node.status.state {
        NodeState::Ready => true,
        NodeState::Unknown | NodeState::Down | NodeState::Disconnected => false,
    }
}
