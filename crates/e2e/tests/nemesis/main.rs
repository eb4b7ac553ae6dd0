//! Five managers to which bad things happen, and clients who see whether anything is lost.
//!
//! `SKEP_NEMESIS_SECONDS=900 SKEP_NEMESIS_SEED=7 cargo nextest run -p e2e --test nemesis` makes it
//! longer, or another one. The history is kept in `target/nemesis`, with what was done to whom;
//! `SKEP_HISTORY=FILE cargo nextest run -p e2e --test nemesis --run-ignored only again` checks one again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod chance;
mod client;
mod clock;
mod disk;
mod fault;
mod strike;
mod watch;

use chance::Chance;
use client::{Book, Client, REGISTERS};
use disk::{SMALL, SmallDisk};
use e2e::history::{self, Call, Outcome, What};
use e2e::{Lab, until};
use fault::{Fault, all_are_there, leader, set_snapshots};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use strike::strike;
use watch::Watches;

const MANAGERS: u8 = 5;
const CLIENTS: u64 = 5;
/// The log is replaced by a snapshot after so many entries, and so many stay, so that members that were
/// away get one.
const SNAPSHOTS: (u64, u64) = (25, 10);

fn given(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect(name))
}

#[test]
fn whatever_happens_to_managers_what_they_said_holds() {
    let seed = given("SKEP_NEMESIS_SEED", 1);
    let storm = Duration::from_secs(given("SKEP_NEMESIS_SECONDS", 45));
    let path = kept(seed);
    let book = Book::open(&path);
    let lab = Lab::with_managers(MANAGERS, MANAGERS, &[]);
    all_are_there(&lab, 1, MANAGERS);
    let small = SmallDisk::under(&lab);
    all_are_there(&lab, 1, MANAGERS);
    clock::give(&lab);
    all_are_there(&lab, 1, MANAGERS);
    set_snapshots(&lab, 1, SNAPSHOTS).unwrap();
    (0..REGISTERS).for_each(|register| client::create(&lab, register));
    let watches = Watches::start(&lab, MANAGERS);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 1..=CLIENTS {
            let (client, stop) = (Client::new(&lab, &book, number), &stop);
            let chance = Chance::new(seed.wrapping_mul(1_000) + number);
            scope.spawn(move || client.run(chance, MANAGERS, stop));
        }
        // Clients end with the storm, however that ends.
        let followed = (&book, &watches);
        let rage = AssertUnwindSafe(|| rage((&lab, &small), followed, (seed, storm)));
        let ended = std::panic::catch_unwind(rage);
        stop.store(true, Ordering::Relaxed);
        if let Err(why) = ended {
            std::panic::resume_unwind(why);
        }
    });
    all_are_there(&lab, 1, MANAGERS);
    agree(&lab, &book);
    watches.check(&book);
    let calls = history::read(&std::fs::read_to_string(&path).unwrap()).unwrap();
    tell(&calls);
    history::check(&calls).unwrap_or_else(|why| panic!("{why}\nin {}", path.display()));
    drop(small);
    let left = lab.down();
    assert!(left.is_empty(), "{left:#?}");
}

/// Where the history of a seed is kept.
fn kept(seed: u64) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../target/nemesis/history-{seed}.txt"))
}

/// One fault after the other, or two at once; each kind comes before any comes again.
#[expect(clippy::disallowed_methods, reason = "tests measure real time")]
fn rage(
    (lab, disk): (&Lab, &SmallDisk),
    (book, watches): (&Book, &Watches),
    (seed, storm): (u64, Duration),
) {
    let mut chance = Chance::new(seed);
    let mut deck = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < storm {
        if deck.is_empty() {
            deck = Fault::ALL.to_vec();
        }
        let at = usize::try_from(chance.below(deck.len() as u64)).unwrap();
        let fault = deck.swap_remove(at);
        let victim = victim(lab, &mut chance);
        watches.move_on();
        if strike(fault, (lab, disk), book, (victim, &mut chance)) {
            continue;
        }
        let victim = if fault == Fault::Full { SMALL } else { victim };
        let mut faults = vec![(victim, fault)];
        if chance.below(3) == 0 {
            faults.push((1 + victim % MANAGERS, Fault::Kill));
        }
        for (node, fault) in &faults {
            book.tell(format!("{fault:?} node-{node}"));
            fault.begin(lab, *node);
        }
        std::thread::sleep(chance.millis(500, 5_000));
        for (node, fault) in faults.iter().rev() {
            fault.end(lab, *node);
            book.tell(format!("{fault:?} node-{node} is over"));
        }
        std::thread::sleep(chance.millis(100, 3_000));
    }
}

/// Mostly the one that leads.
fn victim(lab: &Lab, chance: &mut Chance) -> u8 {
    let node = chance.node(MANAGERS);
    let is_leader = chance.below(5) < 3;
    if is_leader { leader(lab, node).unwrap_or(node) } else { node }
}

/// Every manager takes writes again, and all show the same.
fn agree(lab: &Lab, book: &Book) {
    let mut client = Client::new(lab, book, CLIENTS + 1);
    for node in 1..=MANAGERS {
        until(&format!("node-{node} takes a write"), Duration::from_secs(30), || {
            let seen = client.read(0, node).ok_or("no answer")?;
            match client.write(0, &seen, node) {
                Outcome::Done => Ok(()),
                Outcome::Refused | Outcome::Unknown => Err("not done".to_owned()),
            }
        });
    }
    for register in 0..REGISTERS {
        let read = |node| client.read(register, node).map(|seen| seen.value);
        let values: Vec<_> = (1..=MANAGERS).map(read).collect();
        assert!(values.iter().all(|it| it.is_some() && *it == values[0]), "{values:?}");
    }
}

#[expect(clippy::print_stdout, reason = "what the history has")]
fn tell(calls: &[Call]) {
    let count = |which: fn(What) -> bool| calls.iter().filter(|call| which(call.what)).count();
    let reads = count(|what| matches!(what, What::Read(_)));
    let done = count(|what| matches!(what, What::Write { outcome: Outcome::Done, .. }));
    let refused = count(|what| matches!(what, What::Write { outcome: Outcome::Refused, .. }));
    let unknown = count(|what| matches!(what, What::Write { outcome: Outcome::Unknown, .. }));
    let mut ends: Vec<u64> = calls.iter().filter(|it| it.is_done()).map(|it| it.ended).collect();
    ends.sort_unstable();
    let pause = ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0) / 1000;
    println!(
        "{reads} reads, {done} writes done, {refused} refused, {unknown} with unknown outcome; \
         the longest time without a write was {pause} ms"
    );
    assert!(done > 20 && reads > 20, "too little was done to say anything");
}

#[test]
#[ignore = "checks a history that was kept"]
fn a_history_that_was_kept_is_checked_again() {
    let path = std::env::var("SKEP_HISTORY").expect("SKEP_HISTORY names a file");
    let calls = history::read(&std::fs::read_to_string(&path).unwrap()).unwrap();
    tell(&calls);
    history::check(&calls).unwrap();
}

/// How long it is from the death of the leader until a write is done that was asked for just then.
#[test]
#[ignore = "a measure"]
#[expect(clippy::disallowed_methods, reason = "it is measured here")]
fn measure_of_a_killed_leader() {
    let book = Book::open(&kept(0));
    let lab = Lab::with_managers(3, 3, &[]);
    all_are_there(&lab, 1, 3);
    client::create(&lab, 0);
    let mut client = Client::new(&lab, &book, 1);
    for fault in [Fault::Kill, Fault::Restart] {
        let mut times = Vec::new();
        for round in 0..20 {
            let lost = leader(&lab, 1).unwrap();
            let asked = 1 + (lost + round % 2) % 3;
            let seen = client.read(0, asked).unwrap();
            let begun = Instant::now();
            fault.begin(&lab, lost);
            let outcome = client.write(0, &seen, asked);
            times.push(begun.elapsed());
            assert_eq!(outcome, Outcome::Done, "round {round}");
            fault.end(&lab, lost);
            all_are_there(&lab, lost, 3);
        }
        times.sort();
        println!("{fault:?}: median {:?}, worst {:?}", times[10], times[19]);
    }
}
