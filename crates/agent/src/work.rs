//! The worker's loop: brings it every event and has its effects carried out.

use crate::clock::Clock;
use crate::connection::{Connection, Inbound};
use crate::execute::{Executor, has_process};
use crate::journal::Journal;
use crate::report::Outbox;
use crate::worker::{Effect, Entry, Event, Operation, Outcome, Worker};
use crate::{Agent, Config, Error, Status};
use dataplane::Dataplane;
use engine::Engine;
use scope::Scope;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use types::{Fault, Task, TaskId};

/// Messages of managers that wait for the loop. The session waits when it is full.
const INBOUND: usize = 64;
/// Ends and health changes that wait. Watchers wait when it is full.
const EVENTS: usize = 256;
const COMMANDS: usize = 4;
/// How long tasks may take to go in order when this node leaves; what is left then goes with it.
const TASKS_FIRST_MAX: Duration = Duration::from_secs(30);
/// Without any event; a deadline comes earlier.
const IDLE: Duration = Duration::from_mins(1);

/// Asks for this node to leave; answered when nothing of it is left.
pub(crate) type Leave = oneshot::Sender<Result<(), Fault>>;

/// Something that was begun has ended.
enum Ended {
    Operation(TaskId, Outcome),
    /// A manager was told that this node is about to leave, or could not be.
    Notice(Result<(), Fault>),
    /// A manager was told that this node leaves, or could not be.
    Farewell(Result<(), Fault>),
    /// A watcher or a small effect; it has said all it had to say.
    Other,
}

/// Takes over what runs and starts the loops.
pub(crate) async fn start(
    config: Arc<Config>,
    engine: Engine,
    dataplane: Dataplane,
    scope: &mut Scope,
) -> Result<Agent, Error> {
    let journal = Journal::open(&config.data).await?;
    let executor = Executor::new(Arc::clone(&config), engine.clone(), dataplane.clone());
    let (outbox, clock) = (Outbox::default(), Clock::start());
    let (inbound_sender, inbound) = mpsc::channel(INBOUND);
    let (commands, command_inbox) = mpsc::channel(COMMANDS);
    let first = Status { managers: config.managers.clone(), ..Status::default() };
    let (publish, status) = watch::channel(first);
    let parting = CancellationToken::new();
    let connection = Connection::new(
        (Arc::clone(&config), engine, dataplane),
        (inbound_sender, outbox.clone(), publish),
        parting.clone(),
        clock,
    )?;
    let mut work = Work::new(journal, executor, outbox, (parting, status.clone()), clock);
    work.take_over().await;
    let token = scope.token();
    scope.spawn("work", work.run(inbound, command_inbox, token.clone()));
    scope.spawn("session", connection.run(token));
    Ok(Agent { status, commands })
}

/// This node leaves.
struct Leaving {
    waiting: Vec<Leave>,
    step: Step,
}

/// How far it is.
enum Step {
    /// A manager is told that it is about to.
    Notice,
    /// Its tasks go in order, as managers say; until this uptime at the latest.
    TasksFirst(Duration),
    /// A manager is told that it goes; no more orders are taken.
    Farewell,
    /// What came of telling it.
    Told(Result<(), Fault>),
}

struct Work {
    worker: Worker,
    journal: Journal,
    executor: Executor,
    outbox: Outbox,
    running: JoinSet<Ended>,
    /// Operations under way, to tell whose a cancelled one was.
    operations: BTreeMap<tokio::task::Id, TaskId>,
    pulls: BTreeMap<TaskId, AbortHandle>,
    /// The containers that are watched.
    watched: BTreeMap<TaskId, String>,
    events: mpsc::Sender<Event>,
    happened: mpsc::Receiver<Event>,
    leaving: Option<Leaving>,
    /// Ends the connection to managers.
    parting: CancellationToken,
    status: watch::Receiver<Status>,
    swept: bool,
    clock: Clock,
}

impl Work {
    fn new(
        journal: Journal,
        executor: Executor,
        outbox: Outbox,
        (parting, status): (CancellationToken, watch::Receiver<Status>),
        clock: Clock,
    ) -> Self {
        let (events, happened) = mpsc::channel(EVENTS);
        Self {
            worker: Worker::default(),
            journal,
            executor,
            outbox,
            running: JoinSet::new(),
            operations: BTreeMap::new(),
            pulls: BTreeMap::new(),
            watched: BTreeMap::new(),
            events,
            happened,
            leaving: None,
            parting,
            status,
            swept: false,
            clock,
        }
    }

    /// Compares the journal with what is there.
    async fn take_over(&mut self) {
        let found = self.executor.observe().await;
        let observed = found.into_iter().map(|(id, (_, observed))| (id, observed)).collect();
        let (worker, effects) =
            Worker::restore(self.journal.entries(), &observed, self.clock.now());
        self.worker = worker;
        for (container, observed) in &observed {
            // It ended while nobody looked.
            if observed.exit.is_some() {
                self.detach(container.clone());
            }
        }
        self.carry_out(effects).await;
    }

    async fn run(
        mut self,
        mut inbound: mpsc::Receiver<Inbound>,
        mut commands: mpsc::Receiver<Leave>,
        token: CancellationToken,
    ) -> Result<(), Error> {
        loop {
            let deadline = self.worker.deadline().into_iter().chain(self.tasks_first_until()).min();
            let wait =
                deadline.map_or(IDLE, |at| at.saturating_sub(self.clock.now().uptime)).min(IDLE);
            let event = tokio::select! {
                () = token.cancelled() => return Ok(()),
                Some(ended) = self.running.join_next_with_id() => self.ended(ended),
                Some(event) = self.happened.recv() => Some(event),
                Some(done) = commands.recv() => {
                    self.leave(done);
                    Some(Event::Tick)
                }
                Some(Inbound(event)) = inbound.recv() => {
                    self.takes_orders().then_some(event)
                }
                () = tokio::time::sleep(wait) => Some(Event::Tick),
            };
            if let Some(event) = event {
                self.handle(event).await;
            }
        }
    }

    async fn handle(&mut self, event: Event) {
        if let Event::Exited { task, .. } = &event
            && let Some(container) = self.worker.container_of(task).map(str::to_owned)
        {
            self.detach(container);
        }
        let effects = self.worker.handle(event, self.clock.now());
        self.carry_out(effects).await;
        if self.worker.is_told() && !self.swept {
            self.swept = true;
            self.sweep().await;
        }
        let is_over = self.worker.is_over();
        if self.tasks_first_until().is_some_and(|until| is_over || until <= self.clock.now().uptime)
        {
            self.part();
        }
        if self.worker.is_empty()
            && let Some(Leaving { waiting, step: Step::Told(told) }) = &mut self.leaving
        {
            for done in waiting.drain(..) {
                done.send(told.clone()).ok();
            }
        }
    }

    /// Managers are told first: whoever sends requests here must hear of it before the tasks that
    /// answer them go, and new tasks must not come. While they go, all others know the way here:
    /// what is under way comes to its end.
    fn leave(&mut self, done: Leave) {
        if let Some(leaving) = &mut self.leaving {
            leaving.waiting.push(done);
            return;
        }
        self.leaving = Some(Leaving { waiting: vec![done], step: Step::Notice });
        self.tell(true);
    }

    /// Goes for good: the connection to managers ends.
    fn part(&mut self) {
        self.advance(Step::Farewell);
        self.parting.cancel();
        self.tell(false);
    }

    fn tell(&mut self, tasks_first: bool) {
        let identity = Arc::clone(&self.executor.config.identity);
        let managers = self.status.borrow().managers.clone();
        self.running.spawn(async move {
            let told = crate::leave::leave(&identity, &managers, tasks_first).await;
            if tasks_first { Ended::Notice(told) } else { Ended::Farewell(told) }
        });
    }

    fn advance(&mut self, step: Step) {
        if let Some(leaving) = &mut self.leaving {
            leaving.step = step;
        }
    }

    fn takes_orders(&self) -> bool {
        self.leaving.as_ref().is_none_or(|leaving| match leaving.step {
            Step::Notice | Step::TasksFirst(_) => true,
            Step::Farewell | Step::Told(_) => false,
        })
    }

    fn tasks_first_until(&self) -> Option<Duration> {
        match self.leaving.as_ref()?.step {
            Step::TasksFirst(until) => Some(until),
            Step::Notice | Step::Farewell | Step::Told(_) => None,
        }
    }

    /// What was decided is on disk before anything of it is done.
    async fn carry_out(&mut self, effects: Vec<Effect>) {
        let changed = self.worker.changed();
        let processes: Vec<(TaskId, Option<String>)> =
            changed.iter().map(|(id, entry)| (id.clone(), process_of(entry.as_ref()))).collect();
        if let Err(error) = self.journal.keep(changed).await {
            // Containers matter more than the journal: it is written with the next event.
            tracing::error!(%error, "cannot write the agent's journal");
        }
        for effect in effects {
            match effect {
                Effect::Begin { task, operation } => self.begin(task, operation),
                Effect::Abort { task } => {
                    if let Some(pull) = self.pulls.get(&task) {
                        pull.abort();
                    }
                }
                Effect::Withdraw { task } => {
                    let executor = self.executor.clone();
                    self.running.spawn(async move {
                        executor.withdraw(task).await;
                        Ended::Other
                    });
                }
                Effect::Report { task, status } => self.outbox.put(task, status),
            }
        }
        for (task, container) in processes {
            match container {
                Some(container) => self.watch(task, container),
                None => drop(self.watched.remove(&task)),
            }
        }
    }

    fn begin(&mut self, id: TaskId, operation: Operation) {
        let executor = self.executor.clone();
        let task = self.worker.task(&id).cloned().unwrap_or_default();
        let is_pull = matches!(operation, Operation::Pull(_));
        let of = id.clone();
        let handle = self.running.spawn(async move {
            let outcome = executor.run(task, operation).await;
            Ended::Operation(of, outcome)
        });
        self.operations.insert(handle.id(), id.clone());
        if is_pull {
            self.pulls.insert(id, handle);
        }
    }

    fn ended(&mut self, ended: Result<(tokio::task::Id, Ended), JoinError>) -> Option<Event> {
        match ended {
            Ok((id, Ended::Operation(task, outcome))) => {
                self.operations.remove(&id);
                self.pulls.remove(&task);
                Some(Event::Done { task, outcome })
            }
            Ok((_, Ended::Notice(Ok(())))) => {
                let until = self.clock.now().uptime + TASKS_FIRST_MAX;
                self.advance(Step::TasksFirst(until));
                Some(Event::Tick)
            }
            Ok((_, Ended::Notice(Err(fault)))) => {
                tracing::warn!(%fault, "this node leaves before its tasks");
                self.part();
                None
            }
            Ok((_, Ended::Farewell(told))) => {
                let event = Event::Leave { told: told.is_ok() };
                self.advance(Step::Told(told));
                Some(event)
            }
            Ok((_, Ended::Other)) => None,
            Err(error) => {
                let task = self.operations.remove(&error.id())?;
                self.pulls.remove(&task);
                let outcome = if error.is_cancelled() {
                    Outcome::Aborted
                } else {
                    tracing::error!(%task, %error, "an operation panicked");
                    Outcome::Failed("an internal error, see the daemon's log".to_owned())
                };
                Some(Event::Done { task, outcome })
            }
        }
    }

    /// Watches a container, unless it is watched already. A process that is being started is
    /// watched too: what it does before it is known to run is not lost.
    fn watch(&mut self, task: TaskId, container: String) {
        if self.watched.get(&task) == Some(&container) {
            return;
        }
        self.watched.insert(task.clone(), container.clone());
        let (executor, events) = (self.executor.clone(), self.events.clone());
        self.running.spawn(async move {
            executor.watch(task, container, events).await;
            Ended::Other
        });
    }

    fn detach(&mut self, container: String) {
        let executor = self.executor.clone();
        self.running.spawn(async move {
            executor.detach(&container).await;
            Ended::Other
        });
    }

    /// Removes containers of tasks that this node does not have (an older cluster's, or a journal
    /// that was lost).
    async fn sweep(&mut self) {
        for (container, (task, _)) in self.executor.observe().await {
            let known = task.as_ref().and_then(|task| self.worker.container_of(task));
            let may_be_made = task
                .as_ref()
                .is_some_and(|task| self.worker.task(task).is_some() && known.is_none());
            if known == Some(container.as_str()) || may_be_made {
                continue;
            }
            tracing::info!(container, "removing a container that belongs to no task of this node");
            let executor = self.executor.clone();
            self.running.spawn(async move {
                let operation = Operation::Remove { container };
                executor.run(Task::default(), operation).await;
                Ended::Other
            });
        }
    }
}

/// The container of a task that has a process to watch.
fn process_of(entry: Option<&Entry>) -> Option<String> {
    let status = &entry.filter(|entry| has_process(entry.status.state))?.status;
    Some(status.container.as_ref()?.id.clone())
}
