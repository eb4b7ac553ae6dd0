//! What a manager has while it leads: the queue of the one writer, the planner, the dispatcher.

use super::plan::Planning;
use super::rpc::Calls;
use super::{Due, Manager, Reply, Request, replaced};
use crate::context::{Context, Event};
use manager::dispatch::{Command, Dispatcher, Output};
use raft::{Decide, Decided, Decisions};
use std::collections::VecDeque;
use std::time::Duration;
use store::View;
use types::Fault;

/// Changes of others that may wait to be decided. The real queue is longer, and whoever finds it full
/// waits for a place before they are refused; here it is full in every storm.
const QUEUE: usize = 2;
/// Closures that become one entry at most.
const BATCH: usize = 256;
/// How long callers wait until their change is on the disks of most managers.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// Until the writer takes what has come.
const SOON: Duration = Duration::from_micros(20);

#[derive(Debug)]
pub(super) struct Term {
    pub(super) number: u64,
    pub(super) since: Duration,
    pub(super) queue: VecDeque<Request>,
    pub(super) planning: Planning,
    pub(super) dispatcher: Dispatcher,
    pub(super) calls: Calls,
    pub(super) ticks: u64,
}

/// An entry that is being written.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) entry: u64,
    pub(super) waiting: Vec<Reply>,
}

impl Manager {
    /// It leads: nobody has a session with it yet.
    pub(super) fn begin_term(&mut self, number: u64, ctx: &mut Context) {
        let now = self.now(ctx.now);
        self.life += 1;
        let Some(alive) = &mut self.alive else { return };
        alive.term = Some(Term {
            number,
            since: ctx.now,
            queue: VecDeque::new(),
            planning: Planning::default(),
            dispatcher: Dispatcher::new(alive.view.clone(), now),
            calls: Calls::default(),
            ticks: 0,
        });
        let id = self.id;
        ctx.tell(|| format!("manager {id} leads in term {number}"));
        self.command(Command::Tick, ctx);
        self.plan(ctx);
        self.roles(ctx);
    }

    /// It leads no more: sessions end, and whoever waits hears so. What became of what is being
    /// written is not known yet.
    pub(super) fn end_term(&mut self, ctx: &mut Context) {
        self.life += 1;
        let Some(alive) = &mut self.alive else { return };
        let Some(term) = alive.term.take() else { return };
        let waiting = alive.writing.as_mut().map(|it| std::mem::take(&mut it.waiting));
        let (id, number) = (self.id, term.number);
        ctx.tell(|| format!("manager {id} leads no more in term {number}"));
        for reply in waiting.into_iter().flatten() {
            self.answer(reply, Err(replaced()), ctx);
        }
        for request in term.queue {
            self.answer(request.reply, Err(Fault::not_leading()), ctx);
        }
        self.part(term.calls, ctx);
    }

    pub(crate) fn sequence(&mut self, request: Request, ctx: &mut Context) {
        let (id, life) = (self.id, self.life);
        let Some(term) = self.term() else {
            return self.answer(request.reply, Err(Fault::not_leading()), ctx);
        };
        if request.is_own() {
            term.queue.push_front(request);
        } else if term.queue.iter().filter(|it| !it.is_own()).count() < QUEUE {
            term.queue.push_back(request);
        } else {
            let fault = Fault::unavailable("too many changes wait for this manager: try again");
            return self.answer(request.reply, Err(fault), ctx);
        }
        ctx.after(SOON, Event::Manager(id, life, Due::Take));
    }

    pub(super) fn take(&mut self, ctx: &mut Context) {
        let time = self.time(ctx.now);
        let (id, machine, life) = (self.id, self.machine, self.life);
        let Some(alive) = &mut self.alive else { return };
        let Some(term) = &mut alive.term else { return };
        if alive.writing.is_some() || term.queue.is_empty() {
            return;
        }
        let count = term.queue.len().min(BATCH);
        let (closures, replies): (Vec<Decide>, Vec<Reply>) =
            term.queue.drain(..count).map(|it| (it.decide, it.reply)).unzip();
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
        if !changes.is_empty() && ctx.log.disk(machine).full > 0 {
            let full = || Err(Fault::unavailable("no space left on the manager's disk"));
            answers.extend(waiting.drain(..).map(|reply| (reply, full())));
        } else if !changes.is_empty() {
            let entry = ctx.log(|log, _, _| log.propose(id, changes, time));
            alive.writing = Some(Writing { entry, waiting });
            ctx.after(WRITE_LIMIT, Event::Manager(id, life, Due::Late(entry)));
        }
        for (reply, outcome) in answers {
            self.answer(reply, outcome, ctx);
        }
        let rest = |alive: &super::Alive| {
            let waits = alive.term.as_ref().is_some_and(|term| !term.queue.is_empty());
            waits && alive.writing.is_none()
        };
        if self.alive.as_ref().is_some_and(rest) {
            ctx.after(SOON, Event::Manager(id, life, Due::Take));
        }
    }

    /// Nobody waits any longer for what is being written; it may still be.
    pub(super) fn late(&mut self, entry: u64, ctx: &mut Context) {
        let Some(alive) = &mut self.alive else { return };
        let Some(writing) = alive.writing.as_mut().filter(|it| it.entry == entry) else { return };
        for reply in std::mem::take(&mut writing.waiting) {
            let text = "the managers' disks did not take the change in time; it may still be made";
            self.answer(reply, Err(Fault::unavailable(text)), ctx);
        }
    }

    /// Tells the dispatcher, and does what it wants.
    pub(crate) fn command(&mut self, command: Command, ctx: &mut Context) {
        let now = self.now(ctx.now);
        let Some(term) = self.term() else { return };
        let outputs = term.dispatcher.handle(command, now);
        for output in outputs {
            match output {
                Output::Send { session, message, .. } => self.send(&session, message, ctx),
                Output::Close { session, .. } => self.close(&session, ctx),
                Output::Beat { session, reply, .. } => self.beat(&session, &reply, ctx),
                // Nobody follows logs here, and who is no node is not heard anyway.
                Output::Logs(_) => {}
                Output::Write(observation) => {
                    let decide: Decide =
                        Box::new(move |view: &View, now| Ok(observation.changes(view, now)));
                    self.sequence(Request { decide, reply: Reply::Observed }, ctx);
                }
            }
        }
        let (id, life) = (self.id, self.life);
        let Some(alive) = &mut self.alive else { return };
        let Some(term) = &mut alive.term else { return };
        term.ticks += 1;
        let at = alive.born + term.dispatcher.wake().0;
        ctx.at(at, Event::Manager(id, life, Due::Tick(term.ticks)));
    }
}
