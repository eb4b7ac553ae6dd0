//! The file of the log: entries, the vote and the last snapshot, in one redb database. How they are
//! written there, `sealed` says.
//!
//! Everything here blocks; `log` says on which thread it runs.

use crate::consensus::{Entry, LogId, SnapshotMeta, Vote};
use crate::machine::decode_state;
use crate::sealed::{self, Cover, Rows, Tables};
use crate::{FIRST_MEMBER, RaftError, earlier};
use openraft::EntryPayload;
use redb::Database;
use seal::{Key, Seal};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use store::{Format, View};

const FILE: &str = "log.redb";

/// One step of a write. Doing a step again changes nothing.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    Append {
        index: u64,
        entry: Vec<u8>,
    },
    /// From here on there are entries of this format: a release that does not read it refuses the file.
    Format(Vec<u8>),
    Vote(Vec<u8>),
    /// Forget the entries from this index on.
    Truncate(u64),
    /// Forget the entries up to and with this index; the bytes are its log id.
    Purge(u64, Vec<u8>),
    /// Most members are known to have the entries up to and with this log id.
    Committed(Vec<u8>),
    /// The newest snapshot; so many before it stay.
    Snapshot {
        whole: Vec<u8>,
        keep: u64,
    },
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
    /// The format of its entries, as far as it has been noted.
    pub(crate) format: Format,
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

/// The keys by which a log is sealed.
#[derive(Clone, Debug)]
pub struct Keys {
    pub present: Key,
    /// The one before, while it is not sure that all is sealed by the present one.
    pub former: Option<Key>,
}

impl From<Key> for Keys {
    fn from(present: Key) -> Self {
        Self { present, former: None }
    }
}

#[derive(Debug)]
pub(crate) struct Disk {
    database: Database,
    /// Held while rows are read or written: it changes with all of them.
    seal: RwLock<Seal>,
}

impl Disk {
    /// Opens the log in `directory`, or makes a new one, and says what is in it. What a newer
    /// release has written is refused, and stays as it is.
    pub(crate) fn open(directory: &Path, keys: &Keys) -> Result<(Self, Found), RaftError> {
        let path = prepare(directory)
            .map_err(|source| RaftError::Directory { path: directory.to_owned(), source })?;
        let wrong = |source| RaftError::Open { path: path.clone(), source };
        let mut database = sealed::open(&path).map_err(wrong)?;
        let (seal, mut noted) = (Seal::new(&keys.present), Format::LEAST);
        let format = sealed::format(&database).map_err(wrong)?;
        if format.is_none() {
            sealed::make(&database, &seal).map_err(wrong)?;
        } else if let Some(format) = format.as_ref().filter(|format| !format.is_empty()) {
            let format = decode(format).map_err(|it| unreadable(&path, "the format", it))?;
            check(&path, "the file", format)?;
            noted = noted.max(format);
        }
        let cover = sealed::cover(&database, keys).map_err(wrong)?;
        let former = match &cover {
            Cover::None => None,
            Cover::Present => Some(&seal),
            Cover::Former(seal) => Some(seal),
            Cover::Other => return Err(RaftError::Sealed { path }),
        };
        let rows = Rows::begin(&database, former).map_err(wrong)?;
        let found = Found { format: noted, ..find(&rows, &path)? };
        drop(rows);
        let replaced = |source| RaftError::Replace { path: path.clone(), source };
        if !matches!(cover, Cover::Present) {
            database = sealed::replace((database, former), &path, &seal).map_err(replaced)?;
        }
        let disk = Self { database, seal: RwLock::new(seal) };
        disk.note_format(noted).map_err(wrong)?;
        Ok((disk, found))
    }

    fn seal(&self) -> RwLockReadGuard<'_, Seal> {
        // Nothing panics while it changes it.
        self.seal.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seals everything by another key. It blocks, and whoever reads or writes meanwhile waits.
    pub(crate) fn reseal(&self, key: &Key) -> io::Result<()> {
        let mut seal = self.seal.write().unwrap_or_else(PoisonError::into_inner);
        let new = Seal::new(key);
        sealed::reseal(&self.database, &seal, &new)?;
        *seal = new;
        Ok(())
    }

    /// Reads the file.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Rows<'_>) -> io::Result<T>) -> io::Result<T> {
        let seal = self.seal();
        read(&Rows::begin(&self.database, Some(&seal))?)
    }

    /// A release that does not read this format refuses the file from here on.
    pub(crate) fn note_format(&self, format: Format) -> io::Result<()> {
        let format = encode(&format).unwrap_or_default();
        if sealed::format(&self.database)?.as_ref() == Some(&format) {
            return Ok(());
        }
        self.write(|tables| tables.put_format(&format))
    }

    /// Makes sure that this is the log of `member`: another member's copy would vote in its name.
    /// Says whether it was made just now.
    pub(crate) fn claim(&self, path: &Path, member: u64, found: &Found) -> Result<bool, RaftError> {
        let wrong = |source| RaftError::Open { path: path.to_owned(), source };
        let noted = self.read(|rows| fact(rows, "member")).map_err(RaftError::Read)?;
        let is_new = noted.is_none() && found.is_empty();
        // Before several members there was one.
        let holder = noted.unwrap_or(if is_new { member } else { FIRST_MEMBER });
        if holder != member {
            return Err(RaftError::Member { path: path.to_owned(), holder, member });
        }
        if noted.is_none() {
            let member = encode(&member).map_err(RaftError::Read)?;
            self.write(|tables| tables.put_fact("member", &member)).map_err(wrong)?;
        }
        Ok(is_new)
    }

    /// The entries from `start` up to, and without, `end`; fewer, but at least one, where they have
    /// more than `limit` bytes.
    pub(crate) fn entries(&self, start: u64, end: u64, limit: u64) -> io::Result<Vec<Entry>> {
        self.read(|rows| {
            let (mut entries, mut size) = (Vec::new(), 0_u64);
            for row in rows.entries(start..end)? {
                let (_, row) = row?;
                size = size.saturating_add(bytes(&row));
                if limit < size && !entries.is_empty() {
                    break;
                }
                entries.push(decode(&row)?);
            }
            Ok(entries)
        })
    }

    pub(crate) fn snapshot(&self) -> io::Result<Option<StoredSnapshot>> {
        self.read(|rows| fact(rows, "snapshot"))
    }

    /// Makes `writes` so, all or none; they are on disk when this returns.
    pub(crate) fn commit<'a>(&self, writes: impl Iterator<Item = &'a Write>) -> io::Result<()> {
        self.write(|tables| {
            for write in writes {
                match write {
                    Write::Append { index, entry } => tables.put_entry(*index, entry)?,
                    Write::Format(format) => tables.put_format(format)?,
                    Write::Vote(vote) => tables.put_fact("vote", vote)?,
                    Write::Truncate(from) => tables.forget(from..)?,
                    Write::Purge(upto, id) => {
                        tables.forget(..=upto)?;
                        tables.put_fact("purged", id)?;
                    }
                    Write::Committed(id) => tables.put_fact("committed", id)?,
                    Write::Snapshot { whole, keep } => earlier::put(tables, whole, *keep)?,
                }
            }
            Ok(())
        })
    }

    fn write(&self, write: impl FnOnce(&mut Tables<'_>) -> io::Result<()>) -> io::Result<()> {
        let seal = self.seal();
        sealed::write(&self.database, &seal, write)
    }
}

/// Reads what was there before. All that a manager will start from has to be understood: later it
/// would stop half-way.
fn find(rows: &Rows<'_>, path: &Path) -> Result<Found, RaftError> {
    let read = RaftError::Read;
    let purged = fact(rows, "purged").map_err(read)?;
    let last = match rows.entries(..).map_err(read)?.next_back() {
        Some(row) => Some(decode::<Placed>(&row.map_err(read)?.1).map_err(read)?.log_id),
        None => purged,
    };
    let stored = fact(rows, "snapshot").map_err(read)?;
    let snapshot = stored.map(|stored| read_snapshot(path, stored)).transpose()?;
    let covered = snapshot.as_ref().and_then(|snapshot| snapshot.meta.last_log_id);
    let (vote, committed) =
        (fact(rows, "vote").map_err(read)?, fact(rows, "committed").map_err(read)?);
    let (format, uncovered) = (Format::LEAST, 0);
    let mut found = Found { vote, purged, last, committed, snapshot, format, uncovered };
    for row in rows.entries(covered.map_or(0, |id| id.index + 1)..).map_err(read)? {
        let (index, entry) = row.map_err(read)?;
        check_entry(path, &format!("entry {index}"), &entry)?;
        found.uncovered += bytes(&entry);
    }
    Ok(found)
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

/// Makes directory and file for the owner's eyes only.
fn prepare(directory: &Path) -> io::Result<PathBuf> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    std::fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    let path = directory.join(FILE);
    make_file(&path)?;
    Ok(path)
}

pub(crate) fn make_file(path: &Path) -> io::Result<()> {
    let file =
        OpenOptions::new().create(true).truncate(false).append(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))
}

fn fact<T: DeserializeOwned>(rows: &Rows<'_>, name: &str) -> io::Result<Option<T>> {
    rows.fact(name)?.map(|fact| decode(&fact)).transpose()
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
        let keys = Keys::from(Key::draw());
        let (disk, _) = Disk::open(directory.path(), &keys).unwrap();
        let whole = encode(&unreadable_snapshot()).unwrap();
        let snapshot = Write::Snapshot { whole, keep: 0 };
        disk.commit([&snapshot].into_iter()).unwrap();
        disk.note_format(Format::default()).unwrap();
        drop(disk);
        let refused = Disk::open(directory.path(), &keys).unwrap_err().to_string();
        assert!(refused.starts_with("cannot read the snapshot of the log"), "{refused}");
        let file = sealed::open(&directory.path().join(FILE)).unwrap();
        let format = sealed::format(&file).unwrap().unwrap();
        assert_eq!(decode::<Format>(&format).unwrap(), Format::default());
    }
}
