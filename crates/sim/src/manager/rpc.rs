//! What nodes call, and the streams of their sessions.

use super::{CLUSTER, Manager, Reply, Request, address};
use crate::consensus::Id;
use crate::context::{Context, Happened};
use crate::network::{Answer, Body, Call, Packet, Way};
use ca::Peer;
use manager::callers;
use manager::dispatch::{Command, SessionId, report};
use manager::{enrolled, find, number};
use raft::Decide;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use store::View;
use types::{Fault, IdSource, NodeId, NodeRole, Version};
use wire::{Acknowledge, Heartbeat, HeartbeatReply, Report, SessionMessage, SessionRequest};

/// A call that waits for the disk.
#[derive(Debug)]
pub(crate) struct Pending {
    node: usize,
    connection: u64,
    id: u64,
    then: Then,
}

#[derive(Debug)]
enum Then {
    Open,
    /// With the number in the log.
    Enrolled(Receiver<Id>),
    Done,
    Left,
}

/// How a node's session is.
#[derive(Clone, Copy, Debug)]
pub struct SessionState {
    pub connection: u64,
    pub since: Duration,
    pub sent: u64,
    pub acknowledged: u64,
}

#[derive(Debug)]
struct Stream {
    node: usize,
    connection: u64,
    state: SessionState,
}

#[derive(Debug)]
struct Beat {
    node: usize,
    connection: u64,
    id: u64,
    /// It is one as well.
    report: Option<Report>,
}

/// Open streams by session, and calls that the dispatcher answers.
#[derive(Debug, Default)]
pub(super) struct Calls {
    streams: BTreeMap<SessionId, Stream>,
    newest: BTreeMap<usize, SessionId>,
    beats: BTreeMap<SessionId, Vec<Beat>>,
}

impl Calls {
    pub(super) fn session_of(&self, node: usize) -> Option<SessionState> {
        self.streams.get(self.newest.get(&node)?).map(|stream| stream.state)
    }
}

/// The id of a node by its number.
pub fn node_id(node: usize) -> NodeId {
    format!("node{node:02}").as_str().into()
}

impl Manager {
    /// A packet of a node has arrived.
    pub fn receive(&mut self, packet: Packet, ctx: &mut Context) {
        let Packet { node, manager, connection, way, body } = packet;
        if self.alive.is_none() {
            return;
        }
        match body {
            Body::Call { id, .. } if ctx.network.was_reset(id) => {}
            Body::Call { id, call: Call::Session(_) } if self.leads().is_none() => {
                let managers = self.view().map(find::addresses).unwrap_or_default();
                self.say((node, connection, id), Ok(Answer::Elsewhere(managers)), ctx);
            }
            Body::Call { id, call } => {
                if let Err(fault) = self.authenticated(node) {
                    return self.say((node, connection, id), Err(fault), ctx);
                }
                self.call((node, connection, id), call, ctx);
            }
            Body::Again { id, call } => {
                if !ctx.network.holds(connection) {
                    let body = Body::Call { id, call };
                    self.receive(Packet { node, manager, connection, way, body }, ctx);
                }
            }
            Body::Closed => self.gone(connection, ctx),
            Body::Answer { .. } | Body::Stream(_) | Body::End => {}
        }
    }

    /// A node is who its certificate says, and asks the manager that leads.
    fn authenticated(&self, node: usize) -> Result<(), Fault> {
        let view = self.view().filter(|_| self.leads().is_some()).ok_or_else(Fault::not_leading)?;
        let (role, cluster) = (NodeRole::Worker, CLUSTER.into());
        callers::check(&Peer { node: node_id(node), role, cluster }, view)
    }

    fn call(&mut self, (node, connection, id): (usize, u64, u64), call: Call, ctx: &mut Context) {
        let name = node_id(node);
        let pending = |then| Pending { node, connection, id, then };
        match call {
            Call::Session(request) => {
                self.command(Command::Attempt { node: name.clone() }, ctx);
                self.register(*request, pending(Then::Open), ctx);
            }
            Call::Heartbeat(Heartbeat { session }) => {
                self.heartbeat(session, Beat { node, connection, id, report: None }, ctx);
            }
            Call::Acknowledge(Acknowledge { session, version }) => {
                let session = SessionId::from(session);
                let Some(term) = self.term() else { return };
                if let Some(stream) = term.calls.streams.get_mut(&session) {
                    stream.state.acknowledged = stream.state.acknowledged.max(version);
                    let connection = stream.connection;
                    ctx.happened.push(Happened::Acknowledged { connection, version });
                }
                self.command(Command::Acknowledge { node: name, session, version }, ctx);
                self.say((node, connection, id), Ok(Answer::Done), ctx);
            }
            // Of certificates nothing but the role is simulated.
            Call::Renew => {
                let role = self.view().and_then(|view| view.node(&name)).map(|node| node.role);
                let role = role.unwrap_or(NodeRole::Worker);
                self.say((node, connection, id), Ok(Answer::Renewed(role)), ctx);
            }
            Call::Number(own) => {
                let (sender, given) = channel();
                let decide: Decide = Box::new(move |view: &View, _| {
                    let (raft_id, changes) = number(view, &name, (own, address(node)));
                    sender.send(raft_id).ok();
                    Ok(changes)
                });
                let pending = pending(Then::Enrolled(given));
                self.sequence(Request { decide, reply: Reply::Call(pending) }, ctx);
            }
            Call::Enroll => {
                let (sender, given) = channel();
                let decide: Decide = Box::new(move |view: &View, _| {
                    let (raft_id, changes) = enrolled(view, &name, address(node))?;
                    sender.send(raft_id).ok();
                    Ok(changes)
                });
                let pending = pending(Then::Enrolled(given));
                self.sequence(Request { decide, reply: Reply::Call(pending) }, ctx);
            }
            Call::Report(report) => {
                let session = report.session.clone();
                self.heartbeat(session, Beat { node, connection, id, report: Some(report) }, ctx);
            }
            Call::Leave { tasks_first } => {
                let decide: Decide = Box::new(move |view: &View, now| {
                    if tasks_first {
                        report::leaves(view, &name)
                    } else {
                        report::left(view, &name, now)
                    }
                });
                let then = if tasks_first { Then::Done } else { Then::Left };
                self.sequence(Request { decide, reply: Reply::Call(pending(then)) }, ctx);
            }
        }
    }

    fn heartbeat(&mut self, session: String, beat: Beat, ctx: &mut Context) {
        let (node, session) = (node_id(beat.node), SessionId::from(session));
        let Some(term) = self.term() else { return };
        term.calls.beats.entry(session.clone()).or_default().push(beat);
        self.command(Command::Heartbeat { node, session }, ctx);
    }

    fn register(&mut self, request: SessionRequest, pending: Pending, ctx: &mut Context) {
        let name = node_id(pending.node);
        let time = self.time(ctx.now);
        let Some(view) = self.view() else { return };
        match report::registered(view, &name, &request, time) {
            Ok(changes) if changes.is_empty() => self.decided(pending, Ok(Version(0)), ctx),
            Ok(_) => {
                let decide: Decide = Box::new(move |view: &View, now| {
                    report::registered(view, &name, &request, now)
                });
                self.sequence(Request { decide, reply: Reply::Call(pending) }, ctx);
            }
            Err(fault) => self.decided(pending, Err(fault), ctx),
        }
    }

    /// What a call waited for is decided.
    pub(super) fn decided(
        &mut self,
        pending: Pending,
        outcome: Result<Version, Fault>,
        ctx: &mut Context,
    ) {
        let Pending { node, connection, id, then } = pending;
        if let Err(fault) = outcome {
            return self.say((node, connection, id), Err(fault), ctx);
        }
        let name = node_id(node);
        match then {
            Then::Open => {
                let session = SessionId::from(format!("{:032x}", self.random.next_bits()));
                self.say((node, connection, id), Ok(Answer::Opened), ctx);
                let Some(term) = self.term() else { return };
                let state = SessionState { connection, since: ctx.now, sent: 0, acknowledged: 0 };
                let stream = Stream { node, connection, state };
                term.calls.streams.insert(session.clone(), stream);
                term.calls.newest.insert(node, session.clone());
                self.command(Command::Open { node: name.clone(), session: session.clone() }, ctx);
                if !ctx.network.holds(connection) {
                    self.gone(connection, ctx);
                }
            }
            Then::Enrolled(given) => {
                let lost = |_| Fault::internal("no number was given");
                let answer = given.try_recv().map(Answer::Enrolled).map_err(lost);
                self.say((node, connection, id), answer, ctx);
            }
            Then::Done => self.say((node, connection, id), Ok(Answer::Done), ctx),
            Then::Left => {
                self.command(Command::Left { node: name }, ctx);
                self.say((node, connection, id), Ok(Answer::Done), ctx);
            }
        }
    }

    /// A connection is found to be gone.
    fn gone(&mut self, connection: u64, ctx: &mut Context) {
        let Some(term) = self.term() else { return };
        let mut of = term.calls.streams.iter().filter(|(_, it)| it.connection == connection);
        let Some((session, node)) = of.next().map(|(id, it)| (id.clone(), it.node)) else { return };
        term.calls.streams.remove(&session);
        self.command(Command::Closed { node: node_id(node), session }, ctx);
    }

    pub(super) fn send(&mut self, session: &SessionId, message: SessionMessage, ctx: &mut Context) {
        let Some(term) = self.term() else { return };
        let Some(stream) = term.calls.streams.get_mut(session) else { return };
        let (node, connection) = (stream.node, stream.connection);
        let sent = match &message {
            SessionMessage::Whole(whole) => Some((None, whole.version)),
            SessionMessage::Difference(change) => Some((Some(change.from), change.version)),
            SessionMessage::Welcome(_) | SessionMessage::Logs(_) | SessionMessage::LogsDone(_) => {
                None
            }
        };
        if let Some((from, version)) = sent {
            stream.state.sent = version;
            ctx.happened.push(Happened::Sent { connection, from, version });
        }
        if ctx.network.has_room(connection) {
            let body = Body::Stream(Box::new(message));
            self.down((node, connection), body, ctx);
        } else {
            // It is too slow, or gone: it is cut off.
            ctx.sever(connection, Duration::from_millis(5));
        }
    }

    pub(super) fn close(&mut self, session: &SessionId, ctx: &mut Context) {
        let Some(term) = self.term() else { return };
        if let Some(stream) = term.calls.streams.remove(session) {
            let (node, connection) = (stream.node, stream.connection);
            self.down((node, connection), Body::End, ctx);
        }
    }

    pub(super) fn beat(
        &mut self,
        session: &SessionId,
        next: &Result<HeartbeatReply, Fault>,
        ctx: &mut Context,
    ) {
        let Some(term) = self.term() else { return };
        let beats = term.calls.beats.remove(session);
        for Beat { node, connection, id, report } in beats.into_iter().flatten() {
            match (next, report) {
                (Ok(_), Some(report)) => {
                    let name = node_id(node);
                    let decide: Decide = Box::new(move |view: &View, now| {
                        Ok(report::reported(view, &name, report, now))
                    });
                    let pending = Pending { node, connection, id, then: Then::Done };
                    self.sequence(Request { decide, reply: Reply::Call(pending) }, ctx);
                }
                (next, _) => {
                    self.say((node, connection, id), next.clone().map(Answer::Heartbeat), ctx);
                }
            }
        }
    }

    fn say(
        &self,
        (node, connection, id): (usize, u64, u64),
        answer: Result<Answer, Fault>,
        ctx: &mut Context,
    ) {
        self.down((node, connection), Body::Answer { id, answer }, ctx);
    }

    fn down(&self, (node, connection): (usize, u64), body: Body, ctx: &mut Context) {
        ctx.send(Packet { node, manager: self.machine, connection, way: Way::Down, body });
    }

    /// All sessions end, and nobody waits for an answer any more.
    pub(super) fn part(&mut self, calls: Calls, ctx: &mut Context) {
        for Beat { node, connection, id, .. } in calls.beats.into_values().flatten() {
            self.say((node, connection, id), Err(Fault::not_leading()), ctx);
        }
        for Stream { node, connection, .. } in calls.streams.into_values() {
            self.down((node, connection), Body::End, ctx);
        }
    }
}
