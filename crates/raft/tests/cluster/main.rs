//! The log of several members, on wires that are cut.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod history;
#[allow(dead_code, reason = "the other tests have one member")]
#[path = "../numbered/mod.rs"]
mod numbered;
mod stage;

use numbered::{config, holds, node, put, snapshot_every};
use raft::Start;
use stage::{Cluster, PATIENCE, until};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use store::{Changes, Tx};
use types::{Fault, FaultKind, Timestamp, Version};

#[tokio::test]
async fn members_agree_on_a_leader_and_hold_the_same() {
    let cluster = Cluster::of(3).await;
    let version = cluster.put(1).await;
    cluster.check(version, 1..=1).await;
    let leader = cluster.leader().await;
    for member in cluster.members() {
        let mut leadership = member.leadership();
        let told = leadership.wait_for(|it| it.leader == Some(leader.member()));
        let known = *tokio::time::timeout(PATIENCE, told).await.unwrap().unwrap();
        assert_eq!(known.is_own, member.member() == leader.member());
        if !known.is_own {
            assert_eq!(put(&member, 2).await.unwrap_err(), Fault::not_leading());
            assert_eq!(member.barrier(PATIENCE).await.unwrap_err(), Fault::not_leading());
            let barrier = leader.barrier(PATIENCE).await.unwrap();
            member.reach(barrier, PATIENCE).await.unwrap();
            assert!(holds(&member.view(), 1) && !holds(&member.view(), 2));
        }
    }
    assert_eq!(leader.members().voters, BTreeSet::from([1, 2, 3]));
    assert_eq!(leader.members().reachable, BTreeSet::from([1, 2, 3]));
    cluster.end().await;
}

#[tokio::test]
async fn a_killed_leader_is_replaced_and_nothing_is_lost() {
    let mut cluster = Cluster::of(3).await;
    for number in 1..=20 {
        cluster.put(number).await;
    }
    let killed = cluster.leader().await.member();
    let before = cluster.member(killed).now();
    cluster.kill(killed).await;
    let version = cluster.put(21).await;
    assert!(before <= cluster.leader().await.view().time(), "the cluster's time goes on");
    cluster.start(killed, Start::Resume).await;
    cluster.check(version, 1..=21).await;
    cluster.end().await;
}

/// How long writes wait when the leader is killed; run by hand.
#[tokio::test]
#[ignore = "a measure"]
#[expect(clippy::disallowed_methods, reason = "it is measured here")]
async fn measure_of_a_killed_leader() {
    let mut cluster = Cluster::of(3).await;
    let mut times = Vec::new();
    for round in 0..20 {
        cluster.put(2 * round).await;
        let killed = cluster.leader().await.member();
        let begun = Instant::now();
        cluster.kill(killed).await;
        cluster.put(2 * round + 1).await;
        times.push(begun.elapsed());
        cluster.start(killed, Start::Resume).await;
        let version = cluster.put(2 * round + 1).await;
        cluster.check(version, 0..=2 * round + 1).await;
    }
    times.sort();
    println!("median {:?}, worst {:?}", times[10], times[19]);
    cluster.end().await;
}

#[tokio::test]
async fn a_leader_that_is_cut_off_acknowledges_nothing_and_shows_nothing_of_it() {
    let cluster = Cluster::of(5).await;
    cluster.put(1).await;
    let old = cluster.leader().await;
    cluster.wires.isolate(old.member());
    let (writer, reader) = (old.clone(), old.clone());
    let mut calls = tokio::task::JoinSet::new();
    calls.spawn(async move { put(&writer, 2).await });
    // What changes nothing is no more sure than what does.
    calls.spawn(async move { reader.sequence(|_, _| Ok(Changes::default())).await });
    let new = cluster.leader_but(old.member()).await;
    put(&new, 3).await.unwrap();
    while let Some(outcome) = calls.join_next().await {
        assert_eq!(outcome.unwrap().unwrap_err().kind, FaultKind::Unavailable);
    }
    assert!(old.barrier(Duration::from_secs(1)).await.is_err());
    assert!(!holds(&old.view(), 2) && !holds(&old.view(), 3));
    let mut leadership = old.leadership();
    let lost = leadership.wait_for(|it| !it.is_own);
    tokio::time::timeout(PATIENCE, lost).await.unwrap().unwrap();
    cluster.wires.heal();
    let version = cluster.put(4).await;
    cluster.check(version, [1, 3, 4].into_iter()).await;
    assert!(!holds(&old.view(), 2));
    cluster.end().await;
}

/// It speaks and does not hear: its heartbeats alone must not keep the others from electing.
#[tokio::test]
async fn a_leader_that_hears_nobody_is_replaced() {
    let cluster = Cluster::of(3).await;
    cluster.put(1).await;
    let old = cluster.leader().await.member();
    for other in [1, 2, 3] {
        cluster.wires.cut(other, old);
    }
    let new = cluster.leader_but(old).await;
    put(&new, 2).await.unwrap();
    cluster.wires.heal();
    let version = cluster.put(3).await;
    cluster.check(version, 1..=3).await;
    cluster.end().await;
}

/// A member that nobody hears for a while does not disturb the others when it is back.
#[tokio::test]
async fn a_member_that_comes_back_does_not_end_the_term() {
    let cluster = Cluster::of(3).await;
    cluster.put(1).await;
    let leader = cluster.leader().await;
    let term = leader.leadership().borrow().term;
    let other = if leader.member() == 3 { 2 } else { 3 };
    cluster.wires.isolate(other);
    let away = cluster.member(other);
    let mut leadership = away.leadership();
    // It stands as often as it likes, and is not elected.
    let alone = leadership.wait_for(|it| it.leader.is_none());
    drop(tokio::time::timeout(Duration::from_secs(3), alone).await);
    cluster.wires.heal();
    let version = put(&leader, 2).await.unwrap();
    cluster.check(version, 1..=2).await;
    assert_eq!(leader.leadership().borrow().term, term);
    cluster.end().await;
}

#[tokio::test]
async fn a_learner_has_all_from_a_snapshot_then_votes_and_is_removed() {
    const LAST: u64 = 700;
    let mut cluster = Cluster::of(1).await;
    let leader = cluster.leader().await;
    snapshot_every(&leader, 100).await;
    // Larger than what is sent at once.
    let large = leader.sequence(|view, _| {
        let mut tx = Tx::new(view);
        let mut large = node("large");
        large.description.hostname = "x".repeat(3 << 20);
        tx.put_node(large);
        Ok(tx.finish())
    });
    large.await.unwrap();
    let mut version = leader.view().version();
    for number in 0..LAST {
        version = put(&leader, number).await.unwrap();
    }
    cluster.start(2, Start::Join).await;
    assert!(leader.promote(2).await.is_err(), "it does not follow the log yet");
    leader.add_learner(2).await.unwrap();
    leader.add_learner(2).await.unwrap();
    cluster.check(version, 0..LAST).await;
    assert_eq!(leader.members().learners, BTreeSet::from([2]));
    assert!(cluster.member(2).view().node(&"large".into()).is_some());
    until(|| leader.members().caught_up.contains(&2)).await;
    leader.promote(2).await.unwrap();
    assert_eq!(leader.members().voters, BTreeSet::from([1, 2]));
    assert!(leader.remove(1).await.is_err(), "it leads");
    // What came by a snapshot is there after a restart.
    cluster.kill(2).await;
    cluster.start(2, Start::Resume).await;
    assert!(cluster.member(2).view().node(&"large".into()).is_some());
    cluster.put(LAST).await;
    cluster.leader().await.transfer(None, PATIENCE).await.unwrap();
    let leader = cluster.leader().await;
    let other = 3 - leader.member();
    until(|| leader.members().reachable.contains(&other)).await;
    leader.remove(other).await.unwrap();
    assert_eq!(leader.members().voters, BTreeSet::from([leader.member()]));
    cluster.kill(other).await;
    put(&leader, LAST + 1).await.unwrap();
    cluster.end().await;
}

/// An entry of many pieces reaches those that follow the log.
#[tokio::test]
async fn a_large_change_reaches_all() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let large = leader.sequence(|view, _| {
        let mut tx = Tx::new(view);
        let mut large = node("large");
        large.description.hostname = "x".repeat(5 << 20);
        tx.put_node(large);
        Ok(tx.finish())
    });
    let version = large.await.unwrap();
    cluster.check(version, std::iter::empty()).await;
    cluster.end().await;
}

#[tokio::test]
async fn all_are_killed_at_once_and_start_in_any_order() {
    let mut cluster = Cluster::of(3).await;
    let mut number = 0;
    for order in [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]] {
        number += 1;
        cluster.put(number).await;
        for member in order {
            cluster.kill(member).await;
        }
        for member in order {
            cluster.start(member, Start::Resume).await;
        }
        let version = cluster.leader().await.view().version();
        cluster.check(version, 1..=number).await;
    }
    cluster.end().await;
}

/// Two are enough.
#[tokio::test]
async fn a_part_of_the_members_starts_again_without_the_last() {
    let mut cluster = Cluster::of(3).await;
    cluster.put(1).await;
    for member in 1..=3 {
        cluster.kill(member).await;
    }
    cluster.start(3, Start::Resume).await;
    cluster.start(2, Start::Resume).await;
    cluster.put(2).await;
    cluster.start(1, Start::Resume).await;
    let version = cluster.put(3).await;
    cluster.check(version, 1..=3).await;
    cluster.end().await;
}

#[tokio::test]
async fn a_restarted_follower_shows_what_it_has_shown_before_it_hears_of_the_others() {
    let mut cluster = Cluster::of(3).await;
    for number in 1..=5 {
        let version = cluster.put(number).await;
        cluster.check(version, 1..=number).await;
    }
    let follower = cluster.leader().await.member() % 3 + 1;
    let before = store::Snapshot::from(&cluster.member(follower).view());
    cluster.wires.isolate(follower);
    cluster.kill(follower).await;
    cluster.start(follower, Start::Resume).await;
    assert_eq!(store::Snapshot::from(&cluster.member(follower).view()), before);
    cluster.wires.heal();
    let version = cluster.put(6).await;
    cluster.check(version, 1..=6).await;
    cluster.end().await;
}

/// The lead moves while clients write, and none of them hears anything but who does not lead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_hands_over_and_no_change_is_in_doubt() {
    let cluster = Cluster::of(3).await;
    cluster.wires.delay(Duration::from_millis(2));
    let mut number = 0;
    for _ in 0..5 {
        let leader = cluster.leader().await;
        let mut writes = tokio::task::JoinSet::new();
        let first = number;
        for _ in 0..20 {
            let leader = leader.clone();
            let own = number;
            writes.spawn(async move { (own, put(&leader, own).await) });
            number += 1;
        }
        leader.transfer(None, PATIENCE).await.unwrap();
        let mut taken = BTreeSet::new();
        while let Some(written) = writes.join_next().await {
            match written.unwrap() {
                (number, Ok(_)) => drop(taken.insert(number)),
                (_, Err(fault)) => assert_eq!(fault, Fault::not_leading()),
            }
        }
        let new = cluster.leader_but(leader.member()).await;
        let version = new.barrier(PATIENCE).await.unwrap();
        cluster.check(version, taken.iter().copied()).await;
        let view = new.view();
        assert!((first..number).all(|number| taken.contains(&number) == holds(&view, number)));
    }
    cluster.end().await;
}

/// A message for another member, or in another's name, changes nothing.
#[tokio::test]
async fn only_the_member_that_is_meant_answers_and_only_for_itself() {
    use raft::Peers;
    use std::sync::{Arc, Mutex};

    /// Keeps what a member says, and to whom.
    #[derive(Clone, Default)]
    struct Ear(Arc<Mutex<Vec<Said>>>);
    type Said = (u64, Vec<u8>);
    impl Peers for Ear {
        async fn call(&self, to: u64, body: Vec<u8>, _limit: Duration) -> Result<Vec<u8>, Fault> {
            self.0.lock().unwrap().push((to, body));
            Err(Fault::unavailable("nobody is there"))
        }
    }

    let directory = tempfile::tempdir().unwrap();
    let (mut scope, ear) = (scope::Scope::new(), Ear::default());
    let config = config(directory.path());
    let speaker = raft::open(config, ear.clone(), &mut scope).await.unwrap();
    speaker.add_learner(2).await.unwrap();
    until(|| !ear.0.lock().unwrap().is_empty()).await;
    let (to, body) = ear.0.lock().unwrap()[0].clone();
    assert_eq!(to, 2);

    let mut others = Cluster::of(0).await;
    for member in [2, 3] {
        others.start(member, Start::Join).await;
    }
    let refused = others.member(3).receive(1, &body).await.unwrap_err();
    assert_eq!(refused.message, "a message for manager 2 has reached manager 3");
    let refused = others.member(2).receive(3, &body).await.unwrap_err();
    assert_eq!(refused.kind, FaultKind::Forbidden);
    assert_eq!(others.member(2).receive(1, &[7]).await.unwrap_err().kind, FaultKind::Invalid);
    others.member(2).receive(1, &body).await.unwrap();
    drop(speaker);
    scope.cancel();
    scope.join().await.unwrap();
    others.end().await;
}

/// Two of three are gone for good. What the last one has goes on, and it never needs them again.
#[tokio::test]
async fn a_member_goes_on_alone_with_all_it_has() {
    let mut cluster = Cluster::of(3).await;
    let (mut written, mut last) = (0, Version(0));
    for number in 0..20 {
        last = cluster.put(number).await;
        written = number + 1;
    }
    let left = cluster.leader().await.member();
    cluster.member(left).reach(last, PATIENCE).await.unwrap();
    for member in (1..=3).filter(|member| *member != left) {
        cluster.kill(member).await;
    }
    // Nobody knows what becomes of this one.
    drop(put(&cluster.member(left), written).await);
    cluster.kill(left).await;
    cluster.start(left, Start::Alone).await;
    let alone = cluster.member(left);
    assert!(alone.is_leader());
    assert_eq!(alone.members().voters, BTreeSet::from([left]));
    let version = cluster.put(written + 1).await;
    cluster.check(version, (0..written).chain([written + 1])).await;
    cluster.kill(left).await;
    cluster.start(left, Start::Resume).await;
    cluster.check(version, (0..written).chain([written + 1])).await;
    // Another one joins as ever.
    cluster.join(4).await;
    let version = cluster.put(written + 2).await;
    cluster.check(version, (0..written).chain([written + 1, written + 2])).await;
    cluster.end().await;
}

/// A directory that was emptied, or another member's, must not vote.
#[tokio::test]
async fn a_log_that_is_lost_or_of_another_member_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let open = |member, start| {
        let config = raft::Config { member, start, ..config(directory.path()) };
        async move {
            let mut scope = scope::Scope::new();
            let opened = raft::open(config, raft::Alone, &mut scope).await.map(drop);
            scope.cancel();
            scope.join().await.unwrap();
            opened.map_err(|error| error.to_string())
        }
    };
    let refused = open(1, Start::Resume).await.unwrap_err();
    assert!(refused.starts_with("the log of this manager is missing"), "{refused}");
    assert_eq!(open(1, Start::Found).await, Ok(()));
    assert_eq!(open(1, Start::Resume).await, Ok(()));
    let refused = open(2, Start::Join).await.unwrap_err();
    assert!(refused.ends_with("is that of manager 1, not of manager 2"), "{refused}");
}

/// Whoever takes over goes on with the time of who led before, whose clock was ahead.
#[tokio::test]
async fn time_goes_on_where_the_clock_of_the_next_leader_is_behind() {
    const AHEAD: Timestamp = Timestamp(4_000_000_000_000_000_000);
    let mut cluster = Cluster::of(0).await;
    cluster.start_with(1, Start::Found, || AHEAD).await;
    cluster.join(2).await;
    cluster.put(1).await;
    let first = cluster.leader().await;
    first.transfer(None, PATIENCE).await.unwrap();
    let version = cluster.put(2).await;
    let view = cluster.member(2).view();
    assert!(view.version() >= version && view.time() >= AHEAD);
    assert!(cluster.member(2).now() >= AHEAD);
    cluster.end().await;
}
