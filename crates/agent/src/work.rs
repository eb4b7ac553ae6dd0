//! The worker's loop: brings it every event and has its effects carried out.

use crate::clock::Clock;
use crate::connection::{Connection, Inbound};
use crate::execute::Executor;
use crate::journal::{Entries, Journal};
use crate::leaving::Leaving;
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
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use types::{Fault, Task, TaskId};

/// Messages of managers that wait for the loop. The session waits when it is full.
const INBOUND: usize = 64;
/// Ends and health changes that wait. Watchers wait when it is full.
const EVENTS: usize = 256;
const COMMANDS: usize = 4;
/// How long what was decided waits for a disk that takes its time, before it is done all the same;
/// and how often it is looked whether the disk goes on.
const JOURNAL_MAX: Duration = Duration::from_secs(2);
/// Without any event; a deadline comes earlier.
const IDLE: Duration = Duration::from_mins(1);

/// Asks for this node to leave; answered when nothing of it is left.
pub(crate) type Leave = oneshot::Sender<Result<(), Fault>>;

/// Something that was begun has ended.
enum Ended {
    Operation(TaskId, Outcome),
    /// A manager was told that this node leaves, or could not be.
    Told(Result<(), Fault>),
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
    let (journal, entries) = Journal::open(&config.data).await?;
    let executor = Executor::new(Arc::clone(&config), engine.clone(), dataplane.clone());
    let (outbox, clock) = (Outbox::default(), Clock::start());
    let (inbound_sender, inbound) = mpsc::channel(INBOUND);
    let (commands, command_inbox) = mpsc::channel(COMMANDS);
    let first = Status { managers: config.managers.clone(), ..Status::default() };
    let (publish, status) = watch::channel(first);
    let (notice, parting) = (CancellationToken::new(), CancellationToken::new());
    let connection = Connection::new(
        (Arc::clone(&config), engine, dataplane),
        (inbound_sender, outbox.clone(), publish),
        (notice.clone(), parting.clone()),
        clock,
    )?;
    let mut work = Work::new(journal, executor, outbox, (notice, parting, status.clone()), clock);
    work.take_over(entries).await;
    let token = scope.token();
    scope.spawn("work", work.run(inbound, command_inbox, token.clone()));
    scope.spawn("session", connection.run(token));
    Ok(Agent { status, commands })
}

struct Work {
    worker: Worker,
    journal: Journal,
    /// The disk did not take the journal in time.
    is_late: bool,
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
    /// Whoever waits for this node to have left, and what came of telling a manager.
    leavers: (Vec<Leave>, Result<(), Fault>),
    /// Has every session say that this node leaves.
    notice: CancellationToken,
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
        (notice, parting, status): (CancellationToken, CancellationToken, watch::Receiver<Status>),
        clock: Clock,
    ) -> Self {
        let (events, happened) = mpsc::channel(EVENTS);
        Self {
            worker: Worker::default(),
            journal,
            is_late: false,
            executor,
            outbox,
            running: JoinSet::new(),
            operations: BTreeMap::new(),
            pulls: BTreeMap::new(),
            watched: BTreeMap::new(),
            events,
            happened,
            leaving: None,
            leavers: (Vec::new(), Ok(())),
            notice,
            parting,
            status,
            swept: false,
            clock,
        }
    }

    /// Compares the journal with what is there.
    async fn take_over(&mut self, entries: Entries) {
        let found = self.executor.observe().await;
        let observed = found.into_iter().map(|(id, (_, observed))| (id, observed)).collect();
        let (worker, effects) = Worker::restore(entries, &observed, self.clock.now());
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
            let leaving = self.leaving.and_then(Leaving::deadline);
            let deadline = self.worker.deadline().into_iter().chain(leaving).min();
            let idle = if self.is_late { JOURNAL_MAX } else { IDLE };
            let wait =
                deadline.map_or(idle, |at| at.saturating_sub(self.clock.now().uptime)).min(idle);
            let event = tokio::select! {
                () = token.cancelled() => return Ok(()),
                Some(ended) = self.running.join_next_with_id() => self.ended(ended),
                Some(event) = self.happened.recv() => Some(event),
                Some(done) = commands.recv() => {
                    self.leave(done);
                    Some(Event::Tick)
                }
                Some(Inbound(event)) = inbound.recv() => {
                    self.leaving.is_none_or(Leaving::takes_orders).then_some(event)
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
        let Some(leaving) = self.leaving else { return };
        if leaving.parts(&self.worker, self.clock.now()) {
            self.part();
        } else if leaving.is_gone(&self.worker) {
            let (waiting, told) = &mut self.leavers;
            for done in waiting.drain(..) {
                done.send(told.clone()).ok();
            }
        }
    }

    fn leave(&mut self, done: Leave) {
        self.leavers.0.push(done);
        if self.leaving.is_none() {
            self.leaving = Some(Leaving::default());
            self.notice.cancel();
            self.tell(true);
        }
    }

    /// Goes for good: the connection to managers ends.
    fn part(&mut self) {
        self.leaving = Some(Leaving::Farewell);
        self.parting.cancel();
        self.tell(false);
    }

    fn tell(&mut self, tasks_first: bool) {
        let identity = Arc::clone(&self.executor.config.identity);
        let managers = self.status.borrow().managers.clone();
        self.running.spawn(async move {
            Ended::Told(crate::leave::leave(&identity, &managers, tasks_first).await)
        });
    }

    /// A manager was told that this node leaves, or could not be.
    fn told(&mut self, told: Result<(), Fault>) -> Option<Event> {
        let leaving = self.leaving?.answered(told.is_ok(), self.clock.now());
        self.leaving = Some(leaving);
        match leaving {
            Leaving::Farewell => {
                if let Err(fault) = told {
                    tracing::warn!(%fault, "this node leaves before its tasks");
                }
                self.part();
                None
            }
            Leaving::TakeDown => {
                let event = Event::Leave { told: told.is_ok() };
                self.leavers.1 = told;
                Some(event)
            }
            Leaving::Notice | Leaving::TasksFirst(_) => Some(Event::Tick),
        }
    }

    /// What was decided is on disk before anything of it is done, unless the disk fails or hangs:
    /// containers matter more than the journal, which is written with a later event.
    async fn carry_out(&mut self, effects: Vec<Effect>) {
        let changed = self.worker.changed();
        let processes: Vec<(TaskId, Option<String>)> =
            changed.iter().map(|(id, entry)| (id.clone(), process_of(entry.as_ref()))).collect();
        self.keep(changed).await;
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

    /// Nobody waits for a disk that hangs twice.
    async fn keep(&mut self, changed: BTreeMap<TaskId, Option<Entry>>) {
        let limit = if self.is_late { Duration::ZERO } else { JOURNAL_MAX };
        let kept = timeout(limit, self.journal.keep(changed)).await;
        self.is_late = kept.is_err();
        match kept {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "cannot write the agent's journal"),
            Err(_) => tracing::error!("the disk takes too long to write the agent's journal"),
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
            Ok((_, Ended::Told(told))) => self.told(told),
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

fn process_of(entry: Option<&Entry>) -> Option<String> {
    entry.and_then(Entry::process).map(str::to_owned)
}
