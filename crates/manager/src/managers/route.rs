//! Who is asked: this manager where it leads, the leader otherwise.

use super::{Leading, NO_LEADER, Orders, Peers};
use crate::clock::Uptime;
use crate::logs::{self, LogStream};
use futures_util::StreamExt;
use raft::Leadership;
use std::collections::BTreeSet;
use std::io;
use std::time::Duration;
use store::View;
use tokio::sync::watch;
use tonic::Status;
use types::{Fault, FaultKind, causes};
use wire::{
    BarrierReply, BarrierRequest, LogItem, LogOptions, LogSelector, LogsRequest, Order, OrderReply,
    OrderRequest, Release, fault_of,
};

/// For a leader to be found. Longer than an election takes.
const LEADER_MAX: Duration = Duration::from_secs(5);
/// For the leader to answer.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// For a leader that was replaced to answer what it was asked before.
const FAREWELL_MAX: Duration = Duration::from_secs(2);
/// For this manager's view to have what the leader has said.
const REACH_MAX: Duration = Duration::from_secs(5);
/// Before the next try, where nothing says that there is another leader yet.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(crate) struct Route {
    pub(super) leading: Leading,
    peers: Peers,
    pub(super) orders: Orders,
}

/// Why an attempt failed.
enum Refusal {
    /// Nothing was done: the next leader may be asked.
    NotAsked(Fault),
    Final(Fault),
}

impl Route {
    pub(crate) fn new(leading: Leading, peers: Peers, orders: Orders) -> Self {
        Self { leading, peers, orders }
    }

    /// Has something changed; the view has it afterwards.
    pub(crate) async fn order(&self, order: Order) -> Result<OrderReply, Fault> {
        let mut attempts = self.attempts();
        let reply = loop {
            let attempt = match attempts.next().await? {
                Leader::This => self.orders.carry_out(order.clone()).await.map_err(refusal),
                Leader::Other(id) => self.pass_on(id, order.clone()).await,
            };
            match attempt {
                Ok(reply) => break reply,
                Err(Refusal::NotAsked(fault)) => attempts.failed(fault),
                Err(Refusal::Final(fault)) => return Err(fault),
            }
        };
        // It is done in any case. One that has resigned gets nothing more.
        if !matches!(order, Order::Resign { .. }) {
            self.leading.log.reach(reply.version, REACH_MAX).await.ok();
        }
        Ok(reply)
    }

    async fn pass_on(&self, leader: u64, order: Order) -> Result<OrderReply, Refusal> {
        let connecting = self.unless_replaced(leader, Duration::ZERO, self.peers.leader(leader));
        let mut client = connecting.await.map_err(Refusal::NotAsked)?;
        let request = OrderRequest { release: Release::own(), order };
        // One that hands over still answers.
        let answer = async { Ok(client.order(request).await) };
        let answer = self.unless_replaced(leader, FAREWELL_MAX, answer);
        match tokio::time::timeout(ANSWER_MAX, answer).await.map(Result::ok).unwrap_or_default() {
            Some(Ok(reply)) => Ok(reply.into_inner()),
            Some(Err(status)) => {
                let (is_sent, fault) = (is_sent(&status), fault_of(status));
                if fault.kind == FaultKind::Unavailable {
                    self.peers.lost(leader);
                }
                Err(if is_sent { refusal(fault) } else { Refusal::NotAsked(fault) })
            }
            None => {
                self.peers.lost(leader);
                let text = "the leader did not answer in time; the change may have been made";
                Err(Refusal::Final(Fault::unavailable(text)))
            }
        }
    }

    /// A view that has everything that was acknowledged to anybody before, and the managers that the
    /// leader does not hear.
    pub(crate) async fn fresh(&self) -> Result<(View, BTreeSet<u64>), Fault> {
        let mut attempts = self.attempts();
        let BarrierReply { version, unreachable } = loop {
            let attempt = match attempts.next().await? {
                Leader::This => self.barrier().await,
                Leader::Other(id) => {
                    self.unless_replaced(id, Duration::ZERO, self.barrier_of(id)).await
                }
            };
            match attempt {
                Ok(reply) => break reply,
                Err(fault) => attempts.failed(fault),
            }
        };
        self.leading.log.reach(version, REACH_MAX).await?;
        Ok((self.leading.log.view(), unreachable))
    }

    /// What the leader itself says.
    pub(crate) async fn barrier(&self) -> Result<BarrierReply, Fault> {
        self.leading.check()?;
        let version = self.leading.log.barrier(LEADER_MAX).await?;
        let members = self.leading.log.members();
        let all = members.voters.union(&members.learners);
        let unreachable = all.filter(|id| !members.reachable.contains(id)).copied().collect();
        Ok(BarrierReply { version, unreachable })
    }

    /// What a leader says, unless another one leads for so long: it may never answer.
    async fn unless_replaced<T>(
        &self,
        leader: u64,
        grace: Duration,
        answer: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let mut leadership = self.leading.log.leadership();
        let replaced = async {
            let is_other = |now: &Leadership| now.leader.is_some_and(|id| id != leader);
            if leadership.wait_for(is_other).await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(grace).await;
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            () = replaced => {
                self.peers.lost(leader);
                Err(Fault::unavailable("another manager leads the cluster"))
            }
        }
    }

    async fn barrier_of(&self, leader: u64) -> Result<BarrierReply, Fault> {
        let mut client = self.peers.leader(leader).await?;
        let request = BarrierRequest { release: Release::own() };
        let answer = tokio::time::timeout(LEADER_MAX, client.barrier(request)).await;
        let late = |_| Fault::unavailable("the leader does not answer");
        let answer = answer.map_err(late).and_then(|answer| answer.map_err(fault_of));
        if answer.is_err() {
            self.peers.lost(leader);
        }
        answer.map(tonic::Response::into_inner)
    }

    pub(crate) async fn logs(
        &self,
        selector: LogSelector,
        options: LogOptions,
    ) -> Result<LogStream, Fault> {
        let mut attempts = self.attempts();
        loop {
            let (selector, options) = (selector.clone(), options.clone());
            let attempt = match attempts.next().await? {
                Leader::This => self.own_logs(selector, options).await,
                Leader::Other(id) => {
                    let lines = self.logs_of(id, selector, options);
                    self.unless_replaced(id, Duration::ZERO, lines).await
                }
            };
            match attempt {
                Ok(lines) => return Ok(lines),
                Err(fault) => attempts.failed(fault),
            }
        }
    }

    async fn own_logs(
        &self,
        selector: LogSelector,
        options: LogOptions,
    ) -> Result<LogStream, Fault> {
        logs::subscribe(&self.leading.requests()?, selector, options).await
    }

    async fn logs_of(
        &self,
        leader: u64,
        selector: LogSelector,
        options: LogOptions,
    ) -> Result<LogStream, Fault> {
        let mut client = self.peers.leader(leader).await?;
        let request = LogsRequest { release: Release::own(), selector, options };
        let answer = tokio::time::timeout(ANSWER_MAX, client.logs(request)).await;
        let late = |_| Fault::unavailable("the leader does not answer");
        let lines = answer.map_err(late)?.map_err(fault_of)?.into_inner();
        let lines = lines.map(|item| match item {
            Ok(LogItem(line)) => line,
            Err(status) => Err(fault_of(status)),
        });
        Ok(lines.boxed())
    }

    fn attempts(&self) -> Attempts {
        Attempts {
            own: self.leading.log.member(),
            leadership: self.leading.log.leadership(),
            deadline: Uptime::now().after(LEADER_MAX),
            last: None,
        }
    }
}

/// Attempts with whoever leads, until one is found or nobody was for too long.
struct Attempts {
    own: u64,
    leadership: watch::Receiver<Leadership>,
    deadline: Uptime,
    /// Why the last one failed.
    last: Option<Fault>,
}

impl Attempts {
    /// Waits for somebody to ask.
    async fn next(&mut self) -> Result<Leader, Fault> {
        if self.last.is_some() {
            self.wait().await;
        }
        loop {
            let now = *self.leadership.borrow_and_update();
            match now.leader {
                _ if self.deadline <= Uptime::now() => break,
                Some(id) if id != self.own => return Ok(Leader::Other(id)),
                Some(_) if now.is_own => return Ok(Leader::This),
                Some(_) | None => self.wait().await,
            }
        }
        let last = self.last.as_ref().map(ToString::to_string);
        tracing::debug!(last, "no leader was found");
        Err(Fault::unavailable(NO_LEADER))
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.leadership.changed() => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }

    fn failed(&mut self, fault: Fault) {
        self.last = Some(fault);
    }
}

/// Who leads.
#[derive(Clone, Copy, Debug)]
enum Leader {
    This,
    Other(u64),
}

/// False where nobody was reached who could have done anything.
fn is_sent(status: &Status) -> bool {
    !causes(status).any(|cause| {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(
            kind,
            Some(
                io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable
            )
        )
    })
}

fn refusal(fault: Fault) -> Refusal {
    if fault.is_not_leading() { Refusal::NotAsked(fault) } else { Refusal::Final(fault) }
}
