//! A leader hands over: without an election timeout, and without a change that fails.
//!
//! It happens between two changes. Those that come meanwhile wait, and are then told who does not
//! lead any more; nothing of them was tried.

use crate::consensus::Consensus;
use crate::leadership::Leadership;
use crate::sequencer::{Metrics, Node, Sequencer, broken, stopping};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant, LogIdOptionExt, RaftMetrics};
use std::time::Duration;
use tokio::sync::oneshot;
use types::Fault;

/// Who was heard of so lately is reachable: three heartbeats.
const FRESH: Duration = Duration::from_millis(400);

pub(crate) struct Handover {
    /// `None`: whoever is best prepared.
    to: Option<u64>,
    limit: Duration,
    reply: oneshot::Sender<Result<(), Fault>>,
}

impl Sequencer {
    /// Hands the lead over, to the member that is best prepared where none is named. Returns when
    /// another member leads.
    pub async fn transfer(&self, to: Option<u64>, limit: Duration) -> Result<(), Fault> {
        let (reply, done) = oneshot::channel();
        let handover = Handover { to, limit, reply };
        self.shared.handovers.send(handover).await.map_err(|_closed| stopping())?;
        done.await.map_err(|_gone| stopping())?
    }
}

impl Handover {
    pub(crate) async fn run(self, raft: &Node, metrics: &mut Metrics) {
        let handed = tokio::time::timeout(self.limit, hand_over(self.to, raft, metrics)).await;
        let outcome = handed.unwrap_or_else(|_late| {
            let who = if self.to.is_some() { "that manager is not" } else { "no other manager is" };
            Err(Fault::unavailable(format!("{who} ready to lead the cluster: try again")))
        });
        // Whoever asked may have gone.
        drop(self.reply.send(outcome));
    }
}

async fn hand_over(to: Option<u64>, raft: &Node, metrics: &mut Metrics) -> Result<(), Fault> {
    let term = metrics.borrow_watched().current_term;
    let successor = loop {
        {
            let metrics = metrics.borrow_and_update();
            if !Leadership::of(&metrics).is_own || metrics.current_term != term {
                return Err(Fault::not_leading());
            }
            if let Some(successor) = successor(&metrics, to) {
                break successor;
            }
        }
        metrics.changed().await.map_err(broken)?;
    };
    raft.trigger().transfer_leader(successor).await.map_err(broken)?;
    // The library cannot call it back: until another one leads, this member takes no changes.
    loop {
        let led = Leadership::of(&metrics.borrow_and_update());
        if term < led.term && led.leader.is_some() {
            return Ok(());
        }
        metrics.changed().await.map_err(broken)?;
    }
}

/// A voter that has the whole log and was heard of just now, the one that is named where one is.
fn successor(metrics: &RaftMetrics<Consensus>, to: Option<u64>) -> Option<u64> {
    let (reached, heard) = (metrics.replication.as_ref()?, metrics.heartbeat.as_ref()?);
    metrics.membership_config.voter_ids().find(|id| {
        let has_all = reached.get(id).is_some_and(|at| at.index() == metrics.last_log_index);
        let is_heard = heard.get(id).copied().flatten().is_some_and(|at| at.elapsed() < FRESH);
        *id != metrics.id && to.is_none_or(|to| to == *id) && has_all && is_heard
    })
}
