//! The manager: its log, its one writer, its planner and its dispatcher, as a daemon has them.
//!
//! The decisions are the real ones (`raft::decide`, `planner`, `manager::dispatch`,
//! `manager::control`); here is what carries them: the disk, which takes its time, the queue of
//! the writer, and the calls of nodes.

mod log;
mod plan;
mod rpc;
mod user;

use crate::context::{Context, Event, Happened};
use crate::random::Random;
use log::Log;
use manager::Uptime;
use manager::dispatch::{Command, Dispatcher, Now, Output};
use plan::Planning;
use raft::{Decide, Decided, Decisions, Time};
use rpc::Calls;
pub use rpc::node_id;
use std::collections::VecDeque;
use std::time::Duration;
use store::{Changes, View};
use types::{Fault, Timestamp, Version};

/// Changes of others that may wait to be decided. The real queue is longer, and whoever finds it full
/// waits for a place before they are refused; here it is full in every storm.
const QUEUE: usize = 2;
/// Closures that become one entry at most.
const BATCH: usize = 256;
/// The id of the cluster.
const CLUSTER: &str = "cluster";
/// The time of day when a run begins.
const EPOCH: i64 = 1_700_000_000_000_000_000;

/// Something that is due to the process.
#[derive(Clone, Copy, Debug)]
pub enum Due {
    /// The writer takes what waits.
    Take,
    /// An entry is on disk.
    Written,
    /// The dispatcher wants to be called; of so many calls.
    Tick(u64),
    /// The planner wants to be called; of so many calls.
    Plan(u64),
}

/// Who waits for the outcome of a closure.
#[derive(Debug)]
pub(crate) enum Reply {
    Planned,
    /// A node's call.
    Call(rpc::Pending),
    Observed,
    User(String),
}

pub(crate) struct Request {
    pub(crate) decide: Decide,
    pub(crate) reply: Reply,
}

impl Request {
    /// Says whether a loop of the manager itself waits for it: there is one of each at a time.
    fn is_own(&self) -> bool {
        match self.reply {
            Reply::Planned | Reply::Observed => true,
            Reply::Call(_) | Reply::User(_) => false,
        }
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.reply.fmt(f)
    }
}

/// An entry that is being written.
#[derive(Debug)]
struct Writing {
    changes: Changes,
    time: Timestamp,
    waiting: Vec<Reply>,
}

#[derive(Debug)]
pub struct Manager {
    pub disk: Log,
    /// How far its time of day is off.
    pub skew: i64,
    /// Counts its processes.
    pub life: u64,
    alive: Option<Alive>,
    random: Random,
    /// What it held last, to compare with what it finds when it comes back.
    held: View,
}

/// What a process has in memory.
#[derive(Debug)]
struct Alive {
    born: Duration,
    view: View,
    /// What the cluster's clock said last, and when.
    clock: (Time, Duration),
    queue: VecDeque<Request>,
    writing: Option<Writing>,
    planning: Planning,
    dispatcher: Dispatcher,
    calls: Calls,
    ticks: u64,
}

impl Manager {
    pub fn new(random: Random) -> Self {
        Self { disk: Log::default(), skew: 0, life: 0, alive: None, random, held: View::default() }
    }

    pub fn is_up(&self) -> bool {
        self.alive.is_some()
    }

    /// The newest view; what it held last, while it is away.
    pub fn view(&self) -> &View {
        self.alive.as_ref().map_or(&self.held, |alive| &alive.view)
    }

    /// Says whether there is nothing that waits to be written.
    pub fn is_idle(&self) -> bool {
        self.alive.as_ref().is_some_and(|alive| alive.queue.is_empty() && alive.writing.is_none())
    }

    /// How a node's session is, if it has one.
    pub fn session_of(&self, node: usize) -> Option<rpc::SessionState> {
        self.alive.as_ref()?.calls.session_of(node)
    }

    /// The cluster's time.
    pub fn time(&mut self, now: Duration) -> Timestamp {
        let wall = wall(now, self.skew);
        let Some(alive) = &mut self.alive else { return wall };
        let (last, at) = alive.clock;
        alive.clock = (last.after(now.saturating_sub(at), wall), now);
        alive.clock.0.now
    }

    fn now(&mut self, now: Duration) -> Now {
        let time = self.time(now);
        let born = self.alive.as_ref().map_or(now, |alive| alive.born);
        Now { uptime: Uptime(now.saturating_sub(born)), time, day: wall(now, self.skew) }
    }

    /// The process starts: everything is what the disk says.
    pub fn start(&mut self, ctx: &mut Context) {
        self.life += 1;
        let view = self.disk.replay();
        let before = std::mem::take(&mut self.held);
        let clock = Time::begin(view.time(), wall(ctx.now, self.skew));
        let time = clock.now;
        let now = Now { uptime: Uptime(Duration::ZERO), time, day: time };
        self.alive = Some(Alive {
            born: ctx.now,
            dispatcher: Dispatcher::new(view.clone(), now),
            view,
            clock: (clock, ctx.now),
            queue: VecDeque::new(),
            writing: None,
            planning: Planning::default(),
            calls: Calls::default(),
            ticks: 0,
        });
        ctx.tell(|| "manager starts".to_owned());
        ctx.happened.push(Happened::Back { before });
        self.command(Command::Tick, ctx);
        self.plan(ctx);
    }

    /// The process dies: what was being written may be on disk or not.
    pub fn die(&mut self, ctx: &mut Context) {
        let Some(alive) = self.alive.take() else { return };
        self.held = alive.view;
        if let Some(writing) = alive.writing
            && self.random.chance(500)
        {
            let index = Version(self.held.version().0 + 1);
            self.disk.append(&self.held, &writing.changes, (index, writing.time));
            self.held.apply(&writing.changes, index, writing.time);
        }
        ctx.tell(|| "manager dies".to_owned());
        for connection in ctx.network.all() {
            ctx.sever(connection, Duration::from_millis(50));
        }
    }

    pub fn handle(&mut self, life: u64, due: Due, ctx: &mut Context) {
        if life != self.life || self.alive.is_none() {
            return;
        }
        match due {
            Due::Take => self.take(ctx),
            Due::Written => self.written(ctx),
            Due::Tick(count) => {
                if self.alive.as_ref().is_some_and(|alive| alive.ticks == count) {
                    self.command(Command::Tick, ctx);
                }
            }
            Due::Plan(count) => {
                if self.alive.as_mut().is_some_and(|alive| alive.planning.is_due(count)) {
                    self.plan(ctx);
                }
            }
        }
    }

    pub(crate) fn sequence(&mut self, request: Request, ctx: &mut Context) {
        let Some(alive) = &mut self.alive else { return };
        if request.is_own() {
            alive.queue.push_front(request);
        } else if alive.queue.iter().filter(|it| !it.is_own()).count() < QUEUE {
            alive.queue.push_back(request);
        } else {
            let fault = Fault::unavailable("too many changes wait for this manager: try again");
            return self.answer(request.reply, Err(fault), ctx);
        }
        if alive.writing.is_none() {
            ctx.after(Duration::from_micros(20), Event::Manager(self.life, Due::Take));
        }
    }

    fn take(&mut self, ctx: &mut Context) {
        let time = self.time(ctx.now);
        let Some(alive) = &mut self.alive else { return };
        if alive.writing.is_some() || alive.queue.is_empty() {
            return;
        }
        let count = alive.queue.len().min(BATCH);
        let (closures, replies): (Vec<Decide>, Vec<Reply>) =
            alive.queue.drain(..count).map(|it| (it.decide, it.reply)).unzip();
        let present = alive.view.version();
        let Decisions { changes, decided } = raft::decide(closures, alive.view.clone(), time);
        let mut waiting = Vec::new();
        let mut answers = Vec::new();
        for (decided, reply) in decided.into_iter().zip(replies) {
            match decided {
                Decided::AsItIs => answers.push((reply, Ok(present))),
                Decided::Changes => waiting.push(reply),
                Decided::Refused(fault) => answers.push((reply, Err(fault))),
            }
        }
        if !changes.is_empty() && self.disk.full > 0 {
            let full = || Err(Fault::unavailable("no space left on the manager's disk"));
            answers.extend(waiting.drain(..).map(|reply| (reply, full())));
        } else if !changes.is_empty() {
            alive.writing = Some(Writing { changes, time, waiting });
            let slow = self.disk.slow.iter().max().copied().unwrap_or_default();
            let write = self.random.between(Duration::from_micros(200), Duration::from_millis(4));
            ctx.after(write + slow, Event::Manager(self.life, Due::Written));
        }
        for (reply, outcome) in answers {
            self.answer(reply, outcome, ctx);
        }
        let rest =
            self.alive.as_ref().is_some_and(|it| it.writing.is_none() && !it.queue.is_empty());
        if rest {
            ctx.after(Duration::from_micros(20), Event::Manager(self.life, Due::Take));
        }
    }

    fn written(&mut self, ctx: &mut Context) {
        let Some(alive) = &mut self.alive else { return };
        let Some(Writing { changes, time, waiting }) = alive.writing.take() else { return };
        let before = alive.view.clone();
        let index = Version(before.version().0 + 1);
        self.disk.append(&before, &changes, (index, time));
        alive.view.apply(&changes, index, time);
        self.disk.compact(&alive.view);
        let view = alive.view.clone();
        ctx.happened.push(Happened::Stored { before });
        self.command(Command::View(view), ctx);
        for reply in waiting {
            self.answer(reply, Ok(index), ctx);
        }
        self.plan(ctx);
        ctx.after(Duration::from_micros(20), Event::Manager(self.life, Due::Take));
    }

    fn answer(&mut self, reply: Reply, outcome: Result<Version, Fault>, ctx: &mut Context) {
        match reply {
            Reply::Planned => self.planned(outcome, ctx),
            Reply::Call(pending) => self.decided(pending, outcome, ctx),
            Reply::Observed => self.command(Command::Written, ctx),
            Reply::User(what) => ctx.tell(|| match outcome {
                Ok(version) => format!("user: {what}: done, version {}", version.0),
                Err(fault) => format!("user: {what}: {fault}"),
            }),
        }
    }

    /// Tells the dispatcher, and does what it wants.
    pub(crate) fn command(&mut self, command: Command, ctx: &mut Context) {
        let now = self.now(ctx.now);
        let Some(alive) = &mut self.alive else { return };
        let outputs = alive.dispatcher.handle(command, now);
        for output in outputs {
            match output {
                Output::Send { session, message, .. } => self.send(&session, message, ctx),
                Output::Close { session, .. } => self.close(&session, ctx),
                Output::Beat { session, reply, .. } => {
                    let next = reply.map(|reply| Duration::from_millis(reply.next_millis));
                    self.beat(&session, &next, ctx);
                }
                // Nobody follows logs here, and who is no node is not heard anyway.
                Output::Part | Output::Logs(_) => {}
                Output::Write(observation) => {
                    let decide: Decide =
                        Box::new(move |view: &View, now| Ok(observation.changes(view, now)));
                    self.sequence(Request { decide, reply: Reply::Observed }, ctx);
                }
            }
        }
        let Some(alive) = &mut self.alive else { return };
        alive.ticks += 1;
        let at = alive.born + alive.dispatcher.wake().0;
        ctx.at(at, Event::Manager(self.life, Due::Tick(alive.ticks)));
    }
}

/// The time of day on a machine whose clock is off by `skew`.
pub fn wall(now: Duration, skew: i64) -> Timestamp {
    Timestamp(EPOCH + skew).after(now)
}
