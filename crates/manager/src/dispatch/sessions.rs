//! Open sessions: one for each node, each with what it was sent last.

use crate::assign::{Picture, difference};
use crate::withdrawal::{Ceased, Seen};
use std::collections::{BTreeMap, BTreeSet};
use store::View;
use tokio::sync::mpsc;
use tonic::Status;
use types::{NodeId, TaskId, Version};
use wire::{Assignments, SessionMessage, Welcome};

/// Messages that wait to be sent to a node. A node that lets it fill up is cut off; it comes back
/// and gets everything anew.
pub(crate) const QUEUE: usize = 64;

/// Where a session's messages go.
pub(crate) type Sink = mpsc::Sender<Result<SessionMessage, Status>>;

#[derive(Debug)]
struct Session {
    id: String,
    sink: Sink,
    /// What the node has once it has read everything.
    last: Assignments,
    seen: Seen,
}

impl Session {
    fn send(&self, message: SessionMessage) -> bool {
        self.sink.try_send(Ok(message)).is_ok()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: BTreeMap<NodeId, Session>,
    ceased: Ceased,
    withdrawn: BTreeSet<TaskId>,
    /// Of the view that was seen last.
    picture: Picture,
    /// `None`: none was seen yet.
    pictured: Option<Version>,
}

impl Sessions {
    /// Opens a session and sends all that the node should have. An older session of the node ends.
    pub(crate) fn open(&mut self, node: &NodeId, welcome: Welcome, sink: Sink, view: &View) {
        self.picture(view);
        let mut last = self.picture.assignments(view, node, &self.withdrawn);
        last.version = 1;
        let mut seen = Seen::default();
        seen.sent(last.version, view.version());
        let session = Session { id: welcome.session.clone(), sink, last, seen };
        let sent = session.send(SessionMessage::Welcome(welcome))
            && session.send(SessionMessage::Whole(session.last.clone()));
        if sent {
            self.open.insert(node.clone(), session);
        }
    }

    /// Sends every session what changed for it.
    pub(crate) fn refresh(&mut self, view: &View) {
        self.open.retain(|node, _| view.node(node).is_some());
        self.picture(view);
        let mut cut_off = Vec::new();
        for (node, session) in &mut self.open {
            let mut new = self.picture.assignments(view, node, &self.withdrawn);
            new.version = session.last.version + 1;
            let Some(difference) = difference(&session.last, &new) else {
                session.seen.unchanged(view.version());
                new.version = session.last.version;
                session.last = new;
                continue;
            };
            session.seen.sent(new.version, view.version());
            session.last = new;
            if !session.send(SessionMessage::Difference(difference)) || session.seen.is_overrun() {
                tracing::warn!(%node, "node is too slow or gone, its session ends");
                cut_off.push(node.clone());
            }
        }
        for node in cut_off {
            self.open.remove(&node);
        }
    }

    fn picture(&mut self, view: &View) {
        if self.pictured != Some(view.version()) {
            self.picture = Picture::of(view);
            self.pictured = Some(view.version());
            self.ceased.observe(view);
        }
        self.withdrawn = self.withdrawn_now(view);
    }

    fn withdrawn_now(&self, view: &View) -> BTreeSet<TaskId> {
        let seen = self.open.iter().filter_map(|(id, it)| Some((id.clone(), it.seen.seen()?)));
        self.ceased.withdrawn(view, &seen.collect())
    }

    /// Notes what a node has applied, and tells those whose tasks are withdrawn by that.
    pub(crate) fn acknowledged(&mut self, node: &NodeId, session: &str, version: u64, view: &View) {
        let Some(open) = self.open.get_mut(node).filter(|open| open.id == session) else {
            return;
        };
        open.seen.acknowledged(version);
        if self.withdrawn_now(view) != self.withdrawn {
            self.refresh(view);
        }
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
