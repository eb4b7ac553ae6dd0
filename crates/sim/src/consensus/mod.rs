//! The log of several managers, as a right one behaves: a model of what `raft` promises.
//!
//! There is one order of entries. The member that leads adds to it, one entry at a time, and an entry
//! is committed once most voters have it on their disks. Members have what they have heard of the
//! leader: some are behind. A leader that most do not hear commits nothing, and finds out after a
//! while; meanwhile the others elect one of those who have all that is committed. What the old one
//! had under way is kept where the new one has it, and is lost otherwise.
//!
//! Left out is how it comes about: votes have no messages, and what is sent to one who is behind
//! comes whole. Whether members hear each other is what the [`Network`] says.
//!
//! Invariant: whoever is elected has everything that is committed.

mod log;
mod members;
mod vote;

use crate::network::Network;
use crate::random::Random;
pub use log::Entry;
use log::Log;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use store::{Changes, View};
use types::{Timestamp, Version};

/// Between two heartbeats of a leader.
const PULSE: Duration = Duration::from_millis(100);
/// A leader that has heard nothing of most of the others for so long leads no more, as in `raft`.
const QUORUM_LIMIT: Duration = Duration::from_secs(2);
/// Views that are kept for members that are behind, and for those that come back.
const KEPT: u64 = 8;

/// The number of a member, as in `raft`.
pub type Id = u64;

/// Something that is due.
#[derive(Clone, Copy, Debug)]
pub enum Due {
    /// Leaders say that they are there, and it is seen whether one is missed.
    Pulse,
    /// The leader of a term has this entry on its own disk.
    Stored { member: Id, life: u64, entry: u64 },
    /// What the leader of a term has is on the disk of another member.
    Reaches { from: Id, to: Id, term: u64 },
    /// The leader hears so.
    Heard { from: Id, of: Id, term: u64, entry: u64 },
}

/// Faults that last on a manager's disk.
#[derive(Debug, Default)]
pub struct Disk {
    pub full: u32,
    pub slow: Vec<Duration>,
}

impl Disk {
    pub fn is_well(&self) -> bool {
        self.full == 0 && self.slow.is_empty()
    }

    /// How long a write takes.
    pub fn write(&self, random: &mut Random) -> Duration {
        let slow = self.slow.iter().max().copied().unwrap_or_default();
        slow + random.between(Duration::from_micros(200), Duration::from_millis(4))
    }
}

/// What became of an entry, as its leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Waits,
    At(Version),
    Lost,
}

/// Who leads, as a member knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    pub term: u64,
    pub leader: Option<Id>,
    pub is_own: bool,
}

#[derive(Debug, Default)]
struct Member {
    is_up: bool,
    life: u64,
    term: u64,
    leader: Option<Id>,
    /// So many entries of the one order are on its disk; of these it knows so many to be committed.
    has: u64,
    knows: u64,
    /// What its disk has besides.
    tail: Vec<Arc<Entry>>,
    /// Where it leads: its own disk has the last one, and others have this one as their last.
    is_stored: bool,
    others: BTreeMap<Id, u64>,
    /// When most of the others were heard of last.
    heard: Duration,
}

#[derive(Debug)]
pub struct Consensus {
    members: BTreeMap<Id, Member>,
    voters: BTreeSet<Id>,
    learners: BTreeSet<Id>,
    /// Where each number is or was, and the disks of the machines.
    machines: BTreeMap<Id, usize>,
    disks: BTreeMap<usize, Disk>,
    /// The one order, and its views as far as somebody may still ask for them.
    log: Log,
    views: BTreeMap<u64, View>,
    /// The term of each entry, and where those are that somebody may ask for.
    terms: Vec<u64>,
    places: BTreeMap<u64, Version>,
    /// The newest term, who was elected for it, and since when he is missed.
    term: u64,
    leader: Option<Id>,
    missed: Option<Duration>,
    patience: Duration,
    drawn: u64,
    random: Random,
    due: Vec<(Duration, Due)>,
}

impl Consensus {
    pub fn new(random: Random) -> Self {
        Self {
            members: BTreeMap::new(),
            voters: BTreeSet::new(),
            learners: BTreeSet::new(),
            machines: BTreeMap::new(),
            disks: BTreeMap::new(),
            log: Log::default(),
            views: [(0, View::default())].into(),
            terms: Vec::new(),
            places: BTreeMap::new(),
            term: 0,
            leader: None,
            missed: None,
            patience: Duration::ZERO,
            drawn: 0,
            random,
            due: Vec::new(),
        }
    }

    /// The log as it is when its members, each with its machine, begin.
    pub fn found(&mut self, members: &[(Id, usize)], first: &[(Changes, Timestamp)]) {
        for (changes, time) in first {
            self.commit(&self.entry(0, *time, changes.clone()));
        }
        let has = self.len();
        for (id, machine) in members {
            self.machines.insert(*id, *machine);
            self.members.insert(*id, Member { has, knows: has, ..Member::default() });
            self.voters.insert(*id);
        }
        if members.len() > 1 {
            self.due.push((PULSE, Due::Pulse));
        }
    }

    /// A machine is to have a copy of the log; it has nothing yet.
    pub fn join(&mut self, id: Id, machine: usize) {
        if self.machines.len() == 1 {
            self.due.push((PULSE, Due::Pulse));
        }
        self.machines.insert(id, machine);
        self.members.insert(id, Member::default());
    }

    /// The copy of a machine is removed.
    pub fn forget(&mut self, id: Id) {
        self.members.remove(&id);
    }

    /// What is due, since it was asked the last time.
    pub fn due(&mut self) -> Vec<(Duration, Due)> {
        std::mem::take(&mut self.due)
    }

    /// The newest view of all.
    pub fn newest(&self) -> &View {
        &self.views[&self.len()]
    }

    /// What a member shows.
    pub fn view(&self, id: Id) -> View {
        self.views.get(&self.members[&id].knows).cloned().unwrap_or_default()
    }

    /// What a member's disk has of that, read anew; not of one that is far behind.
    pub fn replay(&self, id: Id) -> Option<View> {
        self.log.replay(Version(self.members[&id].knows))
    }

    pub fn leadership(&self, id: Id, now: Duration) -> Leadership {
        let Some(member) = self.members.get(&id) else { return Leadership::default() };
        let has_begun = self.term_at(member.knows) == member.term;
        let hears_most = self.voters.len() == 1 || now < member.heard + QUORUM_LIMIT;
        let leads = member.is_up && member.leader == Some(id);
        let is_own = leads && has_begun && hears_most;
        Leadership { term: member.term, leader: member.leader, is_own }
    }

    /// Who was elected last.
    pub fn leader(&self) -> Option<Id> {
        self.leader
    }

    /// Where a member is; nowhere, where nobody has taken the number.
    pub fn machine(&self, id: Id) -> usize {
        self.machines.get(&id).copied().unwrap_or(usize::MAX)
    }

    /// The disk of the log on a machine.
    pub fn disk(&mut self, machine: usize) -> &mut Disk {
        self.disks.entry(machine).or_default()
    }

    pub fn are_disks_well(&self) -> bool {
        self.disks.values().all(Disk::is_well)
    }

    pub fn mend_disks(&mut self) {
        self.disks.clear();
    }

    fn write(&mut self, id: Id) -> Duration {
        let machine = self.machine(id);
        self.disks.entry(machine).or_default().write(&mut self.random)
    }

    fn len(&self) -> u64 {
        self.terms.len() as u64
    }

    fn term_at(&self, index: u64) -> u64 {
        let at = usize::try_from(index).ok().and_then(|index| index.checked_sub(1));
        at.and_then(|at| self.terms.get(at)).copied().unwrap_or(0)
    }

    fn is_up(&self, id: Id) -> bool {
        self.members.get(&id).is_some_and(|member| member.is_up)
    }

    fn member(&mut self, id: Id) -> &mut Member {
        self.members.entry(id).or_default()
    }

    fn entry(&self, term: u64, time: Timestamp, changes: Changes) -> Arc<Entry> {
        Arc::new(Entry { id: self.drawn, term, time, changes })
    }

    /// Says whether packets pass from one member to another.
    fn passes(&self, wires: &Network, from: Id, to: Id) -> bool {
        wires.carries_log(self.machine(from), self.machine(to))
    }

    /// The process of a member starts: it knows of a little less than before.
    pub fn start(&mut self, id: Id, now: Duration) {
        let least = self.log.compacted();
        let forgets = self.random.below(4);
        let alone = self.voters.len() == 1;
        let member = self.member(id);
        member.is_up = true;
        member.life += 1;
        if !alone {
            member.knows = member.knows.saturating_sub(forgets).max(least.0.min(member.has));
        } else if self.is_electable(id) {
            self.elect(id, &[id], now);
        }
    }

    /// It dies: what it was writing is on its disk or not.
    pub fn die(&mut self, id: Id) {
        let is_lost = self.random.chance(500);
        let member = self.member(id);
        (member.is_up, member.leader) = (false, None);
        member.life += 1;
        if !member.is_stored && is_lost && member.term == member.tail.last().map_or(0, |it| it.term)
        {
            member.tail.pop();
        }
        member.is_stored = true;
        member.others.clear();
    }

    /// The leader of a term has an entry to add; says its number.
    pub fn propose(&mut self, id: Id, changes: Changes, time: Timestamp) -> u64 {
        self.drawn += 1;
        let entry = self.entry(self.members[&id].term, time, changes);
        self.add(id, entry);
        self.drawn
    }

    pub fn fate(&self, id: Id, entry: u64) -> Fate {
        let member = &self.members[&id];
        match self.places.get(&entry) {
            Some(place) if place.0 <= member.knows => Fate::At(*place),
            None if member.tail.iter().all(|it| it.id != entry) => Fate::Lost,
            Some(_) | None => Fate::Waits,
        }
    }

    pub fn handle(&mut self, due: Due, wires: &Network, now: Duration) {
        match due {
            Due::Pulse => self.pulse(wires, now),
            Due::Stored { member: id, life, entry } => {
                let member = self.members.get_mut(&id).filter(|it| it.life == life);
                let is_last = |it: &&mut Member| it.tail.last().is_some_and(|it| it.id == entry);
                if let Some(member) = member.filter(is_last) {
                    member.is_stored = true;
                    self.tell_others(id);
                    self.commit_of(id);
                }
            }
            Due::Reaches { from, to, term } => {
                let leader = self.members.get(&from).filter(|it| it.leader == Some(from));
                let says = leader.is_some_and(|it| it.is_up && it.term == term);
                if says && self.is_up(to) && self.passes(wires, from, to) {
                    self.reaches(from, to, wires);
                }
            }
            Due::Heard { from, of, term, entry } => {
                let passes = self.passes(wires, of, from);
                let leads =
                    |it: &&mut Member| it.is_up && it.leader == Some(from) && it.term == term;
                let leader = self.members.get_mut(&from).filter(leads);
                if let Some(leader) = leader.filter(|_| passes) {
                    leader.others.insert(of, entry);
                    self.commit_of(from);
                }
            }
        }
    }

    fn add(&mut self, id: Id, entry: Arc<Entry>) {
        let number = entry.id;
        let write = self.write(id);
        let member = self.member(id);
        member.tail.push(entry);
        member.is_stored = false;
        let life = member.life;
        self.due.push((write, Due::Stored { member: id, life, entry: number }));
        self.tell_others(id);
    }

    /// Of what it has besides, a member finds what was committed meanwhile.
    fn settle(&mut self, id: Id) {
        let places = &self.places;
        let Some(member) = self.members.get_mut(&id) else { return };
        while let Some(first) = member.tail.first()
            && places.get(&first.id) == Some(&Version(member.has + 1))
        {
            member.tail.remove(0);
            member.has += 1;
        }
    }

    /// The leader sends what it has to all others.
    fn tell_others(&mut self, id: Id) {
        let term = self.members[&id].term;
        let all = self.voters.union(&self.learners);
        let others = all.filter(|to| **to != id && self.is_up(**to)).copied();
        for to in others.collect::<Vec<_>>() {
            let mut delay =
                self.random.between(Duration::from_micros(100), Duration::from_millis(4));
            // What is said all the time only tells how far the log is.
            if !self.members[&id].tail.is_empty() {
                delay += self.write(to);
            }
            self.due.push((delay, Due::Reaches { from: id, to, term }));
        }
    }

    fn reaches(&mut self, from: Id, to: Id, wires: &Network) {
        self.settle(from);
        let leader = &self.members[&from];
        let (term, has, knows, tail) = (leader.term, leader.has, leader.knows, leader.tail.clone());
        let newer = self.members[&to].term;
        if term < newer {
            if self.passes(wires, to, from) {
                let leader = self.member(from);
                (leader.term, leader.leader) = (newer, None);
            }
            return;
        }
        let last = tail.last().map(|it| it.id);
        let member = self.member(to);
        (member.term, member.leader) = (term, Some(from));
        member.has = has;
        member.knows = member.knows.max(knows);
        member.tail = tail;
        member.is_stored = true;
        if let Some(entry) = last {
            let delay = self.random.between(Duration::from_micros(100), Duration::from_millis(4));
            self.due.push((delay, Due::Heard { from, of: to, term, entry }));
        }
    }

    /// Commits what most voters have, where it is of the leader's own term.
    fn commit_of(&mut self, id: Id) {
        self.settle(id);
        let leader = &self.members[&id];
        if leader.leader != Some(id) {
            return;
        }
        let Some(last) = leader.tail.last().filter(|it| it.term == leader.term) else {
            let has = leader.has;
            self.member(id).knows = has;
            return;
        };
        let others = self.voters.iter().filter(|other| leader.others.get(other) == Some(&last.id));
        let has_own = leader.is_stored && self.voters.contains(&id);
        if !self.are_most(others.count() + usize::from(has_own)) {
            return;
        }
        for entry in leader.tail.clone() {
            self.commit(&entry);
        }
        let has = self.len();
        let leader = self.member(id);
        leader.tail.clear();
        (leader.has, leader.knows) = (has, has);
        self.tell_others(id);
    }

    fn commit(&mut self, entry: &Entry) {
        let mut view = self.newest().clone();
        let index = Version(view.version().0 + 1);
        self.log.append(&view, entry, index);
        view.apply(&entry.changes, index, entry.time);
        self.log.compact(&view);
        self.terms.push(entry.term);
        self.places.insert(entry.id, index);
        self.views.insert(index.0, view);
        // Who knows nothing gets a snapshot.
        let all = self.members.values().map(|member| member.knows);
        let least = all.filter(|knows| *knows > 0).min().unwrap_or(0).saturating_sub(KEPT);
        while self.views.first_key_value().is_some_and(|(at, _)| *at < least) {
            self.views.pop_first();
        }
    }
}
