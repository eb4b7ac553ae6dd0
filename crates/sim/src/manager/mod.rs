//! A manager: its part in the log, and while it leads the one writer, a planner and a dispatcher, as
//! a daemon has them.
//!
//! The decisions are the real ones (`raft::decide`, `planner`, `manager::dispatch`,
//! `manager::control`); here is what carries them: the queue of the writer, and the calls of nodes.
//! How the log comes about is [`crate::consensus`].

mod plan;
mod roles;
mod rpc;
mod term;
mod user;

use crate::consensus::{Fate, Id};
use crate::context::{Context, Event, Happened};
use crate::random::Random;
use manager::Uptime;
use manager::dispatch::{Command, Now};
use raft::{Decide, Time};
pub use rpc::{SessionState, node_id};
use std::time::Duration;
use store::View;
use term::{Term, Writing};
use types::{Fault, Timestamp, Version};
pub(crate) use user::Order;
pub use user::{address, first, machine_at};

/// The id of the cluster.
const CLUSTER: &str = "cluster";
/// The time of day when a run begins.
const EPOCH: i64 = 1_700_000_000_000_000_000;

/// Something that is due to the process.
#[derive(Clone, Copy, Debug)]
pub enum Due {
    /// The writer takes what waits.
    Take,
    /// This entry has been on its way for too long.
    Late(u64),
    /// The dispatcher wants to be called; of so many calls.
    Tick(u64),
    /// The planner wants to be called; of so many calls.
    Plan(u64),
    /// It is seen whether the log's members are those that the store names.
    Roles,
}

/// Who waits for the outcome of a closure.
#[derive(Debug)]
pub(crate) enum Reply {
    Planned,
    /// A node's call.
    Call(rpc::Pending),
    Observed,
    Roles,
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
            Reply::Call(_) | Reply::Roles | Reply::User(_) => false,
        }
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.reply.fmt(f)
    }
}

#[derive(Debug)]
pub struct Manager {
    /// Its number in the log, and its machine's.
    pub id: Id,
    pub machine: usize,
    /// How far its time of day is off.
    pub skew: i64,
    /// Counts its processes and its terms.
    life: u64,
    alive: Option<Alive>,
    random: Random,
}

/// What a process has in memory.
#[derive(Debug)]
struct Alive {
    born: Duration,
    view: View,
    /// What the cluster's clock said last, and when.
    clock: (Time, Duration),
    /// What it has written and does not know the fate of.
    writing: Option<Writing>,
    term: Option<Term>,
}

impl Manager {
    pub fn new(id: Id, machine: usize, random: Random) -> Self {
        Self { id, machine, skew: 0, life: 0, alive: None, random }
    }

    pub fn is_up(&self) -> bool {
        self.alive.is_some()
    }

    /// The newest view that it has, while it is there.
    pub fn view(&self) -> Option<&View> {
        self.alive.as_ref().map(|alive| &alive.view)
    }

    /// The term that it leads in, and since when.
    pub fn leads(&self) -> Option<(u64, Duration)> {
        self.alive.as_ref()?.term.as_ref().map(|term| (term.number, term.since))
    }

    fn term(&mut self) -> Option<&mut Term> {
        self.alive.as_mut()?.term.as_mut()
    }

    /// Says whether there is nothing that waits to be written.
    pub fn is_idle(&self) -> bool {
        self.alive.as_ref().is_some_and(|alive| {
            let waits = alive.term.as_ref().is_some_and(|term| !term.queue.is_empty());
            !waits && alive.writing.is_none()
        })
    }

    /// How a node's session is, if it has one.
    pub fn session_of(&self, node: usize) -> Option<SessionState> {
        self.alive.as_ref()?.term.as_ref()?.calls.session_of(node)
    }

    /// The cluster's time.
    pub fn time(&mut self, now: Duration) -> Timestamp {
        let wall = wall(now, self.skew);
        let Some(alive) = &mut self.alive else { return wall };
        let (last, at) = alive.clock;
        let newest = wall.max(alive.view.time());
        alive.clock = (last.after(now.saturating_sub(at), newest), now);
        alive.clock.0.now
    }

    fn now(&mut self, now: Duration) -> Now {
        let time = self.time(now);
        let born = self.alive.as_ref().map_or(now, |alive| alive.born);
        Now { uptime: Uptime(now.saturating_sub(born)), time, day: wall(now, self.skew) }
    }

    /// The process starts: everything is what the disk says.
    pub fn start(&mut self, ctx: &mut Context) {
        if self.alive.is_some() {
            return;
        }
        self.life += 1;
        let id = self.id;
        ctx.log(|log, _, now| log.start(id, now));
        let view = ctx.log.view(id);
        if let Some(read) = ctx.log.replay(id) {
            ctx.happened.push(Happened::Back { manager: self.machine, read });
        }
        let clock = Time::begin(view.time(), wall(ctx.now, self.skew));
        let (clock, writing, term) = ((clock, ctx.now), None, None);
        self.alive = Some(Alive { born: ctx.now, view, clock, writing, term });
        ctx.tell(|| format!("manager {id} starts"));
        self.look(ctx);
    }

    /// The process dies: what was being written may be on disk or not.
    pub fn die(&mut self, ctx: &mut Context) {
        if self.alive.take().is_none() {
            return;
        }
        let (id, machine) = (self.id, self.machine);
        ctx.log(|log, _, _| log.die(id));
        ctx.tell(|| format!("manager {id} dies"));
        ctx.sever_all(ctx.network.of_manager(machine), Duration::from_millis(50));
    }

    pub fn handle(&mut self, life: u64, due: Due, ctx: &mut Context) {
        if life != self.life || self.alive.is_none() {
            return;
        }
        match due {
            Due::Take => self.take(ctx),
            Due::Late(entry) => self.late(entry, ctx),
            Due::Tick(count) => {
                if self.term().is_some_and(|term| term.ticks == count) {
                    self.command(Command::Tick, ctx);
                }
            }
            Due::Roles => self.roles(ctx),
            Due::Plan(count) => {
                if self.term().is_some_and(|term| term.planning.is_due(count)) {
                    self.plan(ctx);
                }
            }
        }
    }

    /// Looks how far the log is, and who leads by it.
    pub fn look(&mut self, ctx: &mut Context) {
        let Some(alive) = &mut self.alive else { return };
        let leadership = ctx.log.leadership(self.id, ctx.now);
        let goes_on = |term: &Term| leadership.is_own && leadership.term == term.number;
        if alive.term.as_ref().is_some_and(|term| !goes_on(term)) {
            self.end_term(ctx);
        }
        let Some(alive) = &mut self.alive else { return };
        let view = ctx.log.view(self.id);
        let is_news = view.version() != alive.view.version();
        if is_news {
            alive.view = view.clone();
            if alive.term.is_some() {
                self.command(Command::View(view.into()), ctx);
            }
        }
        self.written(ctx);
        let Some(alive) = &mut self.alive else { return };
        if leadership.is_own && alive.term.is_none() {
            self.begin_term(leadership.term, ctx);
        } else if is_news && alive.term.is_some() {
            self.plan(ctx);
        }
    }

    /// Looks what became of what was written.
    fn written(&mut self, ctx: &mut Context) {
        let Some(alive) = &mut self.alive else { return };
        let Some(entry) = alive.writing.as_ref().map(|it| it.entry) else { return };
        let outcome = match ctx.log.fate(self.id, entry) {
            Fate::Waits => return,
            Fate::At(version) => Ok(version),
            Fate::Lost => Err(replaced()),
        };
        let waiting = alive.writing.take().map(|it| it.waiting);
        for reply in waiting.into_iter().flatten() {
            self.answer(reply, outcome.clone(), ctx);
        }
        ctx.after(Duration::from_micros(20), Event::Manager(self.id, self.life, Due::Take));
    }

    fn answer(&mut self, reply: Reply, outcome: Result<Version, Fault>, ctx: &mut Context) {
        match reply {
            Reply::Planned => self.planned(outcome, ctx),
            Reply::Call(pending) => self.decided(pending, outcome, ctx),
            Reply::Observed => self.command(Command::Written, ctx),
            Reply::Roles => self.roles_after(outcome.is_ok(), ctx),
            Reply::User(what) => ctx.tell(|| match outcome {
                Ok(version) => format!("user: {what}: done, version {}", version.0),
                Err(fault) => format!("user: {what}: {fault}"),
            }),
        }
    }
}

/// As `raft` says it.
fn replaced() -> Fault {
    Fault::unavailable(
        "this manager stopped leading the cluster on the way; the change may have been made",
    )
}

/// The time of day on a machine whose clock is off by `skew`.
pub fn wall(now: Duration, skew: i64) -> Timestamp {
    Timestamp(EPOCH + skew).after(now)
}
