//! Who leads: whom most hear, and who has all that is committed.

use super::{Consensus, Due, Id, Member, PULSE};
use crate::network::Network;
use std::time::Duration;
use store::Changes;

/// Without a leader, the others wait so long before they elect one; in milliseconds.
const PATIENCE: (u64, u64) = (400, 1_500);

impl Consensus {
    /// An orderly leader lets another one lead.
    pub fn hand_over(&mut self, wires: &Network, now: Duration) {
        if let Some(leader) = self.leader {
            self.vote(wires, now, Some(leader));
        }
    }

    /// Voters that are there and that a member hears and reaches; itself too.
    fn around(&self, wires: &Network, id: Id) -> Vec<Id> {
        let is_there = |other: &&Id| {
            self.is_up(**other) && wires.are_joined(self.machine(id), self.machine(**other))
        };
        self.voters.iter().filter(is_there).copied().collect()
    }

    pub(super) fn are_most(&self, count: usize) -> bool {
        count * 2 > self.voters.len()
    }

    pub(super) fn pulse(&mut self, wires: &Network, now: Duration) {
        self.due.push((PULSE, Due::Pulse));
        let mut is_led = false;
        let leads = |(id, member): (&Id, &Member)| {
            (member.is_up && member.leader == Some(*id)).then_some(*id)
        };
        for id in self.members.iter().filter_map(leads).collect::<Vec<_>>() {
            let around = self.around(wires, id);
            let newest = around.iter().map(|it| self.members[it].term).max().unwrap_or(0);
            let is_heard = self.are_most(around.len());
            let member = self.member(id);
            if member.term < newest {
                (member.term, member.leader) = (newest, None);
                continue;
            }
            if is_heard {
                member.heard = now;
                is_led |= Some(id) == self.leader;
            }
            self.tell_others(id);
        }
        if is_led {
            self.missed = None;
            return;
        }
        if self.missed.is_none() {
            self.patience = self.random.millis(PATIENCE.0, PATIENCE.1);
        }
        let missed = *self.missed.get_or_insert(now);
        if missed + self.patience <= now {
            self.vote(wires, now, None);
        }
    }

    /// How new the log of a member is.
    fn newness(&self, id: Id) -> (u64, u64) {
        let member = &self.members[&id];
        let term = member.tail.last().map_or_else(|| self.term_at(member.has), |it| it.term);
        (term, member.has + member.tail.len() as u64)
    }

    pub(super) fn is_electable(&self, id: Id) -> bool {
        self.voters.contains(&id) && self.is_up(id)
    }

    /// Those who can be elected by most are, one of them by chance.
    fn vote(&mut self, wires: &Network, now: Duration, but: Option<Id>) {
        let mut candidates = Vec::new();
        for id in self.voters.iter().filter(|id| self.is_electable(**id) && but != Some(**id)) {
            let mut votes = self.around(wires, *id);
            votes.retain(|other| self.newness(*other) <= self.newness(*id));
            if self.are_most(votes.len()) {
                candidates.push((*id, votes));
            }
        }
        let which = self.random.below(candidates.len() as u64);
        let chosen = usize::try_from(which).ok().and_then(|which| candidates.get(which));
        if let Some((id, votes)) = chosen.cloned() {
            self.elect(id, &votes, now);
        }
    }

    pub(super) fn elect(&mut self, id: Id, votes: &[Id], now: Duration) {
        self.term += 1;
        let (term, time) = (self.term, self.newest().time());
        (self.leader, self.missed) = (Some(id), None);
        for voter in votes {
            let member = self.member(*voter);
            (member.term, member.leader) = (term, None);
        }
        self.settle(id);
        assert_eq!(self.members[&id].has, self.len(), "who is elected has all that is committed");
        let member = self.member(id);
        (member.leader, member.heard) = (Some(id), now);
        member.others.clear();
        // It begins with an entry of its own: what it found under way is settled with that.
        self.drawn += 1;
        let blank = self.entry(term, time, Changes::default());
        self.add(id, blank);
    }
}
