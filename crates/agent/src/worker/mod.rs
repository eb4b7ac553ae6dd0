//! What becomes of each task on this node: events in, effects out.
//!
//! Pure. Of each task at most one operation is under way; when it is over, `local` looks at what
//! is wanted and what is there, and says the next step. Nothing depends on the order of events of
//! different tasks.
//!
//! Invariants: a state only rises; nothing is started once a stop was wanted; a task that is
//! wanted shut down ends in a terminal state also when every effect fails; what runs although its
//! task has ended is killed; nothing is done at all
//! before managers have said what this node should have (only what ended is told).

mod local;
mod steps;

use crate::Now;
use crate::files::Files;
use local::Local;
use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::time::Duration;
use types::{Task, TaskId, TaskState, TaskStatus};

/// How long a stop waits for managers to say that nobody leads traffic to the task any more.
pub const WITHDRAWAL_MAX: Duration = Duration::from_secs(5);
/// How long it waits where managers know that this node leaves: the others hear of it meanwhile,
/// but nobody says so any more.
pub const FAREWELL: Duration = Duration::from_secs(2);
/// How long a stop waits for open connections to end; never longer than the grace period.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Everything that can happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// All tasks that this node should have.
    Whole { tasks: Assigned, withdrawn: BTreeSet<TaskId> },
    /// What changed of that.
    Changed { tasks: Assigned, removed: BTreeSet<TaskId>, withdrawn: Option<BTreeSet<TaskId>> },
    /// The operation of this task that was under way is over.
    Done { task: TaskId, outcome: Outcome },
    /// The task's process runs, whatever came of its start.
    Begun { task: TaskId },
    /// The task's process has ended.
    Exited { task: TaskId, exit: Exit },
    /// The task's health check says so.
    Health { task: TaskId, healthy: bool },
    /// A [`Worker::deadline`] has come.
    Tick,
    /// This node leaves the cluster: everything is taken down. Where managers were told, that is
    /// as for any stop; otherwise there is nothing to wait for.
    Leave { told: bool },
}

/// Tasks that managers have assigned to this node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assigned {
    pub understood: BTreeMap<TaskId, Task>,
    /// Why others are not understood: a newer release may have said them. They are rejected, but for
    /// one that is here already: it goes on as it was.
    pub others: BTreeMap<TaskId, String>,
    /// The files of tasks that are to start and have some.
    pub files: BTreeMap<TaskId, Files>,
}

impl Assigned {
    pub fn is_empty(&self) -> bool {
        self.understood.is_empty() && self.others.is_empty()
    }

    fn has(&self, id: &TaskId) -> bool {
        self.understood.contains_key(id) || self.others.contains_key(id)
    }
}

/// All of them understood.
impl FromIterator<(TaskId, Task)> for Assigned {
    fn from_iter<I: IntoIterator<Item = (TaskId, Task)>>(tasks: I) -> Self {
        Self { understood: tasks.into_iter().collect(), ..Self::default() }
    }
}

/// How a process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    pub code: i32,
    /// What the engine adds, e.g. that memory ran out.
    pub error: String,
}

/// What came of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Pulled,
    Created {
        container: String,
    },
    Started {
        pid: u32,
        has_health_check: bool,
    },
    Drained,
    Stopped(Exit),
    Refreshed,
    Removed,
    Failed(String),
    /// It was called off.
    Aborted,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// An operation, which ends with [`Event::Done`].
    Begin { task: TaskId, operation: Operation },
    /// Call off the pull that is under way.
    Abort { task: TaskId },
    /// Take the task out of this node's names and balancers at once.
    Withdraw { task: TaskId },
    /// Tell managers.
    Report { task: TaskId, status: TaskStatus },
}

/// Something that takes its time. One for a task at a time.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Make sure that the image is there.
    Pull(Box<Task>),
    Create {
        task: Box<Task>,
        files: Files,
    },
    Start {
        container: String,
        files: Files,
    },
    /// Put other files in the place of those that it has, and send a signal.
    Refresh {
        container: String,
        files: Files,
        signal: String,
    },
    /// Wait until nobody is connected.
    Drain {
        container: String,
        limit: Duration,
    },
    /// The stop signal, `grace`, SIGKILL.
    Stop {
        container: String,
        grace: Duration,
    },
    /// Remove the container, whatever it does.
    Remove {
        container: String,
    },
}

/// What is kept of a task on disk.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Entry {
    pub task: Task,
    pub status: TaskStatus,
}

impl Entry {
    /// The container of a task that has a process to watch. One that is being started is watched,
    /// too: what it does before it is known to run is not lost.
    pub fn process(&self) -> Option<&str> {
        let has_process = TaskState::Starting..=TaskState::Running;
        let container = self.status.container.as_ref()?;
        has_process.contains(&self.status.state).then_some(&*container.id)
    }
}

/// What is found of a container after a restart of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub pid: u32,
    /// `None`: it runs or was never started.
    pub exit: Option<Exit>,
    pub running: bool,
    pub has_health_check: bool,
    pub healthy: bool,
}

/// All tasks of this node.
#[derive(Debug, Default)]
pub struct Worker {
    tasks: BTreeMap<TaskId, Local>,
    withdrawn: BTreeSet<TaskId>,
    /// Managers have said what this node should have.
    told: bool,
    /// Tasks that may be other than [`Self::changed`] said last.
    touched: BTreeSet<TaskId>,
}

impl Worker {
    /// Takes over after a restart: what the journal knows, and what is found by container id.
    /// Says what is news to managers.
    pub fn restore(
        entries: BTreeMap<TaskId, Entry>,
        observed: &BTreeMap<String, Observed>,
        now: Now,
    ) -> (Self, Vec<Effect>) {
        let mut worker = Self::default();
        let mut effects = Vec::new();
        for (id, entry) in entries {
            let container = entry.status.container.as_ref();
            let found = container.and_then(|container| observed.get(&container.id));
            let mut local = Local::restored(entry);
            local.take_over(found, now, &mut effects);
            worker.touched.insert(id.clone());
            worker.tasks.insert(id, local);
        }
        (worker, effects)
    }

    /// Takes one event; says what is to be done.
    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Whole { tasks, withdrawn } => {
                self.told = true;
                self.withdrawn = withdrawn;
                for (id, local) in self.tasks.iter_mut().filter(|(id, _)| !tasks.has(id)) {
                    local.leave();
                    self.touched.insert(id.clone());
                }
                self.assign(tasks, now, &mut effects);
                self.tell_managers(&mut effects);
                self.advance_all(now, &mut effects);
            }
            Event::Changed { tasks, removed, withdrawn } => {
                if let Some(withdrawn) = withdrawn {
                    self.withdrawn = withdrawn;
                }
                for id in removed {
                    if let Some(local) = self.tasks.get_mut(&id) {
                        local.leave();
                        self.touched.insert(id);
                    }
                }
                self.assign(tasks, now, &mut effects);
                self.advance_all(now, &mut effects);
            }
            Event::Done { task, outcome } => {
                self.with(&task, now, &mut effects, |local, effects| {
                    local.done(outcome, now, effects);
                });
            }
            Event::Begun { task } => {
                self.with(&task, now, &mut effects, |local, _| local.begun());
            }
            Event::Exited { task, exit } => {
                self.with(&task, now, &mut effects, |local, _| local.exited(exit));
            }
            Event::Health { task, healthy } => {
                self.with(&task, now, &mut effects, |local, effects| {
                    local.health(healthy, now, effects);
                });
            }
            Event::Tick => self.advance_all(now, &mut effects),
            Event::Leave { told } => {
                self.told = true;
                for local in self.tasks.values_mut() {
                    local.part(told);
                }
                self.touched.extend(self.tasks.keys().cloned());
                self.advance_all(now, &mut effects);
            }
        }
        for id in &self.touched {
            if self.tasks.get(id).is_some_and(Local::is_forgotten) {
                self.tasks.remove(id);
            }
        }
        effects
    }

    /// When something will be due without another event, in uptime.
    pub fn deadline(&self) -> Option<Duration> {
        if !self.told {
            return None;
        }
        self.tasks.values().filter_map(Local::deadline).min()
    }

    /// What must survive a restart.
    pub fn entries(&self) -> BTreeMap<TaskId, Entry> {
        self.tasks.iter().map(|(id, local)| (id.clone(), local.entry())).collect()
    }

    /// What of that may be other than when this was asked last; `None`: the task is forgotten.
    pub fn changed(&mut self) -> BTreeMap<TaskId, Option<Entry>> {
        let touched = std::mem::take(&mut self.touched).into_iter();
        touched.map(|id| (id.clone(), self.tasks.get(&id).map(Local::entry))).collect()
    }

    /// A task as managers said it last.
    pub fn task(&self, id: &TaskId) -> Option<&Task> {
        self.tasks.get(id).map(Local::task)
    }

    /// The task that a container belongs to.
    pub fn task_of(&self, container: &str) -> Option<&TaskId> {
        self.tasks.iter().find(|(_, local)| local.container() == Some(container)).map(|(id, _)| id)
    }

    /// The container of a task.
    pub fn container_of(&self, task: &TaskId) -> Option<&str> {
        self.tasks.get(task).and_then(Local::container)
    }

    /// Says whether nothing is left on this node.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Says whether every task has ended.
    pub fn is_over(&self) -> bool {
        self.tasks.values().all(Local::is_over)
    }

    /// Says whether managers have said what this node should have.
    pub fn is_told(&self) -> bool {
        self.told
    }

    fn assign(&mut self, mut assigned: Assigned, now: Now, effects: &mut Vec<Effect>) {
        for (id, task) in assigned.understood {
            let files = assigned.files.remove(&id).unwrap_or_default();
            let is_other = match self.tasks.entry(id.clone()) {
                btree_map::Entry::Occupied(local) => local.into_mut().assign(task, files),
                btree_map::Entry::Vacant(place) => {
                    place.insert(Local::assigned(task, now, effects)).give(files);
                    true
                }
            };
            if is_other {
                self.touched.insert(id);
            }
        }
        for (id, why) in assigned.others {
            self.tasks.entry(id).or_insert_with_key(|id| {
                self.touched.insert(id.clone());
                Local::rejected(id, &why, now, effects)
            });
        }
    }

    /// What managers do not know yet, or have forgotten.
    fn tell_managers(&self, effects: &mut Vec<Effect>) {
        let news = self.tasks.values().filter(|local| local.is_news());
        effects.extend(news.map(Local::report));
    }

    fn with(
        &mut self,
        id: &TaskId,
        now: Now,
        effects: &mut Vec<Effect>,
        change: impl FnOnce(&mut Local, &mut Vec<Effect>),
    ) {
        let Some(local) = self.tasks.get_mut(id) else { return };
        self.touched.insert(id.clone());
        change(local, effects);
        local.settle(now, effects);
        if self.told {
            local.advance(self.withdrawn.contains(id), now, effects);
        }
    }

    fn advance_all(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if !self.told {
            return;
        }
        for (id, local) in &mut self.tasks {
            let before = effects.len();
            local.advance(self.withdrawn.contains(id), now, effects);
            // A step has an effect.
            if before < effects.len() {
                self.touched.insert(id.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
