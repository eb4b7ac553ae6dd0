//! The planning loop of a manager.

use super::{Due, Manager, Reply, Request};
use crate::context::{Context, Event, Happened};
use planner::{Plan, Refused};
use raft::Decide;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use store::View;
use types::{Fault, FaultKind, Timestamp, Version};

/// After a proposal failed.
const RETRY: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_mins(1);

/// Where the loop is.
#[derive(Debug, Default)]
pub(super) struct Planning {
    /// A plan is proposed; what it says beside its changes.
    wake: Option<Receiver<Plan>>,
    apart: Option<Receiver<Vec<Refused>>>,
    /// It rests until it is called, whatever changes.
    rests: bool,
    calls: u64,
}

impl Planning {
    pub(super) fn is_due(&mut self, call: u64) -> bool {
        let is_due = self.calls == call;
        if is_due {
            self.rests = false;
        }
        is_due
    }

    fn is_busy(&self) -> bool {
        self.wake.is_some() || self.apart.is_some() || self.rests
    }
}

impl Manager {
    /// Plans on the newest view, if it does not already.
    pub(super) fn plan(&mut self, ctx: &mut Context) {
        let Some(alive) = &mut self.alive else { return };
        if alive.planning.is_busy() {
            return;
        }
        let (sender, receiver) = channel();
        alive.planning.wake = Some(receiver);
        alive.planning.calls += 1;
        let mut ids = self.random.fork(ctx.draw());
        let decide: Decide = Box::new(move |view: &View, now| {
            let plan = planner::plan(view, now, &mut ids);
            let changes = plan.changes.clone();
            sender.send(plan).ok();
            Ok(changes)
        });
        self.sequence(Request { decide, reply: Reply::Planned }, ctx);
    }

    pub(super) fn planned(&mut self, outcome: Result<Version, Fault>, ctx: &mut Context) {
        let time = self.time(ctx.now);
        let Some(alive) = &mut self.alive else { return };
        let said = alive.planning.wake.take().and_then(|said| said.try_recv().ok());
        let Plan { changes, wake } = said.unwrap_or_default();
        match outcome {
            Ok(_) => {
                ctx.happened.push(Happened::Planned { changes: changes.changes.len() });
                self.plan_later(until(wake, time), ctx);
            }
            Err(fault) if fault.kind == FaultKind::Unavailable => self.rest(ctx),
            Err(fault) => {
                ctx.happened.push(Happened::Refused(fault));
                self.plan_apart(ctx);
            }
        }
    }

    fn rest(&mut self, ctx: &mut Context) {
        if let Some(alive) = &mut self.alive {
            alive.planning.rests = true;
        }
        self.plan_later(RETRY, ctx);
    }

    fn plan_later(&mut self, wait: Duration, ctx: &mut Context) {
        let Some(alive) = &mut self.alive else { return };
        alive.planning.calls += 1;
        ctx.after(wait, Event::Manager(self.life, Due::Plan(alive.planning.calls)));
    }

    fn plan_apart(&mut self, ctx: &mut Context) {
        let Some(alive) = &mut self.alive else { return };
        let (sender, receiver) = channel();
        alive.planning.apart = Some(receiver);
        let mut ids = self.random.fork(ctx.draw());
        let decide: Decide = Box::new(move |view: &View, now| {
            let plan = planner::plan(view, now, &mut ids);
            let (changes, refused) = planner::apart(view, &plan.changes);
            sender.send(refused).ok();
            Ok(changes)
        });
        self.sequence(Request { decide, reply: Reply::PlannedApart }, ctx);
    }

    pub(super) fn planned_apart(&mut self, _: Result<Version, Fault>, ctx: &mut Context) {
        if let Some(alive) = &mut self.alive {
            alive.planning.apart = None;
        }
        self.rest(ctx);
    }
}

fn until(wake: Option<Timestamp>, now: Timestamp) -> Duration {
    wake.map_or(WAIT_MAX, |wake| wake.since(now)).clamp(Duration::from_millis(1), WAIT_MAX)
}
