//! The log of every format that was released is read: its entries, its facts, its snapshot.

use crate::consensus::{Entry, LogId, Member, Record, SnapshotMeta, StoredMembership, Vote};
use crate::disk::{Disk, StoredSnapshot, Write, decode, encode};
use crate::{Alone, Config, open};
use expect_test::expect;
use openraft::{EntryPayload, Membership};
use scope::Scope;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use store::{Change, Changes, Format, Key, Object, Snapshot, View};
use stored::{Stored, samples, text};
use types::{Timestamp, Version};

/// What was released and is never written again.
const FORMER: [(&str, &str); 1] = [("0.1.0-format1", "afd8b94ae728e239")];

/// The entry before the first one in the file.
const PURGED: u64 = 4;

fn id(index: u64) -> LogId {
    LogId::new_term_index(2, index)
}

fn members() -> Membership<u64, Member> {
    let member = Member { address: "192.168.100.2:2377".to_owned() };
    Membership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, member)])).unwrap()
}

fn objects() -> [Object; 5] {
    [
        Object::Cluster(samples::cluster().into()),
        Object::Node(samples::node().into()),
        Object::Network(samples::network().into()),
        Object::Service(samples::service().into()),
        Object::Task(samples::task().into()),
    ]
}

/// Every kind of object is written and removed.
fn changes() -> Changes {
    let gone = [
        Key::Cluster("c0".into()),
        Key::Node("n2".into()),
        Key::Network("net2".into()),
        Key::Service("s2".into()),
        Key::Task("t2".into()),
    ];
    let changes = objects().map(Change::Put).into_iter().chain(gone.map(Change::Remove));
    Changes { changes: changes.collect() }
}

fn record() -> Record {
    let changes = changes();
    let specs = changes.new_specs(&View::default());
    Record { format: Format::PRESENT, changes, specs, time: Timestamp(1_700_000_001_000_000_000) }
}

/// What [`changes`] removes, and what it changes.
fn snapshot() -> Snapshot {
    let others = [
        Object::Node(samples::worker().into()),
        Object::Network(samples::ingress_network().into()),
        Object::Service(samples::global_service().into()),
        Object::Task(samples::other_task().into()),
    ];
    let changes = objects().into_iter().chain(others).map(Change::Put).collect();
    let mut view = View::default();
    view.apply(&Changes { changes }, Version(PURGED), Timestamp(1_700_000_000_000_000_000));
    Snapshot::from(&view)
}

/// The rows of the file, by the names under which they are stored here.
fn rows() -> Vec<(&'static str, Vec<u8>)> {
    let entry = |index, payload| encode(&Entry { log_id: id(index), payload }).unwrap();
    let record = record();
    let meta = SnapshotMeta {
        last_log_id: Some(id(PURGED)),
        last_membership: StoredMembership::new(Some(id(0)), members()),
    };
    let data = encode(&snapshot()).unwrap();
    vec![
        ("entry-5.msgpack", entry(PURGED + 1, EntryPayload::Blank)),
        ("entry-6.msgpack", entry(PURGED + 2, EntryPayload::Membership(members()))),
        ("entry-7.msgpack", entry(PURGED + 3, EntryPayload::Normal(record))),
        ("vote.msgpack", encode(&Vote::new_committed(2, 1)).unwrap()),
        ("purged.msgpack", encode(&id(PURGED)).unwrap()),
        ("snapshot.msgpack", encode(&StoredSnapshot { meta, data }).unwrap()),
    ]
}

/// Puts stored rows into a new file.
fn restore(directory: &Path, rows: &BTreeMap<&str, Vec<u8>>) {
    let (disk, _) = Disk::open(directory).unwrap();
    let writes = rows.iter().map(|(name, row)| match *name {
        "vote.msgpack" => Write::Vote(row.clone()),
        "purged.msgpack" => Write::Purge(PURGED, row.clone()),
        "snapshot.msgpack" => Write::Snapshot(row.clone()),
        entry => {
            let index = entry.trim_matches(|letter: char| !letter.is_ascii_digit());
            Write::Append { index: index.parse().unwrap(), entry: row.clone() }
        }
    });
    disk.commit(writes.collect::<Vec<_>>().iter()).unwrap();
}

#[tokio::test]
async fn logs_of_every_format_are_read() {
    let mut stored = Stored::of(env!("CARGO_MANIFEST_DIR"));
    let mut former: BTreeMap<String, BTreeMap<&str, Vec<u8>>> = BTreeMap::new();
    let mut present = BTreeMap::new();
    for (name, row) in rows() {
        stored.present(name, &row);
        for (format, row) in stored.former(name) {
            former.entry(format).or_default().insert(name, row);
        }
        present.insert(name, row);
    }
    former.insert(stored::PRESENT.to_owned(), present);
    for (format, rows) in former {
        let entry: Entry = decode(&rows["entry-7.msgpack"]).unwrap();
        let EntryPayload::Normal(mut record) = entry.payload else { panic!("it is a record") };
        let snapshot: StoredSnapshot = decode(&rows["snapshot.msgpack"]).unwrap();
        let snapshot: Snapshot = decode(&snapshot.data).unwrap();
        // What the entry makes of the snapshot is what a manager holds that starts on both.
        let mut expected = View::try_from(snapshot).unwrap();
        record.changes.give_specs(&record.specs, &expected).unwrap();
        let restored = Snapshot::from(&expected);
        expected.apply(&record.changes, Version(PURGED + 3), record.time);
        let mut found = opened(&rows).await;
        // It has begun to lead since.
        found.version = expected.version();
        assert_eq!(found, Snapshot::from(&expected));
        if format != stored::PRESENT {
            let read = text(&record.changes) + &text(&record.time);
            stored.reads(&format, "entry-7.msgpack", &read);
            stored.reads(&format, "snapshot.msgpack", &text(&restored));
        }
    }
    stored.finish(&FORMER);
}

/// Why a manager does not start on a file with these rows. The file stays as it was.
async fn refused(rows: &BTreeMap<&str, Vec<u8>>) -> String {
    let directory = tempfile::tempdir().unwrap();
    restore(directory.path(), rows);
    let mut scope = Scope::new();
    let refused = open(Config::new(directory.path()), Alone, &mut scope).await.unwrap_err();
    scope.cancel();
    scope.join().await.unwrap();
    let text = refused.to_string().replace(&directory.path().display().to_string(), "DATA");
    match std::error::Error::source(&refused) {
        Some(source) => format!("{text}: {source}"),
        None => text,
    }
}

#[tokio::test]
async fn what_a_newer_release_has_written_is_refused_and_stays_as_it_is() {
    let rows: BTreeMap<&str, Vec<u8>> = rows().into_iter().collect();
    let with = |name, row: Vec<u8>| {
        let mut rows = rows.clone();
        rows.insert(name, row);
        rows
    };
    let format = Format(Format::PRESENT.0 + 1);
    let record = Record { format, ..record() };
    let payload = EntryPayload::Normal(record);
    let entry = encode(&Entry { log_id: id(7), payload }).unwrap();
    expect!["entry 7 of the log DATA/log.redb has format 3, and this release reads formats up to 2: it was written by a newer release, start that one again (nothing was changed)"].assert_eq(&refused(&with("entry-7.msgpack", entry)).await);
    // A kind of object that is not known, whatever format the record says.
    let entry = replaced(&rows["entry-7.msgpack"], b"\xa7Network", b"\xa7Hamster");
    expect!["cannot read entry 7 of the log DATA/log.redb (a damaged file, or was it written by a newer release?): unknown variant `Hamster`, expected one of `Cluster`, `Node`, `Network`, `Service`, `Task`"].assert_eq(&refused(&with("entry-7.msgpack", entry)).await);
    let entry = replaced(&rows["entry-5.msgpack"], b"\xa5Blank", b"\xa5Blink");
    expect!["cannot read entry 5 of the log DATA/log.redb (a damaged file, or was it written by a newer release?): unknown variant `Blink`, expected one of `Blank`, `Normal`, `Membership`"].assert_eq(&refused(&with("entry-5.msgpack", entry)).await);
    let mut stored: StoredSnapshot = decode(&rows["snapshot.msgpack"]).unwrap();
    let mut newer = snapshot();
    newer.format = format;
    stored.data = encode(&newer).unwrap();
    let snapshot = encode(&stored).unwrap();
    expect!["the snapshot of the log DATA/log.redb has format 3, and this release reads formats up to 2: it was written by a newer release, start that one again (nothing was changed)"].assert_eq(&refused(&with("snapshot.msgpack", snapshot)).await);
}

#[tokio::test]
async fn a_file_of_another_format_is_taken_over_or_refused() {
    let directory = tempfile::tempdir().unwrap();
    restore(directory.path(), &rows().into_iter().collect());
    let format = || Disk::open(directory.path()).map(|(disk, _)| disk.format().unwrap().unwrap());
    let set = |format: Format| {
        let (disk, _) = Disk::open(directory.path()).unwrap();
        disk.note_format(format).unwrap();
    };
    set(Format::default());
    assert_eq!(format().unwrap().unwrap(), Format::PRESENT, "a former release refuses it now");
    set(Format(9));
    let refused = format().unwrap_err().to_string();
    assert!(refused.contains("format 9") && refused.contains("formats up to 2"), "{refused}");
}

fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let at = bytes.windows(old.len()).position(|window| window == old).unwrap();
    [&bytes[..at], new, &bytes[at + old.len()..]].concat()
}

/// All that a manager holds that starts on a file with these rows.
async fn opened(rows: &BTreeMap<&str, Vec<u8>>) -> Snapshot {
    let directory = tempfile::tempdir().unwrap();
    restore(directory.path(), rows);
    let mut scope = Scope::new();
    let sequencer = open(Config::new(directory.path()), Alone, &mut scope).await.unwrap();
    let found = Snapshot::from(&sequencer.view());
    drop(sequencer);
    scope.cancel();
    scope.join().await.unwrap();
    found
}
