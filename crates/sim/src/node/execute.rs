//! The engine of a machine, and the operations that the worker has it carry out.

use super::container::Fate;
use super::dataplane::Wanted;
use super::{Container, Due, MachineDue, Node, State};
use crate::context::{Context, Event, Happened};
use crate::user::Image;
use agent::worker::{self, Entry, Exit, Operation, Outcome};
use discovery::SandboxAttachment;
use std::time::Duration;
use types::{PublishMode, Task, TaskId};

/// How long a container waits for its network.
const PATIENCE: Duration = Duration::from_secs(10);
/// An engine that hangs is looked at again.
const LOOK: Duration = Duration::from_millis(300);
/// How often of a thousand looks an operation gives up on an engine that hangs: after some ten
/// seconds.
const GIVES_UP: u64 = 30;

/// An operation that is under way.
#[derive(Debug)]
pub(super) struct Running {
    number: u64,
    operation: Operation,
    task: Task,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The engine is at work.
    Engine,
    /// A container waits for its network.
    Attaching,
    /// It has its network.
    Attached,
    /// A container is about to stop.
    Stopping,
    /// It is over, and only its end has to be told.
    Over,
}

impl Node {
    pub(super) fn begin(
        &mut self,
        (task, entry): (TaskId, Option<&Entry>),
        operation: Operation,
        ctx: &mut Context,
    ) {
        let number = ctx.draw();
        let wait = match &operation {
            Operation::Pull(of) => match Image::of(&of.spec.container.image) {
                Image::Large => self.random.seconds(3, 15),
                Image::Good
                | Image::Brief
                | Image::Job
                | Image::Missing
                | Image::Broken
                | Image::Stubborn
                | Image::Sick => self.random.millis(2, 800),
            },
            Operation::Create { .. } => self.random.millis(5, 150),
            Operation::Start { .. } | Operation::Refresh { .. } => Duration::from_micros(100),
            Operation::Drain { limit, .. } => self.random.millis(0, 3_000).min(*limit),
            Operation::Stop { .. } => self.random.millis(1, 20),
            Operation::Remove { .. } => self.random.millis(5, 100),
        };
        let of = entry.map(|entry| entry.task.clone()).unwrap_or_default();
        let running = Running { number, operation, task: of, step: Step::Engine };
        if let Some(alive) = &mut self.alive {
            alive.operations.insert(task.clone(), running);
        }
        self.due(wait, Due::Engine { task, operation: number }, ctx);
    }

    /// Says whether this operation was under way; it is over.
    pub(super) fn ends(&mut self, task: &TaskId, number: u64) -> bool {
        let Some(alive) = &mut self.alive else { return false };
        let is_this = alive.operations.get(task).is_some_and(|it| it.number == number);
        if is_this {
            alive.operations.remove(task);
        }
        is_this
    }

    pub(super) fn abort(&mut self, task: &TaskId, ctx: &mut Context) {
        let Some(alive) = &mut self.alive else { return };
        let Some(running) = alive.operations.get_mut(task) else { return };
        if matches!(running.operation, Operation::Pull(_)) && running.step == Step::Engine {
            let number = running.number;
            self.finish(task, number, Outcome::Aborted, ctx);
        }
    }

    /// The operation is over; the loop hears of it.
    fn finish(&mut self, task: &TaskId, operation: u64, outcome: Outcome, ctx: &mut Context) {
        let Some(alive) = &mut self.alive else { return };
        let running = alive.operations.get_mut(task).filter(|it| it.number == operation);
        if let Some(running) = running {
            running.step = Step::Over;
            let soon = Duration::from_micros(200);
            self.due(soon, Due::Done { task: task.clone(), operation, outcome }, ctx);
        }
    }

    /// The engine does what it was asked for, if it does not hang.
    pub(super) fn engine(&mut self, task: TaskId, number: u64, ctx: &mut Context) {
        let Some(alive) = &mut self.alive else { return };
        let running = alive.operations.get_mut(&task);
        let Some(running) = running.filter(|it| it.number == number) else { return };
        let (operation, of, step) = (running.operation.clone(), running.task.clone(), running.step);
        if step == Step::Over {
            return;
        }
        if self.ills.engine_hangs > 0 && !matches!(operation, Operation::Drain { .. }) {
            // Whoever stops or removes something does not wait for ever.
            let gives_up = matches!(operation, Operation::Stop { .. } | Operation::Remove { .. });
            if gives_up && self.random.chance(GIVES_UP) {
                let outcome = Outcome::Failed("the engine does not answer".to_owned());
                return self.finish(&task, number, outcome, ctx);
            }
            return self.due(LOOK, Due::Engine { task, operation: number }, ctx);
        }
        let outcome = match operation {
            Operation::Pull(of) => match Image::of(&of.spec.container.image) {
                Image::Missing => Outcome::Failed("No such image".to_owned()),
                Image::Good
                | Image::Large
                | Image::Brief
                | Image::Job
                | Image::Broken
                | Image::Stubborn
                | Image::Sick => Outcome::Pulled,
            },
            Operation::Create { task: of, .. } => self.create(&of, ctx),
            Operation::Start { container, files } => match files.missing(&of.spec.container) {
                Some(missing) => Outcome::Failed(missing),
                None => return self.start_step((&task, number, step), &container, &of, ctx),
            },
            Operation::Refresh { files, .. } => match files.missing(&of.spec.container) {
                Some(missing) => Outcome::Failed(missing),
                None => Outcome::Refreshed,
            },
            Operation::Drain { .. } => Outcome::Drained,
            Operation::Stop { container, grace } => {
                let Some(outcome) = self.stop_step(&task, &container, grace, ctx) else { return };
                outcome
            }
            Operation::Remove { container } => {
                self.remove_container(&container, ctx);
                Outcome::Removed
            }
        };
        self.finish(&task, number, outcome, ctx);
    }

    fn create(&mut self, task: &Task, ctx: &mut Context) -> Outcome {
        if self.ills.disk_full > 0 {
            return Outcome::Failed("no space left on device".to_owned());
        }
        // One that was made just before the daemon was killed.
        let old = self.containers.iter().find(|(_, it)| it.task == task.id);
        if let Some(id) = old.map(|(id, _)| id.clone()) {
            self.remove_container(&id, ctx);
        }
        let container = format!("{}{:039}", task.id, ctx.draw());
        self.containers.insert(container.clone(), Container::new(task));
        Outcome::Created { container }
    }

    fn start_step(
        &mut self,
        (task, number, step): (&TaskId, u64, Step),
        container: &str,
        of: &Task,
        ctx: &mut Context,
    ) {
        let Some(alive) = &mut self.alive else { return };
        if step == Step::Engine {
            let attachments = of.attachments.iter().map(|it| SandboxAttachment {
                network: it.network.clone(),
                addresses: it.addresses,
            });
            let host = of.ports.iter().filter(|port| match port.mode {
                PublishMode::Host => port.published != 0,
                PublishMode::Ingress => false,
            });
            let wanted = Wanted {
                task: task.clone(),
                attachments: attachments.collect(),
                host_ports: host.map(|it| (it.protocol, it.published, it.target)).collect(),
            };
            if let Err(reason) = alive.dataplane.attach(container, wanted) {
                let reason = format!("cannot attach its network: {reason}");
                return self.finish(task, number, Outcome::Failed(reason), ctx);
            }
            if let Some(running) = alive.operations.get_mut(task) {
                running.step = Step::Attaching;
            }
            let late = Due::AttachLate { container: container.to_owned(), operation: number };
            self.due(PATIENCE, late, ctx);
            return self.settle(ctx);
        }
        let Some(found) = self.containers.get_mut(container) else {
            let gone = Outcome::Failed("no such container".to_owned());
            return self.finish(task, number, gone, ctx);
        };
        if found.image == Image::Broken {
            self.detach(container, ctx);
            let failed = Outcome::Failed("exec: no such file or directory".to_owned());
            return self.finish(task, number, failed, ctx);
        }
        found.state = State::Running;
        found.healthy = None;
        found.plans += 1;
        let (plan, has_health_check) = (found.plans, found.has_health_check);
        let fates = found.fates(&mut self.random);
        for (delay, fate) in fates {
            let due = MachineDue { container: container.to_owned(), plan, fate };
            ctx.after(delay, Event::Machine(self.number, self.machine, due));
        }
        let node = self.number;
        ctx.tell(|| format!("node {node}: {task} begins ({})", of.name()));
        ctx.happened.push(Happened::Began { node, task: task.clone() });
        self.observe(container, worker::Event::Begun { task: task.clone() }, ctx);
        self.finish(task, number, Outcome::Started { pid: 1, has_health_check }, ctx);
    }

    /// The kernel holds all that is here: containers that wait for their network go on.
    pub(super) fn attached(&mut self, ctx: &mut Context) {
        let Some(alive) = &mut self.alive else { return };
        if !alive.dataplane.is_settled() {
            return;
        }
        let mut ready = Vec::new();
        for (task, running) in &mut alive.operations {
            if running.step == Step::Attaching {
                running.step = Step::Attached;
                ready.push((task.clone(), running.number));
            }
        }
        for (task, operation) in ready {
            let start = self.random.millis(10, 300);
            self.due(start, Due::Engine { task, operation }, ctx);
        }
    }

    pub(super) fn attach_late(&mut self, container: &str, operation: u64, ctx: &mut Context) {
        let Some(alive) = &mut self.alive else { return };
        let waits = alive
            .operations
            .iter()
            .find(|(_, it)| it.number == operation && it.step == Step::Attaching)
            .map(|(task, _)| task.clone());
        if let Some(task) = waits {
            self.detach(container, ctx);
            let failed = Outcome::Failed("cannot attach its network".to_owned());
            self.finish(&task, operation, failed, ctx);
        }
    }

    /// Tells a container to stop; its end is told when it has ended.
    fn stop_step(
        &mut self,
        task: &TaskId,
        container: &str,
        grace: Duration,
        ctx: &mut Context,
    ) -> Option<Outcome> {
        let exit = |code| Some(Outcome::Stopped(Exit { code, error: String::new() }));
        let Some(found) = self.containers.get(container) else { return exit(0) };
        match found.state {
            State::Created => exit(0),
            State::Exited(code) => exit(code),
            State::Running => {
                let plan = found.plans;
                let wait = found.clone().stops_in(grace, &mut self.random);
                let code = if wait >= grace { 137 } else { 0 };
                let fate = Fate::Exits(code);
                let due = MachineDue { container: container.to_owned(), plan, fate };
                ctx.after(wait, Event::Machine(self.number, self.machine, due));
                let running = self.alive.as_mut()?.operations.get_mut(task)?;
                running.step = Step::Stopping;
                None
            }
        }
    }

    /// A container's process ends.
    pub fn exit(&mut self, id: &str, code: i32, ctx: &mut Context) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if !container.is_running() {
            return;
        }
        container.state = State::Exited(code);
        container.plans += 1;
        let (node, task) = (self.number, container.task.clone());
        ctx.tell(|| format!("node {node}: {task} ends ({code})"));
        ctx.happened.push(Happened::Ended { node, task: task.clone() });
        let exit = Exit { code, error: String::new() };
        self.observe(id, worker::Event::Exited { task: task.clone(), exit: exit.clone() }, ctx);
        let Some(alive) = &self.alive else { return };
        let stops = alive.operations.get(&task).filter(|it| {
            it.step == Step::Stopping
                && matches!(&it.operation, Operation::Stop { container, .. } if container == id)
        });
        if let Some(number) = stops.map(|it| it.number) {
            self.finish(&task, number, Outcome::Stopped(exit), ctx);
        }
    }

    pub(super) fn remove_container(&mut self, id: &str, ctx: &mut Context) {
        self.exit(id, 137, ctx);
        self.containers.remove(id);
        self.detach(id, ctx);
    }

    fn detach(&mut self, container: &str, ctx: &mut Context) {
        if let Some(alive) = &mut self.alive {
            alive.dataplane.detach(container);
        }
        self.settle(ctx);
    }
}
