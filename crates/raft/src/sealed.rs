//! What is in the file is sealed: its library sees names, numbers and lengths alone.
//!
//! All rows are sealed by one key, each for its own place. The row `sealed` tells by which key; a file
//! of a former release, which is in the clear, has none. The row `format` is always in the clear.

use crate::disk::{Keys, make_file};
use redb::{
    Database, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable, Table, TableDefinition,
    TableError, WriteTransaction,
};
use seal::{OVERHEAD, Seal};
use std::fs::File;
use std::io;
use std::ops::RangeBounds;
use std::path::Path;

/// By index of the log.
pub(crate) const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");
/// By name.
pub(crate) const FACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts");
const FORMAT: &str = "format";
const MARK: &str = "sealed";

/// Most reads are answered from memory: the file is read when a manager starts.
const CACHE_BYTES: usize = 16 << 20;

fn entry_at(index: u64) -> Vec<u8> {
    [b"entries", index.to_be_bytes().as_slice()].concat()
}

fn fact_at(name: &str) -> Vec<u8> {
    [b"facts", name.as_bytes()].concat()
}

/// The file's tables for reading, as if they were in the clear.
pub(crate) struct Rows<'s> {
    entries: ReadOnlyTable<u64, &'static [u8]>,
    facts: ReadOnlyTable<&'static str, &'static [u8]>,
    /// None: they are.
    seal: Option<&'s Seal>,
}

impl<'s> Rows<'s> {
    pub(crate) fn begin(database: &Database, seal: Option<&'s Seal>) -> io::Result<Self> {
        let read = database.begin_read().map_err(failed)?;
        let entries = read.open_table(ENTRIES).map_err(failed)?;
        Ok(Self { entries, facts: read.open_table(FACTS).map_err(failed)?, seal })
    }

    fn open(&self, place: &[u8], row: &[u8]) -> io::Result<Vec<u8>> {
        let Some(seal) = self.seal else { return Ok(row.to_vec()) };
        let wrong = |refused| io::Error::new(io::ErrorKind::InvalidData, refused);
        seal.open(place, row).map_err(wrong)
    }

    pub(crate) fn fact(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let row = self.facts.get(name).map_err(failed)?;
        row.map(|row| self.open(&fact_at(name), row.value())).transpose()
    }

    pub(crate) fn entries(
        &self,
        range: impl RangeBounds<u64>,
    ) -> io::Result<impl DoubleEndedIterator<Item = io::Result<(u64, Vec<u8>)>>> {
        let rows = self.entries.range::<u64>(range).map_err(failed)?;
        Ok(rows.map(|row| {
            let (index, row) = row.map_err(failed)?;
            let index = index.value();
            Ok((index, self.open(&entry_at(index), row.value())?))
        }))
    }

    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let rows = self.facts.iter().map_err(failed)?;
        let names = rows.map(|row| row.map(|(name, _)| name.value().to_owned()));
        let mut names = names.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        names.retain(|name| name != FORMAT && name != MARK);
        Ok(names)
    }
}

/// The file's tables in one write.
pub(crate) struct Tables<'t> {
    entries: Table<'t, u64, &'static [u8]>,
    facts: Table<'t, &'static str, &'static [u8]>,
    seal: &'t Seal,
}

impl<'t> Tables<'t> {
    fn begin(write: &'t WriteTransaction, seal: &'t Seal) -> io::Result<Self> {
        let entries = write.open_table(ENTRIES).map_err(failed)?;
        Ok(Self { entries, facts: write.open_table(FACTS).map_err(failed)?, seal })
    }

    pub(crate) fn put_entry(&mut self, index: u64, entry: &[u8]) -> io::Result<()> {
        let row = self.entries.insert_reserve(index, entry.len() + OVERHEAD);
        self.seal.write(&entry_at(index), entry, row.map_err(failed)?.as_mut());
        Ok(())
    }

    pub(crate) fn put_fact(&mut self, name: &str, fact: &[u8]) -> io::Result<()> {
        let row = self.facts.insert_reserve(name, fact.len() + OVERHEAD);
        self.seal.write(&fact_at(name), fact, row.map_err(failed)?.as_mut());
        Ok(())
    }

    pub(crate) fn fact(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let row = self.facts.get(name).map_err(failed)?;
        let wrong = |refused| io::Error::new(io::ErrorKind::InvalidData, refused);
        row.map(|row| self.seal.open(&fact_at(name), row.value()).map_err(wrong)).transpose()
    }

    /// The names of all facts, in order.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let rows = self.facts.iter().map_err(failed)?;
        rows.map(|row| Ok(row.map_err(failed)?.0.value().to_owned())).collect()
    }

    pub(crate) fn remove_fact(&mut self, name: &str) -> io::Result<()> {
        self.facts.remove(name).map(drop).map_err(failed)
    }

    pub(crate) fn put_format(&mut self, format: &[u8]) -> io::Result<()> {
        self.facts.insert(FORMAT, format).map(drop).map_err(failed)
    }

    pub(crate) fn forget(&mut self, entries: impl RangeBounds<u64>) -> io::Result<()> {
        self.entries.retain_in::<u64, _>(entries, |_, _| false).map_err(failed)
    }

    fn take(&mut self, rows: &Rows<'_>) -> io::Result<()> {
        for entry in rows.entries(..)? {
            let (index, entry) = entry?;
            self.put_entry(index, &entry)?;
        }
        for name in rows.names()? {
            self.put_fact(&name, &rows.fact(&name)?.unwrap_or_default())?;
        }
        self.put_fact(MARK, &[])
    }
}

pub(crate) fn open(path: &Path) -> io::Result<Database> {
    Database::builder().set_cache_size(CACHE_BYTES).create(path).map_err(failed)
}

/// Makes the tables of a new file.
pub(crate) fn make(database: &Database, seal: &Seal) -> io::Result<()> {
    write(database, seal, |tables| tables.put_fact(MARK, &[]))
}

/// Writes all or nothing; it is on disk when this returns.
pub(crate) fn write(
    database: &Database,
    seal: &Seal,
    write: impl FnOnce(&mut Tables<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let mut transaction = database.begin_write().map_err(failed)?;
    transaction.set_durability(Durability::Immediate).map_err(failed)?;
    write(&mut Tables::begin(&transaction, seal)?)?;
    transaction.commit().map_err(failed)
}

/// What the file says of its format: none where it is new; nothing where its start was cut off.
pub(crate) fn format(database: &Database) -> io::Result<Option<Vec<u8>>> {
    let facts = match database.begin_read().map_err(failed)?.open_table(FACTS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        facts => facts.map_err(failed)?,
    };
    let format = facts.get(FORMAT).map_err(failed)?;
    Ok(Some(format.map_or_else(Vec::new, |format| format.value().to_vec())))
}

/// How the rows of a file are sealed.
pub(crate) enum Cover {
    /// They are in the clear.
    None,
    Present,
    Former(Seal),
    /// By none of the keys.
    Other,
}

pub(crate) fn cover(database: &Database, keys: &Keys) -> io::Result<Cover> {
    let facts = database.begin_read().map_err(failed)?.open_table(FACTS).map_err(failed)?;
    let Some(mark) = facts.get(MARK).map_err(failed)? else { return Ok(Cover::None) };
    let opens = |seal: &Seal| seal.open(&fact_at(MARK), mark.value()).is_ok();
    if opens(&Seal::new(&keys.present)) {
        return Ok(Cover::Present);
    }
    let former = keys.former.as_ref().map(Seal::new).filter(opens);
    Ok(former.map_or(Cover::Other, Cover::Former))
}

/// Seals all rows anew, in one write.
pub(crate) fn reseal(database: &Database, former: &Seal, seal: &Seal) -> io::Result<()> {
    let rows = Rows::begin(database, Some(former))?;
    write(database, seal, |tables| tables.take(&rows))
}

/// Puts a file that is sealed by `seal` in the place of this one, where what was freed could be read.
pub(crate) fn replace(
    (database, former): (Database, Option<&Seal>),
    path: &Path,
    seal: &Seal,
) -> io::Result<Database> {
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => make_file(&new)?,
    }
    let (rows, replacement) = (Rows::begin(&database, former)?, open(&new)?);
    write(&replacement, seal, |tables| tables.take(&rows))?;
    drop((rows, database, replacement));
    std::fs::rename(&new, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    open(path)
}

fn failed(error: impl Into<redb::Error>) -> io::Error {
    match error.into() {
        redb::Error::Io(error) => error,
        error => io::Error::other(error),
    }
}
