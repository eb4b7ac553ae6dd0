//! The loop that makes the log's members those that the store names, as `manager::managers` has it.

use super::{Due, Manager, Reply, Request, address, node_id};
use crate::consensus::Consensus;
use crate::context::{Context, Event};
use manager::control;
use manager::managers::roles::{self, Own, Step};
use raft::Decide;
use std::time::Duration;
use store::View;
use types::ManagerStatus;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// After a step that failed.
const RETRY: Duration = Duration::from_secs(1);
/// Before the next step.
const NEXT: Duration = Duration::from_millis(1);

impl Manager {
    fn own(&self) -> Own {
        let status = ManagerStatus { raft_id: self.id, address: address(self.machine) };
        Own { node: node_id(self.machine), status }
    }

    /// Takes the next step.
    pub(super) fn roles(&mut self, ctx: &mut Context) {
        let (id, own) = (self.id, self.own());
        let Some(view) = self.view().filter(|_| self.leads().is_some()) else { return };
        let members = ctx.log.members(id, &ctx.network);
        let Some(step) = roles::next(view, &members, &own) else {
            return self.roles_in(LOOK, ctx);
        };
        ctx.tell(|| format!("manager {id}: {step:?}"));
        let done = match step {
            Step::Introduce => {
                return self.sequence_roles(
                    Box::new(move |view: &View, _| Ok(roles::introduced(view, own))),
                    ctx,
                );
            }
            Step::Demote(node) => {
                return self.sequence_roles(
                    Box::new(move |view: &View, _| control::node::demoted(view, &node)),
                    ctx,
                );
            }
            Step::AddLearner(other) => ctx.log(|log, wires, _| log.add_learner(id, other, wires)),
            Step::Promote(other) => ctx.log(|log, wires, _| log.promote(id, other, wires)),
            Step::Remove(other) => ctx.log(|log, wires, _| log.remove(id, other, wires)),
            Step::HandOver => {
                ctx.log(Consensus::hand_over);
                Ok(())
            }
        };
        self.roles_after(done.is_ok(), ctx);
    }

    fn sequence_roles(&mut self, decide: Decide, ctx: &mut Context) {
        self.sequence(Request { decide, reply: Reply::Roles }, ctx);
    }

    /// A step was taken, or not.
    pub(super) fn roles_after(&mut self, is_done: bool, ctx: &mut Context) {
        self.roles_in(if is_done { NEXT } else { RETRY }, ctx);
    }

    pub(super) fn roles_in(&mut self, delay: Duration, ctx: &mut Context) {
        ctx.after(delay, Event::Manager(self.id, self.life, Due::Roles));
    }
}
