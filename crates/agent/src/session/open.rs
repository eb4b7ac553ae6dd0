//! One open session.

use super::{Inbound, Line, halfway};
use crate::clock::now;
use crate::logs::Publisher;
use crate::worker::Event;
use discovery::Knowledge;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tonic::Streaming;
use tonic::transport::Channel;
use types::{Fault, TaskId, TaskStatus};
use wire::{
    Acknowledge, Assignments, Difference, DispatcherClient, Heartbeat, LogRequest, Report,
    SessionMessage, SessionRequest, Welcome, dispatcher_client, fault_of,
};

/// For a manager to answer a call.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// After a renewal of the certificate that failed.
const RENEWAL_PAUSE: Duration = Duration::from_mins(5);
/// However far off a renewal is: clocks are set, and machines sleep.
const RENEWAL_LOOK: Duration = Duration::from_mins(1);
/// Logs that are sent at a time, each on a connection of its own.
const LOGS: usize = 64;

/// A call has been answered.
enum Answered {
    /// One that was not.
    Heartbeat(Fault),
    /// With what could not be sent, or what the manager now knows of the node itself.
    Report(Result<Option<String>, (BTreeMap<TaskId, TaskStatus>, Fault)>),
    Acknowledge(Result<(), Fault>),
    Log(String),
    Renewed(Result<(), Fault>),
}

/// Calls of which there is one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Call {
    Report,
    Acknowledge,
    Renewal,
}

pub(super) struct Session {
    /// The manager's.
    address: String,
    channel: Channel,
    client: DispatcherClient<Channel>,
    messages: Streaming<SessionMessage>,
    calls: JoinSet<Answered>,
    /// What is under way.
    busy: BTreeSet<Call>,
    id: String,
    welcome_by: Instant,
    knowledge: Knowledge,
    /// `None` before the whole set has come.
    version: Option<u64>,
    /// Versions that are not acknowledged, each with the data plane's that it needs.
    unacknowledged: VecDeque<(u64, u64)>,
    logs: BTreeMap<String, AbortHandle>,
    unsent: BTreeMap<TaskId, TaskStatus>,
    /// What the manager was told of this node itself; `None`: nothing yet.
    told: Option<String>,
}

impl Session {
    pub(super) async fn open(line: &Line, address: &str) -> Result<Self, Fault> {
        let channel = ca::connect(address, ca::tls::client_config(&line.config.identity)?).await?;
        let mut client = dispatcher_client(channel.clone());
        let request = SessionRequest {
            description: line.config.description.clone(),
            address: line.config.address,
            data_path_address: line.config.data_path_address,
        };
        let call = tokio::time::timeout(ANSWER_MAX, client.session(request)).await;
        let late = |_| Fault::unavailable(format!("the manager {address} does not answer"));
        let messages = call.map_err(late)?.map_err(fault_of)?.into_inner();
        Ok(Self {
            address: address.to_owned(),
            channel,
            client,
            messages,
            calls: JoinSet::new(),
            busy: BTreeSet::new(),
            id: String::new(),
            welcome_by: in_future(ANSWER_MAX),
            knowledge: Knowledge::default(),
            version: None,
            unacknowledged: VecDeque::new(),
            logs: BTreeMap::new(),
            unsent: BTreeMap::new(),
            told: None,
        })
    }

    /// Says whether the manager has said what this node should have.
    pub(super) fn is_useful(&self) -> bool {
        self.version.is_some()
    }

    /// What was taken out of the outbox and never arrived.
    pub(super) fn unsent(&mut self) -> BTreeMap<TaskId, TaskStatus> {
        std::mem::take(&mut self.unsent)
    }

    /// Serves until something goes wrong; says what.
    pub(super) async fn serve(&mut self, line: &mut Line) -> String {
        let mut applied = line.dataplane.applied();
        let mut trouble = line.dataplane.trouble();
        loop {
            let held = *applied.borrow_and_update();
            let ill = trouble.borrow_and_update().clone();
            self.call(line, held, &ill);
            let look = look(self.may_renew(), line.renew_at.since(now()));
            let result = tokio::select! {
                message = self.messages.message() => match message {
                    Ok(Some(message)) => self.take(message, line).await,
                    Ok(None) => Err("the manager has ended the session".to_owned()),
                    Err(status) => Err(fault_of(status).message),
                },
                Some(answered) = self.calls.join_next() => match answered {
                    Ok(answered) => self.answered(answered, line),
                    // A log that nobody wants any more.
                    Err(error) if error.is_cancelled() => Ok(()),
                    Err(error) => Err(format!("a call panicked: {error}")),
                },
                changed = applied.changed() => {
                    changed.map_err(|_stopped| "the data plane has stopped".to_owned())
                }
                changed = trouble.changed() => {
                    changed.map_err(|_stopped| "the data plane has stopped".to_owned())
                }
                () = line.outbox.filled() => Ok(()),
                // Also where nothing else happens.
                () = pause(look) => Ok(()),
                () = tokio::time::sleep_until(self.welcome_by), if self.id.is_empty() => {
                    Err("the manager does not say how the session begins".to_owned())
                }
            };
            if let Err(reason) = result {
                return reason;
            }
        }
    }

    async fn take(&mut self, message: SessionMessage, line: &mut Line) -> Result<(), String> {
        match message {
            SessionMessage::Welcome(welcome) => self.welcome(welcome, line).await,
            // Whoever leaves takes no more orders, and keeps its networks until its tasks are down.
            SessionMessage::Whole(_) | SessionMessage::Difference(_)
                if line.parting.is_cancelled() =>
            {
                Ok(())
            }
            SessionMessage::Whole(whole) => self.whole(whole, line).await,
            SessionMessage::Difference(difference) => self.difference(difference, line).await,
            SessionMessage::Logs(request) => {
                self.publish(request, line);
                Ok(())
            }
            SessionMessage::LogsDone(subscription) => {
                if let Some(log) = self.logs.remove(&subscription) {
                    log.abort();
                }
                Ok(())
            }
        }
    }

    async fn welcome(&mut self, welcome: Welcome, line: &Line) -> Result<(), String> {
        if !self.id.is_empty() {
            return Err("the manager began the session twice".to_owned());
        }
        self.id = welcome.session;
        let first = Duration::from_millis(welcome.heartbeat_millis);
        let heart = beat(self.client.clone(), self.id.clone(), first);
        self.calls.spawn(async move { Answered::Heartbeat(heart.await) });
        let identity = dataplane::Identity {
            node: welcome.node.clone(),
            address: line.config.data_path_address.unwrap_or(line.config.address),
            data_path_port: welcome.data_path_port,
        };
        line.dataplane.identify(Some(identity)).await.map_err(|error| error.to_string())?;
        line.status.send_modify(|status| {
            if !welcome.managers.is_empty() {
                status.managers = welcome.managers;
            }
            status.data_path_port = welcome.data_path_port;
        });
        Ok(())
    }

    async fn whole(&mut self, whole: Assignments, line: &mut Line) -> Result<(), String> {
        let Assignments { version, tasks, withdrawn, knowledge } = whole;
        self.knowledge = knowledge;
        self.learn(line).await?;
        self.version = Some(version);
        self.unacknowledged.push_back((version, line.learned));
        tracing::info!(tasks = tasks.len(), "a manager has said what this node should have");
        line.status.send_modify(|status| {
            status.connected = true;
            status.error.clear();
        });
        pass_on(line, Event::Whole { tasks, withdrawn }).await
    }

    async fn difference(&mut self, change: Difference, line: &mut Line) -> Result<(), String> {
        if self.version != Some(change.from) {
            return Err(format!("a difference to version {} came too early", change.from));
        }
        if !change.knowledge.is_empty() {
            change.knowledge.apply(&mut self.knowledge);
            self.learn(line).await?;
        }
        self.version = Some(change.version);
        self.unacknowledged.push_back((change.version, line.learned));
        let Difference { tasks, removed_tasks: removed, withdrawn, .. } = change;
        if tasks.is_empty() && removed.is_empty() && withdrawn.is_none() {
            return Ok(());
        }
        pass_on(line, Event::Changed { tasks, removed, withdrawn }).await
    }

    async fn learn(&self, line: &mut Line) -> Result<(), String> {
        line.learned += 1;
        let learned = line.dataplane.learn(self.knowledge.clone(), line.learned).await;
        learned.map_err(|error| error.to_string())
    }

    /// Makes the calls that are due and not under way.
    fn call(&mut self, line: &Line, held: u64, trouble: &str) {
        if self.id.is_empty() {
            return;
        }
        if !self.busy.contains(&Call::Report) {
            self.report(line, trouble);
        }
        if !self.busy.contains(&Call::Acknowledge) {
            self.acknowledge(held);
        }
        if self.may_renew() && line.renew_at <= now() {
            self.renew(line);
        }
    }

    fn may_renew(&self) -> bool {
        !self.id.is_empty() && !self.busy.contains(&Call::Renewal)
    }

    fn renew(&mut self, line: &Line) {
        self.busy.insert(Call::Renewal);
        let (channel, identity) = (self.channel.clone(), Arc::clone(&line.config.identity));
        self.calls.spawn(async move { Answered::Renewed(ca::renew(channel, &identity).await) });
    }

    fn report(&mut self, line: &Line, trouble: &str) {
        // Before the whole set has come, managers' older word could still be on its way.
        if self.version.is_none() {
            return;
        }
        let statuses = line.outbox.take();
        let trouble = Some(trouble.to_owned()).filter(|now| self.told.as_ref() != Some(now));
        if statuses.is_empty() && trouble.is_none() {
            return;
        }
        self.busy.insert(Call::Report);
        self.unsent.clone_from(&statuses);
        let mut client = self.client.clone();
        let report = Report {
            session: self.id.clone(),
            statuses: statuses.clone(),
            sent_at: now(),
            trouble: trouble.clone(),
        };
        self.calls.spawn(async move {
            let answer = within(client.report(report)).await;
            Answered::Report(answer.map(|_| trouble).map_err(|fault| (statuses, fault)))
        });
    }

    fn acknowledge(&mut self, held: u64) {
        let mut newest = None;
        while let Some((version, needs)) = self.unacknowledged.front()
            && *needs <= held
        {
            newest = Some(*version);
            self.unacknowledged.pop_front();
        }
        let Some(version) = newest else { return };
        self.busy.insert(Call::Acknowledge);
        let mut client = self.client.clone();
        let acknowledge = Acknowledge { session: self.id.clone(), version };
        self.calls.spawn(async move {
            let answer = within(client.acknowledge(acknowledge)).await;
            Answered::Acknowledge(answer.map(|_| ()))
        });
    }

    fn publish(&mut self, request: LogRequest, line: &Line) {
        self.logs.retain(|_, log| !log.is_finished());
        let publisher = Publisher {
            engine: line.engine.clone(),
            identity: Arc::clone(&line.config.identity),
            address: self.address.clone(),
            session: self.client.clone(),
        };
        let (name, is_full) = (request.subscription.clone(), self.logs.len() >= LOGS);
        let ended = name.clone();
        let log = self.calls.spawn(async move {
            if is_full {
                let error = format!("this node sends {LOGS} logs already");
                publisher.refuse(request.subscription, error).await;
            } else {
                publisher.publish(request).await;
            }
            Answered::Log(ended)
        });
        self.logs.insert(name, log);
    }

    fn answered(&mut self, answered: Answered, line: &mut Line) -> Result<(), String> {
        match answered {
            Answered::Heartbeat(fault) => Err(fault.message),
            Answered::Report(Ok(told)) => {
                self.busy.remove(&Call::Report);
                self.unsent.clear();
                self.told = told.or(self.told.take());
                Ok(())
            }
            Answered::Report(Err((statuses, fault))) => {
                self.unsent = statuses;
                Err(fault.message)
            }
            Answered::Acknowledge(done) => {
                self.busy.remove(&Call::Acknowledge);
                done.map_err(|fault| fault.message)
            }
            Answered::Renewed(done) => {
                self.busy.remove(&Call::Renewal);
                match done {
                    Ok(()) => {
                        tracing::info!("the node's certificate is renewed");
                        line.renew_at = halfway(&line.config);
                    }
                    Err(fault) => {
                        tracing::warn!(%fault, "cannot renew the node's certificate yet");
                        line.renew_at = now().after(RENEWAL_PAUSE);
                    }
                }
                Ok(())
            }
            Answered::Log(subscription) => {
                self.logs.remove(&subscription);
                Ok(())
            }
        }
    }
}

/// Sends heartbeats, whatever else the session waits for, until one is not answered.
async fn beat(mut client: DispatcherClient<Channel>, session: String, first: Duration) -> Fault {
    let mut pause = first;
    loop {
        tokio::time::sleep(pause).await;
        match within(client.heartbeat(Heartbeat { session: session.clone() })).await {
            Ok(reply) => pause = Duration::from_millis(reply.next_millis),
            Err(fault) => return fault,
        }
    }
}

async fn pass_on(line: &Line, event: Event) -> Result<(), String> {
    let passed = line.inbound.send(Inbound(event)).await;
    passed.map_err(|_closed| "the agent is stopping".to_owned())
}

/// How long to wait until it is looked whether the certificate is to be renewed, `left` before that
/// is due. `None` while nothing could be done about it: what is due would be looked at for ever.
fn look(may_renew: bool, left: Duration) -> Option<Duration> {
    may_renew.then_some(left.min(RENEWAL_LOOK))
}

async fn pause(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

async fn within<T>(
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(ANSWER_MAX, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(fault_of(status)),
        Err(_late) => Err(Fault::unavailable("the manager did not answer in time")),
    }
}

#[expect(clippy::disallowed_methods, reason = "an answer is due at a time")]
fn in_future(delay: Duration) -> Instant {
    Instant::now() + delay
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewal_that_is_due_is_waited_for_while_it_cannot_be_made() {
        assert_eq!(look(false, Duration::ZERO), None);
        assert_eq!(look(true, Duration::ZERO), Some(Duration::ZERO));
        assert_eq!(look(true, Duration::from_hours(9)), Some(RENEWAL_LOOK));
    }
}
