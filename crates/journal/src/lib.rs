//! What must survive a daemon: values by key, in one file, where a change costs what changed.
//!
//! It does not know what is kept. Start with [`Journal`]: say what is other ([`Journal::put`],
//! [`Journal::remove`]), then [`Journal::save`] it. Keys and values of a [`Kind`] are MessagePack
//! in a table of a redb database.
//!
//! Invariants: a save is all or nothing, and on disk when it returns; what could not be saved is
//! kept in mind and saved by the next one, so nothing that was on disk is lost to a full disk. A
//! file that is damaged is told with its path, and never taken for an empty one; that one could be
//! repaired is said in the log. Nobody but its owner may read it: there may be credentials in it. No
//! worker of the runtime waits for the disk, and one thread at a time does for each journal, however
//! often somebody gives up waiting for a disk that hangs.

#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod file;
mod former;

use file::{Changes, Table};
use redb::Database;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinError, JoinHandle};

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
    #[error("cannot remove {path}, which a former release wrote and which is taken over")]
    Former {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
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
        Table::new(self.name)
    }
}

/// A journal's file.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// `None` after a write that failed: the file is opened anew.
    database: Option<Arc<Database>>,
    /// What is to be written next.
    changes: Changes,
    /// The write that is under way.
    writing: Option<Writing>,
    /// What former files say is in this one: see [`Self::take_over`].
    has_taken_over: bool,
}

#[derive(Debug)]
struct Writing {
    changes: Arc<Changes>,
    write: JoinHandle<Result<Arc<Database>, Error>>,
}

impl Journal {
    /// Opens the file at `path`, which is made where it is missing, with its folder. Whoever has just
    /// let go of it may still hold it for a moment: that is waited for.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let mut tries = 0;
        let file::Checked { inner, is_whole } = loop {
            let of = path.to_owned();
            match blocking(path, move || file::guarded(&of, || file::open(&of))).await {
                Err(Error::InUse { .. }) if tries < LOCK_TRIES => {
                    tries += 1;
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                opened => break opened?,
            }
        };
        if !is_whole {
            let why = "a journal was damaged and is repaired: what was saved last may be lost";
            tracing::warn!(path = %path.display(), "{why}");
        }
        let mut journal = Self {
            path: path.to_owned(),
            database: Some(Arc::new(inner)),
            changes: Changes::new(),
            writing: None,
            has_taken_over: false,
        };
        journal.has_taken_over = !journal.load(&former::TAKEN_OVER).await?.is_empty();
        Ok(journal)
    }

    /// Reads all of a kind that is on disk.
    pub async fn load<K, V>(&self, kind: &Kind<K, V>) -> Result<BTreeMap<K, V>, Error>
    where
        K: DeserializeOwned + Ord + Send + 'static,
        V: DeserializeOwned + Send + 'static,
    {
        let closed = || self.io(io::Error::other("the last save has failed"));
        let database = self.database.clone().ok_or_else(closed)?;
        let (path, table) = (self.path.clone(), kind.table());
        blocking(&self.path, move || {
            let rows = file::guarded(&path, || file::rows(&database, table))?.into_iter();
            let read = rows.map(|file::Row { key, value }| {
                Ok((msgpack::decode(&key)?, msgpack::decode(&value)?))
            });
            let read: Result<_, msgpack::Error> = read.collect();
            read.map_err(|source| Error::Damaged { path, source: source.into() })
        })
        .await
    }

    /// Notes a value, for the next [`Self::save`].
    pub fn put<K: Serialize, V: Serialize>(
        &mut self,
        kind: &Kind<K, V>,
        key: &K,
        value: &V,
    ) -> Result<(), Error> {
        let value = msgpack::encode(value);
        let value = value.map_err(|error| self.invalid(error))?;
        self.change(kind, key, Some(value))
    }

    /// Notes that a value goes, for the next [`Self::save`].
    pub fn remove<K: Serialize, V>(&mut self, kind: &Kind<K, V>, key: &K) -> Result<(), Error> {
        self.change(kind, key, None)
    }

    /// Writes what was noted and is not on disk yet. When it returns well, all of it is. Whoever
    /// gives up waiting has lost nothing: the next one waits for that write, and writes the rest.
    pub async fn save(&mut self) -> Result<(), Error> {
        loop {
            let Some(writing) = &mut self.writing else {
                if self.changes.is_empty() {
                    return Ok(());
                }
                self.writing = Some(self.write());
                continue;
            };
            let written = (&mut writing.write).await.map_err(|error| lost(&self.path, error));
            let changes = self.writing.take().map(|writing| writing.changes).unwrap_or_default();
            match written.flatten() {
                Ok(database) => self.database = Some(database),
                Err(error) => {
                    // What this one believes of the file may not be so any more.
                    self.database = None;
                    let newer = std::mem::replace(&mut self.changes, Arc::unwrap_or_clone(changes));
                    for (kind, rows) in newer {
                        self.changes.entry(kind).or_default().extend(rows);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Begins to write what was noted.
    fn write(&mut self) -> Writing {
        let changes = Arc::new(std::mem::take(&mut self.changes));
        let (path, database, these) =
            (self.path.clone(), self.database.clone(), Arc::clone(&changes));
        let write = tokio::task::spawn_blocking(move || {
            #[cfg(any(test, feature = "fake"))]
            fake::wait(&path);
            let write = || {
                let database = match database {
                    Some(database) => database,
                    None => Arc::new(file::reopen(&path)?),
                };
                file::write(&database, &these)?;
                Ok(database)
            };
            write().map_err(|error| file::failed(&path, error))
        });
        Writing { changes, write }
    }

    fn change<K: Serialize, V>(
        &mut self,
        kind: &Kind<K, V>,
        key: &K,
        value: Option<Vec<u8>>,
    ) -> Result<(), Error> {
        let key = msgpack::encode(key).map_err(|error| self.invalid(error))?;
        self.changes.entry(kind.name).or_default().insert(key, value);
        Ok(())
    }

    fn invalid(&self, error: msgpack::Error) -> Error {
        self.io(io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn io(&self, source: io::Error) -> Error {
        Error::Io { path: self.path.clone(), source }
    }
}

/// Does what waits for the disk.
async fn blocking<T: Send + 'static>(
    path: &Path,
    run: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(run).await.map_err(|error| lost(path, error))?
}

fn lost(path: &Path, error: JoinError) -> Error {
    Error::Io { path: path.to_owned(), source: io::Error::other(error) }
}

#[cfg(test)]
mod tests;
