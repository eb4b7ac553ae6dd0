//! Who has a copy of the log, and who votes: one change at a time, by the member that leads.

use super::{Consensus, Id};
use crate::network::Network;
use raft::Members;
use std::collections::BTreeSet;
use types::Fault;

impl Consensus {
    /// Who votes.
    pub fn voters(&self) -> &BTreeSet<Id> {
        &self.voters
    }

    /// Who has a copy of the log.
    pub fn all_members(&self) -> impl Iterator<Item = &Id> {
        self.voters.union(&self.learners)
    }

    /// As a leader sees them.
    pub fn members(&self, id: Id, wires: &Network) -> Members {
        let all = self.voters.union(&self.learners);
        let hears = |other: &&Id| {
            self.is_up(**other) && wires.are_joined(self.machine(id), self.machine(**other))
        };
        let reachable: BTreeSet<Id> = all.filter(hears).copied().collect();
        let has = |other: &&Id| reachable.contains(other) && self.members[*other].has == self.len();
        let caught_up = self.learners.iter().filter(has).copied().collect();
        Members {
            voters: self.voters.clone(),
            learners: self.learners.clone(),
            reachable,
            caught_up,
        }
    }

    pub fn add_learner(&mut self, id: Id, learner: Id, wires: &Network) -> Result<(), Fault> {
        self.may_change(id, &self.voters, wires)?;
        self.learners.insert(learner);
        Ok(())
    }

    pub fn promote(&mut self, id: Id, learner: Id, wires: &Network) -> Result<(), Fault> {
        let voters = self.voters.iter().copied().chain([learner]).collect();
        self.may_change(id, &voters, wires)?;
        self.learners.remove(&learner);
        self.voters = voters;
        Ok(())
    }

    pub fn remove(&mut self, id: Id, gone: Id, wires: &Network) -> Result<(), Fault> {
        let voters = self.voters.iter().copied().filter(|voter| *voter != gone).collect();
        self.may_change(id, &voters, wires)?;
        self.learners.remove(&gone);
        self.voters = voters;
        Ok(())
    }

    /// A change is made at once, and for all: so it is made only where nothing is under way, and most
    /// have everything, of those who voted before and of those who vote then.
    fn may_change(&self, id: Id, after: &BTreeSet<Id>, wires: &Network) -> Result<(), Fault> {
        let member = &self.members[&id];
        let leads = member.leader == Some(id) && self.leader == Some(id);
        if !leads || !member.tail.is_empty() || !after.contains(&id) {
            return Err(Fault::not_leading());
        }
        let has_all = |voter: &&Id| {
            let is_heard = wires.are_joined(self.machine(id), self.machine(**voter));
            self.is_up(**voter) && is_heard && self.members[*voter].has == self.len()
        };
        let most = |voters: &BTreeSet<Id>| voters.iter().filter(has_all).count() * 2 > voters.len();
        if most(&self.voters) && most(after) {
            return Ok(());
        }
        Err(Fault::unavailable("too few of the cluster's managers answer: try again"))
    }
}
