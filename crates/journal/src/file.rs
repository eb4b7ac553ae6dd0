//! The file itself: a redb database. Everything here waits for the disk.

use crate::Error;
use redb::backends::FileBackend;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// The file is read when a daemon starts, and written in small pieces.
const CACHE_BYTES: usize = 1 << 20;

pub(crate) type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// What is to be saved: by kind and key the value; `None`: it goes.
pub(crate) type Changes = BTreeMap<&'static str, BTreeMap<Vec<u8>, Option<Vec<u8>>>>;

pub(crate) struct Row {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// A database that was looked through.
pub(crate) struct Checked {
    pub(crate) inner: Database,
    /// Where it is not, it was repaired: what was saved last may be lost.
    pub(crate) is_whole: bool,
}

/// Opens the file at `path`, which is made where it is missing, with its folder.
pub(crate) fn open(path: &Path) -> Result<Checked, redb::Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut inner = reopen(path)?;
    // The name must be on disk, too.
    File::open(folder)?.sync_all()?;
    // Damage of a page that nobody looks at yet is damage.
    let is_whole = inner.check_integrity()?;
    Ok(Checked { inner, is_whole })
}

/// The same of a file that was looked through before.
pub(crate) fn reopen(path: &Path) -> Result<Database, redb::Error> {
    let mut options = OpenOptions::new();
    let file =
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    let mut builder = Database::builder();
    Ok(builder.set_cache_size(CACHE_BYTES).create_with_backend(FileBackend::new(file)?)?)
}

pub(crate) fn rows(database: &Database, table: Table) -> Result<Vec<Row>, redb::Error> {
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

pub(crate) fn write(database: &Database, changes: &Changes) -> Result<(), redb::Error> {
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
pub(crate) fn guarded<T>(
    path: &Path,
    read: impl FnOnce() -> Result<T, redb::Error>,
) -> Result<T, Error> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)) {
        Ok(read) => read.map_err(|error| failed(path, error)),
        Err(_) => {
            Err(Error::Damaged { path: path.to_owned(), source: "it contradicts itself".into() })
        }
    }
}

/// What the machine does not let be done is no damage.
pub(crate) fn failed(path: &Path, error: redb::Error) -> Error {
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
