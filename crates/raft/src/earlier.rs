//! Snapshots before the newest one, which stay on disk as far as the cluster's settings want them: an
//! operator may look up what was. Nothing starts from them.

use crate::disk::{Disk, StoredSnapshot, decode};
use crate::sealed::{Rows, Tables};
use crate::sequencer::{Sequencer, stopping};
use std::io;
use types::Fault;

const NEWEST: &str = "snapshot";
const EARLIER: &str = "snapshot-";

/// Where an earlier snapshot stands: in the order of what they hold.
fn name(index: u64) -> String {
    format!("{EARLIER}{index:020}")
}

/// What a snapshot holds: all entries up to and with this index.
fn index(whole: &[u8]) -> io::Result<u64> {
    let stored: StoredSnapshot = decode(whole)?;
    Ok(stored.meta.last_log_id.map_or(0, |id| id.index))
}

/// Puts a snapshot in the place of the newest one, and keeps so many before it.
pub(crate) fn put(tables: &mut Tables<'_>, whole: &[u8], keep: u64) -> io::Result<()> {
    if keep > 0
        && let Some(last) = tables.fact(NEWEST)?
    {
        tables.put_fact(&name(index(&last)?), &last)?;
    }
    tables.put_fact(NEWEST, whole)?;
    let mut earlier = tables.names()?;
    earlier.retain(|name| name.starts_with(EARLIER));
    let keep = usize::try_from(keep).unwrap_or(usize::MAX);
    for name in earlier.iter().rev().skip(keep) {
        tables.remove_fact(name)?;
    }
    Ok(())
}

/// What the snapshots on disk hold, the oldest first.
fn indexes(rows: &Rows<'_>) -> io::Result<Vec<u64>> {
    let names = rows.names()?;
    let earlier = names.iter().filter_map(|name| name.strip_prefix(EARLIER)?.parse().ok());
    let newest = rows.fact(NEWEST)?.map(|whole| index(&whole)).transpose()?;
    Ok(earlier.chain(newest).collect())
}

impl Disk {
    pub(crate) fn snapshots(&self) -> io::Result<Vec<u64>> {
        self.read(indexes)
    }
}

impl Sequencer {
    /// The last index of what each snapshot on this member's disk holds, the newest one last.
    pub async fn snapshots(&self) -> Result<Vec<u64>, Fault> {
        let disk = self.shared.disk.upgrade().ok_or_else(stopping)?;
        let read = tokio::task::spawn_blocking(move || disk.snapshots()).await;
        let read = read.map_err(|_ended| stopping())?;
        read.map_err(|error| Fault::internal(format!("cannot read the log: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::{LogId, SnapshotMeta, StoredMembership};
    use crate::disk::{Write, encode};
    use seal::Key;

    fn write(disk: &Disk, index: u64, keep: u64) -> Vec<u64> {
        let last_log_id = Some(LogId::new_term_index(1, index));
        let meta = SnapshotMeta { last_log_id, last_membership: StoredMembership::default() };
        let data = crate::machine::encode_state(&store::View::default()).unwrap();
        let whole = encode(&StoredSnapshot { meta, data }).unwrap();
        disk.commit([Write::Snapshot { whole, keep }].iter()).unwrap();
        disk.snapshots().unwrap()
    }

    #[test]
    fn as_many_snapshots_before_the_newest_are_kept_as_are_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Key::draw().into();
        let (disk, _) = Disk::open(folder.path(), &keys).unwrap();
        assert!(disk.snapshots().unwrap().is_empty());
        for (index, keep, expected) in [
            (3, 0, &[3][..]),
            (9, 0, &[9]),
            (20, 2, &[9, 20]),
            (100, 2, &[9, 20, 100]),
            (1000, 2, &[20, 100, 1000]),
            (2000, 1, &[1000, 2000]),
        ] {
            assert_eq!(write(&disk, index, keep), expected);
        }
        drop(disk);
        // They are sealed by another key like all that is there, and go when nobody wants them.
        let (disk, found) = Disk::open(folder.path(), &keys).unwrap();
        assert_eq!(found.snapshot.unwrap().meta.last_log_id.unwrap().index, 2000);
        disk.reseal(&Key::draw()).unwrap();
        assert_eq!(disk.snapshots().unwrap(), [1000, 2000]);
        assert_eq!(write(&disk, 3000, 0), [3000]);
    }
}
