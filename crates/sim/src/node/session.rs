//! A stand-in for the node's session, until that is without I/O.

use agent::worker;
use discovery::Knowledge;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use types::{Fault, TaskId, TaskStatus, Timestamp};
use wire::{Report, SessionMessage};

#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) uptime: Duration,
    pub(super) time: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct Lasting {
    pub(super) statuses: BTreeMap<TaskId, TaskStatus>,
    pub(super) learned: u64,
}

#[derive(Debug)]
pub(super) enum Event {
    Message(Box<SessionMessage>),
    Applied(u64),
    Statuses(BTreeMap<TaskId, TaskStatus>),
    Answered(Answer),
    Parting,
    Tick,
}

#[derive(Debug)]
pub(super) enum Call {
    Heartbeat(String),
    Report(Report),
    Acknowledge(String, u64),
}

#[derive(Debug)]
pub(super) enum Answer {
    Heartbeat(Result<Duration, Fault>),
    Report(Result<(), Fault>),
    Acknowledge(Result<(), Fault>),
}

#[derive(Debug)]
pub(super) enum Output {
    Learn { knowledge: Knowledge, version: u64 },
    Work(worker::Event),
    Call(Call),
    Close(String),
}

#[derive(Debug, Default)]
pub(super) struct Session {
    id: String,
    lasting: Lasting,
    knowledge: Knowledge,
    version: Option<u64>,
    unacknowledged: VecDeque<(u64, u64)>,
    applied: u64,
    beat_at: Option<Duration>,
    unsent: BTreeMap<TaskId, TaskStatus>,
    reports: bool,
    acknowledges: bool,
    parting: bool,
    outputs: Vec<Output>,
}

impl Session {
    pub(super) fn begin(lasting: Lasting, applied: u64) -> Self {
        Self { lasting, applied, ..Self::default() }
    }

    pub(super) fn is_useful(&self) -> bool {
        self.version.is_some()
    }

    pub(super) fn end(mut self) -> Lasting {
        for (task, status) in self.unsent {
            self.lasting.statuses.entry(task).or_insert(status);
        }
        self.lasting
    }

    pub(super) fn wake(&self) -> Option<Duration> {
        self.beat_at
    }

    pub(super) fn handle(&mut self, event: Event, now: Now) -> Vec<Output> {
        match event {
            Event::Message(message) => self.take(*message, now),
            Event::Applied(version) => self.applied = version,
            Event::Statuses(statuses) => self.lasting.statuses.extend(statuses),
            Event::Answered(answer) => self.answered(answer, now),
            Event::Parting => self.parting = true,
            Event::Tick => {
                if self.beat_at.is_some_and(|at| at <= now.uptime) {
                    self.beat_at = None;
                    self.outputs.push(Output::Call(Call::Heartbeat(self.id.clone())));
                }
            }
        }
        self.call(now);
        std::mem::take(&mut self.outputs)
    }

    fn take(&mut self, message: SessionMessage, now: Now) {
        match message {
            SessionMessage::Welcome(welcome) => {
                if !self.id.is_empty() {
                    return self.outputs.push(Output::Close("begun twice".to_owned()));
                }
                self.id = welcome.session;
                self.beat_at = Some(now.uptime + Duration::from_millis(welcome.heartbeat_millis));
            }
            SessionMessage::Whole(_) | SessionMessage::Difference(_) if self.parting => {}
            SessionMessage::Whole(whole) => {
                self.knowledge = whole.knowledge;
                self.learn();
                self.version = Some(whole.version);
                self.unacknowledged.push_back((whole.version, self.lasting.learned));
                let (tasks, withdrawn) = (whole.tasks, whole.withdrawn);
                self.outputs.push(Output::Work(worker::Event::Whole { tasks, withdrawn }));
            }
            SessionMessage::Difference(mut change) => {
                if self.version != Some(change.from) {
                    return self.outputs.push(Output::Close("too early".to_owned()));
                }
                if !change.knowledge.is_empty() {
                    std::mem::take(&mut change.knowledge).apply(&mut self.knowledge);
                    self.learn();
                }
                self.version = Some(change.version);
                self.unacknowledged.push_back((change.version, self.lasting.learned));
                let wire::Difference { tasks, removed_tasks: removed, withdrawn, .. } = change;
                if !(tasks.is_empty() && removed.is_empty() && withdrawn.is_none()) {
                    let event = worker::Event::Changed { tasks, removed, withdrawn };
                    self.outputs.push(Output::Work(event));
                }
            }
            SessionMessage::Logs(_) | SessionMessage::LogsDone(_) => {}
        }
    }

    fn learn(&mut self) {
        self.lasting.learned += 1;
        let (knowledge, version) = (self.knowledge.clone(), self.lasting.learned);
        self.outputs.push(Output::Learn { knowledge, version });
    }

    fn call(&mut self, now: Now) {
        if self.id.is_empty() {
            return;
        }
        if !self.reports && self.version.is_some() && !self.lasting.statuses.is_empty() {
            self.reports = true;
            self.unsent = std::mem::take(&mut self.lasting.statuses);
            let statuses = self.unsent.clone();
            let session = self.id.clone();
            let report = Report { session, statuses, sent_at: now.time, trouble: None };
            self.outputs.push(Output::Call(Call::Report(report)));
        }
        if !self.acknowledges {
            let mut newest = None;
            while let Some((version, _)) =
                self.unacknowledged.pop_front_if(|(_, needs)| *needs <= self.applied)
            {
                newest = Some(version);
            }
            if let Some(version) = newest {
                self.acknowledges = true;
                self.outputs.push(Output::Call(Call::Acknowledge(self.id.clone(), version)));
            }
        }
    }

    fn answered(&mut self, answer: Answer, now: Now) {
        let fault = match answer {
            Answer::Heartbeat(Ok(next)) => {
                self.beat_at = Some(now.uptime + next);
                None
            }
            Answer::Report(Ok(())) => {
                self.reports = false;
                self.unsent.clear();
                None
            }
            Answer::Acknowledge(Ok(())) => {
                self.acknowledges = false;
                None
            }
            Answer::Heartbeat(Err(fault))
            | Answer::Report(Err(fault))
            | Answer::Acknowledge(Err(fault)) => Some(fault),
        };
        if let Some(fault) = fault {
            self.outputs.push(Output::Close(fault.message));
        }
    }
}
