//! The connection to a manager, as `agent::connection` has it: one session at a time, opened anew
//! for as long as the daemon lives. `agent::session` decides; here are streams, calls and timers.

use super::{Due, Node};
use crate::context::{Context, Happened};
use crate::manager::machine_at;
use crate::network::{self, Body, Packet, Way};
use agent::Pauses;
use agent::session::{
    ANSWER_MAX, Answer, Call, Ending, Event, Lasting, Order, Output, Session, halfway,
};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use types::{Fault, NodeDescription, Platform, TaskId, TaskStatus};
use wire::{SessionMessage, SessionRequest};

/// How long certificates hold.
const VALIDITY: Duration = Duration::from_hours(90 * 24);
/// What one order takes.
const ORDER: Duration = Duration::from_micros(30);

/// Which call of the session an answer is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Session,
    Heartbeat,
    Report,
    Acknowledge,
    Renew,
}

/// What comes out of a session's stream.
#[derive(Debug)]
enum Inbound {
    Message(Box<SessionMessage>),
    /// There is no more.
    End,
}

#[derive(Debug)]
struct Open {
    connection: u64,
    manager: usize,
    calls: BTreeMap<u64, Kind>,
    /// It says that the node is about to leave.
    leaving: bool,
    /// The manager has answered, and the session has begun.
    session: Option<Session>,
    /// What has arrived and was not read yet.
    inbox: VecDeque<Inbound>,
    /// What is being carried out.
    orders: VecDeque<Order>,
    /// What the session heard last of the data plane.
    applied: Option<u64>,
    trouble: Option<String>,
    /// When it is called without another event.
    wake: Option<Duration>,
}

#[derive(Debug, Default)]
pub(super) struct Connection {
    open: Option<Open>,
    lasting: Lasting,
    /// What managers are to be told.
    outbox: BTreeMap<TaskId, TaskStatus>,
    attempts: u64,
    /// Managers are asked in turn.
    turn: usize,
    pauses: Pauses,
}

impl Node {
    pub(super) fn attempt_after(&mut self, delay: Duration, ctx: &mut Context) {
        let Some(alive) = &mut self.alive else { return };
        alive.connection.attempts += 1;
        let attempt = alive.connection.attempts;
        self.due(delay, Due::Attempt(attempt), ctx);
    }

    pub(super) fn attempt(&mut self, count: u64, ctx: &mut Context) {
        let (address, is_parting) = (self.address, self.is_parting());
        let Some(alive) = &mut self.alive else { return };
        let leaving = alive.leaving.is_some();
        if count != alive.connection.attempts || alive.connection.open.is_some() || is_parting {
            return;
        }
        let (connection, call) = (ctx.draw(), ctx.draw());
        let turn = alive.connection.turn % self.managers.len();
        alive.connection.turn += 1;
        let manager = machine_at(&self.managers[turn]);
        ctx.network.connect(connection, (self.number, manager));
        alive.connection.open = Some(Open {
            connection,
            manager,
            calls: [(call, Kind::Session)].into(),
            leaving,
            session: None,
            inbox: VecDeque::new(),
            orders: VecDeque::new(),
            applied: None,
            trouble: None,
            wake: None,
        });
        let description = NodeDescription {
            hostname: format!("host{}", self.number),
            platform: Platform { os: "linux".to_owned(), architecture: "x86_64".to_owned() },
            nano_cpus: 8_000_000_000,
            memory_bytes: 16 << 30,
            log_format: store::Format::PRESENT.0,
            generic: generic(),
            ..NodeDescription::default()
        };
        let release = wire::Release::own();
        let request =
            SessionRequest { release, description, address, data_path_address: None, leaving };
        self.send((connection, call), network::Call::Session(Box::new(request)), ctx);
    }

    fn send(&mut self, (connection, id): (u64, u64), call: network::Call, ctx: &mut Context) {
        let node = self.number;
        let Some(manager) = self.open_of(connection).map(|open| open.manager) else { return };
        let body = Body::Call { id, call };
        ctx.send(Packet { node, manager, connection, way: Way::Up, body });
        self.due(ANSWER_MAX, Due::Late { connection, call: id }, ctx);
    }

    /// Says whether the session on this connection is open and began by saying that the node leaves.
    pub fn leaves_on(&self, connection: u64) -> bool {
        let open = self.alive.as_ref().and_then(|alive| alive.connection.open.as_ref());
        open.is_some_and(|it| it.connection == connection && it.session.is_some() && it.leaving)
    }

    fn open(&mut self) -> Option<&mut Open> {
        self.alive.as_mut()?.connection.open.as_mut()
    }

    fn open_of(&mut self, connection: u64) -> Option<&mut Open> {
        self.open().filter(|open| open.connection == connection)
    }

    /// A packet has arrived.
    pub fn receive(&mut self, packet: Packet, ctx: &mut Context) {
        let Packet { connection, body, .. } = packet;
        if self.leave_receives(connection, &body, ctx)
            || self.enroll_receives(connection, &body, ctx)
        {
            return;
        }
        let Some(open) = self.open_of(connection) else { return };
        match body {
            Body::Stream(message) => open.inbox.push_back(Inbound::Message(message)),
            Body::End => open.inbox.push_back(Inbound::End),
            Body::Closed => {
                open.inbox.push_back(Inbound::End);
                // Whoever waits for an answer notices at once.
                if let Some((_, kind)) = open.calls.pop_first() {
                    let gone = Err(Fault::unavailable("the connection is gone"));
                    self.answered(kind, gone, ctx);
                }
            }
            Body::Answer { id, answer } => {
                if let Some(kind) = open.calls.remove(&id) {
                    self.answered(kind, answer, ctx);
                }
            }
            Body::Call { .. } | Body::Again { .. } => {}
        }
        self.read(ctx);
    }

    pub(super) fn late(&mut self, connection: u64, call: u64, ctx: &mut Context) {
        let Some(open) = self.open_of(connection) else { return };
        if let Some(kind) = open.calls.remove(&call) {
            let late = Fault::unavailable("the manager did not answer in time");
            self.answered(kind, Err(late), ctx);
            if self.open_of(connection).is_some() {
                ctx.network.reset(call);
            }
        }
    }

    fn answered(&mut self, kind: Kind, answer: Result<network::Answer, Fault>, ctx: &mut Context) {
        let expires = self.time(ctx).after(VALIDITY);
        let done = answer.clone().map(drop);
        let answer = match kind {
            Kind::Session => {
                if let Ok(network::Answer::Elsewhere(managers)) = answer {
                    agent::hear_of(&mut self.managers, managers);
                    return self.opened(Err(Fault::not_leading()), ctx);
                }
                return self.opened(done, ctx);
            }
            Kind::Heartbeat => Answer::Heartbeat(answer.and_then(|answer| match answer {
                network::Answer::Heartbeat(reply) => Ok(reply),
                network::Answer::Done
                | network::Answer::Opened
                | network::Answer::Renewed(_)
                | network::Answer::Enrolled(_)
                | network::Answer::Elsewhere(_) => Err(Fault::internal("no answer to a heartbeat")),
            })),
            Kind::Report => Answer::Report(done),
            Kind::Acknowledge => Answer::Acknowledge(done),
            Kind::Renew => {
                if let Ok(network::Answer::Renewed(role)) = answer {
                    self.role = role;
                }
                Answer::Renewed(done.map(|()| expires))
            }
        };
        self.tell_session(Event::Answered(answer), ctx);
    }

    /// The stream is open, or cannot be opened.
    fn opened(&mut self, done: Result<(), Fault>, ctx: &mut Context) {
        if let Err(fault) = done {
            return self.over_as(Ending::of(&fault), &fault.message, ctx);
        }
        let (address, now) = (self.address, self.clock(ctx));
        let Some(alive) = &mut self.alive else { return };
        let Some(open) = &mut alive.connection.open else { return };
        if open.leaving != alive.leaving.is_some() {
            return self.over("it is about to leave: another session says so", ctx);
        }
        let mut lasting = std::mem::take(&mut alive.connection.lasting);
        lasting.role = self.role;
        open.session = Some(Session::begin(address, lasting, now));
        // While it was away, it may have been made another one.
        alive.asks_number = true;
        self.tell_applied(ctx);
        self.report(BTreeMap::new(), ctx);
        self.read(ctx);
    }

    /// Reads the stream, for as long as the session takes more.
    fn read(&mut self, ctx: &mut Context) {
        let is_parting = self.is_parting();
        while let Some(open) = self.open() {
            if !open.session.as_ref().is_some_and(Session::takes_messages) {
                return;
            }
            match open.inbox.pop_front() {
                Some(Inbound::Message(message)) => {
                    ctx.network.was_read(open.connection);
                    if is_parting {
                        self.tell_session(Event::Parting, ctx);
                    }
                    self.tell_session(Event::Message(*message), ctx);
                }
                Some(Inbound::End) => self.over("the manager has ended the session", ctx),
                None => return,
            }
        }
    }

    pub(super) fn session_wakes(&mut self, connection: u64, ctx: &mut Context) {
        let now = ctx.now;
        let Some(open) = self.open_of(connection) else { return };
        if open.wake.take_if(|wake| *wake <= now).is_some() {
            self.tell_session(Event::Tick, ctx);
        }
    }

    /// Managers are to be told this of tasks.
    pub(super) fn report(&mut self, statuses: BTreeMap<TaskId, TaskStatus>, ctx: &mut Context) {
        let Some(alive) = &mut self.alive else { return };
        let connection = &mut alive.connection;
        connection.outbox.extend(statuses);
        let has_session = connection.open.as_ref().is_some_and(|open| open.session.is_some());
        if has_session && !connection.outbox.is_empty() {
            let statuses = std::mem::take(&mut connection.outbox);
            self.tell_session(Event::Statuses(statuses), ctx);
        }
    }

    /// The session hears what is new of the data plane.
    pub(super) fn tell_applied(&mut self, ctx: &mut Context) {
        let Some(alive) = &mut self.alive else { return };
        let (applied, trouble) = (alive.dataplane.applied, alive.dataplane.trouble.clone());
        let Some(open) = alive.connection.open.as_mut().filter(|it| it.session.is_some()) else {
            return;
        };
        let is_news = open.applied.replace(applied) != Some(applied);
        let is_trouble = open.trouble.as_ref() != Some(&trouble);
        if is_trouble {
            open.trouble = Some(trouble.clone());
            self.tell_session(Event::Trouble(trouble), ctx);
        }
        if is_news {
            self.tell_session(Event::Applied(applied), ctx);
        }
    }

    /// Tells the session, and does what it wants.
    fn tell_session(&mut self, event: Event, ctx: &mut Context) {
        let now = self.clock(ctx);
        let Some(Open { session: Some(session), wake, connection, .. }) = self.open() else {
            return;
        };
        let outputs = session.handle(event, now);
        let (due, connection) = (session.wake(), *connection);
        if let Some(at) = due.filter(|at| *wake != Some(*at)) {
            *wake = Some(at);
            let event = Due::SessionWakes { connection };
            ctx.at(at, crate::context::Event::Node(self.number, self.life, event));
        }
        for output in outputs {
            self.carry(connection, output, ctx);
        }
    }

    fn carry(&mut self, connection: u64, output: Output, ctx: &mut Context) {
        match output {
            Output::Order(order) => {
                let Some(open) = self.open_of(connection) else { return };
                open.orders.push_back(order);
                if open.orders.len() == 1 {
                    self.due(ORDER, Due::Order { connection }, ctx);
                }
            }
            Output::Call(call) => self.call(connection, call, ctx),
            Output::Close(reason) => self.over(&reason, ctx),
            // Nobody follows logs here.
            Output::PublishLog(_) | Output::RefuseLog { .. } | Output::StopLog(_) => {}
            Output::Managers(managers) => self.managers = managers,
        }
    }

    /// Carries out the next order. The data plane takes none while its kernel is busy.
    pub(super) fn order(&mut self, connection: u64, ctx: &mut Context) {
        let Some(alive) = &mut self.alive else { return };
        let Some(open) = &mut alive.connection.open else { return };
        if open.connection != connection || open.orders.is_empty() {
            return;
        }
        let is_for_dataplane =
            matches!(open.orders.front(), Some(Order::Identify(_) | Order::Learn { .. }));
        if is_for_dataplane && alive.dataplane.is_busy() {
            return;
        }
        match open.orders.pop_front() {
            Some(Order::Identify(identity)) => alive.dataplane.identify(identity),
            Some(Order::Learn { news, version }) => {
                if let Err(reason) = alive.dataplane.learn(news, version) {
                    return self.over(&reason, ctx);
                }
            }
            Some(Order::Work(event)) => self.due(ORDER, Due::Assigned(event), ctx),
            Some(Order::Begun { managers, .. }) if !managers.is_empty() => self.managers = managers,
            Some(Order::Begun { .. } | Order::Connected) | None => {}
        }
        if is_for_dataplane {
            self.settle(ctx);
            self.tell_applied(ctx);
        }
        let Some(alive) = &mut self.alive else { return };
        let applied = alive.dataplane.applied;
        let Some(open) = alive.connection.open.as_mut().filter(|it| it.connection == connection)
        else {
            return;
        };
        if open.orders.is_empty() {
            open.applied = Some(applied);
            self.tell_session(Event::CarriedOut { applied }, ctx);
            self.read(ctx);
        } else {
            self.due(ORDER, Due::Order { connection }, ctx);
        }
    }

    /// The data plane takes orders again.
    pub(super) fn order_on(&mut self, ctx: &mut Context) {
        let waiting = self.open().filter(|open| !open.orders.is_empty());
        if let Some(connection) = waiting.map(|open| open.connection) {
            self.order(connection, ctx);
        }
    }

    fn call(&mut self, connection: u64, call: Call, ctx: &mut Context) {
        let id = ctx.draw();
        let (kind, call) = match call {
            Call::Heartbeat { beat, .. } => (Kind::Heartbeat, network::Call::Heartbeat(beat)),
            Call::Acknowledge(it) => (Kind::Acknowledge, network::Call::Acknowledge(it)),
            // Certificates are no part of the simulation.
            Call::Renew | Call::Trust(_) => (Kind::Renew, network::Call::Renew),
            Call::Report(report) => {
                for (task, status) in &report.statuses {
                    let (node, task, state) = (self.number, task.clone(), status.state);
                    ctx.happened.push(Happened::Reported { node, task, state });
                }
                (Kind::Report, network::Call::Report(report))
            }
        };
        let Some(open) = self.open_of(connection) else { return };
        open.calls.insert(id, kind);
        self.send((connection, id), call, ctx);
    }

    /// The session is over, or could not be opened; another one is tried.
    fn over(&mut self, reason: &str, ctx: &mut Context) {
        self.over_as(Ending::Useless, reason, ctx);
    }

    fn over_as(&mut self, refused: Ending, reason: &str, ctx: &mut Context) {
        let managers = self.managers.len();
        let Some(alive) = &mut self.alive else { return };
        let it = &mut alive.connection;
        let Some(Open { session, connection, .. }) = it.open.take() else { return };
        let mut ending = refused;
        let mut is_silent = false;
        if let Some(session) = session {
            ending = session.ending();
            is_silent = session.is_silent();
            it.lasting = session.end();
            for (task, status) in std::mem::take(&mut it.lasting.statuses) {
                it.outbox.entry(task).or_insert(status);
            }
        }
        if ending == Ending::Useful && !is_silent {
            // The same manager is asked first again.
            it.turn -= 1;
        }
        let pause = it.pauses.after(ending, managers);
        let number = self.number;
        ctx.trace(|| format!("node {number}: session over: {reason}"));
        ctx.sever(connection, Duration::from_millis(20));
        let pause = self.random.between(pause.mul_f64(0.7), pause.mul_f64(1.3));
        self.attempt_after(pause, ctx);
    }
}

impl Connection {
    /// The connection of a daemon that starts, with the certificate that is on its disk.
    pub(super) fn new(now: types::Timestamp) -> Self {
        let renew_at = halfway(now, now.after(VALIDITY));
        Self { lasting: Lasting { renew_at, ..Lasting::default() }, ..Self::default() }
    }
}

/// More than users ever ask for, each with a name.
fn generic() -> types::GenericResources {
    let names = (0..64).map(|number| format!("gpu{number:02}")).collect();
    [("gpu".to_owned(), types::Amount::Names(names))].into()
}
