//! Makes the log's membership what the store says: who has a copy of the log, and who has a vote.
//!
//! Level, not edge: the next step is computed from what is so, one at a time, so that a leader that
//! dies in between leaves nothing half done. A manager first follows as a learner, and votes once it
//! has everything. One that is demoted is out of the log before it is a worker.

use crate::control;
use raft::{Members, Sequencer};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;
use store::{Changes, Tx, View};
use tokio_util::sync::CancellationToken;
use types::{Fault, ManagerStatus, Node, NodeId, NodeRole};

/// Between two looks at learners, which say nothing when they have caught up.
const LOOK: Duration = Duration::from_millis(200);
/// After a step that failed.
const RETRY: Duration = Duration::from_secs(1);
/// For another manager to take over.
const TRANSFER_MAX: Duration = Duration::from_secs(5);

/// What this manager is in the log.
#[derive(Clone, Debug)]
pub struct Own {
    pub node: NodeId,
    pub status: ManagerStatus,
}

/// The next thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The store does not say where the leader is.
    Introduce,
    AddLearner(u64),
    Promote(u64),
    Remove(u64),
    /// The leader itself is to go: another one has to lead first.
    HandOver,
    /// It is out of the log: now it is a worker.
    Demote(NodeId),
}

/// Decides the next step; `None` where all is as the store says.
pub fn next(view: &View, members: &Members, own: &Own) -> Option<Step> {
    let here = view.node(&own.node)?;
    if here.spec.role == NodeRole::Manager && here.manager.as_ref() != Some(&own.status) {
        return Some(Step::Introduce);
    }
    let wanted = wanted(view);
    let is_member = |id: &u64| members.voters.contains(id) || members.learners.contains(id);
    // Those who come may be needed for those who go.
    if let Some(id) = members.caught_up.iter().find(|id| wanted.contains(id)) {
        return Some(Step::Promote(*id));
    }
    if let Some(id) = wanted.iter().find(|id| !is_member(id)) {
        return Some(Step::AddLearner(*id));
    }
    let is_out = |node: &Node| node.manager.as_ref().is_none_or(|it| !is_member(&it.raft_id));
    let mut outside = view.nodes().filter(|node| {
        node.spec.role == NodeRole::Worker && node.role == NodeRole::Manager && is_out(node)
    });
    if let Some(node) = outside.next() {
        return Some(Step::Demote(node.id.clone()));
    }
    let own = own.status.raft_id;
    let gone = |id: &&u64| !wanted.contains(id);
    if let Some(other) = members.voters.union(&members.learners).filter(gone).find(|id| **id != own)
    {
        return Some(Step::Remove(*other));
    }
    // Whoever is to take over has to be there: until then this one goes on.
    let is_heir = |id: &u64| *id != own && members.reachable.contains(id);
    let has_heir = members.voters.iter().any(is_heir);
    (has_heir && members.voters.contains(&own) && !wanted.contains(&own)).then_some(Step::HandOver)
}

/// The numbers of those who are to have the log.
fn wanted(view: &View) -> BTreeSet<u64> {
    let managers = view.nodes().filter(|node| node.spec.role == NodeRole::Manager);
    managers.filter_map(|node| Some(node.manager.as_ref()?.raft_id)).collect()
}

/// Why a manager has to stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needed {
    /// There would be none.
    IsLast,
    /// Too few of the others answer just now.
    TooFewAnswer,
}

impl From<Needed> for Fault {
    /// Docker's words and status: it is what was asked for that cannot be, and clients do not ask
    /// again.
    fn from(needed: Needed) -> Self {
        match needed {
            Needed::IsLast => control::node::last_manager(),
            Needed::TooFewAnswer => Self::invalid(
                "can't remove member from the raft: this would result in a loss of quorum: too few \
                 of the other managers answer; start those that are down, or demote them first",
            ),
        }
    }
}

/// Says why the others could not decide any more without this manager.
pub fn may_lose(view: &View, members: &Members, raft_id: u64) -> Result<(), Needed> {
    if !members.voters.contains(&raft_id) {
        return Ok(());
    }
    // Others may be on their way out already.
    let wanted = wanted(view);
    let voters = members.voters.intersection(&wanted).copied().collect();
    let staying = Members { voters, ..members.clone() };
    if staying.voters.iter().all(|id| *id == raft_id) {
        return Err(Needed::IsLast);
    }
    if staying.can_do_without(raft_id) { Ok(()) } else { Err(Needed::TooFewAnswer) }
}

/// Takes one step after the other until the token is cancelled.
pub(crate) async fn run(
    sequencer: Sequencer,
    own: Own,
    token: CancellationToken,
) -> Result<(), Infallible> {
    let mut views = sequencer.watch();
    loop {
        views.mark_unchanged();
        let members = sequencer.members();
        let step = next(&sequencer.view(), &members, &own);
        let waits = !members.learners.is_empty();
        if let Some(step) = step {
            let done = tokio::select! {
                biased;
                () = token.cancelled() => return Ok(()),
                done = take(&sequencer, &own, step.clone()) => done,
            };
            let Err(fault) = done else { continue };
            if !fault.is_not_leading() {
                tracing::warn!(?step, %fault, "cannot change which managers have the log yet");
            }
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                () = tokio::time::sleep(RETRY) => {}
            }
            continue;
        }
        tokio::select! {
            biased;
            () = token.cancelled() => return Ok(()),
            changed = views.changed() => if changed.is_err() {
                token.cancelled().await;
                return Ok(());
            },
            () = tokio::time::sleep(LOOK), if waits => {}
        }
    }
}

async fn take(sequencer: &Sequencer, own: &Own, step: Step) -> Result<(), Fault> {
    match step {
        Step::Introduce => {
            let own = own.clone();
            sequencer.sequence(move |view: &View, _| Ok(introduced(view, own))).await?;
        }
        Step::AddLearner(id) => sequencer.add_learner(id).await?,
        Step::Promote(id) => {
            sequencer.promote(id).await?;
            tracing::info!(id, "a manager has a vote");
        }
        Step::Remove(id) => {
            sequencer.remove(id).await?;
            tracing::info!(id, "a manager is out of the log");
        }
        Step::HandOver => sequencer.transfer(None, TRANSFER_MAX).await?,
        Step::Demote(id) => {
            sequencer.sequence(move |view: &View, _| control::node::demoted(view, &id)).await?;
        }
    }
    Ok(())
}

/// The leader says where it is.
pub fn introduced(view: &View, own: Own) -> Changes {
    let mut tx = Tx::new(view);
    tx.edit_node(&own.node, |node| node.manager = Some(own.status));
    tx.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{FaultKind, Node, NodeSpec, Timestamp, Version};

    fn own() -> Own {
        let status = ManagerStatus { raft_id: 1, address: "m1:2377".to_owned() };
        Own { node: "m1".into(), status }
    }

    /// Managers by their numbers, each with what the user wants it to be.
    fn view(nodes: &[(u64, NodeRole, NodeRole)]) -> View {
        let mut tx = Tx::new(&View::default());
        for (raft_id, wanted, role) in nodes {
            let id: NodeId = format!("m{raft_id}").as_str().into();
            let address = format!("m{raft_id}:2377");
            let manager =
                (*role == Manager).then_some(ManagerStatus { raft_id: *raft_id, address });
            let spec = NodeSpec { role: *wanted, ..NodeSpec::default() };
            tx.put_node(Node { id, role: *role, spec, manager, ..Node::default() });
        }
        let mut view = View::default();
        view.apply(&tx.finish(), Version(1), Timestamp(1));
        view
    }

    fn members(voters: &[u64], learners: &[u64], ready: &[u64]) -> Members {
        let set = |ids: &[u64]| ids.iter().copied().collect();
        Members {
            voters: set(voters),
            learners: set(learners),
            reachable: set(voters),
            caught_up: set(ready),
        }
    }

    use NodeRole::{Manager, Worker};

    #[test]
    fn a_manager_follows_before_it_votes() {
        let both = view(&[(1, Manager, Manager), (2, Manager, Manager)]);
        assert_eq!(next(&both, &members(&[1], &[], &[]), &own()), Some(Step::AddLearner(2)));
        assert_eq!(next(&both, &members(&[1], &[2], &[]), &own()), None);
        assert_eq!(next(&both, &members(&[1], &[2], &[2]), &own()), Some(Step::Promote(2)));
        assert_eq!(next(&both, &members(&[1, 2], &[], &[]), &own()), None);
    }

    #[test]
    fn one_that_is_demoted_is_out_of_the_log_before_it_is_a_worker() {
        let demoted = view(&[(1, Manager, Manager), (2, Worker, Manager)]);
        assert_eq!(next(&demoted, &members(&[1, 2], &[], &[]), &own()), Some(Step::Remove(2)));
        let step = next(&demoted, &members(&[1], &[], &[]), &own());
        assert_eq!(step, Some(Step::Demote("m2".into())));
    }

    #[test]
    fn a_leader_that_is_demoted_hands_over() {
        let demoted = view(&[(1, Worker, Manager), (2, Manager, Manager)]);
        assert_eq!(next(&demoted, &members(&[1, 2], &[], &[]), &own()), Some(Step::HandOver));
    }

    #[test]
    fn numbers_that_nobody_has_any_more_go() {
        let one = view(&[(1, Manager, Manager)]);
        assert_eq!(next(&one, &members(&[1, 2], &[], &[]), &own()), Some(Step::Remove(2)));
        assert_eq!(next(&one, &members(&[1], &[3], &[3]), &own()), Some(Step::Remove(3)));
    }

    #[test]
    fn a_leader_says_where_it_is() {
        let mut elsewhere = own();
        elsewhere.status.address = "new:2377".to_owned();
        let one = view(&[(1, Manager, Manager)]);
        assert_eq!(next(&one, &members(&[1], &[], &[]), &elsewhere), Some(Step::Introduce));
    }

    #[test]
    fn whoever_comes_is_not_held_up_by_who_goes() {
        let (all, learner) = ([1, 2], [3]);
        let changed = view(&[(1, Worker, Manager), (2, Worker, Manager), (3, Manager, Manager)]);
        let step = |members: &Members| next(&changed, members, &own());
        assert_eq!(step(&members(&all, &[], &[])), Some(Step::AddLearner(3)));
        assert_eq!(step(&members(&all, &learner, &learner)), Some(Step::Promote(3)));
        assert_eq!(step(&members(&all, &learner, &[])), Some(Step::Remove(2)));
        // The last voter waits for somebody who can take over, and takes changes meanwhile.
        let last = members(&[1], &learner, &[]);
        assert_eq!(step(&last), Some(Step::Demote("m2".into())));
        let gone = view(&[(1, Worker, Manager), (3, Manager, Manager)]);
        assert_eq!(next(&gone, &last, &own()), None);
        let ready = members(&[1], &learner, &learner);
        assert_eq!(next(&gone, &ready, &own()), Some(Step::Promote(3)));
        let mut silent = members(&[1, 3], &[], &[]);
        silent.reachable.remove(&3);
        assert_eq!(next(&gone, &silent, &own()), None);
    }

    #[test]
    fn the_others_must_be_able_to_decide() {
        let managers = |numbers: &[u64]| {
            let all: Vec<_> = numbers.iter().map(|number| (*number, Manager, Manager)).collect();
            view(&all)
        };
        assert_eq!(may_lose(&managers(&[1]), &members(&[1], &[], &[]), 1), Err(Needed::IsLast));
        let mut three = members(&[1, 2, 3], &[], &[]);
        assert_eq!(may_lose(&managers(&[1, 2, 3]), &three, 3), Ok(()));
        let two_go = view(&[(1, Worker, Manager), (2, Worker, Manager), (3, Manager, Manager)]);
        assert_eq!(may_lose(&two_go, &three, 3), Err(Needed::IsLast));
        three.reachable.remove(&2);
        assert_eq!(may_lose(&managers(&[1, 2, 3]), &three, 3), Err(Needed::TooFewAnswer));
        // Docker's status for both: one says of a 503 that it is worth another try.
        for (needed, text) in
            [(Needed::IsLast, "the last manager"), (Needed::TooFewAnswer, "a loss of quorum")]
        {
            let fault = Fault::from(needed);
            assert_eq!(fault.kind, FaultKind::Invalid);
            assert!(fault.message.contains(text), "{fault}");
        }
        assert_eq!(may_lose(&managers(&[1, 2, 3]), &three, 2), Ok(()), "one that is down may go");
        let learner = members(&[1], &[2], &[]);
        assert_eq!(may_lose(&managers(&[1, 2]), &learner, 2), Ok(()), "a learner has no vote");
    }
}
