//! Several members in one process, and the wires between them.

use crate::numbered::{config, holds, put};
use raft::{Config, Peers, Sequencer, Start};
use scope::Scope;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use types::{Fault, Timestamp, Version};

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Who reaches whom.
#[derive(Clone, Default)]
pub(crate) struct Wires(Arc<Mutex<Plan>>);

#[derive(Default)]
struct Plan {
    running: BTreeMap<u64, Sequencer>,
    /// Nothing passes from the one to the other.
    cuts: BTreeSet<(u64, u64)>,
    delay: Duration,
}

impl Wires {
    fn plan<R>(&self, change: impl FnOnce(&mut Plan) -> R) -> R {
        change(&mut self.0.lock().unwrap())
    }

    pub(crate) fn cut(&self, from: u64, to: u64) {
        self.plan(|plan| plan.cuts.insert((from, to)));
    }

    /// Cuts a member off from all others, both ways.
    pub(crate) fn isolate(&self, member: u64) {
        for other in 1..=9 {
            self.cut(member, other);
            self.cut(other, member);
        }
    }

    pub(crate) fn heal(&self) {
        self.plan(|plan| plan.cuts.clear());
    }

    pub(crate) fn delay(&self, delay: Duration) {
        self.plan(|plan| plan.delay = delay);
    }

    fn passes(&self, from: u64, to: u64) -> bool {
        self.plan(|plan| !plan.cuts.contains(&(from, to)))
    }
}

/// A member's end of the wires.
#[derive(Clone)]
pub(crate) struct Port {
    own: u64,
    wires: Wires,
}

impl Peers for Port {
    async fn call(&self, to: u64, body: Vec<u8>, limit: Duration) -> Result<Vec<u8>, Fault> {
        let lost = || Fault::unavailable("no answer");
        let (there, delay) = self.wires.plan(|plan| (plan.running.get(&to).cloned(), plan.delay));
        let there = there.ok_or_else(lost)?;
        let answer = async {
            tokio::time::sleep(delay).await;
            if self.wires.passes(self.own, to) {
                let answer = there.receive(self.own, &body).await;
                if self.wires.passes(to, self.own) {
                    return answer;
                }
            }
            std::future::pending().await
        };
        tokio::time::timeout(limit, answer).await.map_err(|_late| lost())?
    }
}

pub(crate) struct Cluster {
    pub(crate) wires: Wires,
    directories: BTreeMap<u64, TempDir>,
    running: BTreeMap<u64, (Sequencer, Scope)>,
}

impl Cluster {
    /// So many members, all of which vote.
    pub(crate) async fn of(members: u64) -> Self {
        let mut cluster = Self {
            wires: Wires::default(),
            directories: BTreeMap::new(),
            running: BTreeMap::new(),
        };
        if 0 < members {
            cluster.start(1, Start::Found).await;
        }
        for member in 2..=members {
            cluster.join(member).await;
        }
        cluster
    }

    /// Has a new member join and vote.
    pub(crate) async fn join(&mut self, member: u64) {
        self.start(member, Start::Join).await;
        let leader = self.leader().await;
        leader.add_learner(member).await.unwrap();
        until(|| leader.members().caught_up.contains(&member)).await;
        leader.promote(member).await.unwrap();
    }

    pub(crate) async fn start(&mut self, member: u64, start: Start) {
        let wall = config("".as_ref()).wall;
        self.start_with(member, start, wall).await;
    }

    pub(crate) async fn start_with(&mut self, member: u64, start: Start, wall: fn() -> Timestamp) {
        let directory =
            self.directories.entry(member).or_insert_with(|| tempfile::tempdir().unwrap());
        let config = Config { member, start, wall, ..config(directory.path()) };
        let port = Port { own: member, wires: self.wires.clone() };
        let mut scope = Scope::new();
        let sequencer = raft::open(config, port, &mut scope).await.unwrap();
        self.wires.plan(|plan| plan.running.insert(member, sequencer.clone()));
        self.running.insert(member, (sequencer, scope));
    }

    /// Ends a member from one moment to the next, as far as the others see.
    pub(crate) async fn kill(&mut self, member: u64) {
        self.wires.plan(|plan| plan.running.remove(&member));
        let (sequencer, scope) = self.running.remove(&member).unwrap();
        drop(sequencer);
        scope.cancel();
        scope.join().await.unwrap();
    }

    pub(crate) async fn end(mut self) {
        for member in self.running.keys().copied().collect::<Vec<_>>() {
            self.kill(member).await;
        }
    }

    pub(crate) fn member(&self, member: u64) -> Sequencer {
        self.running[&member].0.clone()
    }

    pub(crate) fn members(&self) -> Vec<Sequencer> {
        self.running.values().map(|(sequencer, _)| sequencer.clone()).collect()
    }

    /// The member that leads in the last term.
    pub(crate) async fn leader(&self) -> Sequencer {
        self.leader_but(0).await
    }

    pub(crate) async fn leader_but(&self, member: u64) -> Sequencer {
        let members = self.members();
        let leader = || {
            let leaders = members.iter().filter(|it| it.member() != member && it.is_leader());
            leaders.max_by_key(|it| it.leadership().borrow().term)
        };
        until(|| leader().is_some()).await;
        leader().or(members.first()).unwrap().clone()
    }

    /// Writes a number, by whichever member takes it.
    pub(crate) async fn put(&self, number: u64) -> Version {
        let write = async {
            loop {
                let leader = self.leader().await;
                if let Ok(version) = put(&leader, number).await {
                    return version;
                }
            }
        };
        tokio::time::timeout(PATIENCE, write).await.expect("nobody takes changes")
    }

    /// Waits until every member shows a version, and sees that all show these numbers there.
    pub(crate) async fn check(&self, version: Version, numbers: impl Iterator<Item = u64>) {
        let numbers: Vec<u64> = numbers.collect();
        for member in self.members() {
            member.reach(version, PATIENCE).await.unwrap();
            let view = member.view();
            let lost: Vec<_> = numbers.iter().filter(|number| !holds(&view, **number)).collect();
            assert!(lost.is_empty(), "member {} has lost {lost:?}", member.member());
        }
    }
}

/// Waits for a condition, which is looked at again and again.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it does not come");
}
