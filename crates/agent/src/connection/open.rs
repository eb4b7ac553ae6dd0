//! What carries one session: the stream, the calls, the timers.

use super::{Connection, Inbound, hear_of};
use crate::logs::Publisher;
use crate::session::{ANSWER_MAX, Answer, Call, Event, Order, Output, Session};
use ca::Identity;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tonic::Streaming;
use tonic::transport::Channel;
use types::{Fault, NodeDescription, Plugin, Timestamp};
use wire::{
    DispatcherClient, LogRequest, Release, SessionMessage, SessionRequest, Trust,
    dispatcher_client, fault_of, leader_of, managers_of,
};

/// Something that was begun has ended.
enum Ended {
    Call(Answer),
    Log(String),
    /// All orders are carried out, or cannot be.
    Orders(Result<(), String>),
}

pub(super) struct Carrier {
    /// The manager's.
    address: String,
    channel: Channel,
    client: DispatcherClient<Channel>,
    messages: Streaming<SessionMessage>,
    running: JoinSet<Ended>,
    logs: BTreeMap<String, AbortHandle>,
    /// As this session has told them.
    volume_drivers: watch::Receiver<Vec<String>>,
}

impl Carrier {
    /// Opens the stream of a session with the manager at `address`.
    pub(super) async fn open(connection: &mut Connection, address: &str) -> Result<Self, Fault> {
        let config = Arc::clone(&connection.config);
        let channel = ca::connect(address, ca::tls::client_config(&config.identity)?).await?;
        let mut client = dispatcher_client(channel.clone());
        let leaving = connection.leaving.is_cancelled();
        let mut volume_drivers = connection.engine.volume_drivers();
        let drivers = volume_drivers.borrow_and_update().clone();
        let drivers =
            drivers.into_iter().map(|name| Plugin { kind: Plugin::VOLUME.to_owned(), name });
        let mut engine = config.description.engine.clone();
        engine.plugins.extend(drivers);
        let description = NodeDescription {
            engine,
            trust_root: config.identity.roots(),
            issuer: config.identity.issuer(),
            ..config.description.clone()
        };
        let request = SessionRequest {
            release: Release::own(),
            description,
            address: config.address,
            data_path_address: config.data_path_address,
            leaving,
        };
        let call = tokio::time::timeout(ANSWER_MAX, client.session(request)).await;
        let late = |_| Fault::unavailable(format!("the manager {address} does not answer"));
        let messages = call.map_err(late)?.map_err(|refused| {
            let told = managers_of(&refused);
            connection.turns.follow(leader_of(&told).cloned());
            connection.status.send_if_modified(|status| {
                let before = status.managers.len();
                hear_of(&mut status.managers, told);
                before < status.managers.len()
            });
            fault_of(refused)
        })?;
        let messages = messages.into_inner();
        if leaving != connection.leaving.is_cancelled() {
            return Err(Fault::unavailable("this node is about to leave: another session says so"));
        }
        Ok(Self {
            address: address.to_owned(),
            channel,
            client,
            messages,
            running: JoinSet::new(),
            logs: BTreeMap::new(),
            volume_drivers,
        })
    }

    /// Serves until the session is over; says why. Then nothing of it is under way any more.
    pub(super) async fn serve(&mut self, session: &mut Session, connection: &Connection) -> String {
        let reason = self.serve_on(session, connection).await;
        self.running.shutdown().await;
        reason
    }

    async fn serve_on(&mut self, session: &mut Session, connection: &Connection) -> String {
        let mut applied = connection.dataplane.applied();
        let mut trouble = connection.dataplane.trouble();
        let mut drivers = self.volume_drivers.clone();
        // What is so now counts as news.
        applied.mark_changed();
        trouble.mark_changed();
        loop {
            let next = self.next(session, connection, (&mut applied, &mut trouble));
            let event = tokio::select! {
                event = next => event,
                Ok(()) = drivers.changed() => {
                    return "its volume drivers have changed, which another session says".to_owned();
                }
            };
            let event = match event {
                Ok(Some(event)) => event,
                Ok(None) => continue,
                Err(reason) => return reason,
            };
            let mut outputs = Vec::new();
            if matches!(event, Event::Message(_)) && connection.parting.is_cancelled() {
                outputs = session.handle(Event::Parting, connection.clock.now());
            }
            outputs.extend(session.handle(event, connection.clock.now()));
            if let Err(reason) = self.carry(outputs, connection) {
                return reason;
            }
        }
    }

    /// Waits for the next event. Fails when there can be none any more.
    async fn next(
        &mut self,
        session: &Session,
        connection: &Connection,
        (applied, trouble): (&mut watch::Receiver<u64>, &mut watch::Receiver<String>),
    ) -> Result<Option<Event>, String> {
        let wake = session.wake().map(|uptime| connection.clock.at(uptime));
        let stopped = |_| "the data plane has stopped".to_owned();
        tokio::select! {
            // While orders are carried out the next ones wait; heartbeats do not.
            message = self.messages.message(), if session.takes_messages() => match message {
                Ok(Some(message)) => Ok(Some(Event::Message(message))),
                Ok(None) => Err("the manager has ended the session".to_owned()),
                Err(status) => Err(fault_of(status).message),
            },
            Some(ended) = self.running.join_next() => self.ended(ended, applied),
            changed = applied.changed() => {
                changed.map_err(stopped)?;
                Ok(Some(Event::Applied(*applied.borrow_and_update())))
            }
            changed = trouble.changed() => {
                changed.map_err(stopped)?;
                Ok(Some(Event::Trouble(trouble.borrow_and_update().clone())))
            }
            () = connection.outbox.filled() => {
                Ok(Some(Event::Statuses(connection.outbox.take())))
            }
            () = tokio::time::sleep_until(wake.unwrap_or(connection.clock.at(Duration::ZERO))), if wake.is_some() => {
                Ok(Some(Event::Tick))
            }
        }
    }

    fn ended(
        &mut self,
        ended: Result<Ended, JoinError>,
        applied: &mut watch::Receiver<u64>,
    ) -> Result<Option<Event>, String> {
        match ended {
            Ok(Ended::Call(answer)) => Ok(Some(Event::Answered(answer))),
            Ok(Ended::Log(subscription)) => {
                self.logs.remove(&subscription);
                Ok(Some(Event::LogEnded(subscription)))
            }
            Ok(Ended::Orders(done)) => {
                done?;
                Ok(Some(Event::CarriedOut { applied: *applied.borrow_and_update() }))
            }
            // A log that nobody wants any more.
            Err(error) if error.is_cancelled() => Ok(None),
            Err(error) => Err(format!("a call panicked: {error}")),
        }
    }

    /// Does what is to be done; fails when the session is over.
    fn carry(&mut self, outputs: Vec<Output>, connection: &Connection) -> Result<(), String> {
        let mut orders = Vec::new();
        for output in outputs {
            match output {
                Output::Order(order) => orders.push(order),
                Output::Call(call) => self.call(call, connection),
                Output::PublishLog(request) => self.publish(request, connection),
                Output::Managers(managers) => {
                    connection.status.send_modify(|status| status.managers = managers);
                }
                Output::RefuseLog { subscription, error } => {
                    let publisher = self.publisher(connection);
                    let ended = subscription.clone();
                    self.running.spawn(async move {
                        publisher.refuse(subscription, error).await;
                        Ended::Log(ended)
                    });
                }
                Output::StopLog(subscription) => {
                    if let Some(log) = self.logs.remove(&subscription) {
                        log.abort();
                    }
                }
                Output::Close(reason) => return Err(reason),
            }
        }
        if !orders.is_empty() {
            let orders = connection.carry_out(orders);
            self.running.spawn(async move { Ended::Orders(orders.await) });
        }
        Ok(())
    }

    fn call(&mut self, call: Call, connection: &Connection) {
        let mut client = self.client.clone();
        let (channel, identity) = (self.channel.clone(), Arc::clone(&connection.config.identity));
        self.running.spawn(async move {
            Ended::Call(match call {
                Call::Heartbeat { beat, limit } => {
                    Answer::Heartbeat(within_limit(limit, client.heartbeat(beat)).await)
                }
                Call::Report(report) => {
                    let reported = within(client.report(report)).await.map(drop);
                    if let Err(fault) = &reported {
                        tracing::warn!(%fault, "cannot report to a manager yet");
                    }
                    Answer::Report(reported)
                }
                Call::Acknowledge(version) => {
                    Answer::Acknowledge(within(client.acknowledge(version)).await.map(drop))
                }
                Call::Renew => Answer::Renewed(renew(channel, &identity).await),
                Call::Trust(trust) => Answer::Renewed(take(trust, channel, &identity).await),
            })
        });
    }

    fn publisher(&self, connection: &Connection) -> Publisher {
        Publisher {
            engine: connection.engine.clone(),
            identity: Arc::clone(&connection.config.identity),
            address: self.address.clone(),
            session: self.client.clone(),
        }
    }

    fn publish(&mut self, request: LogRequest, connection: &Connection) {
        let publisher = self.publisher(connection);
        let name = request.subscription.clone();
        let ended = name.clone();
        let log = self.running.spawn(async move {
            publisher.publish(request).await;
            Ended::Log(ended)
        });
        self.logs.insert(name, log);
    }
}

impl Connection {
    /// Carries orders out, one after the other.
    fn carry_out(
        &self,
        orders: Vec<Order>,
    ) -> impl Future<Output = Result<(), String>> + Send + use<> {
        let (dataplane, inbound) = (self.dataplane.clone(), self.inbound.clone());
        let status = self.status.clone();
        async move {
            for order in orders {
                match order {
                    Order::Identify(identity) => {
                        let identified = dataplane.identify(Some(identity)).await;
                        identified.map_err(|error| error.to_string())?;
                    }
                    Order::Learn { news, version } => {
                        let learned = dataplane.learn(news, version).await;
                        learned.map_err(|error| error.to_string())?;
                    }
                    Order::Work(event) => {
                        let passed = inbound.send(Inbound(event)).await;
                        passed.map_err(|_closed| "the agent is stopping".to_owned())?;
                    }
                    Order::Begun { managers, data_path_port } => status.send_modify(|status| {
                        if !managers.is_empty() {
                            status.managers = managers;
                        }
                        status.data_path_port = data_path_port;
                    }),
                    Order::Connected => {
                        tracing::info!("a manager has said what this node should have");
                        status.send_modify(|status| {
                            status.connected = true;
                            status.error.clear();
                        });
                    }
                }
            }
            Ok(())
        }
    }
}

/// Gets another certificate; says when it expires.
async fn renew(channel: Channel, identity: &Identity) -> Result<Timestamp, Fault> {
    let renewed = ca::renew(channel, identity).await;
    match &renewed {
        Ok(()) => tracing::info!("the node's certificate is renewed"),
        Err(fault) => tracing::warn!(%fault, "cannot renew the node's certificate yet"),
    }
    renewed.map(|()| identity.expires_at())
}

/// Trusts what a manager says, which was trusted before.
async fn take(trust: Trust, channel: Channel, identity: &Identity) -> Result<Timestamp, Fault> {
    if trust.issuer.is_some_and(|wanted| wanted != identity.issuer()) {
        // The roots come with it.
        return renew(channel, identity).await;
    }
    if identity.trust(&trust.roots)? {
        tracing::info!("this node trusts other root certificates");
    }
    Ok(identity.expires_at())
}

async fn within<T>(
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, Fault> {
    within_limit(ANSWER_MAX, call).await
}

async fn within_limit<T>(
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(fault_of(status)),
        Err(_late) => Err(Fault::unavailable("the manager did not answer in time")),
    }
}
