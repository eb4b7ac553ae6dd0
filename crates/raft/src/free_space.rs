//! Whether the disk has room for the log.
//!
//! A full disk stops the log for good (a write that failed half-way is not to be trusted), and with
//! it the daemon. So changes are refused before that, while there is still some free space: a refused
//! change leaves no trace, and changes are taken again as soon as there is free space. What is kept free
//! grows with the snapshot that may have to be written.

use crate::sizes::Sizes;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use types::Fault;

/// Free space that must be left for changes to be taken, besides that for a snapshot.
pub(crate) const RESERVE_BYTES: u64 = 32 << 20;

#[derive(Clone, Debug)]
pub(crate) struct FreeSpace {
    pub(crate) directory: PathBuf,
    pub(crate) reserve: u64,
    pub(crate) free: fn(&Path) -> io::Result<u64>,
    pub(crate) sizes: Arc<Sizes>,
}

impl FreeSpace {
    /// Says whether there is room for a change and the next snapshot.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        self.check_for(self.reserve.saturating_add(self.sizes.next_snapshot()))
    }

    /// Says whether there is room for what others have decided.
    pub(crate) fn check_reserve(&self) -> Result<(), Fault> {
        self.check_for(self.reserve)
    }

    fn check_for(&self, needed: u64) -> Result<(), Fault> {
        match (self.free)(&self.directory) {
            Ok(free) if free < needed => Err(Fault::unavailable(format!(
                "this manager's disk is full: {} has {} MiB left and the cluster's log needs {}; \
                 make room and try again",
                self.directory.display(),
                free >> 20,
                needed >> 20,
            ))),
            Ok(_) => Ok(()),
            // Not to know is no reason to refuse: the write itself will tell.
            Err(error) => {
                tracing::warn!(%error, "cannot see how full the disk of the log is");
                Ok(())
            }
        }
    }
}

/// What the disk of this directory has free, for those who are not root.
pub(crate) fn free_bytes(directory: &Path) -> io::Result<u64> {
    Ok(host::Disk::at(directory)?.bytes.free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_kept_for_a_snapshot_of_all_that_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let sizes = Arc::new(Sizes::default());
        let directory = folder.path().to_owned();
        let free = |_: &Path| Ok(100 << 20);
        let free_space = FreeSpace { directory, reserve: 0, free, sizes: Arc::clone(&sizes) };
        assert_eq!(free_space.check(), Ok(()));
        sizes.append(50 << 20);
        let fault = free_space.check().unwrap_err();
        assert!(fault.message.starts_with("this manager's disk is full"), "{fault}");
    }
}
