//! A session with a manager, from the first message to the end: events in, outputs out.
//!
//! Pure. It knows nothing of streams, calls and timers: `connection` carries them, and a simulator
//! may. Start with [`Session::handle`].
//!
//! Invariants: nothing is taken before the welcome; what is known of networks is handed on before a
//! task that needs it; a version is acknowledged only when kernel and names hold it, and versions
//! only rise; of reports, acknowledgements and heartbeats one each is under way; what a manager could
//! not write of a report is said again, at the latest by the next session; whoever leaves takes no
//! more orders.

mod message;

use crate::Now;
use crate::worker;
use dataplane::{Identity, News};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;
use types::{Fault, FaultKind, NodeRole, TaskId, TaskStatus, Timestamp};
use wire::{
    Acknowledge, Heartbeat, HeartbeatReply, LogRequest, Materials, Report, SessionMessage, Trust,
};

/// For a manager to say how the session begins.
pub const WELCOME_MAX: Duration = Duration::from_secs(10);
/// For a manager to answer a call.
pub const ANSWER_MAX: Duration = Duration::from_secs(10);
/// For it to answer a heartbeat, where they follow each other faster than this.
const BEAT_ANSWER_MIN: Duration = Duration::from_secs(1);
/// After a renewal of the certificate that failed.
const RENEWAL_PAUSE: Duration = Duration::from_mins(5);
/// The same where the node is something else now than its certificate says, or managers ask for it.
const URGENT_PAUSE: Duration = Duration::from_secs(2);
/// What managers and users are told where it failed.
const LATE: &str = "the node's certificate, or what it trusts, could not be renewed yet";
/// Why a session ends after one: the next begins with what is so now.
const RENEWED: &str = "the node's certificate, or what it trusts, is new";
/// However far off a renewal is: clocks are set, and machines sleep.
const RENEWAL_LOOK: Duration = Duration::from_mins(1);
/// After a report that a manager could not write: doubled from the first to the last, as its disk may
/// be full or slow for long.
const REPORT_PAUSE: Duration = Duration::from_millis(500);
const REPORT_PAUSE_MAX: Duration = Duration::from_secs(8);
/// Statuses in one report: managers limit what a node may send at a time.
const REPORT: usize = 1000;
/// Logs that are sent at a time, each on a connection of its own.
const LOGS: usize = 64;

/// What survives a session: the one that ends leaves it to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lasting {
    /// What managers were not told yet.
    pub statuses: BTreeMap<TaskId, TaskStatus>,
    /// Versions of what the data plane was told; they rise from session to session.
    pub learned: u64,
    /// When the node's certificate is renewed.
    pub renew_at: Timestamp,
    /// But not before this uptime: a renewal has failed.
    pub renew_after: Duration,
    /// What the node's certificate says it is.
    pub role: NodeRole,
    /// Why the certificate is not renewed though it is time; empty where it is.
    pub late: String,
}

/// What came of a session, or of an attempt to open one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The manager has said what this node should have.
    Useful,
    Useless,
    /// The manager does not lead: another one may, and is asked at once.
    NotLeading,
    /// The manager's release and this one do not understand each other: it is of no use to try that
    /// manager again soon.
    Refused,
}

impl Ending {
    /// What came of an attempt that was refused.
    pub fn of(fault: &Fault) -> Self {
        match fault.kind {
            FaultKind::Incompatible => Self::Refused,
            _ if fault.is_not_leading() => Self::NotLeading,
            _ => Self::Useless,
        }
    }
}

/// Everything that can happen.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and it is moved once")]
pub enum Event {
    /// The manager says something; in order, and only while [`Session::takes_messages`].
    Message(SessionMessage),
    /// All orders are carried out. Kernel and names hold this version by now.
    CarriedOut {
        applied: u64,
    },
    /// Kernel and names hold this version of what the data plane was told.
    Applied(u64),
    /// What of the node's network does not work, in plain words; empty where all does.
    Trouble(String),
    /// What the worker reports.
    Statuses(BTreeMap<TaskId, TaskStatus>),
    Answered(Answer),
    /// A log that was to be published has been, or cannot be any further.
    LogEnded(String),
    /// This node leaves: no more orders are taken. It keeps its networks until its tasks are down.
    Parting,
    /// [`Session::wake`] has come.
    Tick,
}

/// A call of the manager. Each is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    Heartbeat {
        beat: Heartbeat,
        /// For the answer.
        limit: Duration,
    },
    Report(Report),
    Acknowledge(Acknowledge),
    /// Renew the node's certificate.
    Renew,
    /// Trust other roots; and renew the certificate, where it is by nobody that is wanted.
    Trust(Trust),
}

/// What came of a call.
#[derive(Clone, Debug)]
pub enum Answer {
    Heartbeat(Result<HeartbeatReply, Fault>),
    Report(Result<(), Fault>),
    Acknowledge(Result<(), Fault>),
    /// To [`Call::Renew`] and [`Call::Trust`]: it is done, and the certificate expires then.
    Renewed(Result<Timestamp, Fault>),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// To be carried out, one after the other; answered with [`Event::CarriedOut`] after the last.
    Order(Order),
    Call(Call),
    PublishLog(LogRequest),
    /// Managers are there, `host:port`.
    Managers(Vec<String>),
    /// Say that a log cannot be sent, and why.
    RefuseLog {
        subscription: String,
        error: String,
    },
    StopLog(String),
    /// It is over, for this reason.
    Close(String),
}

/// What follows from a message for this node.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Tell the data plane who this node is.
    Identify(Identity),
    /// The session has begun. Managers are there, `host:port`; none said: as before.
    Begun { managers: Vec<String>, data_path_port: u16 },
    /// Tell the data plane what is known.
    Learn { news: News, version: u64 },
    /// A manager has said what this node should have.
    Connected,
    /// Tell the worker.
    Work(worker::Event),
}

/// A version of the assignments that is not acknowledged yet.
#[derive(Clone, Copy, Debug)]
struct Unacknowledged {
    version: u64,
    /// What the data plane must hold for it.
    needs: u64,
}

/// What there is one of at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum UnderWay {
    /// Until they are carried out the data plane may speak of versions of old.
    Orders,
    Acknowledge,
    Renewal,
}

/// What is wrong with a manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Useless {
    /// Its release.
    Refused,
    /// A heartbeat was not answered.
    Silent,
}

/// One session.
#[derive(Debug)]
pub struct Session {
    /// The node's VXLAN end point.
    address: IpAddr,
    /// `None` before the welcome.
    id: Option<String>,
    welcome_by: Duration,
    is_closed: bool,
    /// Why this manager is of no use now.
    useless: Option<Useless>,
    is_parting: bool,
    /// `None` before the whole set has come.
    version: Option<u64>,
    /// What the node's tasks are made from, as managers have said it in this session.
    materials: Materials,
    unacknowledged: VecDeque<Unacknowledged>,
    under_way: BTreeSet<UnderWay>,
    /// What kernel and names hold.
    applied: u64,
    /// When the next heartbeat is due; `None` while one is under way.
    heartbeat_at: Option<Duration>,
    /// Between two heartbeats, as the manager said last.
    period: Duration,
    lasting: Lasting,
    /// The report that is under way.
    reporting: Option<Report>,
    /// What the last report said is said again, not before this uptime.
    report_again_at: Option<Duration>,
    report_pause: Duration,
    trouble: String,
    /// What the manager was told of this node itself; `None`: nothing yet.
    told: Option<String>,
    renewal_look_at: Duration,
    /// What the manager says that this node is, where its certificate says otherwise.
    new_role: Option<NodeRole>,
    /// After a renewal that fails.
    renewal_pause: Duration,
    /// Where managers are, as the manager said last.
    managers: Vec<String>,
    /// Subscriptions of logs that are being sent.
    logs: BTreeSet<String>,
}

impl Session {
    /// A session whose stream is open, and of which nothing was read yet. `address` is the node's
    /// VXLAN end point.
    pub fn begin(address: IpAddr, lasting: Lasting, now: Now) -> Self {
        Self {
            address,
            id: None,
            welcome_by: now.uptime + WELCOME_MAX,
            is_closed: false,
            useless: None,
            is_parting: false,
            version: None,
            materials: Materials::default(),
            unacknowledged: VecDeque::new(),
            under_way: BTreeSet::new(),
            applied: 0,
            heartbeat_at: None,
            period: ANSWER_MAX,
            lasting,
            reporting: None,
            report_again_at: None,
            report_pause: REPORT_PAUSE,
            trouble: String::new(),
            told: None,
            renewal_look_at: now.uptime,
            new_role: None,
            renewal_pause: RENEWAL_PAUSE,
            managers: Vec::new(),
            logs: BTreeSet::new(),
        }
    }

    /// Takes one event; says what is to be done.
    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Output> {
        let mut outputs = Vec::new();
        if self.is_closed {
            // What the worker reports meanwhile is not lost.
            if let Event::Statuses(statuses) = event {
                self.lasting.statuses.extend(statuses);
            }
            return outputs;
        }
        match self.take(event, now, &mut outputs) {
            Ok(()) => self.call(now, &mut outputs),
            Err(reason) => {
                self.is_closed = true;
                outputs.push(Output::Close(reason));
            }
        }
        outputs
    }

    /// When something is due without another event, in uptime.
    pub fn wake(&self) -> Option<Duration> {
        if self.is_closed {
            return None;
        }
        if self.id.is_none() {
            return Some(self.welcome_by);
        }
        let renewal =
            Some(self.renewal_look_at).filter(|_| !self.under_way.contains(&UnderWay::Renewal));
        [self.heartbeat_at, self.report_again_at, renewal].into_iter().flatten().min()
    }

    /// Says whether all orders are carried out, so that the next message may come.
    pub fn takes_messages(&self) -> bool {
        !self.under_way.contains(&UnderWay::Orders)
    }

    /// What came of it, when it is over.
    pub fn ending(&self) -> Ending {
        if self.version.is_some() {
            Ending::Useful
        } else if self.useless == Some(Useless::Refused) {
            Ending::Refused
        } else {
            Ending::Useless
        }
    }

    /// Says whether the manager fell silent, so that another one is to be asked first.
    pub fn is_silent(&self) -> bool {
        self.useless == Some(Useless::Silent)
    }

    /// What the next session goes on with.
    pub fn end(mut self) -> Lasting {
        self.take_back();
        self.lasting
    }

    /// What the report under way says is to be said again, unless there is newer. It may have been
    /// written all the same.
    fn take_back(&mut self) {
        let Some(report) = self.reporting.take() else { return };
        self.told.take_if(|_| report.trouble.is_some());
        for (task, status) in report.statuses {
            self.lasting.statuses.entry(task).or_insert(status);
        }
    }

    fn take(&mut self, event: Event, now: Now, outputs: &mut Vec<Output>) -> Result<(), String> {
        match event {
            Event::Message(message) => {
                self.message(message, now, outputs)?;
                if outputs.iter().any(|output| matches!(output, Output::Order(_))) {
                    self.under_way.insert(UnderWay::Orders);
                }
            }
            Event::CarriedOut { applied } => {
                self.under_way.remove(&UnderWay::Orders);
                self.applied = applied;
            }
            Event::Applied(version) => self.applied = version,
            Event::Trouble(trouble) => self.trouble = trouble,
            Event::Statuses(statuses) => self.lasting.statuses.extend(statuses),
            Event::Answered(answer) => self.answered(answer, now, outputs)?,
            Event::LogEnded(subscription) => drop(self.logs.remove(&subscription)),
            Event::Parting => self.is_parting = true,
            Event::Tick => {}
        }
        if self.id.is_none() && self.welcome_by <= now.uptime {
            return Err("the manager does not say how the session begins".to_owned());
        }
        Ok(())
    }

    fn answered(
        &mut self,
        answer: Answer,
        now: Now,
        outputs: &mut Vec<Output>,
    ) -> Result<(), String> {
        match answer {
            Answer::Heartbeat(Ok(reply)) => {
                let HeartbeatReply { next_millis, managers, trust } = reply;
                self.beat_after(next_millis, now);
                if !managers.is_empty() && managers != self.managers {
                    self.managers.clone_from(&managers);
                    outputs.push(Output::Managers(managers));
                }
                if let Some(trust) = trust.filter(|_| self.may_renew(now)) {
                    self.under_way.insert(UnderWay::Renewal);
                    self.renewal_pause = URGENT_PAUSE;
                    outputs.push(Output::Call(Call::Trust(trust)));
                }
            }
            Answer::Report(Ok(())) => {
                self.report_pause = REPORT_PAUSE;
                let report = self.reporting.take();
                self.told = report.and_then(|report| report.trouble).or(self.told.take());
            }
            // Its log takes nothing now. A new session would only be more to do for it.
            Answer::Report(Err(fault)) if !ends_session(fault.kind) => {
                self.take_back();
                self.report_again_at = Some(now.uptime + self.report_pause);
                self.report_pause = (self.report_pause * 2).min(REPORT_PAUSE_MAX);
            }
            Answer::Acknowledge(Ok(())) => drop(self.under_way.remove(&UnderWay::Acknowledge)),
            Answer::Renewed(renewed) => {
                self.under_way.remove(&UnderWay::Renewal);
                match renewed {
                    Ok(expires) => {
                        self.lasting.renew_at = halfway(now.time, expires);
                        self.lasting.role = self.new_role.take().unwrap_or(self.lasting.role);
                        self.lasting.late.clear();
                        return Err(RENEWED.to_owned());
                    }
                    Err(fault) => {
                        self.lasting.renew_after = now.uptime + self.renewal_pause;
                        self.lasting.late = format!("{LATE}: {fault}");
                    }
                }
            }
            Answer::Heartbeat(Err(fault)) => {
                let is_silent = fault.kind == FaultKind::Unavailable;
                self.useless = is_silent.then_some(Useless::Silent);
                return Err(fault.message);
            }
            Answer::Report(Err(fault)) | Answer::Acknowledge(Err(fault)) => {
                return Err(fault.message);
            }
        }
        Ok(())
    }

    fn beat_after(&mut self, millis: u64, now: Now) {
        self.period = Duration::from_millis(millis);
        self.heartbeat_at = Some(now.uptime + self.period);
    }

    /// Makes the calls that are due and not under way.
    fn call(&mut self, now: Now, outputs: &mut Vec<Output>) {
        let Some(id) = self.id.clone() else { return };
        if self.heartbeat_at.take_if(|at| *at <= now.uptime).is_some() {
            let beat = Heartbeat { session: id.clone() };
            // A manager that says nothing for longer is not worth the time that another one gives.
            let limit = self.period.clamp(BEAT_ANSWER_MIN, ANSWER_MAX);
            outputs.push(Output::Call(Call::Heartbeat { beat, limit }));
        }
        self.report(&id, now, outputs);
        self.acknowledge(id, outputs);
        if !self.under_way.contains(&UnderWay::Renewal) {
            let pause = self.lasting.renew_after.saturating_sub(now.uptime);
            let left = self.lasting.renew_at.since(now.time).max(pause);
            self.renewal_look_at = now.uptime + left.min(RENEWAL_LOOK);
            if left.is_zero() {
                self.under_way.insert(UnderWay::Renewal);
                outputs.push(Output::Call(Call::Renew));
            }
        }
    }

    /// Says whether nothing is under way, and no pause to be kept.
    fn may_renew(&self, now: Now) -> bool {
        !self.under_way.contains(&UnderWay::Renewal) && self.lasting.renew_after <= now.uptime
    }

    /// What of this node does not work.
    fn whole_trouble(&self) -> String {
        let all = [&self.trouble, &self.lasting.late].into_iter().filter(|it| !it.is_empty());
        all.map(String::as_str).collect::<Vec<_>>().join("; ")
    }

    fn report(&mut self, id: &str, now: Now, outputs: &mut Vec<Output>) {
        // Before the whole set has come, managers' older word could still be on its way.
        if self.reporting.is_some() || self.version.is_none() {
            return;
        }
        if self.report_again_at.is_some_and(|at| now.uptime < at) {
            return;
        }
        self.report_again_at = None;
        let trouble = Some(self.whole_trouble());
        let trouble = trouble.filter(|trouble| self.told.as_ref() != Some(trouble));
        if self.lasting.statuses.is_empty() && trouble.is_none() {
            return;
        }
        let rest = self.lasting.statuses.keys().nth(REPORT).cloned();
        let rest = rest.map(|first| self.lasting.statuses.split_off(&first)).unwrap_or_default();
        let statuses = std::mem::replace(&mut self.lasting.statuses, rest);
        let report = Report { session: id.to_owned(), statuses, sent_at: now.time, trouble };
        self.reporting = Some(report.clone());
        outputs.push(Output::Call(Call::Report(report)));
    }

    fn acknowledge(&mut self, session: String, outputs: &mut Vec<Output>) {
        let waits = [UnderWay::Orders, UnderWay::Acknowledge];
        if waits.iter().any(|it| self.under_way.contains(it)) {
            return;
        }
        let mut newest = None;
        while let Some(next) = self.unacknowledged.pop_front_if(|it| it.needs <= self.applied) {
            newest = Some(next.version);
        }
        let Some(version) = newest else { return };
        self.under_way.insert(UnderWay::Acknowledge);
        let acknowledge = Acknowledge { session, version };
        outputs.push(Output::Call(Call::Acknowledge(acknowledge)));
    }
}

/// Says whether a fault is about who this node is or about its session: others are of the manager, and
/// may pass.
fn ends_session(kind: FaultKind) -> bool {
    match kind {
        FaultKind::Unauthorized
        | FaultKind::Forbidden
        | FaultKind::NotFound
        | FaultKind::Incompatible => true,
        FaultKind::Invalid
        | FaultKind::Conflict
        | FaultKind::Unavailable
        | FaultKind::NotImplemented
        | FaultKind::Internal => false,
    }
}

/// Half-way from now to the end of a certificate.
pub fn halfway(now: Timestamp, expires: Timestamp) -> Timestamp {
    now.after(expires.since(now) / 2)
}

#[cfg(test)]
mod tests;
