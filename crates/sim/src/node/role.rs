//! What a node is, as `skep::daemon::node` has it: a manager once its certificate says so and it has a
//! number in the log, and none any more once its certificate says that.

use super::{Due, Node};
use crate::context::{Context, Event};
use crate::manager::machine_at;
use crate::network::{self, Answer, Body, Packet, Way};
use agent::session::ANSWER_MAX;
use std::time::Duration;
use types::NodeRole;

/// Before a role that could not be taken on is tried again.
const PAUSE: Duration = Duration::from_secs(1);

impl Node {
    /// It has a copy of the log.
    pub fn is_manager(&self) -> bool {
        self.own.is_some()
    }

    pub(super) fn take_role(&mut self, ctx: &mut Context) {
        self.due(PAUSE, Due::Role, ctx);
        let Some(alive) = &self.alive else { return };
        let may_ask = alive.enrolls.is_none() && (self.own.is_none() || alive.asks_number);
        match (self.role, self.own) {
            (NodeRole::Manager, _) if may_ask => self.enroll(0, ctx),
            (NodeRole::Manager, _) | (NodeRole::Worker, None) => {}
            (NodeRole::Worker, Some(_)) => self.give_the_log_up(ctx),
        }
    }

    /// What it runs for the cluster begins again.
    fn give_the_log_up(&mut self, ctx: &mut Context) {
        self.own = None;
        let number = self.number;
        ctx.tell(|| format!("node {number}: has no part in the log any more"));
        ctx.after(Duration::ZERO, Event::Role { node: number, manager: None });
        self.die(ctx);
        self.start(ctx);
    }

    /// Asks for a number in the log, or whether the one that it has is still its own.
    fn enroll(&mut self, place: usize, ctx: &mut Context) {
        let (connection, id, node) = (ctx.draw(), ctx.draw(), self.number);
        let manager = self.managers.get(place).map(|address| machine_at(address));
        let Some(alive) = &mut self.alive else { return };
        alive.enrolls = manager.map(|_| (connection, place));
        let Some(manager) = manager else { return };
        ctx.network.connect(connection, (node, manager));
        let call = self.own.map_or(network::Call::Enroll, network::Call::Number);
        let body = Body::Call { id, call };
        ctx.send(Packet { node, manager, connection, way: Way::Up, body });
        self.due(ANSWER_MAX, Due::EnrollLate(connection), ctx);
    }

    /// Says whether a packet is about its number in the log, and takes it.
    pub(super) fn enroll_receives(
        &mut self,
        connection: u64,
        body: &Body,
        ctx: &mut Context,
    ) -> bool {
        let asked = self.alive.as_ref().and_then(|alive| alive.enrolls);
        let Some((_, place)) = asked.filter(|(asked, _)| *asked == connection) else {
            return false;
        };
        match body {
            Body::Answer { answer: Ok(Answer::Enrolled(id)), .. } if self.own.is_some() => {
                if let Some(alive) = &mut self.alive {
                    (alive.enrolls, alive.asks_number) = (None, false);
                }
                if self.own != Some(*id) {
                    self.give_the_log_up(ctx);
                }
            }
            Body::Answer { answer: Ok(Answer::Enrolled(id)), .. } => {
                (self.own, self.role) = (Some(*id), NodeRole::Manager);
                let (node, manager) = (self.number, self.own);
                ctx.tell(|| format!("node {node}: becomes manager {id}"));
                if let Some(alive) = &mut self.alive {
                    alive.enrolls = None;
                }
                ctx.after(Duration::ZERO, Event::Role { node, manager });
            }
            Body::Answer { .. } | Body::Closed => self.enroll(place + 1, ctx),
            Body::Stream(_) | Body::End | Body::Call { .. } | Body::Again { .. } => {}
        }
        true
    }

    pub(super) fn enroll_late(&mut self, connection: u64, ctx: &mut Context) {
        self.enroll_receives(connection, &Body::Closed, ctx);
    }
}
