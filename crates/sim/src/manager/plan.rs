//! The planning loop of a manager, as `manager::plan` has it.

use super::term::Term;
use super::{Due, Manager, Reply, Request};
use crate::context::{Context, Event, Happened};
use planner::Planner;
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
    /// What it remembers between plans; it is not here while it plans.
    planner: Planner,
    /// A plan is proposed: the planner comes back by this, with its deadline.
    proposed: Option<Receiver<(Planner, Option<Timestamp>)>>,
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
}

impl Manager {
    /// Plans on the newest view, if it does not already.
    pub(super) fn plan(&mut self, ctx: &mut Context) {
        let Some(alive) = &mut self.alive else { return };
        let Some(term) = &mut alive.term else { return };
        if term.planning.proposed.is_some() || term.planning.rests {
            return;
        }
        let (sender, receiver) = channel();
        term.planning.proposed = Some(receiver);
        term.planning.calls += 1;
        let mut planner = std::mem::take(&mut term.planning.planner);
        planner.judge_from(alive.clock.0.fair_from);
        let mut ids = self.random.fork(ctx.draw());
        let decide: Decide = Box::new(move |view: &View, now| {
            let plan = planner.plan(view, now, &mut ids);
            sender.send((planner, plan.wake)).ok();
            Ok(plan.changes)
        });
        self.sequence(Request { decide, reply: Reply::Planned }, ctx);
    }

    pub(super) fn planned(&mut self, outcome: Result<Version, Fault>, ctx: &mut Context) {
        let time = self.time(ctx.now);
        let (id, life) = (self.id, self.life);
        let Some(Term { planning, .. }) = self.term() else { return };
        let said = planning.proposed.take().and_then(|said| said.try_recv().ok());
        let (planner, wake) = said.unwrap_or_default();
        planning.planner = planner;
        let wait = match outcome {
            Ok(_) => until(wake, time),
            Err(fault) => {
                planning.rests = true;
                // What is left of such a plan matters no more: a rule of this world is broken.
                if fault.kind != FaultKind::Unavailable {
                    ctx.happened.push(Happened::Refused(fault));
                }
                RETRY
            }
        };
        planning.calls += 1;
        ctx.after(wait, Event::Manager(id, life, Due::Plan(planning.calls)));
    }
}

fn until(wake: Option<Timestamp>, now: Timestamp) -> Duration {
    wake.map_or(WAIT_MAX, |wake| wake.since(now)).clamp(Duration::from_millis(1), WAIT_MAX)
}
