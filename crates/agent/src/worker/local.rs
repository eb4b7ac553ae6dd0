//! One task: where it is, and the next step.

use super::steps::{Doing, Process, Seen, Want};
use super::{
    DRAIN_MAX, Effect, Entry, Exit, FAREWELL, Observed, Operation, Outcome, WITHDRAWAL_MAX,
};
use crate::Now;
use crate::files::Files;
use std::time::Duration;
use types::{ContainerStatus, DesiredState, Task, TaskId, TaskState, TaskStatus};

/// Before a stop, a removal or a refresh that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Local {
    task: Task,
    status: TaskStatus,
    doing: Option<Doing>,
    has_image: bool,
    /// Until it has started, and until they have taken the place of others.
    files: Files,
    /// The refresh that has failed and is tried once more.
    again: u64,
    process: Process,
    exit: Option<Exit>,
    /// When its process will have run for long enough.
    trial_end: Option<Duration>,
    /// Why its start failed. It is killed before that is told: the engine may have gone on.
    broken: Option<String>,
    seen: Seen,
    /// Since when a stop is wanted, and how far it is.
    stop: Option<Stop>,
    retry_at: Option<Duration>,
    /// No longer assigned: forgotten once nothing is left.
    leaving: bool,
    /// It leaves with this node, and managers know: it is stopped in order.
    parting: bool,
}

#[derive(Clone, Copy, Debug)]
struct Stop {
    since: Duration,
    is_drained: bool,
}

impl Local {
    fn new(task: Task, status: TaskStatus) -> Self {
        Self {
            task,
            status,
            doing: None,
            has_image: false,
            files: Files::default(),
            again: 0,
            process: Process::NotStarted,
            exit: None,
            trial_end: None,
            broken: None,
            seen: Seen::Nothing,
            stop: None,
            retry_at: None,
            leaving: false,
            parting: false,
        }
    }

    /// A task that is new here.
    pub(super) fn assigned(task: Task, now: Now, effects: &mut Vec<Effect>) -> Self {
        let status = task.status.clone();
        let mut local = Self::new(task, status);
        // Managers think that it is further than it is: the journal was lost.
        if TaskState::Ready <= local.status.state && !local.status.state.is_terminal() {
            local.status.container = None;
            local.end(TaskState::Failed, "task: its container is gone", now, effects);
        }
        local
    }

    /// A task that is new here and is not understood.
    pub(super) fn rejected(id: &TaskId, why: &str, now: Now, effects: &mut Vec<Effect>) -> Self {
        let task = Task { id: id.clone(), ..Task::default() };
        let mut local = Self::new(task, TaskStatus::default());
        let version = env!("CARGO_PKG_VERSION");
        let error = format!("this node's skep {version} does not understand the task: {why}");
        local.end(TaskState::Rejected, &error, now, effects);
        local
    }

    pub(super) fn restored(entry: Entry) -> Self {
        Self::new(entry.task, entry.status)
    }

    /// Compares the journal with what is found.
    pub(super) fn take_over(
        &mut self,
        found: Option<&Observed>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if self.status.state.is_terminal() {
            if found.is_some_and(|found| found.running) {
                self.begun();
            }
            return;
        }
        if self.status.state < TaskState::Ready {
            return;
        }
        let Some(found) = found else {
            self.status.container = None;
            self.end(TaskState::Failed, "task: its container is gone", now, effects);
            return;
        };
        if self.status.state < TaskState::Starting {
            return;
        }
        self.exit.clone_from(&found.exit);
        if found.running || found.exit.is_some() {
            self.process = Process::Started;
        }
        if self.status.unhealthy {
            self.process = Process::Unhealthy;
        }
        if found.running && (!found.has_health_check || found.healthy) {
            self.rise(TaskState::Running, "started", now, effects);
        }
        self.settle(now, effects);
    }

    /// What managers say of the task. Says whether it is new.
    pub(super) fn assign(&mut self, task: Task, files: Files) -> bool {
        self.leaving = false;
        self.parting = false;
        let is_new = self.task != task || !files.is_empty();
        self.task = task;
        self.give(files);
        is_new
    }

    /// Its files are there, for as long as they are needed. What it has stays, whatever else is to start
    /// on this node.
    pub(super) fn give(&mut self, files: Files) {
        if self.awaits_files() && !self.status.state.is_terminal() {
            self.files.secrets.extend(files.secrets);
            self.files.configs.extend(files.configs);
        }
    }

    /// They are not said again once it runs: those of a refresh are kept from the moment they come.
    fn awaits_files(&self) -> bool {
        self.process == Process::NotStarted || self.status.refreshed < self.refresh_number()
    }

    fn refresh_number(&self) -> u64 {
        self.task.refresh.as_ref().map_or(0, |refresh| refresh.number)
    }

    /// It has the files up to this refresh.
    fn has_files_of(&mut self, number: u64) {
        self.status.refreshed = self.status.refreshed.max(number);
        if !self.awaits_files() {
            self.files = Files::default();
        }
    }

    /// It is no longer assigned.
    pub(super) fn leave(&mut self) {
        self.leaving = true;
    }

    /// This node leaves; managers were told or not.
    pub(super) fn part(&mut self, told: bool) {
        self.parting |= told && !self.leaving;
        self.leaving = true;
    }

    /// Says whether nothing is left of a task that is no longer assigned.
    pub(super) fn is_forgotten(&self) -> bool {
        self.leaving
            && self.doing.is_none()
            && self.status.state.is_terminal()
            && self.container().is_none()
    }

    pub(super) fn is_over(&self) -> bool {
        self.status.state.is_terminal()
    }

    pub(super) fn container(&self) -> Option<&str> {
        self.status.container.as_ref().map(|container| container.id.as_str())
    }

    pub(super) fn task(&self) -> &Task {
        &self.task
    }

    pub(super) fn entry(&self) -> Entry {
        Entry { task: self.task.clone(), status: self.status.clone() }
    }

    /// Says whether managers know less than this node.
    pub(super) fn is_news(&self) -> bool {
        let known = &self.task.status;
        let unhealthy = self.status.unhealthy && !known.unhealthy;
        let refreshed = known.refreshed < self.status.refreshed;
        !self.leaving && (known.state < self.status.state || unhealthy || refreshed)
    }

    pub(super) fn report(&self) -> Effect {
        Effect::Report { task: self.task.id.clone(), status: self.status.clone() }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        if self.doing.is_some() {
            return None;
        }
        let waits = self.stop.filter(|_| !self.status.state.is_terminal());
        let waits = waits.map(|stop| stop.since + self.withdrawal_max());
        self.retry_at.or(waits).or(self.trial_end)
    }

    fn withdrawal_max(&self) -> Duration {
        if self.parting { FAREWELL } else { WITHDRAWAL_MAX }
    }

    /// The operation that was under way is over.
    pub(super) fn done(&mut self, outcome: Outcome, now: Now, effects: &mut Vec<Effect>) {
        let Some(doing) = self.doing.take() else { return };
        match outcome {
            Outcome::Pulled => self.has_image = true,
            Outcome::Created { container } => {
                let status = ContainerStatus { id: container, ..ContainerStatus::default() };
                self.status.container = Some(status);
                self.rise(TaskState::Ready, "prepared", now, effects);
            }
            Outcome::Started { pid, has_health_check } => {
                self.process = Process::Started;
                if let Doing::Start(number) = doing {
                    self.has_files_of(number);
                }
                if let Some(container) = &mut self.status.container {
                    container.pid = pid;
                }
                if !has_health_check {
                    self.trial_end = Some(now.uptime.saturating_add(self.task.trial));
                    self.end_trial(now, effects);
                } else if !self.status.state.is_terminal() {
                    effects.push(self.report());
                }
            }
            Outcome::Refreshed => self.refreshed(doing, "", effects),
            Outcome::Drained => self.drained(),
            Outcome::Stopped(exit) => {
                // A start that was given up may have gone on behind this stop's back.
                if self.broken.is_none() || self.status.state.is_terminal() {
                    self.seen = Seen::Nothing;
                }
                self.exit.get_or_insert(exit);
            }
            Outcome::Removed => self.status.container = None,
            Outcome::Aborted => {}
            Outcome::Failed(reason) => self.failed(doing, &reason, now, effects),
        }
    }

    /// A process that has run for long enough counts as running.
    fn end_trial(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.trial_end.take_if(|end| *end <= now.uptime).is_some() {
            self.rise(TaskState::Running, "started", now, effects);
        }
    }

    fn drained(&mut self) {
        if let Some(stop) = &mut self.stop {
            stop.is_drained = true;
        }
    }

    /// It has its new files, or it keeps what it has, and users see why.
    fn refreshed(&mut self, doing: Doing, why_not: &str, effects: &mut Vec<Effect>) {
        let Doing::Refresh(number) = doing else { return };
        self.has_files_of(number);
        let error = format!("its secrets and configs are not the new ones: {why_not}");
        self.status.error = if why_not.is_empty() { String::new() } else { error };
        if !self.status.state.is_terminal() {
            effects.push(self.report());
        }
    }

    fn failed(&mut self, doing: Doing, reason: &str, now: Now, effects: &mut Vec<Effect>) {
        match doing {
            Doing::Pull { .. } | Doing::Create => {
                self.end(TaskState::Rejected, reason, now, effects);
            }
            Doing::Start(_) => self.broken = Some(reason.to_owned()),
            Doing::Refresh(number) if self.again < number => {
                self.again = number;
                self.retry_at = Some(now.uptime + RETRY);
            }
            Doing::Refresh(_) => self.refreshed(doing, reason, effects),
            Doing::Drain => self.drained(),
            Doing::Stop => {
                self.retry_at = Some(now.uptime + RETRY);
                self.stop.get_or_insert(Stop { since: now.uptime, is_drained: true });
                self.note_stop(reason, effects);
            }
            Doing::Remove => self.retry_at = Some(now.uptime + RETRY),
        }
    }

    /// A task whose process may still run has not ended, however long that takes: others would get
    /// its place and its addresses. Users see why it stays.
    fn note_stop(&mut self, reason: &str, effects: &mut Vec<Effect>) {
        let error = format!("it cannot be stopped yet: {reason}");
        if !self.status.state.is_terminal() && self.status.error != error {
            self.status.error = error;
            effects.push(self.report());
        }
    }

    /// The process runs, perhaps long after its start was given up.
    pub(super) fn begun(&mut self) {
        self.seen = Seen::Running;
    }

    /// The process has ended.
    pub(super) fn exited(&mut self, exit: Exit) {
        self.seen = Seen::Nothing;
        self.exit.get_or_insert(exit);
    }

    /// What its health check says, as long as it is not to be stopped. An unhealthy task is stopped
    /// also when it becomes healthy again meanwhile, as in Docker.
    pub(super) fn health(&mut self, healthy: bool, now: Now, effects: &mut Vec<Effect>) {
        if self.process != Process::Started || self.stop.is_some() || self.broken.is_some() {
            return;
        }
        if healthy {
            self.rise(TaskState::Running, "started", now, effects);
        } else if !self.status.state.is_terminal() {
            self.process = Process::Unhealthy;
            self.status.unhealthy = true;
            effects.push(self.report());
        }
    }

    /// Draws the conclusion from an exit. (While the start is still under way, it waits.)
    pub(super) fn settle(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let process = TaskState::Starting..=TaskState::Running;
        if matches!(self.doing, Some(Doing::Start(_))) || !process.contains(&self.status.state) {
            return;
        }
        let Some(exit) = self.exit.clone() else { return };
        if let Some(container) = &mut self.status.container {
            container.exit_code = exit.code;
            container.pid = 0;
        }
        if let Some(reason) = self.broken.clone() {
            self.end(TaskState::Failed, &reason, now, effects);
        } else if self.is_unhealthy() {
            let error =
                format!("task: non-zero exit ({}): dockerexec: unhealthy container", exit.code);
            self.end(TaskState::Failed, &error, now, effects);
        } else if self.want() == Want::Stopped {
            self.end(TaskState::Shutdown, "", now, effects);
        } else if exit.code == 0 {
            self.end(TaskState::Complete, "", now, effects);
        } else {
            let mut error = format!("task: non-zero exit ({})", exit.code);
            if !exit.error.is_empty() {
                error = format!("{error}: {}", exit.error);
            }
            self.end(TaskState::Failed, &error, now, effects);
        }
    }

    fn is_unhealthy(&self) -> bool {
        self.process == Process::Unhealthy
    }

    fn want(&self) -> Want {
        // Managers may have given up on the task while this node was away.
        if self.leaving || self.task.status.state.is_terminal() {
            return Want::Stopped;
        }
        match self.task.desired {
            DesiredState::Ready => Want::Prepared,
            DesiredState::Running => Want::Running,
            DesiredState::Shutdown | DesiredState::Remove => Want::Stopped,
        }
    }

    /// Takes the next step, if there is one.
    pub(super) fn advance(&mut self, is_withdrawn: bool, now: Now, effects: &mut Vec<Effect>) {
        let want = self.want();
        let is_stopping = want == Want::Stopped || self.is_unhealthy();
        if is_stopping && self.stop.is_none() && !self.status.state.is_terminal() {
            self.stop = Some(Stop { since: now.uptime, is_drained: false });
            if self.status.state == TaskState::Running {
                effects.push(Effect::Withdraw { task: self.task.id.clone() });
            }
        }
        if let Some(doing) = &mut self.doing {
            if let Doing::Pull { aborting: aborting @ false } = doing
                && want == Want::Stopped
            {
                *aborting = true;
                effects.push(Effect::Abort { task: self.task.id.clone() });
            }
            return;
        }
        if self.retry_at.is_some_and(|at| now.uptime < at) {
            return;
        }
        self.retry_at = None;
        if self.status.state.is_terminal() {
            self.clean_up(effects);
            self.end_stray(effects);
        } else if is_stopping || self.broken.is_some() {
            self.advance_stop(is_withdrawn, now, effects);
        } else {
            self.advance_start(want, now, effects);
        }
    }

    fn advance_start(&mut self, want: Want, now: Now, effects: &mut Vec<Effect>) {
        if self.status.state < TaskState::Accepted {
            self.rise(TaskState::Accepted, "accepted", now, effects);
        }
        if self.status.state < TaskState::Preparing {
            self.rise(TaskState::Preparing, "preparing", now, effects);
        }
        if self.status.state == TaskState::Preparing {
            let task = Box::new(self.task.clone());
            if self.has_image {
                let files = self.files.clone();
                self.begin(Doing::Create, Operation::Create { task, files }, effects);
            } else {
                let pull = Doing::Pull { aborting: false };
                self.begin(pull, Operation::Pull(task), effects);
            }
            return;
        }
        if want != Want::Running || self.process != Process::NotStarted {
            self.end_trial(now, effects);
            self.refresh(effects);
            return;
        }
        let Some(container) = self.container().map(str::to_owned) else { return };
        self.rise(TaskState::Starting, "starting", now, effects);
        let files = self.files.clone();
        self.begin(
            Doing::Start(self.refresh_number()),
            Operation::Start { container, files },
            effects,
        );
    }

    /// Files that take the place of others come with the task.
    fn refresh(&mut self, effects: &mut Vec<Effect>) {
        let Some(refresh) = self.task.due_refresh(&self.status).cloned() else { return };
        let Some(container) = self.container().map(str::to_owned) else { return };
        if self.files.missing(&self.task.spec.container).is_none() {
            let (files, signal) = (self.files.clone(), refresh.signal);
            let operation = Operation::Refresh { container, files, signal };
            self.begin(Doing::Refresh(refresh.number), operation, effects);
        }
    }

    /// A task that serves leaves names and balancers everywhere first, then its connections end,
    /// then it is told to stop.
    fn advance_stop(&mut self, is_withdrawn: bool, now: Now, effects: &mut Vec<Effect>) {
        let container = self.container().map(str::to_owned);
        let Some(container) = container.filter(|_| self.status.state >= TaskState::Starting) else {
            self.end(TaskState::Shutdown, "", now, effects);
            self.clean_up(effects);
            return;
        };
        if self.broken.is_some() {
            let grace = Duration::ZERO;
            self.begin(Doing::Stop, Operation::Stop { container, grace }, effects);
            return;
        }
        let Some(stop) = self.stop else { return };
        let grace = self.task.spec.container.grace();
        let in_order = self.status.state == TaskState::Running && (!self.leaving || self.parting);
        if in_order && !is_withdrawn && now.uptime < stop.since + self.withdrawal_max() {
            return;
        }
        if in_order && !stop.is_drained {
            let limit = grace.min(DRAIN_MAX);
            self.begin(Doing::Drain, Operation::Drain { container, limit }, effects);
            return;
        }
        self.begin(Doing::Stop, Operation::Stop { container, grace }, effects);
    }

    /// The container of an ended task is kept for its logs, as long as the cluster keeps the task.
    fn clean_up(&mut self, effects: &mut Vec<Effect>) {
        if !self.leaving && self.task.desired != DesiredState::Remove {
            return;
        }
        if let Some(container) = self.container().map(str::to_owned) {
            self.begin(Doing::Remove, Operation::Remove { container }, effects);
        }
    }

    /// What runs although its end was told, or although its start was given up, is killed.
    fn end_stray(&mut self, effects: &mut Vec<Effect>) {
        if self.doing.is_some() || self.seen == Seen::Nothing {
            return;
        }
        if let Some(container) = self.container().map(str::to_owned) {
            let grace = Duration::ZERO;
            self.begin(Doing::Stop, Operation::Stop { container, grace }, effects);
        }
    }

    fn begin(&mut self, doing: Doing, operation: Operation, effects: &mut Vec<Effect>) {
        self.doing = Some(doing);
        effects.push(Effect::Begin { task: self.task.id.clone(), operation });
    }

    fn rise(&mut self, state: TaskState, message: &str, now: Now, effects: &mut Vec<Effect>) {
        if state <= self.status.state || self.status.state.is_terminal() {
            return;
        }
        self.status.state = state;
        self.status.since = now.time;
        message.clone_into(&mut self.status.message);
        self.status.error.clear();
        effects.push(self.report());
    }

    /// The task has ended. What it was doing last stays in the message of a failure, as in Docker.
    fn end(&mut self, state: TaskState, error: &str, now: Now, effects: &mut Vec<Effect>) {
        if self.status.state.is_terminal() {
            return;
        }
        if TaskState::Starting <= self.status.state {
            effects.push(Effect::Withdraw { task: self.task.id.clone() });
        }
        self.status.state = state;
        self.status.since = now.time;
        error.clone_into(&mut self.status.error);
        match state {
            TaskState::Complete => "finished".clone_into(&mut self.status.message),
            TaskState::Shutdown => "shutdown".clone_into(&mut self.status.message),
            TaskState::New
            | TaskState::Pending
            | TaskState::Assigned
            | TaskState::Accepted
            | TaskState::Preparing
            | TaskState::Ready
            | TaskState::Starting
            | TaskState::Running
            | TaskState::Failed
            | TaskState::Rejected
            | TaskState::Orphaned => {}
        }
        (self.retry_at, self.trial_end) = (None, None);
        self.files = Files::default();
        effects.push(self.report());
    }
}
