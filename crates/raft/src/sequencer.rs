//! The handle to the log: what everybody calls.

use crate::clock::Clock;
use crate::consensus::{Consensus, LogId};
use crate::decide::Decide;
use crate::disk::Disk;
use crate::leadership::Leadership;
use crate::machine::Machine;
use crate::receive::Receiver;
use crate::transfer::Handover;
use openraft::alias::WatchReceiverOf;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError as Refusal};
use openraft::{Raft, RaftMetrics, ReadPolicy};
use seal::Key;
use std::sync::{Arc, Weak};
use std::time::Duration;
use store::{Changes, View};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use types::{Fault, Timestamp, Version};

/// How long callers wait until their change is on the disks of most managers.
pub(crate) const WRITE_LIMIT: Duration = Duration::from_secs(10);

pub(crate) type Metrics = WatchReceiverOf<Consensus, RaftMetrics<Consensus>>;
pub(crate) type Node = Raft<Consensus, Machine>;
pub(crate) type Outcome = Result<Version, Fault>;

pub(crate) struct Request {
    pub(crate) decide: Decide,
    pub(crate) reply: oneshot::Sender<Outcome>,
}

/// A handle to the log: reads the newest view and writes changes.
#[derive(Clone)]
pub struct Sequencer {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) own: mpsc::Sender<Request>,
    pub(crate) handovers: mpsc::Sender<Handover>,
    pub(crate) views: watch::Receiver<View>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Arc<Clock>,
    pub(crate) raft: Node,
    pub(crate) receiver: Receiver,
    /// It is closed when the log ends, whoever holds this.
    pub(crate) disk: Weak<Disk>,
    /// Held by the change of the members that is under way.
    pub(crate) membership: Semaphore,
}

impl std::fmt::Debug for Sequencer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sequencer").field("version", &self.view().version()).finish_non_exhaustive()
    }
}

impl Sequencer {
    /// Lets `decide` say what shall change and changes it. Closures run one after the other, each
    /// sees what those before it changed, and the time of the record; what they change together
    /// becomes one entry of the log.
    ///
    /// Returns the version that holds the change, after it is on disk and in [`view`](Self::view).
    /// A fault of `decide`, or a change against the [`store::rules`], changes nothing and fails nobody
    /// else. `decide` must not block.
    ///
    /// Only the manager that leads takes changes; the others refuse, and have then changed nothing. Where
    /// the leader is replaced while it writes, nobody knows yet what became of the change: the fault
    /// says so.
    pub async fn sequence<F>(&self, decide: F) -> Result<Version, Fault>
    where
        F: FnOnce(&View, Timestamp) -> Result<Changes, Fault> + Send + 'static,
    {
        let (reply, outcome) = oneshot::channel();
        let request = Request { decide: Box::new(decide), reply };
        self.shared.requests.send_timeout(request, WRITE_LIMIT).await.map_err(|refused| {
            match refused {
                mpsc::error::SendTimeoutError::Timeout(_) => {
                    Fault::unavailable("too many changes wait for this manager: try again")
                }
                mpsc::error::SendTimeoutError::Closed(_) => stopping(),
            }
        })?;
        outcome.await.map_err(|_gone| stopping())?
    }

    /// As [`sequence`](Self::sequence), for a loop of the manager itself, which has one change at a
    /// time: however many changes of others wait, this one is among the next that are decided. It is
    /// always decided while the log lives and this manager leads.
    pub async fn sequence_own<F>(&self, decide: F) -> Result<Version, Fault>
    where
        F: FnOnce(&View, Timestamp) -> Result<Changes, Fault> + Send + 'static,
    {
        let (reply, outcome) = oneshot::channel();
        let request = Request { decide: Box::new(decide), reply };
        self.shared.own.send(request).await.map_err(|_closed| stopping())?;
        outcome.await.map_err(|_gone| stopping())?
    }

    /// The newest view.
    pub fn view(&self) -> View {
        self.shared.views.borrow().clone()
    }

    /// The cluster's time, by which changes are decided. It never goes back; certificates, which
    /// other machines check by their own clocks, do not go by it.
    pub fn now(&self) -> Timestamp {
        self.shared.clock.read().now
    }

    /// Since when the cluster's time has gone on evenly: since the log was opened, or the clock was
    /// set forward. What took long by the clock before that may have had no time at all.
    pub fn fair_from(&self) -> Timestamp {
        self.shared.clock.read().fair_from
    }

    /// Follows the views. Steps in between may be skipped, the newest never is.
    pub fn watch(&self) -> watch::Receiver<View> {
        self.shared.views.clone()
    }

    /// Seals the log on this member's disk by another key. It is [opened](crate::open) by that one
    /// from then on; until this returns, by either.
    pub async fn reseal(&self, key: Key) -> Result<(), Fault> {
        let disk = self.shared.disk.upgrade().ok_or_else(stopping)?;
        let sealed = tokio::task::spawn_blocking(move || disk.reseal(&key)).await;
        sealed.map_err(broken)?.map_err(broken)
    }

    /// This member's own number.
    pub fn member(&self) -> u64 {
        *self.shared.raft.node_id()
    }

    /// Answers a message of the member `from`. The caller knows that it is that member.
    pub async fn receive(&self, from: u64, body: &[u8]) -> Result<Vec<u8>, Fault> {
        self.shared.receiver.receive(from, body).await
    }

    /// Follows who leads. Steps in between may be skipped, the newest never is.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.shared.leadership.clone()
    }

    pub fn is_leader(&self) -> bool {
        Leadership::of(&self.shared.metrics.borrow_watched()).is_own
    }

    /// On the leader: makes sure with most of the others that it leads, and returns a version that
    /// holds everything that was acknowledged before the call, by whomever. This manager's view has
    /// it; another one's does once it has [reached](Self::reach) it.
    pub async fn barrier(&self, limit: Duration) -> Result<Version, Fault> {
        confirm(&self.shared.raft, limit).await.map(|id| Version(id.index))
    }

    /// Waits until the view has a version.
    pub async fn reach(&self, version: Version, limit: Duration) -> Result<(), Fault> {
        let mut views = self.shared.views.clone();
        let reached = views.wait_for(|view| version <= view.version());
        match tokio::time::timeout(limit, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(stopping()),
            Err(_) => Err(Fault::unavailable(
                "this manager is behind the others and does not catch up: try again, or another one",
            )),
        }
    }
}

/// Makes sure that this member leads and has applied everything that was acknowledged.
pub(crate) async fn confirm(raft: &Node, limit: Duration) -> Result<LogId, Fault> {
    let confirmed = raft.ensure_linearizable(ReadPolicy::ReadIndex);
    match tokio::time::timeout(limit, confirmed).await {
        Ok(Ok(read)) => Ok(*read.log_id()),
        Ok(Err(Refusal::APIError(LinearizableReadError::ForwardToLeader(_)))) => {
            Err(Fault::not_leading())
        }
        Ok(Err(Refusal::APIError(LinearizableReadError::QuorumNotEnough(_)))) | Err(_) => {
            Err(no_quorum())
        }
        Ok(Err(Refusal::Fatal(error))) => Err(broken(error)),
    }
}

/// What a caller hears of a change that the library refused.
pub(crate) fn refusal(error: &ClientWriteError<Consensus>) -> Fault {
    use openraft::errors::ForwardReason;
    match error {
        ClientWriteError::ForwardToLeader(forward) => match forward.reason {
            ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => Fault::not_leading(),
            ForwardReason::LeaseExpired => no_quorum(),
        },
        ClientWriteError::PreconditionFailed(_) => Fault::not_leading(),
        ClientWriteError::LogEntryDiscarded(_) => replaced(),
        ClientWriteError::ChangeMembershipError(error) => {
            Fault::unavailable(format!("cannot change the managers now: {error}"))
        }
    }
}

pub(crate) fn no_quorum() -> Fault {
    Fault::unavailable("too few of the cluster's managers answer: try again")
}

pub(crate) fn replaced() -> Fault {
    Fault::unavailable(
        "this manager stopped leading the cluster on the way; the change may have been made",
    )
}

pub(crate) fn broken(error: impl std::fmt::Display) -> Fault {
    Fault::unavailable(format!("this manager cannot write the cluster's log: {error}"))
}

pub(crate) fn stopping() -> Fault {
    Fault::unavailable("this manager is stopping; the change may not have been made")
}
