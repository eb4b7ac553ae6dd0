//! How users reach the manager that leads, whichever they ask: as `manager::managers` does it.
//!
//! A manager that does not lead shows what the leader has, once it is as far, and passes on what
//! changes something. Where nobody leads it waits for a while. What may have been done is not asked
//! for twice.

use crate::consensus::Id;
use crate::context::Event;
use crate::manager::Order;
use crate::user::Operation;
use crate::world::World;
use std::fmt;
use std::time::Duration;

/// For a leader to be found.
const LEADER_MAX: Duration = Duration::from_secs(5);
/// Before the next try.
const PAUSE: Duration = Duration::from_millis(50);

/// What a user has asked a manager for.
#[derive(Clone, Debug)]
pub struct Asked {
    operation: Operation,
    /// The manager's machine.
    manager: usize,
    /// When it gives up to find a leader.
    until: Duration,
}

/// What a manager has asked the leader for.
pub struct Ordered {
    from: usize,
    to: Id,
    order: Order,
}

impl fmt::Debug for Ordered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of machine {} to manager {}", self.order.what, self.from, self.to)
    }
}

impl World {
    /// A user asks one of the managers.
    pub(crate) fn begin_to_ask(&mut self, operation: Operation, which: usize) {
        let Some(manager) = self.manager_of(which) else { return };
        let until = self.ctx.now + LEADER_MAX;
        self.ask(Asked { operation, manager, until });
    }

    pub(crate) fn ask(&mut self, asked: Asked) {
        let (now, machine) = (self.ctx.now, asked.manager);
        let what = &asked.operation;
        let Some(manager) = self.managers.get_mut(&machine).filter(|it| it.is_up()) else {
            return self.ctx.tell(|| format!("user: {what:?}: manager {machine} does not answer"));
        };
        let (id, known) = (manager.id, self.ctx.log.leadership(manager.id, now).leader);
        if known == Some(id) && manager.leads().is_some() {
            if let Some(order) = manager.order(asked.operation) {
                manager.carry_out(order, &mut self.ctx);
            }
            return;
        }
        let is_as_far = |leader: &Id| {
            let at = self.ctx.log.machine(*leader);
            let version = |machine: usize| Some(self.managers.get(&machine)?.view()?.version());
            let leads =
                self.managers.get(&at).is_some_and(|it| it.id == *leader && it.leads().is_some());
            let is_heard = self.ctx.network.are_joined(machine, at);
            *leader != id && leads && is_heard && version(machine) == version(at)
        };
        let leader = known.filter(is_as_far);
        let Some(manager) = self.managers.get_mut(&machine) else { return };
        match leader {
            Some(to) => {
                if let Some(order) = manager.order(asked.operation.clone()) {
                    let order = Ordered { from: machine, to, order };
                    self.ctx.after(Duration::from_millis(1), Event::Ordered { asked, order });
                }
            }
            None => self.ask_again(asked),
        }
    }

    fn ask_again(&mut self, asked: Asked) {
        if self.ctx.now < asked.until {
            self.ctx.after(PAUSE, Event::Asked(asked));
        } else {
            self.ctx.tell(|| format!("user: {:?}: there is no leader", asked.operation));
        }
    }

    /// An order of another manager has come.
    pub(crate) fn take_order(&mut self, asked: Asked, ordered: Ordered) {
        let Ordered { from, to, order } = ordered;
        let at = self.ctx.log.machine(to);
        let is_heard = self.ctx.network.are_joined(from, at);
        let Some(leader) = self.managers.get_mut(&at).filter(|it| is_heard && it.is_up()) else {
            return self.ctx.tell(|| format!("user: {}: it may have been done", order.what));
        };
        if leader.id != to || leader.leads().is_none() {
            return self.ask_again(asked);
        }
        leader.carry_out(order, &mut self.ctx);
    }
}
