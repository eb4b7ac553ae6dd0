//! The file of the log: entries, the vote and the last snapshot, in one redb database.
//!
//! Everything here blocks; `log` says on which thread it runs.

use crate::consensus::{Entry, LogId, SnapshotMeta, Vote};
use crate::machine::decode_state;
use crate::{FIRST_MEMBER, RaftError};
use openraft::EntryPayload;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use store::{Format, View};

/// By index of the log.
const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");
/// By name: `vote`, `purged`, `committed`, `snapshot`, `format`, `member`.
const FACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts");

const FILE: &str = "log.redb";
/// Most reads are answered from memory: the file is read when a manager starts.
const CACHE_BYTES: usize = 16 << 20;

/// One step of a write. Doing a step again changes nothing.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    Append {
        index: u64,
        entry: Vec<u8>,
    },
    Vote(Vec<u8>),
    /// Forget the entries from this index on.
    Truncate(u64),
    /// Forget the entries up to and with this index; the bytes are its log id.
    Purge(u64, Vec<u8>),
    /// Most members are known to have the entries up to and with this log id.
    Committed(Vec<u8>),
    Snapshot(Vec<u8>),
}

/// A snapshot as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredSnapshot {
    pub(crate) meta: SnapshotMeta,
    #[serde(with = "types::octets")]
    pub(crate) data: Vec<u8>,
}

/// What the file says when it is opened.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    pub(crate) last: Option<LogId>,
    pub(crate) committed: Option<LogId>,
    pub(crate) snapshot: Option<FoundSnapshot>,
    /// Bytes of the entries that the snapshot does not cover.
    pub(crate) uncovered: u64,
}

impl Found {
    fn is_empty(&self) -> bool {
        self.vote.is_none() && self.last.is_none() && self.snapshot.is_none()
    }
}

/// The last snapshot.
#[derive(Debug)]
pub(crate) struct FoundSnapshot {
    pub(crate) meta: SnapshotMeta,
    pub(crate) view: View,
    pub(crate) bytes: u64,
}

/// The format that a record or a snapshot says, whatever else there is in it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    format: Format,
}

/// An entry as far as it is understood of whatever release: its place, and the format of a record.
#[derive(Deserialize)]
struct Placed {
    log_id: LogId,
}

#[derive(Deserialize)]
struct Formatted {
    payload: Payload,
}

/// As the consensus library writes it.
#[derive(Deserialize)]
enum Payload {
    Blank,
    Normal(Said),
    Membership(IgnoredAny),
}

#[derive(Debug)]
pub(crate) struct Disk {
    database: Database,
}

impl Disk {
    /// Opens the log in `directory`, or makes a new one, and says what is in it. What a newer
    /// release has written is refused, and stays as it is.
    pub(crate) fn open(directory: &Path) -> Result<(Self, Found), RaftError> {
        let prepared = prepare(directory)
            .map_err(|source| RaftError::Directory { path: directory.to_owned(), source })?;
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(&prepared)
            .map_err(|error| failed(&prepared, error))?;
        let disk = Self { database };
        let wrong = |source| RaftError::Open { path: prepared.clone(), source: Box::new(source) };
        let format = disk.format().map_err(wrong)?;
        if let Some(format) = format {
            let format = format.map_err(|source| unreadable(&prepared, "the format", source))?;
            check(&prepared, "the file", format)?;
        }
        disk.prepare().map_err(wrong)?;
        let found = disk.find(&prepared)?;
        disk.note_format(Format::PRESENT).map_err(wrong)?;
        Ok((disk, found))
    }

    /// What the file says of its format; `None`: it is new.
    pub(crate) fn format(&self) -> Result<Option<io::Result<Format>>, redb::Error> {
        let facts = match self.database.begin_read()?.open_table(FACTS) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            facts => facts?,
        };
        Ok(facts.get("format")?.map(|bytes| decode(bytes.value())))
    }

    /// Makes the tables of a new file.
    fn prepare(&self) -> Result<(), redb::Error> {
        let write = self.database.begin_write()?;
        write.open_table(ENTRIES)?;
        write.open_table(FACTS)?;
        Ok(write.commit()?)
    }

    /// A former release refuses the file from here on.
    pub(crate) fn note_format(&self, format: Format) -> Result<(), redb::Error> {
        self.note("format", &encode(&format).unwrap_or_default())
    }

    fn note(&self, name: &str, fact: &[u8]) -> Result<(), redb::Error> {
        let write = self.database.begin_write()?;
        write.open_table(FACTS)?.insert(name, fact)?;
        Ok(write.commit()?)
    }

    /// Makes sure that this is the log of `member`: another member's copy would vote in its name.
    /// Says whether it was made just now.
    pub(crate) fn claim(&self, path: &Path, member: u64, found: &Found) -> Result<bool, RaftError> {
        let wrong = |source| RaftError::Open { path: path.to_owned(), source: Box::new(source) };
        let noted = self.member().map_err(wrong)?.transpose().map_err(RaftError::Read)?;
        let is_new = noted.is_none() && found.is_empty();
        // Before several members there was one.
        let holder = noted.unwrap_or(if is_new { member } else { FIRST_MEMBER });
        if holder != member {
            return Err(RaftError::Member { path: path.to_owned(), holder, member });
        }
        if noted.is_none() {
            let member = encode(&member).map_err(RaftError::Read)?;
            self.note("member", &member).map_err(wrong)?;
        }
        Ok(is_new)
    }

    fn member(&self) -> Result<Option<io::Result<u64>>, redb::Error> {
        let facts = self.database.begin_read()?.open_table(FACTS)?;
        Ok(facts.get("member")?.map(|bytes| decode(bytes.value())))
    }

    /// Reads what was there before. All that a manager will start from has to be understood: later
    /// it would stop half-way.
    fn find(&self, path: &Path) -> Result<Found, RaftError> {
        let read = self.database.begin_read().map_err(|error| failed(path, error))?;
        let facts = read.open_table(FACTS).map_err(|error| failed(path, error))?;
        let entries = read.open_table(ENTRIES).map_err(|error| failed(path, error))?;
        let purged = fact(&facts, "purged").map_err(RaftError::Read)?;
        let last = match entries.last().map_err(|error| failed(path, error))? {
            Some((_, bytes)) => {
                Some(decode::<Placed>(bytes.value()).map_err(RaftError::Read)?.log_id)
            }
            None => purged,
        };
        let stored = fact(&facts, "snapshot").map_err(RaftError::Read)?;
        let snapshot = stored.map(|stored| read_snapshot(path, stored)).transpose()?;
        let covered = snapshot.as_ref().and_then(|snapshot| snapshot.meta.last_log_id);
        let vote = fact(&facts, "vote").map_err(RaftError::Read)?;
        let committed = fact(&facts, "committed").map_err(RaftError::Read)?;
        let mut found = Found { vote, purged, last, committed, snapshot, uncovered: 0 };
        let uncovered_from = covered.map_or(0, |id| id.index + 1);
        for row in entries.range(uncovered_from..).map_err(|error| failed(path, error))? {
            let (index, entry) = row.map_err(|error| failed(path, error))?;
            check_entry(path, &format!("entry {}", index.value()), entry.value())?;
            found.uncovered += bytes(entry.value());
        }
        Ok(found)
    }

    /// The entries from `start` up to, and without, `end`; fewer, but at least one, where they have
    /// more than `limit` bytes.
    pub(crate) fn entries(&self, start: u64, end: u64, limit: u64) -> io::Result<Vec<Entry>> {
        let read = self.database.begin_read().map_err(io::Error::other)?;
        let rows = read.open_table(ENTRIES).map_err(io::Error::other)?;
        let (mut entries, mut size) = (Vec::new(), 0_u64);
        for row in rows.range(start..end).map_err(io::Error::other)? {
            let row = row.map_err(io::Error::other)?.1;
            size = size.saturating_add(bytes(row.value()));
            if limit < size && !entries.is_empty() {
                break;
            }
            entries.push(decode(row.value())?);
        }
        Ok(entries)
    }

    pub(crate) fn snapshot(&self) -> io::Result<Option<StoredSnapshot>> {
        let read = self.database.begin_read().map_err(io::Error::other)?;
        fact(&read.open_table(FACTS).map_err(io::Error::other)?, "snapshot")
    }

    /// Makes `writes` so, all or none; they are on disk when this returns.
    pub(crate) fn commit<'a>(&self, writes: impl Iterator<Item = &'a Write>) -> io::Result<()> {
        self.try_commit(writes).map_err(|error| match error {
            redb::Error::Io(error) => error,
            error => io::Error::other(error),
        })
    }

    fn try_commit<'a>(&self, writes: impl Iterator<Item = &'a Write>) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut entries = transaction.open_table(ENTRIES)?;
            let mut facts = transaction.open_table(FACTS)?;
            for write in writes {
                match write {
                    Write::Append { index, entry } => {
                        entries.insert(index, entry.as_slice())?;
                    }
                    Write::Vote(vote) => {
                        facts.insert("vote", vote.as_slice())?;
                    }
                    Write::Truncate(from) => entries.retain_in::<u64, _>(from.., |_, _| false)?,
                    Write::Purge(upto, id) => {
                        entries.retain_in::<u64, _>(..=upto, |_, _| false)?;
                        facts.insert("purged", id.as_slice())?;
                    }
                    Write::Committed(id) => {
                        facts.insert("committed", id.as_slice())?;
                    }
                    Write::Snapshot(snapshot) => {
                        facts.insert("snapshot", snapshot.as_slice())?;
                    }
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

fn check(path: &Path, what: &str, found: Format) -> Result<(), RaftError> {
    if found.is_known() {
        return Ok(());
    }
    let (path, what) = (path.to_owned(), what.to_owned());
    Err(RaftError::Format { path, what, found, known: Format::PRESENT })
}

/// Refuses a snapshot of a newer format, and one that cannot be read.
fn read_snapshot(path: &Path, stored: StoredSnapshot) -> Result<FoundSnapshot, RaftError> {
    let StoredSnapshot { meta, data } = stored;
    let what = "the snapshot";
    let format = format_of(&data).map_err(|source| unreadable(path, what, source))?;
    check(path, what, format)?;
    let view = decode_state(&data).map_err(|source| unreadable(path, what, source))?;
    Ok(FoundSnapshot { meta, view, bytes: bytes(&data) })
}

/// Refuses an entry of a newer format, and one that says things that are not known.
fn check_entry(path: &Path, what: &str, entry: &[u8]) -> Result<(), RaftError> {
    match decode::<Entry>(entry).map(|entry| entry.payload) {
        Ok(EntryPayload::Normal(record)) => check(path, what, record.format),
        Ok(EntryPayload::Blank | EntryPayload::Membership(_)) => Ok(()),
        Err(source) => {
            // That it is of a newer format says more than what of it is not known.
            if let Ok(Formatted { payload: Payload::Normal(said) }) = decode(entry) {
                check(path, what, said.format)?;
            }
            Err(unreadable(path, what, source))
        }
    }
}

fn unreadable(path: &Path, what: &str, source: io::Error) -> RaftError {
    RaftError::Unreadable { path: path.to_owned(), what: what.to_owned(), source }
}

fn failed(path: &Path, error: impl Into<redb::Error>) -> RaftError {
    RaftError::Open { path: path.to_owned(), source: Box::new(error.into()) }
}

/// Makes directory and file for the owner's eyes only.
fn prepare(directory: &Path) -> io::Result<PathBuf> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    std::fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    let path = directory.join(FILE);
    let file =
        OpenOptions::new().create(true).truncate(false).append(true).mode(0o600).open(&path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(path)
}

fn fact<T: DeserializeOwned>(
    facts: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
) -> io::Result<Option<T>> {
    let bytes = facts.get(name).map_err(io::Error::other)?;
    bytes.map(|bytes| decode(bytes.value())).transpose()
}

/// The format of the state that these are.
pub(crate) fn format_of(data: &[u8]) -> io::Result<Format> {
    decode(data).map(|said: Said| said.format)
}

/// How many bytes these are.
pub(crate) fn bytes(data: &[u8]) -> u64 {
    u64::try_from(data.len()).unwrap_or(u64::MAX)
}

pub(crate) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    msgpack::encode(value).map_err(io::Error::other)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    msgpack::decode(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::StoredMembership;
    use types::{Task, Timestamp, Version};

    /// Of a view with one task, and without what that is made from.
    fn unreadable_snapshot() -> StoredSnapshot {
        let mut tx = store::Tx::new(&View::default());
        tx.put(Task { id: "t".into(), ..Task::default() });
        let mut view = View::default();
        view.apply(&tx.finish(), Version(4), Timestamp(4));
        let mut snapshot = store::Snapshot::from(&view);
        snapshot.specs = types::Specs::default();
        let last_log_id = Some(LogId::new_term_index(1, 4));
        let meta = SnapshotMeta { last_log_id, last_membership: StoredMembership::default() };
        StoredSnapshot { meta, data: encode(&snapshot).unwrap() }
    }

    #[test]
    fn a_file_whose_snapshot_cannot_be_read_stays_as_a_former_release_left_it() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, _) = Disk::open(directory.path()).unwrap();
        let snapshot = Write::Snapshot(encode(&unreadable_snapshot()).unwrap());
        disk.commit([&snapshot].into_iter()).unwrap();
        disk.note_format(Format::default()).unwrap();
        drop(disk);
        let refused = Disk::open(directory.path()).unwrap_err().to_string();
        assert!(refused.starts_with("cannot read the snapshot of the log"), "{refused}");
        let disk = Disk { database: Database::open(directory.path().join(FILE)).unwrap() };
        assert_eq!(disk.format().unwrap().unwrap().unwrap(), Format::default());
    }
}
