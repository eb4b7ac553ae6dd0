//! The line to the manager: one session at a time, as `agent::session` has it.

use super::session::{Answer, Call, Event, Lasting, Now, Output, Session};
use super::{Due, Node};
use crate::context::{Context, Happened};
use crate::network::{self, Body, Packet, Way};
use std::collections::BTreeMap;
use std::time::Duration;
use types::{Fault, NodeDescription, Platform};
use wire::SessionRequest;

const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Between two attempts, from the first to the last.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_millis(600);

/// Which call of the session an answer is to.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Session,
    Heartbeat,
    Report,
    Acknowledge,
}

#[derive(Debug)]
struct Open {
    session: Session,
    connection: u64,
    calls: BTreeMap<u64, Kind>,
}

#[derive(Debug, Default)]
pub(super) struct Line {
    open: Option<Open>,
    lasting: Lasting,
    attempts: u64,
    pause: Duration,
}

impl Node {
    pub(super) fn attempt_after(&mut self, delay: Duration, ctx: &mut Context) {
        let Some(alive) = &mut self.alive else { return };
        alive.line.attempts += 1;
        let attempt = alive.line.attempts;
        self.due(delay, Due::Attempt(attempt), ctx);
    }

    pub(super) fn attempt(&mut self, count: u64, ctx: &mut Context) {
        let address = self.address;
        let is_parting = self.is_parting();
        let Some(alive) = &mut self.alive else { return };
        if count != alive.line.attempts || alive.line.open.is_some() || is_parting {
            return;
        }
        let connection = ctx.draw();
        ctx.network.connect(connection, self.number);
        let call = ctx.draw();
        let lasting = std::mem::take(&mut alive.line.lasting);
        alive.line.open = Some(Open {
            session: Session::begin(lasting, alive.dataplane.applied),
            connection,
            calls: [(call, Kind::Session)].into(),
        });
        let description = NodeDescription {
            hostname: format!("host{}", self.number),
            platform: Platform { os: "linux".to_owned(), architecture: "x86_64".to_owned() },
            nano_cpus: 8_000_000_000,
            memory_bytes: 16 << 30,
            ..NodeDescription::default()
        };
        let release = wire::Release::own();
        let request = SessionRequest { release, description, address, data_path_address: None };
        self.send(connection, call, network::Call::Session(Box::new(request)), ctx);
    }

    fn send(&mut self, connection: u64, id: u64, call: network::Call, ctx: &mut Context) {
        let node = self.number;
        ctx.send(Packet { node, connection, way: Way::Up, body: Body::Call { id, call } });
        self.due(ANSWER_MAX, Due::Late { connection, call: id }, ctx);
    }

    /// A packet has arrived.
    pub fn receive(&mut self, packet: Packet, ctx: &mut Context) {
        let Packet { connection, body, .. } = packet;
        if self.leave_receives(connection, &body, ctx) {
            return;
        }
        let Some(open) = self.alive.as_mut().and_then(|alive| alive.line.open.as_mut()) else {
            return;
        };
        if open.connection != connection {
            return;
        }
        match body {
            Body::Stream(message) => self.tell_session(Event::Message(message), ctx),
            Body::Closed => self.over("the connection is gone", ctx),
            Body::Answer { id, answer } => {
                let Some(kind) = open.calls.remove(&id) else { return };
                self.answered(kind, answer, ctx);
            }
            Body::Call { .. } => {}
        }
    }

    fn answered(&mut self, kind: Kind, answer: Result<network::Answer, Fault>, ctx: &mut Context) {
        let done = answer.clone().map(|_| ());
        let answer = match kind {
            Kind::Session => {
                if let Err(fault) = done {
                    self.over(&fault.message, ctx);
                }
                return;
            }
            Kind::Heartbeat => Answer::Heartbeat(answer.map(|answer| match answer {
                network::Answer::Heartbeat(next) => next,
                network::Answer::Done => Duration::from_secs(5),
            })),
            Kind::Report => Answer::Report(done),
            Kind::Acknowledge => Answer::Acknowledge(done),
        };
        self.tell_session(Event::Answered(answer), ctx);
    }

    pub(super) fn late(&mut self, connection: u64, call: u64, ctx: &mut Context) {
        let open = self.alive.as_mut().and_then(|alive| alive.line.open.as_mut());
        let Some(open) = open.filter(|open| open.connection == connection) else { return };
        if let Some(kind) = open.calls.remove(&call) {
            let late = Fault::unavailable("the manager did not answer in time");
            self.answered(kind, Err(late), ctx);
        }
    }

    pub(super) fn beat(&mut self, connection: u64, ctx: &mut Context) {
        let open = self.alive.as_ref().and_then(|alive| alive.line.open.as_ref());
        if open.is_some_and(|open| open.connection == connection) {
            self.tell_session(Event::Tick, ctx);
        }
    }

    /// Tells the session, and does what it wants.
    pub(super) fn tell_session(&mut self, event: Event, ctx: &mut Context) {
        let now = Now { uptime: ctx.now, time: self.time(ctx) };
        let Some(alive) = &mut self.alive else { return };
        let Some(open) = &mut alive.line.open else {
            if let Event::Statuses(statuses) = event {
                alive.line.lasting.statuses.extend(statuses);
            }
            return;
        };
        let connection = open.connection;
        let before = open.session.wake();
        let outputs = open.session.handle(event, now);
        if let Some(wake) = open.session.wake().filter(|wake| Some(*wake) != before) {
            let due = Due::Beat { connection };
            ctx.at(wake, crate::context::Event::Node(self.number, self.life, due));
        }
        for output in outputs {
            self.carry(connection, output, ctx);
        }
    }

    fn carry(&mut self, connection: u64, output: Output, ctx: &mut Context) {
        let (id, address) = (self.id.clone(), self.address);
        let Some(alive) = &mut self.alive else { return };
        match output {
            Output::Learn { knowledge, version } => {
                alive.dataplane.identify(id, address);
                alive.dataplane.learn(knowledge, version);
                self.settle(ctx);
            }
            Output::Work(event) => {
                if self.takes_orders() {
                    self.due(Duration::from_micros(10), Due::Event(event), ctx);
                }
            }
            Output::Call(call) => self.make(connection, call, ctx),
            Output::Close(reason) => self.over(&reason, ctx),
        }
    }

    fn make(&mut self, connection: u64, call: Call, ctx: &mut Context) {
        let id = ctx.draw();
        let Some(open) = self.alive.as_mut().and_then(|alive| alive.line.open.as_mut()) else {
            return;
        };
        let (kind, call) = match call {
            Call::Heartbeat(session) => (Kind::Heartbeat, network::Call::Heartbeat { session }),
            Call::Acknowledge(session, version) => {
                (Kind::Acknowledge, network::Call::Acknowledge { session, version })
            }
            Call::Report(report) => {
                for (task, status) in &report.statuses {
                    let (node, task, state) = (self.number, task.clone(), status.state);
                    ctx.happened.push(Happened::Reported { node, task, state });
                }
                (Kind::Report, network::Call::Report(report))
            }
        };
        open.calls.insert(id, kind);
        self.send(connection, id, call, ctx);
    }

    /// The session is over; another one is tried.
    fn over(&mut self, reason: &str, ctx: &mut Context) {
        let Some(alive) = &mut self.alive else { return };
        let Some(Open { session, connection, .. }) = alive.line.open.take() else { return };
        let pause = if session.is_useful() { PAUSE_MIN } else { alive.line.pause };
        alive.line.pause = (pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        alive.line.lasting = session.end();
        let number = self.number;
        ctx.trace(|| format!("node {number}: session over: {reason}"));
        let due = ctx.network.sever(ctx.now, connection, Duration::from_millis(20));
        ctx.deliver(due);
        let pause = pause.max(PAUSE_MIN);
        let pause = self.random.between(pause.mul_f64(0.7), pause.mul_f64(1.3));
        self.attempt_after(pause, ctx);
    }

    /// No session is opened any more, and the present one ends.
    pub(super) fn end_line(&mut self, ctx: &mut Context) {
        self.tell_session(Event::Parting, ctx);
        self.over("this node leaves", ctx);
    }
}
