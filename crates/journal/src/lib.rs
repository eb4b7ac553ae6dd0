//! What must survive a daemon: values by key, in one file, where a change costs what changed.
//!
//! It does not know what is kept. Start with [`Journal`]: say what is other ([`Journal::put`],
//! [`Journal::remove`]), then [`Journal::save`] it. Keys and values of a [`Kind`] are MessagePack
//! in a table of a redb database.
//!
//! Invariants: a save is all or nothing, and on disk when it returns; what could not be saved is
//! kept in mind and saved by the next one, so nothing that was on disk is lost to a full disk. A
//! file that is damaged is told with its path, and never taken for an empty one. Nobody but its
//! owner may read it: there may be credentials in it.

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fs::{OpenOptions, Permissions};
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The file is read when a daemon starts, and written in small pieces.
const CACHE_BYTES: usize = 1 << 20;
/// How often, and how long each time, a file is waited for that somebody else holds.
const LOCK_TRIES: u32 = 500;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the journal {path} cannot be read: move it away to start anew")]
    Damaged {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the journal {path} is in use by another process")]
    InUse { path: PathBuf },
    #[error("cannot use the journal {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// One kind of what is kept: a table of its own.
#[derive(Debug)]
pub struct Kind<K, V> {
    name: &'static str,
    holds: PhantomData<fn(K) -> V>,
}

impl<K, V> Kind<K, V> {
    pub const fn new(name: &'static str) -> Self {
        Self { name, holds: PhantomData }
    }

    fn table(&self) -> Table {
        TableDefinition::new(self.name)
    }
}

struct Row {
    key: Vec<u8>,
    value: Vec<u8>,
}

type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// What is to be saved: by kind and key the value; `None`: it goes.
type Changes = BTreeMap<&'static str, BTreeMap<Vec<u8>, Option<Vec<u8>>>>;

/// A journal's file.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// `None` after a write that failed: the file is opened anew.
    database: Option<Arc<Database>>,
    /// What is not on disk yet.
    changes: Arc<Changes>,
}

impl Journal {
    /// Opens the file at `path`, which is made where it is missing, with its folder. Whoever has just
    /// let go of it may still hold it for a moment: that is waited for.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)
            .map_err(|source| Error::Io { path: folder.to_owned(), source })?;
        let mut tries = 0;
        let database = loop {
            match guarded(path, || open(path)) {
                Err(Error::InUse { .. }) if tries < LOCK_TRIES => {
                    tries += 1;
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                opened => break opened?,
            }
        };
        Ok(Self {
            path: path.to_owned(),
            database: Some(Arc::new(database)),
            changes: Arc::default(),
        })
    }

    /// Reads all of a kind that is on disk.
    pub fn load<K: DeserializeOwned + Ord, V: DeserializeOwned>(
        &self,
        kind: &Kind<K, V>,
    ) -> Result<BTreeMap<K, V>, Error> {
        let Some(database) = &self.database else { return Ok(BTreeMap::new()) };
        let rows = guarded(&self.path, || rows(database, kind.table()))?;
        let damaged = |source: rmp_serde::decode::Error| Error::Damaged {
            path: self.path.clone(),
            source: source.into(),
        };
        let rows = rows
            .into_iter()
            .map(|row| Ok((rmp_serde::from_slice(&row.key)?, rmp_serde::from_slice(&row.value)?)));
        rows.collect::<Result<_, _>>().map_err(damaged)
    }

    /// Notes a value, for the next [`Self::save`].
    pub fn put<K: Serialize, V: Serialize>(
        &mut self,
        kind: &Kind<K, V>,
        key: &K,
        value: &V,
    ) -> Result<(), Error> {
        let value = rmp_serde::to_vec_named(value);
        let value = value.map_err(|error| self.invalid(error))?;
        self.change(kind, key, Some(value))
    }

    /// Notes that a value goes, for the next [`Self::save`].
    pub fn remove<K: Serialize, V>(&mut self, kind: &Kind<K, V>, key: &K) -> Result<(), Error> {
        self.change(kind, key, None)
    }

    /// Writes what was noted and is not on disk yet. When it returns well, all of it is. Whoever
    /// gives up waiting has lost nothing: the next one writes it.
    pub async fn save(&mut self) -> Result<(), Error> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let (database, changes) = (self.database.clone(), Arc::clone(&self.changes));
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || {
            let database = match database {
                Some(database) => database,
                None => Arc::new(open(&path)?),
            };
            write(&database, &changes)?;
            Ok(database)
        });
        let written = written.await.map_err(|error| self.io(io::Error::other(error)));
        match written.and_then(|written| written.map_err(|error| failed(&self.path, error))) {
            Ok(database) => {
                self.database = Some(database);
                self.changes = Arc::default();
                Ok(())
            }
            Err(error) => {
                // What this one believes of the file may not be so any more.
                self.database = None;
                Err(error)
            }
        }
    }

    fn change<K: Serialize, V>(
        &mut self,
        kind: &Kind<K, V>,
        key: &K,
        value: Option<Vec<u8>>,
    ) -> Result<(), Error> {
        let key = rmp_serde::to_vec(key).map_err(|error| self.invalid(error))?;
        Arc::make_mut(&mut self.changes).entry(kind.name).or_default().insert(key, value);
        Ok(())
    }

    fn invalid(&self, error: rmp_serde::encode::Error) -> Error {
        self.io(io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn io(&self, source: io::Error) -> Error {
        Error::Io { path: self.path.clone(), source }
    }
}

fn open(path: &Path) -> Result<Database, redb::Error> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(redb::Error::Io)?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(redb::Error::Io)?;
    // The name must be on disk, too.
    if let Some(folder) = path.parent() {
        std::fs::File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(redb::Error::Io)?;
    }
    drop(file);
    let mut database = Database::builder().set_cache_size(CACHE_BYTES).create(path)?;
    // Damage of a page that nobody looks at yet is damage.
    database.check_integrity()?;
    Ok(database)
}

fn rows(database: &Database, table: Table) -> Result<Vec<Row>, redb::Error> {
    let table = match database.begin_read()?.open_table(table) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let rows = table.iter()?.map(|row| {
        let (key, value) = row?;
        Ok(Row { key: key.value().to_vec(), value: value.value().to_vec() })
    });
    rows.collect()
}

fn write(database: &Database, changes: &Changes) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    for (kind, changes) in changes {
        let mut table = transaction.open_table(Table::new(kind))?;
        for (key, value) in changes {
            match value {
                Some(value) => drop(table.insert(key.as_slice(), value.as_slice())?),
                None => drop(table.remove(key.as_slice())?),
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Reads what may be damaged: some damage is found by an assertion alone.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, Error> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)) {
        Ok(read) => read.map_err(|error| failed(path, error)),
        Err(_) => {
            Err(Error::Damaged { path: path.to_owned(), source: "it contradicts itself".into() })
        }
    }
}

/// What the machine does not let be done is no damage.
fn failed(path: &Path, error: redb::Error) -> Error {
    let path = path.to_owned();
    match error {
        redb::Error::Io(source) => match source.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Error::Damaged { path, source: source.into() }
            }
            _ => Error::Io { path, source },
        },
        redb::Error::DatabaseAlreadyOpen => Error::InUse { path },
        error @ redb::Error::PreviousIo => Error::Io { path, source: io::Error::other(error) },
        error => Error::Damaged { path, source: error.into() },
    }
}

#[cfg(test)]
mod tests;
