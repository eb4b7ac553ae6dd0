//! The order of changes, and what a restart finds.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod numbered;

use numbered::{close, config, holds, node, open, pair, put, snapshot_every};
use raft::{LogContent, LogEntry, Sequencer};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;
use store::{Tx, View};
use types::{Fault, FaultKind, Timestamp, Version};

#[tokio::test]
async fn a_change_is_in_the_view_when_it_is_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let (sequencer, scope) = open(directory.path()).await;
    assert!(sequencer.is_leader());
    let version = put(&sequencer, 1).await.unwrap();
    let view = sequencer.view();
    assert!(holds(&view, 1));
    let meta = view.node(&"n1".into()).unwrap().meta;
    assert_eq!(meta.version, version);
    assert!(meta.created_at.0 > 0);
    close(sequencer, scope).await;
}

#[tokio::test]
async fn the_newest_entries_are_shown_by_what_they_changed() {
    let directory = tempfile::tempdir().unwrap();
    let (sequencer, scope) = open(directory.path()).await;
    put(&sequencer, 1).await.unwrap();
    let last = put(&sequencer, 2).await.unwrap();
    let all = sequencer.tail(100).await.unwrap();
    assert!(matches!(all[0].content, LogContent::Members { .. }), "{all:?}");
    assert!(all.iter().any(|entry| entry.content == LogContent::Term), "{all:?}");
    let newest = sequencer.tail(1).await.unwrap();
    assert_eq!(newest.last(), all.last());
    let [LogEntry { index, term: 1.., content: LogContent::Changes { written, removed, .. } }] =
        &newest[..]
    else {
        panic!("one entry of changes: {newest:?}")
    };
    assert_eq!((*index, removed.len()), (last.0, 0));
    assert_eq!(written.iter().map(store::Key::name).collect::<Vec<_>>(), ["node n2", "network n2"]);
    close(sequencer, scope).await;
}

/// Every closure sees those before it: a counter that each raises by one loses no step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_run_one_after_the_other() {
    const CHANGES: u64 = 500;
    let directory = tempfile::tempdir().unwrap();
    let (sequencer, scope) = open(directory.path()).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..CHANGES {
        let sequencer = sequencer.clone();
        calls.spawn(async move {
            let count = sequencer.sequence(|view, _| {
                let mut tx = Tx::new(view);
                let mut node = view
                    .node(&"counter".into())
                    .map_or_else(|| node("counter"), |node| (**node).clone());
                node.description.nano_cpus += 1;
                tx.put_node(node);
                Ok(tx.finish())
            });
            count.await.unwrap()
        });
    }
    let versions = calls.join_all().await;
    let view = sequencer.view();
    assert_eq!(view.node(&"counter".into()).unwrap().description.nano_cpus, 500);
    let last = versions.iter().max().unwrap();
    assert_eq!(*last, view.version());
    let entries = versions.iter().collect::<std::collections::BTreeSet<_>>().len();
    assert!(entries < 400, "500 changes took {entries} entries: nothing was batched");
    close(sequencer, scope).await;
}

/// More changes at once than there is room for: as many as thousands of nodes report at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_changes_wait_all_come_in_and_the_managers_own_is_among_the_next() {
    const CHANGES: u32 = 3000;
    let directory = tempfile::tempdir().unwrap();
    let (sequencer, scope) = open(directory.path()).await;
    let (begun, decided) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    // The writer is busy until all of them have come.
    let (resume, resumed) = std::sync::mpsc::channel();
    let mut calls = tokio::task::JoinSet::new();
    let first = sequencer.clone();
    calls.spawn(async move {
        let wait = move |view: &View, _| {
            resumed.recv().unwrap();
            Ok(pair(view, 0))
        };
        first.sequence(wait).await
    });
    for number in 1..=CHANGES {
        let (sequencer, begun, decided) =
            (sequencer.clone(), Arc::clone(&begun), Arc::clone(&decided));
        calls.spawn(async move {
            begun.fetch_add(1, Relaxed);
            let change = move |view: &View, _| {
                decided.fetch_add(1, Relaxed);
                let mut tx = Tx::new(view);
                tx.put_node(node(&format!("other{number}")));
                Ok(tx.finish())
            };
            sequencer.sequence(change).await
        });
    }
    while begun.load(Relaxed) < CHANGES {
        tokio::task::yield_now().await;
    }
    let (before, count) = (Arc::new(AtomicU32::new(u32::MAX)), Arc::clone(&decided));
    let (seen, own) = (Arc::clone(&before), sequencer.clone());
    let own = async move {
        let change = move |view: &View, _| {
            seen.store(count.load(Relaxed), Relaxed);
            Ok(pair(view, 1))
        };
        own.sequence_own(change).await
    };
    tokio::pin!(own);
    // It waits, too, before the writer goes on.
    let early = tokio::time::timeout(Duration::ZERO, own.as_mut()).await;
    assert!(early.is_err(), "{early:?}");
    resume.send(()).unwrap();
    own.await.unwrap();
    let before = before.load(Relaxed);
    assert!(before <= 512, "{before} changes of others were decided first");
    for outcome in calls.join_all().await {
        outcome.unwrap();
    }
    assert_eq!(decided.load(Relaxed), CHANGES);
    close(sequencer, scope).await;
}

#[tokio::test]
async fn a_refused_change_fails_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let (sequencer, scope) = open(directory.path()).await;
    let (one, refused, against_the_rules, empty, two) = tokio::join!(
        put(&sequencer, 1),
        sequencer.sequence(|view, _| {
            assert!(holds(view, 1));
            Err(Fault::not_found("no such thing"))
        }),
        // The network of this number has the name of another.
        sequencer.sequence(|view, _| {
            let mut changes = pair(view, 2);
            changes.changes.extend(pair(view, 3).changes.into_iter().map(rename));
            Ok(changes)
        }),
        sequencer.sequence(|_, _| Ok(store::Changes::default())),
        put(&sequencer, 4),
    );
    assert_eq!(refused.unwrap_err(), Fault::not_found("no such thing"));
    assert_eq!(against_the_rules.unwrap_err().kind, FaultKind::Conflict);
    assert_eq!(one, two, "they were one batch");
    assert_eq!(empty, one);
    let view = sequencer.view();
    assert!(holds(&view, 1) && !holds(&view, 2) && !holds(&view, 3) && holds(&view, 4));
    close(sequencer, scope).await;
}

fn rename(change: store::Change) -> store::Change {
    match change {
        store::Change::Put(store::Object::Network(network)) => {
            let mut network = (*network).clone();
            "n2".clone_into(&mut network.spec.name);
            store::Change::Put(store::Object::Network(network.into()))
        }
        other => other,
    }
}

#[tokio::test]
async fn a_restart_finds_all_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (sequencer, scope) = open(directory.path()).await;
    let before = put(&sequencer, 1).await.unwrap();
    let meta = sequencer.view().node(&"n1".into()).unwrap().meta;
    close(sequencer, scope).await;

    let (sequencer, scope) = open(directory.path()).await;
    assert_eq!(sequencer.view().node(&"n1".into()).unwrap().meta, meta);
    assert!(put(&sequencer, 2).await.unwrap() > before);
    close(sequencer, scope).await;
}

/// The log is cut behind a snapshot, and snapshot and rest together are the whole.
#[tokio::test]
async fn a_restart_after_a_snapshot_finds_all() {
    const LAST: u64 = 1200;
    let directory = tempfile::tempdir().unwrap();
    let (sequencer, scope) = open(directory.path()).await;
    snapshot_every(&sequencer, 100).await;
    for number in 0..LAST {
        put(&sequencer, number).await.unwrap();
    }
    let before = store::Snapshot::from(&sequencer.view());
    close(sequencer, scope).await;
    let first = first_entry(&directory.path().join("log.redb"));
    assert!(first > 100, "the log still starts at {first}");

    let (sequencer, scope) = open(directory.path()).await;
    let mut after = store::Snapshot::from(&sequencer.view());
    assert!(after.version > before.version, "a new leader writes an entry of its own");
    after.version = before.version;
    assert_eq!(after, before);
    put(&sequencer, LAST).await.unwrap();
    assert!((0..=LAST).all(|number| holds(&sequencer.view(), number)));
    close(sequencer, scope).await;
}

/// What stays for members that lag, and for operators.
#[tokio::test]
async fn the_cluster_says_what_stays_behind_a_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let (sequencer, scope) = open(directory.path()).await;
    let set = sequencer.sequence(|view, _| {
        let mut cluster = types::Cluster { id: "c1".into(), ..types::Cluster::default() };
        cluster.spec.snapshot_interval = 50;
        cluster.spec.kept_snapshots = 2;
        cluster.spec.kept_entries = 7;
        let mut tx = Tx::new(view);
        tx.put_cluster(cluster);
        Ok(tx.finish())
    });
    set.await.unwrap();
    for number in 0..400 {
        put(&sequencer, number).await.unwrap();
    }
    let snapshots = sequencer.snapshots().await.unwrap();
    assert_eq!(snapshots.len(), 3, "{snapshots:?}");
    assert!(snapshots.is_sorted() && snapshots[0] > 50, "{snapshots:?}");
    close(sequencer, scope).await;
    let first = first_entry(&directory.path().join("log.redb"));
    // The last one may still have been on its way.
    let allowed = snapshots.iter().map(|last| last - 7 + 1).collect::<Vec<_>>();
    assert!(
        allowed[1..].iter().any(|it| first <= *it) && allowed[1] <= first,
        "{first}: {allowed:?}"
    );

    let (sequencer, scope) = open(directory.path()).await;
    assert!((0..400).all(|number| holds(&sequencer.view(), number)));
    close(sequencer, scope).await;
}

fn first_entry(file: &std::path::Path) -> u64 {
    use redb::{ReadableDatabase, ReadableTable};
    let database = redb::Database::open(file).unwrap();
    let read = database.begin_read().unwrap();
    let entries: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("entries");
    let entries = read.open_table(entries).unwrap();
    entries.first().unwrap().unwrap().0.value()
}

/// Few changes may hold a lot: the log does not wait for their number.
#[tokio::test]
async fn large_changes_are_taken_into_a_snapshot_before_there_are_many() {
    let directory = tempfile::tempdir().unwrap();
    let (sequencer, scope) = open(directory.path()).await;
    for number in 0..40_u32 {
        put_large(&sequencer, number, 1 << 20).await.unwrap();
    }
    close(sequencer, scope).await;
    let file = directory.path().join("log.redb");
    assert!(snapshot_bytes(&file).is_some_and(|size| size > 1 << 20), "no snapshot");
    let (sequencer, scope) = open(directory.path()).await;
    assert!(sequencer.view().node(&"large".into()).unwrap().description.hostname.starts_with("39"));
    close(sequencer, scope).await;
}

/// Changes a node whose name then takes so many bytes.
async fn put_large(sequencer: &Sequencer, number: u32, size: usize) -> Result<Version, Fault> {
    let put = sequencer.sequence(move |view, _| {
        let mut tx = Tx::new(view);
        let mut large = node("large");
        large.description.hostname = format!("{number:02}").repeat(size / 2);
        tx.put_node(large);
        Ok(tx.finish())
    });
    put.await
}

/// Octets are stored as they are, not as a list of numbers.
#[tokio::test]
async fn a_snapshot_takes_no_more_bytes_than_what_it_holds() {
    let directory = tempfile::tempdir().unwrap();
    let (sequencer, scope) = open(directory.path()).await;
    put(&sequencer, 1).await.unwrap();
    // Each number above 127 takes two bytes in a list.
    let put = sequencer.sequence(|view, _| {
        let mut tx = Tx::new(view);
        let mut large = node("large");
        large.description.hostname = "\u{ff}".repeat(1 << 19);
        tx.put_node(large);
        Ok(tx.finish())
    });
    put.await.unwrap();
    snapshot_every(&sequencer, 1).await;
    let state = store::Snapshot::from(&sequencer.view());
    let state = msgpack::encode(&state).unwrap().len();
    close(sequencer, scope).await;
    let stored = snapshot_bytes(&directory.path().join("log.redb")).unwrap();
    assert!(stored.abs_diff(state) < 1024, "{stored} bytes hold {state}");
}

const MIB: u64 = 1 << 20;

/// What is written over and over is not what a snapshot has to hold: a manager with room for its
/// state goes on, however much its log holds.
#[tokio::test]
async fn a_small_disk_takes_changes_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let mut scope = scope::Scope::new();
    let free_bytes = |_: &std::path::Path| Ok(40 * MIB);
    let config = raft::Config { free_bytes, ..config(directory.path()) };
    let sequencer = raft::open(config, raft::Alone, &mut scope).await.unwrap();
    for number in 0..40_u32 {
        put_large(&sequencer, number, 1 << 20).await.unwrap();
    }
    put_large(&sequencer, 40, 6 << 20).await.unwrap();
    let fault = put(&sequencer, 1).await.unwrap_err();
    assert!(fault.message.starts_with("this manager's disk is full"), "{fault}");
    close(sequencer, scope).await;
}

fn snapshot_bytes(file: &std::path::Path) -> Option<usize> {
    use redb::ReadableDatabase;
    let database = redb::Database::open(file).unwrap();
    let facts: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("facts");
    let facts = database.begin_read().unwrap().open_table(facts).unwrap();
    facts.get("snapshot").unwrap().map(|bytes| bytes.value().len())
}

#[tokio::test]
async fn the_log_is_for_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("raft");
    let (sequencer, scope) = open(&path).await;
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(path.clone()), mode(path.join("log.redb"))), (0o700, 0o600));
    close(sequencer, scope).await;
}

#[tokio::test]
async fn one_directory_has_one_log() {
    let directory = tempfile::tempdir().unwrap();
    let (sequencer, scope) = open(directory.path()).await;
    let mut second = scope::Scope::new();
    let error = raft::open(config(directory.path()), raft::Alone, &mut second).await.unwrap_err();
    assert!(error.to_string().contains("another daemon"), "{error}");
    close(sequencer, scope).await;
}

#[tokio::test]
async fn a_file_that_is_no_log_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("log.redb"), [7; 5000]).unwrap();
    let mut scope = scope::Scope::new();
    let error = raft::open(config(directory.path()), raft::Alone, &mut scope).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot open the log"), "{error}");
}

#[tokio::test]
async fn a_full_disk_refuses_changes_and_loses_none() {
    let directory = tempfile::tempdir().unwrap();
    let (sequencer, scope) = open(directory.path()).await;
    put(&sequencer, 1).await.unwrap();
    close(sequencer, scope).await;

    let mut scope = scope::Scope::new();
    let config = raft::Config { reserve_bytes: u64::MAX, ..config(directory.path()) };
    let sequencer = raft::open(config, raft::Alone, &mut scope).await.unwrap();
    let fault = put(&sequencer, 2).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unavailable);
    assert!(fault.message.starts_with("this manager's disk is full"), "{fault}");
    assert!(holds(&sequencer.view(), 1) && !holds(&sequencer.view(), 2));
    let nothing = sequencer.sequence(|_, _| Ok(store::Changes::default())).await;
    assert_eq!(nothing, Ok(sequencer.view().version()), "what changes nothing needs no room");
    close(sequencer, scope).await;

    let (sequencer, scope) = open(directory.path()).await;
    assert!(put(&sequencer, 2).await.unwrap() > Version(0));
    assert!(holds(&sequencer.view(), 1) && holds(&sequencer.view(), 2));
    close(sequencer, scope).await;
}

/// What closures are told is what the record says, and a clock that was set back while the manager
/// was away takes nothing back.
#[tokio::test]
async fn the_time_of_records_never_goes_back_over_a_restart() {
    const LATE: Timestamp = Timestamp(4_000_000_000_000_000_000);
    let directory = tempfile::tempdir().unwrap();
    for (round, wall) in
        [(|| LATE) as fn() -> Timestamp, || Timestamp(1_000)].into_iter().enumerate()
    {
        let mut scope = scope::Scope::new();
        let config = raft::Config { wall, ..config(directory.path()) };
        let sequencer = raft::open(config, raft::Alone, &mut scope).await.unwrap();
        assert!(sequencer.now() >= LATE);
        let name = format!("n{round}");
        let put = name.clone();
        let (sender, told) = tokio::sync::oneshot::channel();
        let write = sequencer.sequence(move |view, time| {
            sender.send(time).unwrap();
            let mut tx = Tx::new(view);
            tx.put_node(node(&put));
            Ok(tx.finish())
        });
        write.await.unwrap();
        let meta = sequencer.view().node(&name.as_str().into()).unwrap().meta;
        assert!(meta.updated_at >= LATE, "round {round}: {meta:?}");
        assert_eq!(meta.updated_at, told.await.unwrap());
        if round == 0 {
            // The time is kept by a snapshot as well.
            snapshot_every(&sequencer, 1).await;
        }
        close(sequencer, scope).await;
    }
}

#[tokio::test]
async fn a_new_log_begins_with_a_state_from_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let (sequencer, scope) = open(directory.path()).await;
    let mut version = Version(0);
    for number in 0..10 {
        version = put(&sequencer, number).await.unwrap();
    }
    let state = raft::write_state(&sequencer.view()).unwrap();
    close(sequencer, scope).await;
    let other = tempfile::tempdir().unwrap();
    let there = |start| raft::Config { member: 4, start, ..config(other.path()) };
    let view = raft::read_state(&state).unwrap();
    raft::restore(&there(raft::Start::Resume), view.clone()).await.unwrap();
    assert!(raft::restore(&there(raft::Start::Resume), view).await.is_err(), "it has one now");
    let mut scope = scope::Scope::new();
    let resumed = raft::open(there(raft::Start::Resume), raft::Alone, &mut scope).await.unwrap();
    assert!((0..10).all(|number| holds(&resumed.view(), number)));
    assert!(version < put(&resumed, 10).await.unwrap(), "versions go on");
    close(resumed, scope).await;
}
