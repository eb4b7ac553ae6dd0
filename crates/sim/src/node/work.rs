//! The worker's loop, as `agent::work` has it.

use super::{Due, Node, State};
use crate::context::{Context, Happened};
use crate::manager::machine_at;
use crate::network::{self, Body, Packet, Way};
use agent::leaving::{ANSWER_MAX, Leaving};
use agent::worker::{Effect, Entry, Event, Exit, Observed, Operation, Outcome, Worker};
use std::collections::BTreeMap;
use std::time::Duration;
use types::{TaskId, TaskState};

const IDLE: Duration = Duration::from_mins(1);

/// A call of a node that leaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastCall {
    connection: u64,
    tasks_first: bool,
    /// Of the manager that is asked, among those that are known.
    place: usize,
}

impl Node {
    /// Compares the journal with what is there.
    pub(super) fn take_over(&mut self, ctx: &mut Context) {
        let observed: BTreeMap<String, Observed> = self
            .containers
            .iter()
            .map(|(id, container)| {
                let exit = match container.state {
                    State::Exited(code) => Some(Exit { code, error: String::new() }),
                    State::Created | State::Running => None,
                };
                let observed = Observed {
                    pid: 1,
                    exit,
                    running: container.is_running(),
                    has_health_check: container.has_health_check,
                    healthy: container.healthy == Some(true),
                };
                (id.clone(), observed)
            })
            .collect();
        let bytes = wire::encode(&self.journal).expect("a journal can be written");
        let entries = wire::decode(&bytes).expect("a journal can be read");
        let (worker, effects) = Worker::restore(entries, &observed, self.clock(ctx));
        let Some(alive) = &mut self.alive else { return };
        alive.worker = worker;
        for (container, observed) in &observed {
            if observed.exit.is_some() {
                alive.dataplane.detach(container);
            }
        }
        self.carry_out(effects, ctx);
    }

    /// The worker hears what managers want, unless this node goes.
    pub(super) fn assigned(&mut self, event: Event, ctx: &mut Context) {
        if self.takes_orders() {
            self.work(event, ctx);
        }
    }

    /// The worker hears of something.
    pub(super) fn work(&mut self, event: Event, ctx: &mut Context) {
        let now = self.clock(ctx);
        let number = self.number;
        let Some(alive) = &mut self.alive else { return };
        ctx.trace(|| match &event {
            Event::Whole { tasks, .. } => {
                format!("node {number}: whole, {} tasks", tasks.understood.len())
            }
            other => format!("node {number}: {other:?}"),
        });
        if let Event::Exited { task, .. } = &event
            && let Some(container) = alive.worker.container_of(task).map(str::to_owned)
        {
            alive.dataplane.detach(&container);
        }
        let effects = alive.worker.handle(event, now);
        let is_news = !effects.is_empty();
        let entries = alive.worker.entries();
        if self.ills.disk_full > 0 {
            if self.journal != entries {
                ctx.happened.push(Happened::Forgetful { node: number });
            }
        } else {
            self.journal = entries;
        }
        let slow = self.ills.disk_slow.iter().max().copied().filter(|_| is_news);
        if let Some(write) = slow {
            alive.busy_until = ctx.now + write;
            return self.due(write, Due::Effects(effects), ctx);
        }
        self.carry_out(effects, ctx);
    }

    /// What was decided is on disk: it is done.
    pub(super) fn carry_out(&mut self, effects: Vec<Effect>, ctx: &mut Context) {
        let Some(alive) = &self.alive else { return };
        let entries = alive.worker.entries();
        for effect in effects {
            self.carry_out_one(effect, &entries, ctx);
        }
        self.watch_all(&entries, ctx);
        self.settle(ctx);
        let now = self.clock(ctx);
        let Some(alive) = &mut self.alive else { return };
        if alive.worker.is_told() && !alive.swept {
            alive.swept = true;
            self.sweep(ctx);
        }
        let Some(alive) = &mut self.alive else { return };
        if let Some(leaving) = alive.leaving {
            let (parts, is_gone) =
                (leaving.parts(&alive.worker, now), leaving.is_gone(&alive.worker));
            if parts {
                self.part(ctx);
            } else if is_gone {
                return self.vanish(ctx);
            }
        }
        self.wake_later(ctx);
    }

    fn carry_out_one(
        &mut self,
        effect: Effect,
        entries: &BTreeMap<TaskId, Entry>,
        ctx: &mut Context,
    ) {
        let number = self.number;
        match effect {
            Effect::Begin { task, operation } => {
                let entry = entries.get(&task);
                let serves = entry.is_some_and(|it| it.status.state == TaskState::Running);
                match &operation {
                    Operation::Drain { .. } | Operation::Stop { .. } if serves => {
                        ctx.happened.push(Happened::Stops { node: number, task: task.clone() });
                    }
                    Operation::Drain { .. }
                    | Operation::Stop { .. }
                    | Operation::Pull(_)
                    | Operation::Create { .. }
                    | Operation::Start { .. }
                    | Operation::Refresh { .. }
                    | Operation::Remove { .. } => {}
                }
                self.begin((task, entry), operation, ctx);
            }
            Effect::Abort { task } => self.abort(&task, ctx),
            Effect::Withdraw { task } => {
                ctx.happened.push(Happened::Withdraws { node: number, task: task.clone() });
                if let Some(alive) = &mut self.alive {
                    alive.dataplane.withdraw(task);
                }
            }
            Effect::Report { task, status } => {
                self.report([(task, status.limited())].into(), ctx);
            }
        }
    }

    fn watch_all(&mut self, entries: &BTreeMap<TaskId, Entry>, ctx: &mut Context) {
        let processes = entries
            .iter()
            .filter_map(|(id, entry)| Some((entry.process()?.to_owned(), id.clone())));
        let processes: BTreeMap<String, TaskId> = processes.collect();
        let Some(alive) = &mut self.alive else { return };
        alive.watched.retain(|watched| processes.contains_key(watched));
        let new = processes.into_iter().filter(|(id, _)| !alive.watched.contains(id));
        for (id, task) in new.collect::<Vec<_>>() {
            self.watch(&id, task, ctx);
        }
    }

    fn watch(&mut self, id: &str, task: TaskId, ctx: &mut Context) {
        if let Some(alive) = &mut self.alive {
            alive.watched.insert(id.to_owned());
        }
        let soon = Duration::from_micros(300);
        let Some(container) = self.containers.get(id) else {
            let exit = Exit { code: 0, error: "its container is gone".to_owned() };
            return self.due(soon, Due::Event(Event::Exited { task, exit }), ctx);
        };
        match container.state {
            State::Created => {}
            State::Running => {
                let healthy = container.healthy;
                self.due(soon, Due::Event(Event::Begun { task: task.clone() }), ctx);
                if let Some(healthy) = healthy {
                    self.due(soon, Due::Event(Event::Health { task, healthy }), ctx);
                }
            }
            State::Exited(code) => {
                let exit = Exit { code, error: String::new() };
                self.due(soon, Due::Event(Event::Exited { task, exit }), ctx);
            }
        }
    }

    /// A container's watcher tells of it.
    pub(super) fn observe(&mut self, id: &str, event: Event, ctx: &mut Context) {
        let is_watched = self.alive.as_ref().is_some_and(|alive| alive.watched.contains(id));
        if is_watched {
            let soon = self.random.between(Duration::from_micros(100), Duration::from_millis(20));
            self.due(soon, Due::Event(event), ctx);
        }
    }

    /// Removes containers of tasks that this node does not have.
    fn sweep(&mut self, ctx: &mut Context) {
        let Some(alive) = &self.alive else { return };
        let entries = alive.worker.entries();
        let stray = self.containers.iter().filter(|(id, container)| {
            let known = alive.worker.container_of(&container.task);
            let may_be_made = entries.contains_key(&container.task) && known.is_none();
            known != Some(id.as_str()) && !may_be_made
        });
        for id in stray.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            let number = self.number;
            ctx.tell(|| format!("node {number}: removes stray container {id}"));
            self.remove_container(&id, ctx);
        }
    }

    fn wake_later(&mut self, ctx: &mut Context) {
        let Some(alive) = &mut self.alive else { return };
        let leaving = alive.leaving.and_then(Leaving::deadline);
        let deadline = alive.worker.deadline().into_iter().chain(leaving).min();
        let wait = deadline.map_or(IDLE, |at| at.saturating_sub(ctx.now)).min(IDLE);
        alive.wakes += 1;
        let wake = alive.wakes;
        // A deadline that has passed already is not waited for in vain.
        self.due(wait.max(Duration::from_micros(1)), Due::Wake(wake), ctx);
    }

    pub(super) fn wake(&mut self, count: u64, ctx: &mut Context) {
        if self.alive.as_ref().is_some_and(|alive| alive.wakes == count) {
            self.work(Event::Tick, ctx);
        }
    }

    /// A user asks this node to leave.
    pub fn leave(&mut self, ctx: &mut Context) {
        self.wants_to_leave = true;
        let Some(alive) = self.alive.as_mut().filter(|alive| alive.leaving.is_none()) else {
            return;
        };
        alive.leaving = Some(Leaving::default());
        self.say(true, 0, ctx);
        self.work(Event::Tick, ctx);
    }

    /// Says so to the manager of this place among those that it knows.
    fn say(&mut self, tasks_first: bool, place: usize, ctx: &mut Context) {
        let (connection, id, node) = (ctx.draw(), ctx.draw(), self.number);
        let manager = self.managers.get(place).map_or(usize::MAX, |address| machine_at(address));
        if let Some(alive) = &mut self.alive {
            alive.last_call = Some(LastCall { connection, tasks_first, place });
        }
        ctx.network.connect(connection, (node, manager));
        let body = Body::Call { id, call: network::Call::Leave { tasks_first } };
        ctx.send(Packet { node, manager, connection, way: Way::Up, body });
        self.due(ANSWER_MAX, Due::LeaveLate(connection), ctx);
    }

    fn part(&mut self, ctx: &mut Context) {
        if let Some(alive) = &mut self.alive {
            alive.leaving = Some(Leaving::Farewell);
        }
        self.say(false, 0, ctx);
    }

    /// Says whether a packet is about the last calls, and takes it.
    pub(super) fn leave_receives(
        &mut self,
        connection: u64,
        body: &Body,
        ctx: &mut Context,
    ) -> bool {
        let Some(alive) = &mut self.alive else { return false };
        if alive.last_call.is_none_or(|call| call.connection != connection) {
            return false;
        }
        match body {
            Body::Answer { answer, .. } => self.told(answer.is_ok(), ctx),
            Body::Closed => self.told(false, ctx),
            Body::Stream(_) | Body::End | Body::Call { .. } | Body::Again { .. } => {}
        }
        true
    }

    pub(super) fn leave_late(&mut self, connection: u64, ctx: &mut Context) {
        self.leave_receives(connection, &Body::Closed, ctx);
    }

    fn told(&mut self, is_told: bool, ctx: &mut Context) {
        let (now, managers) = (self.clock(ctx), self.managers.len());
        let Some(alive) = &mut self.alive else { return };
        if let Some(LastCall { tasks_first, place, .. }) = alive.last_call
            && !is_told
            && place + 1 < managers
        {
            return self.say(tasks_first, place + 1, ctx);
        }
        let Some(leaving) = alive.leaving.map(|it| it.answered(is_told, now)) else { return };
        (alive.leaving, alive.last_call) = (Some(leaving), None);
        match leaving {
            Leaving::Farewell => self.part(ctx),
            Leaving::TakeDown => {
                self.leaves_untold |= !is_told;
                self.work(Event::Leave { told: is_told }, ctx);
            }
            Leaving::Notice | Leaving::TasksFirst(_) => self.work(Event::Tick, ctx),
        }
    }

    /// Nothing of it is left.
    fn vanish(&mut self, ctx: &mut Context) {
        let number = self.number;
        ctx.tell(|| format!("node {number}: has left"));
        self.is_gone = true;
        self.alive = None;
        self.kernel = super::Kernel::default();
        self.journal.clear();
        self.kept = super::Kept::default();
    }

    pub(super) fn takes_orders(&self) -> bool {
        let leaving = self.alive.as_ref().and_then(|alive| alive.leaving);
        leaving.is_none_or(Leaving::takes_orders)
    }

    pub(super) fn is_parting(&self) -> bool {
        !self.takes_orders()
    }

    pub(super) fn done(
        &mut self,
        task: TaskId,
        operation: u64,
        outcome: Outcome,
        ctx: &mut Context,
    ) {
        if self.ends(&task, operation) {
            self.work(Event::Done { task, outcome }, ctx);
        }
    }
}
