//! What clients saw while wires were cut and members killed has one order.
//!
//! The log itself is the order: a change is at the version of its entry, a read at the version that
//! it saw. The history is linearizable where that order keeps to real time and each read saw exactly
//! what is before it.

use crate::numbered::{holds, put};
use crate::stage::{Cluster, PATIENCE};
use raft::{Sequencer, Start};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use store::View;
use types::{Fault, Version};

const CLIENTS: u64 = 4;
const STEPS: u64 = 14;

/// One call of a client, between two ticks of a clock that all share.
struct Call {
    begun: u64,
    ended: u64,
    what: What,
}

enum What {
    Written {
        number: u64,
        version: Version,
    },
    /// Nothing was done.
    Refused {
        number: u64,
    },
    /// It may have been done.
    Unknown,
    Read {
        view: Box<View>,
    },
}

/// Chance that can be had again.
#[derive(Clone)]
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % limit
    }
}

/// The members that run now, as clients find them.
type Addresses = Arc<Mutex<Vec<Sequencer>>>;

struct Client {
    id: u64,
    chance: Chance,
    addresses: Addresses,
    clock: Arc<AtomicU64>,
}

impl Client {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Vec<Call> {
        let mut calls = Vec::new();
        for round in 0.. {
            if stop.load(SeqCst) {
                break;
            }
            let members = self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if members.is_empty() {
                tokio::task::yield_now().await;
                continue;
            }
            let at = usize::try_from(self.chance.below(members.len() as u64)).unwrap();
            // Mostly the one that says it leads, which may be wrong.
            let leader = members.iter().find(|member| member.is_leader());
            let member =
                leader.filter(|_| self.chance.below(3) > 0).unwrap_or(&members[at]).clone();
            drop(members);
            let begun = self.clock.fetch_add(1, SeqCst);
            let what = match self.chance.below(3) {
                0 => read(&member).await,
                _ => write(&member, self.id + CLIENTS * round).await,
            };
            let ended = self.clock.fetch_add(1, SeqCst);
            calls.extend(what.map(|what| Call { begun, ended, what }));
            tokio::time::sleep(Duration::from_millis(self.chance.below(4))).await;
        }
        calls
    }
}

async fn write(member: &Sequencer, number: u64) -> Option<What> {
    Some(match tokio::time::timeout(Duration::from_secs(1), put(member, number)).await {
        Ok(Ok(version)) => What::Written { number, version },
        Ok(Err(fault)) if fault == Fault::not_leading() => What::Refused { number },
        Ok(Err(_)) | Err(_) => What::Unknown,
    })
}

async fn read(member: &Sequencer) -> Option<What> {
    member.barrier(Duration::from_secs(1)).await.ok()?;
    Some(What::Read { view: Box::new(member.view()) })
}

async fn trouble(cluster: &mut Cluster, addresses: &Addresses, seed: u64) {
    let mut chance = Chance(seed ^ 0xfeed);
    for _ in 0..STEPS {
        let members: Vec<u64> = cluster.members().iter().map(Sequencer::member).collect();
        let one = 1 + chance.below(members.len() as u64);
        let leader = cluster.members().iter().find(|it| it.is_leader()).map(Sequencer::member);
        let victim = leader.filter(|_| chance.below(2) == 0).unwrap_or(one);
        match chance.below(5) {
            0 => cluster.wires.isolate(victim),
            1 => members.iter().for_each(|other| cluster.wires.cut(victim, *other)),
            2 => members.iter().for_each(|other| cluster.wires.cut(*other, victim)),
            3 => {
                addresses.lock().unwrap().retain(|member| member.member() != victim);
                cluster.kill(victim).await;
                cluster.start(victim, Start::Resume).await;
                addresses.lock().unwrap().push(cluster.member(victim));
            }
            _ => cluster.wires.heal(),
        }
        cluster.wires.delay(Duration::from_millis(chance.below(10)));
        tokio::time::sleep(Duration::from_millis(100 + chance.below(1500))).await;
        if chance.below(3) > 0 {
            cluster.wires.heal();
        }
    }
    cluster.wires.heal();
    cluster.wires.delay(Duration::ZERO);
}

async fn check(members: u64, seed: u64) {
    let mut cluster = Cluster::of(members).await;
    let addresses: Addresses = Arc::new(Mutex::new(cluster.members()));
    let (clock, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut clients = tokio::task::JoinSet::new();
    for id in 0..CLIENTS {
        let chance = Chance(seed.wrapping_mul(31).wrapping_add(id));
        let (addresses, clock) = (Arc::clone(&addresses), Arc::clone(&clock));
        clients.spawn(Client { id, chance, addresses, clock }.run(Arc::clone(&stop)));
    }
    trouble(&mut cluster, &addresses, seed).await;
    // All is well again: somebody takes changes, and all hold the same.
    let version = cluster.put(u64::MAX).await;
    stop.store(true, SeqCst);
    let calls: Vec<Call> = clients.join_all().await.into_iter().flatten().collect();
    let last = cluster.put(u64::MAX - 1).await.max(version);
    cluster.check(last, std::iter::once(u64::MAX)).await;
    let view = cluster.leader().await.view();
    let written = calls.iter().filter(|call| matches!(call.what, What::Written { .. })).count();
    let read = calls.iter().filter(|call| matches!(call.what, What::Read { .. })).count();
    assert!(written > 50 && read > 10, "seed {seed}: {written} writes, {read} reads");
    linearizable(&calls, &view).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    addresses.lock().unwrap().clear();
    cluster.end().await;
}

/// Says what in a history contradicts the log that came of it.
fn linearizable(calls: &[Call], last: &View) -> Result<(), String> {
    let versions: BTreeMap<String, Version> =
        last.nodes().map(|node| (node.id.to_string(), node.meta.version)).collect();
    let mut order = Vec::new();
    for call in calls {
        match &call.what {
            What::Written { number, version } => {
                if versions.get(&format!("n{number}")) != Some(version) {
                    return Err(format!("{number} is not at {version:?}, where it was put"));
                }
                order.push((call, *version, true));
            }
            What::Refused { number } if holds(last, *number) => {
                return Err(format!("{number} is there, and was refused"));
            }
            What::Refused { .. } | What::Unknown => {}
            What::Read { view } => {
                let seen = view.nodes().map(|node| node.id.to_string());
                let before = versions.iter().filter(|(_, version)| **version <= view.version());
                if !seen.eq(before.map(|(name, _)| name.clone())) {
                    return Err(format!("a read at {:?} saw something else", view.version()));
                }
                order.push((call, view.version(), false));
            }
        }
    }
    // By begin; the newest of all that ended before is at least what each must see.
    let mut ends: Vec<(u64, Version)> =
        order.iter().map(|(call, version, _)| (call.ended, *version)).collect();
    ends.sort_by_key(|(ended, _)| *ended);
    order.sort_by_key(|(call, ..)| call.begun);
    let (mut ended, mut newest) = (ends.into_iter().peekable(), Version::default());
    for (call, version, is_write) in order {
        while let Some((_, version)) = ended.next_if(|(ended, _)| *ended < call.begun) {
            newest = newest.max(version);
        }
        let is_after = if is_write { newest < version } else { newest <= version };
        if !is_after {
            return Err(format!("{version:?} began after {newest:?} had ended"));
        }
    }
    Ok(())
}

/// To hunt, say others: `SKEP_HISTORY_SEEDS=11,12,13`.
fn seeds() -> Vec<u64> {
    let given = std::env::var("SKEP_HISTORY_SEEDS").unwrap_or_else(|_| "1".to_owned());
    given.split(',').map(|seed| seed.parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_of_three_members_see_has_one_order_whatever_is_cut() {
    for seed in seeds() {
        tokio::time::timeout(3 * PATIENCE, check(3, seed)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_of_five_members_see_has_one_order_whatever_is_cut() {
    for seed in seeds() {
        tokio::time::timeout(3 * PATIENCE, check(5, seed)).await.unwrap();
    }
}

#[test]
fn a_history_that_has_no_order_is_noticed() {
    let mut view = View::default();
    let mut views = Vec::new();
    for number in 1..=2 {
        let changes = crate::numbered::pair(&view, number);
        view.apply(&changes, Version(number), types::Timestamp::default());
        views.push(view.clone());
    }
    let call = |begun, ended, what| Call { begun, ended, what };
    let written = |number| What::Written { number, version: Version(number) };
    let read = |at: usize| What::Read { view: Box::new(views[at].clone()) };
    let good = [call(0, 1, written(1)), call(2, 5, written(2)), call(3, 4, read(0))];
    assert_eq!(linearizable(&good, &view), Ok(()));
    let stale = [call(0, 1, written(1)), call(2, 3, written(2)), call(4, 5, read(0))];
    assert!(linearizable(&stale, &view).is_err());
    let turned = [call(0, 1, written(2)), call(2, 3, written(1))];
    assert!(linearizable(&turned, &view).is_err());
    let lost = [call(0, 1, written(3))];
    assert!(linearizable(&lost, &view).is_err());
    let refused = [call(0, 1, What::Refused { number: 2 })];
    assert!(linearizable(&refused, &view).is_err());
    assert!(linearizable(&good[..2], &views[0]).is_err());
}
