//! The log of every format that was released is read: its entries, its facts, its snapshot.

use crate::consensus::{Entry, LogId, Member, Record, SnapshotMeta, StoredMembership, Vote};
use crate::disk::{Disk, Keys, StoredSnapshot, Write, decode, encode};
use crate::sealed::Rows;
use crate::{Alone, Config, RaftError, open, sealed};
use expect_test::expect;
use openraft::{EntryPayload, Membership};
use scope::Scope;
use seal::Seal;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use store::{Change, Changes, Format, Key, Object, Snapshot, Tx, View};
use stored::{Stored, samples, text};
use types::{Cluster, Task, Timestamp, Version};

/// What was released and is never written again.
const FORMER: [(&str, &str); 1] = [("0.1.0-format1", "afd8b94ae728e239")];

/// The entry before the first one in the file.
const PURGED: u64 = 4;

/// Of a record and a snapshot.
const A_WORD: &[u8] = b"certificate";

fn keys() -> Keys {
    seal::Key::from([7; 32]).into()
}

fn id(index: u64) -> LogId {
    LogId::new_term_index(2, index)
}

fn members() -> Membership<u64, Member> {
    let member = Member { address: "192.168.100.2:2377".to_owned() };
    Membership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, member)])).unwrap()
}

fn objects() -> [Object; 7] {
    [
        Object::Cluster(samples::cluster().into()),
        Object::Node(samples::node().into()),
        Object::Network(samples::network().into()),
        Object::Service(samples::service().into()),
        Object::Task(samples::task().into()),
        Object::Secret(samples::secret().into()),
        Object::Config(samples::config().into()),
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
        Key::Secret("secret2".into()),
        Key::Config("config2".into()),
    ];
    let changes = objects().map(Change::Put).into_iter().chain(gone.map(Change::Remove));
    Changes { changes: changes.collect() }
}

fn record() -> Record {
    let changes = changes();
    let specs = changes.new_specs(&View::default());
    let time = Timestamp(1_700_000_001_000_000_000);
    Record { format: Format::PRESENT, changes, specs, time, leader: 1 }
}

/// What [`changes`] removes, and what it changes.
fn snapshot() -> Snapshot {
    let others = [
        Object::Node(samples::worker().into()),
        Object::Network(samples::ingress_network().into()),
        Object::Service(samples::global_service().into()),
        Object::Task(samples::other_task().into()),
        Object::Service(samples::job().into()),
        Object::Task(samples::job_task().into()),
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

type Restore = fn(&Path, &BTreeMap<&str, Vec<u8>>);

/// Puts stored rows into a new file.
fn restore(directory: &Path, rows: &BTreeMap<&str, Vec<u8>>) {
    let (disk, _) = Disk::open(directory, &keys()).unwrap();
    let writes = rows.iter().map(|(name, row)| match *name {
        "vote.msgpack" => Write::Vote(row.clone()),
        "purged.msgpack" => Write::Purge(PURGED, row.clone()),
        "snapshot.msgpack" => Write::Snapshot { whole: row.clone(), keep: 0 },
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
        expected.led_by(record.leader, Version(PURGED + 3), record.time);
        let is_former = format != stored::PRESENT;
        let mut found = opened(&rows, if is_former { restore_clear } else { restore }).await;
        // It has begun to lead since.
        found.version = expected.version();
        assert_eq!(found, Snapshot::from(&expected));
        if is_former {
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
    let refused = open(Config::new(directory.path(), keys()), Alone, &mut scope).await.unwrap_err();
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
    expect!["entry 7 of the log DATA/log.redb has format 4, and this release reads formats up to 3: it was written by a newer release, start that one again (nothing was changed)"].assert_eq(&refused(&with("entry-7.msgpack", entry)).await);
    // A kind of object that is not known, whatever format the record says.
    let entry = replaced(&rows["entry-7.msgpack"], b"\xa7Network", b"\xa7Hamster");
    expect!["cannot read entry 7 of the log DATA/log.redb (a damaged file, or was it written by a newer release?): unknown variant `Hamster`, expected one of `Cluster`, `Node`, `Network`, `Service`, `Task`, `Secret`, `Config`"].assert_eq(&refused(&with("entry-7.msgpack", entry)).await);
    let entry = replaced(&rows["entry-5.msgpack"], b"\xa5Blank", b"\xa5Blink");
    expect!["cannot read entry 5 of the log DATA/log.redb (a damaged file, or was it written by a newer release?): unknown variant `Blink`, expected one of `Blank`, `Normal`, `Membership`"].assert_eq(&refused(&with("entry-5.msgpack", entry)).await);
    let mut stored: StoredSnapshot = decode(&rows["snapshot.msgpack"]).unwrap();
    let mut newer = snapshot();
    newer.format = format;
    stored.data = encode(&newer).unwrap();
    let snapshot = encode(&stored).unwrap();
    expect!["the snapshot of the log DATA/log.redb has format 4, and this release reads formats up to 3: it was written by a newer release, start that one again (nothing was changed)"].assert_eq(&refused(&with("snapshot.msgpack", snapshot)).await);
}

#[tokio::test]
async fn a_file_of_another_format_is_taken_over_or_refused() {
    let directory = tempfile::tempdir().unwrap();
    restore(directory.path(), &rows().into_iter().collect());
    let format = || {
        let (disk, _) = Disk::open(directory.path(), &keys())?;
        drop(disk);
        let file = sealed::open(&directory.path().join("log.redb")).unwrap();
        Ok::<_, RaftError>(decode::<Format>(&sealed::format(&file).unwrap().unwrap()).unwrap())
    };
    let set = |format: Format| {
        let (disk, _) = Disk::open(directory.path(), &keys()).unwrap();
        disk.note_format(format).unwrap();
    };
    set(Format::default());
    assert_eq!(
        format().unwrap(),
        Format::LEAST,
        "the release before reads it, one before that does not"
    );
    set(Format(9));
    let refused = format().unwrap_err().to_string();
    assert!(refused.contains("format 9") && refused.contains("formats up to 3"), "{refused}");
}

/// Puts stored rows into a new file as former releases did, in the clear.
fn restore_clear(directory: &Path, rows: &BTreeMap<&str, Vec<u8>>) {
    let database = redb::Database::create(directory.join("log.redb")).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut entries = write.open_table(sealed::ENTRIES).unwrap();
        let mut facts = write.open_table(sealed::FACTS).unwrap();
        facts.insert("format", encode(&Format::default()).unwrap().as_slice()).unwrap();
        for (name, row) in rows {
            let name = name.trim_end_matches(".msgpack");
            match name.strip_prefix("entry-") {
                Some(index) => drop(entries.insert(index.parse::<u64>().unwrap(), row.as_slice())),
                None => drop(facts.insert(name, row.as_slice())),
            }
        }
    }
    write.commit().unwrap();
}

fn file(directory: &Path) -> Vec<u8> {
    std::fs::read(directory.join("log.redb")).unwrap()
}

fn holds(file: &[u8], word: &[u8]) -> bool {
    file.windows(word.len()).any(|window| window == word)
}

#[tokio::test]
async fn a_log_in_the_clear_is_taken_over_and_nothing_of_it_can_be_read_any_more() {
    let directory = tempfile::tempdir().unwrap();
    restore_clear(directory.path(), &rows().into_iter().collect());
    assert!(holds(&file(directory.path()), A_WORD));
    let first = opened_in(directory.path(), keys()).await;
    assert!(!holds(&file(directory.path()), A_WORD));
    let names: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let mut second = opened_in(directory.path(), keys()).await;
    second.version = first.version;
    assert_eq!(second, first);
    let refused = Disk::open(directory.path(), &seal::Key::draw().into()).unwrap_err().to_string();
    assert!(refused.contains("another key"), "{refused}");
}

#[tokio::test]
async fn the_key_of_a_log_is_changed_while_it_is_open_and_while_it_is_not() {
    let directory = tempfile::tempdir().unwrap();
    restore(directory.path(), &rows().into_iter().collect());
    let mut first = opened_in(directory.path(), keys()).await;
    let mut same = |mut found: Snapshot| {
        (found.version, first.version) = (Version(0), Version(0));
        assert_eq!(found, first);
    };
    // It was not known whether the log was sealed by the new key already.
    let new = seal::Key::from([8; 32]);
    let both = Keys { present: new.clone(), former: Some(seal::Key::from([7; 32])) };
    same(opened_in(directory.path(), both.clone()).await);
    same(opened_in(directory.path(), both).await);
    let mut scope = Scope::new();
    let config = Config::new(directory.path(), new.clone());
    let sequencer = open(config, Alone, &mut scope).await.unwrap();
    let newest = seal::Key::from([9; 32]);
    sequencer.reseal(newest.clone()).await.unwrap();
    // Entries are read and written as before.
    let changes = Changes::default();
    sequencer.sequence(move |_, _| Ok(changes)).await.unwrap();
    drop(sequencer);
    scope.cancel();
    scope.join().await.unwrap();
    assert!(matches!(Disk::open(directory.path(), &new.into()), Err(RaftError::Sealed { .. })));
    same(opened_in(directory.path(), newest.into()).await);
}

fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let at = bytes.windows(old.len()).position(|window| window == old).unwrap();
    [&bytes[..at], new, &bytes[at + old.len()..]].concat()
}

/// All that a manager holds that starts on a file with these rows.
async fn opened(rows: &BTreeMap<&str, Vec<u8>>, restore: Restore) -> Snapshot {
    let directory = tempfile::tempdir().unwrap();
    restore(directory.path(), rows);
    opened_in(directory.path(), keys()).await
}

async fn opened_in(directory: &Path, keys: Keys) -> Snapshot {
    let mut scope = Scope::new();
    let sequencer = open(Config::new(directory, keys), Alone, &mut scope).await.unwrap();
    let found = Snapshot::from(&sequencer.view());
    drop(sequencer);
    scope.cancel();
    scope.join().await.unwrap();
    found
}

/// What a hundred tasks are made from is written once, in entries and in snapshots, and a restart
/// finds it by either.
#[tokio::test]
async fn a_restart_finds_what_tasks_are_made_from() {
    const IMAGE: &str = "registry.example.com/an/image/of/a/certain/length";
    for interval in [100, 1] {
        let directory = tempfile::tempdir().unwrap();
        let mut scope = Scope::new();
        let config = Config::new(directory.path(), keys());
        let sequencer = open(config, Alone, &mut scope).await.unwrap();
        for round in 0..2 {
            let put = sequencer.sequence(move |view, _| {
                let mut tx = Tx::new(view);
                let mut cluster = Cluster { id: "c1".into(), ..Cluster::default() };
                cluster.spec.snapshot_interval = interval;
                tx.put_cluster(cluster);
                for number in 0..50 {
                    let id = format!("t{round}{number}").into();
                    let mut task = Task { id, ..Task::default() };
                    IMAGE.clone_into(&mut task.spec.container.image);
                    tx.put(task);
                }
                Ok(tx.finish())
            });
            put.await.unwrap();
        }
        drop(sequencer);
        scope.cancel();
        scope.join().await.unwrap();
        let found = View::try_from(opened_in(directory.path(), keys()).await).unwrap();
        assert_eq!(found.tasks().len(), 100);
        assert!(found.tasks().all(|task| task.spec.container.image == IMAGE));
        let file = sealed::open(&directory.path().join("log.redb")).unwrap();
        let seal = Seal::new(&keys().present);
        let rows = Rows::begin(&file, Some(&seal)).unwrap();
        let entries = rows.entries(..).unwrap().map(|row| row.unwrap().1);
        let rows = entries.chain(rows.fact("snapshot").unwrap());
        let count =
            |row: Vec<u8>| row.windows(IMAGE.len()).filter(|it| *it == IMAGE.as_bytes()).count();
        // The entry, and the snapshot.
        assert!((1..=2).contains(&rows.map(count).sum::<usize>()));
    }
}
