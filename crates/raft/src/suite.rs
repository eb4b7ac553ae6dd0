//! The library's own examination of a log and of what it adds up to.

use crate::consensus::Consensus;
use crate::disk::Disk;
use crate::log::Log;
use crate::machine::Machine;
use crate::sizes::Sizes;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use seal::Key;
use std::sync::Arc;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

struct Builder;

impl StoreBuilder<Consensus, Log, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, Log, Machine), StorageError<Consensus>> {
        let directory = tempfile::tempdir().unwrap();
        let (disk, mut found) = Disk::open(directory.path(), &Key::draw().into()).unwrap();
        let (disk, sizes) = (Arc::new(disk), Arc::new(Sizes::default()));
        let last = CancellationToken::new().drop_guard();
        let (log, _thread) = Log::start(&disk, &found, Arc::clone(&sizes), last).unwrap();
        let (machine, _views) = Machine::start(found.snapshot.take(), (disk, log.writer()), sizes);
        Ok((directory, log, machine))
    }
}

#[tokio::test]
async fn the_log_passes_the_librarys_own_suite() {
    Suite::test_all(Builder).await.unwrap();
}
