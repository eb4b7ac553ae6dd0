//! Which members hold the log, and which of them vote.

use crate::consensus::{Consensus, Member};
use crate::leadership::Leadership;
use crate::sequencer::{Sequencer, broken, refusal, replaced};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError as Refusal};
use openraft::{ChangeMembers, Instant, LogIdOptionExt, RaftMetrics};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use types::Fault;

/// How long a change of the members may take.
const CHANGE_LIMIT: Duration = Duration::from_secs(10);
/// Who was silent for longer does not count when it is seen whether enough are left.
const SILENCE: Duration = Duration::from_secs(2);
/// Entries that a learner may be behind when it becomes a voter: it has them in a moment.
const CLOSE: u64 = 256;
/// When it is tried again to finish what a former leader has left half-way.
const RETRY: Duration = Duration::from_secs(1);

/// Who holds the log. What the leader knows of the others is empty elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    pub voters: BTreeSet<u64>,
    /// They follow the log and do not vote.
    pub learners: BTreeSet<u64>,
    /// Those that the leader heard of lately, and itself.
    pub reachable: BTreeSet<u64>,
    /// Learners that may become voters now.
    pub caught_up: BTreeSet<u64>,
}

impl Members {
    fn of(metrics: &RaftMetrics<Consensus>) -> Self {
        let membership = metrics.membership_config.membership();
        let learners: BTreeSet<u64> = membership.learner_ids().collect();
        let heard = metrics.heartbeat.iter().flatten().filter_map(|(id, at)| {
            let is_fresh = at.is_some_and(|at| at.elapsed() < SILENCE);
            (is_fresh || *id == metrics.id).then_some(*id)
        });
        let own = metrics.state.is_leader().then_some(metrics.id);
        let reachable: BTreeSet<u64> = heard.chain(own).collect();
        let last = metrics.last_log_index.unwrap_or_default();
        let is_close = |id: &&u64| {
            let at = metrics.replication.as_ref().and_then(|all| all.get(id)?.index());
            at.is_some_and(|at| last <= at + CLOSE) && reachable.contains(id)
        };
        let caught_up = learners.iter().filter(is_close).copied().collect();
        Self { voters: membership.voter_ids().collect(), learners, reachable, caught_up }
    }

    /// Whether most of the voters but `gone` answer.
    pub fn can_do_without(&self, gone: u64) -> bool {
        let left: BTreeSet<u64> = self.voters.iter().copied().filter(|id| *id != gone).collect();
        left.len() < 2 * left.intersection(&self.reachable).count()
    }
}

/// The voters are changed in two steps, and this is between them.
fn is_joint(metrics: &RaftMetrics<Consensus>) -> bool {
    metrics.membership_config.get_joint_config().len() > 1
}

type Change = ChangeMembers<u64, Member>;

impl Sequencer {
    /// Who holds the log, as far as this member knows.
    pub fn members(&self) -> Members {
        Members::of(&self.shared.metrics.borrow_watched())
    }

    /// On the leader: has a new member follow the log. Nothing happens where it does.
    pub async fn add_learner(&self, id: u64) -> Result<(), Fault> {
        self.change(|members| {
            let is_known = members.voters.contains(&id) || members.learners.contains(&id);
            let nodes = BTreeMap::from([(id, Member::default())]);
            Ok((!is_known).then_some(ChangeMembers::AddNodes(nodes)))
        })
        .await
    }

    /// On the leader: has a learner vote, which must have caught up. Nothing happens where it does.
    pub async fn promote(&self, id: u64) -> Result<(), Fault> {
        self.change(|members| {
            if members.voters.contains(&id) {
                return Ok(None);
            }
            if !members.caught_up.contains(&id) {
                let text = format!("manager {id} has not caught up with the log yet: try again");
                return Err(Fault::unavailable(text));
            }
            Ok(Some(ChangeMembers::AddVoterIds(BTreeSet::from([id]))))
        })
        .await
    }

    /// On the leader: takes another member away. Nothing happens where it is none.
    pub async fn remove(&self, id: u64) -> Result<(), Fault> {
        if id == self.member() {
            let text = "the manager that leads cannot be removed: hand over first";
            return Err(Fault::conflict(text));
        }
        self.change(|members| {
            if members.learners.contains(&id) {
                return Ok(Some(ChangeMembers::RemoveNodes(BTreeSet::from([id]))));
            }
            if !members.voters.contains(&id) {
                return Ok(None);
            }
            if !members.can_do_without(id) {
                let text = format!(
                    "without manager {id} too few of the cluster's managers answer: bring others \
                     back first"
                );
                return Err(Fault::unavailable(text));
            }
            Ok(Some(ChangeMembers::RemoveVoters(BTreeSet::from([id]))))
        })
        .await
    }

    /// Makes the change that `decide` finds necessary, after the one that is half-way; one at a time.
    async fn change<F>(&self, decide: F) -> Result<(), Fault>
    where
        F: FnOnce(&Members) -> Result<Option<Change>, Fault>,
    {
        let Ok(_only) = self.shared.membership.try_acquire() else {
            let text = "another change of the managers is under way: try again";
            return Err(Fault::unavailable(text));
        };
        let change = async {
            if is_joint(&self.shared.metrics.borrow_watched()) {
                self.commit(ChangeMembers::AddVoterIds(BTreeSet::new())).await?;
            }
            let (leadership, members) = {
                let metrics = self.shared.metrics.borrow_watched();
                (Leadership::of(&metrics), Members::of(&metrics))
            };
            if !leadership.is_own {
                return Err(Fault::not_leading());
            }
            match decide(&members)? {
                Some(change) => self.commit(change).await,
                None => Ok(()),
            }
        };
        match tokio::time::timeout(CHANGE_LIMIT, change).await {
            Ok(changed) => changed,
            Err(_late) => Err(replaced()),
        }
    }

    async fn commit(&self, change: Change) -> Result<(), Fault> {
        match self.shared.raft.change_membership(change, false).await {
            Ok(_changed) => Ok(()),
            Err(Refusal::APIError(error @ ClientWriteError::ForwardToLeader(_))) => {
                // It may have been the second of two steps.
                let is_joint = is_joint(&self.shared.metrics.borrow_watched());
                Err(if is_joint { replaced() } else { refusal(&error) })
            }
            Err(Refusal::APIError(error)) => Err(refusal(&error)),
            Err(Refusal::Fatal(error)) => Err(broken(error)),
        }
    }
}

/// Finishes changes that a former leader has left half-way, until the token ends: no other change
/// may come that would.
pub(crate) async fn finish(
    sequencer: Sequencer,
    token: CancellationToken,
) -> Result<(), Infallible> {
    let mut leadership = sequencer.leadership();
    loop {
        let is_own = leadership.borrow_and_update().is_own;
        let is_half_way = is_own && is_joint(&sequencer.shared.metrics.borrow_watched());
        if is_half_way && let Err(fault) = sequencer.change(|_| Ok(None)).await {
            tracing::info!(%fault, "a change of the managers stays half-way");
        }
        tokio::select! {
            biased;
            () = token.cancelled() => return Ok(()),
            changed = leadership.changed() => if changed.is_err() {
                token.cancelled().await;
                return Ok(());
            },
            () = tokio::time::sleep(RETRY), if is_half_way => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_only_removed_where_enough_of_the_rest_answer() {
        let members = |voters, reachable: &[u64]| Members {
            voters: (1..=voters).collect(),
            reachable: reachable.iter().copied().collect(),
            ..Members::default()
        };
        let three = members(3, &[1, 2]);
        assert!(three.can_do_without(3), "it is the one that is lost");
        assert!(!three.can_do_without(2));
        let five = members(5, &[1, 2, 3]);
        assert!(five.can_do_without(5) && !five.can_do_without(2));
    }
}
